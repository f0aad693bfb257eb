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
from tests.support.simulated_bridge import GIVEN, House

OVER = '[[rule]]\nname = "over"\nto = "done"\nnotify = "ops"\n'


@pytest.fixture
def house(db: Database, clock: Clock) -> House:
    found = House(db, OVER, clock)
    found.poll()
    clock.advance(minutes(1))
    return found


def end(house: House, *ids: str, state: str = FAILED, **facts: object) -> None:
    """Let jobs be over, and be seen."""
    for id_ in ids:
        house.has(id_, state, **facts)
    house.poll()
    house.deliver()


def states(house: House) -> dict[str, str]:
    return {one["job"]: one["state"] for one in house.deliveries() if one["job"]}


# --- groups -----------------------------------------------------------------------------------------------


@on_both
def test_a_group_is_told_once_when_its_wait_is_over(house: House) -> None:
    house.start(OVER + 'group.wait = "10m"\n')
    end(house, "j1", "j2")
    house.passes(minutes(5))
    end(house, "j3", state=SUCCESS)
    assert house.said() == []
    assert states(house) == {"j1": "held", "j2": "held", "j3": "held"}
    house.passes(minutes(5))
    (heard,) = house.heard()
    assert str(heard) == "09:11 ops: over: 2 Failed, 1 Success"
    assert heard.text.splitlines()[:3] == [
        "• 09:01 Transcode Failed: j1.mp4 - CI gave no reason. (j1)",
        "• 09:01 Transcode Failed: j2.mp4 - CI gave no reason. (j2)",
        "• 09:06 Transcode Success: j3.mp4 - took 0 s after waiting 0 s (j3)",
    ]
    assert states(house) == {"j1": "merged", "j2": "merged", "j3": "merged"}


def test_the_next_group_tells_only_what_is_new(house: House) -> None:
    house.start(OVER + 'group.wait = "10m"\n')
    end(house, "j1")
    house.passes(minutes(20))
    end(house, "j2", state=SUCCESS)
    house.passes(minutes(20))
    assert house.said() == ["09:11 ops: over: 1 Failed", "09:31 ops: over: 1 Success"]


@on_both
def test_there_is_one_digest_for_each_set_of_values(house: House) -> None:
    house.start(OVER + 'group = { by = ["queue", "state"], wait = "10m" }\n')
    end(house, "j1", "j2", queue="p1")
    end(house, "j3", queue="p2")
    end(house, "j4", state=SUCCESS)
    house.passes(minutes(15))
    assert sorted(one.title for one in house.heard()) == [
        "over (queue none, state Success): 1 Success",
        "over (queue p2, state Failed): 1 Failed",
        "over (queue vod, state Failed): 2 Failed",
    ]
    assert {one.event["data"]["by"]["queue"] for one in house.heard()} == {"vod", "p2", None}


def test_a_group_at_a_time_of_day_is_told_then_in_the_zone_of_the_rules(house: House) -> None:
    house.start('[defaults]\ntimezone = "Asia/Shanghai"\n' + OVER + 'group.at = "18:30"\n')
    end(house, "j1")
    house.passes(hours(1))
    assert house.said() == []
    end(house, "j2")
    house.passes(hours(1))
    (heard,) = house.heard()
    assert heard.at == datetime(2026, 11, 21, 10, 31, tzinfo=UTC)  # the first look after 18:30 in Shanghai
    assert heard.text.startswith("• 17:01 Transcode Failed: j1.mp4")


@on_both
def test_a_group_that_is_full_is_told_at_once_and_another_begins(house: House) -> None:
    house.start(OVER + 'group = { wait = "1h", max = 3 }\n')
    end(house, *(f"j{n}" for n in range(8)))
    assert [one.title for one in house.heard()] == ["over: 3 Failed", "over: 3 Failed"]
    house.passes(hours(2))
    assert [one.title for one in house.heard()][2:] == ["over: 2 Failed"]
    assert sorted(states(house).values()) == ["merged"] * 8


def test_a_restart_and_a_change_of_rules_lose_no_member(house: House) -> None:
    house.start(OVER + 'group.wait = "10m"\n')
    end(house, "j1")
    house.start()
    end(house, "j2")
    house.start("")
    house.passes(minutes(15))
    assert [one.title for one in house.heard()] == ["over: 2 Failed"]


def test_what_came_due_while_nobody_worked_is_told_at_the_first_look(house: House) -> None:
    house.start(OVER + 'group.wait = "10m"\n')
    end(house, "j1")
    house.clock.advance(hours(3))
    house.start()
    house.deliver()
    (heard,) = house.heard()
    assert heard.event["time"] == "2026-11-21T09:11:00Z"  # so that Slack says it is late


