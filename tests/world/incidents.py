"""What rules over several jobs may and must tell, worked out from what the oracle has seen.

It uses none of the bridge's code, and asserts only what holds in every world. A job counts at the time that CI says it
ended, but no later than it was seen by either clock, and when it was seen if CI does not say; so each time is a span.

- A threshold opens if so many jobs came to its state within the time, of which somebody is to be notified of one; it
  closes when no other came for as long. It must open if each of them is news, and was seen before what came first is
  forgotten, which is twice the time later.
- An absence opens if none was seen that came within the time, and must open if none came.
- A backlog opens if so many jobs are in the state for long enough, and must open if a whole look finds them so.
- Each generation of a key opens once and closes at most once, in this order, and they are counted without holes. A key
  that no watch lists any more is closed without a word.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text

from bridge.record.database import Database
from tests.world.oracle import FINAL, LATER, Oracle, Step, Stream

_SAID = timedelta(seconds=1)  # times are said in whole seconds
_NEVER = datetime.min.replace(tzinfo=UTC)
_TOLD = text(
    "SELECT d.n, d.id, m.event FROM delivery d JOIN message m ON m.id = d.message"
    " WHERE d.notifier = 'incidents' AND d.n > :n ORDER BY d.n"
)

Key = tuple[str, str | None]  # a rule, and a queue if it has an incident for each


@dataclass(frozen=True)
class Several:
    """A rule over several jobs, in numbers."""

    states: tuple[str, ...]
    least: int
    time: timedelta


THRESHOLDS = {
    "busy": Several(("Success",), 2, timedelta(minutes=10)),
    "storm": Several(FINAL, 3, timedelta(hours=1)),
}
ABSENCE, BACKLOG = "silent", "backlog"
RARE = Several(("Success",), 1, timedelta(hours=2))
LONG = Several(("Submitted",), 2, timedelta(minutes=10))
QUEUES = ("p1", "p2")
_KEYS: Mapping[str, tuple[str | None, ...]] = {"busy": QUEUES, "storm": (None,), ABSENCE: (None,), BACKLOG: QUEUES}


@dataclass(frozen=True)
class Came:
    """A job that came to a state."""

    job: str
    step: Step


@dataclass(frozen=True)
class Told:
    """One message about an incident, as it is stored."""

    delivery: str
    type: str
    data: Mapping[str, Any]

    @property
    def key(self) -> Key:
        return self.data["rule"], self.data["by"].get("queue")

    @property
    def of(self) -> tuple[int, str]:
        """Return what is the same in all that is told of an incident."""
        return self.data["generation"], self.data["opened_at"]

    @property
    def opens(self) -> bool:
        return self.type == "ci.incident.opened"

    @property
    def opened_at(self) -> datetime:
        return datetime.fromisoformat(self.data["opened_at"])

    @property
    def closed_at(self) -> datetime | None:
        return datetime.fromisoformat(self.data["closed_at"]) if self.data["closed_at"] else None


@dataclass
class Incidents:
    """All that was told of incidents so far, compared after each poll, when the oracle has seen no more than it."""

    oracle: Oracle
    told: dict[Key, list[Told]] = field(default_factory=lambda: defaultdict(list))
    deliveries: dict[str, Told] = field(default_factory=dict)  # by id
    cut: set[str] = field(default_factory=set)  # queues that no watch listed for a while
    began: datetime | None = None  # the bridge may have judged since then
    _read_to: int = 0

    def rules_change(self, in_force: Collection[Stream]) -> None:
        self.cut |= {queue for queue in QUEUES if all(one.queue not in (None, queue) for one in in_force)}

    def compare(self, db: Database, *, judged: bool) -> None:
        """Compare what was told since the last time with what was seen; `judged`: a poll has come to its end."""
        self.began = self.began or self.oracle.clock()
        for one in self._news(db):
            before = self.told[one.key]
            self._compare_generation(one, before)
            rule, queue = one.key
            if rule in THRESHOLDS:
                self._compare_threshold(one, THRESHOLDS[rule], before)
            elif one.opens and rule == ABSENCE:
                self._compare_absence(one)
            elif one.opens and rule == BACKLOG:
                waiting = self._waiting(queue, self.oracle.clock() - LONG.time)
                assert LONG.least <= one.data["count"] <= len(waiting), f"so few wait: {one}"
            before.append(one)
            self.deliveries[one.delivery] = one
        if judged:
            for rule, spec in THRESHOLDS.items():
                for queue in set(_KEYS[rule]) - self.cut:
                    self._compare_missing((rule, queue), spec)

    def _news(self, db: Database) -> Iterator[Told]:
        with db.read() as tx:
            rows = tx.execute(_TOLD, {"n": self._read_to}).all()
        for number, delivery, event in rows:
            body, self._read_to = json.loads(event), number
            yield Told(delivery, body["type"], body["data"])

    def _compare_generation(self, one: Told, before: Sequence[Told]) -> None:
        """Each opens once, and closes once at the most; they have the numbers 1, 2 and so on."""
        opened = [other for other in before if other.opens]
        assert one.opened_at <= (one.closed_at or one.opened_at) <= self.oracle.clock() + _SAID
        if one.opens:
            assert one.data["generation"] == len(opened) + 1, f"out of turn: {one}"
            return
        assert one.type == "ci.incident.closed"
        assert one.closed_at
        assert before
        assert before[-1].opens, f"closed twice: {one}"
        assert not before[-1].closed_at, f"told as over already: {one}"
        assert before[-1].of == one.of, f"another is open: {one}"

    def _came(self, rule: Several, queue: str | None) -> list[Came]:
        """Return the jobs that came to the states of a rule, in the order in which they did at the earliest."""
        found = [
            Came(job, step)
            for job, steps in self.oracle.steps.items()
            for step in steps
            if step.to in rule.states and not step.inferred and queue in (None, step.queue)
        ]
        return sorted(found, key=lambda one: one.step.earliest)

    def _is_open(self, key: Key) -> bool:
        """Tell whether the last that was told of a key is that an incident is open."""
        return bool(self.told[key]) and self.told[key][-1].closed_at is None

    # --- thresholds ----------------------------------------------------------------------------------------------

    def _compare_threshold(self, one: Told, rule: Several, before: Sequence[Told]) -> None:
        came = self._came(rule, one.key[1])
        assert {job["id"] for job in one.data["jobs"]} <= {each.job for each in came}, f"others: {one}"
        assert one.data["count"] == one.data["jobs_total"] >= rule.least
        totals = {each.data["generation"]: each.data["count"] for each in (*before, one)}
        assert sum(totals.values()) <= len(came), f"more than came: {totals}"
        if one.opens:
            self._compare_opening(one, rule, came, before[-1].closed_at if before else None)
        if one.closed_at:
            last = one.closed_at - rule.time
            assert any(each.step.earliest - _SAID <= last <= each.step.latest + _SAID for each in came), (
                f"not so: {one}"
            )
            others = [
                each for each in came if last + _SAID < each.step.earliest and each.step.latest < one.closed_at - _SAID
            ]
            assert not others, f"closed too early: {one}, {others}"

    def _compare_opening(self, one: Told, rule: Several, came: Sequence[Came], before: datetime | None) -> None:
        """So many came within the time that ends with the one that opened it, and after what was over before."""
        at, since = one.opened_at, one.opened_at - rule.time
        since = max(since, before) if before else since
        mine = [each for each in came if each.step.earliest <= at + _SAID and each.step.latest >= since - _SAID]
        assert len(mine) >= rule.least, f"too few: {one}, {mine}"
        assert any(at <= each.step.latest + _SAID and not each.step.silent for each in mine), f"no news: {one}, {mine}"

    def _compare_missing(self, key: Key, rule: Several) -> None:
        """What is news, came together for certain, and was seen in time, is part of an incident."""
        news = [one for one in self._came(rule, key[1]) if one.step.silent is False]
        over = self.told[key][-1].closed_at if self.told[key] else _NEVER
        for start in range(len(news) - rule.least + 1):
            mine = news[start : start + rule.least]
            first = mine[0].step.earliest
            together = max(one.step.latest for one in mine) < first + rule.time - _SAID
            in_time = max(one.step.seen_at for one in mine) + LATER < first + 2 * rule.time
            assert not (together and in_time) or over is None or over >= first - _SAID, f"not told: {key}, {mine}"

    # --- absences and backlogs -----------------------------------------------------------------------------------

    def _compare_absence(self, one: Told) -> None:
        since, until = one.opened_at - RARE.time + _SAID, one.opened_at - _SAID
        came = [each for each in self._came(RARE, None) if since < each.step.earliest and each.step.latest < until]
        assert not came, f"there was one: {one}, {came}"
        assert self.began
        assert one.opened_at >= self.began + RARE.time - LATER, f"too early: {one}"

    def _waiting(self, queue: str | None, since: datetime) -> list[Came]:
        """Return the jobs that are in the state of the backlog, perhaps since then."""
        came = self._came(LONG, queue)
        return [one for one in came if one.step is self.oracle.steps[one.job][-1] and one.step.earliest <= since]

    def compare_whole(self, began: datetime, seen: Collection[str]) -> None:
        """A poll that began then saw all that there is, by right clocks; among it these unfinished jobs."""
        assert self.began
        quiet_since = [self.began, *(one.step.latest for one in self._came(RARE, None))]
        quiet_since += [one.closed_at for one in self.told[ABSENCE, None] if one.closed_at]
        if max(quiet_since) + RARE.time + LATER < began:
            assert self._is_open((ABSENCE, None)), f"not told that none came since {max(quiet_since)}"
        for queue in QUEUES:
            since = began - LONG.time
            long = [one for one in self._waiting(queue, since) if one.job in seen and one.step.latest < since]
            if len(long) >= LONG.least and any(one.step.silent is False for one in long):
                assert self._is_open((BACKLOG, queue)), f"not told that these wait: {long}"

    # --- the end -------------------------------------------------------------------------------------------------

    def compare_the_end(self, received: Collection[str]) -> None:
        """All has been received, and what was quiet for days is over, unless nobody could see it for a while."""
        assert received == self.deliveries.keys()
        for rule in THRESHOLDS:
            still = [queue for queue in set(_KEYS[rule]) - self.cut if self._is_open((rule, queue))]
            assert not still, f"{rule} is still open: {still}"
