from __future__ import annotations

from datetime import timedelta

import pytest

from bridge.model import Outcome, Reason, Rejected, RetryLater, Sent
from bridge.record import counters
from bridge.record.database import Database, ms
from bridge.record.outbox import entries, results
from bridge.record.polling import leases
from bridge.record.schema import DEAD, SENDING, SENT, WAITING, attempts, deliveries, notifiers, threads
from tests.support.records import (
    LEASE,
    NOW,
    claim,
    claimed_ids,
    ended,
    hours,
    know,
    minutes,
    new_delivery,
    put,
    read,
    row_of,
    rows,
    seconds,
    settle,
    write,
)

LATE = NOW + LEASE + seconds(1)


@pytest.fixture(autouse=True)
def _known(db: Database) -> None:
    know(db, "cms", "ops")


def _reap(db: Database) -> int:
    with db.write() as tx:
        return results.reap(tx, results.held(tx), now=LATE)


def test_a_sent_delivery_is_done_and_its_attempt_is_kept(db: Database) -> None:
    put(db, new_delivery("d1"))
    (mine,) = claim(db)
    one = ended(mine, Sent("r"), status=200, answer="ok", address="192.0.2.1")
    assert settle(db, one, now=NOW + seconds(3)) == frozenset()
    told = row_of(db, deliveries, id="d1")
    assert (told["state"], told["ended_at"], told["lease"]) == (SENT, ms(NOW + seconds(3)), None)
    kept = row_of(db, attempts, delivery=mine.n)
    facts = ("number", "outcome", "why", "reason", "status", "answer", "address", "started_at", "ms")
    assert [kept[name] for name in facts] == [1, "sent", None, None, 200, "ok", "192.0.2.1", ms(NOW), 200]


def test_one_that_is_tried_later_waits_until_then(db: Database) -> None:
    put(db, new_delivery("d1"))
    settle(db, ended(claim(db)[0], RetryLater("timed out", Reason.TIMEOUT), again_at=NOW + minutes(2)))
    told = row_of(db, deliveries, id="d1")
    assert (told["state"], told["due_at"], told["why"]) == (WAITING, ms(NOW + minutes(2)), "timed out")
    kept = row_of(db, attempts, number=1)
    assert (kept["outcome"], kept["why"], kept["reason"]) == ("later", "timed out", "timeout")


@pytest.mark.parametrize("outcome", [Rejected("blocked address"), RetryLater("503")])
def test_one_that_is_refused_or_whose_time_is_over_is_dead(db: Database, outcome: Rejected | RetryLater) -> None:
    put(db, new_delivery("d1"))
    one = ended(claim(db)[0], outcome)
    assert one.dead
    settle(db, one)
    told = row_of(db, deliveries, id="d1")
    assert (told["state"], told["why"], told["ended_at"]) == (DEAD, outcome.why, ms(NOW))


def test_a_refusal_of_everything_pauses_the_notifier_and_loses_nothing(db: Database) -> None:
    put(db, new_delivery("d1", key="a"), new_delivery("d2", key="a"), new_delivery("o1", to="ops"))
    first, other = sorted(claim(db), key=lambda d: d.id)
    one = ended(first, Rejected("410: it wants no more", Reason.GONE, pause=True))
    assert not one.dead
    settle(db, one, ended(other, Sent()))
    paused = row_of(db, notifiers, name="cms")
    assert (paused["paused_why"], paused["paused_reason"]) == ("410: it wants no more", "gone")
    assert claim(db, now=NOW + hours(100)) == []
    write(db, entries.resume, "cms")
    assert row_of(db, notifiers, name="cms")["paused_reason"] is None
    assert claimed_ids(db) == ["d1"]


