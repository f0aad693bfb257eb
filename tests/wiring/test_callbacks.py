"""Callbacks with real processes: one takes them, another asks CI and delivers, long before a poll is due."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.settings import read
from bridge.simulator.callbacks import CallbackSender, Format
from bridge.wiring.rules import Rules
from bridge.wiring.web import served, web_app
from tests.support.stage import BUCKET, RULES, Stage
from tests.support.waiting import wait_until

TOKEN = "a-token-for-callbacks-0123456789"


@pytest.fixture
def stage(tmp_path: Path, db_url: str) -> Iterator[Stage]:
    """Polls that nobody waits for: the first one, and the next in an hour."""
    with Stage(tmp_path, db_url, rules=RULES.replace('every = "1s"', 'every = "1h"')) as stage:
        stage.environ["BRIDGE_CALLBACK_TOKEN"] = TOKEN
        yield stage


@pytest.fixture
def hooks(stage: Stage) -> Iterator[str]:
    """A web process of its own (here this one); yields where it takes callbacks."""
    settings = read(stage.environ)
    app = web_app(settings, Rules(settings, stage.environ), stage.db, alone=True)
    with served(app, host="127.0.0.1", port=0) as port:
        yield f"http://127.0.0.1:{port}/hooks/ci/{TOKEN}"


def states_told(stage: Stage, job: str) -> list[str]:
    return [hook.json["data"]["to"] for hook in stage.accepted["/cms"] if hook.json["subject"] == job]


@pytest.mark.parametrize("kind", ["xml", "json"])
def test_a_callback_that_one_process_gets_lets_another_ask_and_deliver_at_once(
    stage: Stage, hooks: str, kind: Format
) -> None:
    known = stage.ci.create(BUCKET, "Transcode", "p1")
    stage.start_worker()
    stage.await_first_poll()
    lists = sum(request.path == "/jobs" for request in stage.ci.requests)

    with CallbackSender(hooks) as sender:
        stage.ci.callbacks, stage.ci.callback_format = sender.put, kind
        short = stage.ci.create(BUCKET, "Snapshot", "p1")
        stage.ci.move(known, "Success")
        stage.ci.move(short, "Failed", code="E")

        wait_until(lambda: states_told(stage, short) and states_told(stage, known), why=lambda: stage.log)

    assert sender.sent == [200, 200]
    assert states_told(stage, known) == ["Success"]
    assert states_told(stage, short) == ["Failed"]
    assert sum(request.path == "/jobs" for request in stage.ci.requests) == lists
    assert TOKEN not in stage.log


def test_a_callback_that_lies_tells_nobody_anything(stage: Stage, hooks: str) -> None:
    job = stage.ci.create(BUCKET, "Transcode", "p1")
    stage.start_worker()
    stage.await_first_poll()
    lie, before = stage.ci.callback_of(job, "Success"), len(stage.ci.requests)

    with urllib.request.urlopen(hooks, data=lie, timeout=10) as answer:  # noqa: S310  (our own address)
        assert answer.status == 200
    wait_until(lambda: len(stage.ci.requests) > before, why=lambda: stage.log)
    stage.ci.move(job, "Running")
    stage.ci.move(job, "Failed", code="E")
    with CallbackSender(hooks) as sender:
        sender.put(stage.ci.callback_of(job))
        wait_until(lambda: states_told(stage, job), why=lambda: stage.log)

    assert states_told(stage, job) == ["Failed"]
