"""Named receivers: what rules, routing and the outbox need to know of each type. `send/` knows how they are sent to."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from typing import Any, ClassVar, Literal
from urllib.parse import parse_qs, urlsplit

from bridge.model import Job, Message, Rate, SharedLimit

Writer = Callable[[Any], str]  # renders a template


@dataclass(frozen=True, slots=True, kw_only=True)
class Notifier:
    """A named receiver. Subclasses are its types.

    With `channel_template`, the job selects one of `channels`.
    """

    type: ClassVar[str] = ""
    is_for_people: ClassVar[bool] = False  # a fallback of this type is told of many failures at once
    calls_people: ClassVar[bool] = False  # whom a rule mentions is notified by the chat

    name: str
    retry: timedelta = timedelta(hours=24)
    fallback: str | None = None
    max_in_flight: int = 4
    rate: Rate | None = None
    body: Writer | None = field(default=None, repr=False)  # replaces the message's event
    channels: tuple[str, ...] = ()
    channel_template: Writer | None = field(default=None, repr=False)

    @property
    def keeps_order(self) -> bool:
        """Whether messages about one job are sent in order."""
        return True

    def thread_of(self, about: Message | Job) -> str | None:  # noqa: ARG002 - for types that have threads
        """Return the thread that messages about a job belong to."""
        return None

    def threads_of(self, job: Job) -> tuple[str, ...]:
        """Return the threads that a job may have, one for each channel."""
        return self._in_channels(self.thread_of(job))

    @property
    def threads_incidents(self) -> bool:
        """Whether an incident is one message, which is edited, with a thread."""
        return False

    def threads_of_incident(self, incident: str) -> tuple[str, ...]:
        """Return the threads that an incident (by its id) may have, one for each channel."""
        return self._in_channels(f"incident/{incident}") if self.threads_incidents else ()

    def _in_channels(self, thread: str | None) -> tuple[str, ...]:
        return (thread, *(f"{channel}/{thread}" for channel in self.channels)) if thread else ()

    @property
    def most_waiting(self) -> int | None:
        """With more messages waiting for a channel, those that would wait long become a digest. None: never."""
        return None

    @property
    def updates(self) -> bool:
        """Whether the first message of a thread is edited to show the newest state."""
        return False

    @property
    def shows_by_edits(self) -> bool:
        """Whether later messages of a thread show only as such an edit."""
        return False

    def limit_of(self, channel: str | None) -> SharedLimit | None:  # noqa: ARG002 - for types that share limits
        """Return the limit that a message to this channel (None: the usual one) uses up; None: `rate` alone counts."""
        return None

    @property
    def edit_limit(self) -> SharedLimit | None:
        """The limit of edits, where there are any."""
        return None

    @property
    def look_up_limit(self) -> SharedLimit | None:
        """The limit of looking for what may have been accepted; None: nothing is looked for."""
        return None

    @property
    def hidden(self) -> tuple[str, ...]:
        """Secrets, which must not be shown or stored if a receiver repeats them."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookNotifier(Notifier):
    type: ClassVar[str] = "webhook"

    url: str = field(repr=False)  # may carry a secret
    secrets: tuple[str, ...] = field(default=(), repr=False)  # whsec_...; all of them sign, while rotating
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    order: Literal["job", "none"] = "job"
    format: Literal["json", "cloudevents"] = "json"

    @property
    def keeps_order(self) -> bool:
        return self.order == "job"

    @property
    def hidden(self) -> tuple[str, ...]:
        return (self.url, *self.secrets, *(part for _, value in self.headers for part in _secret_parts(value)))


def _secret_parts(value: str) -> tuple[str, ...]:
    """Return a header's value and the parts that a receiver may repeat: of `Token token="abc"` abc, not the scheme."""
    credentials = value.partition(" ")[2] or value
    words = [word.strip('"') for word in credentials.replace(",", " ").replace(";", " ").split()]
    named = (word.partition("=")[2].strip('"') for word in words)
    return tuple(dict.fromkeys(part for part in (value, credentials, *words, *named) if part))


