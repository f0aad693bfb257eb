"""POST /api/v1/rules/explain: why did I (not) get this?"""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from bridge.admin.explain_answers import Explanations
from bridge.model import RUNNING, Rejected, Transition
from bridge.pipeline.route import route_all
from bridge.record.schema import metadata
from tests.support.admin_world import BUCKET, NOON, READ, RULES, World, a_book, a_failed_job, job_number


def ask(world: World, status: int = 200, **body: Any) -> Any:
    answer = world.client().post("/api/v1/rules/explain", json=body)
    assert answer.status_code == status, answer.text
    found = answer.get_json(force=True)
    return found["items"] if status == 200 else found["detail"]


def everything(world: World) -> list[Any]:
    with world.db.read() as tx:
        return [tx.execute(select(table)).all() for table in metadata.sorted_tables]


def test_a_job_on_record_is_explained_and_nothing_is_changed(either_world: World) -> None:
    world = either_world
    world.sees(a_failed_job(1))
    world.attempt(Rejected("not today"), answer="the receiver's own secret")
    before = everything(world)
    (found,) = ask(world, job_id="j1")
    assert found["headline"] == '"failed" notifies ops/1: dead'
    assert [(one["rule"], one["answer"]) for one in found["rules"]] == [("failed", "fired"), ("all", "stopped")]
    assert [(one["rule"], one["answer"]) for one in found["deliveries"]] == [("failed", "dead"), ("all", "stopped")]
    assert "not today" in found["deliveries"][0]["why"]
    assert "the receiver's own secret" not in repr(found)
    assert everything(world) == before


def test_a_made_up_job_is_explained_and_nothing_is_changed(either_world: World) -> None:
    before = everything(either_world)
    (found,) = ask(either_world, job={"tag": "Snapshot", "from": "Running", "to": "Failed", "queue": "vod"})
    assert found["headline"] == '"all" notifies cms: at once'
    assert found["messages"][0]["title"] == "Snapshot Failed: sample"
    assert found["notes"] == []
    assert everything(either_world) == before


@pytest.mark.parametrize("body", [{"job_id": "j1"}, {"job": {"tag": "Transcode"}}])
def test_the_answer_is_as_described(world: World, body: dict[str, Any]) -> None:
    world.sees(job_number(1))
    items = ask(world, **body)
    described = Explanations.model_validate({"items": items, "older": 0})
    assert described.model_dump(mode="json", by_alias=True).keys() == {"items", "older"}
    shape = set(type(described.items[0]).model_json_schema(by_alias=True)["properties"])
    assert set(items[0]) == shape


def test_a_job_that_nobody_saw_is_not_found_and_it_says_what_to_check(world: World) -> None:
    assert ask(world, 404, job_id="j404") == (
        'no job "j404" is on record: is the id right, and does a watch list its bucket and its tag?'
    )


def test_the_bucket_says_which_of_two_jobs_is_meant(world: World) -> None:
    world.sees(job_number(1))
    assert [one["bucket"] for one in ask(world, job_id="j1", bucket=BUCKET)] == [BUCKET]
    assert 'no job "j1" in bucket other is on record' in ask(world, 404, job_id="j1", bucket="other")


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({}, "the body: give job_id, or job: one of the two"),
        ({"job_id": "j1", "job": {}}, "give job_id, or job: one of the two"),
        ({"job": {}, "bucket": "b"}, "bucket is for a job on record"),
        ({"job_id": 7}, "job_id: Input should be a valid string"),
        ({"job_id": "a\0b"}, "job_id: it has a NUL (\\u0000) in it, which no id or bucket has"),
        ({"job_id": "j1", "bucket": "b\0"}, "bucket: it has a NUL (\\u0000) in it, which no id or bucket has"),
        ({"job_id": ""}, "job_id: it is empty; leave it out, or write one"),
        ({"job_id": "j" * 1_001}, "job_id: it has 1001 characters; at most 1000 are read"),
        ({"job": []}, "job: Input should be an object"),
        ({"job": {"tga": "Transcode"}}, 'job: a job has no "tga" (did you mean "tag"?)'),
        ({"job": {"to": "Faild"}}, 'there is no job state "Faild" (did you mean "Failed"?)'),
    ],
)
def test_what_cannot_be_asked_is_refused_with_what_would_be_right(
    world: World, body: dict[str, Any], fault: str
) -> None:
    assert fault in ask(world, 400, **body)


def test_every_fault_of_a_question_is_told_at_once(world: World) -> None:
    detail = ask(world, 400, job_id=7, bucket=8, more=9)
    assert all(name in detail for name in ("job_id", "bucket", "more"))


def test_only_the_admin_token_may_ask(world: World) -> None:
    world.sees(job_number(1))
    assert world.client(READ).post("/api/v1/rules/explain", json={"job_id": "j1"}).status_code == 403


def test_what_is_no_json_is_refused(world: World) -> None:
    assert world.client().post("/api/v1/rules/explain", data="job_id=j1").status_code == 415


def test_of_very_many_transitions_the_newest_are_explained_and_the_others_counted(world: World) -> None:
    more = "".join(f'[[rule]]\nname = "r{n}"\nmatch.tag = "Tts"\nnotify = "cms"\n' for n in range(998))
    world.book = a_book(RULES + more)
    steps = [
        Transition(job=job_number(1), was=RUNNING, to=RUNNING, sequence=number, seen_at=NOON, watch="vod")
        for number in range(1, 54)
    ]
    with world.db.write() as tx:
        route_all(tx, world.book, steps, NOON)
    answer = world.client().post("/api/v1/rules/explain", json={"job_id": "j1"}).get_json()
    assert [one["sequence"] for one in answer["items"]] == list(range(4, 54))
    assert answer["older"] == 3
