"""Every noun of the bridge, frozen. Read this page first.

Watch -> Stream -> Page of Jobs -> Transition -> Rule -> Message -> Delivery -> Attempt, which ends in an
Outcome. Times are aware and in UTC. Nothing here does I/O or reads a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime, time, timedelta
from enum import StrEnum
from typing import Any, ClassVar, Literal

# The states CI documents (list document of 2025-09). Any other word it sends is carried through.
SUBMITTED, RUNNING, SUCCESS, FAILED, PAUSE, CANCEL = STATES = (
    "Submitted", "Running", "Success", "Failed", "Pause", "Cancel",
)  # fmt: skip
# Documented words, for suggestions only: CI accepts others (list document of 2025-09, the tag and queue tables).
KNOWN_TAGS = (
    "Transcode", "Animation", "VideoEnhance", "Snapshot", "SmartCover", "Concat", "VideoMontage", "Segment",
    "DigitalWatermark", "ExtractDigitalWatermark", "VideoTag", "MediaInfo", "StreamExtract", "QualityEstimate",
    "Watermark", "PicProcess", "SpeechRecognition", "NoiseReduction", "VoiceSeparate", "Tts", "Translation",
    "WordsGeneralize", "VideoTargetRec", "SegmentVideoBody", "SplitVideoParts",
)  # fmt: skip
KNOWN_QUEUE_TYPES = ("Transcoding", "Speeching", "PicProcess", "AIProcess", "SpeedTranscoding")

NEW = "new"  # the `from` of a job seen for the first time
GONE = "gone"  # CI no longer knows the id
DONE = frozenset({SUCCESS, FAILED, CANCEL})
CLOSED = DONE | {GONE}  # nothing more is expected of these, so nobody asks again


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One media job as CI described it. `None` means that CI did not say."""

    id: str
    bucket: str
    region: str
    state: str
    tag: str | None = None
    queue: str | None = None
    code: str | None = None  # only of a Failed job: elsewhere it means nothing
    message: str | None = None  # likewise
    progress: int | None = None  # per cent
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    input: str | None = None  # object key, or the URL of an input by URL
    output: str | None = None  # the pattern that was asked for
    outputs: tuple[str, ...] = ()  # at most OUTPUTS_KEPT of the files that were made
    outputs_total: int = 0
    template: str | None = None
    template_name: str | None = None
    workflow: str | None = None
    workflow_name: str | None = None
    workflow_run: str | None = None
    level: str | None = None
    user_data: str | None = None


