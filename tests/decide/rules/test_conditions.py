import re
from dataclasses import replace
from datetime import timedelta

import pytest

from bridge.decide.rules.matching import DURATIONS, TEXTS, Facts, read_condition
from bridge.decide.text.values import user_data_keys
from tests.support.nouns import NOON, a_job, a_transition

ALIASES = {"vod": "p22", "live": "p33"}


def why_not(field: str, value: object, **job) -> str | None:
    facts = Facts(a_transition(a_job(**job)), {queue: name for name, queue in ALIASES.items()})
    return read_condition(field, value, ALIASES).why_not(facts)


def holds(field: str, value: object, **job) -> bool:
    return why_not(field, value, **job) is None


def test_a_text_without_wildcards_is_exact_and_case_counts():
    assert holds("tag", "Transcode", tag="Transcode")
    assert not holds("tag", "transcode", tag="Transcode")
    assert not holds("tag", "Trans", tag="Transcode")


@pytest.mark.parametrize(
    ("pattern", "key", "matches"),
    [
        ("uploads/*.mp4", "uploads/a.mp4", True),
        ("uploads/*.mp4", "uploads/x/a.mp4", False),
        ("*.mp4", "uploads/a.mp4", False),
        ("**/*.mp4", "a.mp4", True),
        ("uploads/**/*.mp4", "uploads/a.mp4", True),
        ("uploads/**", "uploads/x/.hidden", True),
        ("uploads/?.mp4", "uploads/a.mp4", True),
        ("uploads/?.mp4", "uploads/ab.mp4", False),
        ("uploads/?.mp4", "uploads/中.mp4", True),
        ("uploads/*.{mp4,mov}", "uploads/a.mov", True),
        ("A*", "ab", False),
        ("a[1]*", "a[1].mp4", True),
        (r"a\*", r"a\b", True),
        ("out/${RunId}.m3u8", "out/${RunId}.m3u8", True),
    ],
)
def test_globs_know_folders_in_the_names_of_files(pattern, key, matches):
    assert holds("input", pattern, input=key) is matches


def test_in_other_texts_a_star_takes_slashes_and_lines_too():
    assert holds("message", "*timeout*", message="GET /a/b\ntimeout after 5 s")
    assert holds("code", "Invalid*", code="InvalidArgument")


def test_a_list_means_any_of_its_texts():
    assert holds("tag", ["Snapshot", "Transcode"], tag="Transcode")
    assert not holds("tag", ["Snapshot", "Concat"], tag="Transcode")


def test_an_exclamation_mark_excludes_even_what_another_text_wants():
    patterns = ["uploads/**", "!uploads/tmp/**"]
    assert holds("input", patterns, input="uploads/a.mp4")
    assert not holds("input", patterns, input="uploads/tmp/a.mp4")


def test_with_exclusions_only_everything_else_matches_even_nothing():
    assert holds("queue", "!vod", queue="p33")
    assert holds("queue", "!vod", queue=None)
    assert not holds("queue", "!vod", queue="p22")


def test_true_and_false_ask_whether_there_is_anything():
    assert holds("workflow", True, workflow="w1")
    assert not holds("workflow", True, workflow=None)
    assert holds("workflow", False, workflow=None)
    assert holds("code", False, code="")


def test_a_queue_goes_by_its_id_and_by_its_alias():
    assert holds("queue", "vod", queue="p22")
    assert holds("queue", "p22", queue="p22")
    assert holds("queue", "vo*", queue="p22")
    assert not holds("queue", "live", queue="p22")


def test_workflows_and_templates_go_by_id_and_by_name():
    assert holds("workflow", "nightly", workflow="w1", workflow_name="nightly")
    assert holds("workflow", "w1", workflow="w1", workflow_name="nightly")
    assert holds("template", "hls*", template="t1", template_name="hls-720")


def test_any_output_may_match():
    assert holds("output", "**/*.m3u8", outputs=("out/a.ts", "out/a.m3u8"))
    assert holds("output", "out/*", outputs=(), output="out/${RunId}")


@pytest.mark.parametrize("field", TEXTS)
def test_every_field_of_the_language_can_be_asked(field):
    assert why_not(field, "certainly not this") is not None
    assert holds(field, "!certainly not this")


@pytest.mark.parametrize("field", DURATIONS)
def test_every_span_of_the_language_can_be_compared(field):
    times = {"created_at": NOON - timedelta(hours=1), "started_at": NOON - timedelta(minutes=30)}
    assert holds(field, "> 29m", **times)


def test_a_change_is_late_by_as_long_as_it_was_seen_after_ci_says_that_it_happened():
    late = read_condition("late", "> 10m", {})
    started = a_transition(a_job(started_at=NOON - timedelta(minutes=11)))
    assert late.why_not(Facts(started, {})) is None
    assert late.why_not(Facts(replace(started, seen_at=NOON - timedelta(minutes=1)), {})) == (
        "match.late: 600 s is not > 600 s"
    )
    ended = a_transition(a_job(state="Cancel", started_at=NOON - timedelta(minutes=11)))
    assert late.why_not(Facts(ended, {})) == "match.late: CI gave no times to count it from"


