"""Workers are killed while callbacks come, true ones and lies: nothing is lost, invented, or out of order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from bridge.pipeline.dispatch import WINDOW
from bridge.record.counters import totals
from bridge.settings import read
from bridge.simulator.callbacks import CallbackSender
from bridge.wiring.rules import Rules
from bridge.wiring.web import served, web_app
from tests.crash.laboratory import WIDE_RULES, Laboratory
from tests.crash.points import AT_RANDOM
from tests.support.stage import BUCKET, Stage

TOKEN = "a-token-for-callbacks-0123456789"
# Polls are rare enough that most final states are seen because of a callback.
SELDOM_POLLED = WIDE_RULES.replace('every = "1s"', 'every = "4s"')
POINTS = (
    "poll answered", "page uncommitted", "page committed", "claimed", "finish uncommitted", AT_RANDOM, "page committed",
    AT_RANDOM,
)  # fmt: skip


class Liar:
    """Says of any job that it has ended, again and again, and names jobs that nobody has."""

    def __init__(self, stage: Stage, sender: CallbackSender) -> None:
        self._ci, self._sender, self._random = stage.ci, sender, Random(3)

    def lie(self) -> None:
        jobs = self._ci.ids()
        for job in self._random.sample(jobs, min(5, len(jobs))):
            self._sender.put(self._ci.callback_of(job, self._random.choice(["Success", "Failed", "Running"])))
        stranger = f"j{self._random.getrandbits(128):032x}"
        body = f"<Response><JobsDetail><JobId>{stranger}</JobId><BucketId>{BUCKET}</BucketId></JobsDetail></Response>"
        for lie in (body.encode(), body.encode(), b"<Response>", b"{}"):
            self._sender.put(lie)


@contextmanager
def called_back(stage: Stage) -> Iterator[CallbackSender]:
    """Take callbacks in a web process that nobody kills (this one); CI sends them there."""
    stage.environ["BRIDGE_CALLBACK_TOKEN"] = TOKEN
    settings = read(stage.environ)
    app = web_app(settings, Rules(settings, stage.environ), stage.db, alone=True)
    with (
        served(app, host="127.0.0.1", port=0) as port,
        CallbackSender(f"http://127.0.0.1:{port}/hooks/ci/{TOKEN}") as sender,
    ):
        yield sender


@pytest.mark.parametrize("lies", [False, True], ids=["true", "lying"])
def test_with_callbacks_a_killed_worker_loses_nothing_and_invents_nothing(
    tmp_path: Path, db_url: str, lies: bool
) -> None:
    with Stage(tmp_path, db_url, rules=SELDOM_POLLED) as stage, called_back(stage) as sender:
        laboratory, liar = Laboratory(stage, seed=5), Liar(stage, sender)
        first = stage.start_worker()
        stage.await_first_poll()
        assert stage.stop(first) == 0
        stage.ci.callbacks = sender.put
        for point in POINTS:
            if lies:
                liar.lie()
            laboratory.kill(point, beside=point == AT_RANDOM)
        found = laboratory.settle()
        with stage.db.read() as tx:
            counts = {(one.metric, one.labels[0]): one.count for one in totals(tx, ["callback", "hint"])}

    assert found.faults == {}
    assert 0 <= found.most_repeated <= WINDOW
    assert found.transitions >= 50
    assert counts["callback", "taken"] >= 10
    assert counts["hint", "news"] >= 5
    assert bool(counts.get(("callback", "unreadable"))) is lies
    assert bool(counts.get(("hint", "denied"))) is lies
