from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from bridge.decide.rules.matching import Facts
from bridge.decide.rulesfile.silences import SilenceRequest, described, read_silence, silence_warnings, too_costly
from bridge.decide.whatif.replay import SHOWN, PastMessage, Preview
from bridge.model import FAILED, RUNNING
from tests.support.nouns import NOON, a_job, a_rulebook, a_transition
from tests.support.rules_texts import RULE, WATCH

GOOD: dict[str, Any] = {"to": "Failed", "for": "2h", "reason": "new encoder", "author": "ann"}


def read(**said: Any) -> SilenceRequest:
    return read_silence(GOOD | said, now=NOON)


def faults(said: dict[str, Any]) -> list[str]:
    with pytest.raises(ValueError) as refused:  # noqa: PT011  (its text is what is looked at)
        read_silence(said, now=NOON)
    return str(refused.value).splitlines()


def holds(wanted: SilenceRequest, rule: str = "r", notifier: str = "n", **job: Any) -> bool:
    return wanted.scope.holds(Facts(a_transition(a_job(**job)), {}), rule, notifier)


def test_a_silence_is_held_to_what_it_names() -> None:
    wanted = read(match={"tag": ["Trans*", "!Transition"], "user_data": {"asset": True}}, notifier="ops")
    fits: dict[str, Any] = {"state": FAILED, "tag": "Transcode", "user_data": "asset=7"}
    assert holds(wanted, notifier="ops", **fits)
    assert not holds(wanted, notifier="cms", **fits)
    assert not holds(wanted, notifier="ops", **(fits | {"state": RUNNING}))
    assert not holds(wanted, notifier="ops", **(fits | {"user_data": None}))
    assert wanted.spec == (
        '{"match":{"tag":["Trans*","!Transition"],"user_data":{"asset":true}},"to":"Failed","notifier":"ops"}'
    )


def test_it_ends_after_a_while_or_at_a_time() -> None:
    assert read().ends_at == NOON + timedelta(hours=2)
    said = {key: value for key, value in GOOD.items() if key != "for"}
    ends = read_silence(said | {"ends_at": "2026-11-22T09:00:00+08:00"}, now=NOON).ends_at
    assert ends.isoformat() == "2026-11-22T01:00:00+00:00"
    longest = read(**{"for": "30d"})
    assert longest.ends_at == NOON + timedelta(days=30)


def test_it_holds_unless_it_is_to_drop() -> None:
    assert not read().drop
    assert read(mode="drop").drop


def test_everything_is_matched_only_when_that_is_said() -> None:
    everything = {"for": "2h", "reason": "x", "author": "ann", "everything": True}
    assert holds(read_silence(everything, now=NOON))
    assert read_silence(everything, now=NOON).spec == "{}"
    (fault,) = faults(everything | {"everything": False})
    assert "it would match every message" in fault
    (fault,) = faults(everything | {"everything": False, "match": {}})
    assert "it would match every message" in fault
    (fault,) = faults(everything | {"rule": "failed"})
    assert fault.startswith("everything: with it nothing else")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"for": None}, "for: "),
        ({"for": "soon"}, 'for: "soon" is not a duration'),
        ({"for": "30d1s"}, "for: 30d1s is too far in the future; a silence may last 30 days"),
        ({"ends_at": "2026-11-21T13:00:00Z"}, "say when it ends"),
        ({"for": ..., "ends_at": "2026-11-21T12:00:00Z"}, "ends_at: 2026-11-21T12:00:00Z has passed"),
        ({"for": ..., "ends_at": "2026-11-21 13:00"}, 'ends_at: the time zone is missing in "2026-11-21 13:00"; write'),
        ({"for": ..., "ends_at": "9999-12-31T23:59:59-23:59"}, "is too far in the future"),
        ({"for": ..., "ends_at": "\ud800"}, "is not a time such as"),
        ({"reason": ...}, "reason: is missing"),
        ({"reason": 7}, "reason: 7 is not a string"),
        ({"reason": " "}, "reason: is empty; write a few words"),
        ({"reason": "x" * 501}, "reason: has 501 characters; at most 500 are kept"),
        ({"reason": "a\0b"}, "contains an invisible character"),
        ({"author": "x" * 101}, "author: has 101 characters"),
        ({"mode": "loud"}, 'mode: "loud" is neither "hold"'),
        ({"dry_run": "yes"}, 'dry_run: "yes" is neither true nor false'),
        ({"too": "Failed"}, 'unknown key "too" (did you mean "to"?)'),
        ({"to": "Faild"}, 'to: there is no job state "Faild" (did you mean "Failed"?)'),
        ({"to": "new"}, 'to: no job becomes "new"'),
        ({"match": "tag"}, 'match: "tag" is not a table'),
        ({"match": {"tgs": "x"}}, 'match.tgs: a job has no "tgs" to match (did you mean "tag"?)'),
        ({"match": {"a\0b": "x"}}, "contains an invisible character"),
        ({"match": {"age": "45m"}}, "match.age: "),
        ({"match": {"tag": {"a": {"b": ["c"]}}}}, "match.tag: "),
        ({"match": {"tag": "x" * 10_000}}, "characters as JSON; the limit is 10,000"),
        ({"match": {"user_data": {f"f{number}": "x" for number in range(51)}}}, "match: 51 fields are too many"),
    ],
)
def test_what_is_wrong_is_said_with_what_would_be_right(said: dict[str, Any], expected: str) -> None:
    (fault,) = faults({key: value for key, value in (GOOD | said).items() if value is not ...})
    assert expected in fault
    assert len(fault) < 1_000


