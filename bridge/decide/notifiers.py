"""The notifiers of rules.toml, with their secrets taken from the environment."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol
from urllib.parse import urlsplit

from bridge.decide.shapes import Env, NotifierTable, SlackTable, WebhookTable
from bridge.decide.words import suggest
from bridge.model import Notifier, Rate, SlackNotifier, WebhookNotifier

_SHAPES: Mapping[str, type[NotifierTable]] = {"slack": SlackTable, "webhook": WebhookTable}
# Slack takes a message a second and channel ("Rate limits", read 2026-11-21); one at a time keeps their order.
_SLACK_RATE = Rate(count=1, per=timedelta(seconds=1))
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# Ours to set, or the connection's.
RESERVED_HEADERS = frozenset(
    {"host", "content-length", "content-type", "transfer-encoding", "connection", "user-agent", "expect", "te",
     "upgrade", "trailer", "keep-alive", "proxy-connection"}
)  # fmt: skip


class _Note(Protocol):
    def __call__(self, path: Sequence[str | int], text: str, *, warning: bool = False) -> None: ...


class NotifierReader:
    """Reads one [notifier.NAME] after the other; `note` takes the faults."""

    def __init__(self, environ: Mapping[str, str], note: _Note) -> None:
        self._environ = environ
        self._note = note

    def shape_of(self, table: Any, path: tuple[str, ...]) -> type[NotifierTable] | None:
        kind = table.get("type") if isinstance(table, dict) else None
        if isinstance(kind, str) and kind in _SHAPES:
            return _SHAPES[kind]
        said = f'"{kind}" is no type of notifier{suggest(str(kind), _SHAPES)}' if kind else '"type" is missing'
        self._note((*path, "type"), f'{said}; it is "slack" or "webhook"')
        return None

    def read(self, name: str, shape: NotifierTable) -> Notifier | None:
        return self._slack(name, shape) if isinstance(shape, SlackTable) else self._webhook(name, shape)

    def _slack(self, name: str, shape: SlackTable) -> Notifier | None:
        path = ("notifier", name)
        if bool(shape.url) == bool(shape.channel):
            self._note(path, "set channel and token (a bot), or url (an incoming webhook): one of the two")
            return None
        if shape.channel and not shape.token:
            self._note(path, 'channel needs token = { env = "SLACK_BOT_TOKEN" }')
            return None
        if shape.url and (shape.thread != "none" or shape.update):
            text = "an incoming webhook has no threads and no updates; they need channel and token"
            self._note((*path, "thread" if shape.thread != "none" else "update"), text)
        url = self._from_env(shape.url, (*path, "url"))
        if url and not _is_url(url[0]):
            self._note((*path, "url"), f"the value of {shape.url and shape.url.env[0]} is not an http(s) address")
        return SlackNotifier(
            name=name,
            retry=shape.retry,
            fallback=shape.fallback,
            max_in_flight=shape.max_in_flight or 1,
            rate=shape.rate or _SLACK_RATE,
            channel=shape.channel,
            token=next(iter(self._from_env(shape.token, (*path, "token"))), None),
            url=next(iter(url), None),
            thread=shape.thread,
            update=shape.update,
        )

    def _webhook(self, name: str, shape: NotifierTable) -> Notifier:
        assert isinstance(shape, WebhookTable)  # noqa: S101  (there are two shapes)
        path = ("notifier", name)
        secrets = self._from_env(shape.secret, (*path, "secret"), optional_after_first=True)
        for variable, secret in zip(shape.secret.env if shape.secret else (), secrets, strict=False):
            if why := _bad_secret(secret):
                self._note((*path, "secret"), f"the value of {variable} {why}")
        if shape.secret is None:
            self._note(
                path,
                'without `secret` its messages are not signed; set secret = { env = "NAME" }',
                warning=True,
            )
        return WebhookNotifier(
            name=name,
            retry=shape.retry,
            fallback=shape.fallback,
            max_in_flight=shape.max_in_flight or 4,
            rate=shape.rate,
            url=self._url(shape.url, (*path, "url")),
            secrets=secrets,
            headers=tuple(self._headers(shape.headers, (*path, "headers"))),
            order=shape.order,
            format=shape.format,
        )

    def _url(self, value: str | Env, path: tuple[str, ...]) -> str:
        url = value if isinstance(value, str) else next(iter(self._from_env(value, path)), "")
        if url and not _is_url(url):
            shown = f'"{url}"' if isinstance(value, str) else f"the value of {value.env[0]}"
            self._note(path, f"{shown} is not an http(s) address without user and password")
        return url

    def _headers(self, headers: Mapping[str, str | Env], path: tuple[str, ...]) -> list[tuple[str, str]]:
        found = []
        for name, value in headers.items():
            text = value if isinstance(value, str) else next(iter(self._from_env(value, (*path, name))), "")
            if not _HEADER.fullmatch(name) or not text.isprintable():
                self._note((*path, name), "a header is a name and one line of text")
            elif name.lower() in RESERVED_HEADERS or name.lower().startswith("webhook-"):
                self._note((*path, name), "the bridge sets this header itself")
            else:
                found.append((name, text))
        return found

    def _from_env(
        self, env: Env | None, path: tuple[str, ...], *, optional_after_first: bool = False
    ) -> tuple[str, ...]:
        """Return the values; a variable that is missing or empty is a fault, save the old one of a rotation."""
        found = []
        for number, variable in enumerate(env.env if env else ()):
            value = self._environ.get(variable, "").strip()
            if value:
                found.append(value)
            elif number == 0 or not optional_after_first:
                self._note(path, f"environment variable {variable} is {_state(variable, self._environ)}")
        return tuple(found)


def _state(variable: str, environ: Mapping[str, str]) -> str:
    return "empty" if variable in environ else "not set"


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and "@" not in parts.netloc
            and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        return False


def _bad_secret(secret: str) -> str | None:
    """Say what is wrong with a Standard Webhooks secret: whsec_ and the base64 of 24 to 64 bytes (spec 1.0.0)."""
    try:
        key = b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith("whsec_") or not 24 <= len(key) <= 64:
        return "is not whsec_ followed by the base64 of 24 to 64 random bytes"
    return None
