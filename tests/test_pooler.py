"""A pooler between the bridge and PostgreSQL, which gives each transaction to another session."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from bridge.record.database import Database
from bridge.record.schema import HEAD
from tests.conftest import Opener, PostgresServer
from tests.crash.servers import open_folder, own_pooler
from tests.support.http import ask, free_port
from tests.support.stage import BUCKET, Stage
from tests.support.waiting import wait_until

TOKEN = "an-admin-token-of-the-tests"
_SETTINGS = ("idle_in_transaction_session_timeout", "statement_timeout")
SESSIONS = 5  # of the pooler
HOW_OFTEN = 3 * SESSIONS
PAGES = ("/readyz", "/metrics", "/api/v1/jobs", "/api/v1/transitions", "/api/v1/deliveries", "/api/v1/stats")


@pytest.fixture
def direct_url(postgres: PostgresServer) -> Iterator[str]:
    """The address of an empty database, as the pooler knows it."""
    with postgres.new() as name:
        postgres.do(f"ALTER DATABASE {name} SET statement_timeout = '5min'")
        yield postgres.url_of(name)


@pytest.fixture
def pooled_url(direct_url: str) -> Iterator[str]:
    with open_folder() as folder, own_pooler(folder, direct_url) as url:
        yield url


def test_worker_and_web_do_their_work_through_it_without_a_warning(
    tmp_path: Path, pooled_url: str, opened: Opener
) -> None:
    opened(pooled_url).upgrade()
    with Stage(tmp_path, pooled_url) as stage:
        assert stage.process("db", "upgrade").returncode == 0  # nothing is to be done, by a process of its own
        worker = stage.start_worker()
        port = free_port()
        web = stage.start_program(sys.executable, "-m", "bridge.web", PORT=str(port), BRIDGE_ADMIN_TOKEN=TOKEN)
        wait_until(lambda: ask(port, "/readyz", TOKEN).status == 200, why=lambda: stage.log)
        stage.await_first_poll()
        jobs = [stage.ci.create(BUCKET, "Transcode", "p1") for _ in range(30)]
        for state in ("Running", "Success"):
            wait_until(stage.is_quiet, why=lambda: stage.log)
            for job in jobs:
                stage.ci.move(job, state)
        wait_until(stage.is_quiet, why=lambda: stage.log)
        for _ in range(HOW_OFTEN):
            assert {path: ask(port, path, TOKEN).status for path in PAGES} == dict.fromkeys(PAGES, 200)
        assert [stage.stop(one) for one in (worker, web)] == [0, 0]
        assert stage.process("rules", "explain", jobs[0]).returncode == 0
        assert len(stage.accepted["/cms"]) == 3 * len(jobs)
        assert len(stage.accepted["/next"]) == len(jobs)
        assert [line for line in stage.log.splitlines() if "level=info" not in line] == []


def test_two_upgrades_at_once_through_it_both_succeed_and_leave_no_lock(
    direct_url: str, pooled_url: str, opened: Opener
) -> None:
    dbs = [opened(pooled_url), opened(pooled_url)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(Database.upgrade, dbs))
    assert [db.revision() for db in dbs] == [HEAD, HEAD]
    with psycopg.connect(direct_url) as look:
        locks = "SELECT 1 FROM pg_locks JOIN pg_database ON oid = database WHERE locktype = 'advisory' AND datname = "
        assert look.execute(f"{locks} current_database()".encode()).fetchall() == []


@pytest.mark.parametrize("query", ["", "?prepare_threshold=0"])
def test_nothing_is_left_in_the_sessions_that_others_get(pooled_url: str, opened: Opener, query: str) -> None:
    db = opened(pooled_url + query)
    db.upgrade()
    for _ in range(HOW_OFTEN):
        with db.write() as tx:
            assert tx.execute(text("SHOW idle_in_transaction_session_timeout")).scalar() == "20s"
    with psycopg.connect(pooled_url, autocommit=True, prepare_threshold=None) as other:
        for _ in range(HOW_OFTEN):
            found = [other.execute(f"SHOW {name}".encode()).fetchone() for name in _SETTINGS]
            assert found == [("0",), ("5min",)]
