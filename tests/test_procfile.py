"""The processes of the Procfile, started as they are written there, work together on one PostgreSQL."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.simulator.web import text_answer
from tests.conftest import only_postgresql
from tests.support.commands import REPOSITORY
from tests.support.http import ask, free_port
from tests.support.processes import Process
from tests.support.stage import BUCKET, Stage
from tests.support.waiting import wait_until

pytestmark = only_postgresql
TOKEN = "an-admin-token-of-the-tests"


@pytest.fixture
def stage(tmp_path: Path, db_url: str) -> Iterator[Stage]:
    with Stage(tmp_path, db_url) as found:
        yield found


def procfile() -> dict[str, str]:
    lines = (REPOSITORY / "Procfile").read_text().splitlines()
    return {name: command.strip() for name, _, command in (line.partition(":") for line in lines)}


def started(stage: Stage, command: str, **environ: str) -> Process:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return stage.start_program("sh", "-c", f"exec {command}", PATH=path, **environ)


def test_release_web_and_worker_work_together(stage: Stage) -> None:
    port, commands = free_port(), procfile()
    assert started(stage, commands["release"]).wait(60) == 0
    platform = {"RAILWAY_PUBLIC_DOMAIN": "bridge.example.com"}
    worker = started(stage, commands["worker"], HEROKU_APP_DEFAULT_DOMAIN_NAME="no-page-is-here.example.com")
    web = started(stage, commands["web"], PORT=str(port), BRIDGE_ADMIN_TOKEN=TOKEN, WEB_CONCURRENCY="2", **platform)
    try:
        wait_until(lambda: ask(port, "/readyz", TOKEN).status == 200, why=lambda: stage.log)
        stage.await_first_poll()
        stage.refuse = lambda _: text_answer("gone for good", status=410)
        job = stage.ci.create(BUCKET, "Transcode", "p1")

        def cms() -> Any:
            listed = ask(port, "/api/v1/notifiers", TOKEN).json["items"]
            return next(notifier for notifier in listed if notifier["name"] == "cms")

        wait_until(lambda: cms()["paused_at"], why=lambda: stage.log)
        stage.refuse = lambda _: None
        assert ask(port, "/api/v1/notifiers/cms/resume", TOKEN, method="POST").status == 202
        wait_until(lambda: stage.accepted["/cms"], why=lambda: stage.log)
        (one,) = stage.accepted["/cms"]
        assert (one.json["subject"], one.json["data"]["url"]) == (job, f"https://bridge.example.com/jobs/{job}")
        test = ask(port, "/api/v1/notifiers/next/test", TOKEN, method="POST")
        assert test.status == 202
        wait_until(
            lambda: [one.id for one in stage.accepted["/next"]] == [test.json["delivery"]], why=lambda: stage.log
        )
        assert stage.accepted["/next"][0].verified
    finally:
        for process in (web, worker):
            process.send_signal(signal.SIGTERM)
        codes = [process.wait(30) for process in (web, worker)]
    assert codes == [0, 0], stage.log


def test_web_and_worker_refuse_an_old_schema_with_the_advice(stage: Stage) -> None:
    with stage.db.write() as tx:
        tx.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    for name in ("worker", "web"):
        process = started(stage, procfile()[name], PORT=str(free_port()), BRIDGE_ADMIN_TOKEN=TOKEN)
        assert process.wait(30) != 0
    assert stage.log.count("run `ci-bridge db upgrade`") == 2
