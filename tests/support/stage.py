"""The whole bridge on a stage: real worker processes between a simulated CI, a receiver and a Slack look-alike."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from click.testing import Result
from sqlalchemy import func, select

from bridge.record.database import TROUBLES, Database
from bridge.record.queries import gauges, lists
from bridge.record.queries.lists import Filter
from bridge.record.schema import transitions
from bridge.simulator.ci import DEMO_SECRET_ID, DEMO_SECRET_KEY, CiSimulator
from bridge.simulator.receiver import Received, WebhookReceiver
from bridge.simulator.slack import DEMO_TOKEN
from bridge.simulator.web import Answer
from tests.support.commands import REPOSITORY, call, run
from tests.support.nouns import SECRET
from tests.support.processes import Forked, Process, worker
from tests.support.strict_slack import StrictSlack
from tests.support.waiting import wait_until

BUCKET = "media-1250000000"

RULES = """
[defaults]
every = "1s"
rate = "1000/s"

[[watch]]
name = "media"
bucket = "media-1250000000"
region = "ap-chongqing"
tags = ["Transcode", "Snapshot", "SpeechRecognition"]

[notifier.ops]
type = "slack"
channel = "C024BE91L"
token = { env = "SLACK_BOT_TOKEN" }
thread = "job"
rate = "1000/s"

[notifier.cms]
type = "webhook"
url = { env = "CMS_URL" }
secret = { env = "CMS_SECRET" }

[notifier.next]
type = "webhook"
url = { env = "NEXT_URL" }
secret = { env = "CMS_SECRET" }
max_in_flight = 8

[[rule]]
name = "everything"
notify = "cms"

[[rule]]
name = "over"
to = "done"
match.queue = "p1"
notify = "next"

[[rule]]
name = "failed"
to = "Failed"
notify = ["ops", "cms"]
"""


class Stage:
    """Stand-ins on free ports, and as many workers on one database as a test starts."""

    def __init__(
        self, folder: Path, database_url: str, *, rules: str = RULES, clock: Callable[[], float] = time.time
    ) -> None:
        self.folder = folder
        self.rules_file = folder / "rules.toml"
        self.rules_file.write_text(rules)
        self.database_url = database_url
        self._clock = clock  # of the receiver
        self.accepted: dict[str, list[Received]] = defaultdict(list)  # by path, in the order of acceptance
        self.refuse: Callable[[Received], Answer | None] = lambda _: None
        self._stack = ExitStack()
        self._workers: list[Process] = []

    def __enter__(self) -> Self:
        self.ci = self._stack.enter_context(CiSimulator())
        self.slack = self._stack.enter_context(StrictSlack())
        self.receiver = self._stack.enter_context(
            WebhookReceiver(secrets=[SECRET], answer=self._answer, clock=self._clock)
        )
        self.db = Database(self.database_url)
        self._stack.callback(self.db.close)
        self.db.require_schema()
        self.environ = {
            **os.environ,
            "DATABASE_URL": self.database_url,
            "BRIDGE_RULES": str(self.rules_file),
            "BRIDGE_CI_ENDPOINT": self.ci.url,
            "BRIDGE_ALLOW_NETWORKS": "127.0.0.0/8",
            "TENCENTCLOUD_SECRET_ID": DEMO_SECRET_ID,
            "TENCENTCLOUD_SECRET_KEY": DEMO_SECRET_KEY,
            "SLACK_API_URL": self.slack.api_url,
            "SLACK_BOT_TOKEN": DEMO_TOKEN,
            "CMS_URL": f"{self.receiver.url}/cms",
            "NEXT_URL": f"{self.receiver.url}/next",
            "DIGEST_URL": f"{self.receiver.url}/digest",
            "FLOOD_URL": f"{self.receiver.url}/flood",
            "STUCK_URL": f"{self.receiver.url}/stuck",
            "GROUP_URL": f"{self.receiver.url}/group",
            "SICK_URL": f"{self.receiver.url}/sick",
            "GRAVE_URL": f"{self.receiver.url}/grave",
            "PAGER_URL": f"{self.receiver.url}/pager",
            "CMS_SECRET": SECRET,
        }
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for one in self._workers:
            if one.poll() is None:
                one.kill()
            one.wait()
        self._stack.close()

    def _answer(self, received: Received) -> Answer | None:
        refusal = self.refuse(received)
        if received.verified and (refusal is None or refusal.status < 300):
            self.accepted[received.path].append(received)
        return refusal

    @property
    def log(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob("worker-*.log")))

    def command(self, *words: str, **environ: str) -> Result:
        """Call a `ci-bridge` command in this process."""
        return call(*words, **(self.environ | environ))

    def process(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a `ci-bridge` command to its end, in a process of its own."""
        return run(*words, **(self.environ | environ))

    def start_worker(self, main: Callable[[], object] = worker, **environ: str) -> Process:
        """Start `ci-bridge worker`, or another program."""
        return self._started(lambda log: Forked(main, environ=self.environ | environ, folder=REPOSITORY, log=log))

    def start_program(self, *words: str, **environ: str) -> Process:
        """Start a program that brings its own interpreter, or needs one that was started in its environment."""

        def start(log: Path) -> Process:
            with log.open("wb") as file:
                return subprocess.Popen(words, env=self.environ | environ, cwd=REPOSITORY, stdout=file, stderr=file)

        return self._started(start)

    def _started(self, start: Callable[[Path], Process]) -> Process:
        self._workers.append(start(self.folder / f"worker-{len(self._workers)}.log"))
        return self._workers[-1]

    def stop(self, worker: Process, how: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        worker.send_signal(how)
        return worker.wait(30)

    # --- what is on record ------------------------------------------------------------------------------

    def await_first_poll(self) -> None:
        wait_until(lambda: self.watch()["ok_at"] is not None, why=lambda: self.log)

    def watch(self) -> lists.Facts:
        with self.db.read() as tx:
            found = gauges.read_watches(tx)
        return found[0] if found else {"ok_at": None, "error": None}

    def transitions(self) -> dict[str, list[lists.Facts]]:
        """Return every transition by job, oldest first."""
        found: dict[str, list[lists.Facts]] = defaultdict(list)
        for step in reversed(self._all(lists.find_transitions)):
            found[step["job"]].append(step)
        return found

    def deliveries(self, **which: str) -> list[lists.Facts]:
        return self._all(lists.find_deliveries, Filter(**which))

    def _all(self, what: Callable[..., lists.Found], which: Filter | None = None) -> list[lists.Facts]:
        items: list[lists.Facts] = []
        cursor = None
        with self.db.read() as tx:
            while True:
                page = what(tx, which or Filter(), cursor=cursor, limit=500)
                items += page.items
                cursor = page.cursor
                if cursor is None:
                    return items

    def is_quiet(self) -> bool:
        """True when the record has the last state of every job, and nothing waits to be told."""
        try:
            with self.db.read() as tx:  # it is asked many times a second, and there may be thousands of transitions
                if any(one["waiting"] + one["sending"] + one["held"] for one in gauges.read_notifiers(tx)):
                    return False
                newest = select(func.max(transitions.c.n)).group_by(transitions.c.job_id)
                rows = tx.execute(select(transitions.c.job_id, transitions.c.state).where(transitions.c.n.in_(newest)))
                states = {row.job_id: row.state for row in rows}
        except TROUBLES:  # the database was away
            return False
        return all(states.get(job) == self.ci.history(job)[-1] for job in self.ci.ids())
