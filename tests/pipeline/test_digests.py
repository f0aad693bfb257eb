"""Digests, throttles, mutes and silences, hours at a time."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bridge.decide.rulesfile.read import read
from bridge.model import FAILED, RUNNING, SUCCESS
from bridge.record.database import Database
from bridge.record.outbox import silences
from bridge.record.schema import digest
from bridge.wiring import parts
from tests.conftest import on_both
from tests.support.records import NOW, Clock, hours, minutes, rows
from tests.support.rig import GIVEN, Rig

OVER = '[[rule]]\nname = "over"\nto = "done"\nnotify = "ops"\n'


@pytest.fixture
def rig(db: Database, clock: Clock) -> Rig:
    found = Rig(db, OVER, clock)
    found.poll()
    clock.advance(minutes(1))
    return found


def end(rig: Rig, *ids: str, state: str = FAILED, **facts: object) -> None:
    """Let jobs be over, and be seen."""
    for id_ in ids:
        rig.has(id_, state, **facts)
    rig.poll()
    rig.deliver()


def states(rig: Rig) -> dict[str, str]:
    return {one["job"]: one["state"] for one in rig.deliveries() if one["job"]}


# --- groups -----------------------------------------------------------------------------------------------


@on_both
def test_a_group_is_told_once_when_its_wait_is_over(rig: Rig) -> None:
    rig.start(OVER + 'group.wait = "10m"\n')
    end(rig, "j1", "j2")
    rig.passes(minutes(5))
    end(rig, "j3", state=SUCCESS)
    assert rig.lines() == []
    assert states(rig) == {"j1": "held", "j2": "held", "j3": "held"}
    rig.passes(minutes(5))
    (heard,) = rig.received()
    assert str(heard) == "09:11 ops: over: 2 Failed, 1 Success"
    assert heard.text.splitlines()[:3] == [
        "• 09:01 Transcode Failed: j1.mp4 - CI gave no reason. (j1)",
        "• 09:01 Transcode Failed: j2.mp4 - CI gave no reason. (j2)",
        "• 09:06 Transcode Success: j3.mp4 - took 0 s after waiting 0 s (j3)",
    ]
    assert states(rig) == {"j1": "merged", "j2": "merged", "j3": "merged"}


def test_the_next_group_tells_only_what_is_new(rig: Rig) -> None:
    rig.start(OVER + 'group.wait = "10m"\n')
    end(rig, "j1")
    rig.passes(minutes(20))
    end(rig, "j2", state=SUCCESS)
    rig.passes(minutes(20))
    assert rig.lines() == ["09:11 ops: over: 1 Failed", "09:31 ops: over: 1 Success"]


@on_both
def test_there_is_one_digest_for_each_set_of_values(rig: Rig) -> None:
    rig.start(OVER + 'group = { by = ["queue", "state"], wait = "10m" }\n')
    end(rig, "j1", "j2", queue="p1")
    end(rig, "j3", queue="p2")
    end(rig, "j4", state=SUCCESS)
    rig.passes(minutes(15))
    assert sorted(one.title for one in rig.received()) == [
        "over (queue none, state Success): 1 Success",
        "over (queue p2, state Failed): 1 Failed",
        "over (queue vod, state Failed): 2 Failed",
    ]
    assert {one.event["data"]["by"]["queue"] for one in rig.received()} == {"vod", "p2", None}


def test_a_group_at_a_time_of_day_is_told_then_in_the_zone_of_the_rules(rig: Rig) -> None:
    rig.start('[defaults]\ntimezone = "Asia/Shanghai"\n' + OVER + 'group.at = "18:30"\n')
    end(rig, "j1")
    rig.passes(hours(1))
    assert rig.lines() == []
    end(rig, "j2")
    rig.passes(hours(1))
    (heard,) = rig.received()
    assert heard.at == datetime(2026, 11, 21, 10, 31, tzinfo=UTC)  # the first look after 18:30 in Shanghai
    assert heard.text.startswith("• 17:01 Transcode Failed: j1.mp4")


@on_both
def test_a_group_that_is_full_is_told_at_once_and_another_begins(rig: Rig) -> None:
    rig.start(OVER + 'group = { wait = "1h", max = 3 }\n')
    end(rig, *(f"j{n}" for n in range(8)))
    assert rig.titles() == ["over: 3 Failed", "over: 3 Failed"]
    rig.passes(hours(2))
    assert rig.titles()[2:] == ["over: 2 Failed"]
    assert sorted(states(rig).values()) == ["merged"] * 8


def test_a_restart_and_a_change_of_rules_lose_no_member(rig: Rig) -> None:
    rig.start(OVER + 'group.wait = "10m"\n')
    end(rig, "j1")
    rig.start()
    end(rig, "j2")
    rig.start("")
    rig.passes(minutes(15))
    assert rig.titles() == ["over: 2 Failed"]


def test_what_came_due_while_nobody_worked_is_told_at_the_first_look(rig: Rig) -> None:
    rig.start(OVER + 'group.wait = "10m"\n')
    end(rig, "j1")
    rig.clock.advance(hours(3))
    rig.start()
    rig.deliver()
    (heard,) = rig.received()
    assert heard.event["time"] == "2026-11-21T09:11:00Z"  # so that Slack says it is late


def test_a_digest_is_beside_what_is_told_at_once(rig: Rig) -> None:
    rig.start(OVER.replace("over", "digest") + 'group.wait = "10m"\n' + OVER)
    end(rig, "j1")
    rig.passes(minutes(15))
    assert rig.titles() == ["Transcode Failed: j1.mp4", "digest: 1 Failed"]


def test_a_digest_of_very_much_counts_all_and_quotes_the_first(rig: Rig) -> None:
    rig.start(OVER + 'group.wait = "10m"\n')
    rig.ci.page_size = 1000
    end(rig, *(f"j{n:04}" for n in range(1000)))
    rig.passes(minutes(15))
    (heard,) = rig.received()
    assert heard.title == "over: 1,000 Failed"
    assert heard.text.count("•") == 5
    assert "... and 995 more" in heard.text
    assert heard.event["data"]["states"] == {"Failed": 1000}


# --- throttle ---------------------------------------------------------------------------------------------


@on_both
def test_what_is_over_the_throttle_becomes_one_message_that_counts_it(rig: Rig) -> None:
    rig.start(OVER + 'throttle = "2/10m"\n')
    end(rig, *(f"j{n}" for n in range(5)))
    end(rig, "j5", state=SUCCESS)
    assert len(rig.received()) == 2
    rig.passes(minutes(15))
    (more,) = rig.received()[2:]
    assert str(more) == "09:11 ops: ... and 4 more by over: 3 Failed, 1 Success"
    assert sorted(states(rig).values()) == ["merged"] * 4 + ["sent"] * 2


def test_a_throttle_counts_anew_when_its_time_is_over(rig: Rig) -> None:
    rig.start(OVER + 'throttle = "2/10m"\n')
    end(rig, "j1", "j2")
    rig.passes(minutes(15))
    end(rig, "j3", "j4")
    rig.passes(minutes(15))
    assert rig.titles() == [f"Transcode Failed: j{n}.mp4" for n in (1, 2, 3, 4)]


def test_a_throttle_is_each_notifiers_own(rig: Rig) -> None:
    rig.start(OVER.replace('"ops"', '["ops", "cms"]') + 'throttle = "1/10m"\n')
    end(rig, "j1")
    assert {one.notifier for one in rig.received()} == {"ops", "cms"}


@on_both
def test_digests_are_throttled_too_and_their_members_counted(rig: Rig) -> None:
    rig.start(OVER + 'throttle = "1/1h"\ngroup = { by = ["job"], wait = "5m" }\n')
    end(rig, "j1", "j2", "j3")
    rig.passes(hours(2))
    assert rig.titles() == ["over (job j1): 1 Failed", "... and 2 more by over: 2 Failed"]


# --- mutes ------------------------------------------------------------------------------------------------

QUIET = '[[mute]]\nname = "quiet"\nbetween = "22:00-08:00"\n'


def test_a_mute_over_midnight_holds_and_tells_one_digest_when_it_ends(rig: Rig) -> None:
    rig.start(OVER + QUIET)
    end(rig, "j1")
    rig.passes(hours(14))  # 23:01
    end(rig, "j2")
    rig.passes(hours(3))
    rig.start()
    end(rig, "j3", state=SUCCESS)
    assert len(rig.received()) == 1
    rig.passes(hours(6))
    assert rig.lines()[1:] == ['08:01 ops: 2 held by the mute "quiet", now over: 1 Failed, 1 Success']
    end(rig, "j4")
    assert rig.lines()[2:] == ["08:01 ops: Transcode Failed: j4.mp4"]


def test_a_mute_is_about_what_it_matches(rig: Rig) -> None:
    rig.start(OVER + QUIET.replace("22:00-08:00", "00:00-24:00") + 'match.queue = "vod"\nto = "Success"\n')
    end(rig, "j1", queue="p1")
    end(rig, "j2", queue="p1", state=SUCCESS)
    end(rig, "j3", queue="p2", state=SUCCESS)
    assert rig.titles() == ["Transcode Failed: j1.mp4", "Transcode Success: j3.mp4"]


@on_both
def test_a_mute_that_drops_leaves_a_record_of_it(rig: Rig) -> None:
    rig.start(OVER + QUIET.replace("22:00", "09:00") + 'mode = "drop"\n')
    end(rig, "j1")
    rig.passes(hours(24))
    assert rig.lines() == []
    (dropped,) = rig.deliveries()
    assert (dropped["state"], dropped["held_by"]) == ("dropped", "mute:quiet")


def test_a_mute_keeps_to_its_days(rig: Rig) -> None:
    rig.start(OVER + '[[mute]]\nname = "work"\nbetween = "00:00-24:00"\ndays = ["mon", "sun"]\n')
    end(rig, "j1")  # a Saturday
    rig.passes(hours(24))
    end(rig, "j2")
    assert rig.titles() == ["Transcode Failed: j1.mp4"]


def test_a_digest_that_is_due_in_a_mute_waits_for_its_end(rig: Rig) -> None:
    rig.start(OVER + 'group.wait = "10m"\n' + QUIET.replace("22:00", "09:05"))
    end(rig, "j1", "j2")
    rig.passes(hours(22))
    assert rig.lines() == []
    rig.passes(hours(2))
    assert rig.lines() == ['08:01 ops: 2 held by the mute "quiet", now over: 2 Failed']


def test_stays_are_muted_too(rig: Rig) -> None:
    rule = '[[rule]]\nname = "stuck"\nin = "Running"\nfor = "30m"\nrecover = true\nnotify = "ops"\n'
    rig.start(rule + QUIET.replace("22:00-08:00", "09:00-10:00"))
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
    rig.silence(lasts=hours(1), match={"tag": "Transcode"})
    end(rig, "j1", "j2")
    end(rig, "j3", tag="Snapshot")
    assert rig.titles() == ["Snapshot Failed: j3.mp4"]
    rig.start()
    rig.passes(hours(2))
    assert rig.lines()[1:] == ["10:01 ops: The silence by ann (maintenance) is over, 2 held: 2 Failed"]
    end(rig, "j4")
    assert rig.received()[-1].note is None  # it has been said


@on_both
def test_a_silence_that_is_ended_early_tells_what_it_held_at_once(rig: Rig, db: Database) -> None:
    rig.silence(lasts=hours(24))
    end(rig, "j1")
    rig.passes(minutes(10))
    with db.write() as tx:
        assert silences.end(tx, "sil_1", by="bob", now=rig.clock())
        assert not silences.end(tx, "sil_1", by="bob", now=rig.clock())
    rig.passes(minutes(5))
    assert rig.titles() == ["The silence by ann (maintenance) is over, 1 held: 1 Failed"]


@on_both
def test_the_first_message_after_a_silence_that_held_nothing_says_that_it_is_over(rig: Rig) -> None:
    rig.silence(lasts=hours(1), match={"tag": "Transcode"})
    rig.passes(hours(2))
    end(rig, "j1", tag="Snapshot")
    end(rig, "j2", "j3")
    assert [one.note for one in rig.received()] == [None, "The silence by ann (maintenance) is over.", None]


def test_a_silence_that_drops_says_afterwards_that_it_is_over(rig: Rig) -> None:
    rig.silence(lasts=hours(1), drop=True)
    end(rig, "j1")
    rig.passes(hours(2))
    end(rig, "j2")
    (heard,) = rig.received()
    assert (heard.title, heard.note) == ("Transcode Failed: j2.mp4", "The silence by ann (maintenance) is over.")
    assert states(rig) == {"j1": "dropped", "j2": "sent"}


def test_a_silence_may_be_about_some_rules_or_notifiers_only(rig: Rig) -> None:
    rig.start(OVER.replace('"ops"', '["ops", "cms"]'))
    rig.silence(lasts=hours(1), notifier=["cms"], rule="over")
    end(rig, "j1")
    assert [one.notifier for one in rig.received()] == ["ops"]


def test_a_silence_comes_before_a_mute_and_a_digest_waits_for_both(rig: Rig, db: Database) -> None:
    rig.start(OVER + 'group.wait = "10m"\n' + QUIET.replace("22:00-08:00", "09:05-09:30"))
    end(rig, "j1")
    rig.passes(minutes(5))
    rig.silence(lasts=hours(1))
    rig.passes(hours(3))
    assert [(str(one)) for one in rig.received()] == [
        "10:06 ops: The silence by ann (maintenance) is over, 1 held: 1 Failed"
    ]
    assert [row["gate"] for row in rows(db, digest)] == ["group", "silence"]
    assert rig.received()[0].at > NOW + hours(1)


@on_both
def test_a_digest_waits_for_a_worker_whose_rules_are_in_force(rig: Rig, db: Database) -> None:
    rig.start(OVER + 'group.wait = "10m"\n')
    end(rig, "j1")
    mine = rig.book
    parts.sync(db, read(GIVEN + OVER, {}))
    rig.clock.advance(hours(1))
    rig.deliver()
    assert rig.received() == []
    parts.sync(db, mine)
    rig.passes(minutes(1))
    assert len(rig.received()) == 1
