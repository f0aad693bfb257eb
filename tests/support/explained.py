"""A rig, and what it answers to "why did I (not) get this?"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import select

from bridge.decide.whatif.rule_tests import sample_transition
from bridge.model import Delivery, Outcome, Sent
from bridge.pipeline.explain import explain_sample, explain_stored
from bridge.record.outbox import entries
from bridge.record.schema import deliveries
from tests.support.nouns import NOW, minutes
from tests.support.rig import HALF_A_MINUTE, Rig

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
WITH_FALLBACK = HEAD.replace("[notifier.ops]", 'fallback = "ops"\n\n[notifier.ops]')  # of cms
EVERYTHING = '\n[[rule]]\nname = "everything"\nnotify = "cms"\n'
GROUPED = f'{EVERYTHING}group = {{ wait = "10m" }}\n'
ONLY_FAILED = '\n[[rule]]\nname = "failed"\nto = "Failed"\nmatch.queue = "one"\nnotify = "cms"\n'
STUCK = '\n[[rule]]\nname = "stuck"\nin = "Running"\nfor = "30m"\nnotify = "ops"\n'
MUTE = '[[mute]]\nname = "mornings"\nbetween = "08:00-10:00"\nmode = "{}"\n'
SILENCE = "the silence sil_1 by ann (maintenance)"


@dataclass
class Explained(Rig):
    """Half a minute goes by after each poll."""

    given: str = HEAD

    def begin(self, *rules: str, given: str = HEAD) -> None:
        """Put rules in force, and poll once."""
        self.use("".join(rules), given=given)
        self.poll_on()

    def rule(self, *rules: str) -> None:
        self.use("".join(rules))

    def poll_on(self) -> None:
        self.poll()
        self.clock.advance(HALF_A_MINUTE)

    def polls_at(self, at_minutes: float) -> None:
        self.clock.now = NOW + minutes(at_minutes)
        self.poll_on()

    def goes(self, *states: str, id_: str = "j1", **facts: Any) -> None:
        """Let a job be in these states one after the other, with a poll for each."""
        for state in states:
            self.has(id_, state, **facts)
            self.poll_on()

    def delivers(self, outcome: Outcome | Callable[[Delivery], Outcome] = Sent()) -> None:  # noqa: B008  (it is frozen)
        """Send what is due, digests too."""
        self.transport.answer = outcome if callable(outcome) else lambda _: outcome
        self.dispatcher = self.new_dispatcher()
        self.deliver()

    def all(self, id_: str = "j1", *, inferred: bool = False, **which: Any) -> list[Facts]:
        """Explain the transitions that were seen, or those that were inferred."""
        with self.db.read() as tx:
            found = explain_stored(tx, id_, self.book, now=self.clock(), **which)
        return [facts for facts in found if facts["inferred"] == inferred]

    def last(self, id_: str = "j1") -> Facts:
        return self.all(id_)[-1]

    def headline(self) -> str:
        return str(self.last()["headline"])

    def only(self, id_: str = "j1") -> Facts:
        """The one delivery of the last transition."""
        (found,) = self.last(id_)["deliveries"]
        return found  # type: ignore[no-any-return]  # plain values

    def answer(self, id_: str = "j1") -> tuple[str, str]:
        """The status of that delivery, for programs and for people."""
        found = self.only(id_)
        return found["answer"], found["why"]

    def resend_all(self) -> None:
        with self.db.write() as tx:
            entries.redrive(tx, select(deliveries.c.n), now=self.clock())

    def sample(self, *, known: bool = True, **facts: Any) -> Facts:
        """Explain a sample job; without the record, if it is not `known`."""
        step = sample_transition(facts, self.book, self.clock())
        if not known:
            return explain_sample(step, self.book, now=self.clock(), tx=None)
        with self.db.read() as tx:
            return explain_sample(step, self.book, now=self.clock(), tx=tx)


def level(facts: Facts, rule: str = "stuck") -> Facts:
    (found,) = [level for level in facts["levels"] if level["rule"] == rule]
    return found  # type: ignore[no-any-return]  # plain values


def rule_of(facts: Facts, name: str) -> Facts:
    (found,) = [rule for rule in facts["rules"] if rule["rule"] == name]
    return found  # type: ignore[no-any-return]  # plain values


def after(time: timedelta) -> str:
    return f"{NOW + time:%Y-%m-%dT%H:%M:%SZ}"
