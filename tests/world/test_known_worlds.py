"""Short worlds, each of which a bridge that is wrong in one way does not survive."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from bridge.record.database import Database
from tests.conftest import on_both
from tests.world.events import (
    Create,
    Event,
    Forget,
    Heal,
    Hide,
    Late,
    Move,
    Pass,
    Refused,
    Spoil,
)
from tests.world.oddities import DENIED, FIELDS, STATES, STRUCTURE
from tests.world.scenery import scenery
from tests.world.world import World

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


@on_both
@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize(("first", "then"), [("busy", "well"), ("well", "busy"), ("well", "well")])
def test_a_dispatcher_that_comes_back_late_changes_nothing(world: Worlds, first: str, then: str, long: bool) -> None:
    found = world()
    found.happen(Pass(31), Create())
    found.poll(0, 0)
    found.inbox.temper["/cms"] = first
    found.dispatcher_stalls(0, then, long=long)
    found.happen(Move(0, "Running"))
    found.poll(0, 0)
    assert last(found) == "Running"


def test_a_receiver_that_misses_a_message_hears_the_next_one_after_it(world: Worlds) -> None:
    found = world()
    found.inbox.temper["/cms"] = "picky"
    found.happen(Pass(31), Create())
    for to in ("Running", "Pause", "Success"):
        found.poll(0, 0)
        found.happen(Move(0, to))
    found.poll(0, 0)
    found.deliver(0)
    assert found.received.count() == 3  # its start and its end, in queue p1, and that it is over, for the others


# --- a job that cannot be read ---------------------------------------------------------------------------------------


def states(world: World, which: int) -> list[str]:
    """Return the states that were seen."""
    return [step.to for step in world.oracle.steps.get(world.jobs.ids[which], ()) if not step.inferred]


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
def test_a_job_that_is_left_out_silences_nobody_and_is_sent_once_it_can_be_read(
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


# --- lists of unfinished jobs -----------------------------------------------------------------------------------------

OLD = [Create(state="Success", age_s=7200 + n) for n in range(210)]
UNFINISHED = [Create(state="Running", age_s=10_000 + n) for n in range(24)]
_LATER = [Late((Move(which, to), Move(which + 3, "Success"))) for which, to in enumerate(["Failed", "Pause"] * 6, 210)]


@pytest.mark.parametrize("ignores", [(), ("states",), ("orderByTime",), ("states", "orderByTime")])
@pytest.mark.parametrize("page_size", [2, 100])
def test_a_list_of_unfinished_jobs_that_shifts_while_it_is_read_hides_nothing(
    world: Worlds, page_size: int, ignores: tuple[str, ...]
) -> None:
    found = world(which="one tag", page_size=page_size, past=[*OLD, *UNFINISHED], ignores=ignores)
    for _ in range(2):
        found.happen(Pass(31), Create(), Move(212, "Mending"), Hide(-2))
        found.poll(0, 0, _LATER)
        found.happen(Pass(31))
        found.poll(0, 0)
    queries = [dict(request.query) for request in found.ci.requests if request.path == "/jobs"]
    lists = [query["states"] for query in queries if "states" in query and "nextToken" not in query]
    assert {*lists} == {"Submitted,Running,Pause"}
    assert len(lists) == (1 if "states" in ignores else 4)


# --- other clocks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skew_s", [-28_800, -1200, 1200, 28_800])
def test_a_ci_whose_jobs_have_the_times_of_its_wrong_clock_loses_none(world: Worlds, skew_s: int) -> None:
    found = world(skew_s=skew_s, past=[Create(age_s=7200)])
    for pause in (31, 400, 7200, 31):
        found.happen(Create(), Pass(pause), Create(state="Success", age_s=1))
        found.poll(0, 0)
    assert [found.oracle.steps[job][0].silent for job in found.jobs.ids] == [True] + [False] * 8


# --- callbacks ------------------------------------------------------------------------------------------------------


@on_both
def test_a_callback_names_a_job_that_ended_between_two_polls(world: Worlds) -> None:
    here = world(past=[Create()])
    here.happen(Move(-1, "Success"), Create(state="Success"))
    here.call_back([0, 1], strangers=3)
    here.ask_hinted(1)
    assert [steps[-1].to for steps in here.oracle.steps.values()] == ["Success", "Success"]


def test_a_callback_lies_about_a_job_that_goes_on(world: Worlds) -> None:
    here = world(past=[Create(state="Running")])
    for _ in range(3):
        here.call_back([0], strangers=12)
        here.ask_hinted(0)
        here.happen(Pass(31))
    assert last(here) == "Running"


def test_callbacks_about_a_job_that_ci_denies_do_not_make_it_gone(world: Worlds) -> None:
    here = world(past=[Create(state="Running")])
    here.happen(Hide(-1), Spoil(-1, DENIED))
    for _ in range(5):
        here.call_back([0])
        here.ask_hinted(0)
        here.happen(Pass(700))
    assert last(here) == "Running"


def test_a_callback_comes_while_a_first_snapshot_is_not_complete(world: Worlds) -> None:
    here = world(which="one tag")
    here.happen(Create(tag="Snapshot", state="Success", age_s=60))
    here.put_in_force("all")
    here.call_back([0])
    here.ask_hinted(0)
    assert not here.oracle.steps.get(here.jobs.ids[0])
    here.poll(0, 0)
    assert last(here) == "Success"


# --- rules over several jobs ----------------------------------------------------------------------------------------


def told(world: World, rule: str) -> list[tuple[str, int]]:
    """Return what was told of a rule, and of how many jobs."""
    return [
        (one.type.rpartition(".")[2], one.data["count"])
        for (name, _), mine in world.incidents.told.items()
        for one in mine
        if name == rule
    ]


@on_both
def test_jobs_that_end_together_are_told_once_and_those_that_end_later_are_others(world: Worlds) -> None:
    here = world(page_size=1)
    for _ in range(2):
        here.happen(Pass(31), ENDED, Pass(400), ENDED)
        here.poll(0, 0)
        here.happen(Pass(601), ENDED)
        here.poll(0, 0)
        here.happen(Pass(1300))
        here.poll(0, 0)
    assert told(here, "busy") == [("opened", 2), ("closed", 2)] * 2


def test_what_ended_together_twice_before_anybody_looked_is_told_as_two(world: Worlds) -> None:
    here = world()
    for _ in range(2):
        here.happen(Pass(1200), ENDED, ENDED, Pass(9))
    here.poll(0, 0)
    assert told(here, "busy") == [("opened", 2), ("opened", 2)]


@on_both
def test_that_none_came_is_told_until_one_does(world: Worlds) -> None:
    here = world()
    for pause in (7000, 300, 31):
        here.happen(Pass(pause))
        here.poll(0, 0)
    assert told(here, "silent") == [("opened", 0)]
    here.happen(ENDED)
    here.poll(0, 0)
    assert told(here, "silent") == [("opened", 0), ("closed", 1)]
    here.happen(Pass(7000), ENDED)
    here.poll(0, 0)
    here.happen(Pass(400))
    here.poll(0, 0)
    assert len(told(here, "silent")) == 2


@on_both
def test_jobs_that_wait_together_are_told_once_and_those_that_began_to_are_not(world: Worlds) -> None:
    here = world(past=[Create()])
    here.happen(Create(), Pass(400), Create())
    here.poll(0, 0)
    here.happen(Pass(300))
    here.poll(0, 0)
    assert told(here, "backlog") == [("opened", 2)]
    here.happen(Move(1, "Running"), Pass(31))
    here.poll(0, 0)
    here.happen(Move(0, "Running"), Move(2, "Running"), Pass(700))
    here.poll(0, 0)
    here.happen(Pass(31))
    here.poll(0, 0)
    assert told(here, "backlog") == [("opened", 2), ("closed", 0)]
