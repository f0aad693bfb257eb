from __future__ import annotations

from datetime import timedelta

import pytest

from bridge.model import ANSWER_KEPT, Outcome, Reason, Rejected, RetryLater, Sent
from bridge.record import counters
from bridge.record.database import Database, ms
from bridge.record.outbox import entries, results
from bridge.record.polling import leases
from bridge.record.schema import DEAD, SENDING, SENT, WAITING, attempts, deliveries, notifiers, threads
from tests.conftest import only_sqlite
from tests.support.nouns import LEASE, NOW, hours, minutes, new_delivery, seconds
from tests.support.records import claim, claimed_ids, ended, know, put, read, row_of, rows, settle, write

LATE = NOW + LEASE + seconds(1)


@pytest.fixture(autouse=True)
def _known(db: Database) -> None:
    know(db, "cms", "ops")


def _reap(db: Database) -> int:
    return write(db, results.free_lost, read(db, results.open_claims), now=LATE)


def _states(db: Database) -> list[int]:
    return [row["state"] for row in rows(db, deliveries)]


def test_a_sent_delivery_is_done_and_its_attempt_is_stored(db: Database) -> None:
    put(db, new_delivery("d1"))
    (mine,) = claim(db)
    sent = ended(mine, Sent("r"), status=200, answer="ok", address="192.0.2.1")
    assert settle(db, sent, now=NOW + seconds(3)) == frozenset()
    row = row_of(db, deliveries, id="d1")
    assert (row["state"], row["ended_at"], row["lease"]) == (SENT, ms(NOW + seconds(3)), None)
    stored = row_of(db, attempts, delivery=mine.n)
    facts = ("number", "outcome", "why", "reason", "status", "answer", "address", "started_at", "ms")
    assert [stored[name] for name in facts] == [1, "sent", None, None, 200, "ok", "192.0.2.1", ms(NOW), 200]


def test_one_that_is_tried_later_waits_until_then(db: Database) -> None:
    put(db, new_delivery("d1"))
    settle(db, ended(claim(db)[0], RetryLater("timed out", Reason.TIMEOUT), again_at=NOW + minutes(2)))
    row = row_of(db, deliveries, id="d1")
    assert (row["state"], row["due_at"], row["why"]) == (WAITING, ms(NOW + minutes(2)), "timed out")
    stored = row_of(db, attempts, number=1)
    assert (stored["outcome"], stored["why"], stored["reason"]) == ("later", "timed out", "timeout")


@pytest.mark.parametrize("outcome", [Rejected("blocked address"), RetryLater("503")])
def test_one_that_is_refused_or_whose_time_is_over_is_dead(db: Database, outcome: Rejected | RetryLater) -> None:
    put(db, new_delivery("d1"))
    dead = ended(claim(db)[0], outcome)
    assert dead.dead
    settle(db, dead)
    row = row_of(db, deliveries, id="d1")
    assert (row["state"], row["why"], row["ended_at"]) == (DEAD, outcome.why, ms(NOW))


def test_a_refusal_of_everything_pauses_the_notifier_and_loses_nothing(db: Database) -> None:
    put(db, new_delivery("d1", key="a"), new_delivery("d2", key="a"), new_delivery("o1", to="ops"))
    first, other = sorted(claim(db), key=lambda delivery: delivery.id)
    refused = ended(first, Rejected("410: it wants no more", Reason.GONE, pause=True))
    assert not refused.dead
    settle(db, refused, ended(other, Sent()))
    paused = row_of(db, notifiers, name="cms")
    assert (paused["paused_why"], paused["paused_reason"]) == ("410: it wants no more", "gone")
    assert claim(db, now=NOW + hours(100)) == []
    write(db, entries.resume, "cms")
    assert row_of(db, notifiers, name="cms")["paused_reason"] is None
    assert claimed_ids(db) == ["d1"]


def test_many_outcomes_are_stored_together(db: Database) -> None:
    put(db, *[new_delivery(f"d{n}") for n in range(6)])
    claimed = claim(db, free=3) + claim(db, free=3)  # under two leases
    outcomes = [Sent(), RetryLater("later"), Rejected("no"), Sent("r"), Sent(), RetryLater("dead")]
    again = [None, NOW + hours(1), None, None, None, None]
    settle(db, *[ended(d, outcome, again_at=at) for d, outcome, at in zip(claimed, outcomes, again, strict=True)])
    assert _states(db) == [SENT, WAITING, DEAD, SENT, SENT, DEAD]
    kinds = ["sent", "later", "refused", "sent", "sent", "later"]
    stored = {row["delivery"]: row["outcome"] for row in rows(db, attempts)}
    assert stored == {delivery.n: kind for delivery, kind in zip(claimed, kinds, strict=True)}


# --- leases ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "late",
    [Sent("late receipt"), RetryLater("late", whole_notifier=True), Rejected("late"), Rejected("late", pause=True)],
    ids=["sent", "later", "refused", "pause"],
)
@pytest.mark.parametrize("again", ["claimed", "sent", "waiting"])
def test_what_a_zombie_says_late_changes_nothing(db: Database, late: Outcome, again: str) -> None:
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
    assert _states(db) == [WAITING, SENT, WAITING]
    assert {row["delivery"] for row in rows(db, attempts)} == {mine.n, failed.n}


