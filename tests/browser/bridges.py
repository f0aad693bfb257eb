"""A running bridge for a browser: its own processes between a simulated CI and a receiver, all on loopback."""

from __future__ import annotations

import socket
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bridge.record.queries import lists
from bridge.record.queries.lists import Facts, Filter
from bridge.simulator.receiver import Received
from bridge.simulator.web import Answer, text_answer
from tests.support.processes import run
from tests.support.stage import BUCKET, REPOSITORY, Stage
from tests.support.waiting import wait_until

ADMIN, READ = "admin-token-of-the-browser", "read-token-of-the-browser"
RULES = """
[defaults]
every = "1s"
rate = "1000/s"

[alias.queue]
"视频转码" = "p1"

[[watch]]
name = "media"
bucket = "media-1250000000"
region = "ap-chongqing"
tags = ["Transcode", "Snapshot", "SpeechRecognition", "Concat"]

[[watch]]
name = "archive"
bucket = "archive-1250000000"
region = "ap-chongqing"
tags = ["Transcode"]
every = "6h"

[notifier.cms]
type = "webhook"
url = { env = "CMS_URL" }
secret = { env = "CMS_SECRET" }

[notifier.brief]    # its deliveries die quickly
type = "webhook"
url = { env = "NEXT_URL" }
secret = { env = "CMS_SECRET" }
retry = "1s"

[notifier.door]     # is told to go away
type = "webhook"
url = { env = "STUCK_URL" }
secret = { env = "CMS_SECRET" }

[[rule]]
name = "transcoded"
match.tag = "Transcode"
notify = "cms"

[[rule]]
name = "thumbnails"
match.tag = "Snapshot"
notify = "brief"

[[rule]]
name = "joined"
match.tag = "Concat"
notify = "door"
"""


@dataclass
class Bridge:
    """What a test does in the world, and looks up in it; the browser does the rest."""

    stage: Stage
    url: str
    broken: dict[str, Answer] = field(default_factory=dict)  # what a path of the receiver answers instead

    def job(self, tag: str = "Transcode", *, queue: str = "p1", **facts: str) -> str:
        """Make a job, and wait until the bridge has seen it."""
        job = self.stage.ci.create(BUCKET, tag, queue, input=facts.pop("input", "uploads/a.mp4"), **facts)  # type: ignore[arg-type]  # texts
        self.await_(lambda: self.stage.transitions().get(job))
        return job

    def dead(self, **facts: str) -> tuple[str, Facts]:
        """Make a job whose delivery dies; the receiver is left broken."""
        self.broken["/next"] = text_answer("out of order", status=500)
        job = self.job("Snapshot", **facts)
        self.await_(lambda: [one for one in self.deliveries(job) if one["state"] == "dead"])
        return job, self.deliveries(job)[0]

    def deliveries(self, job: str) -> list[Facts]:
        with self.stage.db.read() as tx:
            return list(lists.find_deliveries(tx, Filter(job=job), limit=100).items)

    def accepted(self, path: str, job: str) -> list[Received]:
        return [one for one in self.stage.accepted[path] if one.json["subject"] == job]

    def await_(self, condition: object) -> None:
        wait_until(condition, why=lambda: self.stage.log[-3000:])  # type: ignore[arg-type]  # called without arguments


@contextmanager
def running(folder: Path, database_url: str, *, as_one: bool) -> Iterator[Bridge]:
    """Start a bridge: `run`, or the web and the worker of the Procfile. Ends with its processes ended."""
    with Stage(folder, database_url, rules=RULES) as stage:
        port = _free_port()
        stage.environ |= {"BRIDGE_ADMIN_TOKEN": ADMIN, "BRIDGE_READ_TOKEN": READ, "PORT": str(port)}
        bridge = Bridge(stage, f"http://127.0.0.1:{port}")
        stage.refuse = lambda received: bridge.broken.get(received.path)
        if as_one:
            stage.start_worker(run)
        else:
            stage.start_worker()
            stage.start_program(*_web(port))
        bridge.await_(lambda: _answers(f"{bridge.url}/healthz"))
        stage.await_first_poll()
        yield bridge


def _web(port: int) -> list[str]:
    """Return the command of the Procfile, listening on loopback alone."""
    lines = (REPOSITORY / "Procfile").read_text().splitlines()
    (command,) = (line.partition(":")[2] for line in lines if line.startswith("web:"))
    return [sys.executable, *command.split()[1:], "--bind", f"127.0.0.1:{port}"]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  (our own address)
            return bool(answer.status == 200)
    except OSError:
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
