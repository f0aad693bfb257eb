"""The processes of the Procfile, started as they are written there, work together on one PostgreSQL."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.simulator.web import text_answer
from tests.conftest import only_postgresql
from tests.support.stage import BUCKET, REPOSITORY, Stage
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


def started(stage: Stage, command: str, **environ: str) -> subprocess.Popen[bytes]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with (stage.folder / f"worker-{command.split()[0]}-{len(list(stage.folder.iterdir()))}.log").open("wb") as log:
        return subprocess.Popen(
            ["sh", "-c", f"exec {command}"],
            env=stage.environ | {"PATH": path} | environ,
            cwd=REPOSITORY,
            stdout=log,
            stderr=log,
        )


def ask(port: int, path: str, *, method: str = "GET") -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310  (the same)
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)
    except OSError:
        return 0, None


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_release_web_and_worker_work_together(stage: Stage) -> None:
    port, commands = free_port(), procfile()
    assert started(stage, commands["release"]).wait(60) == 0
    worker = started(stage, commands["worker"])
    web = started(stage, commands["web"], PORT=str(port), BRIDGE_ADMIN_TOKEN=TOKEN, WEB_CONCURRENCY="2")
    try:
        wait_until(lambda: ask(port, "/readyz")[0] == 200, why=lambda: stage.log)
        stage.await_first_poll()
        stage.refuse = lambda _: text_answer("gone for good", status=410)
        job = stage.ci.create(BUCKET, "Transcode", "p1")

        def cms() -> Any:
            return next(one for one in ask(port, "/api/v1/notifiers")[1]["items"] if one["name"] == "cms")

        wait_until(lambda: cms()["paused_at"], why=lambda: stage.log)
        stage.refuse = lambda _: None
        assert ask(port, "/api/v1/notifiers/cms/resume", method="POST")[0] == 202
        wait_until(lambda: stage.accepted["/cms"], why=lambda: stage.log)
        assert [one.json["subject"] for one in stage.accepted["/cms"]] == [job]
        status, test = ask(port, "/api/v1/notifiers/next/test", method="POST")
        assert status == 202
        wait_until(lambda: [one.id for one in stage.accepted["/next"]] == [test["delivery"]], why=lambda: stage.log)
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
