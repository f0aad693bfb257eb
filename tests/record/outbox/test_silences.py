from __future__ import annotations

from datetime import datetime
from typing import Any

from bridge.decide.rules.gates import Scope
from bridge.decide.rulesfile.silences import SilenceRequest
from bridge.model import FAILED, Hold, Message, Silence
from bridge.pipeline.operations import preview
from bridge.record.database import Database
from bridge.record.outbox import silences
from bridge.record.polling import snapshots
from tests.conftest import only_sqlite
from tests.support.nouns import BUCKET, NOW, a_listed_job, a_message, a_step, hours, minutes, new_delivery, seconds
from tests.support.records import put, read, write

END, A_DAY_AGO = NOW + hours(2), NOW - hours(24)
WANTED = SilenceRequest(spec="{}", scope=Scope(), ends_at=NOW, author="ann", reason="x")


def add(db: Database, id_: str, **facts: Any) -> Silence:
    usual = {"spec": "{}", "author": "ann", "reason": "new encoder", "begins_at": NOW, "ends_at": END}
    silence = Silence(**{"id": id_, **usual, **facts})
    assert write(db, silences.add, silence)
    return silence


def seen(db: Database, *job_ids: str, rule: str = "all", **facts: Any) -> None:
    steps = [(a_step(a_listed_job(job_id, FAILED), **facts), [(rule, ["cms"])]) for job_id in job_ids]
    write(db, snapshots.add_transitions, steps)


def of_job(job_id: str, rule: str | None = "all", **facts: Any) -> Message:
    return a_message(f"m-{job_id}-{rule}", bucket=BUCKET, job_id=job_id, sequence=1, rule=rule, **facts)


def messages_since(db: Database, since: datetime = A_DAY_AGO) -> list[tuple[str, str, str]]:
    with db.read() as tx:
        pages = list(silences.messages_since(tx, since))
    return [(message.transition.job.id, message.rule, message.notifier) for page in pages for message in page]


def test_a_silence_is_stored_as_it_was_made(db: Database) -> None:
    made = add(db, "s1", spec='{"to":"Failed"}', reason="ünïcödé 🦉", drop=True)
    assert read(db, silences.get, "s1") == made
    assert read(db, silences.get, "s2") is None


def test_those_that_stand_are_those_that_have_not_ended(db: Database) -> None:
    for id_, ends_at in (("over", NOW), ("s1", END), ("s2", END)):
        add(db, id_, ends_at=ends_at)
    assert [silence.id for silence in read(db, silences.not_ended, now=NOW)] == ["s1", "s2"]
    assert read(db, silences.not_ended, now=END) == []
    assert [silence.id for silence, _ in read(db, silences.all_with_counts, since=NOW)] == ["s2", "s1"]
    assert [silence.id for silence, _ in read(db, silences.all_with_counts)] == ["s2", "s1", "over"]


def test_each_is_listed_with_how_much_it_has_held_in_pages_that_have_each_once(db: Database) -> None:
    for id_ in ("s1", "s2", "s3"):
        add(db, id_)
    hold, other = (Hold(gate=gate, name=name, until=END) for gate, name in (("silence", "s1"), ("mute", "s2")))
    put(db, new_delivery("d1", hold=hold), new_delivery("d2", hold=hold), new_delivery("d3", to="ops", hold=hold))
    put(db, new_delivery("d4", hold=other), new_delivery("d5"))
    listed = [("s3", 0), ("s2", 0), ("s1", 3)]
    assert [(silence.id, held) for silence, held in read(db, silences.all_with_counts)] == listed
    assert read(db, silences.counts, ["s1", "s2"]) == {"s1": 3}
    assert read(db, silences.counts, []) == {}
    for limit in (1, 2, 3, 4):
        found, cursor = [], None
        while not found or cursor is not None:
            items, cursor = read(db, silences.page, cursor=cursor, limit=limit)
            found += [(silence.id, held) for silence, held in items]
        assert found == listed


def test_a_silence_is_ended_once(db: Database) -> None:
    add(db, "s1")
    assert write(db, silences.end, "s1", by="bob", now=NOW + minutes(1))
    assert not write(db, silences.end, "s1", by="eve", now=NOW + minutes(2))
    assert not write(db, silences.end, "s404", by="eve", now=NOW)
    found = read(db, silences.get, "s1")
    assert found
    assert (found.ended_by, found.ends_at) == ("bob", NOW + minutes(1))


# --- what a silence would have held ---------------------------------------------------------------------------------


def test_what_rules_sent_is_found_from_the_newest_back(db: Database) -> None:
    seen(db, "j1", "j2", "j3")
    put(db, new_delivery("d1", message=of_job("j1")), now=NOW - hours(25))
    put(db, new_delivery("d2", message=of_job("j2")), now=NOW - hours(23))
    put(db, new_delivery("d3", message=of_job("j3"), hold=Hold(gate="mute", name="m", until=NOW, drop=True)))
    assert messages_since(db) == [("j3", "all", "cms"), ("j2", "all", "cms")]
    assert messages_since(db, NOW + seconds(1)) == []


def test_tests_digests_and_what_a_fallback_was_sent_are_not_what_a_rule_sent(db: Database) -> None:
    seen(db, "j1")
    put(
        db,
        new_delivery("d1", message=of_job("j1")),
        new_delivery("d2", to="pager", message=of_job("j1")),  # the rule did not name it
        new_delivery("d3", message=a_message("test", kind="test")),
        new_delivery("d4", message=a_message("digest", kind="digest", rule="all")),
        new_delivery("d5", message=of_job("pruned")),
        new_delivery("d6", message=of_job("j1", "stuck", kind="level")),  # which no verdict names
    )
    assert messages_since(db) == [("j1", "stuck", "cms"), ("j1", "all", "cms")]


@only_sqlite
def test_a_preview_stops_at_as_many_messages_as_it_may_read(db: Database) -> None:
    ids = [f"j{number}" for number in range(5)]
    seen(db, *ids)
    put(db, *(new_delivery(f"d-{id_}", message=of_job(id_)) for id_ in ids))
    cut, whole = (read(db, preview, WANTED, {}, now=NOW, most=most) for most in (3, 5))
    assert (cut.looked_at, cut.matched, cut.cut) == (3, 3, True)
    assert [message.transition.job.id for message in cut.newest] == ["j4", "j3", "j2"]
    assert (whole.looked_at, whole.cut) == (5, False)


@only_sqlite
def test_more_messages_than_are_read_at_once_are_all_read(db: Database) -> None:
    seen(db, "j1")
    put(db, new_delivery("first", message=of_job("j1")))
    put(db, *(new_delivery(f"d{number}") for number in range(2_100)))  # of no rule
    assert messages_since(db) == [("j1", "all", "cms")]


@only_sqlite
def test_a_level_rule_is_asked_as_of_when_its_message_was_made(db: Database) -> None:
    seen(db, "j1", seen_at=NOW - hours(3))
    put(db, new_delivery("d1", message=of_job("j1", "stuck", kind="level")), now=NOW)
    (found,) = read(db, preview, WANTED, {}, now=NOW).newest
    assert found.transition.seen_at == NOW
