"""`rules check` on the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result

from tests.support.commands import REPOSITORY, call
from tests.support.nouns import SECRET

RULES = """\
[[watch]]
name = "vod"
bucket = "media-1250000000"
region = "ap-chongqing"
tags = ["Transcode"]
[notifier.ops]
type = "webhook"
url = "https://ops.example.com/"
secret = { env = "HOOK_SECRET" }
[[rule]]
name = "stuck"
in = "Running"
for = "30m"
notify = "ops"
"""
RIGHT = '[[test]]\njob = { to = "Running", age = "31m" }\nexpect = ["stuck -> ops"]\n'
WRONG = RIGHT.replace("31m", "29m")
SAID = "test number 2: not notified: stuck -> ops: Running for 29 min, which is less than 30 min (rule on line 10)"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mine.toml"


def check(*words: str, **environ: str) -> Result:
    return call("rules", "check", *words, **{"HOOK_SECRET": SECRET, **environ})


def test_a_valid_file_whose_tests_pass_is_accepted(file: Path) -> None:
    file.write_text(RULES + RIGHT)
    assert json.loads(check(str(file), "--json").stdout) == []
    seen = check(str(file))
    assert (seen.exit_code, seen.stderr) == (0, "")
    accepted, tests = seen.stdout.splitlines()
    assert accepted.startswith("accepted, with 0 warnings: 1 watch, 1 notifier, 1 rule (sha ")
    assert tests == "1 test, 0 failed"


def test_a_failing_test_is_reported_with_its_line_and_exits_1(file: Path) -> None:
    file.write_text(RULES + RIGHT + WRONG)
    seen = check(str(file))
    assert seen.exit_code == 1
    assert seen.stderr.splitlines() == [f"{file}:18: {SAID}"]
    assert seen.stdout == "the rules are valid, but 1 of 2 tests fails\n"
    file.write_text(RULES + WRONG * 3 + RIGHT)
    assert check(str(file)).stdout == "the rules are valid, but 3 of 4 tests fail\n"


def test_the_file_of_the_environment_is_checked_when_none_is_named(file: Path) -> None:
    file.write_text(RULES + RIGHT + WRONG)
    assert check(BRIDGE_RULES=str(file)).stderr.splitlines() == [f"{file}:18: {SAID}"]
    seen = check(BRIDGE_RULES_TOML=RULES + WRONG)
    assert (seen.exit_code, seen.stderr.partition(": ")[0]) == (1, "BRIDGE_RULES_TOML:15")


def test_failing_tests_and_warnings_are_one_array_of_json(file: Path) -> None:
    file.write_text(RULES + 'match.tag = "Concat"\n' + RIGHT + WRONG)
    seen = check(str(file), "--json")
    assert seen.exit_code == 1
    warning, first, second = json.loads(seen.stdout)
    assert (warning["line"], warning["level"]) == (15, "warning")
    assert (first["line"], first["level"], second["line"], second["level"]) == (16, "test", 19, "test")
    assert second["text"] == SAID.replace(
        "Running for 29 min, which is less than 30 min", 'match.tag: nothing is not "Concat"'
    )


def test_the_tests_of_a_file_that_is_refused_are_not_run(file: Path) -> None:
    file.write_text(RULES + WRONG + "[ruls]\n")
    seen = check(str(file))
    assert (seen.exit_code, seen.stdout) == (1, "")
    assert seen.stderr.splitlines() == [
        f'{file}:18: unknown key "ruls" (did you mean "rule"?)',
        "refused: 1 error, 0 warnings",
    ]


def test_errors_and_warnings_beyond_the_first_hundred_are_not_counted(file: Path) -> None:
    file.write_text(RULES + '[[rule]]\nname = "x"\nnotify = "nobody"\n' * 150)
    *shown, more, refused = check(str(file)).stderr.splitlines()
    assert len(shown) == 100
    assert more.endswith(": and 199 more")
    assert refused == "refused: more than 100 errors, 0 warnings"

    file.write_text(RULES + "".join(f'[template.t{n}]\ntitle = "x"\n' for n in range(120)))
    assert check(str(file)).stdout.startswith("accepted, with more than 100 warnings: ")
    file.write_text(file.read_text() + "[ruls]\n")
    assert check(str(file)).stderr.splitlines()[-1] == "refused: 1 error, more than 99 warnings"


def test_a_missing_file_is_reported_with_advice_only_if_none_was_named(tmp_path: Path) -> None:
    named = str(tmp_path / "none.toml")
    for seen in (check(named), check(BRIDGE_RULES=named)):
        assert seen.stderr.splitlines()[0] == f"{named}:1: there is no such file"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}
    unnamed = subprocess.run(
        [sys.executable, "-m", "bridge", "rules", "check"],
        env=environ | {"PYTHONPATH": str(REPOSITORY)}, cwd=tmp_path, capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip
    said = "rules.toml:1: there is no such file: set BRIDGE_RULES or BRIDGE_RULES_TOML"
    assert unnamed.stderr.splitlines()[0] == said
