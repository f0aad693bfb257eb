from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest

from bridge.decide.rulesfile.silences import MOST
from bridge.pipeline.digests import send_due_digests
from bridge.record.outbox import digests, silences
from tests.support.admin_world import NOON, READ, World, a_failed_job, a_silence, job_number

WANTED: dict[str, Any] = {"to": "Failed", "for": "2h", "author": "ann", "reason": "new encoder"}


def post(world: World, status: int = 201, **said: Any) -> Any:
    answer = world.client().post("/api/v1/silences", json=WANTED | said)
    assert answer.status_code == status, answer.text
    return answer.get_json(force=True)


def refused(world: World, body: bytes, status: int = 400, kind: str = "application/json") -> str:
    answer = world.client().post("/api/v1/silences", data=body, content_type=kind)
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json"), answer.text
    return str(answer.get_json(force=True)["detail"])


def listed(world: World, query: str = "") -> Any:
    return world.client(READ).get(f"/api/v1/silences{query}").get_json()


def deliveries(world: World, query: str) -> list[Any]:
    found: list[Any] = world.client(READ).get(f"/api/v1/deliveries{query}").get_json()["items"]
    return found


def test_a_silence_holds_what_it_matches_until_it_is_ended(either_world: World) -> None:
    world = either_world
    made = post(world, notifier="cms")["silence"]
    assert made == {
        "id": made["id"], "state": "active", "mode": "hold", "author": "ann", "reason": "new encoder",
        "matches": {"to": "Failed", "notifier": "cms"}, "begins_at": "2026-11-21T12:00:00Z",
        "ends_at": "2026-11-21T14:00:00Z", "ended_by": None, "held": 0,
    }  # fmt: skip
    world.sees(job_number(1), job_number(2, state="Failed"), job_number(3, state="Failed"))
    held = deliveries(world, "?state=held")
    assert {(one["job"], one["held_by"]) for one in held} == {(j, f"silence:{made['id']}") for j in ("j2", "j3")}
    assert {one["due_at"] for one in held} == {"2026-11-21T14:00:00.000Z"}
    world.now += timedelta(hours=1)
    ended = world.client().delete(f"/api/v1/silences/{made['id']}")
    assert ended.status_code == 200
    after = made | {"state": "over", "ends_at": "2026-11-21T13:00:00Z", "ended_by": "api", "held": 2}
    assert ended.get_json() == after
    assert listed(world) == {"items": [after], "cursor": None}
    with world.db.read() as tx:
        assert len(digests.due(tx, now=world.now)) == 1


def test_a_silence_that_is_asked_for_again_under_its_id_is_made_once(world: World) -> None:
    first = post(world, id="s1")["silence"]
    world.now += timedelta(minutes=5)
    assert post(world, id="s1")["silence"] == first
    ended = world.client().delete(f"/api/v1/silences/{first['id']}").get_json()
    assert post(world, id="s1")["silence"] == ended
    assert post(world, id="s2")["silence"]["id"] != first["id"]
    assert len(listed(world)["items"]) == 2


def test_a_silence_until_a_time_is_the_same_when_it_is_asked_for_again(world: World) -> None:
    said = {key: value for key, value in WANTED.items() if key != "for"} | {
        "ends_at": "2026-11-21T14:00:00Z",
        "id": "s1",
    }
    first = world.client().post("/api/v1/silences", json=said).get_json()["silence"]
    world.now += timedelta(minutes=5)
    assert world.client().post("/api/v1/silences", json=said).get_json()["silence"] == first


@pytest.mark.parametrize(
    "other", [{"to": "Success"}, {"for": "3h"}, {"author": "ben"}, {"reason": "another"}, {"mode": "drop"}]
)
def test_an_id_is_for_one_silence(world: World, other: dict[str, Any]) -> None:
    first = post(world, id="s1")["silence"]
    assert "another silence was made under this id" in post(world, 409, id="s1", **other)["detail"]
    assert listed(world)["items"] == [first]


def test_two_silences_at_once_under_one_id_are_one(either_world: World) -> None:
    together = Barrier(2, timeout=30)

    def ask(_: int) -> Any:
        together.wait()
        return post(either_world, id="s1")["silence"]

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(ask, range(2))
    assert first == second
    assert len(listed(either_world)["items"]) == 1


def test_a_dry_run_takes_no_id_away(world: World) -> None:
    post(world, 200, id="s1", dry_run=True)
    assert post(world, id="s1", to="Success")["silence"]


