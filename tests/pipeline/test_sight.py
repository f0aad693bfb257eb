"""Rules with `blind`: that a watch cannot see is said once, and once more when it sees again."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import update

from bridge.collect.errors import AuthError, TemporaryError
from bridge.model import RUNNING, Rejected, RetryLater, Sent
from bridge.pipeline.backtest import Backtest
from bridge.pipeline.explain import explain_stored
from bridge.record.database import Database, ms
from bridge.record.polling import leases
from bridge.record.schema import watches
from tests.conftest import Opener, on_both
from tests.support.commands import call
from tests.support.nouns import NOW, by_hand, hours, minutes, seconds
from tests.support.rig import EVERY, OVER, WITH_FALLBACK, Rig

BLIND = '[[rule]]\nname = "blind"\nblind = "10m"\nnotify = "ops"\n'
DOWN = TemporaryError("CI is down")


@pytest.fixture
def rig(db: Database) -> Rig:
    rig = Rig(db, BLIND)
    rig.first_poll()
    return rig


def fails(rig: Rig, error: Exception | None = DOWN) -> None:
    rig.ci.refuses = {"Transcode": error} if error else {}  # type: ignore[dict-item]  # CI's errors


@on_both
def test_a_watch_that_cannot_see_for_too_long_is_told_once_and_once_more_when_it_sees(rig: Rig) -> None:
    fails(rig)
    rig.passes(minutes(30))
    assert rig.lines() == ["09:11 ops: Watch vod cannot see: no complete poll for 11 min"]
    fails(rig, None)
    rig.has("j1", RUNNING)
    rig.has("j2", RUNNING)
    rig.passes(minutes(30))
    assert rig.lines()[1:] == ["09:36 ops: Watch vod sees again, after 36 min"]
    blind, sees = (one.event for one in rig.received())
    assert (blind["type"], blind["subject"], blind["sequence"]) == ("ci.watch.blind", "vod", "0000000001")
    assert blind["data"] == {
        "watch": "vod", "bucket": "clips-1250000000", "region": "ap-chongqing", "since": "2026-11-21T09:00:00Z",
        "for_seconds": 600, "error": "Transcode: CI is down", "rule": "blind", "url": None,
    }  # fmt: skip
    assert (sees["type"], sees["sequence"]) == ("ci.watch.sees", "0000000002")
    assert (sees["data"]["blind_seconds"], sees["data"]["caught_up"]) == (2_160, 2)


def test_what_is_caught_up_is_neither_silent_nor_of_the_poll_before(db: Database) -> None:
    rig = Rig(db, BLIND)
    rig.first_poll()
    rig.has("j1", RUNNING)
    rig.poll()
    fails(rig)
    rig.clock.advance(minutes(11))
    rig.has("old", "Success", tag="Snapshot", created_at=rig.clock() - hours(30))  # before the first snapshot
    rig.has("j2", "Success", started_at=rig.clock())
    rig.poll()
    fails(rig, None)
    rig.passes(minutes(5))
    assert rig.received()[-1].text == "1 transition was seen since 2026-11-21T09:01:00Z"


def test_a_watch_that_sees_again_in_time_is_not_told_of(rig: Rig) -> None:
    for _ in range(3):
        fails(rig)
        rig.passes(minutes(5))
        fails(rig, None)
        rig.passes(minutes(5))
    assert rig.lines() == []


def test_each_time_of_blindness_is_told(rig: Rig) -> None:
    for _ in range(2):
        fails(rig)
        rig.passes(minutes(15))
        fails(rig, None)
        rig.passes(minutes(5))
    assert [line.partition(":")[2].split(":")[1].split()[2] for line in rig.lines()] == ["cannot", "sees"] * 2


def test_a_tag_that_cannot_be_listed_makes_its_watch_blind(rig: Rig) -> None:
    fails(rig, AuthError("no permission"))
    rig.passes(minutes(15))
    assert len(rig.lines()) == 1


def test_several_rules_are_told_each_at_its_time_and_only_of_their_watches(rig: Rig) -> None:
    later = BLIND.replace('"blind"', '"later"').replace("10m", "20m").replace("ops", "cms")
    other = BLIND.replace('"blind"', '"other"') + 'match.watch = "another"\n'
    mine = BLIND + 'match.watch = ["v*", "!vod2"]\n'
    rig.start(mine + later + other)
    fails(rig)
    rig.passes(minutes(30))
    assert [line[:10] for line in rig.lines()] == ["09:11 ops:", "09:21 cms:"]
    fails(rig, None)
    rig.passes(minutes(5))
    assert sorted(line[:10] for line in rig.lines()[2:]) == ["09:36 cms:", "09:36 ops:"]


@on_both
def test_two_workers_tell_it_once(rig: Rig, db_url: str, opened: Opener) -> None:
    other = rig.new_poller(db=opened(db_url), source=rig.ci, worker="w2")
    fails(rig)
    for _ in range(8):
        rig.clock.advance(minutes(5))
        for poller in (rig.poller, other):
            assert poller.poll_once(rig.book.watches[0], rig.book) is not None
    fails(rig, None)
    for poller in (rig.poller, other):
        poller.poll_once(rig.book.watches[0], rig.book)
    rig.deliver()
    assert len(rig.received()) == 2


def test_a_bridge_that_was_down_tells_it_only_if_polls_still_fail(rig: Rig) -> None:
    rig.clock.advance(hours(5))
    rig.passes(minutes(10))
    assert rig.lines() == []
    rig.clock.advance(hours(5))
    fails(rig)
    rig.passes(minutes(5))
    assert [line[6:] for line in rig.lines()] == ["ops: Watch vod cannot see: no complete poll for 5 h 5 min"]


def test_the_time_of_a_pause_is_none_of_blindness(rig: Rig) -> None:
    by_hand(rig.db, now=rig.clock()).pause_watch(rig.book, "vod")
    rig.clock.advance(hours(5))
    by_hand(rig.db, now=rig.clock()).resume_watch(rig.book, "vod")
    fails(rig)
    rig.passes(minutes(9), every=minutes(1))
    assert rig.lines() == []
    rig.passes(minutes(2), every=minutes(1))
    assert len(rig.lines()) == 1


def test_the_end_is_told_after_the_beginning_although_that_was_sent_late(rig: Rig) -> None:
    rig.transport.answer = lambda _: RetryLater("busy")
    fails(rig)
    rig.passes(minutes(15))
    fails(rig, None)
    rig.passes(minutes(5))
    assert {one.event["type"] for one in rig.received()} == {"ci.watch.blind"}
    rig.transport.answer = lambda _: Sent()
    rig.passes(minutes(30))
    assert [one.event["type"] for one in rig.received()][-2:] == ["ci.watch.blind", "ci.watch.sees"]


def test_no_mute_and_no_silence_holds_it(rig: Rig) -> None:
    rig.start(BLIND + '[[mute]]\nname = "always"\nbetween = "00:00-24:00"\nmode = "drop"\n')
    rig.silence(drop=True)
    fails(rig)
    rig.passes(minutes(15))
    assert len(rig.lines()) == 1


def test_a_rule_that_is_gone_says_nothing_of_the_end(rig: Rig) -> None:
    fails(rig)
    rig.passes(minutes(15))
    rig.start("")
    fails(rig, None)
    rig.passes(minutes(5))
    rig.start(BLIND)
    fails(rig)
    rig.passes(minutes(5))
    assert len(rig.lines()) == 1


def test_a_fallback_hears_of_it_when_it_cannot_be_sent(rig: Rig) -> None:
    rig.start(BLIND, given=WITH_FALLBACK)
    rig.transport.answer = lambda one: Rejected("no") if one.notifier == "ops" else Sent()
    fails(rig)
    rig.passes(minutes(15))
    (found,) = rig.received("cms")
    assert (found.event["type"], found.event["data"]["rule"]) == ("ci.watch.blind", "blind")


def test_a_new_watch_is_blind_from_its_first_poll_on(db: Database) -> None:
    rig = Rig(db, BLIND)
    fails(rig)
    rig.passes(minutes(9), every=minutes(1))
    assert rig.lines() == []
    rig.passes(timedelta(minutes=3), every=seconds(30))
    assert [line[:5] for line in rig.lines()] == [f"{NOW + minutes(11):%H:%M}"]


def test_a_poll_that_the_bridge_itself_fails_in_is_not_complete(rig: Rig) -> None:
    def breaks() -> None:
        raise ZeroDivisionError

    rig.ci.before_call = breaks
    for _ in range(12):
        rig.clock.advance(minutes(1))
        with pytest.raises(ZeroDivisionError) as failed:
            rig.poll()
        rig.poller.note_crash(rig.book.watches[0], rig.book, failed.value)
    rig.deliver()
    (found,) = rig.received()
    said = "the poll was given up, as the bridge failed with ZeroDivisionError; the log says more"
    assert (found.event["data"]["error"], found.text) == (said, f"{said} (since 2026-11-21T09:00:00Z)")
    with rig.db.read() as tx:
        (row,) = leases.polls(tx, ["vod"])
    assert (row.failures, row.next_poll_at) == (12, ms(rig.clock() + EVERY))
    rig.ci.before_call = lambda: None
    rig.passes(minutes(5))
    assert len(rig.lines()) == 2


def test_a_worker_of_the_version_before_that_sees_ends_a_blindness_that_was_told(rig: Rig) -> None:
    fails(rig)
    rig.passes(minutes(15))
    ended_at = rig.clock()
    with rig.db.write() as tx:  # as that worker stores a complete poll
        tx.execute(update(watches).values(polled_at=ms(ended_at), ok_at=ms(ended_at), failures=0, error=None))
    rig.passes(minutes(15))
    kinds = [one.event["type"] for one in rig.received()]
    assert kinds == ["ci.watch.blind", "ci.watch.sees", "ci.watch.blind"]
    fails(rig, None)
    rig.passes(minutes(5))
    assert len(rig.received()) == 4


def test_a_poll_that_fails_while_a_long_list_goes_on_is_no_blindness(db: Database) -> None:
    rig = Rig(db, BLIND)
    rig.ci.page_size = 1
    for number in range(40):
        rig.has(f"j{number}", RUNNING, tag="Transcode")
    for fault in (DOWN, None, None, DOWN, None, None, DOWN):
        rig.ci.refuses = {"Snapshot": fault} if fault else {}
        rig.clock.advance(minutes(9))
        poll = rig.poll(within=timedelta(0))
        assert poll.error == fault
    rig.deliver()
    assert rig.lines() == []


def test_a_clock_that_was_set_back_delays_no_message_of_blindness(rig: Rig) -> None:
    rig.poll()
    rig.clock.advance(-hours(5))
    fails(rig)
    rig.passes(minutes(20))
    assert len(rig.lines()) == 1


def test_lists_of_deliveries_say_what_they_are_about(rig: Rig, db_url: str) -> None:
    fails(rig)
    rig.passes(minutes(15))
    fails(rig, None)
    rig.passes(minutes(5))
    sees, blind = call("deliveries", "list", DATABASE_URL=db_url).stdout.splitlines()[1:]
    assert " a watch sees again " in sees
    assert " a watch cannot see " in blind


def test_explanations_and_backtests_of_jobs_leave_rules_about_watches_out(rig: Rig) -> None:
    rig.start(BLIND + OVER)
    rig.sees("j1", state="Success")
    with rig.db.read() as tx:
        *_, found = explain_stored(tx, "j1", rig.book, now=rig.clock())
        test = Backtest(tx, rig.book, in_force=rig.book, keep=hours(99), since=NOW, now=rig.clock())
        test.run()
    assert ([one["rule"] for one in found["rules"]], found["levels"]) == (["over"], [])
    assert not test.tally.differs
