"""A bridge whose hours are simulated: a CI, a poller, a dispatcher and receivers, all by one clock."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.read import read
from bridge.model import Delivery, Silence
from bridge.pipeline.dispatch import Dispatcher
from bridge.pipeline.poll import Poller
from bridge.pipeline.poll_context import Poll
from bridge.record.database import Database
from bridge.record.outbox import silences
from bridge.record.queries import lists
from bridge.record.queries.lists import Filter
from bridge.wiring import parts
from tests.support.fakes import FakeCi, FakeTransport
from tests.support.records import Clock, a_listed_job, hours, minutes

EVERY = minutes(5)
ENDS = {"Success", "Failed", "Cancel"}
GIVEN = """
[alias.queue]
vod = "p1"
[[watch]]
name = "vod"
bucket = "clips-1250000000"
region = "ap-chongqing"
tags = ["Transcode", "Snapshot"]
every = "5m"
lookback = "24h"
[notifier.ops]
type = "webhook"
url = "https://ops.example.com/hook"
[notifier.cms]
type = "webhook"
url = "https://cms.example.com/hook"
"""

_workers = itertools.count(1)


@dataclass(frozen=True)
class Heard:
    """What a receiver heard."""

    at: datetime
    notifier: str
    title: str
    text: str
    note: str | None
    event: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.at:%H:%M} {self.notifier}: {self.title}"


@dataclass
class House:
    """`rules` is the end of a rules file whose watch "vod" and notifiers "ops" and "cms" are GIVEN."""

    db: Database
    rules: str
    clock: Clock
    transport: FakeTransport = field(init=False)
    ci: FakeCi = field(init=False)

    def __post_init__(self) -> None:
        self.ci = FakeCi(self.clock)
        self.transport = FakeTransport(self.clock)
        self._elapsed_s, self._last = 0.0, self.clock()
        self.start()

    @property
    def book(self) -> Rulebook:
        return self._book

    def start(self, rules: str | None = None, *, given: str = GIVEN, environ: Mapping[str, str] | None = None) -> None:
        """Start, or start anew with what the database remembers, perhaps with other rules."""
        self.rules = self.rules if rules is None else rules
        self._book = read(given + self.rules, environ or {})
        parts.sync(self.db, self._book)
        worker = f"w{next(_workers)}"
        self.poller = Poller(db=self.db, source=self.ci, clock=self.clock, worker=worker)
        self.dispatcher = Dispatcher(
            db=self.db,
            transport=self.transport,
            book=lambda: self._book,
            clock=self.clock,
            chance=lambda: 0.0,
            worker=worker,
            monotonic=self._monotonic,
        )

    def _monotonic(self) -> float:
        """Go on by as much as the clock does, but not back when that is set back."""
        now = self.clock()
        self._elapsed_s += max(0.0, (now - self._last).total_seconds())
        self._last = now
        return self._elapsed_s

    def has(self, id_: str, state: str, **facts: Any) -> None:
        """Let CI have a job in this state from now on, with the times that CI then gives."""
        old = self.ci.jobs.get(id_)
        times = {"created_at": old.created_at if old else self.clock()}
        times["started_at"] = old.started_at if old and old.started_at else None
        if state == "Running" and not times["started_at"]:
            times["started_at"] = self.clock()
        if state in ENDS:
            times |= {"ended_at": self.clock(), "started_at": times["started_at"] or self.clock()}
        kept = {"tag": old.tag, "queue": old.queue, "input": old.input} if old else {"input": f"in/{id_}.mp4"}
        self.ci.has(a_listed_job(id_, state, **{**kept, **times, **facts}))

    def poll(self) -> Poll:
        poll = self.poller.poll_once(self._book.watches[0], self._book)
        assert poll is not None
        return poll

    def deliver(self) -> None:
        while self.dispatcher.turn() or self.dispatcher.unfinished:
            pass

    def passes(self, time: timedelta, *, polls: bool = True) -> None:
        """Let time go by, with a poll every five minutes (every thirty in a long time), and deliveries made at once."""
        until, every = self.clock() + time, EVERY if time < hours(6) else 6 * EVERY
        while self.clock() < until:
            self.clock.advance(min(every, until - self.clock()))
            if polls:
                self.poll()
            self.deliver()

    def heard(self, notifier: str | None = None) -> list[Heard]:
        """Return what has been heard, oldest first."""
        sent = [self._heard(one) for one in self.transport.begun]
        return [one for one in sent if notifier in (None, one.notifier)]

    def _heard(self, delivery: Delivery) -> Heard:
        says = json.loads(delivery.says)
        at = self.transport.began_at[delivery.id]
        return Heard(at, delivery.notifier, says["title"], says["text"], delivery.note, json.loads(delivery.event))

    def said(self, notifier: str | None = None) -> list[str]:
        return [str(one) for one in self.heard(notifier)]

    def deliveries(self, **which: Any) -> list[lists.Facts]:
        with self.db.read() as tx:
            return lists.find_deliveries(tx, Filter(**which), limit=500).items[::-1]

    def silence(self, id_: str = "sil_1", *, lasts: timedelta, drop: bool = False, **spec: Any) -> None:
        silence = Silence(
            id=id_, spec=json.dumps(spec), author="ann", reason="maintenance", begins_at=self.clock(),
            ends_at=self.clock() + lasts, drop=drop,
        )  # fmt: skip
        with self.db.write() as tx:
            silences.add(tx, silence)
