from __future__ import annotations

from typing import Any

import pytest

from bridge.decide.rules.gates import Scope
from bridge.decide.rulesfile.silences import SilenceRequest
from bridge.model import FAILED, Hold, Message, Silence
from bridge.pipeline.silences import preview
from bridge.record.database import Database
from bridge.record.outbox import silences
from bridge.record.polling import snapshots
from tests.support.records import (
    BUCKET,
    NOW,
    a_listed_job,
    a_message,
    a_step,
    hours,
    minutes,
    new_delivery,
    put,
    seconds,
)


def a_silence(id: str = "s1", **facts: Any) -> Silence:  # noqa: A002  (the noun's own word)
    return Silence(
        **{
            "id": id,
            "spec": "{}",
            "author": "ann",
            "reason": "new encoder",
            "begins_at": NOW,
            "ends_at": NOW + hours(2),
            **facts,
        }
    )


def add(db: Database, *found: Silence) -> None:
    with db.write() as tx:
        for one in found:
            silences.add(tx, one)


def seen(db: Database, job_id: str, rule: str = "all", notifiers: tuple[str, ...] = ("cms",), **facts: Any) -> None:
    with db.write() as tx:
        step = a_step(a_listed_job(job_id, FAILED), **facts)
        snapshots.add_transitions(tx, [(step, [(rule, list(notifiers))])])


def of_job(job_id: str, rule: str | None = "all", **facts: Any) -> Message:
    return a_message(f"m-{job_id}-{rule}", bucket=BUCKET, job_id=job_id, sequence=1, rule=rule, **facts)


A_DAY_AGO = NOW - hours(24)


def told_since(db: Database, since: Any = A_DAY_AGO) -> list[tuple[str, str, str]]:
    with db.read() as tx:
        pages = list(silences.messages_since(tx, since))
    return [(one.transition.job.id, one.rule, one.notifier) for page in pages for one in page]


def test_a_silence_is_kept_as_it_was_made(db: Database) -> None:
    made = a_silence(spec='{"to":"Failed"}', reason="ünïcödé 🦉", drop=True)
    add(db, made)
    with db.read() as tx:
        assert silences.get(tx, "s1") == made
        assert silences.get(tx, "s2") is None


def test_those_that_stand_are_those_that_have_not_ended(db: Database) -> None:
    add(db, a_silence("over", ends_at=NOW), a_silence("s1"), a_silence("s2"))
    with db.read() as tx:
        assert [one.id for one in silences.standing(tx, now=NOW)] == ["s1", "s2"]
        assert silences.standing(tx, now=NOW + hours(2)) == []
        assert [one.id for one, _ in silences.every(tx, since=NOW)] == ["s2", "s1"]
        assert [one.id for one, _ in silences.every(tx)] == ["s2", "s1", "over"]


def test_each_is_listed_with_how_much_it_has_held(db: Database) -> None:
    add(db, a_silence("s1"), a_silence("s2"), a_silence("s3"))
    hold = Hold(gate="silence", name="s1", until=NOW + hours(2))
    other = Hold(gate="mute", name="s2", until=NOW + hours(2))
    put(db, new_delivery("d1", hold=hold), new_delivery("d2", hold=hold), new_delivery("d3", to="ops", hold=hold))
    put(db, new_delivery("d4", hold=other), new_delivery("d5"))
    with db.read() as tx:
        assert [(one.id, held) for one, held in silences.every(tx)] == [("s3", 0), ("s2", 0), ("s1", 3)]
        assert silences.held(tx, ["s1", "s2"]) == {"s1": 3}
        assert silences.held(tx, []) == {}


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
def test_pages_have_every_silence_once(db: Database, limit: int) -> None:
    add(db, *(a_silence(f"s{number}") for number in range(3)))
    found, cursor = [], None
    with db.read() as tx:
        while True:
            items, cursor = silences.page(tx, cursor=cursor, limit=limit)
            found += [one.id for one, _ in items]
            if cursor is None:
                break
    assert found == ["s2", "s1", "s0"]