def test_many_outcomes_are_recorded_together(db: Database) -> None:
    put(db, *[new_delivery(f"d{n}") for n in range(6)])
    found = claim(db, free=3) + claim(db, free=3)  # under two leases
    outcomes = [Sent(), RetryLater("later"), Rejected("no"), Sent("r"), Sent(), RetryLater("dead")]
    again = [None, NOW + hours(1), None, None, None, None]
    both = zip(found, outcomes, again, strict=True)
    settle(db, *[ended(d, outcome, again_at=at) for d, outcome, at in both])
    assert [row["state"] for row in rows(db, deliveries)] == [SENT, WAITING, DEAD, SENT, SENT, DEAD]
    assert sorted((row["delivery"], row["outcome"]) for row in rows(db, attempts)) == [
        (d.n, kind) for d, kind in zip(found, ["sent", "later", "refused", "sent", "sent", "later"], strict=True)
    ]


# --- leases -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "late",
    [Sent("late receipt"), RetryLater("late", whole_notifier=True), Rejected("late"), Rejected("late", pause=True)],
    ids=["sent", "later", "refused", "pause"],
)
@pytest.mark.parametrize("again", ["claimed", "sent", "waiting"])
def test_what_a_zombie_says_late_changes_nothing(db: Database, late: Sent | RetryLater | Rejected, again: str) -> None:
    put(db, new_delivery("d1", key="a", thread="t"), new_delivery("d2", key="a", thread="t"))
    (zombies,) = claim(db, worker="zombie")
    _reap(db)
    if again != "waiting":
        (mine,) = claim(db, now=LATE, worker="w2")
        assert mine.id == "d1"
    if again == "sent":
        settle(db, ended(mine, Sent("receipt")), now=LATE)
    tables = (deliveries, attempts, threads, notifiers)
    before = [rows(db, table) for table in tables]
    again_at = LATE + hours(1) if isinstance(late, RetryLater) else None
    assert settle(db, ended(zombies, late, again_at=again_at), now=LATE) == {zombies.n}
    assert [rows(db, table) for table in tables] == before


def test_a_zombie_among_others_does_not_spoil_them(db: Database) -> None:
    put(db, new_delivery("d1"), new_delivery("d2"), new_delivery("d3"))
    lost, mine, failed = claim(db)
    write(db, results.hand_back, [lost])
    lost_ones = settle(db, ended(lost, Sent()), ended(mine, Sent()), ended(failed, RetryLater("x"), again_at=LATE))
    assert lost_ones == {lost.n}
    assert [row["state"] for row in rows(db, deliveries)] == [WAITING, SENT, WAITING]
    assert {row["delivery"] for row in rows(db, attempts)} == {mine.n, failed.n}


def test_what_a_lost_worker_held_is_told_again_and_the_attempt_is_called_lost(db: Database) -> None:
    put(db, new_delivery("d1", key="a"), new_delivery("d2", key="a"))
    (mine,) = claim(db)
    assert _reap(db) == 1
    assert [(row["number"], row["outcome"], row["reason"]) for row in rows(db, attempts)] == [(1, "lost", "lost")]
    assert "not known" in row_of(db, deliveries, id="d1")["why"]
    (again,) = claim(db, now=LATE)
    assert (again.id, again.attempts, again.lease == mine.lease) == ("d1", 2, False)


@pytest.mark.parametrize(("heard_of", "forsaken"), [(None, True), (minutes(-11), True), (minutes(-9), False)])
def test_what_is_long_over_by_a_worker_not_heard_of_since_is_forsaken(
    db: Database, heard_of: timedelta | None, forsaken: bool
) -> None:
    put(db, new_delivery("d1"))
    (mine,) = claim(db, worker="w1")
    now = NOW + hours(1)
    with db.write() as tx:
        leases.enlist(tx, "w", machine="m", pid=1, now=now)  # another one, whose name begins alike
        if heard_of:
            leases.enlist(tx, "w1", machine="m", pid=1, now=now + heard_of)
        found = results.forsaken(tx, before=now - minutes(10))
    assert found == ({(mine.n, mine.lease)} if forsaken else set())


