"""Short worlds, each of which a bridge that is wrong in one way does not survive."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from bridge.record.database import Database
from tests.conftest import on_both
from tests.world.events import (
    Create,
    Cut,
    Dated,
    Denied,
    Event,
    Forget,
    Heal,
    Hide,
    Mixed,
    Move,
    Pass,
    Refused,
    Spoil,
    Stale,
    Truly,
)
from tests.world.oddities import DENIED, FIELDS, STATES, STRUCTURE
from tests.world.scenery import scenery
from tests.world.world import DATES, STUCK, World

Worlds = Callable[..., World]
ENDED = Create(state="Success")


@pytest.fixture(params=["sqlite"])
def dialect(request: pytest.FixtureRequest) -> str:
    """SQLite, where a test does not say `on_both`: each statement is asked of both by some."""
    return str(request.param)


@pytest.fixture
def world(db: Database) -> Iterator[Worlds]:
    """Makes the test's world, which calms down when the test is over."""
    with scenery(db) as scene:
        made: list[World] = []

        def make(page_size: int = 100, which: str = "all", past: Sequence[Event] = (), **facts: Any) -> World:
            made.append(World(scene, page_size=page_size, **facts))
            made[0].put_in_force(which)
            made[0].happen(*past)
            made[0].poll(0, 0)
            return made[0]

        yield make
        try:
            made[0].calm_down()
        finally:
            made[0].close()


def last(world: World) -> str:
    return world.oracle.steps[world.jobs.ids[-1]][-1].to


def test_a_stale_answer_does_not_reopen_what_has_ended(world: Worlds) -> None:
    found = world()
    for event in (Create(state="Running"), Move(0, "Success")):
        found.happen(event)
        found.poll(0, 0)
    found.poll(0, 0, [Stale(2), Stale(2)])
    assert last(found) == "Success"


def test_a_job_twice_on_a_page_counts_by_the_further_state(world: Worlds) -> None:
    found = world()
    found.happen(Create())
    found.poll(0, 0)
    found.happen(Move(0, "Running"))
    found.poll(0, 0, [Mixed(1)])
    assert last(found) == "Running"


@on_both
def test_a_page_that_breaks_off_is_asked_for_again_at_once_in_smaller_ones(world: Worlds) -> None:
    found = world(page_size=1)
    found.happen(Pass(31), *[ENDED] * 3, Pass(400))
    found.poll(0, 0, [Truly(), Cut(after_a_job=True)])
    assert len(found.oracle.steps) == 3


@on_both
def test_a_list_that_fails_halfway_is_read_again_in_the_next_poll(world: Worlds) -> None:
    found = world(page_size=1)
    found.happen(Pass(31), *[ENDED] * 3, Pass(400))
    found.poll(0, 0, [Truly(), Truly(), Refused("404")])  # a page of each tag, then the second of the long list
    assert len(found.oracle.steps) == 1
    found.happen(Pass(400))
    found.poll(0, 0)
    assert len(found.oracle.steps) == 3


def test_a_job_that_is_listed_late_is_found_by_the_overlap(world: Worlds) -> None:
    found = world()
    found.happen(Create(age_s=240, state="Success"))
    found.poll(0, 0)
    assert last(found) == "Success"


@pytest.mark.parametrize("how", ["429, wait", "503, wait", "500", "404", "HTML"])
def test_a_job_is_not_gone_when_the_question_for_it_is_refused(world: Worlds, how: str) -> None:
    found = world()
    found.happen(Create(state="Running"))
    found.poll(0, 0)
    found.happen(Hide(0))
    found.poll(0, 0, [], [Refused(how)] * 3)
    assert last(found) == "Running"
    found.happen(Forget(0))
    for _ in range(3):
        assert last(found) == "Running"
        found.happen(Pass(31))
        found.poll(0, 0)
    assert last(found) == "gone"


def test_a_tag_that_is_added_tells_what_came_after_the_last_complete_poll(world: Worlds) -> None:
    found = world(which="one tag")
    found.happen(Pass(31), Create(tag="Snapshot"), Pass(31))
    found.put_in_force("all")
    found.poll(0, 0)
    assert not found.oracle.steps[found.jobs.ids[0]][0].silent


@on_both
@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize(("first", "then"), [("busy", "well"), ("well", "busy"), ("well", "well")])
def test_a_dispatcher_that_comes_back_late_changes_nothing(world: Worlds, first: str, then: str, long: bool) -> None:
    found = world()
    found.happen(Pass(31), Create())
    found.poll(0, 0)
    found.ears.temper["/cms"] = first
    found.dispatcher_stalls(0, then, long=long)
    found.happen(Move(0, "Running"))
    found.poll(0, 0)
    assert last(found) == "Running"


def test_a_receiver_that_misses_a_message_hears_the_next_one_after_it(world: Worlds) -> None:
    found = world()
    found.ears.temper["/cms"] = "picky"
    found.happen(Pass(31), Create())
    for to in ("Running", "Pause", "Success"):
        found.poll(0, 0)
        found.happen(Move(0, to))
    found.poll(0, 0)
    found.deliver(0)
    assert found.hearing.count() == 1  # the end, in queue p1, for the other receiver


# --- a job that cannot be read ---------------------------------------------------------------------------------------


def states(world: World, which: int) -> list[str]:
    return [step.to for step in world.oracle.steps.get(world.jobs.ids[which], ())]