def test_a_clock_that_is_behind_makes_nothing_late():
    assert Facts(a_transition(a_job(started_at=NOON + timedelta(minutes=1))), {}).seconds("late") == 0


def test_a_time_in_a_state_is_never_late():
    started = a_transition(a_job(started_at=NOON - timedelta(minutes=11)))
    assert Facts(started, {}, in_state=True).seconds("late") is None


@pytest.mark.parametrize(
    ("comparison", "matches"),
    [("> 3m", False), (">= 3m", True), ("<= 3m", True), ("< 3m", False), (">2m59s", True), ("  <  181s ", True)],
)
def test_durations_compare(comparison, matches):
    assert holds("duration", comparison, started_at=NOON, ended_at=NOON + timedelta(minutes=3)) is matches


def test_a_duration_runs_from_start_to_end_or_to_now_and_a_wait_ends_with_the_start():
    created, started = NOON - timedelta(minutes=60), NOON - timedelta(minutes=20)
    facts = Facts(a_transition(a_job(created_at=created, started_at=started)), {})
    assert [facts.seconds(field) for field in ("age", "wait", "duration")] == [3600, 2400, 1200]


def test_a_span_that_ci_gave_no_times_for_matches_nothing():
    assert why_not("duration", "> 1s") == "match.duration: CI gave no times to count it from"


def test_clocks_that_disagree_make_no_negative_span():
    assert holds("duration", "< 1s", started_at=NOON + timedelta(minutes=1), ended_at=NOON)


def test_a_key_of_the_user_data_can_be_matched():
    json = '{"asset_id": "a-17", "paid": true, "n": 3, "owner": null}'
    assert holds("user_data.asset_id", "a-*", user_data=json)
    assert holds("user_data.paid", "true", user_data=json)
    assert holds("user_data.n", "3", user_data=json)
    assert holds("user_data.owner", False, user_data=json)
    assert holds("user_data.missing", False, user_data=json)
    assert holds("user_data.course", "media-101", user_data="course=media-101; week=2")


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        (None, {}),
        ("", {}),
        ("This is my data.", {}),
        ("a=1;b", {}),
        ("a=1;b=2;", {"a": "1", "b": "2"}),
        ("a=x=y", {"a": "x=y"}),
        ('{"a": {"b": [1]}}', {"a": '{"b": [1]}'}),
        ('{"a": "\\ud800"}', {"a": "?"}),
        ('{"a":' + '{"b":' * 100_000 + "1" + "}" * 100_001, {}),
        ('{"a":' + "[" * 100 + "]" * 100 + "}", {}),
        ('{"a":' + "[" * 99 + "]" * 99 + "}", {"a": "[" * 99 + "]" * 99}),
        (f'{{"a": {"9" * 5000}}}', {}),
        ("{" + ",".join(f'"{n}":{n}' for n in range(1_000_000)) + "}", {}),
        (";".join(f"k{n}=1" for n in range(1_000_000)), {}),
    ],
)
def test_user_data_has_keys_when_it_is_json_or_pairs_and_whatever_it_is_it_does_no_harm(text, keys):
    assert user_data_keys(text) == keys


def test_why_not_shows_what_the_job_has_and_what_was_asked():
    assert why_not("tag", ["A", "B"], tag="C") == 'match.tag: "C" is not "A" or "B"'
    assert why_not("tag", "A") == 'match.tag: nothing is not "A"'
    assert why_not("tag", "!C*", tag="C1") == 'match.tag: "C1" is excluded by "!C*"'
    assert why_not("workflow", True) == "match.workflow: the job has none"
    assert why_not("duration", "> 1h", started_at=NOON, ended_at=NOON).endswith("0 s is not > 3600 s")


def test_why_not_explains_the_star_that_stops_at_a_slash():
    assert why_not("input", "*.mp4", input="uploads/a.mp4") == (
        'match.input: "uploads/a.mp4" is not "*.mp4" (* stops at a slash, ** does not)'
    )


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("tag", 5, "5 is not a string, a list of strings, true or false"),
        ("tag", "!", "is not a string"),
        ("duration", "45m", 'does not compare; write for example "> 45m"'),
        ("duration", "> soon", '"soon" is not a duration'),
        ("code", "{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}", "expands to more than 100 patterns; write fewer braces"),
        ("code", ["a"] * 1001, "a list of 1,001 strings is too long; the limit is 1,000"),
        ("age", "> 99999999999999d", '"99999999999999d" is out of range; a duration is more than nothing'),
        ("age", f"> {'9' * 5000}d", '999" is not a duration; write for example "30s"'),
        ("input", "**.mp4", "** must stand alone between slashes"),
        ("input", "{a,**}b*", "** must stand alone between slashes"),
    ],
)
def test_what_is_no_condition_is_refused_and_says_what_would_be(field, value, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        read_condition(field, value, {})


def test_a_field_that_no_job_has_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match='a job has no "colour" to match; there are tag, queue'):
        read_condition("colour", "red", {})
