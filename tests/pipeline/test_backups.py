"""A backup, made as docs/operations.md says, is restored: the ends of jobs have the ids that they had."""

from __future__ import annotations

import re
import shlex
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import Opener
from tests.support.commands import REPOSITORY
from tests.support.nouns import minutes
from tests.support.rig import Rig

RULES = """
[[rule]]
name = "everything"
notify = "cms"
[[rule]]
name = "stuck"
in = "Running"
for = "10m"
recover = true
notify = "ops"
"""


def _commands() -> list[str]:
    shown = (REPOSITORY / "docs/operations.md").read_text()
    return sorted({shlex.split(line)[2] for line in re.findall(r'sqlite3 bridge\.db "[^"]+"', shown)})


def _back_up(file: Path, command: str, into: Path) -> None:
    """Do what `sqlite3 bridge.db COMMAND` does."""
    with closing(sqlite3.connect(file)) as db:
        if command.startswith(".backup"):
            with closing(sqlite3.connect(into)) as copy:
                db.backup(copy)
        else:
            db.execute(command.replace("backup.db", str(into)))


@pytest.mark.parametrize("command", _commands())
@pytest.mark.parametrize("end", ["Success", "Failed", "Cancel"])
def test_the_end_of_a_job_is_told_again_under_the_id_that_it_had(
    sqlite_url: str, opened: Opener, tmp_path: Path, command: str, end: str
) -> None:
    file, backup = Path(sqlite_url.removeprefix("sqlite:///")), tmp_path / "copy.db"
    rig = Rig(opened(sqlite_url), RULES)
    rig.poll()
    rig.has("j1", "Submitted")
    rig.passes(minutes(5))
    rig.has("j1", "Running")
    rig.passes(minutes(15))
    _back_up(file, command, backup)
    rig.has("j1", "Pause")  # a transition that the restored bridge never sees
    rig.passes(minutes(5))
    rig.has("j1", "Running")
    rig.passes(minutes(15))
    rig.has("j1", end)
    rig.passes(minutes(5))
    told = _ends(rig, end)
    assert {notifier for notifier, _ in told} == {"cms", "ops"}
    rig.db.close()
    for left in file.parent.glob("bridge.db*"):
        left.unlink()
    shutil.copy(backup, file)
    rig.db = opened(sqlite_url)
    rig.transport.begun.clear()
    rig.start()
    rig.passes(minutes(10))
    assert _ends(rig, end) == told


def _ends(rig: Rig, end: str) -> set[tuple[str, str]]:
    return {(one.notifier, one.id) for one in rig.transport.begun if f'"to":"{end}"' in one.event.replace(": ", ":")}


def test_both_ways_to_make_a_backup_are_shown() -> None:
    assert [command.split()[0] for command in _commands()] == [".backup", "VACUUM"]
