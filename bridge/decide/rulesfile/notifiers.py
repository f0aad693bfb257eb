"""The notifiers of rules.toml, with their secrets from the environment. TYPES is what may stand after `type`."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from bridge.decide.rules.picks import member
from bridge.decide.rulesfile.email import EmailTable, read_email
from bridge.decide.rulesfile.errors import Path
from bridge.decide.rulesfile.rules import TemplateReader
from bridge.decide.rulesfile.tables import Env, NotifierTable, Tables, Words, is_pick
from bridge.decide.rulesfile.values import ChatTable, Flood, Values
from bridge.decide.templates.rendering import rendered
from bridge.decide.text.values import printable, read_words, shown, suggest
from bridge.environment import fault, lookup
from bridge.model import Rate
from bridge.notifiers import (
    DingTalkNotifier,
    FeishuNotifier,
    Notifier,
    RobotNotifier,
    SlackNotifier,
    TeamsNotifier,
    WebhookNotifier,
    WecomNotifier,
    Writer,
)

# --- type = "slack" -------------------------------------------------------------------------------------------------

_SLACK_RATE = Rate(count=1, per=timedelta(seconds=1))  # of a channel; docs.slack.dev, "Rate limits", read 2026-11-30
_SLACK_IN_FLIGHT = 16  # answers that take until the deadline of 15 s do not stop the others
_LONGEST_CHANNEL = 100  # characters of one that is no template
# Ids of people and of workspaces (docs.slack.dev, block_actions payload, read 2026-12-01).
_PERSON, _TEAM = re.compile(r"[UW][A-Z0-9]{2,30}"), re.compile(r"T[A-Z0-9]{2,30}")
_MOST_PEOPLE = 100
_OF_BUTTONS = ("signing_secret", "team", "actions")


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
    flood: Flood = 20
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
    flood: Flood = 10


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


class TeamsTable(RobotTable):
    type: Literal["teams"]


_RETIRED_CONNECTORS = ("outlook.office.com", "webhook.office.com", "outlook.office365.com")


def _teams(name: str, path: Path, shape: TeamsTable, values: Values) -> Notifier:
    notifier = _robot(TeamsNotifier, name, path, shape, values)
    parts = urlsplit(notifier.url)
    if (parts.hostname or "").endswith(_RETIRED_CONNECTORS):
        text = "is that of a connector, which Microsoft has retired: make a workflow and give its url"
        values.note((*path, "url"), text)
    elif notifier.url and not parse_qs(parts.query).get("sig"):
        text = "has no signature (sig=) in it; copy it from the workflow, which anyone must be allowed to trigger"
        values.note((*path, "url"), text)
    return notifier


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
    "email": NotifierType(EmailTable, read_email),
    "slack": NotifierType(SlackTable, _slack),
    "teams": NotifierType(TeamsTable, _teams),
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
            tables.note(path, no_pick(fallback))
        elif isinstance(fallback, str) and fallback and fallback not in fallbacks:
            tables.note(path, tables.undefined("notifier", fallback))
        chain, at = {name: None}, fallback
        while isinstance(at, str) and at in fallbacks and at not in chain:
            chain[at] = None
            at = fallbacks[at]
        if at == name:
            tables.note(path, f"is circular: {' -> '.join([*chain, name])}")


def no_pick(name: str) -> str:
    return f'"{name}" is a pick, and there may be no job to pick by: name one notifier, as in "{member(name, "TEXT")}"'
