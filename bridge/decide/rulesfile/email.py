"""The keys of a notifier with `type = "email"`."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from bridge.decide.rulesfile.errors import Path
from bridge.decide.rulesfile.tables import Env, Words
from bridge.decide.rulesfile.values import ChatTable, Flood, Values
from bridge.decide.text.values import printable, shown
from bridge.notifiers import EmailNotifier, Notifier
from bridge.url import place

_PORTS = {"starttls": 587, "tls": 465}  # of submission: RFC 8314, 3.3; read 2026-12-01
_MOST_ADDRESSES = 20
_LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")  # RFC 5321, unquoted
_NAMED = re.compile(r"(?P<name>[^<>\"]*)<(?P<address>[^<>]*)>")


class EmailTable(ChatTable):
    type: Literal["email"]
    server: Annotated[str, StringConstraints(min_length=1, max_length=300)]
    tls: Literal["starttls", "tls"] = "starttls"
    username: str | Env | None = None
    password: Env | None = None
    sender: Annotated[str, StringConstraints(max_length=300), AfterValidator(printable)] = Field(alias="from")
    to: Annotated[Words, Field(min_length=1, max_length=_MOST_ADDRESSES)]
    flood: Flood = 20


def read_email(name: str, path: Path, shape: EmailTable, values: Values) -> Notifier:
    named = _NAMED.fullmatch(shape.sender)
    if bool(shape.username) != bool(shape.password):
        both = 'username = "ci" and password = { env = "SMTP_PASSWORD" }'
        values.note(path, f"a login needs {both}; a server that wants none, neither")
    return EmailNotifier(
        name=name,
        retry=shape.retry,
        fallback=shape.fallback,
        max_in_flight=shape.max_in_flight or 4,
        rate=shape.rate,
        server=_server(shape, (*path, "server"), values),
        tls=shape.tls,
        username=_login(shape.username, (*path, "username"), values),
        password=_login(shape.password, (*path, "password"), values),
        sender=_address(named["address"] if named else shape.sender, (*path, "from"), values),
        sender_name=named["name"].strip() if named else "",
        to=tuple(dict.fromkeys(_address(address, (*path, "to"), values) for address in shape.to)),
        flood=shape.flood or None,
    )


def _server(shape: EmailTable, path: Path, values: Values) -> str:
    usual = _PORTS[shape.tls]
    try:
        at = place(shape.server)
    except ValueError:
        # It is not shown where it may have a password in it.
        what = "this" if "@" in shape.server else shown(shape.server)
        values.note(path, f'{what} is not a name and a port, such as "smtp.example.com:{usual}"')
        return ""
    return at if re.search(r":\d+$", at) else f"{at}:{usual}"


def _login(value: str | Env | None, path: Path, values: Values) -> str | None:
    """Return a user name or a password, as SMTP can say it."""
    text = values.value(value, path) if isinstance(value, Env) else value
    if text and not (text.isascii() and text.isprintable()):
        what = f"the value of {value.env[0]}" if isinstance(value, Env) else shown(text)
        values.note(path, f"{what} has a character that is no plain ASCII; most mail servers know no others")
    return text


def _address(text: str, path: Path, values: Values) -> str:
    local, _, domain = text.strip().rpartition("@")
    try:
        at = place(domain)
    except ValueError:
        at = ""
    if _LOCAL_PART.fullmatch(local) and len(local) <= 64 and re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)*", at):
        return f"{local}@{at}"
    values.note(path, f'{shown(text)} is not the address of a mailbox, such as "media@example.com"')
    return ""
