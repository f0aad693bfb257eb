"""The rules file: what is no file to read, and what happens when it changes while the bridge runs."""

from __future__ import annotations

import hashlib
import logging
import os
import tracemalloc
from pathlib import Path

import pytest

from bridge import settings
from bridge.decide.rulesfile.errors import LARGEST, RulesRefused
from bridge.wiring.rules import Rules, load_rules
from tests.support.rules_texts import HOOK, RULE, WATCH

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
    class Environ(dict[str, str]):
        def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
            if broken and name == "URL":
                raise ZeroDivisionError("one by nought")
            return super().get(name, default)

    broken = True
    rules = Rules(settings.read({"BRIDGE_RULES": str(file)}), Environ(URL="https://cms.example.com/"))
    file.write_text(OTHER.replace('"https://cms.example.com/"', '{ env = "URL" }'))
    for _ in range(3):
        assert not rules.reload()
        assert rules.fault == "rules.toml cannot be read: ZeroDivisionError: one by nought"
    assert [record.getMessage() for record in caplog.records] == ["rules.toml has errors, the old rules stay in force"]
    assert caplog.records[0].exc_info  # whose fault it is, the trace says
    broken = False
    assert rules.reload()
    assert (rules.fault, names(rules)) == (None, ["r2"])


# --- a file that is being written -------------------------------------------------------------------------------

MANY = WATCH + HOOK + "".join(RULE.replace('"r1"', f'"r{n}"') for n in range(1, 7))


def looks(rules: Rules, *, at: float, for_s: float = 0.0) -> list[str]:
    """Look every second, and return the rules in the end."""
    for second in range(int(for_s) + 1):
        rules.check_file(at + second)
    return names(rules)


def test_a_changed_file_is_taken_when_two_looks_two_seconds_apart_find_it_the_same(file):
    rules = rules_of(file)
    rules.check_file(100)
    file.write_text(OTHER.replace('"r2"', '"r3"') + RULE)
    rules.check_file(102)
    file.write_text(OTHER + RULE)
    rules.check_file(104)
    rules.check_file(105.9)
    assert names(rules) == ["r1"]
    assert rules.check_file(106)
    assert names(rules) == ["r2", "r1"]
    assert not rules.check_file(108)


def test_no_cut_of_a_file_that_is_written_in_portions_is_ever_taken(file):
    file.write_text(MANY)
    rules = rules_of(file)
    new = MANY.replace('"r6"', '"new"')
    for second, cut in enumerate(range(0, len(new), 40)):
        file.write_text(new[:cut])
        rules.check_file(100 + second)
        assert names(rules) == [f"r{n}" for n in range(1, 7)]
        assert (rules.fault, rules.note) == (None, None)
    file.write_text(new)
    assert looks(rules, at=1000, for_s=2)[-1] == "new"


@pytest.mark.parametrize("at", [MANY.index('[[rule]]\nname = "r4"'), MANY.index('[[rule]]\nname = "r2"')])
def test_a_file_without_half_of_its_rules_is_taken_after_thirty_seconds_with_a_warning(file, at, caplog):
    file.write_text(MANY)
    rules = rules_of(file)
    rules.check_file(100)
    file.write_text(MANY[:at])
    with caplog.at_level(logging.WARNING):
        assert len(looks(rules, at=101, for_s=29)) == 6
        assert "of 6 rules disappeared from rules.toml: it is loaded if it stays so for 30 s" in str(rules.note)
        assert [record.getMessage() for record in caplog.records] == [
            "much of rules.toml disappeared, loaded if it stays so"
        ]
        assert looks(rules, at=131) == [f"r{n}" for n in range(1, 7) if f'"r{n}"' in MANY[:at]]
    assert "is it complete?" in str(rules.note)
    assert len(caplog.records) == 2
    looks(rules, at=131 + 3601)
    assert rules.note is None


def test_thirty_seconds_count_from_the_last_change(file):
    file.write_text(MANY)
    rules = rules_of(file)
    rules.check_file(100)
    for at in (101, 125, 149):
        file.write_text(MANY[: MANY.index('[[rule]]\nname = "r3"')] + f"# {at}\n")
        assert len(looks(rules, at=at, for_s=23)) == 6
    assert len(looks(rules, at=173, for_s=6)) == 2


def test_a_bridge_that_stood_still_with_who_writes_the_file_has_not_seen_it_stay_the_same(file):
    file.write_text(MANY)
    rules = rules_of(file)
    rules.check_file(100)
    file.write_text(MANY[: MANY.index('[[rule]]\nname = "r3"')])
    looks(rules, at=101, for_s=3)
    assert len(looks(rules, at=10_000)) == 6


