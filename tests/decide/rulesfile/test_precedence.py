"""Which rules are in force when workers have different ones; rules are numbers, the last accepted the highest."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from bridge.decide.rulesfile.rulesets import Precedence

OLD, OLDER, NEW = 4, 3, 5


class Worker:
    """One worker's view of the others: each of them beats every 15 s until it is told to stop."""

    def __init__(self, mine: int | None, others: Mapping[str, int | None]) -> None:
        self.mine, self.others, self.dead = mine, dict(others), set[str]()
        self.now, self.precedence = 1000.0, Precedence()
        self._last = dict.fromkeys(others, 1000)

    def look(self, in_force: int) -> bool:
        for name in self.others:
            if name not in self.dead and self.now - self._last[name] >= 15:
                self._last[name] = int(self.now)
        seen = {name: (number, self._last[name]) for name, number in self.others.items()}
        assert self.mine is not None
        return self.precedence.look(self.mine, in_force, seen, self.now)

    def looks_for(self, seconds: float, in_force: int) -> list[float]:
        """Look every two seconds; return after how long it wanted its rules to be in force."""
        wanted, began = [], self.now
        while self.now < began + seconds:
            self.now += 2
            if self.look(in_force):
                wanted.append(self.now - began)
        return wanted


def test_other_rules_wait_as_long_as_a_worker_has_those_in_force() -> None:
    assert Worker(OLD, {"new": NEW}).looks_for(600, NEW) == []


def test_rules_that_nobody_has_for_a_minute_are_replaced_by_those_of_a_live_worker() -> None:
    worker = Worker(OLD, {"new": NEW})
    worker.looks_for(30, NEW)
    worker.dead.add("new")
    assert worker.looks_for(120, NEW)[0] + 16 >= 60  # it was last heard of 15 s before, at most
    assert worker.looks_for(2, NEW) == [2]


def test_rules_whose_worker_has_signed_off_are_replaced_after_a_minute_too() -> None:
    worker = Worker(OLD, {"new": NEW})
    worker.looks_for(30, NEW)
    del worker.others["new"]
    assert worker.looks_for(90, NEW)[0] in range(44, 62)


def test_of_two_old_rules_only_those_accepted_later_stand_in() -> None:
    newer, older = Worker(OLD, {"older": OLDER}), Worker(OLDER, {"newer": OLD})
    assert newer.looks_for(100, NEW)[0] <= 62
    assert older.looks_for(600, NEW) == []


def test_the_older_rules_stand_in_when_the_others_have_died_too() -> None:
    older = Worker(OLDER, {"newer": OLD})
    older.looks_for(100, NEW)
    older.dead.add("newer")
    assert older.looks_for(100, NEW)[0] <= 60


def test_who_has_the_rules_accepted_last_does_not_wait_when_it_is_back() -> None:
    assert Worker(NEW, {"old": OLD}).look(OLD)


def test_of_those_that_stood_in_nobody_takes_them_from_who_has_the_last() -> None:
    assert not Worker(OLD, {"new": NEW, "older": OLDER}).look(OLDER)


def test_a_worker_that_did_not_look_counts_from_when_it_looks_again() -> None:
    worker = Worker(OLD, {"new": NEW})
    worker.looks_for(30, NEW)
    worker.now += 300  # stopped, or without its database; so were the others
    worker.dead.add("new")
    assert not worker.look(NEW)
    assert worker.looks_for(56, NEW) == []
    worker.dead.clear()
    assert worker.looks_for(600, NEW) == []


@pytest.mark.parametrize("number", [None, OLDER])
def test_workers_whose_rules_were_never_accepted_or_are_older_do_not_keep_it_back(number: int | None) -> None:
    assert Worker(OLD, {"other": number}).looks_for(100, NEW)[0] <= 62


def test_a_newer_acceptance_gives_its_worker_a_minute_again() -> None:
    worker = Worker(OLD, {})
    worker.looks_for(50, NEW)
    assert worker.looks_for(56, NEW + 1) == []
