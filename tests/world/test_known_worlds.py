"""Short worlds, each of which a bridge that is wrong in one way does not survive."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from bridge.record.database import Database
from tests.conftest import on_both
from tests.world.events import Create, Cut, Forget, Hide, Mixed, Move, Pass, Refused, Stale, Truly
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

        def make(page_size: int = 100, which: str = "all") -> World:
            made.append(World(scene, page_size=page_size))
            made[0].put_in_force(which)
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
def test_a_courier_that_comes_back_late_changes_nothing(world: Worlds, first: str, then: str, long: bool) -> None:
    found = world()
    found.happen(Pass(31), Create())
    found.poll(0, 0)
    found.ears.temper["/cms"] = first
    found.courier_stalls(0, then, long=long)
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
