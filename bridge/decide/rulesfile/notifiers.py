"""The notifiers of rules.toml, with their secrets from the environment. TYPES is what may stand after `type`."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, field_validator

from bridge.decide.rules.picks import Pick, member
from bridge.decide.rulesfile.errors import Path
from bridge.decide.rulesfile.rules import TemplateReader
from bridge.decide.rulesfile.tables import OF_PICKS, Env, NotifierTable, PickTable, Tables, Words, is_pick, keys_of
from bridge.decide.templates.rendering import rendered
from bridge.decide.text.values import printable, read_words, shown, suggest
from bridge.environment import fault, lookup
from bridge.model import Rate
from bridge.notifiers import (
    DingTalkNotifier,
    EmailNotifier,
    FeishuNotifier,
    Notifier,
    RobotNotifier,
    SlackNotifier,
    WebhookNotifier,
    WecomNotifier,
    Writer,
)
from bridge.url import encoded, place

# --- values of the environment, and addresses -----------------------------------------------------------------------

_USUAL_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class Values:
    """Reads what a notifier takes from the environment; what is wrong is noted in `tables`."""

    environ: Mapping[str, str]
    tables: Tables
    templates: TemplateReader

    def note(self, path: Path, text: str) -> None:
        self.tables.note(path, text)

    def url(self, value: str | Env, path: Path) -> str:
        """Return the URL as it goes onto the wire."""
        url = value if isinstance(value, str) else self.value(value, path)
        if url is None:
            return ""
        try:
            return encoded(url)
        except ValueError as error:
            # The value is not shown: user and password in it may be the very fault.
            what = "this" if isinstance(value, str) else f"the value of {value.env[0]}"
            right = "an http(s) address without user and password, such as https://cms.example.com/hooks/media"
            self.note(path, f"{what} is not {right}: {fault(url) or error}")
        return ""

    def value(self, env: Env | None, path: Path) -> str | None:
        """Return the value; a variable that is missing or empty is a fault."""
        if env is None:
            return None
        if len(env.env) > 1:
            self.note(path, "takes one environment variable; only a secret may have two")
        value = lookup(self.environ, env.env[0])
        if not value:
            self.note(path, self.missing(env.env[0]))
        return value

    def missing(self, variable: str) -> str:
        if variable in self.environ:
            return f"environment variable {variable} is empty"
        # A secret that stands where its name belongs must not be repeated.
        if not _USUAL_NAME.fullmatch(variable):
            return "no environment variable has this name; they are usually written LIKE_THIS"
        return f"environment variable {variable} is not set"


# --- type = "slack" -------------------------------------------------------------------------------------------------

_SLACK_RATE = Rate(count=1, per=timedelta(seconds=1))  # of a channel; docs.slack.dev, "Rate limits", read 2026-11-30
_SLACK_IN_FLIGHT = 16  # answers that take until the deadline of 15 s do not stop the others
_MOST_FLOOD = 10_000
_LONGEST_CHANNEL = 100  # characters of one that is no template
# Ids of people and of workspaces (docs.slack.dev, block_actions payload, read 2026-12-01).
_PERSON, _TEAM = re.compile(r"[UW][A-Z0-9]{2,30}"), re.compile(r"T[A-Z0-9]{2,30}")
_MOST_PEOPLE = 100
_OF_BUTTONS = ("signing_secret", "team", "actions")


def _flood(value: object) -> object:
    if value is False or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST_FLOOD):
        return value
    raise ValueError(f"{shown(value)} is neither a number of messages from 1 to {_MOST_FLOOD:,}, such as 20, nor false")


class ChatTable(NotifierTable):
    """The keys of all that people read in a chat."""

    flood: Annotated[int | Literal[False], BeforeValidator(_flood)]
    body: None = None

    @field_validator("body", mode="before")
    @classmethod
    def _no_body(cls, _: object) -> None:
        raise ValueError("is for webhooks; what people are sent comes from a template")


def _people(value: object) -> list[str]:
    if value == []:
        raise ValueError("names nobody: write the ids of the people who may use the buttons, or take the key out")
    words = read_words(value)
    if wrong := next((word for word in words if not _PERSON.fullmatch(word)), None):
        raise ValueError(
            f'{shown(wrong)} is not the id of a person, such as "U024BE7LH": in Slack open the profile, "...",'
            ' "Copy member ID"'
        )
    if len(words) > _MOST_PEOPLE:
        raise ValueError(f"names {len(words):,} people; the limit is {_MOST_PEOPLE}")
    return words


def _team(value: object) -> object:
    if not isinstance(value, str) or not _TEAM.fullmatch(value):
        raise ValueError(
            f'{shown(value)} is not the id of a workspace, such as "T024BE91L": it is in the address of Slack in a '
            "browser, app.slack.com/client/T..."
        )
    return value


class SlackTable(ChatTable):
    type: Literal["slack"]
    channel: Annotated[str, StringConstraints(min_length=1, max_length=1_000), AfterValidator(printable)] | None = None
    channels: Annotated[Words, Field(max_length=100)] | None = None
    token: Env | None = None
    url: Env | None = None
    thread: Literal["job", "workflow", "none"] = "none"
    update: Annotated[bool, Field(strict=True)] = False
    flood: Annotated[int | Literal[False], BeforeValidator(_flood)] = 20
    signing_secret: Env | None = None
    team: Annotated[str, BeforeValidator(_team)] | None = None
    actions: Annotated[list[str], BeforeValidator(_people)] | None = None


def _slack(name: str, path: Path, shape: SlackTable, values: Values) -> Notifier | None:
    if bool(shape.url) == bool(shape.channel):
        values.note(path, "set channel and token (a bot), or url (an incoming webhook): one of the two")
        return None
    if shape.channel and not shape.token:
        values.note(path, 'channel needs token = { env = "SLACK_BOT_TOKEN" }')
        return None
    if shape.url and shape.token:
        values.note((*path, "token"), "an incoming webhook takes no token; take it out, or write channel for url")
    if shape.url and (shape.thread != "none" or shape.update):
        text = "an incoming webhook has no threads and no updates; they need channel and token"
        values.note((*path, "thread" if shape.thread != "none" else "update"), text)
    channels = tuple(dict.fromkeys(shape.channels or ()))
    template = _channel_template(shape, path, values)
    return SlackNotifier(
        name=name,
        retry=shape.retry,
        fallback=shape.fallback,
        max_in_flight=shape.max_in_flight or _SLACK_IN_FLIGHT,
        rate=shape.rate or _SLACK_RATE,
        channel=channels[0] if template and channels else shape.channel,
        channels=channels,
        channel_template=template,
        token=_token(shape.token, (*path, "token"), values),
        url=values.url(shape.url, (*path, "url")) if shape.url else None,
        thread=shape.thread,
        update=shape.update,
        flood=shape.flood or None,
        signing_secret=_signing_secret(shape, path, values),
        team=shape.team,
        actions=tuple(dict.fromkeys(shape.actions or ())),
    )


def _signing_secret(shape: SlackTable, path: Path, values: Values) -> str | None:
    """Return the secret with which Slack signs clicks; note which of the keys that buttons need is missing."""
    given = [key for key in _OF_BUTTONS if getattr(shape, key)]
    if given and (missing := [key for key in _OF_BUTTONS if key not in given]):
        text = (
            f"needs {' and '.join(missing)} beside it, for buttons that act: signing_secret = "
            '{ env = "SLACK_SIGNING_SECRET" }, team = "T..." (the workspace), actions = ["U..."] (who may use them)'
        )
        values.note((*path, given[0]), text)
    return _token(shape.signing_secret, (*path, "signing_secret"), values, what="secret")


def _channel_template(shape: SlackTable, path: Path, values: Values) -> Writer | None:
    """Return what names the channel, where that is a template."""
    channel = shape.channel or ""
    if "{{" not in channel and "{%" not in channel:
        if len(channel) > _LONGEST_CHANNEL:
            values.note((*path, "channel"), f"is too long; the limit is {_LONGEST_CHANNEL}")
        if shape.channels is not None:
            text = 'belongs to a channel that is a template, such as channel = "{{ job.user_data.channel }}"'
            values.note((*path, "channels"), text)
        return None
    if shape.channels is None:
        text = 'a template needs channels = ["C024BE91L"] beside it: all that it may name, first the usual one'
        values.note((*path, "channel"), text)
    template = values.templates.template(channel, (*path, "channel"))
    return partial(rendered, template) if template else None


def _token(env: Env | None, path: Path, values: Values, *, what: str = "token") -> str | None:
    token = values.value(env, path)
    if env and token:
        why = fault(token)
        if not (token.isascii() and token.isprintable() and " " not in token):
            why = f"is no {what}: it has white space or a character in it that no {what} has; copy it again"
        if why:
            values.note(path, f"the value of {env.env[0]} {why}")
    return token


# --- robots in groups -----------------------------------------------------------------------------------------------


class RobotTable(ChatTable):
    url: Env  # it holds a key
    flood: Annotated[int | Literal[False], BeforeValidator(_flood)] = 10


class WecomTable(RobotTable):
    type: Literal["wecom"]


def _robot(
    made: type[RobotNotifier], name: str, path: Path, shape: RobotTable, values: Values, **facts: Any
) -> RobotNotifier:
    """Return a robot's notifier; `facts` are those of its type."""
    return made(
        name=name,
        retry=shape.retry,
        fallback=shape.fallback,
        max_in_flight=shape.max_in_flight or 4,
        rate=shape.rate,
        url=values.url(shape.url, (*path, "url")),
        flood=shape.flood or None,
        **facts,
    )


