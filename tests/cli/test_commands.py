"""The command line: help, usage errors, set-up errors, lists, notifier tests, the worker, the demo."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import click
import pytest

from bridge.cli import main
from bridge.model import JobProblem
from bridge.record.polling import problems, snapshots
from bridge.simulator.receiver import Received
from bridge.simulator.robots import CHATS
from tests.support.commands import REPOSITORY, call, run
from tests.support.nouns import NOON, a_job
from tests.support.stage import BUCKET, Stage
from tests.support.waiting import wait_until

KEY = {"TENCENTCLOUD_SECRET_ID": "AKIDx", "TENCENTCLOUD_SECRET_KEY": "x"}


def commands() -> Iterator[str]:
    """Yield every command, as it is called."""
    with click.Context(main) as context:
        for name in main.list_commands(context):
            command = main.get_command(context, name)
            subcommands = command.commands if isinstance(command, click.Group) else {}
            yield from [f"{name} {subcommand}" for subcommand in subcommands] or [name]


@pytest.mark.parametrize("command", list(commands()))
def test_every_command_has_help_with_an_example(command: str) -> None:
    seen = call(*command.split(), "--help")
    assert seen.exit_code == 0
    assert seen.stdout.startswith("Usage:")
    assert re.search(rf"Examples?[^:]*:\n(.*\n)*? +.*ci-bridge {command}", seen.stdout)


def test_help_imports_neither_sqlalchemy_nor_flask_nor_alembic() -> None:
    seen = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "bridge", "--help"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "First steps" in seen.stdout
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in seen.stderr.splitlines()}
    assert "click" in loaded
    assert not loaded & {"sqlalchemy", "flask", "alembic", "pydantic", "pycurl", "requests"}


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("pol",), "No such command"),
        (("jobs", "list", "--since", "99999999999d"), "a duration is more than nothing and at most ten years"),
        (("transitions", "list", "--state", "done"), '"done" is a set of states'),
        (("transitions", "list", "--state", "Active"), '"Active" is a set of states'),
        (("jobs", "list", "--state", "faild"), 'there is no job state "faild" (did you mean "Failed"?)'),
    ],
)
def test_a_usage_error_exits_2_and_names_what_is_wrong(words: tuple[str, ...], error: str) -> None:
    seen = call(*words)
    assert seen.exit_code == 2
    assert error in seen.stderr


def test_every_wrong_variable_is_named_at_once() -> None:
    seen = run("worker", PORT="http", LOG_LEVEL="loud", BRIDGE_ALLOW_NETWORKS="10.0.0.1/8")
    assert seen.returncode == 1
    assert all(name in seen.stderr for name in ("PORT", "LOG_LEVEL", "BRIDGE_ALLOW_NETWORKS"))
    assert "Traceback" not in seen.stderr


@pytest.mark.parametrize("platform", ["DYNO", "RENDER", "RAILWAY_PROJECT_ID"])
def test_sqlite_is_refused_on_platforms_with_an_ephemeral_disk(platform: str) -> None:
    seen = call("worker", **{platform: "web.1", "DATABASE_URL": ""})
    assert seen.exit_code == 1
    assert "add a PostgreSQL database" in seen.stderr


@pytest.mark.parametrize(
    "command", ["doctor", "run", "worker", "poll", "rules check", "rules explain j1", "notifier test cms"]
)
def test_a_folder_instead_of_a_rules_file_is_reported_by_every_command_that_reads_it(
    command: str, tmp_path: Path
) -> None:
    seen = call(*command.split(), BRIDGE_RULES=str(tmp_path), DATABASE_URL=f"sqlite:///{tmp_path / 'b.db'}", **KEY)
    assert seen.exit_code == 1
    assert f"{tmp_path}:1: cannot be read: Is a directory" in seen.stdout + seen.stderr


@pytest.mark.parametrize("command", ["db upgrade", "jobs list", "worker", "doctor"])
def test_a_database_in_a_missing_folder_is_reported(command: str) -> None:
    seen = call(*command.split(), DATABASE_URL="sqlite:////proc/nope/b.db", BRIDGE_RULES_TOML="[defaults]\n", **KEY)
    assert seen.exit_code == 1
    assert "DATABASE_URL: there is no folder /proc/nope" in seen.stdout + seen.stderr


@pytest.mark.parametrize("command", ["jobs list", "deliveries redrive dlv_1", "silence list"])
def test_a_query_without_a_database_creates_none(command: str, tmp_path: Path) -> None:
    seen = call(*command.split(), DATABASE_URL=f"sqlite:///{tmp_path / 'b.db'}")
    assert seen.exit_code == 1
    assert "`ci-bridge poll`, `worker` or `run` creates it" in seen.stderr
    assert not (tmp_path / "b.db").exists()


def test_a_poll_and_the_lists_show_what_ci_has(stage: Stage) -> None:
    assert stage.command("poll").exit_code == 0
    job = stage.ci.create(BUCKET, "Transcode", "p1")
    (polled,) = json.loads(stage.command("poll", "--json").stdout)
    assert (polled["jobs"], polled["transitions"], polled["deliveries"], polled["error"]) == (1, 1, 1, None)
    (listed,) = json.loads(stage.command("jobs", "list", "--json").stdout)
    assert (listed["id"], listed["state"]) == (job, "Submitted")
    assert job in stage.command("jobs", "list").stdout
    shown = json.loads(stage.command("jobs", "show", job, "--json").stdout)
    assert [step["to"] for step in shown["transitions"]] == ["Submitted"]
    (step,) = json.loads(stage.command("transitions", "list", "--json").stdout)
    assert step["rules"] == [{"rule": "everything", "notifiers": ["cms"]}]
    assert "everything -> cms" in stage.command("transitions", "list").stdout
    (delivery,) = json.loads(stage.command("deliveries", "list", "--json").stdout)
    assert json.loads(stage.command("deliveries", "show", delivery["id"], "--json").stdout)["state"] == "waiting"
    unknown = stage.command("poll", "--watch", "video")
    assert (unknown.exit_code, unknown.stderr) == (1, 'there is no watch "video"; there are media\n')


def test_a_test_message_goes_through_the_outbox_and_its_outcome_is_shown(stage: Stage) -> None:
    waits = stage.command("notifier", "test", "cms", "--wait", "0")
    assert waits.exit_code == 1
    assert "no worker is running" in waits.stderr
    stage.start_worker()
    stage.await_first_poll()
    arrived = stage.command("notifier", "test", "next", "--json")
    assert arrived.exit_code == 0, arrived.stderr
    facts = json.loads(arrived.stdout)
    wait_until(lambda: [received.id for received in stage.accepted["/next"]] == [facts["id"]])
    assert facts["state"] == "sent"
    assert stage.accepted["/next"][0].verified


def test_a_job_id_that_two_buckets_have_is_shown_by_bucket(stage: Stage) -> None:
    jobs = [a_job(bucket=bucket) for bucket in ("a-1250000000", "b-1250000000")]
    with stage.db.write() as tx:
        snapshots.save(tx, jobs, [], {}, stream="s", streams=["s"], now=NOON)
    both = stage.command("jobs", "show", "j1", "--json")
    assert (both.exit_code, both.stdout) == (1, "")
    assert "add --bucket with one of: a-1250000000, b-1250000000" in both.stderr
    shown = stage.command("jobs", "show", "j1", "--bucket", "b-1250000000", "--json")
    assert json.loads(shown.stdout)["bucket"] == "b-1250000000"
    assert 'no job "j1" has been seen in bucket c' in stage.command("jobs", "show", "j1", "--bucket", "c").stderr


def test_unreadable_fields_are_shown_with_the_job_and_by_doctor(stage: Stage) -> None:
    odd = JobProblem(job_id="j1", field="EndTime", value="null\x1b[31m")
    left_out = JobProblem(job_id="j2", field="State", value="", left_out=True)
    with stage.db.write() as tx:
        snapshots.save(tx, [a_job(bucket=BUCKET)], [], {}, stream="s", streams=["s"], now=NOON)
        problems.record(tx, BUCKET, "s", ["j1"], [odd, left_out], now=NOON)
    shown = stage.command("jobs", "show", "j1").stdout
    assert re.search(r"problems:\n.*\nEndTime +null", shown)
    assert "\x1b" not in shown
    assert 'job "j2" in bucket' in stage.command("jobs", "show", "j2").stderr
    assert "warn  jobs: 1 job left out, 1 job with an unreadable field" in stage.command("doctor").stdout


def test_sigterm_ends_a_worker_that_hangs_in_its_database(stage: Stage) -> None:
    with closing(sqlite3.connect(stage.folder / "bridge.db", check_same_thread=False)) as other:

        def lock(_: Received) -> None:
            other.execute("BEGIN IMMEDIATE")  # what the receiver now accepts cannot be recorded

        worker = stage.start_worker()
        stage.await_first_poll()
        stage.refuse = lock
        stage.ci.create(BUCKET, "Transcode", "p1")
        wait_until(lambda: stage.accepted["/cms"], why=lambda: stage.log)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(25) == 0
        assert "stopped at the time limit" in stage.log


@pytest.mark.parametrize("chat", ["slack", *CHATS])
def test_the_demo_lists_every_delivery_with_its_outcome_and_exits_0(chat: str) -> None:
    seen = run("demo", "--chat", chat)
    assert seen.returncode == 0, seen.stdout + seen.stderr
    head, _, outcomes = seen.stdout.partition(" not delivered:\n")
    counted = re.search(r"(\d+) deliveries, 0$", head)
    assert counted
    lines = outcomes.splitlines()
    assert len(lines) == int(counted[1]) > 0
    assert all(re.match(r"  dlv_\w+ +(cms|ops) .* sent, \d+ attempt", line) for line in lines)
    assert all(
        word in head for word in ("webhook", "signature verified", "answered 503 on purpose", f"  {chat:<8} ❌ ")
    )