def test_a_digest_is_beside_what_is_told_at_once(house: House) -> None:
    house.start(OVER.replace("over", "digest") + 'group.wait = "10m"\n' + OVER)
    end(house, "j1")
    house.passes(minutes(15))
    assert [one.title for one in house.heard()] == ["Transcode Failed: j1.mp4", "digest: 1 Failed"]


def test_a_digest_of_very_much_counts_all_and_quotes_the_first(house: House) -> None:
    house.start(OVER + 'group.wait = "10m"\n')
    house.ci.page_size = 1000
    end(house, *(f"j{n:04}" for n in range(1000)))
    house.passes(minutes(15))
    (heard,) = house.heard()
    assert heard.title == "over: 1,000 Failed"
    assert heard.text.count("•") == 5
    assert "... and 995 more" in heard.text
    assert heard.event["data"]["states"] == {"Failed": 1000}


# --- throttle ---------------------------------------------------------------------------------------------


@on_both
def test_what_is_over_the_throttle_becomes_one_message_that_counts_it(house: House) -> None:
    house.start(OVER + 'throttle = "2/10m"\n')
    end(house, *(f"j{n}" for n in range(5)))
    end(house, "j5", state=SUCCESS)
    assert len(house.heard()) == 2
    house.passes(minutes(15))
    (more,) = house.heard()[2:]
    assert str(more) == "09:11 ops: ... and 4 more by over: 3 Failed, 1 Success"
    assert sorted(states(house).values()) == ["merged"] * 4 + ["sent"] * 2


def test_a_throttle_counts_anew_when_its_time_is_over(house: House) -> None:
    house.start(OVER + 'throttle = "2/10m"\n')
    end(house, "j1", "j2")
    house.passes(minutes(15))
    end(house, "j3", "j4")
    house.passes(minutes(15))
    assert [one.title for one in house.heard()] == [f"Transcode Failed: j{n}.mp4" for n in (1, 2, 3, 4)]


def test_a_throttle_is_each_notifiers_own(house: House) -> None:
    house.start(OVER.replace('"ops"', '["ops", "cms"]') + 'throttle = "1/10m"\n')
    end(house, "j1")
    assert {one.notifier for one in house.heard()} == {"ops", "cms"}


@on_both
def test_digests_are_throttled_too_and_their_members_counted(house: House) -> None:
    house.start(OVER + 'throttle = "1/1h"\ngroup = { by = ["job"], wait = "5m" }\n')
    end(house, "j1", "j2", "j3")
    house.passes(hours(2))
    assert [one.title for one in house.heard()] == ["over (job j1): 1 Failed", "... and 2 more by over: 2 Failed"]


# --- mutes ------------------------------------------------------------------------------------------------

QUIET = '[[mute]]\nname = "quiet"\nbetween = "22:00-08:00"\n'


def test_a_mute_over_midnight_holds_and_tells_one_digest_when_it_ends(house: House) -> None:
    house.start(OVER + QUIET)
    end(house, "j1")
    house.passes(hours(14))  # 23:01
    end(house, "j2")
    house.passes(hours(3))
    house.start()
    end(house, "j3", state=SUCCESS)
    assert len(house.heard()) == 1
    house.passes(hours(6))
    assert house.said()[1:] == ['08:01 ops: 2 held by the mute "quiet", now over: 1 Failed, 1 Success']
    end(house, "j4")
    assert house.said()[2:] == ["08:01 ops: Transcode Failed: j4.mp4"]


def test_a_mute_is_about_what_it_matches(house: House) -> None:
    house.start(OVER + QUIET.replace("22:00-08:00", "00:00-24:00") + 'match.queue = "vod"\nto = "Success"\n')
    end(house, "j1", queue="p1")
    end(house, "j2", queue="p1", state=SUCCESS)
    end(house, "j3", queue="p2", state=SUCCESS)
    assert [one.title for one in house.heard()] == ["Transcode Failed: j1.mp4", "Transcode Success: j3.mp4"]


@on_both
def test_a_mute_that_drops_leaves_a_record_of_it(house: House) -> None:
    house.start(OVER + QUIET.replace("22:00", "09:00") + 'mode = "drop"\n')
    end(house, "j1")
    house.passes(hours(24))
    assert house.said() == []
    (dropped,) = house.deliveries()
    assert (dropped["state"], dropped["held_by"]) == ("dropped", "mute:quiet")


def test_a_mute_keeps_to_its_days(house: House) -> None:
    house.start(OVER + '[[mute]]\nname = "work"\nbetween = "00:00-24:00"\ndays = ["mon", "sun"]\n')
    end(house, "j1")  # a Saturday
    house.passes(hours(24))
    end(house, "j2")
    assert [one.title for one in house.heard()] == ["Transcode Failed: j1.mp4"]