def _wecom(name: str, path: Path, shape: WecomTable, values: Values) -> Notifier:
    notifier = _robot(WecomNotifier, name, path, shape, values)
    if notifier.url and not parse_qs(urlsplit(notifier.url).query).get("key"):
        text = "has no key in it; copy it from the robot: https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=..."
        values.note((*path, "url"), text)
    return notifier


class SigningTable(RobotTable):
    """A robot that may sign."""

    secret: Env | None = None


class DingTalkTable(SigningTable):
    type: Literal["dingtalk"]


class FeishuTable(SigningTable):
    type: Literal["feishu"]


def _dingtalk(name: str, path: Path, shape: DingTalkTable, values: Values) -> Notifier:
    secret = values.value(shape.secret, (*path, "secret"))
    notifier = _robot(DingTalkNotifier, name, path, shape, values, secret=secret)
    if notifier.url and not parse_qs(urlsplit(notifier.url).query).get("access_token"):
        text = "has no token in it; copy it from the robot: https://oapi.dingtalk.com/robot/send?access_token=..."
        values.note((*path, "url"), text)
    return notifier


def _feishu(name: str, path: Path, shape: FeishuTable, values: Values) -> Notifier:
    secret = values.value(shape.secret, (*path, "secret"))
    notifier = _robot(FeishuNotifier, name, path, shape, values, secret=secret)
    if notifier.url and not urlsplit(notifier.url).path.strip("/"):
        text = "has no token in it; copy it from the bot: https://open.feishu.cn/open-apis/bot/v2/hook/..."
        values.note((*path, "url"), text)
    return notifier


