"""What is pasted is read as its own file or as the end of the rules in force, and its lines are counted as pasted."""

from __future__ import annotations

import tomllib

import pytest

from bridge.admin.pages.try_rules import Finding, Pasted, example_rule
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.errors import RulesRefused
from tests.support.admin_world import ENVIRON, RULES, a_book

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
    assert "on line 33 of the rules in force" in twice.text
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
    assert Pasted("[[rule]]", a_book()).finding(3, "wrong") == Finding(
        where="line 3 of the rules in force", text="wrong"
    )
    assert "whsec" not in repr(a_book(f"{RULES}# whsec_hush"))


def test_what_is_doubtful_without_it_is_not_told_of_it() -> None:
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
