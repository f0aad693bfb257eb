from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.collect.callbacks import CALLBACK_LIMIT, MOST_NAMED, NamedJob, UnreadableCallback, read_callback

FIXTURES = Path(__file__).parents[1] / "fixtures" / "ci"
CLIPS = "clips-1250000000"


def job_xml(inside: str) -> bytes:
    return f"<Response><EventName>TaskFinish</EventName><JobsDetail>{inside}</JobsDetail></Response>".encode()


@pytest.mark.parametrize(
    ("name", "jobs"),
    [
        ("callback_task_finish.xml", ["j12c57ee0da9411ee800c525400a1b2c3"]),
        ("callback_task_finish.json", ["jd5f761d0da8f11ee8002525400a1b2c3"]),
        (
            "callback_workflow_finish.xml",
            ["j12c582c8da9411ee800d525400a1b2c3", "j12c586b0da9411ee800e525400a1b2c3"],
        ),
    ],
)
def test_a_callback_as_ci_documents_it_names_its_jobs_and_their_bucket(name: str, jobs: list[str]) -> None:
    assert read_callback((FIXTURES / name).read_bytes()) == [NamedJob(job, CLIPS) for job in jobs]


@pytest.mark.parametrize("tasks", [{"JobId": "j1"}, [{"JobId": "j1"}, {"JobId": "j2"}]])
def test_a_workflow_in_json_names_the_jobs_of_its_tasks(tasks: Any) -> None:
    body = {"EventName": "WorkflowFinish", "WorkflowExecution": {"BucketId": CLIPS, "Tasks": tasks}}

    named = read_callback(json.dumps(body).encode())

    assert [job.id for job in named] == ["j1", "j2"][: len(tasks)]
    assert {job.bucket for job in named} == {CLIPS}


def test_several_jobs_may_be_in_one_callback() -> None:
    body = job_xml("<JobId>j1</JobId></JobsDetail><JobsDetail><JobId>j2</JobId><BucketId>b-1</BucketId>")

    assert read_callback(body) == [NamedJob("j1"), NamedJob("j2", "b-1")]


def test_an_input_says_where_a_job_is_and_an_output_only_where_there_is_no_other() -> None:
    output = "<Operation><Output><Bucket>out-1</Bucket></Output></Operation>"

    assert read_callback(job_xml(f"<JobId>j1</JobId><Input><BucketId>in-1</BucketId></Input>{output}")) == [
        NamedJob("j1", "in-1")
    ]
    assert read_callback(job_xml(f"<JobId>j1</JobId><Input><Url>http://x/</Url></Input>{output}")) == [
        NamedJob("j1", "out-1")
    ]


def test_a_byte_order_mark_and_white_space_may_come_first() -> None:
    assert read_callback(b'\xef\xbb\xbf \r\n{"JobsDetail": {"JobId": "j1"}}') == [NamedJob("j1")]
    assert read_callback(b"\xef\xbb\xbf" + job_xml("<JobId> j1\n</JobId>")) == [NamedJob("j1")]


@pytest.mark.parametrize("job_id", ["", "a/b", "a,b", "..", ".", "j 1", "j\t1", "j?1", "j#1", "j%31", "ж", "j" * 201])
def test_an_id_that_is_not_one_is_left_out(job_id: str) -> None:
    body = {"JobsDetail": [{"JobId": job_id}, {"JobId": "j1"}]}

    assert read_callback(json.dumps(body).encode()) == [NamedJob("j1")]
    assert read_callback(job_xml(f"<JobId>{job_id}</JobId></JobsDetail><JobsDetail><JobId>j1</JobId>")) == [
        NamedJob("j1")
    ]


@pytest.mark.parametrize("value", [None, 1, True, {}, [], ["j1"], {"JobId": "j1"}, "j\0", "\ud800"])
def test_an_id_of_another_type_is_left_out(value: Any) -> None:
    with pytest.raises(UnreadableCallback, match="names no job"):
        read_callback(json.dumps({"JobsDetail": {"JobId": value}}).encode())


LAUGHS = b"""<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<Response><JobsDetail><JobId>&b;</JobId></JobsDetail></Response>"""
FILE = b'<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/hostname">]><Response><JobsDetail><JobId>&x;</JobId></JobsDetail></Response>'


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\0", b"ok", b"null", b"[]", b"{}", b"{", b'"j1"', b"<", b"<Response/>", b"<Response>", b"<html></html>",
        LAUGHS, FILE, b"\xff\xfe<\0R\0", b"\x1f\x8b\x08\0", b'{"Response": null}', b'{"JobsDetail": "j1"}',
        b'{"JobsDetail": [[{"JobId": "j1"}]]}', b"<Error><Code>x</Code></Error>", b'{"a":' * 40_000,
        b'{"JobsDetail": {"JobId": ' + b"9" * 100_000 + b"}}",
        b"<Response>" + b"<a>" * 60_000, b"<Response " + b"a" * 200_000,
        job_xml("<Operation><JobId>nested</JobId></Operation>"),
    ],
)  # fmt: skip
def test_what_is_no_callback_is_refused(body: bytes) -> None:
    with pytest.raises(UnreadableCallback):
        read_callback(body)


def test_the_jobs_of_one_callback_are_bounded_and_each_comes_once() -> None:
    jobs = [{"JobId": f"j{n % 2000}"} for n in range(4000)]

    named = read_callback(json.dumps({"JobsDetail": jobs}).encode())

    assert len(named) == MOST_NAMED
    assert len({job.id for job in named}) == MOST_NAMED


_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["JobId", "JobsDetail", "Input", "BucketId", "WorkflowExecution", "Tasks", "Response", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.binary(max_size=300) | _VALUES.map(lambda value: json.dumps(value).encode()))
def test_no_body_makes_another_error(body: bytes) -> None:
    with suppress(UnreadableCallback):
        assert read_callback(body)


_FIXTURE = [(FIXTURES / name).read_bytes() for name in ("callback_task_finish.xml", "callback_workflow_finish.xml")]


@given(st.sampled_from(_FIXTURE), st.integers(0, 4000), st.binary(max_size=5), st.integers(0, 3))
def test_no_damage_to_a_callback_makes_another_error(body: bytes, at: int, new: bytes, cut: int) -> None:
    with suppress(UnreadableCallback):
        assert all(job.id.isascii() for job in read_callback(body[:at] + new + body[at + cut :]))


def test_the_limit_is_well_above_what_ci_sends() -> None:
    assert 10 * max(map(len, _FIXTURE)) < CALLBACK_LIMIT