# --- type = "email" -------------------------------------------------------------------------------------------------

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
    flood: Annotated[int | Literal[False], BeforeValidator(_flood)] = 20


def _email(name: str, path: Path, shape: EmailTable, values: Values) -> Notifier:
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
    if _LOCAL_PART.fullmatch(local) and len(local) <= 64 and re.fullmatch(r"[a-z0-9.-]+", at):
        return f"{local}@{at}"
    values.note(path, f'{shown(text)} is not the address of a mailbox, such as "media@example.com"')
    return ""


# --- type = "webhook" -----------------------------------------------------------------------------------------------

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


def _webhook(name: str, path: Path, shape: WebhookTable, values: Values) -> Notifier:
    secrets = _secrets(shape.secret, (*path, "secret"), values)
    if shape.secret is None:
        text = 'without `secret` its messages are not signed; set secret = { env = "NAME" }'
        values.tables.note(path, text, warning=True)
    if shape.body is not None and shape.format == "cloudevents":
        text = '"cloudevents" is the form of the usual body; take it out, or the body'
        values.note((*path, "format"), text)
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
        body=None if shape.body is None else values.templates.body(shape.body, (*path, "body")),
    )


def _headers(headers: Mapping[str, str | Env], path: Path, values: Values) -> list[tuple[str, str]]:
    found = []
    for name, value in headers.items():
        text = value if isinstance(value, str) else values.value(value, (*path, name)) or ""
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
        secret = lookup(values.environ, variable)
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


