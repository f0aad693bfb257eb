"""The command line, as a person calls it."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import update

from bridge.cli import main
from bridge.decide.messages.build import address
from bridge.decide.messages.build import test_message as a_test_message
from bridge.model import Problem, WebhookNotifier
from bridge.record.outbox import entries
from bridge.record.polling import problems, snapshots
from bridge.record.queries import lists
from bridge.record.schema import DEAD, delivery
from bridge.simulator.receiver import Received
from tests.support.commands import REPOSITORY, call, run
from tests.support.nouns import NOON, a_job
from tests.support.stage import BUCKET, Stage
from tests.support.waiting import wait_until


@pytest.fixture
def stage(tmp_path: Path, sqlite_url: str) -> Stage:
    return Stage(tmp_path, sqlite_url)


def test_help_loads_neither_sqlalchemy_nor_flask_nor_alembic() -> None:
    seen = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "bridge", "--help"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "First steps" in seen.stdout
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in seen.stderr.splitlines()}
    assert "click" in loaded
    assert not loaded & {"sqlalchemy", "flask", "alembic", "pydantic", "pycurl", "requests"}


@pytest.mark.parametrize("command", main.list_commands(None))  # type: ignore[arg-type]  # it asks for none
def test_every_command_has_help(command: str) -> None:
    seen = call(command, "--help")
    assert seen.exit_code == 0
    assert seen.stdout.startswith("Usage:")


def test_an_unknown_command_is_a_usage_error() -> None:
    seen = run("pol")
    assert seen.returncode == 2
    assert "No such command" in seen.stderr


def test_every_wrong_variable_is_named_at_once() -> None:
    seen = run("worker", PORT="http", LOG_LEVEL="loud", BRIDGE_ALLOW_NETWORKS="10.0.0.1/8")
    assert seen.returncode == 1
    assert [line for line in ("PORT", "LOG_LEVEL", "BRIDGE_ALLOW_NETWORKS") if line in seen.stderr] == [
        "PORT",
        "LOG_LEVEL",
        "BRIDGE_ALLOW_NETWORKS",
    ]
    assert "Traceback" not in seen.stderr


@pytest.mark.parametrize("platform", ["DYNO", "RENDER", "RAILWAY_PROJECT_ID"])
def test_sqlite_is_refused_where_the_disk_is_not_kept(platform: str) -> None:
    seen = call("worker", **{platform: "web.1", "DATABASE_URL": ""})
    assert seen.exit_code == 1
    assert "add a PostgreSQL database" in seen.stderr


def test_rules_check_lists_every_fault_as_json(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[[rule]]\nname = "a"\nto = "Sucess"\nnotify = "x"\n')
    seen = call("rules", "check", str(file), "--json")
    assert seen.exit_code == 1
    assert [(fault["line"], fault["level"]) for fault in json.loads(seen.stdout) if fault["level"] == "error"] == [
        (3, "error"),
        (4, "error"),
    ]


def test_a_poll_and_the_lists_tell_what_ci_has(stage: Stage) -> None:
    with stage:
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
        (delivery,) = json.loads(stage.command("deliveries", "list", "--json").stdout)
        assert json.loads(stage.command("deliveries", "show", delivery["id"], "--json").stdout)["state"] == "waiting"
        explained = stage.command("rules", "explain", job).stdout
        assert 'yes  rule "everything"' in explained
        assert 'no   rule "failed"' in explained
        assert delivery["id"] in explained


def test_explaining_a_job_that_nobody_saw_says_so(stage: Stage) -> None:
    with stage:
        seen = stage.command("rules", "explain", "j404")
        assert seen.exit_code == 1
        assert 'no job "j404" is on record' in seen.stderr


def test_a_test_message_goes_through_the_outbox_and_its_outcome_is_shown(stage: Stage) -> None:
    with stage:
        waits = stage.command("notifier", "test", "cms", "--wait", "0")
        assert waits.exit_code == 1
        assert "no worker runs" in waits.stderr
        stage.start_worker()
        stage.await_first_poll()
        arrived = stage.command("notifier", "test", "next", "--json")
        assert arrived.exit_code == 0, arrived.stderr
        facts = json.loads(arrived.stdout)
        wait_until(lambda: [one.id for one in stage.accepted["/next"]] == [facts["id"]])
        assert facts["state"] == "sent"
        assert stage.accepted["/next"][0].verified


def test_a_dead_delivery_is_sent_again_under_its_id(stage: Stage) -> None:
    with stage:
        target = stage.environ["CMS_URL"]
        stage.environ["CMS_URL"] = "http://127.0.0.2/"  # not among the networks that this stage allows below
        worker = stage.start_worker(BRIDGE_ALLOW_NETWORKS="127.0.0.1/32")
        stage.await_first_poll()
        stage.ci.create(BUCKET, "Transcode", "p1")
        wait_until(lambda: stage.deliveries(state="dead"), why=lambda: stage.log)
        assert stage.stop(worker) == 0
        stage.environ["CMS_URL"] = target
        (dead,) = stage.deliveries(state="dead")
        assert (
            "1 delivery would be resent"
            in stage.command("deliveries", "redrive", "--notifier", "cms", "--dry-run").stderr
        )
        assert stage.deliveries(state="dead") == [dead]
        assert stage.command("deliveries", "redrive", "--notifier", "cms").exit_code == 0
        stage.start_worker()
        wait_until(lambda: [one.id for one in stage.accepted["/cms"]] == [dead["id"]], why=lambda: stage.log)


def test_all_dead_deliveries_are_sent_again_however_many_there_are(stage: Stage) -> None:
    with stage:
        count = lists.MOST + 60
        _bury(stage, count)
        which = stage.command("deliveries", "redrive", "--notifier", "cms", "--dry-run")
        assert len(which.stdout.splitlines()) == 1 + 50
        assert f"... and {count - 50} more\n{count} deliveries would be resent" in which.stderr
        given = stage.command("deliveries", "redrive", "--notifier", "cms")
        assert f"{count} deliveries to be resent, the last at " in given.stderr
        assert "no worker runs" in given.stderr
        assert stage.deliveries(state="dead") == []
        assert len(stage.deliveries(state="waiting")) == count


def _bury(stage: Stage, count: int) -> None:
    notifier = WebhookNotifier(name="cms", url="https://cms.example.com/")
    told = [address(a_test_message("cms", nonce=str(n), now=NOON), notifier) for n in range(count)]
    with stage.db.write() as tx:
        entries.put(tx, told, now=NOON)
        tx.execute(update(delivery).values(state=DEAD, ended_at=0))


def test_a_job_whose_id_is_in_two_buckets_is_shown_by_bucket(stage: Stage) -> None:
    with stage:
        jobs = [a_job(bucket=bucket) for bucket in ("a-1250000000", "b-1250000000")]
        with stage.db.write() as tx:
            snapshots.save(tx, jobs, [], {}, stream="s", streams=["s"], now=NOON)
        both = stage.command("jobs", "show", "j1", "--json")
        assert (both.exit_code, both.stdout) == (1, "")
        assert "add --bucket with one of: a-1250000000, b-1250000000" in both.stderr
        one = stage.command("jobs", "show", "j1", "--bucket", "b-1250000000", "--json")
        assert json.loads(one.stdout)["bucket"] == "b-1250000000"
        assert 'no job "j1" has been seen in bucket c' in stage.command("jobs", "show", "j1", "--bucket", "c").stderr


def test_what_cannot_be_read_is_told_of_a_job_and_by_doctor(stage: Stage) -> None:
    odd = Problem(job_id="j1", field="EndTime", value="null\x1b[31m")
    left_out = Problem(job_id="j2", field="State", value="", left_out=True)
    with stage:
        with stage.db.write() as tx:
            snapshots.save(tx, [a_job(bucket=BUCKET)], [], {}, stream="s", streams=["s"], now=NOON)
            problems.record(tx, BUCKET, "s", ["j1"], [odd, left_out], now=NOON)
        shown = stage.command("jobs", "show", "j1").stdout
        assert re.search(r"problems:\n.*\nEndTime +null", shown)
        assert "\x1b" not in shown
        assert 'job "j2" in bucket' in stage.command("jobs", "show", "j2").stderr
        assert "warn  jobs: 1 left out, 1 with a field that cannot be read" in stage.process("doctor").stdout


@pytest.mark.parametrize("state", ["done", "Active", "*"])
def test_a_set_of_states_is_no_state_to_list(state: str) -> None:
    seen = call("transitions", "list", "--state", state)
    assert seen.exit_code == 2
    assert f'"{state}" is a set of states' in seen.stderr


COMMANDS_THAT_READ_THE_RULES = [
    ("doctor",),
    ("run",),
    ("worker",),
    ("poll",),
    ("rules", "check"),
    ("rules", "explain", "j1"),
    ("notifier", "test", "cms"),
]


@pytest.mark.parametrize("words", COMMANDS_THAT_READ_THE_RULES)
def test_rules_that_are_a_folder_are_told_in_words(words: tuple[str, ...], tmp_path: Path) -> None:
    key = {"TENCENTCLOUD_SECRET_ID": "AKIDx", "TENCENTCLOUD_SECRET_KEY": "x"}
    seen = call(*words, BRIDGE_RULES=str(tmp_path), DATABASE_URL=f"sqlite:///{tmp_path / 'b.db'}", **key)
    assert seen.exit_code == 1
    assert f"{tmp_path}:1: cannot be read: Is a directory" in seen.stdout + seen.stderr


@pytest.mark.parametrize("words", [("db", "upgrade"), ("jobs", "list"), ("worker",), ("doctor",)])
def test_a_database_in_a_folder_that_is_not_there_is_told_in_words(words: tuple[str, ...]) -> None:
    key = {"TENCENTCLOUD_SECRET_ID": "AKIDx", "TENCENTCLOUD_SECRET_KEY": "x"}
    known = {"BRIDGE_RULES_TOML": "[defaults]\n", **key}
    seen = call(*words, DATABASE_URL="sqlite:////proc/nope/b.db", **known)
    assert seen.exit_code == 1
    assert "DATABASE_URL: there is no folder /proc/nope" in seen.stdout + seen.stderr


def test_a_time_further_back_than_anything_is_told_in_words() -> None:
    seen = call("jobs", "list", "--since", "99999999999d")
    assert seen.exit_code == 2
    assert "a duration is more than nothing and at most ten years" in seen.stderr


def test_sigterm_ends_a_worker_that_hangs_in_its_database(stage: Stage) -> None:
    with stage, closing(sqlite3.connect(stage.folder / "bridge.db", check_same_thread=False)) as other:

        def lock(_: Received) -> None:
            other.execute("BEGIN IMMEDIATE")  # what the receiver now accepts cannot be recorded

        worker = stage.start_worker()
        stage.await_first_poll()
        stage.refuse = lock
        stage.ci.create(BUCKET, "Transcode", "p1")
        wait_until(lambda: stage.accepted["/cms"], why=lambda: stage.log)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(25) == 0
        assert "stopped at the limit" in stage.log


def test_doctor_says_what_is_well_and_what_is_not(stage: Stage) -> None:
    with stage:
        well = stage.process("doctor", "--json")
        assert well.returncode == 0, well.stdout
        names = {check["name"] for check in json.loads(well.stdout)}
        assert {"database", "rules", "watch media, Transcode", "notifier ops", "notifier cms"} <= names
        text = stage.command("doctor").stdout
        assert "warn  worker: no worker runs: start `ci-bridge worker`, or `run`" in text
        assert re.search(r"`ci-bridge run` works, with \d+ warnings", text)
        assert "All is well" not in text
        ill = stage.process("doctor", TENCENTCLOUD_SECRET_KEY="wrong", SLACK_BOT_TOKEN="xoxb-unknown")
        assert ill.returncode == 1
        assert re.search(r"FAIL  watch media, Transcode: .*SignatureDoesNotMatch", ill.stdout)
        assert re.search(r"FAIL  notifier ops: Slack refuses the token: invalid_auth", ill.stdout)


def test_the_demo_names_every_delivery_with_its_outcome_and_ends_well() -> None:
    seen = run("demo")
    assert seen.returncode == 0, seen.stdout + seen.stderr
    head, _, outcomes = seen.stdout.partition(" not arrived:\n")
    counted = re.search(r"(\d+) deliveries, 0$", head)
    assert counted
    lines = outcomes.splitlines()
    assert len(lines) == int(counted[1]) > 0
    assert all(re.match(r"  dlv_\w+ +(cms|ops) .* sent, \d+ tr", line) for line in lines)
    assert "webhook" in head
    assert "signature verified" in head
    assert "slack" in head
