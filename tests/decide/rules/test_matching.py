from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from bridge.decide.rules.matching import Facts, Matcher, Rule, read_condition
from bridge.decide.text.values import states
from tests.support.nouns import a_job, a_transition

ALIASES = {"vod": "p22", "live": "p33", "old": "vod"}
QUEUE_NAMES = {queue: name for name, queue in ALIASES.items()}


def a_rule(name="r", *, was="*", to="*", match=None, notify=("ops",), stop=False, conditions=()) -> Rule:
    found = tuple(read_condition(key, value, ALIASES) for key, value in (match or {}).items())
    return Rule(
        name=name,
        line=1,
        was=states([was]),
        to=states([to]),
        conditions=(*found, *conditions),
        notify=notify,
        stop=stop,
    )


def told(rules, transition) -> list[tuple[str, tuple[str, ...]]]:
    return [(verdict.rule.name, verdict.notifiers) for verdict in Matcher(rules, QUEUE_NAMES).match(transition)]


FAILED = a_transition(a_job(state="Failed", tag="Transcode", queue="p22"), was="Running")


def test_every_rule_that_matches_fires_top_to_bottom():
    rules = [a_rule("b", notify=("ops",)), a_rule("no", to="Success"), a_rule("a", to="Failed", notify=("cms",))]
    assert told(rules, FAILED) == [("b", ("ops",)), ("a", ("cms",))]


def test_after_a_rule_that_stops_no_rule_is_asked():
    assert told([a_rule("one"), a_rule("two", stop=True), a_rule("three", notify=("cms",))], FAILED) == [
        ("one", ("ops",)),
        ("two", ()),
    ]


def test_a_rule_that_does_not_match_stops_nothing():
    assert told([a_rule("one", to="Success", stop=True), a_rule("two")], FAILED) == [("two", ("ops",))]


def test_a_notifier_is_told_by_the_first_rule_that_names_it():
    rules = [a_rule("one", notify=("ops", "cms")), a_rule("two", notify=("cms", "pager"))]
    first, second = Matcher(rules, {}).match(FAILED)
    assert (first.notifiers, first.notified_earlier) == (("ops", "cms"), {})
    assert (second.notifiers, second.notified_earlier) == (("pager",), {"cms": rules[0]})


INFERRED = a_transition(a_job(state="Running"), was="Submitted", inferred=True)


def test_an_inferred_transition_is_for_rules_whose_to_names_its_state_wherever_it_came_from():
    rules = [a_rule("all"), a_rule("unfinished", to="active"), a_rule("ran", was="Pause", to="Running")]
    assert told(rules, INFERRED) == [("ran", ("ops",))]


def test_a_rule_that_an_inferred_transition_is_not_for_says_so():
    verdicts = Matcher([a_rule("all"), a_rule("unfinished", was="Pause", to="active")], {}).explain(INFERRED)
    assert [verdict.misses for verdict in verdicts] == [
        ('to: "Running" was inferred, and is not named by *',),
        ('to: "Running" was inferred, and is not named by active',),
    ]


def test_conditions_and_stop_hold_for_inferred_transitions_too():
    rules = [a_rule("other", to="Running", match={"tag": "Snapshot"}), a_rule("one", to="Running", stop=True)]
    assert told([*rules, a_rule("two", to="Running")], INFERRED) == [("one", ("ops",))]


def test_every_rule_says_why_it_did_not_fire():
    rules = [
        a_rule("to", to="done", match={"tag": "Transcode"}),
        a_rule("to2", to="Success"),
        a_rule("from", was="new"),
        a_rule("match", match={"tag": "Transcode", "queue": "live"}),
        a_rule("stops", stop=True),
        a_rule("late"),
    ]
    verdicts = Matcher(rules, QUEUE_NAMES).explain(FAILED)
    assert [verdict.why_not for verdict in verdicts] == [
        None,
        'to: "Failed" is not among Success',
        'from: "Running" is not among new',
        'match.queue: "p22" / "vod" is not "p33"',
        None,
        'rule "stops" (line 1) matched and stops',
    ]


@dataclass(frozen=True)
class Counting:
    """A condition that holds, and counts how often it was asked."""

    asked: list[int] = field(default_factory=list)

    def why_not(self, facts: Facts) -> str | None:
        self.asked.append(1)


def test_a_rule_that_was_not_asked_says_what_it_would_have_missed():
    rules = [a_rule("stops", stop=True), a_rule("late"), a_rule("other", to="Success", match={"queue": "live"})]
    stops, late, other = Matcher(rules, QUEUE_NAMES).explain(FAILED)
    assert (stops.answer, late.answer, other.answer) == ("fired", "stopped", "stopped")
    assert (late.misses, len(other.misses)) == ((), 2)


def test_rules_for_other_tags_queues_and_states_cost_nothing():
    counter = Counting()
    others = [
        a_rule(f"{key}{n}", match={key: f"other{n}"}, conditions=(counter,))
        for n in range(500)
        for key in ("tag", "queue")
    ]
    others += [a_rule("success", to="Success", conditions=(counter,))]
    rules = [*others, a_rule("mine", match={"tag": "Transcode"}, conditions=(counter,))]
    assert [name for name, _ in told(rules, FAILED)] == ["mine"]
    assert len(counter.asked) == 1


TAGS, QUEUES = ["Transcode", "Snapshot", "Trans*", "!Transcode"], ["vod", "live", "old", "p22", "p*", "!vod"]
STATES = ["Success", "Failed", "Running", "Reviewing", "done", "active", "*", "gone"]
RULES = st.builds(
    a_rule,
    name=st.text("abc", min_size=1, max_size=2),
    was=st.sampled_from([*STATES, "new"]),
    to=st.sampled_from(STATES),
    match=st.fixed_dictionaries(
        {},
        optional={
            "tag": st.sampled_from(TAGS) | st.lists(st.sampled_from(TAGS), min_size=1) | st.booleans(),
            "queue": st.sampled_from(QUEUES) | st.lists(st.sampled_from(QUEUES), min_size=1) | st.booleans(),
            "level": st.sampled_from(["0", "*"]),
        },
    ),
    notify=st.lists(st.sampled_from(["ops", "cms", "pager"]), min_size=1, unique=True).map(tuple),
    stop=st.booleans(),
)
JOBS = st.builds(
    a_job,
    state=st.sampled_from(["Success", "Failed", "Running", "Reviewing"]),
    tag=st.sampled_from(["Transcode", "Snapshot", "", None]),
    queue=st.sampled_from(["p22", "p33", "vod", "p44", "", None]),
    level=st.sampled_from(["0", None]),
)


@given(st.lists(RULES, max_size=12), JOBS, st.sampled_from(["new", "Running", "gone"]))
def test_the_index_forgets_no_rule_that_asking_each_one_would_find(rules, job, was):
    matcher, transition = Matcher(rules, QUEUE_NAMES), a_transition(job, was=was)
    alone = [rule for rule in rules if rule.why_not(matcher.facts(transition)) is None]
    stops = next((number for number, rule in enumerate(alone) if rule.stop), len(alone))
    assert [verdict.rule for verdict in matcher.match(transition)] == alone[: stops + 1]
