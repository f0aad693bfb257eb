"""The threads of a worker that ask CI: who gets a bucket next."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from bridge.collect.callbacks import NamedJob
from bridge.pipeline import callbacks
from bridge.pipeline.hints import Hints
from bridge.pipeline.looks import Looks
from bridge.record.database import Database
from bridge.record.polling import leases
from bridge.wiring.worker import _POLLS_AT_ONCE, _Polls
from tests.support.nouns import BUCKET, minutes, seconds
from tests.support.rig import GIVEN, Rig
from tests.support.waiting import wait_until


@pytest.fixture
def rig(db: Database) -> Rig:
    rig = Rig(db)
    rig.first_poll()
    rig.sees("j1", state="Running")
    return rig


@pytest.fixture
def polls(rig: Rig) -> Iterator[_Polls]:
    poller, stop = rig.poller, threading.Event()
    polls = _Polls(poller, Hints(poller=poller), Looks(poller=poller), lambda: rig.book, stop)
    yield polls
    stop.set()
    polls.close()


def is_named(rig: Rig, *ids: str) -> None:
    with rig.db.write() as tx:
        callbacks.take(tx, [NamedJob(one, BUCKET) for one in ids], rig.book.watches, about=None, now=rig.clock())


def test_a_poll_that_comes_due_while_callbacks_are_followed_begins_at_once(rig: Rig, polls: _Polls) -> None:
    is_named(rig, "j1")
    listed = len(rig.ci.listed)

    def passes() -> None:
        rig.ci.before_call = lambda: None
        rig.clock.advance(minutes(6))

    rig.ci.before_call = passes

    polls.start_hinted()

    wait_until(lambda: len(rig.ci.listed) >= listed + 2)
    assert len(rig.ci.described) == 1


def test_a_worker_follows_callbacks_soon_after_another_has_had_the_bucket(rig: Rig, polls: _Polls) -> None:
    rig.clock.advance(minutes(5))
    with rig.db.write() as tx:
        assert leases.acquire(tx, BUCKET, "another", now=rig.clock())
    polls.start_due(early=minutes(0))
    wait_until(lambda: not polls._busy)

    assert polls._resting[BUCKET] < time.monotonic() + 60  # and not for the watch's five minutes


MANY = "".join(
    f"""
[[watch]]
name = "other-{n}"
bucket = "other{n}-1250000000"
region = "ap-chongqing"
tags = ["Concat"]
"""
    for n in range(_POLLS_AT_ONCE)
)


def test_callbacks_are_followed_while_other_buckets_polls_take_long(rig: Rig, polls: _Polls) -> None:
    rig.start(given=GIVEN + MANY)
    for watch in reversed(range(len(rig.book.watches))):
        rig.clock.advance(seconds(1))
        rig.poll(watch)
    rig.clock.advance(minutes(6))
    over, waiting = threading.Event(), threading.Barrier(_POLLS_AT_ONCE + 1)

    def takes_long() -> None:
        if threading.current_thread().name.startswith("poll") and not over.is_set():
            waiting.wait(60)
            over.wait(60)

    rig.ci.before_call = takes_long
    polls.start_due(early=seconds(0))
    waiting.wait(60)  # all threads are at other buckets
    rig.has("j1", "Success")
    is_named(rig, "j1")

    polls.start_hinted()

    wait_until(lambda: ("j1", "Running", "Success") in rig.steps())
    listed = len(rig.ci.listed)
    over.set()
    wait_until(lambda: "Transcode" in [tag for tag, _, _ in rig.ci.listed[listed:]])