@pytest.mark.parametrize("how", FIELDS)
def test_a_field_that_cannot_be_understood_silences_nobody(world: Worlds, how: str) -> None:
    found = world()
    found.happen(Pass(31), Create(), Create(), Create(), Spoil(1, how))
    found.poll(0, 0)
    assert [states(found, n) for n in range(3)] == [["Submitted"]] * 3
    found.happen(Move(0, "Failed"), Move(1, "Failed"), Pass(31))
    found.poll(0, 0)
    assert [states(found, n)[1:] for n in range(3)] == [["Failed"], ["Failed"], []]


@pytest.mark.parametrize("pause", [31, 3600])
@pytest.mark.parametrize("how", [*STATES, *STRUCTURE])
def test_a_job_that_is_left_out_silences_nobody_and_is_told_once_it_can_be_read(
    world: Worlds, how: str, pause: int
) -> None:
    found = world()
    found.happen(Pass(31), Create(), Create(state="Running"), ENDED, Spoil(1, how))
    found.poll(0, 0)
    found.happen(Move(0, "Success"), Move(1, "Success"), Pass(pause), ENDED)
    found.poll(0, 0)
    assert [states(found, n) for n in range(4)] == [["Submitted", "Success"], [], ["Success"], ["Success"]]
    found.happen(Heal(1), Pass(pause))
    found.poll(0, 0)
    assert states(found, 1) == ["Success"]
    assert found.oracle.steps[found.jobs.ids[1]][0].silent is False


@pytest.mark.parametrize("how", [*STATES, *STRUCTURE])
def test_a_job_from_before_the_first_look_that_was_left_out_then_is_told_to_nobody(world: Worlds, how: str) -> None:
    found = world(past=[Create(age_s=600), Create(age_s=300), Spoil(0, how)])
    assert [states(found, n) for n in range(2)] == [[], ["Submitted"]]
    found.happen(Heal(0), Pass(400))
    found.poll(0, 0)
    assert found.oracle.steps[found.jobs.ids[0]][0].silent
    found.happen(Move(0, "Success"))
    found.poll(0, 0)


@on_both
@pytest.mark.parametrize("how", ["a state that cannot be read", "crossed tags"])
def test_a_known_job_that_cannot_be_read_goes_on_where_it_was(world: Worlds, how: str) -> None:
    found = world(page_size=1)
    found.happen(Pass(31), Create(), Create(), Create())
    found.poll(0, 0)
    found.happen(Spoil(1, how), Pass(400), Hide(1), *[Move(n, "Running") for n in range(3)])
    found.poll(0, 0)
    assert [states(found, n)[-1] for n in range(3)] == ["Running", "Submitted", "Running"]
    found.happen(Heal(1))
    found.poll(0, 0)
    assert states(found, 1) == ["Submitted", "Running"]


# --- other clocks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dates", [*DATES, STUCK])
def test_whatever_date_ci_has_nothing_after_the_first_look_is_lost(world: Worlds, dates: str) -> None:
    found = world(dates=dates, past=[Create(age_s=7200), Create(age_s=90_000)])
    for pause in (31, 400, 7200, 31):
        found.happen(Create(), Pass(pause), Create(state="Success", age_s=1))
        found.poll(0, 0)
    assert [found.oracle.steps[job][0].silent for job in found.jobs.ids[2:]] == [False] * 8


@pytest.mark.parametrize("skew_s", [-28_800, -1200, 1200, 28_800])
def test_a_ci_whose_jobs_have_the_times_of_its_wrong_clock_loses_none(world: Worlds, skew_s: int) -> None:
    found = world(skew_s=skew_s, past=[Create(age_s=7200)])
    for pause in (31, 400, 7200, 31):
        found.happen(Create(), Pass(pause), Create(state="Success", age_s=1))
        found.poll(0, 0)
    assert [found.oracle.steps[job][0].silent for job in found.jobs.ids] == [True] + [False] * 8


@pytest.mark.parametrize("off_s", [-36_000, -300, 300, 36_000, None])
def test_a_date_that_is_wrong_once_hides_nothing(world: Worlds, off_s: int | None) -> None:
    found = world()
    for way in (Truly(), Dated(off_s), Truly()):
        found.happen(Pass(400), Create(state="Success", age_s=200), Create())
        found.poll(0, 0, [way])
    found.happen(Pass(200))
    found.poll(0, 0)
    assert [states(found, n) for n in range(6)] == [["Success"], ["Submitted"]] * 3


# --- jobs that CI denies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 2])
def test_a_job_that_is_denied_once_or_twice_is_not_gone(world: Worlds, times: int) -> None:
    found = world()
    found.happen(Pass(31), Create(state="Running"))
    found.poll(0, 0)
    found.happen(Hide(0))
    for _ in range(3):
        for _ in range(times):
            found.happen(Pass(61))
            found.poll(0, 0, [], [Denied()])
        found.happen(Pass(61))
        found.poll(0, 0)
    assert states(found, 0) == ["Running"]


@on_both
@pytest.mark.parametrize("then", ["Success", "Pause", "Running"])
def test_a_living_job_that_is_denied_often_is_gone_and_goes_on_from_its_last_state(world: Worlds, then: str) -> None:
    found = world()
    found.happen(Pass(31), Create(state="Running"))
    found.poll(0, 0)
    found.happen(Spoil(0, DENIED))
    for _ in range(5):
        found.happen(Pass(20))
        found.poll(0, 0)
    assert states(found, 0) == ["Running", "gone"]
    found.happen(Heal(0), Hide(0), Move(0, then), Pass(301))
    found.poll(0, 0)
    step = found.oracle.steps[found.jobs.ids[0]][-1]
    assert (step.was, step.to) == ("gone" if then == "Running" else "Running", then)
