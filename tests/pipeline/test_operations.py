"""Manual operations, on both databases: what they change and refuse, and the row that says who did it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import event, text

from bridge.decide.rulesfile.silences import SilenceRequest, read_silence
from bridge.decide.text.values import FieldFaults
from bridge.model import Rejected, Sent
from bridge.pipeline.operations import Conflict, NotFound, OperationRefused, Operations
from bridge.record import pruning
from bridge.record.database import Database
from bridge.record.outbox import entries, silences
from bridge.record.pruning import Cutoffs
from bridge.record.queries import gauges
from bridge.record.queries.lists import Filter
from bridge.record.schema import actions
from tests.conftest import on_both
from tests.support.admin_world import NOON, World, job_number
from tests.support.nouns import batch_id, by_hand
from tests.support.records import rows

pytestmark = on_both
HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)


@pytest.fixture
def world(db: Database) -> World:
    world = World(db)
    world.sync()
    return world


def ann(world: World, *, nonce: str = "1") -> Operations:
    return by_hand(world.db, now=world.now, nonce=nonce)


def recorded(world: World) -> list[tuple[str, str, Any, Any]]:
    """What, to what, before and after: the actions, which all are Ann's."""
    found = rows(world.db, actions)
    assert {row["who"] for row in found} <= {"ann"}
    return [
        (row["what"], row["subject"], *(json.loads(row[key] or "null") for key in ("before", "after"))) for row in found
    ]


def states(world: World, *ids: str) -> list[str]:
    with world.db.read() as tx:
        found = entries.states(tx, ids)
    return [found[id_] for id_ in ids]


def buried(world: World, *numbers: int) -> list[str]:
    ids = [world.delivery_of(number) for number in numbers]
    world.attempt(Rejected("no"))
    return ids


def watch(world: World) -> Any:
    with world.db.read() as tx:
        return gauges.read_watches(tx)[0]


def wanted(world: World, **said: Any) -> SilenceRequest:
    given = {"to": "Failed", "for": "2h", "reason": "new encoder", **said}
    return read_silence(given, now=world.now, author="ben")


# --- deliveries ---------------------------------------------------------------------------------------------------


def test_a_dead_delivery_is_resent_and_recorded_alone_or_with_others(world: World) -> None:
    first, second = buried(world, 1, 2)
    waiting = world.delivery_of(3)
    ann(world).redrive(first)
    assert states(world, first) == ["waiting"]
    assert recorded(world) == [("redrive", first, {"state": "dead"}, {"state": "waiting"})]
    assert ann(world).redrive_chosen([first, waiting, second, "dlv_404"]) == [second]
    assert [subject for _, subject, _, _ in recorded(world)] == [first, second]


def test_a_batch_is_one_row_with_its_filter_and_what_is_left_of_it_is_cancelled_once(world: World) -> None:
    assert ann(world).redrive_batch(Filter(state="dead"), interval=SECOND).total == 0
    assert recorded(world) == []  # a batch of nothing
    buried(world, 1, 2, 3)
    batch = ann(world).redrive_batch(Filter(state="dead", notifier="cms", since=NOON), interval=HOUR, at_once=2)
    assert (batch.id, batch.total) == (batch_id(), 3)
    chosen = {
        "state": "dead",
        "notifier": "cms",
        "since": "2026-11-21T12:00:00+00:00",
        "deliveries": 3,
        "interval_seconds": 3600.0,
    }
    assert recorded(world) == [("redrive_batch", batch.id, None, chosen)]
    assert [ann(world).cancel_batch(batch.id, at_once=1)[1] for _ in range(2)] == [2, 0]
    assert recorded(world)[1:] == [("cancel_batch", batch.id, {"scheduled": 2}, {"scheduled": 0})]


def test_a_dead_delivery_is_discarded_with_a_reason_and_recorded(world: World) -> None:
    first, second = buried(world, 1, 2)
    waiting = world.delivery_of(3)
    ann(world).discard(first, " not needed ")
    assert states(world, first) == ["discarded"]
    after = {"state": "discarded", "reason": "not needed"}
    assert recorded(world) == [("discard", first, {"state": "dead"}, after)]
    (row,) = world.deliveries(state="discarded")
    assert row["why"] == "discarded by ann: not needed; it had died: no"
    assert ann(world).discard_chosen([first, waiting, second, "dlv_404"], "nor this") == [second]
    assert [subject for _, subject, _, _ in recorded(world)] == [first, second]


