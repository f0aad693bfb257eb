"""The notifiers of rules.toml, with their secrets taken from the environment."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Any

from bridge.decide.customs import Body
from bridge.decide.shapes import Env, NotifierTable, SlackTable, WebhookTable
from bridge.decide.template_reader import Note, TemplateReader
from bridge.decide.templates import rendered
from bridge.decide.words import shown, suggest
from bridge.environment import fault, lookup
from bridge.model import Notifier, Rate, SlackNotifier, WebhookNotifier, Writer
from bridge.url import encoded

_SHAPES: Mapping[str, type[NotifierTable]] = {"slack": SlackTable, "webhook": WebhookTable}
# Slack takes a message a second and channel ("Rate limits", read 2026-11-21); one at a time keeps their order.
_SLACK_RATE = Rate(count=1, per=timedelta(seconds=1))
_USUAL_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_LONGEST_CHANNEL = 100  # characters of one that is no template
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# Ours to set, or the connection's.
RESERVED_HEADERS = frozenset(
    {"host", "content-length", "content-type", "transfer-encoding", "connection", "user-agent", "expect", "te",
     "upgrade", "trailer", "keep-alive", "proxy-connection"}
)  # fmt: skip

_SECRET_HEADERS = frozenset({"authorization", "cookie", "x-api-key", "api-key", "x-auth-token"})


class NotifierReader:
    """Reads one [notifier.NAME] after the other; `note` takes the faults."""

    def __init__(self, environ: Mapping[str, str], note: Note, templates: TemplateReader | None = None) -> None:
        self._environ = environ
        self._note = note
        self._templates = templates or TemplateReader(note)

    def shape_of(self, table: Mapping[str, Any], path: tuple[str, ...]) -> type[NotifierTable] | None:
        kind = table.get("type")
        if isinstance(kind, str) and kind in _SHAPES:
            return _SHAPES[kind]
        if kind is None:
            self._note(path, '"type" is missing; it is "slack" or "webhook"')
        else:
            near = suggest(kind, _SHAPES) if isinstance(kind, str) else ""
            self._note((*path, "type"), f'{shown(kind)} is no type of notifier{near}; it is "slack" or "webhook"')
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
        if shape.url and shape.token:
            self._note((*path, "token"), "an incoming webhook takes no token; take it out, or write channel for url")
        if shape.url and (shape.thread != "none" or shape.update):
            text = "an incoming webhook has no threads and no updates; they need channel and token"
            self._note((*path, "thread" if shape.thread != "none" else "update"), text)
        url = self._url(shape.url, (*path, "url")) if shape.url else None
        channels = tuple(dict.fromkeys(shape.channels or ()))
        template = self._channel_template(shape, path)
        return SlackNotifier(
            name=name,
            retry=shape.retry,
            fallback=shape.fallback,
            max_in_flight=shape.max_in_flight or 1,
            rate=shape.rate or _SLACK_RATE,
            channel=channels[0] if template and channels else shape.channel,
            channels=channels,
            channel_template=template,
            token=self._token(shape.token, (*path, "token")),
            url=url,
            thread=shape.thread,
            update=shape.update,
        )

    def _channel_template(self, shape: SlackTable, path: tuple[str, ...]) -> Writer | None:
        """Return what names the channel, where that is a template."""
        channel = shape.channel or ""
        if "{{" not in channel and "{%" not in channel:
            if len(channel) > _LONGEST_CHANNEL:
                self._note((*path, "channel"), f"is too long: {_LONGEST_CHANNEL} is the most")
            if shape.channels is not None:
                text = 'belongs to a channel that is a template, such as channel = "{{ job.user_data.channel }}"'
                self._note((*path, "channels"), text)
            return None
        if shape.channels is None:
            text = 'a template needs channels = ["C024BE91L"] beside it: all that it may name, first the usual one'
            self._note((*path, "channel"), text)
        template = self._templates.template(channel, (*path, "channel"))
        return partial(rendered, template) if template else None

    def _webhook(self, name: str, shape: NotifierTable) -> Notifier:
        assert isinstance(shape, WebhookTable)  # noqa: S101  (there are two shapes)
        path = ("notifier", name)
        secrets = self._secrets(shape.secret, (*path, "secret"))
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
            body=self._body(shape, path),
        )

    def _body(self, shape: WebhookTable, path: tuple[str, ...]) -> Body | None:
        if shape.body is None:
            return None
        if shape.format == "cloudevents":
            text = '"cloudevents" is the form of the usual body; take it out, or the body'
            self._note((*path, "format"), text)
        return self._templates.body(shape.body, (*path, "body"))

    def _url(self, value: str | Env, path: tuple[str, ...]) -> str:
        """Return the URL as it goes onto the wire."""
        url = value if isinstance(value, str) else self._one(value, path)
        if url is None:
            return ""
        try:
            return encoded(url)
        except ValueError as error:
            self._note(path, _no_url(value, fault(url) or str(error)))
        return ""

    def _headers(self, headers: Mapping[str, str | Env], path: tuple[str, ...]) -> list[tuple[str, str]]:
        found = []
        for name, value in headers.items():
            text = value if isinstance(value, str) else self._one(value, (*path, name)) or ""
            if not _HEADER.fullmatch(name) or not (text.isascii() and text.isprintable()):
                self._note((*path, name), "a header is a name and one line of plain ASCII text")
            elif name.lower() in RESERVED_HEADERS or name.lower().startswith("webhook-"):
                self._note((*path, name), "the bridge sets this header itself")
            elif isinstance(value, str) and name.lower() in _SECRET_HEADERS:
                self._note((*path, name), f'a secret comes from the environment: write "{name}" = {{ env = "NAME" }}')
            else:
                found.append((name, text))
        return found

    def _secrets(self, env: Env | None, path: tuple[str, ...]) -> tuple[str, ...]:
        """Return the secrets; all of them sign."""
        found = []
        for number, variable in enumerate(env.env if env else ()):
            secret = self._value(variable)
            if secret:
                found.append(secret)
                if why := fault(secret) or _bad_secret(secret):
                    self._note(path, f"the value of {variable} {why}")
            else:
                over = "; take it out when the rotation is over" if number else ""
                self._note(path, self._missing(variable) + over)
        return tuple(found)

    def _token(self, env: Env | None, path: tuple[str, ...]) -> str | None:
        token = self._one(env, path)
        if env and token and (why := _bad_token(token)):
            self._note(path, f"the value of {env.env[0]} {why}")
        return token

    def _one(self, env: Env | None, path: tuple[str, ...]) -> str | None:
        """Return the value; a variable that is missing or empty is a fault."""
        if env is None:
            return None
        if len(env.env) > 1:
            self._note(path, "takes one environment variable; only a secret can have two")
        value = self._value(env.env[0])
        if not value:
            self._note(path, self._missing(env.env[0]))
        return value

    def _value(self, variable: str) -> str | None:
        return lookup(self._environ, variable)

    def _missing(self, variable: str) -> str:
        if variable in self._environ:
            return f"environment variable {variable} is empty"
        # A secret that stands where its name belongs must not be said back.
        if not _USUAL_NAME.fullmatch(variable):
            return "no environment variable has this name; they are usually written LIKE_THIS"
        return f"environment variable {variable} is not set"


def _no_url(value: str | Env, why: str) -> str:
    # Not shown: user and password in it may be the very fault.
    said = "this" if isinstance(value, str) else f"the value of {value.env[0]}"
    right = "https://cms.example.com/hooks/media"
    return f"{said} is not an http(s) address without user and password, such as {right}: {why}"


def _bad_token(token: str) -> str | None:
    if not (token.isascii() and token.isprintable() and " " not in token):
        return "is no token: it has white space or a character in it that no token has; copy it again"
    return fault(token)


def _bad_secret(secret: str) -> str | None:
    """Say what is wrong with a Standard Webhooks secret: whsec_ and the base64 of 24 to 64 bytes (spec 1.0.0)."""
    try:
        key = b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith("whsec_") or not 24 <= len(key) <= 64:
        return "is not whsec_ followed by the base64 of 24 to 64 random bytes"
    return None
