"""Hours of a bridge's life: every figure is what counting the rows would say."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text

from bridge.collect.errors import AuthError, TemporaryError
from bridge.model import DONE, Delivery, Outcome, Reason, Rejected, RetryLater, Sent
from bridge.record import counters
from bridge.record.codec import load_job
from bridge.record.counters import Total
from bridge.record.database import Database, at
from tests.conftest import on_both
from tests.support.nouns import a_listed_job, hours, minutes, seconds
from tests.support.rig import Rig

RULES = """
[template.odd]
text = "{{ 1 / (1 if job.queue else 0) }}"
[[mute]]
name = "quiet"
match.tag = "Snapshot"
to = "Cancel"
mode = "drop"
between = "00:00-24:00"
[[rule]]
name = "failed"
to = "Failed"
notify = ["ops", "cms"]
[[rule]]
name = "all"
to = "done"
notify = "cms"
throttle = "3/20m"
[[rule]]
name = "hourly"
to = "Success"
notify = "ops"
group.wait = "30m"
[[rule]]
name = "stuck"
in = "Running"
for = "25m"
repeat = "30m"
recover = true
notify = "ops"
template = "odd"
"""


@pytest.fixture
def rig(db: Database) -> Rig:
    return Rig(db, RULES)


class Life:
    """Some hours in which much goes wrong, the same each time."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.chance = random.Random(7)
        self.polls: Counter[str] = Counter()
        self.calls = 0
        self._jobs: dict[str, str] = {}
        rig.transport.answer = self._answer
        rig.transport.status = lambda one: {"sent": 200, "later": 500, "often": 429}.get(self._said.get(one.id, ""))
        self._said: dict[str, str] = {}

    def _answer(self, delivery: Delivery) -> Outcome:
        said = self.chance.choices(("sent", "later", "often", "never"), (12, 2, 1, 1))[0]
        self._said[delivery.id] = said
        if said == "often":
            return RetryLater("it is too often", Reason.RATE_LIMITED, after=seconds(90), whole_notifier=True)
        return {"later": RetryLater("not now", Reason.SERVER_ERROR), "never": Rejected("no")}.get(said, Sent())

    def passes(self, steps: int) -> None:
        for step in range(steps):
            self.rig.clock.advance(minutes(5))
            self._move()
            if step == steps // 2:
                self.rig.silence(lasts=minutes(40), drop=True, to="Failed")
            self._poll()
            self.rig.deliver()

    def _move(self) -> None:
        for id_, state in list(self._jobs.items()):
            if state not in DONE and self.chance.random() < 0.25:
                self._has(id_, self.chance.choice(("Running", "Success", "Success", "Failed", "Cancel")))
        for _ in range(self.chance.randint(0, 4)):
            tag, queue = self.chance.choice((("Transcode", "p1"), ("Snapshot", None)))
            self._has(f"j{len(self._jobs)}", "Submitted", tag=tag, queue=queue)

    def _has(self, id_: str, state: str, **facts: str | None) -> None:
        self._jobs[id_] = state
        self.rig.has(id_, state, **facts)

    def _poll(self) -> None:
        trouble = self.chance.choices((None, TemporaryError("no"), AuthError("no")), (8, 1, 1))[0]
        self.rig.ci.refuses = {"Transcode": trouble} if trouble else {}
        self.calls += self.rig.poll().calls
        self.polls[trouble.kind if trouble else "ok"] += 1


def _ask(db: Database, question: str, **values: str) -> list[Any]:
    with db.read() as tx:
        return list(tx.execute(text(question), values))


def _totals(db: Database, metric: str) -> list[Total]:
    with db.read() as tx:
        return counters.totals(tx, [metric])


def _counted(db: Database, metric: str) -> Counter[tuple[str, ...]]:
    found: Counter[tuple[str, ...]] = Counter()
    for one in _totals(db, metric):
        found[one.labels] += one.count
    return found


def _took(db: Database, metric: str, *labels: str) -> tuple[int, Any]:
    """How many were timed, and how long they took in all."""
    found = [one for one in _totals(db, metric) if one.labels == labels and one.bucket >= 0]
    return sum(one.count for one in found), pytest.approx(sum(one.seconds for one in found), abs=0.1)


def _tally(rows: Iterator[tuple[str, ...]] | list[Any]) -> Counter[tuple[str, ...]]:
    """Count rows; the last column says how often each is there."""
    found: Counter[tuple[str, ...]] = Counter()
    for *labels, number in rows:
        found[tuple(label or "" for label in labels)] += int(number)
    return found


@pytest.fixture
def life(rig: Rig) -> Life:
    rig.ci.has(a_listed_job("old", "Success", created_at=rig.clock() - hours(2), ended_at=rig.clock() - hours(1)))
    life = Life(rig)
    life.passes(100)
    rig.transport.answer = lambda _: Sent()
    rig.ci.refuses = {}
    rig.clock.advance(hours(2))  # what waits comes to its end
    life.calls += rig.poll().calls
    life.polls["ok"] += 1
    for _ in range(3):
        rig.deliver()
        rig.clock.advance(minutes(40))
    return life


