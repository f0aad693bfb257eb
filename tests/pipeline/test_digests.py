"""Digests, throttles, mutes and silences, hours at a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from bridge.decide.rulesfile.read import read
from bridge.model import FAILED, RUNNING, SUCCESS
from bridge.record.outbox import silences
from bridge.record.schema import digests
from bridge.record.schema import silences as silence_table
from bridge.wiring import parts
from tests.conftest import on_both
from tests.support.nouns import hours, minutes
from tests.support.records import rows
from tests.support.rig import GIVEN, OVER, QUIET, STUCK, Rig

GROUP = 'group.wait = "10m"\n'
IS_OVER = "The silence by ann (maintenance) is over"


# --- groups -----------------------------------------------------------------------------------------------


@on_both
def test_a_group_is_sent_once_when_its_wait_is_over_and_the_next_one_has_only_what_is_new(rig: Rig) -> None:
    rig.start(OVER + GROUP)
    rig.sees("j1", "j2")
    rig.passes(minutes(5))
    rig.sees("j3", state=SUCCESS)
    assert rig.lines() == []
    assert rig.states() == {"j1": "held", "j2": "held", "j3": "held"}
    rig.passes(minutes(5))
    (message,) = rig.received()
    assert str(message) == "09:11 ops: over: 2 Failed, 1 Success"
    assert message.text.splitlines() == [
        "• 2 x CI gave no reason, since 2026-11-21T09:01:00Z: j1.mp4, j2.mp4",
        "... and 1 more",
    ]
    assert rig.states() == {"j1": "merged", "j2": "merged", "j3": "merged"}
    rig.sees("j4", state=SUCCESS)
    rig.passes(minutes(20))
    assert rig.lines()[1:] == ["09:21 ops: over: 1 Success"]


@on_both
def test_there_is_one_digest_for_each_set_of_values(rig: Rig) -> None:
    rig.start(OVER + 'group = { by = ["queue", "state"], wait = "10m" }\n')
    rig.sees("j1", "j2", queue="p1")
    rig.sees("j3", queue="p2")
    rig.sees("j4", state=SUCCESS)
    rig.passes(minutes(15))
    assert sorted(rig.titles()) == [
        "over (queue none, state Success): 1 Success",
        "over (queue p2, state Failed): 1 Failed",
        "over (queue vod, state Failed): 2 Failed",
    ]
    assert {message.event["data"]["by"]["queue"] for message in rig.received()} == {"vod", "p2", None}


def test_a_group_at_a_time_of_day_is_sent_then_in_the_zone_of_the_rules(rig: Rig) -> None:
    rig.start('[defaults]\ntimezone = "Asia/Shanghai"\n' + OVER + 'group.at = "18:30"\n')
    rig.sees("j1")
    rig.passes(hours(1))
    assert rig.lines() == []
    rig.sees("j2")
    rig.passes(hours(1))
    (message,) = rig.received()
    assert message.at == datetime(2026, 11, 21, 10, 31, tzinfo=UTC)  # the first look after 18:30 in Shanghai


@on_both
def test_a_group_that_is_full_is_sent_at_once_and_another_begins(rig: Rig) -> None:
    rig.start(OVER + 'group = { wait = "1h", max = 3 }\n')
    rig.sees(*(f"j{n}" for n in range(8)))
    assert rig.titles() == ["over: 3 Failed", "over: 3 Failed"]
    rig.passes(hours(2))
    assert rig.titles()[2:] == ["over: 2 Failed"]
    assert sorted(rig.states().values()) == ["merged"] * 8


def test_a_restart_and_a_change_of_rules_lose_no_member(rig: Rig) -> None:
    for id_, rules in (("j1", OVER + GROUP), ("j2", OVER + GROUP), (None, "")):
        rig.start(rules)
        rig.sees(*([id_] if id_ else []))
    rig.passes(minutes(15))
    assert rig.titles() == ["over: 2 Failed"]


def test_what_came_due_while_no_worker_ran_is_sent_at_the_first_look(rig: Rig) -> None:
    rig.start(OVER + GROUP)
    rig.sees("j1")
    rig.clock.advance(hours(3))
    rig.start()
    rig.deliver()
    (message,) = rig.received()
    assert message.event["time"] == "2026-11-21T09:11:00Z"  # so that Slack says it is late


def test_a_digest_is_beside_what_is_sent_at_once(rig: Rig) -> None:
    rig.start(OVER.replace("over", "digest") + GROUP + OVER)
    rig.sees("j1")
    rig.passes(minutes(15))
    assert rig.titles() == ["Transcode Failed: j1.mp4", "digest: 1 Failed"]


def test_a_digest_of_very_much_counts_all_and_quotes_the_first(rig: Rig) -> None:
    rig.start(OVER + GROUP)
    rig.ci.page_size = 1000
    for n in range(1000):
        rig.has(f"j{n:04}", FAILED, message=f"frame {n} is broken")
    rig.sees()
    rig.passes(minutes(15))
    (message,) = rig.received()
    assert (message.title, message.text.count("•")) == ("over: 1,000 Failed", 5)
    assert message.text.endswith("\n... and 995 more")
    assert message.event["data"]["states"] == {"Failed": 1000}
    assert len(message.event["data"]["members"]) == 5


@on_both
def test_a_digest_counts_equal_reasons_the_worst_states_and_the_most_frequent_reasons_first(rig: Rig) -> None:
    rig.start(OVER + GROUP)
    rig.has("j0", SUCCESS)
    for n, message in enumerate(["no such codec", *["moov atom\nnot found."] * 4]):
        rig.has(f"f{n}", FAILED, message=message)
    rig.sees()
    rig.passes(minutes(15))
    assert rig.received()[0].text.splitlines() == [
        "• 4 x moov atom not found, since 2026-11-21T09:01:00Z: f1.mp4, f2.mp4, f3.mp4 and 1 more",
        "• 2026-11-21T09:01:00Z Transcode Failed: f0.mp4 - no such codec",
        "... and 1 more",
    ]


def test_a_digest_of_what_went_well_quotes_that(rig: Rig) -> None:
    rig.start(OVER + GROUP)
    rig.sees("j1", "j2", state=SUCCESS)
    rig.passes(minutes(15))
    assert rig.received()[0].text.splitlines() == [
        f"• 2026-11-21T09:01:00Z Transcode Success: {id_}.mp4 - took 0 s after waiting 0 s" for id_ in ("j1", "j2")
    ]


@on_both
def test_a_digest_waits_for_a_worker_whose_rules_are_in_force(rig: Rig) -> None:
    rig.start(OVER + GROUP)
    rig.sees("j1")
    parts.sync(rig.db, read(GIVEN + OVER, {}))
    rig.clock.advance(hours(1))
    rig.deliver()
    assert rig.titles() == []
    rig.use()
    rig.passes(minutes(1))
    assert len(rig.titles()) == 1


# --- throttle ---------------------------------------------------------------------------------------------


@on_both
def test_what_is_over_the_throttle_becomes_one_message_that_counts_it(rig: Rig) -> None:
    rig.start(OVER + 'throttle = "2/10m"\n')
    rig.sees(*(f"j{n}" for n in range(5)))
    rig.sees("j5", state=SUCCESS)
    assert len(rig.titles()) == 2
    rig.passes(minutes(15))
    assert rig.lines()[2:] == ["09:11 ops: ... and 4 more by over: 3 Failed, 1 Success"]
    assert sorted(rig.states().values()) == ["merged"] * 4 + ["sent"] * 2
    rig.sees("j6", "j7")  # it counts anew
    assert rig.titles()[3:] == ["Transcode Failed: j6.mp4", "Transcode Failed: j7.mp4"]


def test_a_throttle_is_each_notifiers_own(rig: Rig) -> None:
    rig.start(OVER.replace('"ops"', '["ops", "cms"]') + 'throttle = "1/10m"\n')
    rig.sees("j1")
    assert {message.notifier for message in rig.received()} == {"ops", "cms"}


@on_both
def test_digests_are_throttled_too_and_their_members_counted(rig: Rig) -> None:
    rig.start(OVER + 'throttle = "1/1h"\ngroup = { by = ["job"], wait = "5m" }\n')
    rig.sees("j1", "j2", "j3")
    rig.passes(hours(2))
    assert rig.titles() == ["over (job j1): 1 Failed", "... and 2 more by over: 2 Failed"]


# --- mutes ------------------------------------------------------------------------------------------------


def test_a_mute_over_midnight_holds_and_sends_one_digest_when_it_ends(rig: Rig) -> None:
    rig.start(OVER + QUIET)
    rig.sees("j1")
    rig.passes(hours(14))  # 23:01
    rig.sees("j2")
    rig.passes(hours(3))
    rig.start()
    rig.sees("j3", state=SUCCESS)
    assert len(rig.titles()) == 1
    rig.passes(hours(6))
    rig.sees("j4")
    assert rig.lines()[1:] == [
        '08:01 ops: 2 held by the mute "quiet", now over: 1 Failed, 1 Success',
        "08:01 ops: Transcode Failed: j4.mp4",
    ]


def test_a_mute_is_about_what_it_matches(rig: Rig) -> None:
    rig.start(OVER + QUIET.replace("22:00-08:00", "00:00-24:00") + 'match.queue = "vod"\nto = "Success"\n')
    rig.sees("j1", queue="p1")
    rig.sees("j2", queue="p1", state=SUCCESS)
    rig.sees("j3", queue="p2", state=SUCCESS)
    assert rig.titles() == ["Transcode Failed: j1.mp4", "Transcode Success: j3.mp4"]


@on_both
def test_a_mute_that_drops_leaves_a_record_of_it(rig: Rig) -> None:
    rig.start(OVER + QUIET.replace("22:00", "09:00") + 'mode = "drop"\n')
    rig.sees("j1")
    rig.passes(hours(24))
    assert rig.lines() == []
    (dropped,) = rig.deliveries()
    assert (dropped["state"], dropped["held_by"]) == ("dropped", "mute:quiet")


def test_a_mute_keeps_to_its_days(rig: Rig) -> None:
    rig.start(OVER + '[[mute]]\nname = "work"\nbetween = "00:00-24:00"\ndays = ["mon", "sun"]\n')
    rig.sees("j1")  # a Saturday
    rig.passes(hours(24))
    rig.sees("j2")
    assert rig.titles() == ["Transcode Failed: j1.mp4"]


def test_a_digest_that_is_due_in_a_mute_waits_for_its_end(rig: Rig) -> None:
    rig.start(OVER + GROUP + QUIET.replace("22:00", "09:05"))
    rig.sees("j1", "j2")
    rig.passes(hours(22))
    assert rig.lines() == []
    rig.passes(hours(2))
    assert rig.lines() == ['08:01 ops: 2 held by the mute "quiet", now over: 2 Failed']


def test_overdue_jobs_are_muted_too(rig: Rig) -> None:
    rig.start(STUCK + "recover = true\n" + QUIET.replace("22:00-08:00", "09:00-10:00"))
    rig.has("j1", RUNNING)
    rig.passes(hours(1))
    rig.has("j1", SUCCESS)
    rig.passes(minutes(10))
    assert rig.titles() == [
        '1 held by the mute "quiet", now over: 1 Running',
        "Transcode Success after 1 h Running: j1.mp4",
    ]


# --- silences ---------------------------------------------------------------------------------------------


@on_both
def test_a_silence_holds_until_it_ends_and_then_says_so_in_one_digest(rig: Rig) -> None:
    rig.silence(match={"tag": "Transcode"})
    rig.sees("j1", "j2")
    rig.sees("j3", tag="Snapshot")
    assert rig.titles() == ["Snapshot Failed: j3.mp4"]
    rig.start()
    rig.passes(hours(2))
    assert rig.lines()[1:] == [f"10:01 ops: {IS_OVER}, 2 held: 2 Failed"]
    rig.sees("j4")
    assert rig.received()[-1].note is None  # it has been said


@on_both
def test_a_silence_that_is_ended_early_sends_what_it_held_at_once(rig: Rig) -> None:
    rig.silence(lasts=hours(24))
    rig.sees("j1")
    rig.passes(minutes(10))
    with rig.db.write() as tx:
        assert silences.end(tx, "sil_1", by="bob", now=rig.clock())
        assert not silences.end(tx, "sil_1", by="bob", now=rig.clock())
    rig.passes(minutes(5))
    assert rig.titles() == [f"{IS_OVER}, 1 held: 1 Failed"]


@on_both
def test_a_silence_that_begins_later_holds_nothing_before(rig: Rig) -> None:
    rig.silence(after=hours(1))
    rig.sees("j1")
    assert rig.titles() == ["Transcode Failed: j1.mp4"]
    rig.passes(hours(1))
    rig.sees("j2")
    assert rig.states() == {"j1": "sent", "j2": "held"}
    rig.passes(hours(2))
    assert rig.titles()[1:] == [f"{IS_OVER}, 1 held: 1 Failed"]


def test_nobody_is_told_that_a_silence_is_over_that_was_ended_before_it_began(rig: Rig) -> None:
    rig.silence(after=hours(1))
    with rig.db.write() as tx:
        assert silences.end(tx, "sil_1", by="bob", now=rig.clock())
    rig.passes(hours(3))
    rig.sees("j1")
    assert [(one.title, one.note) for one in rig.received()] == [("Transcode Failed: j1.mp4", None)]


@on_both
@pytest.mark.parametrize("lasts", [minutes(40), hours(3)])
def test_what_a_silence_holds_is_sent_once_at_its_new_end(rig: Rig, lasts: timedelta) -> None:
    begun = rig.clock()
    rig.silence()
    rig.sees("j1")
    rig.passes(minutes(30))
    with rig.db.write() as tx:
        assert silences.change(tx, "sil_1", ends_at=begun + lasts, reason="maintenance", now=rig.clock())
    rig.sees("j2")
    rig.passes(lasts - minutes(35))
    assert rig.titles() == []
    rig.passes(hours(2))
    assert rig.titles() == [f"{IS_OVER}, 2 held: 2 Failed"]
    with rig.db.write() as tx:
        assert not silences.change(tx, "sil_1", ends_at=rig.clock() + hours(1), reason="", now=rig.clock())


@on_both
def test_a_digest_that_did_not_know_of_an_extension_waits_for_the_new_end(rig: Rig) -> None:
    rig.silence()
    rig.sees("j1")
    with rig.db.write() as tx:
        tx.execute(update(silence_table).values(ends_at=silence_table.c.ends_at + 2 * 3_600_000))
    rig.passes(hours(2))
    assert rig.titles() == []
    rig.passes(hours(2))
    assert rig.titles() == [f"{IS_OVER}, 1 held: 1 Failed"]


@on_both
def test_the_first_message_after_a_silence_that_held_nothing_says_that_it_is_over(rig: Rig) -> None:
    rig.silence(match={"tag": "Transcode"})
    rig.passes(hours(2))
    rig.sees("j1", tag="Snapshot")
    rig.sees("j2", "j3")
    assert [message.note for message in rig.received()] == [None, f"{IS_OVER}.", None]


def test_a_silence_that_drops_says_afterwards_that_it_is_over(rig: Rig) -> None:
    rig.silence(drop=True)
    rig.sees("j1")
    rig.passes(hours(2))
    rig.sees("j2")
    assert [(one.title, one.note) for one in rig.received()] == [("Transcode Failed: j2.mp4", f"{IS_OVER}.")]
    assert rig.states() == {"j1": "dropped", "j2": "sent"}


def test_a_silence_may_be_about_some_rules_or_notifiers_only(rig: Rig) -> None:
    rig.start(OVER.replace('"ops"', '["ops", "cms"]'))
    rig.silence(notifier=["cms"], rule="over")
    rig.sees("j1")
    assert [message.notifier for message in rig.received()] == ["ops"]


def test_a_silence_comes_before_a_mute_and_a_digest_waits_for_both(rig: Rig) -> None:
    rig.start(OVER + GROUP + QUIET.replace("22:00-08:00", "09:05-09:30"))
    rig.sees("j1")
    rig.passes(minutes(5))
    rig.silence()
    rig.passes(hours(3))
    assert rig.lines() == [f"10:06 ops: {IS_OVER}, 1 held: 1 Failed"]
    assert [row["gate"] for row in rows(rig.db, digests)] == ["group", "silence"]