# --- every type -----------------------------------------------------------------------------------------------------


class NotifierType(NamedTuple):
    """Which keys a type has, and what makes a notifier of them, or notes why that cannot be."""

    table: type[NotifierTable]
    read: Callable[[str, Path, Any, Values], Notifier | None]


TYPES: Mapping[str, NotifierType] = {
    "email": NotifierType(EmailTable, _email),
    "slack": NotifierType(SlackTable, _slack),
    "webhook": NotifierType(WebhookTable, _webhook),
    "wecom": NotifierType(WecomTable, _wecom),
    "dingtalk": NotifierType(DingTalkTable, _dingtalk),
    "feishu": NotifierType(FeishuTable, _feishu),
}
_NAMES = ", ".join(f'"{name}"' for name in TYPES)
_THERE_ARE = f"one of {_NAMES}"


def read_notifiers(tables: Tables, environ: Mapping[str, str], templates: TemplateReader) -> dict[str, Notifier]:
    """Return each notifier by its name: of each [notifier.NAME], and of each entry of the picks."""
    values, notifiers = Values(environ, tables, templates), {}
    for name, path, table in _each(tables):
        kind = table.get("type")
        if kind is None:
            tables.note(path, f'"type" is missing; it is {_THERE_ARE}')
        elif not isinstance(kind, str) or kind not in TYPES:
            near = suggest(kind, TYPES) if isinstance(kind, str) else ""
            tables.note((*path, "type"), f"{shown(kind)} is not a notifier type{near}; it is {_THERE_ARE}")
        elif shape := tables.shape(TYPES[kind].table, table, path):
            notifier = TYPES[kind].read(name, path, shape, values)
            if notifier:
                notifiers[name] = notifier
    _check_unique(tables)
    _check_fallbacks(tables)
    return notifiers


def _each(tables: Tables) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    """Yield each notifier with its name and its path."""
    for name, table in tables.named("notifier"):
        if not tables.is_pick(name):
            yield name, ("notifier", name), table
            continue
        to = table.get("to")
        for text, inner in to.items() if isinstance(to, dict) else ():
            if isinstance(inner, dict) and not is_pick(inner):
                yield member(name, text), ("notifier", name, "to", text), inner


def _check_unique(tables: Tables) -> None:
    """Note each notifier of a pick that has the name of another one, which may have a dot in it too."""
    lines = {name: tables.line(("notifier", name)) for name, _ in tables.named("notifier")}
    for name, path, _ in _each(tables):
        if len(path) > 2 and name in lines:
            tables.note(path, f'there is a notifier "{name}" already, on line {lines[name]}')
        lines.setdefault(name, tables.line(path))


