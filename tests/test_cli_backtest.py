"""`ci-bridge rules backtest`, as a person calls it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from bridge.model import RUNNING, SUCCESS
from bridge.record.database import Database
from bridge.record.polling import snapshots
from tests.conftest import only_sqlite
from tests.support.commands import REPOSITORY, call
from tests.support.records import Clock, a_listed_job, a_step, hours, minutes
from tests.support.simulated_bridge import GIVEN, House

pytestmark = only_sqlite

EVERY = """
[[rule]]
name = "every"
notify = "ops"
"""
STUCK = """
[[rule]]
name = "stuck"
in = "Running"
for = "10m"
repeat = "10m"
recover = true
notify = "cms"
"""


@dataclass
class Desk:
    """A person at a terminal, in a folder with the rules in force and a database with an hour of history."""

    folder: Path
    db: Database
    house: House

    def environ(self) -> dict[str, str]:
        known = {"DATABASE_URL": self.db.url.render_as_string(), "BRIDGE_RULES": str(self.folder / "rules.toml")}
        return os.environ | known

    def write(self, name: str, rules: str) -> str:
        (self.folder / name).write_text(GIVEN + rules)
        return str(self.folder / name)

    def call(self, *words: str) -> Result:
        known = {"DATABASE_URL": self.db.url.render_as_string(), "BRIDGE_RULES": str(self.folder / "rules.toml")}
        return call("rules", "backtest", *words, **known)


@pytest.fixture
def desk(db: Database, tmp_path: Path) -> Desk:
    house = House(db, EVERY, Clock(datetime.now(UTC).replace(microsecond=0) - hours(1)))
    desk = Desk(tmp_path, db, house)
    desk.write("rules.toml", EVERY)
    house.poll()
    house.clock.advance(minutes(1))
    house.has("j1", RUNNING)
    house.passes(minutes(30))
    house.has("j1", SUCCESS)
    house.passes(minutes(5))
    return desk


def words_of(line: str) -> list[str]:
    return line.split()


def test_the_rules_in_force_differ_in_nothing(desk: Desk) -> None:
    seen = desk.call("--fail-on-difference")
    assert (seen.exit_code, seen.stderr) == (0, "")
    head, _, columns, row, _, end = seen.stdout.splitlines()
    assert head.startswith("2 transitions from ")
    assert words_of(columns) == [
        "RULE", "NOTIFIER", "TOLD", "GROUPED", "MUTED", "SILENCED", "DROPPED", "BEFORE", "DIFFERENCE",
    ]  # fmt: skip
    assert words_of(row) == ["every", "ops", "2", "0", "0", "0", "0", "2", "told", "none"]
    assert end == "no difference"


def test_other_rules_are_compared_with_what_was_told(desk: Desk) -> None:
    file = desk.write("new.toml", EVERY + 'group = { wait = "10m" }\n' + STUCK)
    seen = desk.call("--rules", file)
    assert (seen.exit_code, seen.stderr) == (0, "")
    assert "they were judged by one other ruleset" in seen.stdout
    lines = [words_of(line) for line in seen.stdout.splitlines()]
    assert ["every", "ops", "0", "2", "0", "0", "0", "2", "told", "~2"] in lines
    assert ["stuck", "(level)", "cms", "1", "0", "0", "0", "0", "none", "+1"] in lines
    assert ["stuck", "(recovery)", "cms", "1", "0", "0", "0", "0", "none", "+1"] in lines
    assert ["2", "added,", "2", "changed:"] in lines
    assert [line[1:] for line in lines if "nothing" in line] == [
        ["j1", "new", "->", "Running", "stuck", "(level)", "cms", "nothing", "told,", "repeated", "2x"],
        ["j1", "Running", "->", "Success", "stuck", "(recovery)", "cms", "nothing", "told"],
    ]


def test_rules_with_a_throttle_say_what_is_not_replayed(desk: Desk) -> None:
    seen = desk.call("--rules", desk.write("new.toml", EVERY + 'throttle = "1/1h"\n'), "--fail-on-difference")
    assert seen.exit_code == 0
    assert "throttles are not replayed: what one of these rules would hold counts as told" in seen.stdout


def test_json_is_one_object(desk: Desk) -> None:
    file = desk.write("new.toml", EVERY.replace("ops", "cms"))
    found: dict[str, Any] = json.loads(desk.call("--rules", file, "--json", "--since", "2h").stdout)
    assert list(found) == [
        "window", "rules", "judged_by", "transitions", "transitions_not_compared", "stays_not_compared", "rows",
        "differences",
    ]  # fmt: skip
    assert found["transitions"] == 2
    assert [(row["rule"], row["notifier"], row["told"], row["before"]["told"]) for row in found["rows"]] == [
        ("every", "cms", 2, 0),
        ("every", "ops", 0, 2),
    ]
    differences = found["differences"]
    assert (differences["added"], differences["removed"], differences["changed"]) == (2, 2, 0)
    first = differences["first"][0]
    assert (first["job"], first["from"], first["to"]) == ("j1", "new", "Running")
    assert {"fate": "told", "repeats": 0} in (first["before"], first["after"])


def test_a_difference_fails_where_that_is_asked_for(desk: Desk) -> None:
    file = desk.write("new.toml", EVERY.replace("ops", "cms"))
    assert desk.call("--rules", file).exit_code == 0
    assert desk.call("--rules", file, "--fail-on-difference").exit_code == 1
    assert desk.call("--rules", file, "--fail-on-difference", "--json").exit_code == 1


def test_what_came_before_is_left_out(desk: Desk) -> None:
    found = json.loads(desk.call("--since", "26m", "--json").stdout)
    assert found["transitions"] == 1


def test_a_time_that_is_none_is_a_usage_error(desk: Desk) -> None:
    seen = desk.call("--since", "yesterday")
    assert seen.exit_code == 2
    assert '"yesterday" is not a time' in seen.stderr


def test_more_than_is_kept_is_said(desk: Desk) -> None:
    seen = desk.call("--since", "90d")
    assert "but only this much is kept" in seen.stdout


def test_a_file_that_is_wrong_is_refused_whole(desk: Desk) -> None:
    file = desk.write("new.toml", '[[rule]]\nname = "x"\nnotify = "nobody"\n')
    line = Path(file).read_text().splitlines().index('notify = "nobody"') + 1
    seen = desk.call("--rules", file)
    assert (seen.exit_code, seen.stdout) == (1, "")
    assert f'{file}:{line}: rule "x", key "notify": there is no notifier "nobody"' in seen.stderr


def test_a_file_whose_secrets_are_not_here_says_how_to_try_it_all_the_same(desk: Desk) -> None:
    rules = EVERY + '[notifier.new]\ntype = "webhook"\nurl = { env = "NEW_URL" }\n'
    seen = desk.call("--rules", desk.write("new.toml", rules))
    assert seen.exit_code == 1
    assert "environment variable NEW_URL is not set" in seen.stderr
    assert "give these variables any value of the right form, nothing is sent" in seen.stderr


def test_nothing_is_written_and_nothing_is_sent(desk: Desk) -> None:
    before = _dump(desk.db)
    desk.call("--rules", desk.write("new.toml", STUCK))
    assert _dump(desk.db) == before


def _dump(db: Database) -> list[str]:
    with db.read() as tx:
        return list(tx.connection.driver_connection.iterdump())  # type: ignore[union-attr]  # sqlite3's own


def test_a_long_history_shows_how_far_it_is_to_a_person_only(desk: Desk) -> None:
    seen_at = datetime.now(UTC) - minutes(2)
    steps = [a_step(a_listed_job(f"many{number}"), seen_at=seen_at) for number in range(2_100)]
    with desk.db.write() as tx:
        snapshots.add_transitions(tx, [(step, [("every", ["ops"])]) for step in steps])
    assert desk.call().stderr == ""
    shown, code = _on_a_terminal([sys.executable, "-m", "bridge", "rules", "backtest", "--json"], desk.environ())
    assert code == 0
    assert "2102/2102" in shown


def _on_a_terminal(command: list[str], environ: dict[str, str]) -> tuple[str, int]:
    """Run a command whose standard error is a terminal; return what that shows, and the exit status."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(command, env=environ, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # Linux says so that the other end is closed
        pass
    os.close(ours)
    return shown.decode(), child.wait(60)