_CHANNEL_ID = re.compile("[CDG][A-Z0-9]{8,}")


_SECOND = timedelta(seconds=1)


MOST_PAGES = 5  # of Slack's history, in which a message is looked for


def _spaced(interval: timedelta) -> timedelta:
    """Return somewhat more: two requests may arrive closer together than they were begun."""
    return interval * 1.08


def _shared_interval(rate: Rate | None, usual: timedelta) -> timedelta:
    """Return the interval of a limit that others share; a slower `rate` is the notifier's own and changes nothing."""
    return _spaced(min(rate.interval, usual) if rate else usual)


def _digest_of(secret: str) -> str:
    """Return what identifies a secret and does not reveal it."""
    return sha256(secret.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlackNotifier(Notifier):
    """With `url`, an incoming webhook (no threads, no updates); otherwise `token` posts to `channel`.

    With a `channel_template`, `channel` is the first of `channels`. With a `signing_secret`, messages have buttons;
    `actions` are the ids of the people in the workspace `team` who may use them.
    """

    type: ClassVar[str] = "slack"
    is_for_people: ClassVar[bool] = True
    calls_people: ClassVar[bool] = True

    channel: str | None = None
    token: str | None = field(default=None, repr=False)
    url: str | None = field(default=None, repr=False)
    thread: Literal["job", "workflow", "none"] = "none"
    update: bool = False
    flood: int | None = 20
    signing_secret: str | None = field(default=None, repr=False)
    team: str | None = None
    actions: tuple[str, ...] = ()

    @property
    def has_buttons(self) -> bool:
        return bool(self.signing_secret and self.team and self.actions)

    @property
    def most_waiting(self) -> int | None:
        return self.flood

    @property
    def updates(self) -> bool:
        return self.update and self.url is None

    @property
    def shows_by_edits(self) -> bool:
        return self.updates and self.thread == "none"

    @property
    def threads_incidents(self) -> bool:
        return self.url is None

    def limit_of(self, channel: str | None) -> SharedLimit:
        """Return the limit of a channel, or of an incoming webhook.

        Slack accepts a message a second and channel, of all apps (docs.slack.dev, "Rate limits", read 2026-11-30).
        """
        if self.url:
            return SharedLimit(name=f"slack hook {_digest_of(self.url)}", interval=self._interval)
        where = channel if channel in self.channels else self.channel
        known = _CHANNEL_ID.fullmatch(where or "")  # a name means another channel in another workspace
        name = f"slack channel {where}" if known else f"slack channel {where} of {_digest_of(self.token or '')}"
        return SharedLimit(name=name, interval=self._interval)

    @property
    def edit_limit(self) -> SharedLimit | None:
        """Edits: Tier 3, 50 per minute and token (docs.slack.dev, "Rate limits", read 2026-11-30).

        Who sets another `rate` for messages, as another Slack allows it, has as many more edits until it refuses some.
        """
        return None if self.url else self._tier_3("edits")

    @property
    def look_up_limit(self) -> SharedLimit | None:
        """History and replies: Tier 3 too. A look-up may read MOST_PAGES."""
        return None if self.url else self._tier_3("reads", calls=MOST_PAGES)

    def _tier_3(self, what: str, *, calls: int = 1) -> SharedLimit:
        name, times = f"slack {what} {_digest_of(self.token or '')}", 1.2 * calls
        return SharedLimit(name=name, interval=self._interval * times, usual=_spaced(_SECOND) * times)

    @property
    def _interval(self) -> timedelta:
        return _shared_interval(self.rate, _SECOND)

    def thread_of(self, about: Message | Job) -> str | None:
        if isinstance(about, Message) and about.is_of_several:
            return next(iter(self.threads_of_incident(about.incident or "")), None)
        job_id = about.id if isinstance(about, Job) else about.job_id
        if job_id is None:
            return None
        if self.thread == "workflow" and about.workflow_run:
            return f"{about.bucket}/{about.workflow_run}"
        return f"{about.bucket}/{job_id}" if self.thread != "none" or self.update else None

    @property
    def hidden(self) -> tuple[str, ...]:
        return tuple(secret for secret in (self.token, self.url, self.signing_secret) if secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailNotifier(Notifier):
    """Mail to all of `to`, by way of a server, always under TLS.

    server: host and port, such as "smtp.example.com:587".
    tls: from the start, or as soon as the server offers it ("starttls").
    """

    type: ClassVar[str] = "email"
    is_for_people: ClassVar[bool] = True

    server: str
    tls: Literal["starttls", "tls"] = "starttls"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sender: str
    sender_name: str = ""
    to: tuple[str, ...]
    flood: int | None = 20

    @property
    def host(self) -> str:
        return self.server.rpartition(":")[0].strip("[]")

    @property
    def most_waiting(self) -> int | None:
        return self.flood

    def limit_of(self, channel: str | None) -> SharedLimit:  # noqa: ARG002 - mail has no channels
        """Return the limit of an account: 30 mails a minute, unless `rate` is higher.

        Exchange Online takes so many (learn.microsoft.com, "Exchange Online limits", known on 2026-12-01, not read);
        others say nothing of a minute.
        """
        name = f"mail {self.server} of {_digest_of(self.username or self.sender)}"
        return SharedLimit(name=name, interval=_shared_interval(self.rate, 2 * _SECOND))

    @property
    def hidden(self) -> tuple[str, ...]:
        return (self.password,) if self.password else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RobotNotifier(Notifier):
    """A robot in a group of a chat tool. Its `url` holds a key; with a `secret` it signs. No threads, no edits."""

    is_for_people: ClassVar[bool] = True
    calls_people: ClassVar[bool] = True
    interval: ClassVar[timedelta]  # between two messages that the tool accepts, of all that use the key

    url: str = field(repr=False)
    secret: str | None = field(default=None, repr=False)
    flood: int | None = 10

    @property
    def most_waiting(self) -> int | None:
        return self.flood

    def limit_of(self, channel: str | None) -> SharedLimit:  # noqa: ARG002 - a robot is in one group
        interval = _shared_interval(self.rate, self.interval)
        return SharedLimit(name=f"{self.type} robot {_digest_of(self._key)}", interval=interval)

    @property
    def _key(self) -> str:
        """The key in the URL, which may be written in several ways."""
        parts = urlsplit(self.url)
        query = parse_qs(parts.query)
        return next((query[name][0] for name in ("key", "access_token", "sig") if name in query), parts.path)

    @property
    def hidden(self) -> tuple[str, ...]:
        return (self.url, self.secret) if self.secret else (self.url,)


class DingTalkNotifier(RobotNotifier):
    """20 messages a minute; more are refused for ten (open.dingtalk.com, "custom robot access", quoted 2026-12-01)."""

    type: ClassVar[str] = "dingtalk"
    interval: ClassVar[timedelta] = timedelta(seconds=3)


class FeishuNotifier(RobotNotifier):
    """100 messages a minute, and 5 a second (open.feishu.cn, "custom bot usage guide", read 2026-12-01)."""

    type: ClassVar[str] = "feishu"
    interval: ClassVar[timedelta] = timedelta(seconds=0.6)


class WecomNotifier(RobotNotifier):
    """20 messages a minute (developer.work.weixin.qq.com/document/path/91770, quoted on 2026-12-01)."""

    type: ClassVar[str] = "wecom"
    interval: ClassVar[timedelta] = timedelta(seconds=3)


class TeamsNotifier(RobotNotifier):
    """A workflow that posts to a channel of Microsoft Teams. It takes four a second; people read no more than one."""

    type: ClassVar[str] = "teams"
    calls_people: ClassVar[bool] = False
    interval: ClassVar[timedelta] = timedelta(seconds=1)