def test_what_is_discarded_is_resent_under_its_id_and_may_die_again(world: World) -> None:
    (dead,) = buried(world, 1)
    ann(world).discard(dead, "no")
    ann(world).redrive(dead)
    assert recorded(world)[1:] == [("redrive", dead, {"state": "discarded"}, {"state": "waiting"})]
    assert world.attempt(Rejected("no")) == [dead]
    assert states(world, dead) == ["dead"]


def test_a_batch_is_discarded_as_one_row_and_comes_back_by_its_id(world: World) -> None:
    nothing = ann(world).discard_batch(Filter(notifier="cms"), "no")
    assert (nothing.total, recorded(world)) == (0, [])
    ids = buried(world, 1, 2, 3)
    waiting = world.delivery_of(4)
    batch = ann(world).discard_batch(Filter(notifier="cms"), "shut down", at_once=2)
    assert (batch.total, batch.discarded, states(world, *ids, waiting)) == (3, 3, ["discarded"] * 3 + ["waiting"])
    chosen = {"state": "dead", "notifier": "cms", "deliveries": 3, "reason": "shut down"}
    assert recorded(world) == [("discard_batch", batch.id, None, chosen)]
    back = ann(world, nonce="2").redrive_batch(Filter(state="discarded", batch=batch.id), interval=SECOND)
    assert (back.total, states(world, *ids)) == (3, ["waiting"] * 3)


@pytest.mark.parametrize(
    ("reason", "text"),
    [("", "is empty"), (" ", "is empty"), ("x" * 501, "has 501 characters"), ("a\u202eb", "invisible character")],
)
def test_nothing_is_discarded_without_a_readable_reason(world: World, reason: str, text: str) -> None:
    (dead,) = buried(world, 1)
    for deed in (
        lambda: ann(world).discard(dead, reason), lambda: ann(world).discard_batch(Filter(notifier="cms"), reason)
    ):  # fmt: skip
        with pytest.raises(OperationRefused, match=f"the reason .*{text}"):
            deed()
    assert (states(world, dead), recorded(world)) == (["dead"], [])


def test_one_that_is_resent_and_discarded_at_once_is_one_of_them(world: World) -> None:
    ids = buried(world, *range(4))
    together = Barrier(2, timeout=30)

    def deed(done: Callable[[], list[str]]) -> list[str]:
        together.wait()
        return done()

    deeds = (lambda: ann(world).redrive_chosen(ids), lambda: ann(world, nonce="2").discard_chosen(ids, "no"))
    with ThreadPoolExecutor(2) as pool:
        _, gone = pool.map(deed, deeds)
    assert len(gone) in (0, 4)
    assert states(world, *ids) == ["waiting"] * 4  # what was discarded first may be resent


def test_a_manual_notification_is_recorded_with_its_job(world: World) -> None:
    world.sees(job_number(1))
    new = ann(world).notify(world.book, job_id="j1", notifier="ops/1")
    after = {"state": "waiting", "notifier": "ops/1", "job": "j1", "sequence": 1}
    assert recorded(world) == [("notify", new.delivery, None, after)]
    world.attempt(Rejected("no"))
    assert ann(world).notify(world.book, job_id="j1", notifier="ops/1") == new
    assert recorded(world)[1:] == [("notify", new.delivery, {"state": "dead"}, after)]


# --- notifiers and watches ----------------------------------------------------------------------------------------


def test_a_test_that_is_asked_for_twice_under_one_key_is_one_deed(world: World) -> None:
    first, again = (ann(world, nonce=nonce).test_notifier(world.book, "cms", key="t1") for nonce in "12")
    assert first.delivery == again.delivery
    assert recorded(world) == [("test_notifier", "cms", None, {"delivery": first.delivery})]
    assert ann(world).test_notifier(world.book, "cms").delivery != first.delivery