OUTPUTS_KEPT = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a bucket's jobs are asked for. `endpoint` replaces CI's own host (a proxy, a simulator)."""

    bucket: str
    region: str
    endpoint: str | None = None

    @property
    def host(self) -> str:
        return f"{self.bucket}.ci.{self.region}.myqcloud.com"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """What one chain of list calls covers: CI lists one tag, and at most one queue, a call."""

    place: Place
    tag: str
    queue: str | None = None
    queue_type: str | None = None
    workflow: str | None = None
    input: str | None = None

    @property
    def key(self) -> str:
        return "|".join(part or "" for part in (self.place.bucket, self.tag, *self._narrowings))

    @property
    def _narrowings(self) -> tuple[str | None, ...]:
        return self.queue, self.queue_type, self.workflow, self.input

    def covers(self, other: Stream) -> bool:
        """Tell whether every job of `other` is in this one's list too."""
        same = (self.place.bucket, self.tag) == (other.place.bucket, other.tag)
        mine_theirs = zip(self._narrowings, other._narrowings, strict=True)
        return same and all(mine in (None, theirs) for mine, theirs in mine_theirs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What is polled: one bucket, some tags, perhaps some queues."""

    name: str
    place: Place
    streams: tuple[Stream, ...]
    every: timedelta
    lookback: timedelta
    announce_first: bool = False  # tell the jobs that a first snapshot finds


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something of a job that cannot be read: `field`, whose text began with `value`.

    `left_out`: without it there is no job (no usable state, or too big), so the answer's `jobs` do not have it.
    """

    job_id: str
    field: str
    value: str
    left_out: bool = False

    @classmethod
    def of_whole(cls, job_id: str, why: str) -> Problem:
        """Return the problem of a job of which nothing can be read."""
        return cls(job_id=job_id, field="", value=why, left_out=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One answer of the job list. `served_at` is CI's own clock (its Date header)."""

    jobs: tuple[Job, ...]
    next_token: str | None = None
    served_at: datetime | None = None
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """One answer to a question by id; `missing` are the ids that CI does not know."""

    jobs: tuple[Job, ...]
    missing: tuple[str, ...] = ()
    served_at: datetime | None = None
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A job as the snapshot has it: what `diff` compares with."""

    job_id: str
    state: str
    sequence: int  # of its last transition
    named: str | None = None  # of a job that is gone: the state that CI named last


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A job that CI denied `times`, the last answer at `last_at`, and has not shown since.

    While it is not told to be gone `ask_at` is None, as every poll asks for it, and the first answer was at `first_at`.
    Then `first_at` is when that was told, and `ask_at` when CI is asked again.
    """

    stream: str
    times: int
    first_at: datetime
    last_at: datetime
    ask_at: datetime | None = None
    seen_at: datetime | None = None  # the last poll that saw it began

    @property
    def is_gone(self) -> bool:
        return self.ask_at is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A job went from one state to another; the first is number 1."""

    job: Job
    was: str
    to: str
    sequence: int
    seen_at: datetime
    watch: str
    silent: str | None = None  # why nobody is told, as in 'first snapshot of Snapshot in watch "vod"'
    still_at: datetime | None = None  # the last poll before that saw its stream whole: it was still in `was`

    @property
    def happened_at(self) -> datetime:
        """When CI says it happened; when it was seen, where CI says nothing."""
        job = self.job
        if self.to in DONE:
            said = job.ended_at
        elif self.to == RUNNING and self.was != GONE:  # it started before it was gone
            said = job.started_at
        elif self.to == SUBMITTED and self.was == NEW:
            said = job.created_at
        else:
            said = None
        return said or self.seen_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """At most `count` in `per`."""

    count: int
    per: timedelta

    @property
    def interval(self) -> timedelta:
        return self.per / self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """How a rule's messages are collected into digests: one for each set of values of `by`.

    It is told `wait` after its first message, or at `at` by the clock of the rules' time zone; when it has `most`
    messages, at once.
    """

    by: tuple[str, ...] = ()
    wait: timedelta | None = None
    at: time | None = None
    most: int | None = None


Gate = Literal["group", "throttle", "mute", "silence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Why a message is not told at once: it goes into the digest of this gate that is told at `until`.

    `name` is the rule (of a group, of a throttle), the mute, or the silence's id; `key` tells the digests of one
    gate apart, and `label` (JSON) says what the messages of this one have in common. With `drop` it is told never.
    """

    gate: Gate
    name: str
    until: datetime
    wall: bool = False  # `until` is a time of the wall clock: it stays when the clock is set
    key: str = ""
    label: str = ""
    most: int | None = None
    drop: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """A mute that a person made, with an end. `spec` is JSON: what it matches."""

    id: str
    spec: str
    author: str
    reason: str
    begins_at: datetime
    ends_at: datetime
    drop: bool = False
    ended_by: str | None = None  # who ended it early
    told: tuple[str, ...] = ()  # notifiers that have heard that it is over

    def __str__(self) -> str:
        return f"The silence by {self.author} ({self.reason})"


Writer = Callable[[Any], str]  # makes a text of what a template can name


@dataclass(frozen=True, slots=True, kw_only=True)
class Notifier:
    """A place that is told, by name. Subclasses are its types: they say how.

    With `channel_template` the job names one of `channels`.
    """

    type: ClassVar[str] = ""

    name: str
    retry: timedelta = timedelta(hours=24)
    fallback: str | None = None
    max_in_flight: int = 4
    rate: Rate | None = None
    body: Writer | None = field(default=None, repr=False)  # instead of the message's event
    channels: tuple[str, ...] = ()
    channel_template: Writer | None = field(default=None, repr=False)

    @property
    def keeps_order(self) -> bool:
        """Whether messages about one job go one after the other."""
        return True

    def thread_of(self, message: Message) -> str | None:  # noqa: ARG002 - for types that have conversations
        """Return the conversation that a message belongs to."""
        return None

    @property
    def hidden(self) -> tuple[str, ...]:
        """What must not be shown or stored where a receiver repeats it."""
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
        return (self.url, *self.secrets, *(part for _, value in self.headers for part in _told_apart(value)))


def _told_apart(value: str) -> tuple[str, ...]:
    """Return a header's value and what of it a receiver may repeat: of `Token token="abc"` abc, and not the scheme."""
    told = value.partition(" ")[2] or value
    words = [word.strip('"') for word in told.replace(",", " ").replace(";", " ").split()]
    named = (word.partition("=")[2].strip('"') for word in words)
    return tuple(dict.fromkeys(part for part in (value, told, *words, *named) if part))


@dataclass(frozen=True, slots=True, kw_only=True)
class SlackNotifier(Notifier):
    """With `url` an incoming webhook (no threads, no updates); else `token` posts to `channel`.

    Where there is a `channel_template`, `channel` is the first of `channels`.
    """

    type: ClassVar[str] = "slack"

    channel: str | None = None
    token: str | None = field(default=None, repr=False)
    url: str | None = field(default=None, repr=False)
    thread: Literal["job", "workflow", "none"] = "none"
    update: bool = False

    def thread_of(self, message: Message) -> str | None:
        if message.job_id is None:
            return None
        if self.thread == "workflow" and message.workflow_run:
            return f"{message.bucket}/{message.workflow_run}"
        return f"{message.bucket}/{message.job_id}" if self.thread != "none" or self.update else None

    @property
    def hidden(self) -> tuple[str, ...]:
        return tuple(secret for secret in (self.token, self.url) if secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is said, the same for every notifier.

    `event` is the body that a webhook gets, less `specversion` and `id`. `id` is made from what happened,
    so that seeing it twice is saying it once.
    """

    id: str
    kind: Literal["transition", "level", "recovery", "digest", "test"]
    title: str
    text: str
    fields: tuple[tuple[str, str], ...]
    event: Mapping[str, Any]
    bucket: str | None = None
    job_id: str | None = None
    workflow_run: str | None = None
    sequence: int | None = None
    state: str | None = None  # the one it tells
    rule: str | None = None
    happened_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDelivery:
    """A message and the notifier that a rule sends it to: the outbox makes a delivery of it."""

    id: str
    message: Message
    notifier: str
    lane: str | None  # deliveries of one notifier and lane go one after the other
    thread: str | None = None  # which Slack conversation it belongs to
    note: str | None = None  # why it came this way, e.g. "could not be told to ops: ..."
    body: str | None = None  # JSON instead of the message's event, where the notifier has a body of its own
    channel: str | None = None  # instead of the notifier's
    hold: Hold | None = None  # None: told at once
    throttle: Rate | None = None  # of its rule; what is over it is held


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One message for one notifier, claimed for one attempt.

    `event` and `says` are JSON texts: `event` as in Message, `says` {"title", "text", "fields", "state",
    "rule", "job_id"}. `root` is the receipt of the first message of its thread, if there is one.
    """

    n: int
    id: str
    notifier: str
    attempts: int  # this one included
    lease: str
    happened_at: datetime
    event: str
    says: str
    lost: int = 0  # of the attempts: what came of them is not known
    thread: str | None = None
    root: str | None = None
    note: str | None = None
    body: str | None = None  # the notifier's own, instead of `event`
    channel: str | None = None  # one of the notifier's `channels`
    retry_from: timedelta | None = None  # the run clock at its first attempt
    retry_due: timedelta | None = None  # and at the end of its last pause


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """What is known of a notifier that has to be left alone, each as a time of the run clock."""

    opened: timedelta | None = None  # it does not answer since then
    probed: timedelta | None = None  # the last probe since then
    asked_until: timedelta | None = None  # its Retry-After asks to wait until then


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What CI's clock showed in the polls of a watch: how far it was ahead of ours, the last time that it said so."""

    at: datetime | None  # the last poll that CI answered, be it in part
    ahead: timedelta | None  # None: CI sends no Date


@dataclass(frozen=True, slots=True)
class Sent:
    """The receiver accepted. `receipt` is what is needed to answer under it later."""

    receipt: str | None = None


class Reason(StrEnum):
    """Why an attempt failed, or a notifier is paused: what programs go by. The sentence beside it is for people."""

    CLIENT_ERROR = "client_error"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    CONNECTION = "connection"  # there was none, or it broke before an answer
    RATE_LIMITED = "rate_limited"
    AUTH = "auth"
    INVALID_PAYLOAD = "invalid_payload"
    CHANNEL = "channel"  # it does not exist, or is closed to the app
    GONE = "gone"  # the receiver, or its address, for good
    LOST = "lost"  # with its worker: what came of it is not known
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class RetryLater:
    """It may work later. `after` is the receiver's own wish; `everyone`: it holds for the whole notifier."""

    why: str
    reason: Reason = Reason.OTHER
    _: KW_ONLY
    after: timedelta | None = None
    everyone: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """It will not work. `pause`: nothing for this notifier will, until a person has looked."""

    why: str
    reason: Reason = Reason.OTHER
    _: KW_ONLY
    pause: bool = False


Outcome = Sent | RetryLater | Rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try of a delivery, ended."""

    delivery: Delivery
    outcome: Outcome
    started_at: datetime
    seconds: float
    status: int | None = None  # HTTP
    answer: str = ""  # the first 4 kB of the body
    address: str | None = None  # the one connected to
