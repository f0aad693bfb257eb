"""The whole flow over real sockets: CI's job list -> worker processes -> webhooks and Slack, on both databases."""

from __future__ import annotations

import signal
from collections import defaultdict
from pathlib import Path
from random import Random

import pytest

from bridge.simulator.jobs import Director
from bridge.simulator.receiver import Received
from bridge.simulator.web import Answer, text_answer
from tests.support.stage import BUCKET, Stage
from tests.support.waiting import wait_until

JOBS = 200
TAGS = ("Transcode", "Snapshot", "SpeechRecognition")
QUEUES = ("p1", "p2")


@pytest.fixture
def stage(tmp_path: Path, db_url: str) -> Stage:
    return Stage(tmp_path, db_url)


def director(stage: Stage, seed: int) -> Director:
    return Director(
        stage.ci, random=Random(seed), bucket=BUCKET, tags=TAGS, queues=QUEUES, every_s=0.3, speed=8, limit=JOBS
    )


def busy_now_and_then(seed: int) -> object:
    random, refused = Random(seed), set[str]()

    def refuse(received: Received) -> Answer | None:
        if received.id not in refused and random.random() < 0.03:
            refused.add(received.id)
            return text_answer("busy", status=503)
        return None

    return refuse


def await_the_end(stage: Stage, lives: Director) -> None:
    wait_until(lambda: lives.idle, why=lambda: stage.log)
    wait_until(stage.is_quiet, within_s=120, why=lambda: stage.log[-3000:])


def assert_every_state_that_was_served_is_one_transition(stage: Stage) -> None:
    """The others are inferred: states that the job was in, and that nobody saw."""
    steps = stage.transitions()
    seen = {job: [step["to"] for step in found if not step["inferred"]] for job, found in steps.items()}
    assert seen == {job: stage.ci.served(job) for job in stage.ci.ids()}
    assert all(is_within([step["to"] for step in found], stage.ci.history(job)) for job, found in steps.items())


def assert_nothing_is_lost(stage: Stage) -> None:
    """Each transition's deliveries arrived, in order per job; a repeated one only under the same id."""
    steps = stage.transitions()
    assert set(steps) == set(stage.ci.ids())
    seen = [step for found in steps.values() for step in found if not step["inferred"]]
    assert_told(stage.accepted["/cms"], {(step["job"], step["sequence"]): step["to"] for step in seen})
    over = [step for found in steps.values() for step in found if step["to"] in ("Success", "Failed", "Cancel")]
    assert_told(stage.accepted["/next"], {(s["job"], s["sequence"]): s["to"] for s in over if s["queue"] == "p1"})
    failed = [step for step in over if step["to"] == "Failed"]
    posts = {post.metadata["event_payload"]["delivery"]: post for post in stage.slack.posts}
    ids = {d["id"] for d in stage.deliveries(notifier="ops")}
    assert len(failed) == len(ids)
    assert set(posts) == ids
    assert all(delivery["state"] == "sent" for delivery in stage.deliveries())


def assert_told(accepted: list[Received], expected: dict[tuple[str, int], str]) -> None:
    ids: dict[tuple[str, int], set[str]] = defaultdict(set)
    order: dict[str, list[int]] = defaultdict(list)
    for one in accepted:
        key = (one.json["subject"], int(one.json["sequence"]))
        assert one.json["data"]["to"] == expected[key]
        assert one.id == one.json["id"]
        if one.id not in ids[key]:
            order[key[0]].append(key[1])
        ids[key].add(one.id)
    assert set(ids) == set(expected)
    assert all(len(found) == 1 for found in ids.values())
    assert all(found == sorted(found) for found in order.values())


def assert_nothing_is_doubled(stage: Stage) -> None:
    for accepted in stage.accepted.values():
        assert len({one.id for one in accepted}) == len(accepted)
    assert len({post.metadata["event_payload"]["delivery"] for post in stage.slack.posts}) == len(stage.slack.posts)


def test_200_jobs_are_told_once_each_signed_and_in_order(stage: Stage) -> None:
    with stage:
        stage.refuse = busy_now_and_then(1)
        worker = stage.start_worker()
        stage.await_first_poll()
        with director(stage, 1) as lives:
            await_the_end(stage, lives)
        assert_every_state_that_was_served_is_one_transition(stage)
        assert_nothing_is_lost(stage)
        assert_nothing_is_doubled(stage)
        assert stage.stop(worker) == 0


def test_two_workers_at_once_lose_and_double_nothing(stage: Stage) -> None:
    with stage:
        stage.refuse = busy_now_and_then(2)
        workers = [stage.start_worker(), stage.start_worker()]
        stage.await_first_poll()
        with director(stage, 2) as lives:
            await_the_end(stage, lives)
        assert_every_state_that_was_served_is_one_transition(stage)
        assert_nothing_is_lost(stage)
        assert_nothing_is_doubled(stage)
        assert [stage.stop(worker) for worker in workers] == [0, 0]


def test_a_worker_killed_five_times_loses_nothing_and_repeats_only_under_the_same_id(stage: Stage) -> None:
    with stage:
        stage.refuse = busy_now_and_then(3)
        worker = stage.start_worker()
        stage.await_first_poll()
        random = Random(3)
        with director(stage, 3) as lives:
            for _ in range(5):
                at_least = len(stage.accepted["/cms"]) + random.randint(20, 60)
                wait_until(lambda n=at_least: len(stage.accepted["/cms"]) >= n or lives.idle, why=lambda: stage.log)
                assert stage.stop(worker, signal.SIGKILL) == -signal.SIGKILL
                worker = stage.start_worker()
            await_the_end(stage, lives)
        assert_nothing_is_lost(stage)
        for job, steps in stage.transitions().items():
            # What was served to a worker that died before it stored it may be missing, nothing else.
            assert is_within([step["to"] for step in steps if not step["inferred"]], stage.ci.served(job))
        assert stage.stop(worker) == 0


def is_within(part: list[str], whole: list[str]) -> bool:
    rest = iter(whole)
    return all(state in rest for state in part)