def test_a_silence_is_ended_once_and_what_it_holds_is_due(db: Database) -> None:
    add(db, a_silence())
    put(db, new_delivery("d1", hold=Hold(gate="silence", name="s1", until=NOW + hours(2))))
    with db.write() as tx:
        assert silences.end(tx, "s1", by="bob", now=NOW + minutes(1))
        assert not silences.end(tx, "s1", by="eve", now=NOW + minutes(2))
        assert not silences.end(tx, "s404", by="eve", now=NOW)
        found = silences.get(tx, "s1")
    assert found
    assert (found.ended_by, found.ends_at) == ("bob", NOW + minutes(1))


def test_what_rules_told_is_found_from_the_newest_back(db: Database) -> None:
    for job in ("j1", "j2", "j3"):
        seen(db, job)
    put(db, new_delivery("d1", message=of_job("j1")), now=NOW - hours(25))
    put(db, new_delivery("d2", message=of_job("j2")), now=NOW - hours(23))
    put(db, new_delivery("d3", message=of_job("j3"), hold=Hold(gate="mute", name="m", until=NOW, drop=True)))
    assert told_since(db) == [("j3", "all", "cms"), ("j2", "all", "cms")]
    assert told_since(db, NOW + seconds(1)) == []


def test_tests_digests_and_what_a_fallback_told_are_not_what_a_rule_told(db: Database) -> None:
    seen(db, "j1")
    put(
        db,
        new_delivery("d1", message=of_job("j1")),
        new_delivery("d2", to="pager", message=of_job("j1")),  # the rule did not name it
        new_delivery("d3", message=a_message("test", kind="test")),
        new_delivery("d4", message=a_message("digest", kind="digest", rule="all")),
        new_delivery("d5", message=of_job("pruned")),
    )
    assert told_since(db) == [("j1", "all", "cms")]


def test_level_rules_and_recoveries_are_told_of_no_verdict(db: Database) -> None:
    seen(db, "j1", rule="other")
    put(db, new_delivery("d1", message=of_job("j1", "stuck", kind="level")), now=NOW)
    assert told_since(db) == [("j1", "stuck", "cms")]


def test_a_preview_stops_at_as_many_messages_as_it_may_look_at(db: Database) -> None:
    for number in range(5):
        seen(db, f"j{number}")
    put(db, *(new_delivery(f"d{number}", message=of_job(f"j{number}")) for number in range(5)))
    wanted = SilenceRequest(spec="{}", scope=Scope(), ends_at=NOW, author="ann", reason="x")
    with db.read() as tx:
        cut, whole = (preview(tx, wanted, {}, now=NOW, most=most) for most in (3, 5))
    assert (cut.looked_at, cut.matched, cut.cut) == (3, 3, True)
    assert [one.transition.job.id for one in cut.newest] == ["j4", "j3", "j2"]
    assert (whole.looked_at, whole.cut) == (5, False)


def test_more_messages_than_are_read_at_once_are_all_looked_at(db: Database) -> None:
    seen(db, "j1")
    put(db, new_delivery("first", message=of_job("j1")))
    put(db, *(new_delivery(f"d{number}") for number in range(2_100)))  # of no rule
    assert told_since(db) == [("j1", "all", "cms")]


def test_a_level_rule_is_asked_as_of_when_it_told(db: Database) -> None:
    seen(db, "j1", seen_at=NOW - hours(3))
    put(db, new_delivery("d1", message=of_job("j1", "stuck", kind="level")), now=NOW)
    wanted = SilenceRequest(spec="{}", scope=Scope(), ends_at=NOW, author="ann", reason="x")
    with db.read() as tx:
        (found,) = preview(tx, wanted, {}, now=NOW).newest
    assert found.transition.seen_at == NOW
