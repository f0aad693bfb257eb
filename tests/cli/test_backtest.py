"""`rules backtest` on the command line."""

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
from tests.support.nouns import Clock, a_listed_job, a_step, hours, minutes
from tests.support.rig import GIVEN, Rig

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
    """A folder with the rules in force, and a database with an hour of history."""

    folder: Path
    db: Database
    rig: Rig

    @property
    def environ(self) -> dict[str, str]:
        return {"DATABASE_URL": self.db.url.render_as_string(), "BRIDGE_RULES": str(self.folder / "rules.toml")}

    def write(self, name: str, rules: str) -> str:
        (self.folder / name).write_text(GIVEN + rules)
        return str(self.folder / name)

    def call(self, *words: str) -> Result:
        return call("rules", "backtest", *words, **self.environ)

    def json(self, *words: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.call(*words, "--json").stdout)
        return found


@pytest.fixture
def desk(db: Database, tmp_path: Path) -> Desk:
    rig = Rig(db, EVERY, Clock(datetime.now(UTC).replace(microsecond=0) - hours(1)))
    desk = Desk(tmp_path, db, rig)
    desk.write("rules.toml", EVERY)
    rig.poll()
    rig.clock.advance(minutes(1))
    rig.has("j1", RUNNING)
    rig.passes(minutes(30))
    rig.has("j1", SUCCESS)
    rig.passes(minutes(5))
    return desk


def test_the_rules_in_force_make_no_difference(desk: Desk) -> None:
    seen = desk.call("--fail-on-difference")
    assert (seen.exit_code, seen.stderr) == (0, "")
    head, _, columns, row, _, end = seen.stdout.splitlines()
    assert head.startswith("3 transitions from ")
    assert " ".join(columns.split()) == "RULE NOTIFIER SENT DIGEST MUTED SILENCED DROPPED BEFORE DIFFERENCE"
    assert " ".join(row.split()) == "every ops 2 0 0 0 0 2 sent none"
    assert end == "no difference"


def test_other_rules_are_compared_with_what_was_sent(desk: Desk) -> None:
    file = desk.write("new.toml", EVERY + 'group = { wait = "10m" }\n' + STUCK)
    seen = desk.call("--rules", file)
    assert (seen.exit_code, seen.stderr) == (0, "")
    assert "they were evaluated by one other ruleset" in seen.stdout
    lines = [" ".join(line.split()) for line in seen.stdout.splitlines()]
    assert "every ops 0 2 0 0 0 2 sent ~2" in lines
    assert "stuck (level) cms 1 0 0 0 0 none +1" in lines
    assert "stuck (recovery) cms 1 0 0 0 0 none +1" in lines
    assert "2 added, 2 changed:" in lines
    assert [line.partition(" ")[2] for line in lines if "nothing" in line] == [
        "j1 new -> Running stuck (level) cms nothing sent, repeated 2x",
        "j1 Running -> Success stuck (recovery) cms nothing sent",
    ]


def test_it_says_that_throttles_are_not_replayed(desk: Desk) -> None:
    seen = desk.call("--rules", desk.write("new.toml", EVERY + 'throttle = "1/1h"\n'), "--fail-on-difference")
    assert seen.exit_code == 0
    assert "throttles are not replayed: what one of these rules would hold counts as sent" in seen.stdout


def test_json_is_one_object(desk: Desk) -> None:
    file = desk.write("new.toml", EVERY.replace("ops", "cms"))
    found = desk.json("--rules", file, "--since", "2h")
    assert list(found) == [
        "window", "rules", "judged_by", "transitions", "transitions_not_compared", "stays_not_compared",
        "incidents_not_compared", "rows", "differences",
    ]  # fmt: skip
    assert found["transitions"] == 3  # with Submitted, which is inferred
    assert [(row["rule"], row["notifier"], row["told"], row["before"]["told"]) for row in found["rows"]] == [
        ("every", "cms", 2, 0),
        ("every", "ops", 0, 2),
    ]
    differences = found["differences"]
    assert (differences["added"], differences["removed"], differences["changed"]) == (2, 2, 0)
    first = differences["first"][0]
    assert (first["job"], first["from"], first["to"]) == ("j1", "new", "Running")
    assert {"fate": "told", "repeats": 0} in (first["before"], first["after"])


def test_a_difference_fails_only_if_requested(desk: Desk) -> None:
    file = desk.write("new.toml", EVERY.replace("ops", "cms"))
    assert desk.call("--rules", file).exit_code == 0
    assert desk.call("--rules", file, "--fail-on-difference").exit_code == 1
    assert desk.call("--rules", file, "--fail-on-difference", "--json").exit_code == 1


def test_since_bounds_the_transitions(desk: Desk) -> None:
    assert desk.json("--since", "26m")["transitions"] == 1
    assert "but only this much is kept" in desk.call("--since", "90d").stdout
    seen = desk.call("--since", "yesterday")
    assert seen.exit_code == 2
    assert '"yesterday" is not a time' in seen.stderr


def test_a_wrong_file_is_refused(desk: Desk) -> None:
    file = desk.write("new.toml", '[[rule]]\nname = "x"\nnotify = "nobody"\n')
    line = Path(file).read_text().splitlines().index('notify = "nobody"') + 1
    seen = desk.call("--rules", file)
    assert (seen.exit_code, seen.stdout) == (1, "")
    assert f'{file}:{line}: rule "x", key "notify": there is no notifier "nobody"' in seen.stderr


def test_a_file_with_unset_variables_is_refused_with_what_to_do(desk: Desk) -> None:
    rules = EVERY + '[notifier.new]\ntype = "webhook"\nurl = { env = "NEW_URL" }\n'
    seen = desk.call("--rules", desk.write("new.toml", rules))
    assert seen.exit_code == 1
    assert "environment variable NEW_URL is not set" in seen.stderr
    assert "any well-formed value will do here" in seen.stderr


def test_nothing_is_written_and_nothing_is_sent(desk: Desk) -> None:
    before = _dump(desk.db)
    desk.call("--rules", desk.write("new.toml", STUCK))
    assert _dump(desk.db) == before


def _dump(db: Database) -> list[str]:
    with db.read() as tx:
        return list(tx.connection.driver_connection.iterdump())  # type: ignore[union-attr]  # sqlite3's own


def test_a_long_history_shows_progress_on_a_terminal_only(desk: Desk) -> None:
    seen_at = datetime.now(UTC) - minutes(2)
    steps = [a_step(a_listed_job(f"many{number}"), seen_at=seen_at) for number in range(2_100)]
    with desk.db.write() as tx:
        snapshots.add_transitions(tx, [(step, [("every", ["ops"])]) for step in steps])
    assert desk.call().stderr == ""
    shown, code = _on_a_terminal(
        [sys.executable, "-m", "bridge", "rules", "backtest", "--json"], os.environ | desk.environ
    )
    assert code == 0
    assert "2103/2103" in shown


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