def test_every_fault_is_said_at_once() -> None:
    found = faults({"for": "99d", "to": "Faild", "match": {"tgs": "x", "age": "7"}, "mode": "loud", "who": "ann"})
    assert [one.split(":")[0] for one in found] == [
        'unknown key "who"; there are match, from, to, rule, notifier, everything, mode, starts_in, begins_at, for, '
        "ends_at, author, reason, dry_run, id",
        "author", "reason", "mode", "for", "match.tgs", "match.age", "to",
    ]  # fmt: skip


def test_ten_thousand_faults_are_not_all_said() -> None:
    found = faults({f"k{number}": "x" for number in range(10_000)})
    assert len(found) == 21
    assert found[-1].endswith("more")
    assert sum(map(len, found)) < 10_000


def test_what_silences_cost_together_is_bounded() -> None:
    braces = "{" + ",".join("abcdefghij") + "}"
    scopes = [read(match={"input": [f"{number}/{braces}/{braces}*"]}).scope for number in range(101)]
    assert too_costly(scopes[:100]) == ""
    assert "too many patterns" in too_costly(scopes)


def test_a_name_that_there_is_not_is_a_doubt() -> None:
    scope = read(rule=["failed", "faild"], notifier="pager").scope
    assert silence_warnings(scope, rules=["failed"], notifiers=["ops"]) == [
        'rules.toml has no rule "faild" (did you mean "failed"?)',
        'rules.toml has no notifier "pager"',
    ]


def test_a_rule_about_watches_that_cannot_see_is_a_doubt() -> None:
    scope = read(rule=["blind", "failed"]).scope
    assert silence_warnings(scope, rules=["failed", "blind"], notifiers=[], unheld=["blind"]) == [
        'rule "blind" is about watches that cannot see: no silence holds its messages'
    ]


QUEUES = a_rulebook(f'[alias.queue]\nvod = "p22"\n{WATCH}queues = ["vod"]\n{RULE}')


@pytest.mark.parametrize(
    ("said", "doubted"),
    [
        ({"match": {"queue": "x*"}}, 'match.queue: no watch polls a queue like "x*"; there are vod'),
        ({"from": "Failed"}, "from: never happens: a job that ended changes no more"),
    ],
)
def test_what_no_watch_polls_is_a_doubt(said: dict[str, Any], doubted: str) -> None:
    (found,) = doubted_of(said)
    assert found.startswith(doubted)


@pytest.mark.parametrize("match", [{"queue": ["vod", "p22", "v*"]}, {"tag": "Transcode", "watch": "vod"}])
def test_what_a_watch_polls_is_not_doubted(match: dict[str, Any]) -> None:
    assert doubted_of({"match": match}) == []


def test_very_many_doubts_are_counted() -> None:
    found = doubted_of({"match": {"tag": [f"t{number}" for number in range(500)]}})
    assert (len(found), found[-1]) == (21, "and 480 more")


def doubted_of(said: dict[str, Any]) -> list[str]:
    return silence_warnings(
        read(**said).scope, rules=[], notifiers=[], watches=QUEUES.watches, queue_names=QUEUES.queue_names
    )


def test_what_it_matches_is_said_in_a_line() -> None:
    said = {"match": {"tag": ["a", "!b"], "user_data": {"asset": True}}, "to": "Failed", "rule": ["x", "y"]}
    assert described(said) == "tag=a,!b user_data.asset=true to=Failed rule=x,y"
    assert described({}) == "everything"


def test_a_preview_counts_what_matches_and_keeps_the_newest() -> None:
    found = Preview(scope=read(rule="failed").scope, queue_names={}, since=NOON)
    steps = [a_transition(a_job(id=f"j{number}", state=FAILED)) for number in range(SHOWN + 2)]
    found.add(PastMessage(transition=step, rule="failed", notifier="ops", sent_at=NOON) for step in steps)
    found.add([PastMessage(transition=steps[0], rule="all", notifier="ops", sent_at=NOON)])
    assert (found.looked_at, found.matched) == (SHOWN + 3, SHOWN + 2)
    assert found.counts == {("failed", "ops"): SHOWN + 2}
    assert [one.transition.job.id for one in found.newest] == [f"j{number}" for number in range(SHOWN)]


def test_a_preview_knows_queues_by_their_alias() -> None:
    found = Preview(scope=read(to="Running", match={"queue": "vod"}).scope, queue_names={"p224": "vod"}, since=NOON)
    step = a_transition(a_job(queue="p224"))
    found.add([PastMessage(transition=step, rule="r", notifier="n", sent_at=NOON)])
    assert found.matched == 1
