"""The rig: a bridge whose hours are simulated, with a CI, a poller, a dispatcher and receivers, all by one clock."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.read import read
from bridge.model import Delivery, Job, Silence
from bridge.pipeline.dispatch import Dispatcher
from bridge.pipeline.poll import PollResult
from bridge.pipeline.poller import Poller
from bridge.record.database import Database
from bridge.record.outbox import silences
from bridge.record.polling import snapshots
from bridge.record.queries import lists
from bridge.record.queries.lists import Filter
from bridge.record.schema import deliveries, transitions
from bridge.wiring import parts
from tests.support.fakes import FakeCi, FakeTransport
from tests.support.nouns import Clock, a_listed_job, a_stream, hours, minutes, seconds
from tests.support.records import rows

EVERY = minutes(5)
HALF_A_MINUTE, HOUR, A_MOMENT = seconds(30), hours(1), seconds(0.1)
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
WITH_FALLBACK = GIVEN.replace('ops.example.com/hook"', 'ops.example.com/hook"\nfallback = "cms"')  # of ops
# Rules to begin with: more keys of each may follow.
OVER = '[[rule]]\nname = "over"\nto = "done"\nnotify = "ops"\n'
STUCK = '[[rule]]\nname = "stuck"\nin = "Running"\nfor = "30m"\nnotify = "ops"\n'
QUIET = '[[mute]]\nname = "quiet"\nbetween = "22:00-08:00"\n'

_workers = itertools.count(1)


@dataclass(frozen=True)
class Received:
    """A message as its receiver got it."""

    at: datetime
    notifier: str
    title: str
    text: str
    note: str | None
    event: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.at:%H:%M} {self.notifier}: {self.title}"


@dataclass
class Rig:
    """`rules` is the end of a rules file that begins with `given`."""

    db: Database
    rules: str = ""
    clock: Clock = field(default_factory=Clock)
    given: str = GIVEN
    environ: Mapping[str, str] = field(default_factory=dict)
    ci: FakeCi = field(init=False)
    transport: FakeTransport = field(init=False)

    def __post_init__(self) -> None:
        self.ci = FakeCi(self.clock)
        self.transport = FakeTransport(self.clock)
        self._elapsed_s, self._last = 0.0, self.clock()
        self.start()

    def start(self, rules: str | None = None, **facts: Any) -> None:
        """Start, or start anew with what the database remembers, perhaps with other rules."""
        self.use(rules, **facts)
        self.poller = self.new_poller()
        self.dispatcher = self.new_dispatcher()

    def use(
        self, rules: str | None = None, *, given: str | None = None, environ: Mapping[str, str] | None = None
    ) -> None:
        """Put rules in force, as by a reload."""
        self.rules = self.rules if rules is None else rules
        self.given = self.given if given is None else given
        self.environ = self.environ if environ is None else environ
        self.book: Rulebook = read(self.given + self.rules, self.environ)
        parts.sync(self.db, self.book, clock=self.clock)

    def new_poller(self, **facts: Any) -> Poller:
        whole = {"db": self.db, "source": self.ci, "clock": self.clock, "worker": f"w{next(_workers)}"}
        return Poller(**{**whole, **facts})

    def new_dispatcher(self, **facts: Any) -> Dispatcher:
        whole = {"db": self.db, "transport": self.transport, "book": lambda: self.book, "clock": self.clock}
        whole |= {"chance": lambda: 0.0, "worker": f"w{next(_workers)}", "monotonic": self._monotonic}
        return Dispatcher(**{**whole, **facts})

    def first_poll(self) -> None:
        """Let the first snapshot be a minute ago."""
        self.poll()
        self.clock.advance(minutes(1))

    def _monotonic(self) -> float:
        """Go on by as much as the clock does, but not back when that is set back."""
        now = self.clock()
        self._elapsed_s += max(0.0, (now - self._last).total_seconds())
        self._last = now
        return self._elapsed_s

    # --- what happens ---------------------------------------------------------------------------------------

    def has(self, id_: str, state: str, **facts: Any) -> Job:
        """Let CI have a job in this state from now on, with the times that CI then gives."""
        old = self.ci.jobs.get(id_)
        times = {"created_at": old.created_at if old else self.clock()}
        times["started_at"] = old.started_at if old and old.started_at else None
        if state == "Running" and not times["started_at"]:
            times["started_at"] = self.clock()
        if state in ENDS:
            times |= {"ended_at": self.clock(), "started_at": times["started_at"] or self.clock()}
        kept = {"tag": old.tag, "queue": old.queue, "input": old.input} if old else {"input": f"in/{id_}.mp4"}
        job = a_listed_job(id_, state, **{**kept, **times, **facts})
        self.ci.has(job)
        return job

    def poll(self, watch: int = 0, **how: Any) -> PollResult:
        poll = self.poller.poll_once(self.book.watches[watch], self.book, **how)
        assert poll is not None
        return poll

    def polls(self, times: int = 1, every: timedelta = HALF_A_MINUTE) -> PollResult:
        """Poll now and then, each time after so much time."""
        for _ in range(times):
            self.clock.advance(every)
            poll = self.poll()
        return poll

    def deliver(self) -> None:
        while self.dispatcher.run_once() or self.dispatcher.unfinished:
            pass

    def sees(self, *ids: str, state: str = "Failed", **facts: Any) -> None:
        """Let jobs be in a state, be seen, and be delivered."""
        for id_ in ids:
            self.has(id_, state, **facts)
        self.poll()
        self.deliver()

    def passes(self, time: timedelta, *, polls: bool = True, every: timedelta | None = None) -> None:
        """Let time go by, with a poll every five minutes (every thirty in a long time), and deliveries made at once."""
        until = self.clock() + time
        every = every or (EVERY if time < hours(6) else 6 * EVERY)
        while self.clock() < until:
            self.clock.advance(min(every, until - self.clock()))
            if polls:
                self.poll()
            self.deliver()

    def lives(self, time: timedelta, *, step: timedelta | None = None) -> None:
        """Let time go by without polls; the worker looks as often as it wants to, unless `step` says how often."""
        if step:
            self.passes(time, polls=False, every=step)
            return
        until = self.clock() + time
        while self.clock() < until:
            pause = seconds(max(self.transport.waited[-1:] or [0.0])) or A_MOMENT
            self.clock.advance(min(pause, until - self.clock()))
            self.deliver()

    def leaps(self, time: timedelta) -> None:
        """Set the clock, while no time passes."""
        self.clock.advance(time)
        self._last += time

    def silence(
        self,
        id_: str = "sil_1",
        *,
        after: timedelta = timedelta(),
        lasts: timedelta = HOUR,
        drop: bool = False,
        **spec: Any,
    ) -> None:
        begins_at = self.clock() + after
        silence = Silence(
            id=id_, spec=json.dumps(spec), author="ann", reason="maintenance", begins_at=begins_at,
            ends_at=begins_at + lasts, drop=drop,
        )  # fmt: skip
        with self.db.write() as tx:
            silences.add(tx, silence)

    # --- what came of it ------------------------------------------------------------------------------------

    def received(self, notifier: str | None = None) -> list[Received]:
        """Return what receivers got, oldest first."""
        sent = [self._received(delivery) for delivery in self.transport.begun]
        return [message for message in sent if notifier in (None, message.notifier)]

    def _received(self, delivery: Delivery) -> Received:
        says, at = json.loads(delivery.says), self.transport.began_at[delivery.id]
        return Received(at, delivery.notifier, says["title"], says["text"], delivery.note, json.loads(delivery.event))

    def lines(self) -> list[str]:
        return [str(message) for message in self.received()]

    def titles(self, notifier: str | None = None) -> list[str]:
        return [message.title for message in self.received(notifier)]

    def deliveries(self, **which: Any) -> list[lists.Facts]:
        with self.db.read() as tx:
            return lists.find_deliveries(tx, Filter(**which), limit=500).items[::-1]

    def states(self) -> dict[str, str]:
        """Return what became of the deliveries about each job."""
        return {row["job"]: row["state"] for row in self.deliveries() if row["job"]}

    def stored_states(self, notifier: str | None = None) -> list[int]:
        return [row["state"] for row in rows(self.db, deliveries) if notifier in (None, row["notifier"])]

    def steps(self, *, inferred: bool = False) -> list[tuple[str, str, str]]:
        """Return the transitions that were seen, or those that were inferred: each job, from, to."""
        found = (row for row in rows(self.db, transitions) if row["inferred"] == inferred)
        return [(row["job_id"], row["was"], row["state"]) for row in found]

    def silent(self) -> dict[str, str | None]:
        """Return why nobody was notified of each job's last transition."""
        return {row["job_id"]: row["silent"] for row in rows(self.db, transitions)}

    def news(self) -> list[str]:
        """Return the jobs of the transitions that were seen and are not silent."""
        found = (row for row in rows(self.db, transitions) if not row["inferred"])
        return [row["job_id"] for row in found if row["silent"] is None]

    def mark(self, tag: str = "Transcode") -> datetime | None:
        with self.db.read() as tx:
            return next((known.mark for known in snapshots.listed(tx, [a_stream(tag).key]).values()), None)