def _check_fallbacks(tables: Tables) -> None:
    found = {name: (path, table.get("fallback")) for name, path, table in _each(tables)}
    fallbacks = {name: fallback for name, (_, fallback) in found.items()}
    for name, (path, fallback) in found.items():
        path = (*path, "fallback")
        if isinstance(fallback, str) and tables.is_pick(fallback):
            tables.note(path, _no_pick(fallback))
        elif isinstance(fallback, str) and fallback and fallback not in fallbacks:
            tables.note(path, tables.undefined("notifier", fallback))
        chain, at = {name: None}, fallback
        while isinstance(at, str) and at in fallbacks and at not in chain:
            chain[at] = None
            at = fallbacks[at]
        if at == name:
            tables.note(path, f"is circular: {' -> '.join([*chain, name])}")


# --- picks ----------------------------------------------------------------------------------------------------------

_LONGEST_NAME = 100  # characters of "customer.acme"


def read_picks(tables: Tables, templates: TemplateReader, zone: ZoneInfo) -> dict[str, Pick]:
    """Return each [notifier.NAME] with `pick` by its name. Times in its template are by the clock of `zone`."""
    picks = {}
    for name, table in tables.named("notifier"):
        if tables.is_pick(name) and (shape := _pick_shape(tables, table, ("notifier", name))):
            template = templates.template(shape.pick, ("notifier", name, "pick"))
            if template and template.constant is not None:
                example = '"{{ job.user_data.customer }}"'
                text = f"is {shown(shape.pick)} for every job; write a template, such as {example}"
                tables.note(("notifier", name, "pick"), text)
            if template:
                to = {text: member(name, text) for text in shape.to}
                picks[name] = Pick(
                    name=name, source=shape.pick, template=template, to=to, otherwise=shape.otherwise, zone=zone
                )
    return picks


def _pick_shape(tables: Tables, table: Mapping[str, Any], path: tuple[str, str]) -> PickTable | None:
    for key in table:
        if key in _OF_TYPES:
            tables.note(path, f'"{key}" belongs to the notifiers of a pick: write it below {_entry(path[1])}', key=key)
    if "pick" not in table:
        text = 'needs pick beside it, a template such as pick = "{{ job.user_data.customer }}"'
        tables.note((*path, "to"), text)
    if table.get("to", {}) == {}:
        tables.note((*path, "pick"), f"needs the notifiers that a job may pick: write {_entry(path[1])} for each")
    if not all(key in table for key in OF_PICKS):
        return None
    shape = tables.shape(PickTable, {key: value for key, value in table.items() if key not in _OF_TYPES}, path)
    if shape:
        _check_otherwise(tables, shape.otherwise, path)
        for text, inner in shape.to.items():
            _check_entry(tables, text, inner, path)
    return shape


def _check_otherwise(tables: Tables, otherwise: str | None, path: tuple[str, str]) -> None:
    if otherwise and tables.is_pick(otherwise):
        tables.note((*path, "otherwise"), _no_pick(otherwise))
    elif otherwise and otherwise not in tables.names("notifier"):
        tables.note((*path, "otherwise"), tables.undefined("notifier", otherwise))


def _check_entry(tables: Tables, text: str, table: object, path: tuple[str, str]) -> None:
    name, path_to = member(path[1], text), (*path, "to", text)
    if not isinstance(table, dict):
        tables.note(path_to, f"is not a table; write [notifier.{path[1]}.to.{text}], and the keys below it")
    elif is_pick(table):
        tables.note(path_to, "is a pick inside of a pick; write one notifier here")
    if not text or text != text.strip():
        tables.note(path_to, f"{shown(text)} is never picked: what a template gives has no space around it")
    if len(name) > _LONGEST_NAME:
        tables.note(path_to, f"is too long a name; the limit is {_LONGEST_NAME} characters")
    try:
        printable(text)
    except ValueError as error:
        tables.note(path_to, str(error))


_OF_TYPES = frozenset(key for kind in TYPES.values() for key in keys_of(kind.table)) - OF_PICKS


def _entry(name: str) -> str:
    return f"[notifier.{name}.to.TEXT]"


def _no_pick(name: str) -> str:
    return f'"{name}" is a pick, and there may be no job to pick by: name one notifier, as in "{member(name, "TEXT")}"'
