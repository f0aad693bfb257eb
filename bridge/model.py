"""All nouns of the bridge but notifiers, as frozen dataclasses. Read this file first.

A Watch has Streams. Polling a Stream returns Pages of Jobs. A Job that changed makes a Transition. Rules turn a
Transition into a Message, with a NewDelivery for each Notifier. Sending a Delivery is an Attempt, which has an Outcome.
Times are aware and in UTC. Nothing here does I/O or reads a clock.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime, time, timedelta
from enum import StrEnum
from typing import Any, Literal, NamedTuple

# --- what CI has: jobs, and where they are listed -------------------------------------------------------------------

# The states CI documents (list document of 2025-09). Any other word is passed on unchanged.
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
CLOSED = DONE | {GONE}  # nothing more is expected of these, so they are not followed
_WORST = {FAILED: 0, GONE: 1, CANCEL: 2, SUCCESS: 9}


def worst_first(states: Iterable[str]) -> list[str]:
    """Return states in the order in which they concern a person."""
    return sorted(states, key=lambda state: (_WORST.get(state, 5), state))


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One media job as CI describes it. `None`: CI does not say."""

    id: str
    bucket: str
    region: str
    state: str
    tag: str | None = None
    queue: str | None = None
    code: str | None = None  # of a Failed job only: otherwise meaningless
    message: str | None = None  # likewise
    progress: int | None = None  # percent
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    input: str | None = None  # object key, or the URL of an input by URL
    output: str | None = None  # the requested pattern
    outputs: tuple[str, ...] = ()  # at most OUTPUTS_KEPT of the files produced
    outputs_total: int = 0
    template: str | None = None
    template_name: str | None = None
    workflow: str | None = None
    workflow_name: str | None = None
    workflow_run: str | None = None
    level: str | None = None
    user_data: str | None = None

    def seconds(self, now: datetime) -> dict[str, float | None]:
        """Return what `match.duration`, `match.wait` and `match.age` compare; None where CI gave no times to count.

        The duration is from start to end, the wait from creation to start, the age from creation to `now`. A job that
        has not ended, or not started, counts up to `now`.
        """
        ended = self.ended_at or now
        return {
            "duration": _between(self.started_at, ended),
            "wait": _between(self.created_at, self.started_at or ended),
            "age": _between(self.created_at, now),
        }


def _between(start: datetime | None, end: datetime | None) -> float | None:
    return max(0.0, (end - start).total_seconds()) if start and end else None


OUTPUTS_KEPT = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """At most `count` in `per`."""

    count: int
    per: timedelta

    @property
    def interval(self) -> timedelta:
        return self.per / self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchRate:
    """The rate of a watch's own calls, beside that of its bucket."""

    watch: str
    rate: Rate