def test_a_silence_that_drops_holds_nothing(world: World) -> None:
    made = post(world, mode="drop", notifier="cms")["silence"]
    assert made["mode"] == "drop"
    world.sees(job_number(1, state="Failed"))
    assert [one["held_by"] for one in deliveries(world, "?state=dropped")] == [f"silence:{made['id']}"]


def test_the_preview_is_of_the_last_day(either_world: World) -> None:
    world = either_world
    world.now = NOON - timedelta(hours=25)
    world.sees(a_failed_job(1))
    world.now = NOON - timedelta(hours=23)
    world.sees(a_failed_job(2), job_number(3))
    world.now = NOON
    found = post(world, status=200, dry_run=True)
    assert found["silence"] is None
    assert found["preview"] == {
        "since": "2026-11-20T12:00:00Z", "looked_at": 2, "cut": False, "matched": 1,
        "by": [{"rule": "failed", "notifier": "ops/1", "messages": 1}],
        "newest": [
            {
                "told_at": "2026-11-20T13:00:00Z", "job": "j2", "bucket": "media-1250000000", "tag": "Transcode",
                "from": "new", "to": "Failed", "rule": "failed", "notifier": "ops/1",
            },
        ],
    }  # fmt: skip
    assert listed(world)["items"] == []
    assert post(world)["preview"] == found["preview"]


def test_a_rule_that_there_is_not_is_a_warning(world: World) -> None:
    assert post(world, rule="faild")["warnings"] == ['rules.toml has no rule "faild" (did you mean "failed"?)']
    assert post(world, rule="failed")["warnings"] == []


def test_the_default_author_is_the_api(world: World) -> None:
    body = json.dumps({key: value for key, value in WANTED.items() if key != "author"}).encode()
    answer = world.client().post("/api/v1/silences", data=body, content_type="application/json")
    assert answer.get_json()["silence"]["author"] == "api"


def test_silences_are_paged_from_the_newest_on(either_world: World) -> None:
    made = [post(either_world)["silence"]["id"] for _ in range(3)]
    first = listed(either_world, "?limit=2")
    assert [one["id"] for one in first["items"]] == made[:0:-1]
    rest = listed(either_world, f"?limit=2&cursor={first['cursor']}")
    assert ([one["id"] for one in rest["items"]], rest["cursor"]) == (made[:1], None)
    assert either_world.client(READ).get("/api/v1/silences?state=active").status_code == 400


def test_every_fault_is_said_at_once(world: World) -> None:
    problem = post(world, 400, to="Faild", match={"tgs": "x"}, **{"for": "99d", "who": "ann"})
    for word in (
        'there is no job state "Faild"',
        'a job has no "tgs"',
        "99d is too far in the future",
        'unknown key "who"',
    ):
        assert word in problem["detail"]


def test_what_is_over_or_unknown_cannot_be_ended(world: World) -> None:
    client = world.client()
    assert client.delete("/api/v1/silences/sil_404").status_code == 404
    made = post(world)["silence"]["id"]
    world.now += timedelta(hours=3)
    again = client.delete(f"/api/v1/silences/{made}")
    assert again.status_code == 409
    assert again.get_json(force=True)["detail"] == f"silence {made} has been over since 2026-11-21T14:00:00Z"
    assert listed(world)["items"][0]["ended_by"] is None


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"null", 400),
        (b'"Failed"', 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"to": "\xff"}', 400),
        (b'{"to": NaN, "reason": Infinity}', 400),
        (b'{"reason": "\\ud800", "to": "Failed", "for": "2h"}', 400),
        (b'{"reason": "a\\u0000b", "to": "Failed", "for": "2h"}', 400),
        (b'{"reason": "x", "match": {"a\\u0000b": "x"}, "for": "2h"}', 400),
        (b'{"for": ' + b"9" * 5_000 + b"}", 400),
        (b'{"match": ' + b'{"tag":' * 5_000 + b"1" + b"}" * 5_001, 400),
        (b'{"match": ' + b"[" * 190 + b"]" * 190 + b', "for": "2h", "reason": "x"}', 400),
        (json.dumps({f"k{number}": 1 for number in range(5_000)}).encode(), 400),
        (json.dumps({"match": {f"f{number}": "x" for number in range(4_000)}}).encode(), 400),
        (json.dumps(WANTED | {"match": {"tag": "{a,b}" * 5_000}}).encode(), 400),
        (json.dumps(WANTED | {"match": {f"f{number}": "x" for number in range(10_000)}}).encode(), 413),
        (json.dumps(WANTED | {"reason": "x" * 70_000}).encode(), 413),
    ],
)
def test_garbage_in_the_body_is_refused_in_a_few_words(world: World, body: bytes, status: int) -> None:
    assert len(refused(world, body, status)) < 10_000
    assert listed(world)["items"] == []


