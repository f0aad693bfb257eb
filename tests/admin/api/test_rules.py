"""POST /api/v1/rules/...: explaining jobs, and checking files."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from bridge.decide.rulesfile.errors import LARGEST
from bridge.model import RUNNING, Rejected, Transition
from bridge.pipeline.route import route_all
from bridge.record.schema import metadata
from bridge.wiring.web import served
from tests.support.admin_world import ADMIN, BUCKET, NOON, RULES, SECRETS, World, a_book, a_failed_job, job_number


def ask(world: World, status: int = 200, **body: Any) -> Any:
    answer = world.client().post("/api/v1/rules/explain", json=body)
    assert answer.status_code == status, answer.text
    found = answer.get_json(force=True)
    return found["items"] if status == 200 else found["detail"]


def everything(world: World) -> list[Any]:
    with world.db.read() as tx:
        return [tx.execute(select(table)).all() for table in metadata.sorted_tables]


def test_a_job_on_record_is_explained_and_nothing_is_changed(world: World) -> None:
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


def test_a_sample_job_is_explained_and_nothing_is_changed(world: World) -> None:
    before = everything(world)
    (found,) = ask(world, job={"tag": "Snapshot", "from": "Running", "to": "Failed", "queue": "vod"})
    assert found["headline"] == '"all" notifies cms: at once'
    assert found["messages"][0]["title"] == "Snapshot Failed: sample"
    assert found["notes"] == []
    assert everything(world) == before


def test_an_unknown_job_is_not_found_and_the_error_says_what_to_check(world: World) -> None:
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
        ({}, "the body: give either job_id or job"),
        ({"job_id": "j1", "job": {}}, "give either job_id or job"),
        ({"job": {}, "bucket": "b"}, "bucket is for a job on record"),
        ({"job_id": 7}, "job_id: a string is needed"),
        ({"job_id": "a\0b"}, "job_id: contains a NUL (\\u0000)"),
        ({"job_id": "j1", "bucket": "b\0"}, "bucket: contains a NUL"),
        ({"job_id": ""}, "job_id: is empty; leave it out"),
        ({"job_id": "j" * 1_001}, "job_id: has 1001 characters; at most 1000 are read"),
        ({"job": []}, "job: Input should be an object"),
        ({"job": {"tga": "Transcode"}}, 'job: a job has no "tga" (did you mean "tag"?)'),
        ({"job": {"to": "Faild"}}, 'there is no job state "Faild" (did you mean "Failed"?)'),
    ],
)
def test_what_cannot_be_asked_is_refused_with_what_would_be_right(
    world: World, body: dict[str, Any], fault: str
) -> None:
    assert fault in ask(world, 400, **body)


def test_every_fault_of_a_question_is_reported_at_once(world: World) -> None:
    detail = ask(world, 400, job_id=7, bucket=8, more=9)
    assert all(name in detail for name in ("job_id", "bucket", "more"))


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


# --- checking a file -------------------------------------------------------------------------------------------------


PATH = "/api/v1/rules/check"
TEST = '\n[[test]]\njob = { to = "Success" }\nexpect = ["all -> cms"]\n'
WRONG = TEST.replace('to = "Success"', 'tag = "Transcode", to = "Failed", user_data = "asset_id=7", duration = "46m"')


def line_of(words: str, text: str) -> int:
    """Return the line on which these words stand first."""
    return text[: text.index(words)].count("\n") + 1


FAILED, ALL = (line_of(f'[[rule]]\nname = "{name}"', RULES) for name in ("failed", "all"))


def checked(world: World, text: str) -> dict[str, Any]:
    seen = world.client().post(PATH, json={"toml": text})
    assert seen.status_code == 200
    found: dict[str, Any] = seen.get_json()
    return found


def test_rules_that_are_right_are_ok_and_their_tests_are_run(world: World) -> None:
    assert checked(world, RULES + TEST) == {
        "ok": True, "sha": a_book(RULES + TEST).sha, "faults": [], "tests": {"run": 1, "failed": []},
    }  # fmt: skip


def test_every_fault_is_reported_with_its_line(world: World) -> None:
    found = checked(world, RULES.replace('to = "Failed"', 'to = "Faild"') + TEST)
    assert (found["ok"], found["sha"], found["tests"]) == (False, None, {"run": 0, "failed": []})
    assert found["faults"] == [
        {
            "line": line_of('to = "Failed"', RULES), "level": "error",
            "text": 'rule "failed", key "to": there is no job state "Faild" (did you mean "Failed"?)',
        }
    ]  # fmt: skip


def test_a_warning_does_not_refuse(world: World) -> None:
    text = RULES + '[[rule]]\nname = "never"\nmatch.tag = "Concat"\nnotify = "cms"\n'
    found = checked(world, text)
    assert found["ok"]
    (warning,) = found["faults"]
    assert (warning["line"], warning["level"]) == (line_of('match.tag = "Concat"', text), "warning")


def test_a_failing_test_is_reported_with_its_number_and_line(world: World) -> None:
    found = checked(world, RULES + TEST + WRONG)
    assert not found["ok"]
    assert found["tests"]["run"] == 2
    (failed,) = found["tests"]["failed"]
    assert (failed["number"], failed["line"]) == (2, line_of(WRONG, RULES + TEST + WRONG) + 1)
    assert failed["text"] == (
        f'test number 2: not notified: all -> cms: rule "failed" (line {FAILED}) matched and stops '
        f"(rule on line {ALL}); notified, but not expected: failed -> ops/1"
    )


def test_no_answer_shows_a_secret(world: World) -> None:
    for text in (RULES + WRONG, RULES.replace("[notifier.cms]", "[notifier.cms]\nx = 1"), RULES + "["):
        said = world.client().post(PATH, json={"toml": text}).text
        assert [secret for secret in SECRETS if secret in said] == []


def test_what_is_tried_does_not_come_into_force(world: World) -> None:
    before = world.client().get("/api/v1/rules").get_json()
    assert checked(world, '[[rule]]\nname = "x"\nnotify = "x"\n')["ok"] is False
    assert checked(world, RULES + TEST)["ok"]
    assert world.client().get("/api/v1/rules").get_json() == before


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        ({"json": {}}, 400, "toml: Field required"),
        ({"json": {"toml": 5}}, 400, "toml: Input should be a valid string"),
        ({"json": {"toml": "", "file": "x"}}, 400, 'unknown key "file"; there are: toml'),
        ({"json": [1]}, 400, "the body: Input should be an object"),
        ({"data": b'{"toml": ', "content_type": "application/json"}, 400, "the body: Invalid JSON: "),
        ({"data": b"\xff", "content_type": "application/json"}, 400, "the body: Invalid JSON: "),
        ({"data": b"[" * 50_000, "content_type": "application/json"}, 400, "the body: Invalid JSON: "),
        ({"data": RULES.encode(), "content_type": "application/toml"}, 415, 'a body of type "application/toml"'),
        ({}, 415, 'a body of type "" is not supported; send application/json'),
        ({"json": {"toml": "#" * 2_000_000}}, 413, "a body is at most 2000000 bytes"),
    ],
)
def test_an_invalid_body_is_refused_with_what_would_be_right(
    world: World, sent: dict[str, Any], status: int, said: str
) -> None:
    seen = world.client().post(PATH, **sent)
    assert (seen.status_code, seen.content_type) == (status, "application/problem+json")
    assert seen.get_json(force=True)["detail"].startswith(said)


def test_rules_of_a_megabyte_are_read_and_more_is_a_fault(world: World) -> None:
    assert checked(world, RULES + "#" * (LARGEST - len(RULES)))["ok"]
    (fault,) = checked(world, "#" * (LARGEST + 1))["faults"]
    assert fault["text"] == "is too large: it has 1,000,001 bytes; the limit is 1,000,000"


def test_the_server_of_run_takes_as_much(world: World) -> None:
    import requests

    text = RULES + '# "quoted"\n' * 80_000
    with served(world.app(), host="127.0.0.1", port=0) as port:
        seen = requests.post(
            f"http://127.0.0.1:{port}{PATH}",
            json={"toml": text},
            headers={"Authorization": f"Bearer {ADMIN}"},
            timeout=60,
        )
    assert (seen.status_code, seen.json()["ok"]) == (200, True)
    assert len(seen.request.body or b"") > LARGEST
