from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bridge.record import rulesets
from bridge.record.database import Database
from bridge.record.outbox import entries
from bridge.record.polling import leases
from tests.conftest import Opener
from tests.support.admin_world import NOON, RULES, World, a_book


class Asker:
    """One application, asked again and again while the world goes on."""

    def __init__(self, world: World) -> None:
        self._client = world.app().test_client()

    def __call__(self) -> tuple[int, dict[str, Any]]:
        answer = self._client.get("/readyz")
        return answer.status_code, {check["name"]: check for check in answer.get_json()["checks"]}


def failing(checks: dict[str, Any]) -> list[str]:
    return [name for name, check in checks.items() if not check["ok"]]


def test_health_is_of_the_process_and_asks_no_database(world: World, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    world.db = Database(f"sqlite:///{tmp_path}/gone/bridge.db")
    (tmp_path / "gone").rmdir()
    answer = world.client(token=None).get("/healthz")
    assert (answer.status_code, answer.get_json()) == (200, {"status": "ok", "version": "9.9.9"})


def test_all_is_well_while_a_worker_beats_and_polls(world: World) -> None:
    world.register()
    world.polled()
    status, checks = Asker(world)()
    assert status == 200
    assert list(checks) == ["database", "schema", "worker", "polls", "clock", "notifiers", "rules", "jobs"]
    assert failing(checks) == []


def test_a_database_that_does_not_answer_is_said_to_strangers_without_its_place_and_logged_with_it(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.db = Database("postgresql://role-of-ours@127.0.0.1:1/base-of-ours")
    status, checks = Asker(world)()
    assert (status, failing(checks)) == (503, ["database"])
    assert checks["database"]["detail"] == "does not answer; the log says why"
    assert "port 1 failed" in caplog.records[-1].__dict__["reason"]


@pytest.mark.parametrize("again", [False, True])
def test_a_database_whose_file_was_taken_away_is_not_ready_and_says_why(
    world: World, tmp_path: Path, *, again: bool
) -> None:
    assert Asker(world)()[1]["database"]["ok"]
    (tmp_path / "bridge.db").unlink()
    if again:
        (tmp_path / "bridge.db").touch()
    status, checks = Asker(world)()
    assert (status, failing(checks)) == (503, ["database"])
    assert checks["database"]["detail"].startswith("the database's file was deleted or replaced")
    assert str(tmp_path) not in str(checks)


def test_a_schema_that_is_not_ours_says_what_to_do(world: World, opened: Opener, tmp_path: Path) -> None:
    world.db = opened(f"sqlite:///{tmp_path}/empty.db")
    status, checks = Asker(world)()
    assert (status, failing(checks)) == (503, ["schema"])
    assert "db upgrade" in checks["schema"]["detail"]


@pytest.mark.parametrize("check", ["database", "schema"])
def test_a_fault_of_the_database_is_among_the_reasons(world: World, opened: Opener, tmp_path: Path, check: str) -> None:
    if check == "schema":
        world.db = opened(f"sqlite:///{tmp_path}/empty.db")
    else:
        (tmp_path / "bridge.db").unlink()
    facts = world.client().get("/readyz").get_json()
    (detail,) = (one["detail"] for one in facts["checks"] if one["name"] == check)
    assert facts["warnings"] == 1
    assert [(reason["check"], reason["what"]) for reason in facts["reasons"]] == [(check, detail)]


def test_a_worker_that_fell_silent_is_none(world: World) -> None:
    world.register()
    ask = Asker(world)
    world.now += timedelta(seconds=45)
    world.polled()
    assert failing(ask()[1]) == []
    world.now += timedelta(seconds=1)
    assert failing(ask()[1]) == ["worker"]
    world.beat()
    assert failing(ask()[1]) == []


def test_a_watch_is_overdue_after_three_times_its_interval(world: World) -> None:
    world.register()
    world.polled()
    ask = Asker(world)
    world.now += timedelta(seconds=90)  # 3 x 30 s
    world.beat()
    assert failing(ask()[1]) == []
    world.now += timedelta(seconds=1)
    status, checks = ask()
    assert (status, failing(checks)) == (503, ["polls"])
    assert "overdue: 1 (no complete poll for 91 s, at most 90 s are usual)" in checks["polls"]["detail"]


def test_a_paused_watch_is_not_overdue(world: World) -> None:
    world.register()
    world.polled()
    with world.db.write() as tx:
        leases.set_watch(tx, "vod", paused=True)
    ask = Asker(world)
    world.now += timedelta(hours=1)
    world.beat()
    assert failing(ask()[1]) == []


def test_a_watch_that_was_never_polled_counts_from_the_start_of_the_worker(world: World) -> None:
    ask = Asker(world)
    world.now += timedelta(hours=1)
    world.register()
    assert failing(ask()[1]) == []
    world.now += timedelta(seconds=91)
    world.beat()
    assert failing(ask()[1]) == ["polls"]


def test_a_watch_that_new_rules_bring_counts_from_their_loading(world: World) -> None:
    world.register()
    ask = Asker(world)
    world.now += timedelta(hours=1)
    world.beat()
    world.book = a_book('[[watch]]\nname="new"\nbucket="b-1250000000"\nregion="r-1"\ntags=["x"]\nevery="1s"')
    assert failing(ask()[1]) == []
    world.now += timedelta(seconds=61)  # more than 60 s, which are more than 3 x 1 s
    world.beat()
    assert failing(ask()[1]) == ["polls"]


def test_a_paused_notifier_is_a_warning_without_the_reason(world: World) -> None:
    world.register()
    with world.db.write() as tx:
        entries.pause(tx, "cms", "410 says hush", now=NOON)
    status, checks = Asker(world)()
    assert status == 200
    assert checks["notifiers"]["detail"] == "warning: notifiers that are paused: 1; the list of notifiers names them"


def test_live_workers_that_differ_for_a_minute_are_a_warning(world: World) -> None:
    world.accepts(world.book)
    world.register("w1")
    world.register("w2")
    world.now += timedelta(minutes=10)
    world.accepts(a_book(RULES + "# another"))
    world.beat("w1")
    world.beat("w2")
    asked = Asker(world)
    assert asked()[1]["rules"]["detail"] == "in force"
    world.now += timedelta(minutes=1)
    world.beat("w1")
    world.book = a_book(RULES + "# another")
    world.beat("w2")
    status, checks = asked()
    assert status == 200
    assert "warning: 1 of 2 live workers have other rules" in checks["rules"]["detail"]
    assert "they only send, and neither poll nor judge" in checks["rules"]["detail"]


def test_rules_that_stand_in_are_a_warning(world: World) -> None:
    world.accepts(world.book)
    other = a_book(RULES + "# another")
    world.accepts(other)
    world.register()
    world.beat()
    with world.db.write() as tx:
        rulesets.replace_temporarily(tx, world.book.sha, instead_of=other.sha)
    said = Asker(world)()[1]["rules"]["detail"]
    assert f"no live worker has the rules accepted last ({other.sha}): older ones ({world.book.sha})" in said


def test_what_a_worker_notes_about_its_rules_file_is_a_warning(world: World) -> None:
    world.register()
    with world.db.write() as tx:
        leases.beat(tx, "w1", now=NOON, rules_sha="a", rules_fault=None, rules_note="3 of 4 rules have vanished")
    assert Asker(world)()[1]["rules"]["detail"] == "warning: 3 of 4 rules have vanished"
