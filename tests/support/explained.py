"""A bridge of one database, and what it answers to "why did I (not) get this?"."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import select

from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.read import read
from bridge.decide.whatif.rule_tests import sample_transition
from bridge.model import RUNNING, Delivery, Outcome, Sent, Silence
from bridge.pipeline.dispatch import Dispatcher
from bridge.pipeline.explain import explain_sample, explain_stored
from bridge.pipeline.poll import Poller
from bridge.record.database import Database
from bridge.record.outbox import entries, silences
from bridge.record.schema import deliveries
from bridge.wiring import parts
from tests.support.fakes import FakeCi, FakeTransport
from tests.support.records import NOW, Clock, a_listed_job, hours, seconds

Facts = dict[str, Any]

HEAD = """
[alias.queue]
one = "p1"

[[watch]]
name = "vod"
bucket = "clips-1250000000"
region = "ap-chongqing"
tags = ["Transcode"]

[notifier.cms]
type = "webhook"
url = "https://cms.example.com/hook"
retry = "1h"

[notifier.ops]
type = "webhook"
url = "https://ops.example.com/hook"
retry = "1h"
"""
EVERYTHING = """
[[rule]]
name = "everything"
notify = "cms"
"""
ONLY_FAILED = """
[[rule]]
name = "failed"
to = "Failed"
match.queue = "one"
notify = "cms"
"""
STUCK = """
[[rule]]
name = "stuck"
in = "Running"
for = "30m"
notify = "ops"
"""
MUTE = '[[mute]]\nname = "mornings"\nbetween = "08:00-10:00"\nmode = "{}"\n'


def a_book(*rules: str) -> Rulebook:
    return read(HEAD + "".join(rules), {})


@dataclass
class World:
    """A bridge whose CI, receivers and time do as they are told."""

    db: Database
    ci: FakeCi
    clock: Clock
    poller: Poller
    transport: FakeTransport
    book: Rulebook = field(default_factory=lambda: a_book(EVERYTHING))
    lease: Iterator[int] = field(default_factory=itertools.count)

    def begin(self, *rules: str) -> None:
        """Put rules in force, poll once, and let half a minute go by."""
        self.rule(*rules)
        self.poll()

    def rule(self, *rules: str) -> None:
        self.book = a_book(*rules)
        parts.sync(self.db, self.book)

    def poll(self) -> None:
        assert self.poller.poll_once(self.book.watches[0], self.book) is not None
        self.clock.advance(seconds(30))

    def sees(self, *states: str, id: str = "j1", **facts: Any) -> None:  # noqa: A002  (the noun's own word)
        """Let a job be in these states one after the other, with a poll for each."""
        created = self.ci.jobs[id].created_at if id in self.ci.jobs else self.clock()
        for state in states:
            times = {"started_at": self.clock()} if state == RUNNING else {}
            self.ci.has(a_listed_job(id, state, **{"created_at": created, **times, **facts}))
            self.poll()

    def deliver(self, outcome: Outcome | Callable[[Delivery], Outcome] = Sent()) -> None:  # noqa: B008  (it is frozen)
        """Tell what is due, digests too."""
        self.transport.answer = outcome if callable(outcome) else lambda _: outcome
        worker = f"w{next(self.lease)}"
        dispatcher = Dispatcher(
            db=self.db, transport=self.transport, book=lambda: self.book, clock=self.clock, chance=lambda: 0.0,
            worker=worker, monotonic=lambda: self.clock().timestamp(),
        )  # fmt: skip
        while dispatcher.turn() or dispatcher.unfinished:
            pass

    def all(self, id: str = "j1", **which: Any) -> list[Facts]:  # noqa: A002  (the noun's own word)
        with self.db.read() as tx:
            return explain_stored(tx, id, self.book, now=self.clock(), **which)

    def last(self, id: str = "j1") -> Facts:  # noqa: A002  (the noun's own word)
        return self.all(id)[-1]

    def told(self, id: str = "j1") -> Facts:  # noqa: A002  (the noun's own word)
        """The one delivery of the last transition."""
        (one,) = self.last(id)["deliveries"]
        found: Facts = one
        return found

    def told_by(self, rule: str, id: str = "j1") -> Facts:  # noqa: A002  (the noun's own word)
        """The delivery of the last transition that this rule made."""
        (one,) = [one for one in self.last(id)["deliveries"] if one["rule"] == rule and one["id"]]
        found: Facts = one
        return found

    def send_again(self) -> None:
        """Redrive all that may be."""
        with self.db.write() as tx:
            entries.redrive(tx, select(deliveries.c.n), now=self.clock())

    def try_out(self, *, known: bool = True, **said: Any) -> Facts:
        step = sample_transition(said, self.book, self.clock())
        if not known:
            return explain_sample(step, self.book, now=self.clock(), tx=None)
        with self.db.read() as tx:
            return explain_sample(step, self.book, now=self.clock(), tx=tx)

    def silence(self, *, drop: bool = False) -> None:
        one = Silence(
            id="sil_1", spec='{"match": {"tag": "Transcode"}}', author="ann", reason="a deploy",
            begins_at=self.clock(), ends_at=self.clock() + hours(1), drop=drop,
        )  # fmt: skip
        with self.db.write() as tx:
            silences.add(tx, one)


def level(facts: Facts, rule: str = "stuck") -> Facts:
    (found,) = [one for one in facts["levels"] if one["rule"] == rule]
    return found  # type: ignore[no-any-return]  # plain values


def rule_of(facts: Facts, name: str) -> Facts:
    (found,) = [one for one in facts["rules"] if one["rule"] == name]
    return found  # type: ignore[no-any-return]  # plain values


def after(time: timedelta) -> str:
    return f"{NOW + time:%Y-%m-%dT%H:%M:%SZ}"
