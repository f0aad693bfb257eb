"""`list --follow`: which rows are printed and when it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from bridge.cli.follow import NewRows
from bridge.record.database import Database
from bridge.record.polling import snapshots
from bridge.record.queries import lists
from bridge.record.queries.lists import Cursor, Filter, Found
from tests.conftest import only_postgresql
from tests.support.commands import REPOSITORY
from tests.support.nouns import NOON, a_job, a_transition
from tests.support.waiting import wait_until


def seen(db: Database, id_: str, state: str = "Running", after_s: float = 0) -> None:
    """Record that a poll saw a job in a state."""
    job, now = a_job(id=id_, state=state), NOON + timedelta(seconds=after_s)
    with db.write() as tx:
        step = a_transition(job)
        snapshots.save(tx, [job], [step], {}, stream="s", streams=["s"], now=now)
        snapshots.add_transitions(tx, [(step, [])])


class Following:
    """A command that follows, and the lines that it has printed."""

    def __init__(self, url: str, folder: Path, *words: str) -> None:
        self.out, self.err = folder / "out", folder / "err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bridge", *words], cwd=REPOSITORY, env=os.environ | {"DATABASE_URL": url},
                stdout=out, stderr=err,
            )  # fmt: skip

    def lines(self) -> list[str]:
        return self.out.read_text().splitlines()

    def await_lines(self, count: int) -> list[str]:
        wait_until(lambda: len(self.lines()) >= count, why=self.err.read_text)
        return self.lines()


@contextmanager
def following(url: str, folder: Path, *words: str) -> Iterator[Following]:
    followed = Following(url, folder, *words)
    try:
        yield followed
    finally:
        followed.process.kill()
        followed.process.wait()


@pytest.mark.parametrize("words", ["jobs list", "transitions list"])
def test_new_rows_follow_those_there_were_the_newest_last(
    db: Database, db_url: str, tmp_path: Path, words: str
) -> None:
    for number in range(3):
        seen(db, f"j{number}")
    with following(db_url, tmp_path, *words.split(), "-f", "--json", "--limit", "2") as followed:
        key = "id" if words == "jobs list" else "job"
        assert [json.loads(line)[key] for line in followed.await_lines(2)] == ["j1", "j2"]
        seen(db, "j3", after_s=1)
        assert json.loads(followed.await_lines(3)[2])[key] == "j3"
        followed.process.send_signal(signal.SIGINT)
        assert followed.process.wait(30) == 0
        assert len(followed.lines()) == 3
        assert followed.err.read_text() == ""


def test_a_table_goes_on_under_its_head(db: Database, db_url: str, tmp_path: Path) -> None:
    seen(db, "j1")
    with following(db_url, tmp_path, "jobs", "list", "-f") as followed:
        head, first = followed.await_lines(2)
        seen(db, "j2")
        third = followed.await_lines(3)[2]
    at = head.index("STATE")
    assert (first[at : at + 7], third[at : at + 7]) == ("Running", "Running")
    assert "ago" not in third


def test_it_ends_when_nobody_reads_it_although_no_row_comes(db: Database, db_url: str) -> None:
    seen(db, "j1")
    process = subprocess.Popen(
        [sys.executable, "-m", "bridge", "jobs", "list", "-f", "--json"], cwd=REPOSITORY,
        env=os.environ | {"DATABASE_URL": db_url}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    assert process.stderr
    assert json.loads(process.stdout.readline())["id"] == "j1"
    process.stdout.close()
    assert process.wait(30) == 0
    assert process.stderr.read() == ""
    process.stderr.close()


@only_postgresql
def test_a_database_that_was_away_is_said_once_and_asked_again(db: Database, db_url: str, tmp_path: Path) -> None:
    seen(db, "j1")
    url = make_url(db_url).set(drivername="postgresql")
    server = psycopg.connect(url.set(database="postgres").render_as_string(hide_password=False), autocommit=True)
    with server, following(db_url, tmp_path, "jobs", "list", "-f", "--json") as followed:
        followed.await_lines(1)
        server.execute(f'ALTER DATABASE "{url.database}" ALLOW_CONNECTIONS false'.encode())
        try:
            ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
            server.execute(ends.encode(), [url.database])
            wait_until(lambda: "trying again" in followed.err.read_text(), why=followed.err.read_text)
        finally:
            server.execute(f'ALTER DATABASE "{url.database}" ALLOW_CONNECTIONS true'.encode())
        db.engine.dispose()
        seen(db, "j2")
        assert json.loads(followed.await_lines(2)[1])["id"] == "j2"
        assert followed.err.read_text().count("trying again") == 1
        assert "the database answers again" in followed.err.read_text()


# --- which rows are new ----------------------------------------------------------------------------------------------


def pages(rows: list[lists.Facts], size: int = 3) -> Callable[..., Found]:
    """Return a query of these rows, the newest first, in pages of `size`."""

    def query(_tx: object, _which: Filter, *, cursor: Cursor | None = None, limit: int = 0) -> Found:
        start = cursor.when if cursor else 0
        end = start + size
        return Found(rows[start:end], Cursor(end) if end < len(rows) else None)

    return query


def a_row(number: int, sequence: int = 1) -> lists.Facts:
    return {"bucket": "b", "id": f"j{number}", "sequence": sequence, "created_at": f"2026-11-21T09:{number:02}:00.000Z"}


def ids(rows: list[lists.Facts]) -> list[str]:
    return [row["id"] for row in rows]


def test_more_new_rows_than_a_page_are_all_found() -> None:
    rows = [a_row(number) for number in range(10, 0, -1)]
    new = NewRows(pages(rows), Filter())
    assert ids(new.read(None)) == ["j8", "j9", "j10"]
    rows[:0] = [a_row(number) for number in range(18, 10, -1)]
    assert ids(new.read(None)) == [f"j{number}" for number in range(11, 19)]
    assert new.read(None) == []


def test_old_rows_are_not_new_when_others_are_pruned() -> None:
    rows = [a_row(number) for number in range(10, 0, -1)]
    new = NewRows(pages(rows), Filter())
    new.read(None)
    del rows[:2]
    assert new.read(None) == []


def test_a_job_whose_state_has_changed_is_a_new_row() -> None:
    rows = [a_row(2), a_row(1)]
    new = NewRows(pages(rows), Filter())
    new.read(None)
    rows[1] = a_row(1, sequence=2)
    assert ids(new.read(None)) == ["j1"]
