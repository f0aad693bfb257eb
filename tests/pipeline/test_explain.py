"""Why did I (not) get this? What the rules say, by which rules, and how people read it."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, update

from bridge.cli.explain import as_text
from bridge.model import CANCEL, FAILED, PAUSE, RUNNING, SUBMITTED, Rejected
from bridge.record.schema import rulesets, transitions
from tests.conftest import on_both
from tests.support.explained import EVERYTHING, MUTE, ONLY_FAILED, STUCK, Explained, after, rule_of
from tests.support.nouns import NOW, a_listed_job, hours, minutes, seconds

SPECIAL = '\n[[rule]]\nname = "special"\nnotify = "cms"\n'
FORGOTTEN = "are not on record; these are the verdicts of rules.toml as it is now"


def judged_by(sha: str) -> str:
    return f"evaluated by the rules that were in force then ({sha}); rules.toml has others now"


@on_both
def test_a_job_that_a_rule_matched_says_when_the_message_was_sent(explained: Explained) -> None:
    explained.begin(EVERYTHING)
    explained.goes(SUBMITTED)
    explained.delivers()
    facts = explained.last()
    assert facts["headline"] == '"everything" notifies cms: sent'
    assert [(rule["rule"], rule["answer"], rule["notifiers"]) for rule in facts["rules"]] == [
        ("everything", "fired", ["cms"])
    ]
    assert explained.answer() == ("sent", f"sent at {after(minutes(1))}")
    assert (facts["from"], facts["to"], facts["judged_by"], facts["notes"]) == (
        "new",
        SUBMITTED,
        explained.book.sha,
        [],
    )
    assert [facts["bucket"] for facts in explained.all(bucket="clips-1250000000")] == ["clips-1250000000"]
    assert (explained.all(bucket="other-1250000000"), explained.all("j404")) == ([], [])


def test_an_inferred_transition_says_that_it_is_and_for_which_rules(explained: Explained) -> None:
    ran = '\n[[rule]]\nname = "ran"\nfrom = "Pause"\nto = "Running"\nnotify = "ops"\n'
    explained.begin(EVERYTHING, ran, STUCK)
    explained.goes(SUBMITTED, FAILED)
    explained.delivers()
    (facts,) = explained.all(inferred=True)
    assert (facts["from"], facts["to"], facts["sequence"], facts["levels"]) == (SUBMITTED, RUNNING, 2, [])
    assert facts["headline"] == '"ran" notifies ops: sent'
    assert rule_of(facts, "everything")["why_not"] == 'to: "Running" was inferred, and is not named by *'
    text = as_text(facts)
    assert "Submitted -> Running (number 2, inferred " in text
    assert "note: it was not seen, and is inferred from the job's times" in text
    assert (explained.last()["from"], explained.last()["sequence"], explained.last()["notes"]) == (SUBMITTED, 3, [])


def test_of_a_job_that_no_rule_matched_the_nearest_miss_is_named_first(explained: Explained) -> None:
    far = '[[rule]]\nname = "far"\nto = "Cancel"\nmatch.queue = "p9"\nmatch.code = true\nnotify = "ops"\n'
    other = '[[rule]]\nname = "other"\nto = "Success"\nnotify = "ops"\n'
    explained.begin(far, other, ONLY_FAILED)
    explained.goes(RUNNING, FAILED, queue="p2")
    facts = explained.last()
    line = rule_of(facts, "failed")["line"]
    assert [(rule["rule"], rule["misses"]) for rule in facts["rules"]] == [("failed", 1), ("other", 1), ("far", 3)]
    assert facts["headline"] == (f'no rule matched; nearest: "failed" (line {line}): match.queue: "p2" is not "p1"')
    assert facts["deliveries"] == []


def test_a_miss_by_several_conditions_says_by_how_many(explained: Explained) -> None:
    explained.begin(ONLY_FAILED)
    explained.goes(RUNNING, queue="p2")
    assert explained.headline().endswith('(line 21): to: "Running" is not among Failed (and 1 more)')


def test_a_rule_after_one_that_stops_says_which_one_that_was(explained: Explained) -> None:
    stops = '[[rule]]\nname = "first"\nstop = true\nnotify = "ops"\n'
    explained.begin(stops, EVERYTHING, ONLY_FAILED)
    explained.goes(SUBMITTED, queue="p1")
    facts = explained.last()
    (stopped,) = [delivery for delivery in facts["deliveries"] if delivery["answer"] == "stopped"]
    assert (stopped["rule"], stopped["notifier"]) == ("everything", "cms")
    assert 'rule "first" (line ' in stopped["why"]
    assert stopped["why"].endswith("matched and stops")
    answers = [rule_of(facts, name)["answer"] for name in ("first", "everything", "failed")]
    assert answers == ["fired", "stopped", "stopped"]
    assert facts["headline"] == '"first" notifies ops: waits for its first attempt'


def test_a_notifier_that_an_earlier_rule_notified_is_not_notified_twice(explained: Explained) -> None:
    explained.begin(SPECIAL, EVERYTHING.replace('"cms"', '["cms", "ops"]'))
    explained.goes(SUBMITTED)
    answers = {(found["rule"], found["notifier"]): found for found in explained.last()["deliveries"]}
    assert {pair: found["answer"] for pair, found in answers.items()} == {
        ("special", "cms"): "waiting",
        ("everything", "ops"): "waiting",
        ("everything", "cms"): "already_told",
    }
    assert explained.headline() == (
        '"special" notifies cms: waits for its first attempt; "everything" notifies ops: waits for its first attempt'
    )
    assert answers["everything", "cms"]["why"] == ('rule "special" above notifies cms of this (waits to be sent)')


def test_a_rule_that_comes_first_is_named_with_what_came_of_it(explained: Explained) -> None:
    explained.begin(SPECIAL, EVERYTHING)
    explained.goes(SUBMITTED)
    explained.delivers(Rejected("404 Not Found"))
    for mute, state in ((MUTE.format("drop"), RUNNING), (MUTE.format("hold"), PAUSE), ("", RUNNING)):
        explained.rule(SPECIAL, EVERYTHING, mute)
        explained.goes(state)
    explained.delivers()
    whys = [
        found["why"] for step in explained.all() for found in step["deliveries"] if found["answer"] == "already_told"
    ]
    (sent_at,) = [found["ended_at"] for found in explained.last()["deliveries"] if found["rule"] == "special"]
    assert whys == [
        f'rule "special" above notifies cms of this ({status})'
        for status in ("dead", "dropped", "held until 2026-11-21T10:00:00Z", f"sent at {sent_at}")
    ]


def test_a_first_snapshot_says_that_it_was_silent(explained: Explained) -> None:
    explained.ci.has(a_listed_job("j1", RUNNING, created_at=NOW - hours(1)))
    explained.begin(EVERYTHING)
    assert explained.headline() == 'nobody was notified: first snapshot of Transcode in watch "vod"'
    assert explained.last()["deliveries"] == []


def test_a_rulebook_without_rules_says_so(explained: Explained) -> None:
    explained.begin()
    explained.goes(SUBMITTED)
    assert explained.headline() == "no rule matched: there are none"


@on_both
def test_a_transition_is_judged_by_the_rules_of_then_and_says_what_those_of_now_would_do(explained: Explained) -> None:
    explained.begin(ONLY_FAILED)
    old = explained.book.sha
    explained.goes(SUBMITTED)
    explained.rule(EVERYTHING)
    explained.goes(RUNNING)
    (first, second), new = explained.all(), explained.book.sha
    assert (first["judged_by"], [rule["rule"] for rule in first["rules"]]) == (old, ["failed"])
    assert first["headline"].startswith("no rule matched; nearest")
    assert first["would_tell_now"] == {"rules": new, "tells": [{"rule": "everything", "notifiers": ["cms"]}]}
    assert 'rules.toml as it is now would notify: cms by "everything"' in as_text(first)
    assert first["notes"] == [judged_by(old)]
    assert (second["judged_by"], second["would_tell_now"]) == (new, None)
    explained.rule(EVERYTHING, ONLY_FAILED)
    assert explained.last()["would_tell_now"] is None  # they would do the same


def test_that_there_are_no_rules_is_said_only_of_those_that_were_asked(explained: Explained) -> None:
    explained.begin(STUCK)
    explained.goes(SUBMITTED)
    old = explained.book.sha
    explained.rule()
    facts = explained.last()
    assert facts["judged_by"] == old
    assert facts["headline"] == ("no rule matched: there were none, neither edge nor level rules")
    assert facts["notes"] == [judged_by(old), f"level rules: those of rules.toml now ({explained.book.sha})"]


@pytest.mark.parametrize("known", [False, True])
def test_where_the_rules_of_then_are_not_on_record_it_says_so_and_asks_those_of_now(
    explained: Explained, known: bool
) -> None:
    explained.begin(ONLY_FAILED)
    old = explained.book.sha
    explained.goes(SUBMITTED)
    explained.rule(EVERYTHING)
    with explained.db.write() as tx:
        tx.execute(delete(rulesets).where(rulesets.c.sha == old))
        if not known:  # as a version wrote it that kept none
            tx.execute(update(transitions).values(rules=None))
    facts = explained.last()
    assert facts["judged_by"] == explained.book.sha
    (note,) = facts["notes"]
    assert (FORGOTTEN in note, old in note) == (True, known)
    assert explained.answer() == ("not_on_record", "no delivery is on record: other rules were in force then")


def test_rules_that_this_version_cannot_read_are_as_if_they_were_not_kept(explained: Explained) -> None:
    explained.begin(EVERYTHING)
    explained.goes(SUBMITTED)
    explained.rule(EVERYTHING, ONLY_FAILED)
    with explained.db.write() as tx:
        tx.execute(update(rulesets).values(text='{"of": "another version"}'))
    assert "cannot be read any more" in explained.last()["notes"][0]


# --- for people ---------------------------------------------------------------------------------------------


def test_the_text_says_the_answer_first_and_lines_up_what_it_is_made_of(explained: Explained) -> None:
    explained.begin(EVERYTHING, ONLY_FAILED)
    explained.goes(SUBMITTED, queue="p2", input="in/a.mp4")
    explained.delivers()
    lines = {rule["rule"]: rule["line"] for rule in explained.last()["rules"]}
    assert as_text(explained.last()).splitlines() == [
        f"Transcode j1: new -> Submitted (number 1, seen {after(seconds(30))}, watch vod)",
        '  "everything" notifies cms: sent',
        f'    cms  "everything"  sent at {after(minutes(1))} ({explained.only()["id"]})',
        "    says: Transcode Submitted: a.mp4",
        "          seen for the first time",
        f'    fired  rule "everything" (line {lines["everything"]})  notifies cms',
        f'    no     rule "failed" (line {lines["failed"]})      to: "Submitted" is not among Failed',
    ]


def test_the_text_leaves_most_rules_that_say_no_to_json_and_cuts_a_long_message(explained: Explained) -> None:
    many = [ONLY_FAILED.replace('"failed"', f'"r{n}"').replace("Failed", "Success") for n in range(30)]
    explained.begin(*many, EVERYTHING)
    explained.goes(SUBMITTED, FAILED, message="\n".join(f"part {n}" for n in range(50)))
    text = as_text(explained.last())
    assert ('"r19"' in text, '"r20"' in text, "part 10" in text) == (True, False, False)
    assert "... and 10 more that do not match (--json has them all)" in text
    assert 'fired  rule "everything"' in text
    assert "... and 40 more lines" in text
    assert len(explained.last()["rules"]) == 31


@on_both
def test_many_transitions_and_many_rules_are_explained(explained: Explained) -> None:
    many = [ONLY_FAILED.replace('"failed"', f'"r{n}"') for n in range(1_000)]
    explained.begin(*many, EVERYTHING)
    explained.goes(SUBMITTED, *([RUNNING, PAUSE] * 9), CANCEL)
    explained.delivers()
    found = explained.all()
    assert [len(facts["rules"]) for facts in found] == [1_001] * 20
    assert {facts["headline"] for facts in found} == {'"everything" notifies cms: sent'}