def test_a_digest_that_is_due_in_a_mute_waits_for_its_end(house: House) -> None:
    house.start(OVER + 'group.wait = "10m"\n' + QUIET.replace("22:00", "09:05"))
    end(house, "j1", "j2")
    house.passes(hours(22))
    assert house.said() == []
    house.passes(hours(2))
    assert house.said() == ['08:01 ops: 2 held by the mute "quiet", now over: 2 Failed']


def test_stays_are_muted_too(house: House) -> None:
    rule = '[[rule]]\nname = "stuck"\nin = "Running"\nfor = "30m"\nrecover = true\nnotify = "ops"\n'
    house.start(rule + QUIET.replace("22:00-08:00", "09:00-10:00"))
    house.has("j1", RUNNING)
    house.passes(hours(1))
    house.has("j1", SUCCESS)
    house.passes(minutes(10))
    assert [one.title for one in house.heard()] == [
        '1 held by the mute "quiet", now over: 1 Running',
        "Transcode Success after 1 h Running: j1.mp4",
    ]


# --- silences ---------------------------------------------------------------------------------------------


@on_both
def test_a_silence_holds_until_it_ends_and_then_says_so_in_one_digest(house: House) -> None:
    house.silence(lasts=hours(1), match={"tag": "Transcode"})
    end(house, "j1", "j2")
    end(house, "j3", tag="Snapshot")
    assert [one.title for one in house.heard()] == ["Snapshot Failed: j3.mp4"]
    house.start()
    house.passes(hours(2))
    assert house.said()[1:] == ["10:01 ops: The silence by ann (maintenance) is over, 2 held: 2 Failed"]
    end(house, "j4")
    assert house.heard()[-1].note is None  # it has been said


@on_both
def test_a_silence_that_is_ended_early_tells_what_it_held_at_once(house: House, db: Database) -> None:
    house.silence(lasts=hours(24))
    end(house, "j1")
    house.passes(minutes(10))
    with db.write() as tx:
        assert silences.end(tx, "sil_1", by="bob", now=house.clock())
        assert not silences.end(tx, "sil_1", by="bob", now=house.clock())
    house.passes(minutes(5))
    assert [one.title for one in house.heard()] == ["The silence by ann (maintenance) is over, 1 held: 1 Failed"]


@on_both
def test_the_first_message_after_a_silence_that_held_nothing_says_that_it_is_over(house: House) -> None:
    house.silence(lasts=hours(1), match={"tag": "Transcode"})
    house.passes(hours(2))
    end(house, "j1", tag="Snapshot")
    end(house, "j2", "j3")
    assert [one.note for one in house.heard()] == [None, "The silence by ann (maintenance) is over.", None]


def test_a_silence_that_drops_says_afterwards_that_it_is_over(house: House) -> None:
    house.silence(lasts=hours(1), drop=True)
    end(house, "j1")
    house.passes(hours(2))
    end(house, "j2")
    (heard,) = house.heard()
    assert (heard.title, heard.note) == ("Transcode Failed: j2.mp4", "The silence by ann (maintenance) is over.")
    assert states(house) == {"j1": "dropped", "j2": "sent"}


def test_a_silence_may_be_about_some_rules_or_notifiers_only(house: House) -> None:
    house.start(OVER.replace('"ops"', '["ops", "cms"]'))
    house.silence(lasts=hours(1), notifier=["cms"], rule="over")
    end(house, "j1")
    assert [one.notifier for one in house.heard()] == ["ops"]


def test_a_silence_comes_before_a_mute_and_a_digest_waits_for_both(house: House, db: Database) -> None:
    house.start(OVER + 'group.wait = "10m"\n' + QUIET.replace("22:00-08:00", "09:05-09:30"))
    end(house, "j1")
    house.passes(minutes(5))
    house.silence(lasts=hours(1))
    house.passes(hours(3))
    assert [(str(one)) for one in house.heard()] == [
        "10:06 ops: The silence by ann (maintenance) is over, 1 held: 1 Failed"
    ]
    assert [row["gate"] for row in rows(db, digest)] == ["group", "silence"]
    assert house.heard()[0].at > NOW + hours(1)


@on_both
def test_a_digest_waits_for_a_worker_whose_rules_are_in_force(house: House, db: Database) -> None:
    house.start(OVER + 'group.wait = "10m"\n')
    end(house, "j1")
    mine = house.book
    parts.sync(db, read(GIVEN + OVER, {}))
    house.clock.advance(hours(1))
    house.deliver()
    assert house.heard() == []
    parts.sync(db, mine)
    house.passes(minutes(1))
    assert len(house.heard()) == 1
