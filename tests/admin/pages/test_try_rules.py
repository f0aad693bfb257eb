"""Rules are tried as they are pasted: alone or after the rules in force, on what has happened lately."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from datetime import timedelta
from itertools import count

import pytest

from bridge.admin.pages import try_rules
from bridge.admin.pages.try_rules import Bounds, Finding, Pasted, Result, example_rule
from bridge.admin.parts import Parts
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.errors import RulesRefused
from bridge.pipeline.route import route_all
from tests.support.admin_world import ENVIRON, NOON, RULES, World, a_book, job_number
from tests.support.nouns import a_transition

OTHER = RULES.replace('"all"', '"every"')


def clock(*, step: float) -> Callable[[], float]:
    """Return a clock that goes on by so many seconds each time it is looked at."""
    ticks = count()
    return lambda: next(ticks) * step


def tried(world: World, bounds: Bounds, *, step: float = 0.0, rules: str = OTHER) -> Result:
    parts = Parts(
        db=world.db, book=lambda: world.book, rules_fault=lambda: None, clock=lambda: world.now, nonce=lambda: "n",
        version="9.9.9", environ=ENVIRON,
    )  # fmt: skip
    return try_rules.run(parts, Pasted(rules), span="24h", clock=clock(step=step), bounds=bounds)


def compared(result: Result) -> int:
    assert result.report is not None
    return int(result.report["transitions"])


def see(world: World, count: int) -> None:
    """Record as many transitions, a second apart."""
    for number in range(count):
        world.now = NOON + timedelta(seconds=number)
        world.sees(job_number(number))


def test_only_the_newest_transitions_are_compared(either_world: World) -> None:
    see(either_world, 10)
    result = tried(either_world, Bounds(most=(4,)))
    assert compared(result) == 4
    assert result.notes[0].startswith("There were more: only the newest 4 transitions are compared.")
    assert result.report is not None
    assert [one["job"] for one in result.report["differences"]["first"]][::2] == ["j6", "j7", "j8", "j9"]


@pytest.mark.parametrize("most", [10, 11, 1_000])
def test_as_many_as_may_be_compared_are(world: World, most: int) -> None:
    see(world, 10)
    result = tried(world, Bounds(most=(most,)))
    assert (compared(result), result.notes) == (10, [])


def test_older_ones_than_were_asked_for_are_not(world: World) -> None:
    see(world, 3)
    world.now = NOON + timedelta(hours=24, seconds=1)
    result = tried(world, Bounds())
    assert (compared(result), result.notes) == (2, [])


def test_where_it_goes_slowly_the_newest_few_are_compared(world: World) -> None:
    steps = [a_transition(job_number(number), seen_at=NOON) for number in range(501)]  # more than are read at once
    with world.db.write() as tx:
        route_all(tx, world.book, steps, NOON)
    world.now = NOON + timedelta(seconds=1)
    world.sees(job_number(501))
    result = tried(world, Bounds(most=(1_000, 1), seconds=5), step=100.0)
    assert compared(result) == 1
    assert "only the newest 1 transitions" in result.notes[0]
    assert tried(world, Bounds(most=(1_000,), seconds=5), step=100.0).report is None


def test_rules_with_a_throttle_say_what_is_not_replayed(world: World) -> None:
    see(world, 1)
    throttled = OTHER.replace('name = "every"', 'name = "every"\nthrottle = "1/1h"')
    (note,) = tried(world, Bounds(), rules=throttled).notes
    assert note == "Throttles are not replayed: what one of these rules would hold counts as sent."


def test_what_is_refused_is_compared_with_nothing(world: World) -> None:
    result = tried(world, Bounds(), rules="[[rule]]")
    assert (result.sha, result.report) == (None, None)
    assert {one.line for one in result.faults} == {"[[rule]]"}


@pytest.mark.parametrize("text", ["\0", "x = '\u2028", "a = 1\n" * 2, "[" * 1_000])
def test_what_no_toml_can_be_is_a_fault_with_a_line(world: World, text: str) -> None:
    assert tried(world, Bounds(), rules=text).faults


# --- what is pasted --------------------------------------------------------------------------------------------------


HOSTILE = '转码 "<b>\\ \n'


def faults(text: str, base: Rulebook | None) -> list[Finding]:
    pasted = Pasted(text, base)
    with pytest.raises(RulesRefused) as refused:
        pasted.read(ENVIRON)
    return pasted.findings(refused.value.faults)


def test_what_is_added_is_read_after_the_rules_in_force() -> None:
    book = Pasted('# mine\n\n[[rule]]\nname = "more"\nnotify = "cms"\n', a_book()).read(ENVIRON)
    assert [rule.name for rule in book.rules] == ["failed", "all", "more"]
    assert list(book.notifiers) == list(a_book().notifiers)


def test_line_numbers_are_those_of_what_was_pasted() -> None:
    (twice, faild) = faults('[[rule]]\nname = "all"\nto = "Faild"\nnotify = "cms"\n', a_book())
    assert (twice.where, twice.line) == ("line 2", 'name = "all"')
    assert "on line 33 of the rules above" in twice.text
    assert (faild.where, faild.line, faild.warning) == ("line 3", 'to = "Faild"', False)


@pytest.mark.parametrize(("text", "where"), [("[[rule]]\nname = \n", "line 2"), ("[[rule]]\n\n= 1\n", "line 3")])
def test_what_is_no_toml_is_a_fault_of_what_was_pasted(text: str, where: str) -> None:
    (fault,) = faults(text, a_book())
    assert fault.where == where
    assert f"(at {where}, column" in fault.text


@pytest.mark.parametrize("text", ['stop = true\n[[rule]]\nname = "x"\nnotify = "cms"', "\n# a\n  stop = true", "]"])
def test_what_would_belong_to_the_last_rule_in_force_is_refused(text: str) -> None:
    (fault,) = faults(text, a_book())
    assert "begin with a table, such as [[rule]]" in fault.text
    assert fault.line
    assert fault.line in text


def test_of_the_rules_in_force_no_line_is_quoted() -> None:
    assert Pasted("[[rule]]", a_book()).finding(3, "wrong") == Finding(where="line 3 of the rules above", text="wrong")
    assert "whsec" not in repr(a_book(f"{RULES}# whsec_hush"))


def test_warnings_of_the_rules_in_force_are_not_repeated() -> None:
    base = a_book(f'{RULES}[[rule]]\nname = "never"\nmatch.tag = "Concat"\nnotify = "cms"\n')
    pasted = Pasted('[[rule]]\nname = "neither"\nmatch.tag = "Merge"\nnotify = "cms"\n', base)
    assert len(base.warnings) == 1
    assert [one.where for one in pasted.findings(pasted.read(ENVIRON).warnings)] == ["line 3"]


def test_a_whole_file_is_read_as_it_is() -> None:
    assert Pasted(RULES).read(ENVIRON).sha == a_book().sha
    (fault, *_) = faults("stop = true", None)
    assert fault.where == "line 1"


@pytest.mark.parametrize("book", [a_book(), a_book(RULES + '[[rule]]\nname = "one more"\nnotify = "cms"\n')])
@pytest.mark.parametrize(("tag", "to"), [("", ""), ("Concat", "Success"), (HOSTILE, "Failed")])
def test_the_example_is_a_rule_that_can_be_added(book: Rulebook, tag: str, to: str) -> None:
    text = example_rule(book, tag=tag, to=to)
    (rule,) = tomllib.loads(text)["rule"]
    assert rule["name"] not in [one.name for one in book.rules]
    assert (rule["match"]["tag"], rule["to"], rule["notify"]) == (tag or "Transcode", to or "Failed", "cms")


def test_the_example_for_rules_without_anything_is_still_toml() -> None:
    assert tomllib.loads(example_rule(a_book("")))["rule"][0]["notify"] == "NAME"
