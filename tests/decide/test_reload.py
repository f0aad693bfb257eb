"""A file that changes while the bridge runs: a wrong one is said once and never forgotten."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from bridge import settings
from bridge.decide.rulebook import Rulebook
from bridge.wiring import Rules
from tests.decide.texts import HOOK, RULE, WATCH

GOOD = WATCH + HOOK + RULE
OTHER = GOOD.replace('name = "r1"', 'name = "r2"')


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text(GOOD)
    return path


def rules_of(file: Path) -> Rules:
    return Rules(settings.read({"BRIDGE_RULES": str(file)}), {})


def names(rules: Rules) -> list[str]:
    return [rule.name for rule in rules.book.rules]


@pytest.mark.parametrize("value", ["0x" + "f" * 5000, "soon", '"often"'])
def test_a_wrong_file_is_a_fault_until_a_right_one_is_there(file, value, caplog):
    rules = rules_of(file)
    file.write_text(f"{OTHER}[defaults]\nevery = {value}\n")
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert not rules.reload()
            assert rules.fault
            assert names(rules) == ["r1"]
    assert len(caplog.records) == 1
    file.write_text(OTHER)
    assert rules.reload()
    assert (rules.fault, names(rules)) == (None, ["r2"])
    assert not rules.reload()


def test_a_file_that_is_put_back_is_no_fault_any_more(file):
    rules = rules_of(file)
    file.unlink()
    assert not rules.reload()
    assert "there is no such file" in str(rules.fault)
    file.write_text(GOOD)
    rules.reload()
    assert (rules.fault, names(rules)) == (None, ["r1"])


def test_what_nobody_thought_of_is_a_fault_too(file, caplog):
    broken = False

    def adjust(book: Rulebook) -> Rulebook:
        if broken:
            raise ZeroDivisionError("one by nought")
        return book

    rules = Rules(settings.read({"BRIDGE_RULES": str(file)}), {}, adjust=adjust)
    file.write_text(OTHER)
    broken = True
    for _ in range(3):
        assert not rules.reload()
        assert rules.fault == "rules.toml cannot be read: ZeroDivisionError: one by nought"
    assert [record.getMessage() for record in caplog.records] == ["rules.toml is wrong, the old rules stay in force"]
    assert caplog.records[0].exc_info  # whose fault it is, the trace says
    broken = False
    assert rules.reload()
    assert (rules.fault, names(rules)) == (None, ["r2"])
