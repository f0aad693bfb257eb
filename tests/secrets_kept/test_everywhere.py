"""Secrets in every place that takes one, receivers that repeat what they get: nothing that can be read has any."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from secrets import token_hex
from urllib.parse import quote

import pytest
from sqlalchemy import inspect, select, table, text

from bridge.record.queries import gauges, lists
from tests.conftest import PostgresServer, only_postgresql, only_sqlite
from tests.secrets_kept.echo import WEBHOOKS, planted_stage, said
from tests.secrets_kept.planted import SECRETS, leaked
from tests.support.http import ask, free_port
from tests.support.processes import Process
from tests.support.receivers import Receiver
from tests.support.stage import BUCKET, Stage
from tests.support.waiting import wait_until

Places = dict[str, str | bytes]  # what can be read, by where
EVERYONE = {*WEBHOOKS, "slack", "thread", "incoming"}
FOR_PEOPLE = ("rules check", "doctor", "rules explain JOB", "deliveries show DELIVERY")
IN_JSON = ("doctor", "poll", "deliveries list", "deliveries show DELIVERY")


@pytest.fixture
def address(dialect: str, request: pytest.FixtureRequest, db_url: str) -> Iterator[str]:
    """The address of the database, on PostgreSQL with a password."""
    if dialect == "sqlite":
        yield db_url
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    role, password = f"ci_bridge_test_{token_hex(6)}", SECRETS["database password"]
    server.do(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD '{password}'")
    yield re.sub(r"//[^@]*@", f"//{role}:{quote(password, safe='')}@", db_url)
    server.do(f"DROP ROLE {role}")


@pytest.fixture
def planted(address: str, tmp_path: Path) -> Iterator[tuple[Stage, Receiver]]:
    with planted_stage(tmp_path, address) as found:
        yield found


@only_sqlite
def test_no_secret_is_in_what_sqlite_the_web_the_log_and_the_commands_tell(planted: tuple[Stage, Receiver]) -> None:
    stage, receiver = planted
    places: Places = {}
    port = free_port()
    run = stage.start_program(sys.executable, "-m", "bridge", "run", PORT=str(port))
    job, shown = _all_told(stage)
    places |= _answers(port, job) | _printed(stage, job, shown, FOR_PEOPLE) | _process(run)
    places["files, while it works"] = _files(stage)
    assert stage.stop(run) == 0
    proxied = stage.start_worker(BRIDGE_EGRESS_PROXY=_proxy(receiver))
    stage.ci.move(job, "Running")
    wait_until(lambda: len(stage.deliveries(notifier="accepts", state="sent")) == 2, why=lambda: stage.log)
    assert stage.stop(proxied) == 0
    places["files"] = _files(stage)
    _nothing_leaks(places | {"log": stage.log} | _rows(stage))
    _all_was_there_to_leak(stage, receiver, "proxy password")


@only_postgresql
def test_no_secret_is_in_what_postgresql_gunicorn_and_json_tell(planted: tuple[Stage, Receiver]) -> None:
    stage, receiver = planted
    worker = stage.start_worker()
    job, shown = _all_told(stage)
    port = free_port()
    web = stage.start_program(sys.executable, "-m", "bridge.web", PORT=str(port))
    wait_until(lambda: ask(port, "/healthz").status == 200, why=lambda: stage.log)
    places = _answers(port, job) | _printed(stage, job, shown, IN_JSON, "--json") | _process(worker) | _process(web)
    assert (stage.stop(web), stage.stop(worker)) == (0, 0), stage.log
    _nothing_leaks(places | {"log": stage.log} | _rows(stage))
    _all_was_there_to_leak(stage, receiver)


def _nothing_leaks(places: Places) -> None:
    assert {where: names for where, text in places.items() if (names := leaked(text))} == {}


def _all_was_there_to_leak(stage: Stage, receiver: Receiver, *also: str) -> None:
    """Check that what was looked into had something to hide."""
    sent = {place for seen in receiver.requests for one in said(seen) for place in leaked(one)}
    assert sent >= {
        "url path", "url query", "url in rules", "header in rules", "header", "bearer", "basic", "slack token",
        "slack url", *also,
    }  # fmt: skip
    answers = [one["answer"] or "" for facts in stage.deliveries() for one in _tries(stage, facts["id"])]
    assert sum("[secret]" in answer for answer in answers) >= len(WEBHOOKS) // 2
    assert "[secret]" in stage.log
    assert "[secret]" in _watch_error(stage), _watch_error(stage)


def _tries(stage: Stage, delivery_id: str) -> list[lists.Facts]:
    with stage.db.read() as tx:
        found = lists.delivery_details(tx, delivery_id)
    assert found
    return list(found["tries"])


def _watch_error(stage: Stage) -> str:
    with stage.db.read() as tx:
        return next(str(one["error"]) for one in gauges.read_watches(tx) if one["name"] == "refused")


def _all_told(stage: Stage) -> tuple[str, str]:
    """Let a job appear and every notifier be tried; return the job and a delivery."""
    wait_until(lambda: _polled(stage), why=lambda: stage.log)
    job = stage.ci.create(BUCKET, "Transcode", "p1")
    wait_until(lambda: _tried(stage) == EVERYONE, why=lambda: f"{EVERYONE - _tried(stage)} {stage.log}")
    return job, next(one["id"] for one in stage.deliveries() if one["notifier"] == "plain")


def _polled(stage: Stage) -> bool:
    with stage.db.read() as tx:
        rows = {one["name"]: one for one in gauges.read_watches(tx)}
    return bool(rows and rows["media"]["ok_at"] and rows["refused"]["error"])


def _tried(stage: Stage) -> set[str]:
    return {one["notifier"] for one in stage.deliveries() if one["attempts"] and (one["why"] or one["state"] == "sent")}


def _answers(port: int, job: str) -> Places:
    admin, read = SECRETS["admin token"], SECRETS["read token"]
    listed = ask(port, "/api/v1/deliveries", admin).body
    paths = set(ask(port, "/openapi.json", admin).json["paths"])
    assert {"/metrics", "/readyz", "/api/v1/jobs", "/api/v1/rules", "/api/v1/notifiers"} <= paths
    paths |= {f"/api/v1/deliveries/{one}" for one in re.findall(r"dlv_\w+", listed)}
    paths |= {"/", "/nothing", "/api/v1/jobs?limit=wrong"}
    tokens = {"admin": admin, "read": read, "wrong": f"{admin}!", "none": ""}
    answers = {
        f"GET {path}, {who} token": ask(port, re.sub("{[^}]*}", job, path), token)
        for path in paths
        for who, token in tokens.items()
    }
    hook = f"/hooks/ci/{SECRETS['callback token']}"
    answers |= {
        f"{method} hook{rest}": ask(port, f"{hook}{rest}", method=method)
        for method in ("POST", "GET", "PUT")
        for rest in ("", "/media", "/nobody", "/a/b", "x")
    }
    return {where: answer.headers + answer.body for where, answer in answers.items()}


def _printed(stage: Stage, job: str, delivery: str, commands: Sequence[str], *also: str) -> Places:
    def call(command: str) -> str:
        words = command.replace("JOB", job).replace("DELIVERY", delivery).split()
        # Doctor talks to everybody, and may log of it: that is another matter in a process of its own.
        done = (stage.process if command == "doctor" else stage.command)(*words, *also)
        assert done.stdout + done.stderr
        return done.stdout + done.stderr

    return {command: call(command) for command in commands}


def _process(process: Process) -> Places:
    return {f"arguments of {process.pid}": Path(f"/proc/{process.pid}/cmdline").read_bytes()}


def _files(stage: Stage) -> bytes:
    """Return SQLite's files as they are on the disk, the write-ahead log too."""
    # By another process: to close one of them here would drop the locks that SQLite has on it.
    files = sorted(map(str, stage.folder.glob("bridge.db*")))
    assert len(files) >= 2
    return subprocess.run(["cat", *files], capture_output=True, check=True).stdout


def _proxy(receiver: Receiver) -> str:
    return f"http://user:{quote(SECRETS['proxy password'], safe='')}@127.0.0.1:{receiver.port}"


def _rows(stage: Stage) -> Places:
    """Return every table of the database as text."""
    with stage.db.read() as tx:
        names = inspect(tx).get_table_names()
        assert {"attempt", "delivery", "watch"} <= set(names)
        return {name: str(tx.execute(select(text("*")).select_from(table(name))).all()) for name in names}
