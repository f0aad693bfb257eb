"""The made-up jobs that the demo plays."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from bridge.model import CANCEL, DONE, FAILED, PAUSE, RUNNING, SUBMITTED, SUCCESS
from bridge.simulator.jobs import Director, JobStore, Life, a_life
from tests.support.signed import BUCKET, Clock
from tests.support.waiting import wait_until

LEGAL = {
    SUBMITTED: {RUNNING, PAUSE, CANCEL},
    PAUSE: {SUBMITTED},
    RUNNING: {RUNNING, SUCCESS, FAILED},
}


def lives(count: int, seed: int = 1) -> list[Life]:
    random = Random(seed)
    return [a_life(random, tags=["Transcode", "Snapshot"], queues=["p1", "p2"]) for _ in range(count)]


def director(ci: JobStore, *, limit: int, speed: float = 1.0) -> Director:
    return Director(ci, random=Random(1), bucket=BUCKET, tags=["Transcode"], queues=["p1"], limit=limit, speed=speed)


def test_every_life_goes_through_legal_states_and_ends():
    for life in lives(500):
        states = [SUBMITTED, *(state for _, state, _ in life.steps)]
        assert all(to in LEGAL[was] for was, to in pairwise(states))
        assert states[-1] in DONE


def test_lives_are_of_every_kind():
    made = lives(500)
    assert {state for life in made for _, state, _ in life.steps} == {
        SUBMITTED,
        RUNNING,
        SUCCESS,
        FAILED,
        PAUSE,
        CANCEL,
    }
    assert min(sum(delay for delay, _, _ in life.steps) for life in made) < 0.5
    assert {text[:1] if (text := life.details["user_data"]) else None for life in made} == {"{", "a", None}


def test_the_same_seed_makes_the_same_lives():
    assert lives(50, seed=7) == lives(50, seed=7)
    assert lives(50, seed=7) != lives(50, seed=8)


def test_a_director_plays_every_life_to_its_end():
    ci = JobStore(clock=Clock())
    with director(ci, limit=200, speed=1_000_000) as plays:
        wait_until(lambda: plays.idle)
    assert ci.ids() == plays.born
    assert len(plays.born) == 200
    assert all(ci.history(job)[-1] in DONE for job in plays.born)


def test_a_timeline_says_when_each_state_began():
    clock = Clock()
    ci, began = JobStore(clock=clock), clock.at
    job = ci.create(BUCKET, "Transcode", "p1")
    for later_s, state in ((1.5, RUNNING), (2.0, RUNNING), (4.0, SUCCESS)):
        clock.at = began + later_s
        ci.move(job, state)
    assert ci.timeline(job) == [(SUBMITTED, began), (RUNNING, began + 1.5), (SUCCESS, began + 4.0)]
    assert ci.history(job) == [SUBMITTED, RUNNING, SUCCESS]


def test_a_director_plays_nothing_early_and_can_be_stopped_at_once():
    ci = JobStore(clock=Clock())
    with director(ci, limit=5, speed=0.001) as plays:
        wait_until(ci.ids)
    assert [ci.history(job) for job in ci.ids()] == [[SUBMITTED]]
    assert not plays.idle
