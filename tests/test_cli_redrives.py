"""`deliveries redrive` with filters, and `jobs tell`: what people have told by hand."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from sqlalchemy import update

from bridge.decide.messages import address
from bridge.decide.messages import test_message as a_test_message
from bridge.model import WebhookNotifier
from bridge.pipeline.redriving import carry_out
from bridge.record import leases, outbox, redrives
from bridge.record.schema import DEAD, delivery
from tests.builders import NOON
from tests.stage import BUCKET, Stage


@pytest.fixture
def stage(tmp_path: Path, sqlite_url: str) -> Iterator[Stage]:
    with Stage(tmp_path, sqlite_url) as found:
        yield found


def bury(stage: Stage, count: int) -> None:
    notifier = WebhookNotifier(name="cms", url="https://cms.example.com/")
    told = [address(a_test_message("cms", nonce=str(n), now=NOON), notifier) for n in range(count)]
    with stage.db.write() as tx:
        outbox.put(tx, told, now=NOON)
        tx.execute(update(delivery).values(state=DEAD, ended_at=0))


def redrive(stage: Stage, *words: str, code: int = 0) -> Result:
    seen = stage.command("deliveries", "redrive", *words, USER="ann")
    assert seen.exit_code == code, seen.stderr
    return seen


@contextmanager
def a_worker(stage: Stage) -> Iterator[None]:
    """Carry out orders meanwhile."""
    stop = threading.Event()
    with stage.db.write() as tx:
        leases.enlist(tx, "w1", machine="m", pid=1, now=datetime.now(UTC))

    def work() -> None:
        while not stop.wait(0.05):
            carry_out(stage.db, datetime.now(UTC))

    thread = threading.Thread(target=work)
    thread.start()
    yield
    stop.set()
    thread.join()


def orders(stage: Stage) -> list[redrives.Order]:
    with stage.db.read() as tx:
        return redrives.page(tx)[0]


def test_an_order_is_watched_until_it_is_carried_out(stage: Stage) -> None:
    bury(stage, 30)
    with a_worker(stage):
        seen = redrive(stage, "--notifier", "cms", "--per-minute", "6000", "--json")
    (order,) = orders(stage)
    assert f"{order.id}: 30 deliveries to be sent again, at most 6000 a minute" in seen.stderr
    assert seen.stderr.endswith("30 of 30 sent again\n")
    assert {"id": order.id, "author": "ann", "total": 30, "done": 30, "left": 0}.items() <= json.loads(
        seen.stdout
    ).items()


def test_whoever_does_not_wait_gets_the_id(stage: Stage) -> None:
    bury(stage, 3)
    seen = redrive(stage, "--notifier", "cms", "--no-wait")
    (order,) = orders(stage)
    assert seen.stdout == f"{order.id}\n"
    assert (order.done, order.left) == (0, 3)


def test_without_a_worker_the_order_waits_for_one_and_can_be_ended(stage: Stage) -> None:
    bury(stage, 3)
    seen = redrive(stage, "--notifier", "cms")
    id_ = seen.stdout.strip()
    assert f"no worker runs, so {id_} waits for one" in seen.stderr
    assert f"ci-bridge deliveries redrives --stop {id_}" in seen.stderr
    listed = stage.command("deliveries", "redrives").stdout
    assert id_ in listed
    assert "state=dead notifier=cms" in listed
    stopped = stage.command("deliveries", "redrives", "--stop", id_, USER="ben")
    assert stopped.stdout == f"{id_} is over; 0 deliveries sent again, 3 not\n"
    (order,) = json.loads(stage.command("deliveries", "redrives", "--json").stdout)
    assert (order["ended_by"], order["left"]) == ("ben", 3)
    again = stage.command("deliveries", "redrives", "--stop", id_)
    assert (again.exit_code, f"order {id_} is over since" in again.stderr) == (1, True)
    unknown = stage.command("deliveries", "redrives", "--stop", "rdr_0")
    assert (unknown.exit_code, 'no order "rdr_0" is on record' in unknown.stderr) == (1, True)


def test_a_filter_that_finds_nothing_says_so(stage: Stage) -> None:
    assert redrive(stage, "--notifier", "cms").stdout == "no dead delivery is such\n"
    assert redrive(stage, "--rule", "all", "--state", "dropped").stdout == "no dropped delivery is such\n"


@pytest.mark.parametrize("words", [(), ("--state", "dropped"), ("dlv_1", "--notifier", "cms")])
def test_ids_or_filters_are_needed_and_not_both(stage: Stage, words: tuple[str, ...]) -> None:
    assert "one of the two" in redrive(stage, *words, code=2).stderr


def a_job_that_nobody_heard_of(stage: Stage) -> str:
    job = stage.ci.create(BUCKET, "Transcode", "p1")
    assert stage.command("poll").exit_code == 0  # a first snapshot is silent
    return job


def tell(stage: Stage, job: str, *words: str, code: int = 0) -> Result:
    seen = stage.command("jobs", "tell", job, *words, USER="ann")
    assert seen.exit_code == code, seen.stderr
    return seen


def test_a_job_that_nobody_heard_of_is_told_by_hand(stage: Stage) -> None:
    job = a_job_that_nobody_heard_of(stage)
    said: dict[str, Any] = json.loads(tell(stage, job, "--notifier", "cms", "--json").stdout)
    shown = json.loads(stage.command("deliveries", "show", said["delivery"], "--json").stdout)
    assert (shown["job"], shown["notifier"], shown["rule"], shown["state"]) == (job, "cms", None, "waiting")
    assert shown["note"] == "Sent by hand by ann."
    explained = stage.command("rules", "explain", job).stdout
    assert "manually to cms: waits for its first attempt" in explained
    assert f"({said['delivery']})" in explained
    assert "is waiting" in tell(stage, job, "--notifier", "cms", code=1).stderr


def test_what_cannot_be_told_by_hand_is_said(stage: Stage) -> None:
    job = a_job_that_nobody_heard_of(stage)
    assert 'no notifier "cmss" (did you mean "cms"?)' in tell(stage, job, "--notifier", "cmss", code=1).stderr
    assert 'no transition of a job "j404"' in tell(stage, "j404", "--notifier", "cms", code=1).stderr
    assert (
        "has no transition 7; there are: 1 (Submitted)"
        in tell(stage, job, "--notifier", "cms", "--sequence", "7", code=1).stderr
    )
    with stage.db.write() as tx:
        outbox.pause(tx, "cms", "the token was revoked", now=NOON)
    assert "notifier cms is paused: the token was revoked" in tell(stage, job, "--notifier", "cms").stderr
