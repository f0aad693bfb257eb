"""The lives that the demo plays."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest

from bridge.model import CANCEL, DONE, FAILED, PAUSE, RUNNING, SUBMITTED, SUCCESS
from bridge.simulator.jobs import Director, JobStore, Life, a_life
from tests.support.signed import BUCKET, Clock

LEGAL = {
    SUBMITTED: {RUNNING, PAUSE, CANCEL},
    PAUSE: {SUBMITTED},
    RUNNING: {RUNNING, SUCCESS, FAILED},
}


def lives(count: int, seed: int = 1) -> list[Life]:
    random = Random(seed)
    return [a_life(random, bucket=BUCKET, tags=["Transcode", "Snapshot"], queues=["p1", "p2"]) for _ in range(count)]


def director(ci: JobStore, *, seed: int = 1, limit: int = 200, speed: float = 1.0) -> Director:
    random = Random(seed)
    return Director(ci, random=random, bucket=BUCKET, tags=["Transcode"], queues=["p1"], limit=limit, speed=speed)


def test_every_life_goes_legal_ways_and_ends():
    for life in lives(500):
        states = [SUBMITTED, *(move.state for _, move in life.steps)]
        assert all(to in LEGAL[was] for was, to in pairwise(states))
        assert states[-1] in DONE


def test_lives_are_of_every_kind():
    made = lives(500)
    seen = {move.state for life in made for _, move in life.steps}
    assert seen == {SUBMITTED, RUNNING, SUCCESS, FAILED, PAUSE, CANCEL}
    assert min(sum(delay for delay, _ in life.steps) for life in made) < 0.5
    assert {life.user_data[:1] if life.user_data else None for life in made} == {"{", "a", None}


def test_the_same_seed_lives_the_same_lives():
    assert lives(50, seed=7) == lives(50, seed=7)
    assert lives(50, seed=7) != lives(50, seed=8)


@pytest.mark.parametrize("speed", [1.0, 50.0])
def test_a_director_plays_every_life_to_its_end(speed):
    ci = JobStore(clock=Clock())
    plays = director(ci, speed=speed)
    now: float | None = 0.0
    while now is not None:
        now = plays.step(now)
    assert plays.idle
    assert ci.ids() == plays.born
    assert len(plays.born) == 200
    assert all(ci.history(i)[-1] in DONE for i in plays.born)


def test_a_director_plays_nothing_before_its_time():
    ci = JobStore(clock=Clock())
    plays = director(ci)
    assert plays.step(0.0) > 0.0
    assert [ci.history(i) for i in ci.ids()] == [[SUBMITTED]]


def test_a_director_runs_in_its_own_thread_until_all_is_over():
    ci = JobStore(clock=Clock())
    with director(ci, limit=20, speed=10_000) as plays:
        plays.join(10)
        assert plays.idle


def test_a_director_can_be_stopped_at_once():
    with director(JobStore(clock=Clock()), limit=5) as plays:
        plays.stop()
    assert not plays.idle


def test_a_director_runs_for_some_seconds():
    ci = JobStore(clock=Clock())
    director(ci, speed=100).run(0.05)
    assert ci.ids()
