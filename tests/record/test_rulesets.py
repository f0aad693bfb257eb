"""Which rules are in force, on both databases."""

from __future__ import annotations

import threading

import pytest

from bridge.record import rulesets
from bridge.record.database import Database
from bridge.record.polling import leases
from bridge.record.rulesets import OtherRules, Standing
from tests.conftest import Opener
from tests.support.records import NOW, minutes, read, seconds, write


def accept(db: Database, sha: str) -> bool:
    return write(db, rulesets.accept, sha, "{}", now=NOW)


def stand(db: Database, sha: str, instead_of: str) -> bool:
    return write(db, rulesets.stand, sha, instead_of=instead_of)


def in_force(db: Database) -> str | None:
    return read(db, rulesets.in_force)


def standing(db: Database, after: float = 0) -> Standing:
    return read(db, rulesets.standing, now=NOW + seconds(after))


def works(db: Database, worker: str, sha: str, *, since: float = 0, beat: float | None = None) -> None:
    with db.write() as tx:
        leases.enlist(tx, worker, machine="m", pid=1, now=NOW + seconds(since), rules_sha=sha)
        if beat is not None:
            leases.beat(tx, worker, now=NOW + seconds(beat), rules_sha=sha, rules_fault=None)


def test_rules_that_are_accepted_are_in_force_and_those_that_are_already_are_nothing_new(db: Database) -> None:
    assert in_force(db) is None
    assert accept(db, "a")
    assert not accept(db, "a")
    assert accept(db, "b")
    assert in_force(db) == "b"


def test_going_back_to_older_rules_is_a_new_acceptance(db: Database) -> None:
    for sha in ("a", "b", "a"):
        assert accept(db, sha)
    assert in_force(db) == "a"
    assert standing(db).numbers == {"a": 3, "b": 2}


def test_judging_by_other_rules_than_those_in_force_is_refused(db: Database) -> None:
    with db.read() as tx:
        rulesets.require_in_force(tx, "any")  # before anybody has accepted any
    accept(db, "a")
    with db.read() as tx:
        rulesets.require_in_force(tx, "a")
        with pytest.raises(OtherRules, match="the rules a are in force, not b"):
            rulesets.require_in_force(tx, "b")


def test_many_that_accept_at_once_are_put_into_one_order(db_url: str, opened: Opener) -> None:
    shas, opener = [f"s{n}" for n in range(6)], opened
    together = threading.Barrier(len(shas))

    def start(db: Database, sha: str) -> None:
        together.wait(10)
        for _ in range(5):
            accept(db, sha)

    threads = [threading.Thread(target=start, args=(opener(db_url), sha)) for sha in shas]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    found = standing(opener(db_url))
    assert sorted(found.numbers) == shas
    assert len(set(found.numbers.values())) == len(shas)
    assert found.sha == found.last == max(found.numbers, key=lambda sha: found.numbers[sha])


def test_what_stands_in_is_in_force_until_the_rules_accepted_last_are_back(db: Database) -> None:
    for sha in ("older", "old", "new"):
        accept(db, sha)
    assert stand(db, "old", instead_of="new")
    assert (in_force(db), standing(db).last) == ("old", "new")
    assert stand(db, "older", instead_of="old")
    assert in_force(db) == "older"
    assert stand(db, "new", instead_of="older")
    assert (in_force(db), standing(db).last) == ("new", "new")


def test_nothing_stands_in_for_rules_that_are_in_force_no_more(db: Database) -> None:
    for sha in ("old", "new", "newest"):
        accept(db, sha)
    assert not stand(db, "old", instead_of="new")
    assert in_force(db) == "newest"


@pytest.mark.parametrize("sha", ["old", "new", "newest"])
def test_a_start_ends_what_stands_in(db: Database, sha: str) -> None:
    for one in ("old", "new"):
        accept(db, one)
    stand(db, "old", instead_of="new")
    assert accept(db, sha)
    assert in_force(db) == standing(db).last == sha


def test_live_workers_with_other_rules_are_told_after_a_minute(db: Database) -> None:
    accept(db, "old")
    accept(db, "new")
    works(db, "w1", "old", since=-600, beat=55)
    works(db, "w2", "new", since=-600, beat=55)
    works(db, "w3", "old", since=-600, beat=10)  # dead
    assert [one.id for one in standing(db, 59).workers if one.other] == []
    assert [one.id for one in standing(db, 60).workers if one.other] == ["w1"]
    assert [one.id for one in standing(db, 60).alive] == ["w1", "w2"]


def test_a_worker_that_has_just_started_is_no_other_one_yet(db: Database) -> None:
    accept(db, "new")
    works(db, "w1", "old", since=600, beat=640)
    assert not any(one.other for one in standing(db, 650).workers)
    assert any(one.other for one in standing(db, 670).workers)


def test_that_rules_may_be_empty_is_remembered_for_this_text(db: Database) -> None:
    accept(db, "a")
    write(db, rulesets.allow_empty, "a")
    with db.read() as tx:
        assert rulesets.may_be_empty(tx, "a")
        assert not rulesets.may_be_empty(tx, "b")


def test_each_wish_to_reload_is_counted(db: Database) -> None:
    for count in (1, 2):
        write(db, rulesets.ask_for_reload, now=NOW + minutes(count))
        assert read(db, rulesets.reloads) == count
