from __future__ import annotations

from datetime import timedelta

import pytest

from bridge.decide.changes.clocks import clock_fault, earlier
from bridge.model import ClockReading
from tests.support.nouns import NOON

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SOON = timedelta(seconds=15)


def polled(before: timedelta | None = timedelta(0), ahead: timedelta | None = timedelta(0)) -> ClockReading:
    """A watch whose last poll with answers was so long before noon."""
    return ClockReading(at=None if before is None else NOON - before, ahead=ahead)


def fault(trusted: timedelta | None = SOON, *readings: ClockReading, **facts: timedelta) -> str | None:
    """Ask at noon, the clock having been right so long before."""
    return clock_fault(now=NOON, trusted_at=None if trusted is None else NOON - trusted, readings=readings, **facts)


@pytest.mark.parametrize("trusted", [None, SOON, -SOON, HOUR, -HOUR])
@pytest.mark.parametrize("reading", [(), (polled(),), (polled(None, None),), (polled(ahead=None),)])
def test_a_clock_that_goes_on_as_before_is_trusted(
    trusted: timedelta | None, reading: tuple[ClockReading, ...]
) -> None:
    assert fault(trusted, *reading) is None


LEAPS = [100 * DAY, -100 * DAY, 25 * HOUR, HOUR + SOON, -HOUR - SOON]


@pytest.mark.parametrize("leap", LEAPS)
@pytest.mark.parametrize("said", [None, polled(None, None), polled(ahead=None), polled(None)])
def test_a_clock_that_leapt_is_not_trusted_without_a_poll_that_confirms_it(
    leap: timedelta, said: ClockReading | None
) -> None:
    assert "no answer of CI has confirmed" in (fault(leap, *([said] if said else [])) or "")
    assert fault(leap, polled(leap)) is not None  # the last poll before that


@pytest.mark.parametrize("leap", LEAPS)
def test_a_long_stop_whose_end_ci_confirms_is_no_leap(leap: timedelta) -> None:
    assert fault(leap, polled(ahead=HOUR)) is None
    assert fault(leap, polled(None, None), polled()) is None


@pytest.mark.parametrize(("off", "said"), [(10 * HOUR, "10 h ahead of"), (-10 * HOUR, "10 h behind")])
def test_a_clock_that_disagrees_with_ci_is_not_trusted_however_it_was_before(off: timedelta, said: str) -> None:
    assert said in (fault(SOON, polled(ahead=off)) or "")
    assert said in (fault(SOON, polled(), polled(2 * DAY, off)) or "")
    assert said in (fault(DAY, polled(), polled(ahead=off)) or "")


@pytest.mark.parametrize("off", [2 * HOUR, -25 * HOUR])
def test_a_machine_whose_clock_disagrees_with_the_databases_is_not_trusted(off: timedelta) -> None:
    assert "the database's" in (fault(SOON, polled(), local_ahead=off) or "")


def test_the_earlier_of_both_clocks() -> None:
    assert [earlier(NOON, ahead) - NOON for ahead in (None, HOUR, -HOUR)] == [timedelta(0), timedelta(0), -HOUR]