def test_a_notifier_is_resumed_and_why_it_was_paused_is_kept(world: World) -> None:
    with world.db.write() as tx:
        entries.pause(tx, "cms", "answered 410 Gone", now=NOON)
    ann(world).resume_notifier("cms")
    before = {"paused": True, "why": "answered 410 Gone"}
    assert recorded(world) == [("resume_notifier", "cms", before, {"paused": False})]
    delivery = world.delivery_of(1)
    assert world.attempt(Sent()) == [delivery]


def test_a_notifier_that_a_person_paused_is_sent_nothing_until_a_person_resumes_it(world: World) -> None:
    delivery = world.delivery_of(1)
    ann(world).pause_notifier(world.book, "cms", " the receiver is moved ")
    world.sync()  # a worker that starts, with the same rules
    assert world.attempt(Sent()) == []
    why = "by ann: the receiver is moved"
    assert recorded(world) == [("pause_notifier", "cms", {"paused": False}, {"paused": True, "why": why})]
    ann(world).resume_notifier("cms")
    assert world.attempt(Sent()) == [delivery]


def test_a_notifier_is_paused_once_and_for_a_reason(world: World) -> None:
    ann(world).pause_notifier(world.book, "cms", "moved")
    with pytest.raises(Conflict, match='"cms" is paused already: by ann: moved'):
        ann(world).pause_notifier(world.book, "cms", "again")
    with pytest.raises(OperationRefused, match="the reason is empty"):
        ann(world).pause_notifier(world.book, "ops/1", " ")
    assert [what for what, *_ in recorded(world)] == ["pause_notifier"]


def test_a_notifier_that_only_the_rules_know_yet_is_not_paused(world: World) -> None:
    with world.db.write() as tx:
        tx.execute(text("DELETE FROM notifier"))
    ann(world).resume_notifier("cms", world.book)
    assert recorded(world) == []


def test_a_watch_is_paused_resumed_and_polled(world: World) -> None:
    world.polled()
    ann(world).pause_watch(world.book, "vod")
    assert watch(world)["paused"]
    ann(world).resume_watch(world.book, "vod")
    ann(world).poll_watch(world.book, "vod")
    assert (watch(world)["paused"], watch(world)["next_poll_at"]) == (False, None)
    assert recorded(world) == [
        ("pause_watch", "vod", {"paused": False}, {"paused": True}),
        ("resume_watch", "vod", {"paused": True}, {"paused": False}),
        ("poll_watch", "vod", {"next_poll_at": "2026-11-21T12:00:30.000Z"}, {"next_poll_at": None}),
    ]


def test_a_watch_is_hurried_once_until_it_is_polled(world: World) -> None:
    world.polled()
    ann(world).hurry_watch(world.book, "vod")
    assert watch(world)["next_poll_at"] is None
    world.register()
    world.beat()
    with pytest.raises(Conflict, match=r'^watch "vod" is to be polled next already$'):
        ann(world).hurry_watch(world.book, "vod")
    world.polled()
    ann(world).hurry_watch(world.book, "vod")
    assert [what for what, *_ in recorded(world)] == ["poll_watch"] * 2


# --- silences -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("same", [{"id": "mine"}, {}])
def test_a_silence_that_is_asked_for_twice_is_made_once(world: World, same: dict[str, Any]) -> None:
    first, again = (ann(world, nonce=nonce).make_silence(wanted(world, **same), key="form") for nonce in "12")
    assert first == again
    ((what, subject, before, after),) = recorded(world)
    assert (what, subject, before) == ("make_silence", first.id, None)
    assert (after["author"], after["matches"], after["ends_at"]) == ("ben", {"to": "Failed"}, "2026-11-21T14:00:00Z")