def test_what_a_lost_worker_held_is_sent_again_and_the_attempt_is_called_lost(db: Database) -> None:
    put(db, new_delivery("d1", key="a"), new_delivery("d2", key="a"))
    (mine,) = claim(db)
    seen = read(db, results.open_claims)
    assert _reap(db) == 1
    assert [(row["number"], row["outcome"], row["reason"]) for row in rows(db, attempts)] == [(1, "lost", "lost")]
    assert [total.labels for total in read(db, counters.totals, ["attempt"])] == [("cms", "lost")]
    assert "it is unknown whether the message arrived" in row_of(db, deliveries, id="d1")["why"]
    (again,) = claim(db, now=LATE)
    assert (again.id, again.attempts, again.lease == mine.lease) == ("d1", 2, False)
    assert write(db, results.free_lost, seen, now=LATE) == 0  # it has a new holder
    assert read(db, results.open_claims) == [(again.n, again.lease)]


@pytest.mark.parametrize(
    ("since", "beat", "is_abandoned"),
    [
        (hours(1), None, True),
        (hours(1), minutes(-11), True),
        (hours(1), minutes(-9), False),
        (minutes(10), None, False),
    ],
)
def test_what_is_long_over_by_a_worker_that_was_silent_since_is_abandoned(
    db: Database, since: timedelta, beat: timedelta | None, *, is_abandoned: bool
) -> None:
    put(db, new_delivery("d1"))
    (mine,) = claim(db, worker="w1")
    now = NOW + since
    write(db, leases.register, "w", machine="m", pid=1, now=now)  # another one, whose name begins alike
    if beat:
        write(db, leases.register, "w1", machine="m", pid=1, now=now + beat)
    assert read(db, results.abandoned, before=now - minutes(10)) == ({(mine.n, mine.lease)} if is_abandoned else set())


def test_what_was_claimed_and_not_begun_can_be_handed_back(db: Database) -> None:
    put(db, new_delivery("d1"), new_delivery("d2"))
    first, second = claim(db)
    settle(db, ended(second, Sent()))
    write(db, results.hand_back, [first, second])
    assert [(row["state"], row["attempts"]) for row in rows(db, deliveries)] == [(WAITING, 0), (SENT, 1)]
    assert rows(db, attempts)[0]["delivery"] == second.n
    assert claim(db)[0].attempts == 1


@pytest.mark.parametrize(
    ("buried", "other"),
    [("w1", "w10"), ("w1", "w1_"), ("w1", "xw1"), ("w1", "w"), ("w_", "a1"), ("%", "a1")],  # an id is no pattern
)
def test_burying_a_worker_frees_what_it_held_and_nothing_else(db: Database, buried: str, other: str) -> None:
    put(db, new_delivery("d1"), new_delivery("d2"))
    claim(db, free=1, worker="w1")
    claim(db, free=1, worker=other)
    freed = buried == "w1"
    assert write(db, results.free_claims_of, buried, now=NOW) == int(freed)
    assert _states(db) == [WAITING if freed else SENDING, SENDING]
    assert claimed_ids(db) == (["d1"] if freed else [])


# --- what is stored of outcomes and answers -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "label"),
    [
        (Sent("r"), "ok"),
        *(
            (RetryLater("a sentence", reason), reason.value)
            for reason in Reason
            if reason not in ("channel", "gone", "manual")
        ),
        (Rejected("a sentence", Reason.CHANNEL, pause=True), "client_error"),
        (Rejected("a sentence", Reason.GONE, pause=True), "client_error"),
    ],
)
@only_sqlite
def test_an_attempt_is_counted_by_its_reason(db: Database, outcome: Outcome, label: str) -> None:
    put(db, new_delivery("d1"))
    settle(db, ended(claim(db)[0], outcome, again_at=NOW))
    assert {total.labels for total in read(db, counters.totals, ["attempt"])} == {("cms", label)}
    assert label in results.ATTEMPT_LABELS


def test_a_long_answer_is_stored_in_part_and_without_nul(db: Database) -> None:
    put(db, new_delivery("d1"))
    settle(db, ended(claim(db)[0], Sent(), answer="a\0b" + "x" * 10_000))
    answer = rows(db, attempts)[0]["answer"]
    assert answer.startswith("abx")
    assert len(answer) <= ANSWER_KEPT


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"], ids=["NUL", "half a pair"])
@pytest.mark.parametrize("make", [RetryLater, Rejected, Sent], ids=lambda make: make.__name__)
def test_no_text_of_a_receiver_keeps_its_outcome_from_being_stored(db: Database, text: str, make: type) -> None:
    put(db, new_delivery("d1", thread="t"))
    assert settle(db, ended(claim(db)[0], make(text), again_at=NOW if make is RetryLater else None)) == frozenset()
    assert _states(db) != [SENDING]
