"""The dispatcher: claims, attempts, outcomes, fallbacks; workers and databases that are away; the end."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from sqlalchemy import text, update

from bridge.model import Attempt, Delivery, Outcome, Rate, Reason, Rejected, RetryLater, Sent
from bridge.notifiers import Notifier
from bridge.pipeline.dispatch import WINDOW, Prefetch
from bridge.pipeline.housekeeping import CLAIM_LEASE, LeaseWatcher
from bridge.record.database import Database, at, ms
from bridge.record.outbox import entries, results
from bridge.record.queries import lists
from bridge.record.schema import DEAD, SENDING, SENT, WAITING, attempts, deliveries, notifiers
from tests.conftest import Opener, PostgresServer, on_both, only_postgresql
from tests.support.fakes import impatient, notify_all, outage
from tests.support.nouns import NOW, a_message, hours, minutes, new_delivery, seconds
from tests.support.records import claim, know, let_run, put, row_of, rows, settle
from tests.support.records import ended as ended_with
from tests.support.rig import Rig


@pytest.fixture
def rig(db: Database) -> Rig:
    return Rig(db, given=notify_all())


@pytest.fixture
def backed_up(db: Database) -> Rig:
    """Whose `cms` has a fallback."""
    return Rig(db, given=notify_all(cms='fallback = "pager"'))


@pytest.fixture
def server(request: pytest.FixtureRequest, dialect: str) -> PostgresServer | None:
    return request.getfixturevalue("postgres") if dialect == "postgresql" else None


def put_new(rig: Rig, how_many: int, **facts: str) -> None:
    put(rig.db, *[new_delivery(f"d{n}", **facts) for n in range(how_many)])


def outcomes(rig: Rig) -> list[str]:
    return [row["outcome"] for row in rows(rig.db, attempts)]


def due_at(rig: Rig) -> object:
    return at(row_of(rig.db, deliveries, id="d0")["due_at"])


# --- the way of a delivery ----------------------------------------------------------------------------------


@on_both
def test_what_is_due_is_sent_in_order_each_under_a_lease_of_its_own_and_recorded(rig: Rig) -> None:
    put_new(rig, 5, key="j1")
    rig.deliver()
    assert rig.transport.ids() == [f"d{n}" for n in range(5)]
    assert (rig.stored_states(), outcomes(rig)) == ([SENT] * 5, ["sent"] * 5)
    assert len({one.lease for one in rig.transport.begun}) == 5


@on_both
def test_a_failed_delivery_is_tried_again_on_the_schedule_until_its_time_is_over(rig: Rig) -> None:
    rig.transport.answer = lambda _: RetryLater("503")
    put_new(rig, 1)
    tries: list[float] = []
    while rig.stored_states() == [WAITING]:
        begun = len(rig.transport.begun)
        rig.deliver()
        if len(rig.transport.begun) > begun:
            tries.append(round((rig.clock() - NOW).total_seconds()))
        let_run(rig.db, rig.clock, max(timedelta(), due_at(rig) - rig.clock()))
    # 5 s, 30 s, 2 min, 10 min and 30 min apart; the last when the hour that its notifier has is over
    assert tries == [0, 5, 35, 155, 755, 2555, 3600]
    assert row_of(rig.db, deliveries, id="d0")["why"] == "503"
    assert len(outcomes(rig)) == 7


@on_both
def test_what_is_not_understood_is_tried_a_few_times_and_holds_up_what_follows_for_minutes_only(rig: Rig) -> None:
    rig.transport.answer = lambda one: RetryLater("never_heard_of", attempts=5) if one.id == "d0" else Sent()
    put(rig.db, new_delivery("d0", ordering_key="job"), new_delivery("d1", ordering_key="job"))
    while rig.stored_states()[1] != SENT:
        let_run(rig.db, rig.clock, max(timedelta(), due_at(rig) - rig.clock()))
        rig.deliver()
    assert rig.stored_states() == [DEAD, SENT]
    assert (row_of(rig.db, deliveries, id="d0")["why"], len(outcomes(rig))) == ("never_heard_of", 6)
    assert rig.clock() - NOW == seconds(5 + 30 + 120 + 600)
    assert row_of(rig.db, notifiers, name="cms")["paused_at"] is None


def test_chance_makes_a_pause_up_to_a_fifth_longer(rig: Rig) -> None:
    rig.transport.answer = lambda _: RetryLater("503")
    rig.dispatcher = rig.new_dispatcher(chance=lambda: 0.5)
    put_new(rig, 1)
    rig.deliver()
    assert due_at(rig) == NOW + seconds(5 * 1.1)


def test_a_receiver_is_given_the_time_that_it_asks_for(rig: Rig) -> None:
    rig.transport.answer = lambda _: RetryLater("429", after=minutes(7), whole_notifier=True)
    put_new(rig, 1)
    rig.deliver()
    put(rig.db, new_delivery("d1"))
    rig.clock.advance(minutes(7) - seconds(1))
    rig.deliver()
    assert rig.transport.ids() == ["d0"]
    rig.clock.advance(seconds(1))
    rig.transport.answer = lambda _: Sent()
    rig.deliver()
    assert rig.stored_states() == [SENT, SENT]


def test_a_notifier_that_rules_no_longer_have_is_tried_for_a_day_and_then_dead(rig: Rig) -> None:
    know(rig.db, "old")
    rig.transport.answer = lambda _: RetryLater("rules.toml has no notifier of this name")
    put_new(rig, 1, to="old")
    rig.deliver()
    while (waits := due_at(rig) - rig.clock()) > timedelta():
        let_run(rig.db, rig.clock, waits)
        rig.deliver()
    assert rig.stored_states() == [DEAD]
    assert rig.clock() - NOW == hours(24) - seconds(0.1)  # the first attempt took as long


@on_both
def test_one_answer_that_cannot_be_recorded_does_not_stop_the_others(rig: Rig) -> None:
    rig.transport.answer = lambda one: RetryLater("it said \0 and \ud800") if one.id == "d0" else Sent()
    put_new(rig, 3)
    for _ in range(5):
        rig.dispatcher.run_once()
    assert rig.stored_states() == [WAITING, SENT, SENT]


# --- the fallback -------------------------------------------------------------------------------------------


def fallbacks(rig: Rig) -> list[tuple[str, str | None]]:
    return [(row["message"], row["note"]) for row in rows(rig.db, deliveries) if row["notifier"] == "pager"]


@on_both
def test_the_fallback_of_a_dead_delivery_is_notified_once_with_the_reason(backed_up: Rig) -> None:
    backed_up.transport.answer = lambda one: Rejected("blocked address") if one.notifier == "cms" else Sent()
    put(backed_up.db, new_delivery("d0", message=a_message("m")))
    for _ in range(2):  # the second time it was resent
        backed_up.deliver()
        with backed_up.db.write() as tx:
            entries.redrive(tx, lists.numbers_of(["d0"]), now=NOW)
    assert fallbacks(backed_up) == [("m", "This could not be sent to cms: blocked address")]
    assert [one.notifier for one in backed_up.transport.begun].count("pager") == 1


def test_a_dead_delivery_without_a_fallback_is_only_dead(rig: Rig) -> None:
    rig.transport.answer = lambda _: Rejected("blocked address")
    put_new(rig, 1)
    rig.deliver()
    assert rig.stored_states() == [DEAD]


@on_both
def test_what_waits_for_a_paused_notifier_goes_to_its_fallback(backed_up: Rig) -> None:
    backed_up.transport.answer = lambda one: Rejected("410 Gone", pause=True) if one.notifier == "cms" else Sent()
    put(backed_up.db, *[new_delivery(f"d{n}", message=a_message(f"m{n}"), key="j1") for n in range(2)])
    backed_up.lives(seconds(20), step=seconds(5))
    assert [one.id for one in backed_up.transport.begun if one.notifier == "cms"] == ["d0"]
    note = "This could not be sent to cms: notifier cms is paused: 410 Gone"
    assert fallbacks(backed_up) == [("m0", note), ("m1", note)]
    assert backed_up.stored_states("cms") == [DEAD, DEAD]


def test_what_waits_for_a_paused_notifier_without_a_fallback_waits(rig: Rig) -> None:
    rig.transport.answer = lambda _: Rejected("410 Gone", pause=True)
    put_new(rig, 2)
    rig.lives(hours(192), step=hours(48))
    assert rig.stored_states() == [WAITING, WAITING]
    with rig.db.write() as tx:
        entries.resume(tx, "cms")
    rig.transport.answer = lambda _: Sent()
    rig.deliver()
    assert rig.stored_states() == [SENT, SENT]


@on_both
@pytest.mark.parametrize("outcome", [Sent(), Rejected("410 Gone", pause=True)])
def test_what_waits_for_a_notifier_that_a_person_paused_goes_to_no_fallback(backed_up: Rig, outcome: Outcome) -> None:
    def answer(_: Delivery) -> Outcome:  # that of what was in flight neither ends the pause nor changes why
        with backed_up.db.write() as tx:
            entries.pause(tx, "cms", "by ann: moved", Reason.MANUAL, now=NOW)
        return outcome

    backed_up.transport.answer = answer
    put(backed_up.db, *[new_delivery(f"d{n}", message=a_message(f"m{n}"), key="j1") for n in range(2)])
    backed_up.lives(hours(192), step=hours(48))
    assert [one.id for one in backed_up.transport.begun] == ["d0"]
    row = row_of(backed_up.db, notifiers, name="cms")
    assert (row["paused_why"], row["paused_reason"]) == ("by ann: moved", "manual")
    assert backed_up.stored_states("cms")[-1] == WAITING
    assert fallbacks(backed_up) == []


# --- bounds -------------------------------------------------------------------------------------------------


def test_no_more_than_the_window_is_ever_in_flight_or_unrecorded(rig: Rig) -> None:
    put(rig.db, *[new_delivery(f"d{n}", to="cms" if n % 2 else "pager") for n in range(300)])
    with rig.db.write() as tx:
        tx.exec_driver_sql("UPDATE notifier SET max_in_flight = 64")
    unfinished: list[int] = []
    rig.transport.before_wait = lambda: unfinished.append(rig.dispatcher.unfinished)
    # Every third answers at once, the others only when asked for the third time.
    asked: dict[str, int] = {}

    def answer(one: Delivery) -> Outcome | None:
        asked[one.id] = asked.get(one.id, 0) + 1
        return Sent() if asked[one.id] == 3 or int(one.id[1:]) % 3 == 0 else None

    rig.transport.answer = answer
    rig.deliver()
    assert max(unfinished) == WINDOW
    assert {*rig.stored_states()} == {SENT}


def test_a_hung_receiver_delays_no_other(rig: Rig) -> None:
    know(rig.db, Notifier(name="cms", max_in_flight=4))
    rig.transport.answer = lambda one: None if one.notifier == "cms" else Sent()
    put(rig.db, *[new_delivery(f"c{n}") for n in range(50)], *[new_delivery(f"p{n}", to="pager") for n in range(50)])
    for _ in range(50):
        rig.dispatcher.run_once()
    assert rig.stored_states("pager") == [SENT] * 50


def test_when_nothing_is_due_it_waits_without_hurry(rig: Rig) -> None:
    rig.dispatcher.run_once()
    assert rig.transport.waited == [2.0]


def test_a_notifier_at_its_rate_is_waited_for_as_long_as_it_takes_unless_it_is_paused(rig: Rig) -> None:
    know(rig.db, Notifier(name="cms", rate=Rate(count=4, per=seconds(1))))
    put_new(rig, 5)
    rig.deliver()
    rig.transport.waited.clear()
    rig.dispatcher.run_once()
    with rig.db.write() as tx:
        entries.pause(tx, "cms", "being repaired", now=NOW)
    rig.clock.advance(seconds(2))
    rig.dispatcher.run_once()
    assert rig.transport.waited == [0.25, 2.0]


def test_waking_wakes_the_transport(rig: Rig) -> None:
    rig.dispatcher.wake()
    assert rig.transport.woken == 1


def test_a_quick_receiver_that_asks_to_wait_gets_nothing_more_of_what_was_claimed_ahead(rig: Rig) -> None:
    know(rig.db, Notifier(name="cms", max_in_flight=2))
    put(rig.db, new_delivery("first"))
    rig.deliver()  # it was quick
    put_new(rig, 8)
    rig.transport.answer = lambda _: RetryLater("429", after=seconds(60), whole_notifier=True)
    rig.deliver()
    waiting = [row for row in rows(rig.db, deliveries) if row["state"] == WAITING]
    assert len(waiting) == 8
    assert sum(row["attempts"] for row in waiting) == len(rig.transport.begun) - 1  # what was not begun counts no try


# --- workers that are lost ----------------------------------------------------------------------------------


@on_both
def test_what_a_lost_worker_held_is_sent_again_under_the_same_id(rig: Rig) -> None:
    put_new(rig, 1)
    claim(rig.db, worker="lost")
    rig.deliver()
    assert rig.transport.begun == []
    rig.lives(CLAIM_LEASE + seconds(6), step=seconds(5))
    assert rig.transport.ids() == ["d0"]
    assert outcomes(rig) == ["lost", "sent"]


def test_attempts_that_were_lost_with_their_worker_make_no_pause_longer(rig: Rig) -> None:
    put_new(rig, 1)
    for _ in range(3):
        claim(rig.db, worker="lost", now=rig.clock())
        with rig.db.write() as tx:
            results.free_claims_of(tx, "lost", now=rig.clock())
    rig.transport.answer = lambda _: RetryLater("503")
    rig.deliver()
    row = row_of(rig.db, deliveries, id="d0")
    assert (row["attempts"], row["due_at"]) == (4, ms(rig.clock() + seconds(5)))


def test_what_this_worker_sends_itself_is_never_taken_for_lost(rig: Rig) -> None:
    put_new(rig, 1)
    rig.transport.answer = lambda _: None
    for _ in range(12):
        rig.dispatcher.run_once()
        rig.clock.advance(seconds(5))
    rig.transport.answer = lambda _: Sent()
    rig.deliver()
    assert (rig.transport.ids(), outcomes(rig)) == (["d0"], ["sent"])


@only_postgresql
def test_after_an_outage_claims_of_others_are_watched_anew(rig: Rig, server: PostgresServer, opened: Opener) -> None:
    put_new(rig, 1)
    claim(rig.db, worker="other")
    rig.lives(seconds(25), step=seconds(5))
    with outage(rig.db, server, opened):
        rig.clock.advance(seconds(5))
        assert rig.dispatcher.run_once() == 0
    rig.lives(seconds(25), step=seconds(5))
    assert rig.transport.begun == []
    rig.lives(seconds(15), step=seconds(5))
    assert rig.transport.ids() == ["d0"]


def bury(rig: Rig, now: datetime = NOW) -> None:
    """Free what the rig's worker holds, as if it were dead."""
    with rig.db.write() as tx:
        assert results.free_claims_of(tx, rig.transport.begun[-1].lease.partition(".")[0], now=now) == 1


