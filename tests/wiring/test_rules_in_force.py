"""Which rules are in force, with real processes: files that are being written, and workers that disagree."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from bridge.cli.common import now_of
from bridge.record import rulesets
from bridge.record.polling import leases
from bridge.record.queries import gauges
from bridge.record.rulesets import RulesState
from tests.conftest import only_sqlite
from tests.support.stage import BUCKET, RULES, Stage
from tests.support.waiting import wait_until

ONE_RULE = RULES[: RULES.index('[[rule]]\nname = "over"')]
NO_RULE = RULES[: RULES.index("[[rule]]")]
OTHER = RULES.replace('name = "everything"', 'name = "all of it"')
# Truncates the file, and writes it in portions.
WRITER = """
import sys, time
text = sys.stdin.read()
with open(sys.argv[1], "w") as file:
    for at in range(0, len(text), 40):
        file.write(text[at:at + 40])
        file.flush()
        time.sleep(0.3)
"""


@pytest.fixture
def stage(tmp_path: Path, db_url: str) -> Iterator[Stage]:
    with Stage(tmp_path, db_url) as stage:
        yield stage


def start(stage: Stage, rules: str | None = None) -> subprocess.Popen[bytes]:
    """Start a worker, perhaps with a rules file of its own, and wait until it is at work."""
    count, environ = stage.log.count("worker started"), {}
    if rules is not None:
        file = stage.folder / f"rules-{count}.toml"
        file.write_text(rules)
        environ = {"BRIDGE_RULES": str(file)}
    worker = stage.start_worker(**environ)
    await_log(stage, "worker started", count + 1)
    return worker


def await_log(stage: Stage, text: str, count: int = 1) -> None:
    wait_until(lambda: stage.log.count(text) >= count, why=lambda: stage.log)


def rule_of_new_job(stage: Stage) -> str:
    """Create a job, and return the first rule that notifies /cms of it."""
    job = stage.ci.create(BUCKET, "Transcode", "p1")

    def rules() -> list[str]:
        return [hook.json["data"]["rule"] for hook in stage.accepted["/cms"] if hook.json["subject"] == job]

    wait_until(rules, why=lambda: stage.log)
    return rules()[0]


def standing(stage: Stage) -> RulesState:
    now = now_of(stage.db)
    with stage.db.read() as tx:
        return rulesets.state(tx, now=now)


# --- a file that is being written -------------------------------------------------------------------------------


@only_sqlite
@pytest.mark.parametrize("emptied", ["", "# " + RULES.replace("\n", " "), NO_RULE])
def test_while_the_file_is_empty_the_old_rules_stay_in_force(stage: Stage, emptied: str) -> None:
    start(stage)
    stage.await_first_poll()
    stage.rules_file.write_text(emptied)
    wait_until(lambda: any(one.fault for one in standing(stage).workers), why=lambda: stage.log)
    assert "`ci-bridge rules reload --allow-empty`" in stage.log
    assert rule_of_new_job(stage) == "everything"
    doctor = stage.command("doctor")
    assert "keeps its old rules" in doctor.stdout
    stage.rules_file.write_text(OTHER)
    await_log(stage, "rules reloaded")
    assert rule_of_new_job(stage) == "all of it"


@only_sqlite
def test_nothing_is_missed_while_the_file_is_truncated_and_written_in_portions(stage: Stage) -> None:
    start(stage)
    stage.await_first_poll()
    command = [sys.executable, "-c", WRITER, str(stage.rules_file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as writer:
        assert writer.stdin
        writer.stdin.write(OTHER)
        writer.stdin.close()
        while writer.poll() is None:
            assert rule_of_new_job(stage) == "everything"
    await_log(stage, "rules reloaded")
    assert rule_of_new_job(stage) == "all of it"
    assert stage.log.count("rules reloaded") == 1
    assert "the old rules stay in force" not in stage.log


@only_sqlite
def test_sighup_makes_a_worker_load_the_file_as_it_is_now(stage: Stage) -> None:
    worker = start(stage)
    stage.await_first_poll()
    stage.rules_file.write_text(ONE_RULE)
    await_log(stage, "much of rules.toml disappeared")
    assert "2 of 3 rules disappeared" in stage.command("doctor").stdout
    worker.send_signal(signal.SIGHUP)
    await_log(stage, "rules reloaded")
    assert "loaded all the same" not in stage.log  # after thirty seconds it would have been
    assert stage.stop(worker) == 0


# --- rules reload -----------------------------------------------------------------------------------------------


def test_rules_reload_shows_which_workers_have_loaded_the_file(stage: Stage) -> None:
    first, _ = start(stage), start(stage)
    stage.rules_file.write_text(ONE_RULE)
    done = stage.command("rules", "reload", "--json")
    assert done.exit_code == 0, done.stdout + stage.log
    found = json.loads(done.stdout)
    assert [one["taken"] for one in found["workers"]] == [True, True]
    assert found["sha"] == found["in_force"] == standing(stage).sha
    assert stage.stop(first) == 0
    other = start(stage, OTHER)
    refused = stage.command("rules", "reload", "--wait", "3")
    assert refused.exit_code == 1
    assert f"process {other.pid}) has {standing(stage).sha}: " in refused.stderr


@only_sqlite
def test_rules_reload_refuses_a_wrong_or_emptied_file_unless_the_latter_is_allowed(stage: Stage) -> None:
    worker = start(stage)
    before = standing(stage).sha
    stage.rules_file.write_text("[[rule]]")
    assert stage.command("rules", "reload").exit_code == 1
    stage.rules_file.write_text(NO_RULE)
    refused = stage.command("rules", "reload")
    assert refused.exit_code == 1
    assert "there is no [[rule]] any more" in refused.stderr
    assert standing(stage).sha == before
    done = stage.command("rules", "reload", "--allow-empty")
    assert done.exit_code == 0, done.stdout + stage.log
    assert "has loaded it" in done.stdout
    assert standing(stage).sha != before
    assert stage.stop(worker) == 0
    assert stage.stop(start(stage)) == 0  # it is remembered


@only_sqlite
def test_rules_reload_without_a_worker_says_so(stage: Stage) -> None:
    done = stage.command("rules", "reload")
    assert (done.exit_code, "no worker is running" in done.stdout) == (0, True)
    done = stage.command("rules", "reload", BRIDGE_RULES_TOML=RULES)
    assert (done.exit_code, "restart them" in done.stderr) == (1, True)


# --- starting ---------------------------------------------------------------------------------------------------


@only_sqlite
def test_a_start_with_an_emptied_file_is_refused(stage: Stage) -> None:
    assert stage.stop(start(stage)) == 0
    for rules, said in (("", "no [[watch]] and no [[rule]] any more"), (NO_RULE, "no [[rule]] any more")):
        stage.rules_file.write_text(rules)
        done = stage.command("worker")
        assert done.exit_code == 1
        assert f"there is {said}" in done.stderr
        assert said in stage.command("doctor").stdout


@only_sqlite
@pytest.mark.parametrize("command", ["run", "worker", "poll", "rules check"])
def test_rules_in_the_environment_that_are_one_long_comment_are_refused(stage: Stage, command: str) -> None:
    done = stage.command(*command.split(), BRIDGE_RULES_TOML="# " + RULES.replace("\n", " "))
    assert done.exit_code == 1
    assert "BRIDGE_RULES_TOML:1: there is no [[watch]] and no [[rule]]" in done.stderr
    assert "line ends" in done.stderr


@only_sqlite
def test_a_start_that_fails_puts_no_rules_in_force(stage: Stage) -> None:
    start(stage)
    before = standing(stage).sha
    done = stage.command("run", PORT=str(stage.receiver.port), BRIDGE_RULES_TOML=OTHER)
    assert done.exit_code == 1
    assert "cannot listen" in done.stderr
    assert standing(stage).sha == before


# --- workers that do not agree ----------------------------------------------------------------------------------


def test_of_two_workers_with_different_rules_the_last_one_started_polls_and_both_send(stage: Stage) -> None:
    old = start(stage)
    stage.await_first_poll()
    assert rule_of_new_job(stage) == "everything"
    new = start(stage, OTHER)
    await_log(stage, "this worker goes on sending, but does not poll")
    assert [rule_of_new_job(stage) for _ in range(5)] == ["all of it"] * 5
    new.kill()
    done = stage.command("notifier", "test", "cms", "--wait", "50")
    assert done.exit_code == 0, stage.log
    # Going back: the old file is what a worker starts with.
    again = start(stage)
    assert rule_of_new_job(stage) == "everything"
    assert [stage.stop(one) for one in (old, again)] == [0, 0]


@only_sqlite
def test_a_worker_removes_a_silent_one_which_comes_back_with_its_next_sign_of_life(stage: Stage) -> None:
    """Not only a restart on the same machine does."""
    now = now_of(stage.db)
    with stage.db.write() as tx:
        leases.register(tx, "silent", machine="another", pid=1, now=now - timedelta(minutes=11))

    def known() -> list[str]:
        with stage.db.read() as tx:
            return [one["id"] for one in gauges.read_workers(tx)]

    worker = start(stage)
    wait_until(lambda: len(known()) == 1, why=known)
    (alive,) = known()
    assert alive != "silent"
    with stage.db.write() as tx:
        leases.unregister(tx, alive)  # as another does that has heard nothing of it
    worker.send_signal(signal.SIGHUP)  # it says then which rules it has, without waiting for its next sign of life
    wait_until(lambda: known() == [alive], why=lambda: stage.log)


@only_sqlite
def test_a_single_poll_by_other_rules_is_refused_while_workers_run(stage: Stage) -> None:
    assert stage.command("poll").exit_code == 0
    worker = start(stage)
    assert stage.command("poll").exit_code == 0
    refused = stage.command("poll", BRIDGE_RULES_TOML=OTHER)
    assert refused.exit_code == 1
    assert "not polled: live workers (1) use the rules" in refused.stderr
    assert stage.stop(worker) == 0
    polled = stage.command("poll", BRIDGE_RULES_TOML=OTHER)
    assert polled.exit_code == 0, polled.stderr
