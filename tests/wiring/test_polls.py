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
from bridge.wiring.worker import _Polls
from tests.support.nouns import BUCKET, minutes
from tests.support.rig import Rig
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
