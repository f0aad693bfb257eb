"""Gates that change, overlap and follow one another: nothing held is forgotten, nothing is told while it is quiet."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import select

from bridge.model import FAILED, RUNNING, SUCCESS, Delivery, Outcome, Rejected, Sent
from bridge.record import counters
from bridge.record.clocks import rewind
from bridge.record.database import Database
from bridge.record.outbox import entries, silences
from bridge.record.queries import lists
from bridge.record.schema import digest
from tests.conftest import on_both
from tests.pipeline.test_digests import OVER, QUIET, end, states
from tests.support.records import NOW, Clock, hours, minutes
from tests.support.simulated_bridge import GIVEN, House

STUCK = '[[rule]]\nname = "stuck"\nin = "Running"\nfor = "30m"\nrecover = true\nnotify = "ops"\n'
NINE = QUIET.replace("22:00", "09:00")  # until eight


@pytest.fixture
def house(db: Database, clock: Clock) -> House:
    found = House(db, OVER, clock)
    found.poll()
    clock.advance(minutes(1))
    return found


# --- rules that change ------------------------------------------------------------------------------------


@on_both
def test_a_mute_that_dropped_and_now_holds_tells_what_it_held(house: House) -> None:
    house.start(OVER + NINE + 'mode = "drop"\n')
    end(house, "j1")
    house.start(OVER + NINE)
    end(house, "j2")
    house.passes(hours(25))
    assert states(house) == {"j1": "dropped", "j2": "merged"}
    assert [one.title for one in house.heard()] == ['1 held by the mute "quiet", now over: 1 Failed']


def test_a_mute_that_held_and_now_drops_tells_what_it_held(house: House) -> None:
    house.start(OVER + NINE)
    end(house, "j1")
    house.start(OVER + NINE + 'mode = "drop"\n')
    end(house, "j2")
    house.passes(hours(25))
    assert states(house) == {"j1": "merged", "j2": "dropped"}


def test_a_longer_repeat_holds_from_the_last_telling_on(house: House) -> None:
    house.start(STUCK + 'repeat = "10m"\n')
    house.has("j1", RUNNING)
    house.passes(hours(2))
    before = len(house.heard())
    assert before == 10
    house.start(STUCK + 'repeat = "1h"\n')
    house.passes(hours(3))
    assert len(house.heard()) - before == 3


@on_both
def test_whoever_was_ever_told_that_a_job_is_stuck_hears_that_it_moves(house: House) -> None:
    house.start(STUCK + 'repeat = "1h"\n')
    house.has("j1", RUNNING)
    house.passes(hours(1))
    house.start(STUCK.replace('"ops"', '"cms"') + 'repeat = "1h"\n')
    house.passes(hours(1))
    house.has("j1", SUCCESS)
    house.passes(minutes(10))
    assert [(one.notifier, "after" in one.title) for one in house.heard()] == [
        ("ops", False),
        ("cms", False),
        ("ops", True),
        ("cms", True),
    ]


def test_a_repetition_that_is_dropped_keeps_nobody_from_hearing_the_end(house: House) -> None:
    mute = QUIET.replace("22:00-08:00", "10:00-11:00") + 'mode = "drop"\n'
    house.start(f'{STUCK}repeat = "1h"\n{mute}')
    house.has("j1", RUNNING)
    house.passes(minutes(115))
    house.has("j1", SUCCESS)
    house.passes(minutes(10))
    assert "after" in house.heard()[-1].title


def test_an_edge_message_that_is_dropped_does_not_take_the_place_of_a_recovery(house: House) -> None:
    house.start(STUCK + OVER)
    house.has("j1", RUNNING)
    house.passes(hours(1))
    house.silence(lasts=hours(2), drop=True, rule="over")
    house.has("j1", SUCCESS)
    house.passes(minutes(10))
    assert "Success after 1 h" in house.heard()[-1].title


def test_a_first_telling_that_is_late_says_when_the_stay_became_too_long(house: House) -> None:
    house.start(STUCK + 'repeat = "1h"\n')
    house.has("j1", RUNNING)
    house.passes(minutes(10))
    house.clock.advance(hours(5))
    house.passes(minutes(5))
    (heard,) = house.heard()
    assert heard.title.startswith("Transcode Running for 5 h")
    assert heard.event["time"] == "2026-11-21T09:31:00Z"


# --- gates after gates ------------------------------------------------------------------------------------


@on_both
def test_the_digest_of_a_mute_waits_for_a_silence(house: House) -> None:
    house.start(OVER + QUIET.replace("22:00-08:00", "09:00-10:00"))
    end(house, "j1")
    house.silence(lasts=hours(5))
    house.passes(hours(4))
    assert house.said() == []
    house.passes(hours(2))
    assert [one.title for one in house.heard()] == ["The silence by ann (maintenance) is over, 1 held: 1 Failed"]


def test_the_digest_of_a_silence_waits_for_a_mute_and_for_another_silence(house: House) -> None:
    house.start(OVER + QUIET.replace("22:00-08:00", "12:30-15:00"))
    house.silence(lasts=hours(1))
    end(house, "j1")
    house.silence("sil_2", lasts=hours(4))
    house.passes(hours(5))
    assert house.said() == []
    house.passes(hours(2))
    assert [one.title for one in house.heard()] == ['1 held by the mute "quiet", now over: 1 Failed']


def test_mutes_that_cover_the_day_hold_nothing_for_ever(house: House) -> None:
    day, night = QUIET.replace("22:00-08:00", "08:00-22:00").replace("quiet", "day"), QUIET
    house.start(OVER + day + night)
    end(house, "j1")
    house.passes(hours(30))
    assert house.said() == []
    house.passes(hours(48))
    assert len(house.heard()) == 1


@on_both
def test_what_is_told_to_a_fallback_is_held_as_well(house: House) -> None:
    ops = 'url = "https://ops.example.com/hook"\n'
    house.start(OVER, given=GIVEN.replace(ops, f'{ops}fallback = "cms"\n'))
    house.silence(lasts=hours(1), notifier="cms")

    def refuse(one: Delivery) -> Outcome:
        return Rejected("no") if one.notifier == "ops" else Sent()

    house.transport.answer = refuse
    end(house, "j1")
    assert [one["state"] for one in house.deliveries(notifier="cms")] == ["held"]
    house.passes(hours(2))
    assert [one.title for one in house.heard("cms")] == ["The silence by ann (maintenance) is over, 1 held: 1 Failed"]


@on_both
def test_what_dies_again_is_held_for_its_fallback_once(house: House) -> None:
    ops = 'url = "https://ops.example.com/hook"\n'
    house.start(OVER, given=GIVEN.replace(ops, f'{ops}fallback = "cms"\n'))
    house.silence(lasts=hours(1), notifier="cms")
    house.transport.answer = lambda one: Rejected("no") if one.notifier == "ops" else Sent()
    end(house, "j1")
    for _ in range(3):
        with house.db.write() as tx:
            entries.redrive(tx, lists.numbers_of([one["id"] for one in house.deliveries(state="dead")]), now=NOW)
        house.deliver()
    with house.db.read() as tx:
        assert [one.count for one in counters.totals(tx, ["suppressed"])] == [1]
        assert tx.execute(select(digest.c.members)).scalars().all() == [1]
    house.passes(hours(2))
    assert [one.title for one in house.heard("cms")] == ["The silence by ann (maintenance) is over, 1 held: 1 Failed"]


@on_both
def test_what_a_silence_takes_in_while_it_is_ended_is_told(house: House, db: Database) -> None:
    """A poll that does not know of the end yet puts something in."""
    house.silence(lasts=hours(24))
    with db.read() as tx:
        (known,) = silences.recent(tx, now=house.clock())
    with db.write() as tx:
        assert silences.end(tx, known.id, by="ann", now=house.clock())
    end(house, "j0")
    with db.write() as tx:
        tx.exec_driver_sql("UPDATE silence SET ends_at = ends_at + 86400000")
    end(house, "j1")
    with db.write() as tx:
        tx.exec_driver_sql("UPDATE silence SET ends_at = ends_at - 86400000")
    house.passes(minutes(5))
    assert states(house) == {"j0": "sent", "j1": "merged"}


# --- who hears that a silence is over ---------------------------------------------------------------------


def notes(house: House) -> list[tuple[str, bool]]:
    return [(one.notifier, "silence" in (one.note or "")) for one in house.heard()]


@on_both
def test_each_notifier_hears_that_a_silence_is_over(house: House) -> None:
    house.start(OVER.replace('"ops"', '["cms", "ops"]'))
    house.silence(lasts=minutes(10), drop=True)
    end(house, "j1")
    house.passes(minutes(20))
    end(house, "j2", "j3")
    assert sorted(notes(house)) == [("cms", False), ("cms", True), ("ops", False), ("ops", True)]


def test_a_digest_says_that_a_silence_is_over(house: House) -> None:
    house.start(OVER + 'group.wait = "10m"\n')
    house.silence(lasts=hours(1), drop=True)
    end(house, "j1")
    house.passes(hours(2))
    end(house, "j2")
    house.passes(hours(1))
    assert notes(house) == [("ops", True)]


def test_what_a_throttle_holds_back_does_not_count_as_having_said_it(house: House) -> None:
    house.start(OVER + 'throttle = "1/2h"\n')
    end(house, "j0")
    house.silence(lasts=minutes(10), drop=True)
    end(house, "j1")
    house.passes(minutes(20))
    end(house, "j2")
    house.passes(hours(3))
    assert notes(house) == [("ops", False), ("ops", True)]


def test_a_webhook_reads_the_note_in_its_body(house: House, db: Database) -> None:
    house.silence(lasts=minutes(10), drop=True)
    house.passes(minutes(20))
    end(house, "j1")
    with db.read() as tx:
        found = lists.delivery_details(tx, house.transport.begun[0].id)
    assert found
    assert found["event"]["note"] == "The silence by ann (maintenance) is over."


# --- what is held, and in what form -----------------------------------------------------------------------


def test_what_is_held_for_a_channel_is_told_in_that_channel(house: House) -> None:
    teams = (
        '[notifier.teams]\ntype = "slack"\ntoken = { env = "T" }\nchannel = "{{ job.user_data.c }}"\n'
        'channels = ["C1", "C2"]\n'
    )
    house.start(teams + OVER.replace("ops", "teams"), environ={"T": "xoxb-1"})
    house.silence(lasts=minutes(10))
    end(house, "j1", user_data="c=C1")
    end(house, "j2", "j3", user_data="c=C2")
    house.passes(minutes(20))
    told = {one.channel: json.loads(one.says)["title"] for one in house.transport.begun}
    assert {channel: title.rpartition(": ")[2] for channel, title in told.items()} == {
        "C1": "1 Failed",
        "C2": "2 Failed",
    }


@on_both
def test_values_to_group_by_may_be_as_long_as_they_like(house: House) -> None:
    house.start(OVER + 'group = { by = ["input", "message", "user_data.a", "user_data.b"], wait = "10m" }\n')
    long = {name: chr(0x4E00 + place) * 900 for place, name in enumerate(("a", "b"))}
    end(house, "j1", input="长" * 850, message="因" * 900, user_data=json.dumps(long, ensure_ascii=False))
    end(house, "j2", input="长" * 850, message="因" * 900, user_data=json.dumps(long | {"a": long["a"] + "!"}))
    house.passes(minutes(20))
    assert [one.event["data"]["total"] for one in house.heard()] == [1, 1]


def test_a_title_with_line_breaks_makes_no_lines_of_its_own_in_a_digest(house: House) -> None:
    house.start(OVER + 'template = "t"\ngroup.wait = "10m"\n[template.t]\ntitle = "{{ job.user_data }}"\ntext = ""\n')
    end(house, "j1", user_data="x\n• 09:00 Transcode Failed: faked (j9)\nAll of them: rm -rf")
    house.passes(minutes(20))
    assert len(house.heard()[0].text.splitlines()) == 2


@on_both
def test_members_are_asked_in_parts_whether_it_is_quiet_for_them(house: House) -> None:
    house.start(OVER + 'group.wait = "10m"\n' + QUIET.replace("22:00", "09:05") + 'match.queue = "vod"\n')
    house.ci.page_size = 1_500
    for n in range(1_200):
        house.has(f"j{n}", FAILED, queue="p1" if n % 2 else "p2")
    end(house)
    house.passes(minutes(20))
    assert [one.title for one in house.heard()] == ["over: 600 Failed"]
    house.passes(hours(24))
    assert [one.title for one in house.heard()][1:] == ['600 held by the mute "quiet", now over: 600 Failed']


# --- the clock --------------------------------------------------------------------------------------------


@on_both
def test_a_clock_that_is_set_back_delays_no_digest_and_no_throttle(house: House, db: Database) -> None:
    house.start(OVER + 'group.wait = "10m"\n' + OVER.replace('"over"', '"each"') + 'throttle = "1/10m"\n')
    end(house, "j1", "j2")
    house.passes(minutes(1))
    house.clock.advance(hours(-1))
    with db.write() as tx:
        assert rewind(tx, now=house.clock())
    house.passes(minutes(15))
    assert sorted(one.title for one in house.heard()) == [
        "... and 1 more by each: 1 Failed",
        "Transcode Failed: j1.mp4",
        "over: 2 Failed",
    ]


@on_both
def test_a_clock_that_is_set_back_ends_no_silence_early(house: House, db: Database) -> None:
    house.silence(lasts=hours(2))
    end(house, "j1")
    house.clock.advance(hours(-1))
    with db.write() as tx:
        rewind(tx, now=house.clock())
    house.passes(hours(2))
    assert house.said() == []