@on_both
def test_every_figure_is_what_the_rows_say(life: Life, db: Database) -> None:
    _check_transitions(db)
    _check_rules(life, db)
    _check_deliveries(db)
    assert _counted(db, "call") == {("vod",): life.calls}
    assert 200 < life.calls < life.rig.ci.calls()  # which refused some
    assert _counted(db, "poll") == {("ap-chongqing", outcome): number for outcome, number in life.polls.items()}
    assert min(life.polls.values()) >= 3


def _check_transitions(db: Database) -> None:
    seen = "FROM transition WHERE NOT inferred"
    steps = _tally(_ask(db, f"SELECT tag, queue, was, state, count(*) {seen} GROUP BY tag, queue, was, state"))
    assert _counted(db, "transition") == steps
    assert steps["Transcode", "", "new", "Success"] == 1  # the old one, which nobody was told of
    heard = _ask(db, f"SELECT state, was, seen_at, happened_at, detail {seen} AND silent IS NULL")
    late = [(row.seen_at - row.happened_at) / 1000 for row in heard if _has_time(row)]
    assert len([seconds for seconds in late if seconds > 0]) > 20
    assert _took(db, "detected", "vod") == (len(late), sum(late))
    assert _counted(db, "detected") == {("vod",): len(heard)}
    ran, waited = [], []
    for row in heard:
        if row.state in DONE:
            took, started = load_job(row.detail).seconds(at(row.happened_at)), load_job(row.detail).started_at
            ran += [took["duration"]] if took["duration"] is not None else []
            waited += [took["wait"]] if started else []
    found = _totals(db, "job_duration")
    assert sum(one.count for one in found) == len(ran) > 50
    assert sum(one.seconds for one in found) == pytest.approx(sum(ran), abs=0.1)
    found = _totals(db, "job_wait")
    assert {one.labels for one in found} == {("p1",), ("",)}
    assert sum(one.count for one in found) == len(waited)
    assert sum(one.seconds for one in found) == pytest.approx(sum(waited), abs=0.1)


def _has_time(row: Any) -> bool:
    """Tell whether CI says when the job went into the state of this transition."""
    job = load_job(row.detail)
    if row.state in DONE:
        return job.ended_at is not None
    return bool(job.started_at if row.state == "Running" else row.state == "Submitted" and row.was == "new")


def _check_rules(life: Life, db: Database) -> None:
    rows = _ask(db, "SELECT verdicts, inferred FROM transition WHERE silent IS NULL")
    heard = [json.loads(row.verdicts) for row in rows if not row.inferred]
    fired = Counter((rule,) for row in rows for rule, _ in json.loads(row.verdicts))
    fired["stuck",] = len({row[0] for row in _ask(db, "SELECT id FROM message WHERE kind = 'level'")})
    assert _counted(db, "match") == fired
    assert min(fired.values()) > 5
    assert _counted(db, "unmatched")[()] == sum(not verdicts for verdicts in heard) > 0
    rules = {rule.name: rule for rule in life.rig.book.rules}
    held = _ask(
        db,
        "SELECT m.rule, substr(d.held_by, 1, 4) AS gate, count(*) FROM delivery d JOIN message m ON m.id = d.message"
        " WHERE d.held_by IS NOT NULL GROUP BY 1, 2",
    )
    gates = {"grou": "group", "thro": "throttle", "mute": "mute", "sile": "silence"}
    suppressed = _tally([(rule, gates[gate], number) for rule, gate, number in held])
    for verdicts in heard:
        for rule, notifiers in verdicts:
            if len(notifiers) < len(rules[rule].notify):
                suppressed[rule, "first_wins"] += len(rules[rule].notify) - len(notifiers)
    assert _counted(db, "suppressed") == suppressed
    assert {reason for _, reason in suppressed} == {*gates.values(), "first_wins"}
    assert _counted(db, "template_error") == {("stuck", "odd"): _ask(db, "SELECT sum(times) FROM rule_fault")[0][0]}


def _check_deliveries(db: Database) -> None:
    words = {2: "delivered", 3: "dead", 5: "merged", 6: "dropped"}
    rows = _ask(db, "SELECT notifier, state, count(*) FROM delivery GROUP BY notifier, state")
    assert {row[1] for row in rows} == set(words)
    assert _counted(db, "delivery") == _tally([(row[0], words[row[1]], row[2]) for row in rows])
    tries = _ask(
        db,
        "SELECT d.notifier, a.reason, a.status, count(*) FROM attempt a JOIN delivery d ON d.n = a.delivery"
        " GROUP BY d.notifier, a.reason, a.status",
    )
    assert {row[1] for row in tries} == {None, "server_error", "rate_limited", "other"}
    assert _counted(db, "attempt") == _tally([(row[0], row[1] or "ok", row[3]) for row in tries])
    for notifier in ("cms", "ops"):
        (sent,) = _ask(
            db,
            "SELECT count(*), sum(a.started_at + a.ms - m.happened_at) FROM attempt a"
            " JOIN delivery d ON d.n = a.delivery JOIN message m ON m.id = d.message"
            " WHERE a.outcome = 'sent' AND d.notifier = :notifier",
            notifier=notifier,
        )
        assert _took(db, "delivery", notifier, "delivered") == (sent[0], float(sent[1]) / 1000)
    waits = sum(row[3] for row in tries if row[2] == 429)
    assert sum(one.seconds for one in _totals(db, "retry_after")) == 90 * waits > 0