def test_the_end_and_the_reason_of_a_silence_change_with_before_and_after(world: World) -> None:
    made = ann(world).make_silence(wanted(world, starts_in="1h"))
    assert (made.begins_at, made.ends_at) == (NOON + HOUR, NOON + 3 * HOUR)
    changed, _ = ann(world).change_silence(made.id, {"extend_by": "2h"})
    assert changed.ends_at == NOON + 5 * HOUR
    ann(world).change_silence(made.id, {"reason": "moved"})
    ann(world).change_silence(made.id, {"reason": "moved"})  # changes nothing, and is no deed
    before, after = "2026-11-21T15:00:00Z", "2026-11-21T17:00:00Z"
    assert recorded(world)[1:] == [
        (
            "change_silence", made.id,
            {"ends_at": before, "reason": "new encoder"}, {"ends_at": after, "reason": "new encoder"},
        ),
        ("change_silence", made.id, {"ends_at": after, "reason": "new encoder"}, {"ends_at": after, "reason": "moved"}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "fault"),
    [
        ({}, "say what changes"), ({"extend_by": "2h", "ends_at": "2026-11-22T00:00:00Z"}, "say what changes"),
        ({"ends_at": "2026-11-21T11:00:00Z"}, "has passed"), ({"extend_by": "40d"}, "too far in the future"),
        ({"ends_at": "2026-11-21T12:30:00Z"}, "not after the silence begins"), ({"reason": " "}, "is empty"),
        ({"extend_by": "-2h"}, "is not a duration"), ({"extend_by": 2}, "2"), ({"mode": "drop"}, "mode"),
    ],
)  # fmt: skip
def test_a_change_of_a_silence_that_makes_no_sense_is_refused(world: World, asked: dict[str, Any], fault: str) -> None:
    made = ann(world).make_silence(wanted(world, starts_in="1h"))
    with pytest.raises(FieldFaults, match=fault):
        ann(world).change_silence(made.id, asked)
    assert len(recorded(world)) == 1


def test_a_silence_that_has_ended_does_not_change(world: World) -> None:
    made = ann(world).make_silence(wanted(world))
    ann(world).end_silence(made.id)
    with pytest.raises(Conflict, match="has been over since"):
        ann(world).change_silence(made.id, {"extend_by": "2h"})
    with pytest.raises(NotFound, match="there is no silence"):
        ann(world).change_silence("sil_0", {"extend_by": "2h"})


def test_a_rule_that_is_to_be_silenced_later_can_be_silenced_now(world: World) -> None:
    ann(world).make_silence(
        read_silence({"rule": "all", "for": "1h", "starts_in": "5h", "reason": "x"}, now=NOON, author="ben")
    )
    made = ann(world).silence_rule(world.book, "all", lasts=HOUR, reason="noise", key="k")
    assert made.begins_at == NOON


def test_a_rule_is_silenced_once_at_a_time(world: World) -> None:
    def silence(who: str, key: str = "message") -> Any:
        operations = by_hand(world.db, now=world.now, who=who)
        return operations.silence_rule(world.book, "all", lasts=HOUR, reason="noise", key=key)

    first = silence("ann")
    assert (json.loads(first.spec), first.author, first.ends_at) == ({"rule": "all"}, "ann", NOON + HOUR)
    for key in ("message", "another message"):
        with pytest.raises(Conflict, match=r'^rule "all" was silenced by ann until 2026-11-21T13:00:00Z$'):
            silence("ben", key)
    ann(world).end_silence(first.id)
    second = silence("ben")
    world.now += 2 * HOUR
    third = silence("ann")
    assert len({first.id, second.id, third.id}) == 3


