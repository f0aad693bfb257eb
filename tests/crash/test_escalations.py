"""A worker killed around the commit of an escalation: each is told once, and what was over or acknowledged never is."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import select

from bridge.model import FAILED, RUNNING, SUCCESS
from bridge.record import incidents
from bridge.record.database import Database
from bridge.record.schema import incidents as table
from bridge.simulator.ci import CiSimulator
from bridge.simulator.receiver import Received, WebhookReceiver
from bridge.simulator.web import Answer
from tests.crash import moment
from tests.support.commands import REPOSITORY
from tests.support.nouns import NOW, SECRET, Clock, minutes
from tests.support.processes import Forked

BUCKET = "clips-1250000000"
RULES = """
[[watch]]
name = "clips"
bucket = "clips-1250000000"
region = "ap-chongqing"
tags = ["Transcode"]

[notifier.ops]
type = "webhook"
url = { env = "OPS_URL" }
secret = { env = "SECRET" }

[notifier.pager]
type = "webhook"
url = { env = "PAGER_URL" }
secret = { env = "SECRET" }

[[rule]]
name = "sick"
to = "Failed"
by = ["queue"]
count = ">= 2"
within = "10m"
recover = true
notify = "ops"
escalate = { after = "30m", notify = "pager" }

[[rule]]
name = "group"
all = "done"
by = ["queue"]
expect = 20
notify = "ops"
escalate = { after = "30m", notify = "pager" }

[[rule]]
name = "stuck"
in = "Running"
for = "1m"
recover = true
notify = "ops"
escalate = { after = "30m", notify = "pager" }
"""
GOES_ON, ACKNOWLEDGED, OVER = QUEUES = ("p1", "p2", "p3")  # what becomes of the incidents of each


class Place:
    """A CI, receivers and a database, all by one clock, where workers live for a moment each."""

    def __init__(self, folder: Path, database_url: str, stack: ExitStack) -> None:
        self.clock, self.accepted = Clock(NOW), list[Received]()
        seconds = lambda: self.clock().timestamp()  # noqa: E731  (a name for what both are given)
        self.ci = stack.enter_context(CiSimulator(clock=seconds))
        receiver = stack.enter_context(WebhookReceiver(secrets=[SECRET], answer=self._answer, clock=seconds))
        self.db = Database(database_url)
        stack.callback(self.db.close)
        self._log = folder / "worker.log"
        rules = folder / "rules.toml"
        rules.write_text(RULES)
        self._environ = {
            "DATABASE_URL": database_url,
            "BRIDGE_RULES": str(rules),
            "BRIDGE_CI_ENDPOINT": self.ci.url,
            "OPS_URL": f"{receiver.url}/ops",
            "PAGER_URL": f"{receiver.url}/pager",
            "SECRET": SECRET,
        }

    def _answer(self, received: Received) -> Answer | None:
        assert received.verified
        self.accepted.append(received)
        return None

    def lives(self, *, killed: str = "") -> None:
        """Let a worker live now, to its end or until it comes to a point."""
        environ = self._environ | {"NOW": str(self.clock().timestamp()), "CRASH_AT": killed}
        worker = Forked(moment.live, environ=environ, folder=REPOSITORY, log=self._log)
        assert worker.wait(60) == (-signal.SIGKILL if killed else 0), self._log.read_text()

    def passes(self, count: float) -> None:
        self.clock.advance(minutes(count))

    def has(self, queue: str, *states: str) -> None:
        """Let CI have a new job in each of these states."""
        for state in states:
            self.ci.move(self.ci.create(BUCKET, "Transcode", queue), state)

    def ends(self, queue: str) -> None:
        """Let the jobs of a queue that go on be successful."""
        for job in self.jobs_of(queue):
            if self.ci.job(job).state == RUNNING:
                self.ci.move(job, SUCCESS)

    def jobs_of(self, queue: str) -> list[str]:
        return [job for job in self.ci.ids() if self.ci.job(job).queue == queue]

    def acknowledge(self, queue: str) -> None:
        mine = {queue, *self.jobs_of(queue)}
        with self.db.write() as tx:
            for row in tx.execute(select(table)).all():
                if mine & {value for _, value in json.loads(row.by)}:
                    assert incidents.acknowledge(tx, row.id, "ann", now=self.clock())

    def told(self, path: str, what: str) -> list[tuple[str, str]]:
        """Return of which rules a receiver was told this, and of which queues."""
        found = [one.json["data"] for one in self.accepted if one.path == path and one.json["type"] == what]
        return sorted((data["rule"], self._queue_of(data["by"])) for data in found)

    def _queue_of(self, by: Mapping[str, str]) -> str:
        return by.get("queue") or self.ci.job(by["job"]).queue


@pytest.fixture
def place(tmp_path: Path, db_url: str) -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(tmp_path, db_url, stack)


def test_an_escalation_is_sent_once_wherever_its_worker_is_killed(place: Place) -> None:
    place.lives()
    place.passes(1)
    for queue in QUEUES:
        place.has(queue, FAILED, FAILED, RUNNING)
    place.lives()
    place.passes(1)
    place.lives()
    place.acknowledge(ACKNOWLEDGED)
    for _ in range(3):
        place.passes(8)
        for queue in (GOES_ON, ACKNOWLEDGED):
            place.has(queue, FAILED)
        place.lives()
    place.ends(OVER)
    place.has(OVER, *[SUCCESS] * 17)
    place.lives()
    opened = [("sick", queue) for queue in QUEUES]
    assert place.told("/ops", "ci.incident.opened") == opened
    assert place.told("/pager", "ci.incident.escalated") == []
    place.passes(3)
    for point in ("escalation uncommitted", "escalation uncommitted", "escalation committed"):
        place.passes(3)  # longer than a dead worker's lease
        place.has(GOES_ON, FAILED)
        place.lives(killed=point)
        assert place.told("/pager", "ci.incident.escalated") == []
    for pause in (3, 1, 40):
        place.passes(pause)
        place.lives()
        assert place.told("/pager", "ci.incident.escalated") == [(name, GOES_ON) for name in ("group", "sick", "stuck")]
    assert place.told("/pager", "ci.incident.closed") == [("sick", GOES_ON)]
    assert place.told("/ops", "ci.incident.closed") == opened
