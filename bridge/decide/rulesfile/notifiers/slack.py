"""[notifier.NAME] with type = "slack"."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, field_validator

from bridge.decide.rulesfile.schema import Env, NotifierTable, Words
from bridge.decide.rulesfile.values import Path, Values
from bridge.decide.templates.rendering import rendered
from bridge.decide.text.values import printable
from bridge.environment import fault
from bridge.model import Notifier, Rate, SlackNotifier, Writer

# Slack takes a message a second and channel ("Rate limits", read 2026-11-21); one at a time keeps their order.
_RATE = Rate(count=1, per=timedelta(seconds=1))
_LONGEST_CHANNEL = 100  # characters of one that is no template


class SlackTable(NotifierTable):
    type: Literal["slack"]
    channel: Annotated[str, StringConstraints(min_length=1, max_length=1_000), AfterValidator(printable)] | None = None
    channels: Annotated[Words, Field(max_length=100)] | None = None
    token: Env | None = None
    url: Env | None = None
    thread: Literal["job", "workflow", "none"] = "none"
    update: Annotated[bool, Field(strict=True)] = False
    body: None = None

    @field_validator("body", mode="before")
    @classmethod
    def _no_body(cls, _: object) -> None:
        raise ValueError("is for webhooks; what Slack is told comes from a template")


def read(name: str, shape: SlackTable, values: Values) -> Notifier | None:
    path = ("notifier", name)
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
    url = values.url(shape.url, (*path, "url")) if shape.url else None
    channels = tuple(dict.fromkeys(shape.channels or ()))
    template = _channel_template(shape, path, values)
    return SlackNotifier(
        name=name,
        retry=shape.retry,
        fallback=shape.fallback,
        max_in_flight=shape.max_in_flight or 1,
        rate=shape.rate or _RATE,
        channel=channels[0] if template and channels else shape.channel,
        channels=channels,
        channel_template=template,
        token=_token(shape.token, (*path, "token"), values),
        url=url,
        thread=shape.thread,
        update=shape.update,
    )


def _channel_template(shape: SlackTable, path: Path, values: Values) -> Writer | None:
    """Return what names the channel, where that is a template."""
    channel = shape.channel or ""
    if "{{" not in channel and "{%" not in channel:
        if len(channel) > _LONGEST_CHANNEL:
            values.note((*path, "channel"), f"is too long: {_LONGEST_CHANNEL} is the most")
        if shape.channels is not None:
            text = 'belongs to a channel that is a template, such as channel = "{{ job.user_data.channel }}"'
            values.note((*path, "channels"), text)
        return None
    if shape.channels is None:
        text = 'a template needs channels = ["C024BE91L"] beside it: all that it may name, first the usual one'
        values.note((*path, "channel"), text)
    template = values.templates.template(channel, (*path, "channel"))
    return partial(rendered, template) if template else None


def _token(env: Env | None, path: Path, values: Values) -> str | None:
    token = values.one(env, path)
    if env and token and (why := _bad_token(token)):
        values.note(path, f"the value of {env.env[0]} {why}")
    return token


def _bad_token(token: str) -> str | None:
    if not (token.isascii() and token.isprintable() and " " not in token):
        return "is no token: it has white space or a character in it that no token has; copy it again"
    return fault(token)