def test_a_silence_is_ended_by_who_asks(world: World) -> None:
    made = ann(world).make_silence(wanted(world))
    world.now += MINUTE
    ended, held = ann(world).end_silence(made.id)
    assert (ended.ended_by, ended.ends_at, held) == ("ann", world.now, 0)
    before, after = {"ends_at": "2026-11-21T14:00:00Z"}, {"ends_at": "2026-11-21T12:01:00Z"}
    assert recorded(world)[1:] == [("end_silence", made.id, before, after)]


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("deed", "reason", "why"),
    [
        (lambda ops, _: ops.redrive("dlv_404"), NotFound, 'there is no delivery "dlv_404"'),
        (
            lambda ops, known: ops.redrive(known["waiting"]),
            Conflict,
            "is waiting; only a dead, dropped or discarded",
        ),
        (lambda ops, known: ops.discard(known["waiting"], "x"), Conflict, "is waiting; only a dead one can be"),
        (lambda ops, _: ops.discard("dlv_404", "x"), NotFound, 'there is no delivery "dlv_404"'),
        (lambda ops, _: ops.cancel_batch("rdr_404"), NotFound, 'there is no batch "rdr_404"'),
        (lambda ops, known: ops.test_notifier(known["book"], "cmss"), NotFound, r'no notifier "cmss" \(did you mean'),
        (lambda ops, known: ops.resume_notifier("cmss", known["book"]), NotFound, "there are: cms, ops/1"),
        (lambda ops, known: ops.pause_notifier(known["book"], "cmss", "moved"), NotFound, "there are: cms, ops/1"),
        (lambda ops, _: ops.resume_notifier("cmss"), NotFound, 'no notifier "cmss" is on record'),
        (lambda ops, known: ops.pause_watch(known["book"], "vodd"), NotFound, r'no watch "vodd" \(did you mean "vod"'),
        (lambda ops, known: ops.poll_watch(known["book"], "vod"), Conflict, 'watch "vod" is paused; resume it'),
        (lambda ops, known: ops.hurry_watch(known["book"], "vod"), Conflict, 'watch "vod" is paused; resume it'),
        (lambda ops, known: ops.hurry_watch(known["book"], "vodd"), NotFound, r'no watch "vodd" \(did you mean "vod"'),
        (
            lambda ops, known: ops.silence_rule(known["book"], "al", lasts=HOUR, reason="x", key="k"),
            NotFound,
            r'no rule "al" \(did you mean "all"',
        ),
        (lambda ops, known: ops.redrive_fallback(known["waiting"]), NotFound, "what this message tells of was pruned"),
        (lambda ops, _: ops.end_silence("sil_404"), NotFound, 'there is no silence "sil_404"'),
        (lambda ops, known: ops.end_silence(known["over"]), Conflict, "has been over since 2026-11-21T12:00:00Z"),
        (lambda ops, known: ops.make_silence(known["other"]), Conflict, "another silence was made under this id"),
        (lambda ops, known: ops.notify(known["book"], job_id="j9", notifier="cms"), NotFound, 'of a job "j9"'),
        (lambda ops, known: ops.notify(known["book"], job_id="j1", notifier="no"), NotFound, 'no notifier "no"'),
    ],
)
def test_what_is_refused_says_why_and_leaves_no_row(
    world: World, deed: Any, reason: type[OperationRefused], why: str
) -> None:
    waiting = world.delivery_of(1)
    over = ann(world).make_silence(wanted(world, id="mine")).id
    ann(world).end_silence(over)
    ann(world).pause_watch(world.book, "vod")
    before = recorded(world)
    known = {"waiting": waiting, "over": over, "book": world.book, "other": wanted(world, id="mine", to="Success")}
    with pytest.raises(reason, match=why):
        deed(ann(world), known)
    assert recorded(world) == before


# --- the rows -----------------------------------------------------------------------------------------------------


def refuse_actions(*told: Any) -> None:
    if told[2].startswith("INSERT INTO action"):
        raise OSError("the disk is full")


@pytest.fixture
def full_disk(db: Database) -> Iterator[None]:
    """Nothing can be written down."""
    event.listen(db.engine, "before_cursor_execute", refuse_actions)
    yield
    event.remove(db.engine, "before_cursor_execute", refuse_actions)


@pytest.mark.usefixtures("full_disk")
def test_what_cannot_be_written_down_is_not_done(world: World) -> None:
    (dead,) = buried(world, 1)
    for deed in (
        lambda: ann(world).redrive(dead),
        lambda: ann(world).redrive_batch(Filter(state="dead"), interval=SECOND),
        lambda: ann(world).pause_watch(world.book, "vod"),
        lambda: ann(world).make_silence(wanted(world)),
    ):
        with pytest.raises(OSError, match="the disk is full"):
            deed()
    assert (states(world, dead), watch(world)["paused"]) == (["dead"], False)
    with world.db.read() as tx:
        assert silences.all_with_counts(tx) == []


def test_any_name_of_a_person_can_be_written_down(world: World) -> None:
    by_hand(world.db, who="ünn\0\udcff").pause_watch(world.book, "vod")
    assert [row["who"] for row in rows(world.db, actions)] == ["ünn?"]


def test_actions_are_pruned_as_dead_letters_are(world: World) -> None:
    ann(world).pause_watch(world.book, "vod")
    world.now += HOUR
    ann(world).resume_watch(world.book, "vod")
    with world.db.write() as tx:
        pruning.prune_rest(tx, cut=Cutoffs(now=world.now, ended=world.now, dead=NOON + MINUTE, created={}))
    assert [what for what, *_ in recorded(world)] == ["resume_watch"]
