"""A CI that lists and describes the jobs it is given, and a transport whose receivers do as they are told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import event, text

from bridge.collect.errors import CiError
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.read import read
from bridge.model import (
    Attempt,
    Delivery,
    Description,
    Job,
    Outcome,
    Pace,
    Page,
    Place,
    Queue,
    RootEdit,
    Sent,
    Stream,
    Watch,
)
from bridge.record.database import Database
from tests.conftest import Opener, PostgresServer
from tests.support.nouns import BUCKET, Clock

_ALL = """
[defaults]
on_first_run = "{first}"

[[watch]]
name = "vod"
bucket = "clips-1250000000"
region = "ap-chongqing"
tags = [{tags}]
every = "{every}"
lookback = "{lookback}"
{watch}

[notifier.cms]
type = "webhook"
url = "https://cms.example.com/hook"
retry = "1h"
max_in_flight = 32
{cms}

[notifier.pager]
type = "webhook"
url = "https://pager.example.com/hook"
max_in_flight = 32

[[rule]]
name = "every"
notify = "cms"
"""


def notify_all(
    *tags: str, every: str = "30s", lookback: str = "24h", announce: bool = False, watch: str = "", cms: str = ""
) -> str:
    """Rules that notify `cms` of every transition of these tags; `watch` and `cms` are more of their keys."""
    names, first = ", ".join(f'"{tag}"' for tag in tags or ("Transcode",)), "announce" if announce else "silent"
    return _ALL.format(tags=names, every=every, lookback=lookback, first=first, watch=watch, cms=cms)


def a_book(*tags: str, **keys: Any) -> Rulebook:
    return read(notify_all(*tags, **keys), {})


def watch_of(book: Rulebook) -> Watch:
    return book.watches[0]


@dataclass
class FakeCi:
    """Lists newest first, whatever order it is asked for.

    `refuses` has the error that a tag's list (or "TAG by state", or "describe") is answered with.
    """

    clock: Clock
    page_size: int = 100
    refuses: dict[str, CiError] = field(default_factory=dict)
    before_call: Callable[[], object] = lambda: None
    ignores_states: bool = False
    slowed: bool = False  # it has refused calls as too many
    hidden: set[str] = field(default_factory=set)  # jobs that no list shows
    listed: list[tuple[str, datetime | None, str | None]] = field(default_factory=list)
    listed_again: list[tuple[str, datetime | None, str | None]] = field(default_factory=list)  # with an end
    states: list[tuple[str, ...]] = field(default_factory=list)  # that each list was asked for
    described: list[tuple[str, ...]] = field(default_factory=list)
    pages: dict[str, list[Page]] = field(default_factory=dict)  # by tag: given out first, whatever there is
    jobs: dict[str, Job] = field(default_factory=dict)
    queues_known: tuple[Queue, ...] = ()
    queues_asked: int = 0
    pace_of: dict[str, Pace] = field(default_factory=dict)
    waited: float = 0.0

    def pace(self, bucket: str, *, now: datetime) -> Pace:
        return self.pace_of.get(bucket, Pace())

    def set_pace(self, bucket: str, pace: Pace, *, now: datetime) -> None:
        self.pace_of[bucket] = pace

    def waited_s(self, bucket: str) -> float:
        return self.waited

    def queues(self, _: Place) -> tuple[Queue, ...]:
        self.queues_asked += 1
        if "queues" in self.refuses:
            raise self.refuses["queues"]
        return self.queues_known

    def has(self, *jobs: Job) -> None:
        self.jobs |= {job.id: job for job in jobs}

    def forgets(self, job_id: str) -> None:
        del self.jobs[job_id]

    def calls(self) -> int:
        return len(self.listed) + len(self.listed_again) + len(self.described)

    def list(
        self,
        stream: Stream,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        token: str | None = None,
        order: str = "Asc",
        size: int = 100,
        states: Sequence[str] = (),
    ) -> Page:
        (self.listed_again if until and not states else self.listed).append((stream.tag, since, token))
        self.states.append(tuple(states))
        self._answer(f"{stream.tag} by state" if states else stream.tag)
        if self.pages.get(stream.tag) and not states:
            return self.pages[stream.tag].pop(0)
        wanted = [
            job for job in self.jobs.values()
            if job.tag == stream.tag
            and (job.created_at is None or (since or job.created_at) <= job.created_at <= (until or job.created_at))
            and (not states or self.ignores_states or job.state in states)
            and job.id not in self.hidden
        ]  # fmt: skip
        wanted.sort(key=lambda job: job.created_at or self.clock(), reverse=True)
        first = int(token or 0)
        after = first + self.page_size
        return Page(
            jobs=tuple(wanted[first:after]),
            next_token=str(after) if after < len(wanted) else None,
            served_at=self.clock(),
        )

    def is_slowed(self, _: Place) -> bool:
        return self.slowed

    def describe(self, place: Place, ids: Sequence[str]) -> Description:
        assert place.bucket == BUCKET
        self.described.append(tuple(ids))
        self._answer("describe")
        return Description(
            jobs=tuple(self.jobs[id_] for id_ in ids if id_ in self.jobs),
            missing=tuple(id_ for id_ in ids if id_ not in self.jobs),
        )

    def _answer(self, what: str) -> None:
        self.before_call()
        if what in self.refuses:
            raise self.refuses[what]


def accept(_: Delivery) -> Outcome | None:
    return Sent()


@dataclass
class FakeChannels:
    """Slack's channels, as a FakeTransport answers for them: what was posted, and what each root shows."""

    refuses: Callable[[Delivery], Outcome | None] = lambda _: None  # instead of accepting
    posts: list[str] = field(default_factory=list)  # titles, roots and replies
    roots: dict[str, list[str]] = field(default_factory=dict)  # by thread: the titles that its root has shown
    edits: int = 0

    def __call__(self, delivery: Delivery) -> Outcome | None:
        if refused := self.refuses(delivery):
            return refused
        title = json.loads(delivery.wanted.says if delivery.wanted and not delivery.root else delivery.says)["title"]
        if isinstance(delivery, RootEdit):
            self.edits += 1
            self.roots[delivery.thread or ""].append(title)
            return Sent(receipt=delivery.root, shown_no=delivery.wanted_no)
        self.posts.append(title)
        if delivery.root or not delivery.thread:
            return Sent()
        self.roots[delivery.thread] = [title]
        return Sent(receipt=f"C1:{len(self.posts)}:C024BE91L", shown_no=delivery.wanted_no)

    def shows(self) -> list[str]:
        """Return what the roots show, in the order of their posts."""
        return [shown[-1] for shown in self.roots.values()]


