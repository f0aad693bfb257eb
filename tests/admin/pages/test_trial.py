"""How much is compared while somebody waits for a page."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import count

import pytest

from bridge.admin.pages import try_rules
from bridge.admin.pages.try_rules import Bounds, Pasted, Result
from bridge.admin.parts import Parts
from bridge.pipeline.route import route_all
from tests.support.admin_world import ENVIRON, NOON, RULES, World, job_number
from tests.support.nouns import a_transition

OTHER = RULES.replace('"all"', '"every"')


def clock(*, step: float) -> Callable[[], float]:
    """Return a clock that goes on by so many seconds each time it is looked at."""
    ticks = count()
    return lambda: next(ticks) * step


def tried(world: World, bounds: Bounds, *, step: float = 0.0, rules: str = OTHER) -> Result:
    parts = Parts(
        db=world.db, book=lambda: world.book, rules_fault=lambda: None, clock=lambda: world.now, nonce=lambda: "n",
        version="9.9.9", environ=ENVIRON,
    )  # fmt: skip
    return try_rules.run(parts, Pasted(rules), span="24h", clock=clock(step=step), bounds=bounds)


def compared(result: Result) -> int:
    assert result.report is not None
    return int(result.report["transitions"])


def see(world: World, count: int) -> None:
    """Record as many transitions, a second apart."""
    for number in range(count):
        world.now = NOON + timedelta(seconds=number)
        world.sees(job_number(number))


def test_only_the_newest_transitions_are_compared(either_world: World) -> None:
    see(either_world, 10)
    result = tried(either_world, Bounds(most=(4,)))
    assert compared(result) == 4
    assert result.notes[0].startswith("There were more: only the newest 4 transitions are compared.")
    assert result.report is not None
    assert [one["job"] for one in result.report["differences"]["first"]][::2] == ["j6", "j7", "j8", "j9"]


@pytest.mark.parametrize("most", [10, 11, 1_000])
def test_as_many_as_may_be_compared_are(world: World, most: int) -> None:
    see(world, 10)
    result = tried(world, Bounds(most=(most,)))
    assert (compared(result), result.notes) == (10, [])


def test_older_ones_than_were_asked_for_are_not(world: World) -> None:
    see(world, 3)
    world.now = NOON + timedelta(hours=24, seconds=1)
    result = tried(world, Bounds())
    assert (compared(result), result.notes) == (2, [])


def test_where_it_goes_slowly_the_newest_few_are_compared(world: World) -> None:
    steps = [a_transition(job_number(number), seen_at=NOON) for number in range(501)]  # more than are read at once
    with world.db.write() as tx:
        route_all(tx, world.book, steps, NOON)
    world.now = NOON + timedelta(seconds=1)
    world.sees(job_number(501))
    result = tried(world, Bounds(most=(1_000, 1), seconds=5), step=100.0)
    assert compared(result) == 1
    assert "only the newest 1 transitions" in result.notes[0]
    assert tried(world, Bounds(most=(1_000,), seconds=5), step=100.0).report is None


def test_rules_with_a_throttle_say_what_is_not_replayed(world: World) -> None:
    see(world, 1)
    throttled = OTHER.replace('name = "every"', 'name = "every"\nthrottle = "1/1h"')
    (note,) = tried(world, Bounds(), rules=throttled).notes
    assert note == "Throttles are not replayed: what one of these rules would hold counts as sent."


def test_what_is_refused_is_compared_with_nothing(world: World) -> None:
    result = tried(world, Bounds(), rules="[[rule]]")
    assert (result.sha, result.report) == (None, None)
    assert {one.line for one in result.faults} == {"[[rule]]"}


@pytest.mark.parametrize("text", ["\0", "x = '\u2028", "a = 1\n" * 2, "[" * 1_000])
def test_what_no_toml_can_be_is_a_fault_with_a_line(world: World, text: str) -> None:
    assert tried(world, Bounds(), rules=text).faults
