"""[notifier.NAME] with type = "webhook"."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from bridge.decide.messages.build import Body
from bridge.decide.rulesfile.schema import Env, NotifierTable
from bridge.decide.rulesfile.values import Path, Values
from bridge.environment import fault
from bridge.model import Notifier, WebhookNotifier

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# Ours to set, or the connection's.
_RESERVED_HEADERS = frozenset(
    {"host", "content-length", "content-type", "transfer-encoding", "connection", "user-agent", "expect", "te",
     "upgrade", "trailer", "keep-alive", "proxy-connection"}
)  # fmt: skip
_SECRET_HEADERS = frozenset({"authorization", "cookie", "x-api-key", "api-key", "x-auth-token"})


class WebhookTable(NotifierTable):
    type: Literal["webhook"]
    url: str | Env
    secret: Env | None = None
    order: Literal["job", "none"] = "job"
    headers: dict[str, str | Env] = Field(default_factory=dict)
    format: Literal["json", "cloudevents"] = "json"
    body: dict[str, Any] | None = None


def read(name: str, shape: WebhookTable, values: Values) -> Notifier:
    path = ("notifier", name)
    secrets = _secrets(shape.secret, (*path, "secret"), values)
    if shape.secret is None:
        values.note(
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
        url=values.url(shape.url, (*path, "url")),
        secrets=secrets,
        headers=tuple(_headers(shape.headers, (*path, "headers"), values)),
        order=shape.order,
        format=shape.format,
        body=_body(shape, path, values),
    )


def _body(shape: WebhookTable, path: Path, values: Values) -> Body | None:
    if shape.body is None:
        return None
    if shape.format == "cloudevents":
        text = '"cloudevents" is the form of the usual body; take it out, or the body'
        values.note((*path, "format"), text)
    return values.templates.body(shape.body, (*path, "body"))


def _headers(headers: Mapping[str, str | Env], path: Path, values: Values) -> list[tuple[str, str]]:
    found = []
    for name, value in headers.items():
        text = value if isinstance(value, str) else values.one(value, (*path, name)) or ""
        if not _HEADER.fullmatch(name) or not (text.isascii() and text.isprintable()):
            values.note((*path, name), "a header is a name and one line of plain ASCII text")
        elif name.lower() in _RESERVED_HEADERS or name.lower().startswith("webhook-"):
            values.note((*path, name), "the bridge sets this header itself")
        elif isinstance(value, str) and name.lower() in _SECRET_HEADERS:
            values.note((*path, name), f'a secret comes from the environment: write "{name}" = {{ env = "NAME" }}')
        else:
            found.append((name, text))
    return found


def _secrets(env: Env | None, path: Path, values: Values) -> tuple[str, ...]:
    """Return the secrets; all of them sign."""
    found = []
    for number, variable in enumerate(env.env if env else ()):
        secret = values.value(variable)
        if secret:
            found.append(secret)
            if why := fault(secret) or _bad_secret(secret):
                values.note(path, f"the value of {variable} {why}")
        else:
            over = "; take it out when the rotation is over" if number else ""
            values.note(path, values.missing(variable) + over)
    return tuple(found)


def _bad_secret(secret: str) -> str | None:
    """Say what is wrong with a Standard Webhooks secret: whsec_ and the base64 of 24 to 64 bytes (spec 1.0.0)."""
    try:
        key = b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith("whsec_") or not 24 <= len(key) <= 64:
        return "is not whsec_ followed by the base64 of 24 to 64 random bytes"
    return None