def test_a_whole_file_is_not_kept_waiting_by_a_cut_before_it(file):
    file.write_text(MANY)
    rules = rules_of(file)
    rules.check_file(100)
    file.write_text(MANY[: MANY.index('[[rule]]\nname = "r2"')])
    looks(rules, at=101, for_s=10)
    file.write_text(MANY + RULE.replace('"r1"', '"r7"'))
    assert len(looks(rules, at=112, for_s=2)) == 7
    assert rules.note is None


EMPTIED = {
    "nothing": "",
    "a comment": "# " + GOOD.replace("\n", " "),
    "no rule": WATCH + HOOK,
    "no watch": HOOK + RULE,
    "only defaults": '[defaults]\nevery = "5s"\n',
}


@pytest.mark.parametrize("what", EMPTIED)
def test_a_file_with_no_watch_or_no_rule_never_replaces_one_that_had_some(file, what, caplog):
    rules = rules_of(file)
    rules.check_file(100)
    file.write_text(EMPTIED[what])
    assert looks(rules, at=101, for_s=3600) == ["r1"]
    assert not rules.reload()  # nor does a person who only says "now"
    assert "`ci-bridge rules reload --allow-empty`" in str(rules.fault)
    assert len(caplog.records) == 1
    rules.may_be_empty = lambda sha: sha == hashlib.sha256(EMPTIED[what].encode()).hexdigest()[:12]
    assert looks(rules, at=5000) == ([] if "rule" not in EMPTIED[what] or what == "a comment" else names(rules))
    assert rules.fault is None


def test_a_file_that_vanishes_for_a_moment_is_no_fault(file):
    rules = rules_of(file)
    rules.check_file(100)
    file.unlink()
    rules.check_file(102)
    assert rules.fault is None
    file.write_text(GOOD)
    looks(rules, at=103, for_s=3)
    assert (rules.fault, names(rules)) == (None, ["r1"])
    file.unlink()
    looks(rules, at=110, for_s=2)
    assert "there is no such file" in str(rules.fault)


def test_a_link_that_is_swapped_and_keeps_its_times_is_noticed(file, tmp_path):
    link, other = tmp_path / "link.toml", tmp_path / "other.toml"
    link.symlink_to(file)
    rules = rules_of(link)
    rules.check_file(100)
    other.write_text(OTHER)
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    (tmp_path / "new").symlink_to(other)
    (tmp_path / "new").replace(link)
    assert looks(rules, at=102, for_s=2) == ["r1"]  # the one rule it had has another name
    assert looks(rules, at=105, for_s=30) == ["r2"]


def test_what_a_person_wants_now_is_taken_now(file):
    file.write_text(MANY)
    rules = rules_of(file)
    rules.check_file(100, reloads=3)
    file.write_text(GOOD)
    assert not rules.check_file(101, reloads=3)
    assert rules.check_file(102, reloads=4)
    assert (names(rules), rules.note) == (["r1"], None)
    file.write_text("[[rule]]")
    assert not rules.check_file(103, reloads=5)
    assert "rules.toml:1" in str(rules.fault)


# --- reading it -----------------------------------------------------------------------------------------------------


def refusal(path) -> str:
    with pytest.raises(RulesRefused) as refused:
        load_rules(str(path))
    return str(refused.value).removeprefix(f"{path}:1: ")


def test_a_file_of_ten_megabytes_is_refused_without_being_read(tmp_path):
    path = tmp_path / "rules.toml"
    with path.open("wb") as file:
        file.truncate(10_000_000)
    tracemalloc.start()
    assert refusal(path) == "is too large: it has 10,000,000 bytes; the limit is 1,000,000"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < LARGEST


def test_a_file_of_one_megabyte_is_read(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_bytes(b"#" * LARGEST)
    assert len(load_rules(str(path))) == LARGEST


def test_a_directory_is_refused(tmp_path):
    assert refusal(tmp_path) == "cannot be read: Is a directory"


def test_a_pipe_that_nobody_writes_to_is_refused_and_not_waited_for(tmp_path):
    path = tmp_path / "rules.toml"
    os.mkfifo(path)
    assert refusal(path) == "cannot be read: it is not a regular file"


def test_a_file_that_is_not_utf_8_says_which_line(tmp_path):
    file = tmp_path / "rules.toml"
    file.write_bytes(f"{WATCH}# Auftr\xe4ge\n".encode("latin-1"))
    with pytest.raises(RulesRefused, match=r"rules\.toml:6: byte 0xe4 is not UTF-8"):
        load_rules(str(file))