@dataclass
class FakeTransport:
    """Ends what was begun at the next `wait`: `answer` gives the outcome, or None while it is in flight."""

    clock: Clock
    answer: Callable[[Delivery], Outcome | None] = accept
    status: Callable[[Delivery], int | None] = lambda _: None  # HTTP
    before_wait: Callable[[], object] = lambda: None
    begun: list[Delivery] = field(default_factory=list)
    began_at: dict[str, datetime] = field(default_factory=dict)  # by delivery, the last time
    waited: list[float] = field(default_factory=list)
    flying: dict[str, Delivery] = field(default_factory=dict)  # by id
    most: int = 0
    woken: int = 0

    @property
    def in_flight(self) -> int:
        return len(self.flying)

    def begin(self, delivery: Delivery) -> None:
        self.begun.append(delivery)
        self.began_at[delivery.id] = self.clock()
        self.flying[delivery.id] = delivery
        self.most = max(self.most, self.in_flight)

    def wait(self, timeout_s: float) -> Sequence[Attempt]:
        self.waited.append(timeout_s)
        self.before_wait()
        answers = [(one, self.answer(one)) for one in self.flying.values()]
        for one, outcome in answers:
            if outcome is not None:
                del self.flying[one.id]
        return [
            Attempt(delivery=one, outcome=outcome, started_at=self.clock(), seconds=0.1, status=self.status(one))
            for one, outcome in answers
            if outcome is not None
        ]

    def wake(self) -> None:
        self.woken += 1

    def ids(self) -> list[str]:
        return [one.id for one in self.begun]


@contextmanager
def outage(db: Database, postgres: PostgresServer | None, opened: Opener) -> Iterator[None]:
    """The database answers nobody meanwhile: PostgreSQL refuses connections, SQLite is locked for too long."""
    if postgres is None:
        other = opened(db.url.render_as_string())
        with other.write():
            yield
        return
    name = db.url.database
    postgres.do(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    try:
        postgres.do(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")  # noqa: S608  (our own name)
        yield
    finally:
        postgres.do(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


def impatient(db: Database) -> Database:
    """Let SQLite say at once that it is locked; it waits for half a minute otherwise."""
    if db.sqlite:
        event.listen(db.engine, "connect", lambda connection, _: connection.execute("PRAGMA busy_timeout = 5").close())
    return db


def count(db: Database, table: str) -> int:
    with db.read() as tx:
        return int(tx.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())  # noqa: S608  (our own name)
