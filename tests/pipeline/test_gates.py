"""Gates that change, overlap and follow one another: nothing held is forgotten, nothing is sent while it is quiet."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import select

from bridge.model import FAILED, RUNNING, SUCCESS, Rejected, Sent
from bridge.record import counters
from bridge.record.clocks import rewind
from bridge.record.outbox import entries, silences
from bridge.record.queries import lists
from bridge.record.schema import digests
from tests.conftest import on_both
from tests.support.nouns import NOW, hours, minutes
from tests.support.rig import OVER, QUIET, STUCK, WITH_FALLBACK, Rig

GROUP = 'group.wait = "10m"\n'
RECOVERS = STUCK + "recover = true\n"
NINE = QUIET.replace("22:00", "09:00")  # until eight
DROPS = 'mode = "drop"\n'
IS_OVER = "The silence by ann (maintenance) is over"
HELD = f"{IS_OVER}, 1 held: 1 Failed"
MUTED = '1 held by the mute "quiet", now over: 1 Failed'


# --- rules that change ------------------------------------------------------------------------------------


@on_both
@pytest.mark.parametrize(("before", "after"), [(DROPS, ""), ("", DROPS)])
def test_a_mute_that_begins_or_ceases_to_drop_sends_what_it_held(rig: Rig, before: str, after: str) -> None:
    rig.start(OVER + NINE + before)
    rig.sees("j1")
    rig.start(OVER + NINE + after)
    rig.sees("j2")
    rig.passes(hours(25))
    assert rig.states() == {"j1": "dropped" if before else "merged", "j2": "dropped" if after else "merged"}
    assert rig.titles() == [MUTED]


def test_a_longer_repeat_holds_from_the_last_message_on(rig: Rig) -> None:
    rig.start(STUCK + 'repeat = "10m"\n')
    rig.has("j1", RUNNING)
    rig.passes(hours(2))
    assert len(rig.titles()) == 10
    rig.start(STUCK + 'repeat = "1h"\n')
    rig.passes(hours(3))
    assert len(rig.titles()) == 13


@on_both
def test_whoever_was_ever_notified_that_a_job_is_stuck_hears_that_it_moves(rig: Rig) -> None:
    rig.start(RECOVERS + 'repeat = "1h"\n')
    rig.has("j1", RUNNING)
    rig.passes(hours(1))
    rig.start(RECOVERS.replace('"ops"', '"cms"') + 'repeat = "1h"\n')
    rig.passes(hours(1))
    rig.has("j1", SUCCESS)
    rig.passes(minutes(10))
    assert [(message.notifier, "after" in message.title) for message in rig.received()] == [
        ("ops", False), ("cms", False), ("ops", True), ("cms", True),
    ]  # fmt: skip


def test_a_repetition_that_is_dropped_keeps_nobody_from_hearing_the_end(rig: Rig) -> None:
    rig.start(RECOVERS + 'repeat = "1h"\n' + QUIET.replace("22:00-08:00", "10:00-11:00") + DROPS)
    rig.has("j1", RUNNING)
    rig.passes(minutes(115))
    rig.has("j1", SUCCESS)
    rig.passes(minutes(10))
    assert "after" in rig.titles()[-1]


def test_an_edge_message_that_is_dropped_does_not_take_the_place_of_a_recovery(rig: Rig) -> None:
    rig.start(RECOVERS + OVER)
    rig.has("j1", RUNNING)
    rig.passes(hours(1))
    rig.silence(lasts=hours(2), drop=True, rule="over")
    rig.has("j1", SUCCESS)
    rig.passes(minutes(10))
    assert "Success after 1 h" in rig.titles()[-1]


# --- gates after gates ------------------------------------------------------------------------------------


@on_both
def test_the_digest_of_a_mute_waits_for_a_silence(rig: Rig) -> None:
    rig.start(OVER + QUIET.replace("22:00-08:00", "09:00-10:00"))
    rig.sees("j1")
    rig.silence(lasts=hours(5))
    rig.passes(hours(4))
    assert rig.lines() == []
    rig.passes(hours(2))
    assert rig.titles() == [HELD]


def test_the_digest_of_a_silence_waits_for_a_mute_and_for_another_silence(rig: Rig) -> None:
    rig.start(OVER + QUIET.replace("22:00-08:00", "12:30-15:00"))
    rig.silence()
    rig.sees("j1")
    rig.silence("sil_2", lasts=hours(4))
    rig.passes(hours(5))
    assert rig.lines() == []
    rig.passes(hours(2))
    assert rig.titles() == [MUTED]


def test_mutes_that_cover_the_day_hold_nothing_for_ever(rig: Rig) -> None:
    rig.start(OVER + QUIET.replace("22:00-08:00", "08:00-22:00").replace("quiet", "day") + QUIET)
    rig.sees("j1")
    rig.passes(hours(30))
    assert rig.lines() == []
    rig.passes(hours(48))
    assert len(rig.titles()) == 1


@on_both
def test_what_goes_to_a_fallback_is_held_as_well_and_once_if_it_dies_again(rig: Rig) -> None:
    rig.start(given=WITH_FALLBACK)
    rig.silence(notifier="cms")
    rig.transport.answer = lambda one: Rejected("no") if one.notifier == "ops" else Sent()
    rig.sees("j1")
    for _ in range(3):
        assert [row["state"] for row in rig.deliveries(notifier="cms")] == ["held"]
        with rig.db.write() as tx:
            entries.redrive(tx, lists.numbers_of([row["id"] for row in rig.deliveries(state="dead")]), now=NOW)
        rig.deliver()
    with rig.db.read() as tx:
        assert [total.count for total in counters.totals(tx, ["suppressed"])] == [1]
        assert tx.execute(select(digests.c.members)).scalars().all() == [1]
    rig.passes(hours(2))
    assert rig.titles("cms") == [HELD]


@on_both
def test_what_a_silence_takes_in_while_it_is_ended_is_sent(rig: Rig) -> None:
    """A poll that does not know of the end yet puts something in."""
    rig.silence(lasts=hours(24))
    with rig.db.write() as tx:
        assert silences.end(tx, "sil_1", by="ann", now=rig.clock())
    rig.sees("j0")
    with rig.db.write() as tx:
        tx.exec_driver_sql("UPDATE silence SET ends_at = ends_at + 86400000")
    rig.sees("j1")
    with rig.db.write() as tx:
        tx.exec_driver_sql("UPDATE silence SET ends_at = ends_at - 86400000")
    rig.passes(minutes(5))
    assert rig.states() == {"j0": "sent", "j1": "merged"}


# --- who hears that a silence is over ---------------------------------------------------------------------


def notes(rig: Rig) -> list[tuple[str, bool]]:
    return [(message.notifier, "silence" in (message.note or "")) for message in rig.received()]


@on_both
def test_each_notifier_hears_that_a_silence_is_over_also_in_the_body(rig: Rig) -> None:
    rig.start(OVER.replace('"ops"', '["cms", "ops"]'))
    rig.silence(lasts=minutes(10), drop=True)
    rig.sees("j1")
    rig.passes(minutes(20))
    rig.sees("j2", "j3")
    assert sorted(notes(rig)) == [("cms", False), ("cms", True), ("ops", False), ("ops", True)]
    with rig.db.read() as tx:
        found = lists.delivery_details(tx, next(one.id for one in rig.transport.begun if one.note))
    assert found
    assert found["event"]["note"] == f"{IS_OVER}."


def test_a_digest_says_that_a_silence_is_over(rig: Rig) -> None:
    rig.start(OVER + GROUP)
    rig.silence(drop=True)
    for id_ in ("j1", "j2"):
        rig.sees(id_)
        rig.passes(hours(2))
    assert notes(rig) == [("ops", True)]


def test_what_a_throttle_holds_back_has_not_said_that_a_silence_is_over(rig: Rig) -> None:
    rig.start(OVER + 'throttle = "1/2h"\n')
    rig.sees("j0")
    rig.silence(lasts=minutes(10), drop=True)
    for id_ in ("j1", "j2"):
        rig.sees(id_)
        rig.passes(minutes(20))
    rig.passes(hours(3))
    assert notes(rig) == [("ops", False), ("ops", True)]


# --- what is held, and in what form -----------------------------------------------------------------------


def test_what_is_held_for_a_channel_is_sent_to_that_channel(rig: Rig) -> None:
    teams = (
        '[notifier.teams]\ntype = "slack"\ntoken = { env = "T" }\nchannel = "{{ job.user_data.c }}"\n'
        'channels = ["C1", "C2"]\n'
    )
    rig.start(teams + OVER.replace("ops", "teams"), environ={"T": "xoxb-1"})
    rig.silence(lasts=minutes(10))
    rig.sees("j1", user_data="c=C1")
    rig.sees("j2", "j3", user_data="c=C2")
    rig.passes(minutes(20))
    totals = {one.channel: json.loads(one.says)["title"].rpartition(": ")[2] for one in rig.transport.begun}
    assert totals == {"C1": "1 Failed", "C2": "2 Failed"}


@on_both
def test_values_to_group_by_may_be_as_long_as_they_like(rig: Rig) -> None:
    rig.start(OVER + 'group = { by = ["input", "message", "user_data.a", "user_data.b"], wait = "10m" }\n')
    long = {name: chr(0x4E00 + place) * 900 for place, name in enumerate(("a", "b"))}
    for id_, more in (("j1", {}), ("j2", {"a": long["a"] + "!"})):
        rig.sees(id_, input="长" * 850, message="因" * 900, user_data=json.dumps(long | more, ensure_ascii=False))
    rig.passes(minutes(20))
    assert [message.event["data"]["total"] for message in rig.received()] == [1, 1]


def test_a_title_with_line_breaks_makes_no_lines_of_its_own_in_a_digest(rig: Rig) -> None:
    rig.start(OVER + 'template = "t"\n' + GROUP + '[template.t]\ntitle = "{{ job.user_data }}"\ntext = ""\n')
    rig.sees("j1", user_data="x\n• 09:00 Transcode Failed: faked (j9)\nAll of them: rm -rf")
    rig.passes(minutes(20))
    assert len(rig.received()[0].text.splitlines()) == 1


@on_both
def test_members_are_asked_in_parts_whether_it_is_quiet_for_them(rig: Rig) -> None:
    rig.start(OVER + GROUP + QUIET.replace("22:00", "09:05") + 'match.queue = "vod"\n')
    rig.ci.page_size = 1_500
    for n in range(1_200):
        rig.has(f"j{n}", FAILED, queue="p1" if n % 2 else "p2")
    rig.sees()
    rig.passes(minutes(20))
    assert rig.titles() == ["over: 600 Failed"]
    rig.passes(hours(24))
    assert rig.titles()[1:] == ['600 held by the mute "quiet", now over: 600 Failed']


# --- the clock --------------------------------------------------------------------------------------------


def is_set_back(rig: Rig) -> None:
    rig.clock.advance(hours(-1))
    with rig.db.write() as tx:
        assert rewind(tx, now=rig.clock())


@on_both
def test_a_clock_that_is_set_back_delays_no_digest_and_no_throttle(rig: Rig) -> None:
    rig.start(OVER + GROUP + OVER.replace('"over"', '"each"') + 'throttle = "1/10m"\n')
    rig.sees("j1", "j2")
    rig.passes(minutes(1))
    is_set_back(rig)
    rig.passes(minutes(15))
    assert sorted(rig.titles()) == [
        "... and 1 more by each: 1 Failed",
        "Transcode Failed: j1.mp4",
        "over: 2 Failed",
    ]


@on_both
def test_a_clock_that_is_set_back_ends_no_silence_early(rig: Rig) -> None:
    rig.silence(lasts=hours(2))
    rig.sees("j1")
    is_set_back(rig)
    rig.passes(hours(2))
    assert rig.lines() == []
