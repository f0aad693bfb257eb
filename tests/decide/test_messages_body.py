import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.decide.messages.build import LARGEST_EVENT, event
from bridge.decide.text.values import CUT_MARK, LONGEST_TEXT, cut
from bridge.model import (
    FAILED,
    GONE,
    NEW,
    OUTPUTS_KEPT,
    PAUSE,
    RUNNING,
    SUBMITTED,
    SUCCESS,
)
from tests.decide.finished import FINISHED, QUEUE, SECOND, failed
from tests.support.nouns import NOON, a_job, a_transition


def size(message_event) -> int:
    return len(
        json.dumps({"specversion": "1.0", "id": "dlv_" + "x" * 26, **message_event}, ensure_ascii=False).encode()
    )


def test_the_body_is_the_documented_one():
    assert event(failed(), "failed", {QUEUE: "vod"}) == {
        "source": "//media-1250000000.ci.ap-chongqing.myqcloud.com/jobs",
        "type": "ci.job.failed",
        "subject": "j8d1",
        "time": "2026-11-21T12:00:00Z",
        "timestamp": "2026-11-21T12:00:00Z",
        "sequence": "0000000003",
        "datacontenttype": "application/json",
        "data": {
            "from": "Running",
            "to": "Failed",
            "seen_at": "2026-11-21T12:00:05Z",
            "rule": "failed",
            "watch": "vod",
            "job": {
                "id": "j8d1",
                "tag": "Transcode",
                "state": "Failed",
                "queue": QUEUE,
                "queue_name": "vod",
                "bucket": "media-1250000000",
                "region": "ap-chongqing",
                "code": "InvalidArgument",
                "message": "no such codec",
                "progress": 30,
                "created_at": "2026-11-21T11:58:39Z",
                "started_at": "2026-11-21T11:58:40Z",
                "ended_at": "2026-11-21T12:00:00Z",
                "wait_seconds": 1,
                "duration_seconds": 80,
                "input": "input/demo.mp4",
                "outputs": ["out/demo.ts"],
                "outputs_total": 1,
                "template": "t1",
                "workflow": None,
                "user_data": "This is my data.",
            },
        },
    }


@pytest.mark.parametrize(
    ("was", "to", "time"),
    [
        (NEW, SUBMITTED, "11:58:39"),
        (SUBMITTED, RUNNING, "11:58:40"),
        (RUNNING, SUCCESS, "12:00:00"),
        (RUNNING, FAILED, "12:00:00"),
        (RUNNING, PAUSE, "12:00:05"),
        (RUNNING, GONE, "12:00:05"),
        (PAUSE, SUBMITTED, "12:00:05"),
    ],
)
def test_the_time_is_that_of_the_state_or_when_it_was_seen(was, to, time):
    step = a_transition(a_job(**FINISHED, state=to), was=was, seen_at=NOON + 5 * SECOND)
    assert event(step, "r", {})["time"] == event(step, "r", {})["timestamp"] == f"2026-11-21T{time}Z"


def test_where_ci_gave_no_time_it_is_when_it_was_seen():
    assert event(failed(ended_at=None), "r", {})["time"] == "2026-11-21T12:00:05Z"


def test_a_job_of_which_ci_says_little_has_nothing_instead():
    facts = event(a_transition(), "r", {})["data"]["job"]
    nothing = {key for key, value in facts.items() if value is None}
    assert facts["outputs"] == []
    assert nothing == {
        "tag", "queue", "queue_name", "code", "message", "progress", "created_at", "started_at", "ended_at",
        "wait_seconds", "duration_seconds", "input", "template", "workflow", "user_data",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("state", "kind"), [("Failed", "ci.job.failed"), ("gone", "ci.job.gone"), ("Under Review!", "ci.job.under_review_")]
)
def test_the_type_is_the_state_in_plain_letters(state, kind):
    assert event(a_transition(to=state), "r", {})["type"] == kind


def test_at_most_twenty_outputs_are_named_and_all_are_counted():
    outputs = tuple(f"out/{n}.ts" for n in range(5000))
    facts = event(failed(outputs=outputs, outputs_total=5000), "r", {})["data"]["job"]
    assert facts["outputs"] == list(outputs[:OUTPUTS_KEPT])
    assert facts["outputs_total"] == 5000


def test_a_long_text_is_cut_with_a_mark():
    facts = event(failed(message="x" * 5000), "r", {})["data"]["job"]
    assert len(facts["message"]) == LONGEST_TEXT
    assert facts["message"].endswith(CUT_MARK)
    assert facts["user_data"] == "This is my data."


def test_outputs_go_before_texts_are_shortened():
    facts = event(failed(outputs=("中" * 2000,) * 20, outputs_total=20), "r", {})["data"]["job"]
    # 6 kB each: two fit beside the rest
    assert len(facts["outputs"]) == 3
    assert facts["message"] == "no such codec"
    assert facts["outputs_total"] == 20


HUGE = st.sampled_from(["", "x" * 50_000, "中" * 50_000, "😀" * 50_000, "\0" * 50_000, '"\\' * 50_000])


@given(
    st.fixed_dictionaries(
        dict.fromkeys(("tag", "queue", "code", "message", "input", "template", "workflow", "user_data"), HUGE)
    ),
    st.lists(HUGE, max_size=3),
)
def test_the_body_stays_under_its_limit_whatever_the_job_says(texts, outputs):
    job = {**texts, "outputs": tuple(outputs) * 10, "outputs_total": 5000}
    assert size(event(failed(**job), "r", {})) <= LARGEST_EVENT


def test_a_text_is_cut_only_when_it_is_longer_and_ends_within_the_limit():
    assert cut("x" * 20, 20) == "x" * 20
    assert cut("x" * 21, 20) == "x" * 14 + CUT_MARK
    assert cut("x" * 21, 3) == CUT_MARK


def test_sequences_sort_as_text_as_they_do_as_numbers():
    numbers = [1, 9, 10, 99, 100, 2_147_483_647]
    said = [event(replace(failed(), sequence=number), "failed", {})["sequence"] for number in numbers]
    assert sorted(said) == said
    assert {len(one) for one in said} == {10}