@on_both
def test_an_outcome_that_comes_after_the_lease_is_not_recorded(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    put(rig.db, new_delivery("d0", thread="t"))

    def take_over() -> None:
        rig.transport.before_wait = lambda: None
        bury(rig)
        (theirs,) = claim(rig.db, worker="other")
        settle(rig.db, ended_with(theirs, Sent("theirs")))

    rig.transport.before_wait = take_over
    rig.transport.answer = lambda _: Rejected("late", pause=True)
    rig.deliver()
    assert (rig.stored_states(), outcomes(rig)) == ([SENT], ["lost", "sent"])
    assert row_of(rig.db, notifiers, name="cms")["paused_at"] is None
    assert "lease lost" in caplog.text


def test_no_fallback_is_notified_of_a_late_death(backed_up: Rig) -> None:
    put_new(backed_up, 1)

    def take_over() -> None:
        backed_up.transport.before_wait = lambda: None
        bury(backed_up, NOW + hours(1))  # it waits

    backed_up.transport.before_wait = take_over
    backed_up.transport.answer = lambda _: Rejected("late")
    for _ in range(2):
        backed_up.dispatcher.run_once()
    assert (backed_up.stored_states(), fallbacks(backed_up)) == ([WAITING], [])


# --- the database is away -----------------------------------------------------------------------------------


@pytest.fixture
def away(db_url: str, opened: Opener) -> Rig:
    """Whose database may be away; three deliveries have been sent, and not been recorded."""
    rig = Rig(impatient(opened(db_url)), given=notify_all())
    put_new(rig, 3)
    assert rig.dispatcher.run_once() == 3
    return rig


@on_both
def test_outcomes_are_kept_while_the_database_is_away_and_recorded_once_it_is_back(
    away: Rig, server: PostgresServer | None, opened: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    with outage(away.db, server, opened):
        away.dispatcher.run_once()
        away.clock.advance(CLAIM_LEASE + seconds(10))  # longer than the lease
        assert away.dispatcher.run_once() == 0
        assert away.dispatcher.unfinished == 3
        waits = len(away.transport.waited)
        away.dispatcher.finish(until=lambda: len(away.transport.waited) >= waits + 2)
        assert away.dispatcher.unfinished == 3
    assert "delivery is suspended: database unavailable" in caplog.text
    away.dispatcher.finish(until=lambda: False)
    away.lives(seconds(12), step=seconds(6))
    assert (away.stored_states(), outcomes(away), len(away.transport.begun)) == ([SENT] * 3, ["sent"] * 3, 3)


@only_postgresql
def test_a_connection_that_breaks_while_outcomes_are_recorded_loses_none(
    away: Rig, db_url: str, opened: Opener
) -> None:
    other, name = opened(db_url), away.db.url.database
    with other.write() as holding, ThreadPoolExecutor(1) as pool:
        holding.execute(update(deliveries).values(note="held"))  # so that recording waits for this row
        turn = pool.submit(away.dispatcher.run_once)
        held_up = f"datname = '{name}' AND wait_event_type = 'Lock'"
        while not holding.execute(
            text(f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {held_up}")  # noqa: S608  (ours)
        ).scalar():
            pass
        assert turn.result(10) == 0
    away.deliver()
    assert (away.stored_states(), len(away.transport.begun)) == ([SENT] * 3, 3)


# --- the end ------------------------------------------------------------------------------------------------


def test_finishing_records_what_is_in_flight_and_begins_nothing_new(rig: Rig) -> None:
    rig.dispatcher = rig.new_dispatcher(window=2)
    put_new(rig, 5)
    rig.transport.answer = lambda _: None
    assert rig.dispatcher.run_once() == 2
    rig.transport.answer = lambda _: Sent()
    rig.dispatcher.finish(until=lambda: False)
    assert rig.dispatcher.unfinished == 0
    assert rig.stored_states() == [SENT, SENT, WAITING, WAITING, WAITING]
    waited = len(rig.transport.waited)
    rig.dispatcher.finish(until=lambda: False)  # at once: nothing is in flight
    assert len(rig.transport.waited) == waited


def test_finishing_ends_when_its_time_is_over(rig: Rig) -> None:
    put_new(rig, 1)
    rig.transport.answer = lambda _: None
    rig.dispatcher.run_once()
    waits = len(rig.transport.waited)
    rig.dispatcher.finish(until=lambda: len(rig.transport.waited) >= waits + 3)
    assert rig.stored_states() == [SENDING]  # its lease runs out


# --- what is claimed ahead ----------------------------------------------------------------------------------


def a_delivery(id_: str) -> Delivery:
    return Delivery(n=1, id=id_, notifier="cms", attempts=1, lease="w.1", happened_at=NOW, event="{}", says="{}")


def prefetch(*ids: str) -> Prefetch:
    found = Prefetch()
    found.add([a_delivery(id_) for id_ in ids], lease_until_s=30.0)
    return found


def ready(found: Prefetch, *, limit: int = 2, after_s: float = 0) -> tuple[list[str], list[str]]:
    begin, stale = found.ready({"cms": limit}, now_s=after_s)
    return [one.id for one in begin], [one.id for one in stale]


def ended(found: Prefetch, outcome: Outcome, *, took_s: float = 0.1) -> list[str]:
    left = found.ended(Attempt(delivery=a_delivery("d"), outcome=outcome, started_at=NOW, seconds=took_s))
    return [one.id for one in left]


def test_no_more_of_a_notifier_begin_than_may_be_in_flight_and_the_others_leave_when_it_fails() -> None:
    found = prefetch("d1", "d2", "d3", "d4")
    assert ready(found) == (["d1", "d2"], [])
    assert ready(found) == ([], [])
    assert ended(found, Sent()) == []
    assert ready(found) == (["d3"], [])
    assert ended(found, RetryLater("429", whole_notifier=True)) == ["d4"]
    assert (ready(found), len(found)) == (([], []), 0)


def test_what_has_waited_too_long_for_an_attempt_under_its_lease_is_handed_back() -> None:
    found = prefetch("d1")
    assert ready(found, limit=0, after_s=12) == ([], [])
    assert ready(found, after_s=14) == ([], ["d1"])
    assert len(found) == 0


def test_for_a_receiver_that_accepted_quickly_more_is_claimed_until_it_is_slow_or_fails() -> None:
    found = prefetch()
    for outcome, took_s in ((Sent(), 2.0), (RetryLater("503"), 0.1)):
        ended(found, Sent())
        assert found.quick == {"cms"}
        ended(found, outcome, took_s=took_s)
        assert found.quick == set()


def test_all_that_wait_can_leave() -> None:
    found = prefetch("d1", "d2")
    assert [one.id for one in found.leave()] == ["d1", "d2"]
    assert len(found) == 0


# --- claims that are watched --------------------------------------------------------------------------------

CLAIM, OTHER = (1, "w1.1"), (2, "w1.2")


@pytest.fixture
def watcher() -> LeaseWatcher:
    """Has watched a claim for 30 s, as long as a lease lasts."""
    watcher = LeaseWatcher(30)
    assert watched(watcher, 0, 30) == []
    return watcher


def watched(watcher: LeaseWatcher, from_s: int, to_s: int) -> list[tuple[int, str]]:
    """Look every five seconds; return what was over at the last look."""
    over: list[tuple[int, str]] = []
    for now_s in range(from_s, to_s + 1, 5):
        over = watcher.over([CLAIM], now_s)
    return over


def test_a_claim_is_over_when_it_was_seen_for_longer_than_a_lease(watcher: LeaseWatcher) -> None:
    assert watcher.over([CLAIM], 35) == [CLAIM]


def test_the_same_delivery_under_another_lease_is_another_claim(watcher: LeaseWatcher) -> None:
    assert watcher.over([(1, "w2.1")], 35) == []


def test_a_claim_that_was_gone_meanwhile_counts_anew(watcher: LeaseWatcher) -> None:
    watcher.over([OTHER], 35)
    assert watched(watcher, 40, 65) == []


def test_a_process_that_was_stopped_itself_does_not_take_that_for_watching() -> None:
    watcher = LeaseWatcher(30)
    watched(watcher, 0, 10)
    assert watcher.over([CLAIM], 3600) == []


def test_forgetting_begins_anew(watcher: LeaseWatcher) -> None:
    watcher.forget()
    assert watcher.over([CLAIM], 35) == []
    assert watched(watcher, 40, 65) == []
    assert watcher.over([CLAIM], 70) == [CLAIM]


def test_a_claim_that_other_evidence_speaks_against_is_over_sooner() -> None:
    watcher = LeaseWatcher(30)
    for now_s in range(0, 16, 5):
        assert watcher.over([CLAIM, OTHER], now_s, sooner={CLAIM}, sooner_s=16) == []
    assert watcher.over([CLAIM, OTHER], 20, sooner={CLAIM}, sooner_s=16) == [CLAIM]