def test_what_is_not_long_over_is_not_forsaken(db: Database) -> None:
    put(db, new_delivery("d1"))
    claim(db)
    assert read(db, results.forsaken, before=NOW) == set()


def test_what_was_claimed_again_meanwhile_is_not_taken_from_its_new_holder(db: Database) -> None:
    put(db, new_delivery("d1"))
    claim(db, worker="lost")
    seen = write(db, results.held)
    _reap(db)
    (theirs,) = claim(db, now=LATE, worker="w2")
    with db.write() as tx:
        assert results.reap(tx, seen, now=LATE) == 0
        assert results.held(tx) == [(theirs.n, theirs.lease)]


def test_what_was_claimed_and_not_begun_can_be_handed_back(db: Database) -> None:
    put(db, new_delivery("d1"), new_delivery("d2"))
    first, second = claim(db)
    settle(db, ended(second, Sent()))
    write(db, results.hand_back, [first, second])
    assert [(row["state"], row["attempts"]) for row in rows(db, deliveries)] == [(WAITING, 0), (SENT, 1)]
    assert rows(db, attempts)[0]["delivery"] == second.n
    assert claim(db)[0].attempts == 1


@pytest.mark.parametrize("other", ["w10", "w1_", "xw1", "w"])
def test_burying_a_worker_frees_what_it_held_and_nothing_else(db: Database, other: str) -> None:
    put(db, new_delivery("d1"), new_delivery("d2"))
    claim(db, free=1, worker="w1")
    claim(db, free=1, worker=other)
    assert write(db, results.bury, "w1", now=NOW) == 1
    assert [row["state"] for row in rows(db, deliveries)] == [WAITING, SENDING]
    assert claimed_ids(db) == ["d1"]


def test_a_worker_id_is_no_pattern(db: Database) -> None:
    put(db, new_delivery("d1"))
    claim(db, worker="abc")
    with db.write() as tx:
        assert results.bury(tx, "a_c", now=NOW) == results.bury(tx, "%", now=NOW) == 0


# --- what metrics count -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "label"),
    [
        (Sent("r"), "ok"),
        *((RetryLater("a sentence", reason), reason.value) for reason in Reason if reason not in ("channel", "gone")),
        (Rejected("a sentence", Reason.CHANNEL, pause=True), "client_error"),
        (Rejected("a sentence", Reason.GONE, pause=True), "client_error"),
    ],
)
def test_an_attempt_is_counted_by_its_reason(db: Database, outcome: Outcome, label: str) -> None:
    put(db, new_delivery("d1"))
    settle(db, ended(claim(db)[0], outcome, again_at=NOW))
    with db.read() as tx:
        assert {one.labels for one in counters.totals(tx, ["attempt"])} == {("cms", label)}
    assert label in results.ATTEMPT_LABELS


# --- what receivers say -------------------------------------------------------------------------------------


def test_a_long_answer_is_kept_in_part_and_without_nul(db: Database) -> None:
    put(db, new_delivery("d1"))
    settle(db, ended(claim(db)[0], Sent(), answer="a\0b" + "x" * 10_000))
    answer = rows(db, attempts)[0]["answer"]
    assert answer.startswith("abx")
    assert len(answer) <= results.ANSWER_KEPT


@pytest.mark.parametrize("said", ["a\0b", "a\ud800b"], ids=["NUL", "half a pair"])
@pytest.mark.parametrize("make", [RetryLater, Rejected, Sent], ids=lambda make: make.__name__)
def test_no_word_of_a_receiver_keeps_its_outcome_from_being_recorded(db: Database, said: str, make: type) -> None:
    put(db, new_delivery("d1", thread="t"))
    assert settle(db, ended(claim(db)[0], make(said), again_at=NOW if make is RetryLater else None)) == frozenset()
    assert rows(db, deliveries)[0]["state"] != SENDING
