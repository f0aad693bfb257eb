"""Which rules are in force, on both databases."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from bridge.record import rulesets
from bridge.record.database import Database
from bridge.record.polling import leases
from bridge.record.rulesets import OtherRules, RulesState
from tests.conftest import Opener
from tests.support.nouns import NOW, minutes, seconds
from tests.support.records import read, write


def accept(db: Database, sha: str) -> bool:
    return write(db, rulesets.accept, sha, "{}", now=NOW)


def stand(db: Database, sha: str, instead_of: str) -> bool:
    return write(db, rulesets.replace_temporarily, sha, instead_of=instead_of)


def in_force(db: Database) -> str | None:
    return read(db, rulesets.in_force)


def standing(db: Database, after: float = 0) -> RulesState:
    return read(db, rulesets.state, now=NOW + seconds(after))


def works(db: Database, worker: str, sha: str, *, since: float = 0, beat: float | None = None) -> None:
    with db.write() as tx:
        leases.register(tx, worker, machine="m", pid=1, now=NOW + seconds(since), rules_sha=sha)
        if beat is not None:
            leases.beat(tx, worker, now=NOW + seconds(beat), rules_sha=sha, rules_fault=None)


def test_the_rules_accepted_last_are_in_force(db: Database) -> None:
    assert in_force(db) is None
    read(db, rulesets.require_in_force, "any")  # before anybody has accepted any
    for sha, is_new in (("a", True), ("a", False), ("b", True), ("a", True)):
        assert accept(db, sha) is is_new
        assert in_force(db) == sha
    assert standing(db).numbers == {"a": 3, "b": 2}
    read(db, rulesets.require_in_force, "a")
    with pytest.raises(OtherRules, match="the rules a are in force, not b"):
        read(db, rulesets.require_in_force, "b")


def test_many_that_accept_at_once_are_put_into_one_order(db_url: str, opened: Opener) -> None:
    shas, together = [f"s{n}" for n in range(6)], threading.Barrier(6, timeout=10)
    dbs = [opened(db_url) for _ in shas]

    def start(db: Database, sha: str) -> None:
        together.wait()
        for _ in range(5):
            accept(db, sha)

    with ThreadPoolExecutor(len(shas)) as pool:
        list(pool.map(start, dbs, shas))
    found = standing(dbs[0])
    assert sorted(found.numbers) == shas
    assert len(set(found.numbers.values())) == len(shas)
    assert found.sha == found.last == max(found.numbers, key=lambda sha: found.numbers[sha])


def test_what_stands_in_is_in_force_until_the_rules_accepted_last_are_back(db: Database) -> None:
    for sha in ("older", "old", "new"):
        accept(db, sha)
    assert not stand(db, "older", instead_of="old")  # which is in force no more
    for sha, instead_of in (("old", "new"), ("older", "old"), ("new", "older")):
        assert stand(db, sha, instead_of=instead_of)
        assert (in_force(db), standing(db).last) == (sha, "new")


@pytest.mark.parametrize("sha", ["old", "new", "newest"])
def test_a_start_ends_what_stands_in(db: Database, sha: str) -> None:
    for accepted in ("old", "new"):
        accept(db, accepted)
    stand(db, "old", instead_of="new")
    assert accept(db, sha)
    assert in_force(db) == standing(db).last == sha


def test_live_workers_with_other_rules_count_as_such_after_a_minute(db: Database) -> None:
    accept(db, "old")
    accept(db, "new")
    works(db, "w1", "old", since=-600, beat=55)
    works(db, "w2", "new", since=-600, beat=55)
    works(db, "w3", "old", since=-600, beat=10)  # dead
    works(db, "w4", "old", since=50, beat=55)  # it has just started
    others = {after: [one.id for one in standing(db, after).workers if one.other] for after in (59, 60)}
    assert others == {59: [], 60: ["w1"]}
    assert [worker.id for worker in standing(db, 60).alive] == ["w1", "w2", "w4"]
    works(db, "w5", "old", since=600, beat=640)
    assert not any(worker.other for worker in standing(db, 650).workers)
    assert any(worker.other for worker in standing(db, 670).workers)


def test_that_rules_may_be_empty_is_remembered_for_this_text(db: Database) -> None:
    accept(db, "a")
    write(db, rulesets.allow_empty, "a")
    assert read(db, rulesets.may_be_empty, "a")
    assert not read(db, rulesets.may_be_empty, "b")


def test_each_wish_to_reload_is_counted(db: Database) -> None:
    for count in (1, 2):
        write(db, rulesets.ask_for_reload, now=NOW + minutes(count))
        assert read(db, rulesets.reloads) == count


# --- their versions -------------------------------------------------------------------------------------------------


def test_versions_say_when_each_was_accepted_last_and_which_is_in_force(db: Database) -> None:
    for minute, sha in enumerate("aba"):
        write(db, rulesets.accept, sha, "{}", source=f"# {sha}\n", now=NOW + minutes(minute))
    write(db, rulesets.store, "unaccepted", "{}", source="#", now=NOW)
    found = read(db, rulesets.versions)
    assert [(one.sha, one.accepted_at, one.in_force, one.kept) for one in found] == [
        ("a", NOW + minutes(2), True, True), ("b", NOW + minutes(1), False, True),
    ]  # fmt: skip
    assert read(db, rulesets.source_of, "b") == "# b\n"
    assert read(db, rulesets.source_of, "c") is None


def test_what_an_older_version_accepted_has_no_file_until_it_starts_again(db: Database) -> None:
    accept(db, "a")
    assert [one.kept for one in read(db, rulesets.versions)] == [False]
    write(db, rulesets.accept, "a", "{}", source="# a\n", now=NOW)
    accept(db, "a")  # an older worker beside
    assert read(db, rulesets.source_of, "a") == "# a\n"