Calls = tuple[tuple[datetime, int], ...]  # up to when, and how many since the one before; oldest first


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often CI was asked of late for a bucket, by whichever process, and by the watches with a rate of their own.

    `slowdown` is how many times longer than `rate` has it CI is left alone between two calls, since it refused some.
    """

    calls: Calls = ()
    of_watches: Mapping[str, Calls] = field(default_factory=dict)
    slowdown: float = 1.0


ROLE = "role"  # the `credentials` of this machine's role


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySource:
    """Where the keys of a watch's `credentials` come from: from variables, a file, or (neither) this machine's role."""

    name: str
    secret_id: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    file: str | None = None

    @property
    def prefix(self) -> str:
        """How the names of its environment variables begin."""
        return re.sub(r"[^A-Z0-9]", "_", self.name.upper())

    @property
    def hidden(self) -> tuple[str, ...]:
        """Secrets, which must not be shown or stored."""
        return tuple(secret for secret in (self.secret_key, self.token) if secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a bucket's jobs are requested, with which keys (None: those of TENCENTCLOUD_*), and how often.

    `endpoint` replaces CI's own host (a proxy, a simulator); `watch_rate` holds beside the bucket's rate.
    """

    bucket: str
    region: str
    endpoint: str | None = None
    credentials: str | None = None
    watch_rate: WatchRate | None = None

    @property
    def host(self) -> str:
        return f"{self.bucket}.ci.{self.region}.myqcloud.com"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """What one chain of list calls covers: CI lists one tag, and at most one queue, per call."""

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
        """Return whether the list of this stream contains every job of `other`."""
        same = (self.place.bucket, self.tag) == (other.place.bucket, other.tag)
        mine_theirs = zip(self._narrowings, other._narrowings, strict=True)
        return same and all(mine in (None, theirs) for mine, theirs in mine_theirs)

    def shows(self, job: Job) -> bool:
        """Return whether the list of this stream is known to contain a job; of its queue's type CI says nothing."""
        same = (self.place.bucket, self.tag) == (job.bucket, job.tag)
        pairs = ((self.queue, job.queue), (self.workflow, job.workflow), (self.input, job.input))
        is_of_type = self.queue_type is None or self.queue is not None  # the queue counts where both are asked for
        return same and is_of_type and all(mine in (None, theirs) for mine, theirs in pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What is polled: one bucket, some tags, perhaps some queues."""

    name: str
    place: Place
    streams: tuple[Stream, ...]
    every: timedelta
    lookback: timedelta
    idle: timedelta | None = None  # how often streams are listed of which nothing new comes; None: as all others
    announce_first: bool = False  # send notifications of the jobs in a first snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Blindness:
    """Since then no poll of a watch was complete, or read on in a long list; `notified` has by rule whom it told."""

    since: datetime
    notified: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProblem:
    """A part of a job that cannot be read: `field`, whose text begins with `value`.

    `left_out`: the job cannot be used without it (no usable state, or too big), so it is not among the answer's `jobs`.
    """

    job_id: str
    field: str
    value: str
    left_out: bool = False

    @classmethod
    def of_whole(cls, job_id: str, why: str) -> JobProblem:
        """Return the problem of a job that cannot be read at all."""
        return cls(job_id=job_id, field="", value=why, left_out=True)


# The list document of 2025-09 (cloud docs 1045/73114) and the describe document, both read 2026-11-21.
PAGE_SIZE = 100  # jobs: the list call's maximum
IDS_PER_CALL = 10  # the describe call's maximum


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One answer of the job list. `served_at` is CI's own clock (its Date header)."""

    jobs: tuple[Job, ...]
    next_token: str | None = None
    served_at: datetime | None = None
    problems: tuple[JobProblem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ListProgress:
    """How far a list that goes on has come. `created_to`: all jobs that were created earlier have been read."""

    tag: str
    queue: str | None
    pages: int
    jobs: int
    created_to: datetime | None  # None: the list does not say, or goes backwards


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """One answer to a query by id; `missing` are the ids that CI does not know."""

    jobs: tuple[Job, ...]
    missing: tuple[str, ...] = ()
    served_at: datetime | None = None
    problems: tuple[JobProblem, ...] = ()


PAUSED = "Paused"  # the state of a queue whose jobs wait; another is Active


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue as CI describes it; `name` is for people, and may be empty."""

    id: str
    name: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenJob:
    """A job in the stored snapshot, which `diff` compares with a page."""

    job_id: str
    state: str
    sequence: int  # of its last transition
    last_ci_state: str | None = None  # of a gone job: the last state that CI named
    has_started: bool = False  # of a paused or gone job: CI had named the time of its start


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfinishedJob:
    """A job on record that is followed, as far as it decides which calls a poll makes."""

    job_id: str
    stream: str
    state: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingJob:
    """A job that CI did not find `times`, from `first_at` to `last_at`.

    Every poll asks for it until it is gone; CI is asked for a gone job again at `ask_at`.
    """

    stream: str
    times: int
    first_at: datetime  # means nothing once the job is gone
    last_at: datetime
    gone_at: datetime | None = None
    ask_at: datetime | None = None
    seen_at: datetime | None = None  # when the last poll that saw it began

    @property
    def is_gone(self) -> bool:
        return self.gone_at is not None


# --- what changed, and the rules' gates -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A job went from one state to another; the first is number 1.

    One that is `inferred` was not seen: the job's times prove it. It begins where the transition before ends; the one
    that was seen says from which state that was seen, so it may pass over inferred ones.
    """

    job: Job
    was: str
    to: str
    sequence: int
    seen_at: datetime
    watch: str
    silent: str | None = None  # why nobody is notified, such as 'first snapshot of Snapshot in watch "vod"'
    still_at: datetime | None = None  # the last poll that listed its whole stream while it was in `was`
    inferred: bool = False

    @property
    def happened_at(self) -> datetime:
        """When it happened according to CI; when it was seen, if CI does not say."""
        return self._said_at or self.seen_at

    @property
    def late_seconds(self) -> float | None:
        """How long after it happened it was seen; None if CI does not say when it happened."""
        return _between(self._said_at, self.seen_at)

    @property
    def _said_at(self) -> datetime | None:
        job = self.job
        if self.to in DONE:
            return job.ended_at
        if self.to == RUNNING and self._is_first_start:
            return job.started_at
        if self.to == SUBMITTED and self.was == NEW:
            return job.created_at
        return None

    @property
    def _is_first_start(self) -> bool:
        """Tell whether the job's time of start is that of this transition, and not of a run before a pause."""
        if self.inferred or self.was in (NEW, SUBMITTED):
            return True
        started, polled = self.job.started_at, self.still_at
        return self.was != GONE and started is not None and polled is not None and started >= polled


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """A level rule that fired for the time in `state` that transition `sequence` began.

    `fired_at` is its first message, `last_at` the last repetition, which is number `count` (0: none yet).
    """

    rule: str
    since: datetime
    fired_at: datetime
    last_at: datetime
    count: int = 0
    notifiers: Sequence[str] = ()  # who has been notified so far
    recovered_at: datetime | None = None
    state: str = ""  # only where alarms are read with it
    sequence: int = 0
    n: int = 0  # the number of its row


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentJob:
    """A job that counts for an incident, or (`counts` False) is compared with those that do.

    `sequence` is its transition that did so. `silent`: nobody is notified of that. `left_at` is when it no longer
    belonged to it, as it had moved on.
    """

    bucket: str
    job_id: str
    sequence: int
    state: str
    happened_at: datetime
    counts: bool = True
    silent: bool = False
    left_at: datetime | None = None
    n: int = 0  # the number of its row


class IncidentKey(NamedTuple):
    """A rule, and the id of one of its keys."""

    rule: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """A rule over several jobs, for one key: watched `since` then, open between `opened_at` and `closed_at`.

    `by` are the fields of the key with their values. A key whose incident closed gets the next `generation`. An alarm
    of a level rule that escalates is one too; its key is the job's time in state.
    """

    n: int  # the number of its row
    id: str
    rule: str
    key: str
    generation: int
    by: tuple[tuple[str, str], ...]
    since: datetime
    opened_at: datetime | None = None
    notified_at: datetime | None = None  # its first message was stored
    closed_at: datetime | None = None
    closed_why: str | None = None  # None: what it is about has ended
    acknowledged_at: datetime | None = None
    acknowledged_by: str | None = None
    escalated_at: datetime | None = None
    last_at: datetime | None = None  # what it is about happened last
    counted: int = 0  # jobs that count
    total: int = 0  # jobs, with those that are compared
    expected: int | None = None  # of a fan-in
    said: int = 0  # `counted`, as the last message had it
    notifiers: tuple[str, ...] = ()  # whom it was sent to
    judged: int = 0  # the number of the last IncidentJob that was judged
    kind: str | None = None  # of its rule; None: stored by an older version

    @property
    def of(self) -> IncidentKey:
        return IncidentKey(self.rule, self.key)

    @property
    def is_open(self) -> bool:
        return self.opened_at is not None and self.closed_at is None

    @property
    def state(self) -> Literal["watched", "open", "closed"]:
        if self.closed_at:
            return "closed"
        return "open" if self.opened_at else "watched"


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedLimit:
    """A limit of others, such as a Slack channel's, for all notifiers and processes that send there: one in `interval`.

    `name` identifies it; no secret is in it. `usual` is the documented interval, where `interval` is a guess: it holds
    for a while after the limit was exceeded.
    """

    name: str
    interval: timedelta
    usual: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """How a rule's messages are collected into digests, one for each combination of values of `by`.

    A digest is sent `wait` after its first message, or at `at` in the rules' time zone; at once if it has `most`
    messages.
    """

    by: tuple[str, ...] = ()
    wait: timedelta | None = None
    at: time | None = None
    most: int | None = None


Gate = Literal["group", "throttle", "mute", "silence", "flood", "fallback"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Why a message is not sent at once: it goes into a digest of this gate, which is sent at `until`.

    `name` is the rule (for a group or throttle), the mute, the silence's id, the limit (of a flood), or the notifier
    that failed (for a fallback); `key` distinguishes the digests of one gate, and `label` (JSON) is what the messages
    of this one have in common. With `drop` it is never sent.
    """

    gate: Gate
    name: str
    until: datetime
    wall: bool = False  # `until` is a wall-clock time: it stays when the clock is set
    key: str = ""
    label: str = ""
    most: int | None = None
    drop: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """A mute that a person created, with an end. `spec` (JSON) is what it matches."""

    id: str
    spec: str
    author: str
    reason: str
    begins_at: datetime
    ends_at: datetime
    drop: bool = False
    ended_by: str | None = None  # who ended it early
    notified: tuple[str, ...] = ()  # notifiers that were told of its end

    def __str__(self) -> str:
        return f"The silence by {self.author} ({self.reason})"


# --- messages and deliveries ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """The content of a notification, the same for every notifier.

    `event` is the body of a webhook, without `specversion` and `id`. `id` is derived from what happened, so that the
    same event makes the same message.
    """

    id: str
    kind: Literal["transition", "level", "recovery", "digest", "test", "blind", "sees", "incident"]
    title: str
    text: str
    fields: tuple[tuple[str, str], ...]
    event: Mapping[str, Any]
    bucket: str | None = None
    job_id: str | None = None
    workflow_run: str | None = None
    sequence: int | None = None
    state: str | None = None  # the one it reports
    rule: str | None = None
    counts: Mapping[str, int] | None = None  # of a workflow's root: how many jobs are in each state
    public_url: str | None = None  # where this bridge's pages are, for links
    file: str | None = None  # the name of the job's file, or its short id; it is in the default title
    mention: tuple[str, ...] = ()  # whom it calls in a chat: ids of people and groups, "here", "channel"
    links: tuple[tuple[str, str], ...] = ()  # (label, URL) of those that title and text have as "label (URL)"
    incident: str | None = None  # the id of the one that it is about
    jobs: tuple[tuple[str, str], ...] = ()  # of an incident: (name, id) of those that lines of the text name
    language: str = "en"  # in which it is written, and what chats put around it
    happened_at: datetime

    @property
    def is_of_several(self) -> bool:
        """Whether it is about an incident of several jobs, and not of one job's alarm."""
        return self.incident is not None and self.job_id is None


_INCIDENT_THREAD = re.compile(r"(?:[^/]+/)?incident/inc_[a-z0-9]+")


def is_of_incident(thread: str | None) -> bool:
    """Tell whether a thread is that of an incident: its first message is edited, whatever its notifier says."""
    return bool(thread and _INCIDENT_THREAD.fullmatch(thread))


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDelivery:
    """A message for one notifier, to be put into the outbox."""

    id: str
    message: Message
    notifier: str
    ordering_key: str | None  # deliveries with the same notifier and key are sent in order
    thread: str | None = None  # the Slack thread it belongs to
    note: str | None = None  # shown with the message, e.g. "This could not be sent to ops: ..."
    body: str | None = None  # the notifier's own body (JSON), instead of the message's event
    channel: str | None = None  # instead of the notifier's
    dead: str | None = None  # why it is for nobody: it is stored as a dead letter
    hold: Hold | None = None  # None: sent at once
    throttle: Rate | None = None  # of its rule; what exceeds it is held
    urgent: bool = False  # it goes first, and takes in what waits for the same job
    may_fold: bool = False  # it may become part of a flood's digest
    updates: bool = False  # the first message of its thread is edited to show it
    shows_by_edit: bool = False  # and that is all that shows it, if there is or will be a first message


def _sequence(event: Mapping[str, Any]) -> int:
    return int(event.get("sequence", 0))


class Content(NamedTuple):
    """What the first message of a thread should show: as in Delivery."""

    says: str
    event: str
    happened_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A stored delivery (one message for one notifier), with what one attempt needs.

    `event` and `says` are JSON: `event` as in Message, `says` has title, text, fields, state, rule, job_id, public_url,
    file, mention, links, incident and jobs. `root` is the receipt of the first message of its thread, if there is one;
    `wanted` is what that should show, where it is edited, and `wanted_no` its number.
    """

    n: int  # the number of its row
    id: str
    notifier: str
    attempts: int  # this one included
    lease: str
    happened_at: datetime
    event: str
    says: str
    lost: int = 0  # attempts whose outcome is unknown
    thread: str | None = None
    root: str | None = None
    note: str | None = None
    body: str | None = None  # the notifier's own, instead of `event`
    channel: str | None = None  # one of the notifier's `channels`
    retry_from: timedelta | None = None  # the run clock at its first attempt
    retry_due: timedelta | None = None  # and at the end of its last pause
    since: datetime | None = None  # when it was put into the outbox, or resent
    unsure_at: datetime | None = None  # the end of an attempt without an answer, which may have been accepted
    wanted: Content | None = None
    wanted_no: int = 0

    @property
    def sequence(self) -> int:
        """The number of the state that it reports; 0 in a thread of several jobs: theirs do not compare."""
        if is_of_incident(self.thread):
            return 0
        event = json.loads(self.event)
        return _sequence(event) if (self.thread or "").endswith(f"/{event.get('subject')}") else 0

    @property
    def is_newer_than_wanted(self) -> bool:
        """Whether it reports a later state of its job than what its root should show."""
        return self.sequence > (_sequence(json.loads(self.wanted.event)) if self.wanted else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RootEdit(Delivery):
    """An edit of a thread's first message to what that should show now (`event`, `says`, `wanted_no`).

    It is sent like a delivery, but it is none: its row is the thread's, and a newer wish replaces it.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """The state of a notifier's circuit breaker, and its Retry-After. Times are run-clock times (record/clocks.py).

    While the breaker is open, the notifier is sent one delivery at a time, as a probe.
    """

    opened: timedelta | None = None  # None: it is closed
    probed: timedelta | None = None  # the last probe since it opened
    asked_until: timedelta | None = None  # when the wait that the notifier asked for ends


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockReading:
    """How far CI's clock was ahead of ours in the last poll of a watch that CI answered."""

    at: datetime | None  # when this poll began
    ahead: timedelta | None  # None: CI sends no Date


@dataclass(frozen=True, slots=True)
class Sent:
    """The receiver accepted. `receipt` is what a later reply or update needs.

    `shown_no` is the `wanted_no` of what a new first message, or an edited one, shows; 0: none of these.
    """

    receipt: str | None = None
    shown_no: int = 0


MAX_RETRY_AFTER = timedelta(hours=24)  # a receiver that asks for longer is believed up to here


class Reason(StrEnum):
    """Why an attempt failed or a notifier is paused, for programs. The text beside it is for people."""

    CLIENT_ERROR = "client_error"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    CONNECTION = "connection"  # none, or it broke before an answer
    RATE_LIMITED = "rate_limited"
    AUTH = "auth"
    INVALID_PAYLOAD = "invalid_payload"
    CHANNEL = "channel"  # it does not exist, or the app has no access
    GONE = "gone"  # the receiver or its address, for good
    LOST = "lost"  # with its worker: the outcome is unknown
    UNCONFIRMED = "unconfirmed"  # an earlier attempt may still turn out to have been accepted
    MANUAL = "manual"  # a person paused the notifier
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class RetryLater:
    """It may work later. `after` is the receiver's Retry-After; `whole_notifier`: it applies to all its deliveries.

    `limit`: it applies to all that use this SharedLimit, and nothing is counted as an attempt. `attempts`: more than
    so many are of no use.
    """

    why: str
    reason: Reason = Reason.OTHER
    _: KW_ONLY
    after: timedelta | None = None
    whole_notifier: bool = False
    limit: str | None = None
    attempts: int | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """It will never work. `pause`: no delivery to this notifier can succeed until a person has fixed the cause."""

    why: str
    reason: Reason = Reason.OTHER
    _: KW_ONLY
    pause: bool = False


Outcome = Sent | RetryLater | Rejected
ANSWER_KEPT = 4096  # characters of the body


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One finished attempt to send a delivery."""

    delivery: Delivery
    outcome: Outcome
    started_at: datetime
    seconds: float
    status: int | None = None  # of HTTP or SMTP
    answer: str = ""  # the first ANSWER_KEPT characters of the body
    address: str | None = None  # the one connected to
