"""The WSGI entry in a real gunicorn, as a platform starts it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Mapping
from pathlib import Path

from bridge import __version__
from bridge.record.database import Database
from tests.support.servers import DEADLINE_S, get, serving, wait_until_it_answers


def ended(environ: Mapping[str, str]) -> tuple[int, str]:
    with serving(environ) as process:
        _, said = process.communicate(timeout=DEADLINE_S)
        return process.returncode, said


def test_it_boots_answers_and_ends_well_on_sigterm(environ: dict[str, str]) -> None:
    with serving(environ | {"WEB_CONCURRENCY": "2"}) as process:
        assert wait_until_it_answers(environ, process) == {"status": "ok", "version": __version__}
        assert [watch["name"] for watch in get(environ, "/api/v1/watches")["items"]] == ["vod"]  # type: ignore[index]
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    assert 'event="Booting worker' in said
    assert "Traceback" not in said
    with contextlib.closing(Database(environ["DATABASE_URL"])) as db, db.read() as tx:
        assert tx.exec_driver_sql("SELECT count(*) FROM worker").scalar() == 0


def test_an_old_schema_on_postgresql_ends_it_with_the_advice(environ: dict[str, str], empty_postgres_url: str) -> None:
    code, said = ended(environ | {"DATABASE_URL": empty_postgres_url})
    assert code == 3
    assert "ci-bridge does not start: the database has no tables yet: run `ci-bridge db upgrade`" in said
    assert "Traceback" not in said


def test_a_database_that_does_not_answer_ends_it_with_a_line(environ: dict[str, str]) -> None:
    code, said = ended(environ | {"DATABASE_URL": "postgresql://nobody:hush-hush@127.0.0.1:1/none"})
    assert code == 3
    assert "the database does not answer" in said
    assert "hush-hush" not in said
    assert "Traceback" not in said


def test_wrong_rules_end_it_with_every_fault(environ: dict[str, str]) -> None:
    Path(environ["BRIDGE_RULES"]).write_text('[[watch]]\nname = "x"\nbuket = "b"\n')
    code, said = ended(environ)
    assert code == 3
    assert 'unknown key "buket" (did you mean "bucket"?)' in said
    assert '"region" is missing' in said
    assert "Traceback" not in said


def test_what_gunicorn_would_read_by_itself_ends_it_with_a_line_for_each(environ: dict[str, str]) -> None:
    code, said = ended(environ | {"WEB_CONCURRENCY": "auto", "PORT": "\ufeff80 80"})
    assert (code, len(said.splitlines())) == (1, 2)
    assert "WEB_CONCURRENCY: 'auto' is not a whole number from 1 to 64" in said
    assert "PORT: '80 80' is not a whole number from 1 to 65535" in said


def test_a_wrong_environment_ends_it_before_it_listens(environ: dict[str, str]) -> None:
    code, said = ended(environ | {"PORT": "http", "LOG_LEVEL": "LOUD"})
    assert code == 1
    assert "PORT: 'http'" in said
    assert 'LOG_LEVEL: "LOUD" is not a level' in said
    assert "Traceback" not in said


def test_it_warns_once_at_start_when_a_router_is_in_front_and_no_token_is_set(environ: dict[str, str]) -> None:
    with serving(environ | {"WEB_CONCURRENCY": "", "BRIDGE_ADMIN_TOKEN": "\ufeff"}) as process:
        wait_until_it_answers(environ, process)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=DEADLINE_S)
    assert said.count("no BRIDGE_ADMIN_TOKEN is set") == 1


def test_a_certificate_that_would_not_be_used_ends_it(environ: dict[str, str]) -> None:
    code, said = ended(environ | {"GUNICORN_CMD_ARGS": "--certfile /dev/null --keyfile /dev/null"})
    assert code != 0
    assert "TLS is terminated by the router" in said