def test_there_are_only_so_many_silences_at_once(world: World) -> None:
    with world.db.write() as tx:
        silences.add(tx, a_silence("sil_over", ends_at=NOON))
        for number in range(MOST - 1):
            silences.add(tx, a_silence(f"sil_{number}"))
    post(world)
    assert f"{MOST} silences have not ended" in post(world, 409)["detail"]
    assert post(world, 200, dry_run=True)["preview"]["matched"] == 0
    world.client().delete("/api/v1/silences/sil_7")
    post(world)


def test_what_all_silences_cost_together_is_bounded(world: World) -> None:
    braces = "{" + ",".join("abcdefghij") + "}"
    costly = [f"{number}/{braces}/{braces}*" for number in range(90)]
    post(world, match={"input": costly})
    assert "too many patterns" in post(world, 409, match={"input": costly})["detail"]
    assert len(listed(world)["items"]) == 1


def test_the_members_of_a_digest_are_found_by_its_delivery(either_world: World) -> None:
    world = either_world
    with world.db.write() as tx:
        silences.add(tx, a_silence())
    world.sees(job_number(1, state="Failed"), job_number(2, state="Failed"), job_number(3))
    held, other = (deliveries(world, f"?state={state}") for state in ("held", "waiting"))
    world.now = NOON + timedelta(hours=2)
    assert send_due_digests(world.db, world.book, world.now) == 1
    (digest,) = [one["id"] for one in deliveries(world, "") if one["kind"] == "digest"]
    found = deliveries(world, f"?digest={digest}")
    assert [one["id"] for one in found] == [one["id"] for one in held]
    assert {(one["state"], one["digest"], one["channel"]) for one in found} == {("merged", digest, None)}
    assert [(one["digest"], one["held_by"]) for one in other] == [(None, None)]
    assert deliveries(world, "?digest=dlv_404") == []
    assert deliveries(world, f"?digest={digest}&job=j2") == [one for one in found if one["job"] == "j2"]
    one = world.client(READ).get(f"/api/v1/deliveries/{held[0]['id']}").get_json()
    assert (one["state"], one["digest"]) == ("merged", digest)


# --- later, and longer ------------------------------------------------------------------------------------------------


def test_one_that_begins_later_says_so_and_is_extended(world: World) -> None:
    made = post(world, begins_at="2026-11-21T13:00:00Z")["silence"]
    assert (made["state"], made["begins_at"], made["ends_at"]) == (
        "pending", "2026-11-21T13:00:00Z", "2026-11-21T15:00:00Z"
    )  # fmt: skip
    path = f"/api/v1/silences/{made['id']}"
    longer = world.client().patch(path, json={"extend_by": "1h", "reason": "moved"}).get_json()
    assert longer == made | {"ends_at": "2026-11-21T16:00:00Z", "reason": "moved"}
    assert listed(world)["items"] == [longer]
    refusal = world.client().patch(path, json={"extend_by": "1h", "ends_at": "2026-11-21T16:00:00Z"})
    assert (refusal.status_code, "say what changes" in refusal.get_json()["detail"]) == (400, True)
    assert world.client(READ).patch(path, json={"reason": "x"}).status_code == 403
    assert world.client().patch("/api/v1/silences/sil_0", json={"reason": "x"}).status_code == 404


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"starts_in": "1h", "begins_at": "2026-11-21T13:00:00Z"}, "say when it begins"),
        ({"begins_at": "2026-11-21T11:00:00Z"}, "begins_at: 2026-11-21T11:00:00Z has passed"),
        ({"starts_in": "31d"}, "begins within 30 days"), ({"starts_in": "soon"}, "is not a duration"),
    ],
)  # fmt: skip
def test_a_beginning_that_makes_no_sense_is_refused(world: World, said: dict[str, Any], fault: str) -> None:
    assert fault in post(world, 400, **said)["detail"]
