from datetime import timedelta

from bridge.collect.pace import Pace
from bridge.model import Rate
from tests.collect.conftest import Clock


def test_a_bucket_is_asked_no_more_often_than_the_rate(clock: Clock) -> None:
    pace = Pace(Rate(count=2, per=timedelta(seconds=10)), monotonic=clock, sleep=clock.sleep)
    for _ in range(5):
        pace.wait("clips")
    # Two at once; the third and the fifth each wait until 10 s have gone since the one two before.
    assert clock.slept == [10, 10]


def test_one_bucket_does_not_wait_for_another(clock: Clock) -> None:
    pace = Pace(Rate(count=1, per=timedelta(seconds=10)), monotonic=clock, sleep=clock.sleep)
    pace.wait("clips")
    pace.wait("stills")
    assert clock.slept == []


def test_threads_get_turns_one_after_the_other() -> None:
    """The clock stands still, as for threads that ask at the same moment."""
    slept: list[float] = []
    pace = Pace(Rate(count=1, per=timedelta(seconds=10)), monotonic=lambda: 0.0, sleep=slept.append)
    for _ in range(3):
        pace.wait("clips")
    assert slept == [10, 20]
