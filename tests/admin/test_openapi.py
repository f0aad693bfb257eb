"""The description of the API is whole and true: every route is in it, and schemathesis finds nothing that differs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from schemathesis import Config, openapi
from schemathesis.engine import events, from_schema

from bridge.admin.auth_throttle import INTERVAL_S
from bridge.admin.http.query import PARAMETERS
from bridge.model import Rejected, RetryLater, Sent
from bridge.record.outbox import silences
from bridge.record.queries.lists import Filter
from bridge.wiring.web import served
from tests.admin.description import COPY, text_of
from tests.support.admin_world import ADMIN, NOON, READ, World, a_failed_job, a_silence, job_number
from tests.support.nouns import batch_id, by_hand

Json = dict[str, Any]

# What may be said to a request that is as described: 304 if it asks with "*", 409 if its id was used before.
TAKEN = ["2xx", "304", "401", "403", "404", "409", "5xx"]


def document(world: World) -> Json:
    answer = world.client(READ).get("/openapi.json")
    assert answer.status_code == 200
    found: Json = answer.get_json()
    return found


def operations(described: Json) -> Iterator[tuple[str, str, Json]]:
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def test_every_route_is_described_and_nothing_else_is(world: World) -> None:
    rules = [
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), rule.endpoint)
        for rule in world.app().url_map.iter_rules()
        if not rule.endpoint.startswith("pages.")  # for people
        for method in rule.methods or ()
        if method not in ("HEAD", "OPTIONS")
    ]
    described = [(method, path, operation["operationId"]) for method, path, operation in operations(document(world))]
    assert sorted(described) == sorted(rules)


def test_nothing_that_is_promised_is_missing(world: World) -> None:
    gets = "watches jobs jobs/{job_id} transitions deliveries deliveries/{delivery_id} rules notifiers silences"
    posts = (
        "watches/{name}/poll watches/{name}/pause watches/{name}/resume deliveries/{delivery_id}/redrive"
        " deliveries/redrive notifiers/{name}/test rules/check rules/explain silences"
    )
    promised = {("GET", path) for path in gets.split()} | {("POST", path) for path in posts.split()}
    promised.add(("DELETE", "silences/{silence_id}"))
    described = {(method, path.removeprefix("/api/v1/")) for method, path, _ in operations(document(world))}
    assert promised <= described


def test_every_question_can_be_asked_for_what_is_new(world: World) -> None:
    for method, path, operation in operations(document(world)):
        headers = {one["name"] for one in operation["parameters"] if one["in"] == "header"}
        kept = method == "GET" and path not in ("/healthz", "/readyz", "/metrics")
        assert ("If-None-Match" in headers) == ("304" in operation["responses"]) == kept


def test_every_place_and_parameter_is_described(world: World) -> None:
    used = set()
    for _, path, operation in operations(document(world)):
        places = [one["name"] for one in operation["parameters"] if one["in"] == "path"]
        used |= {one["name"] for one in operation["parameters"] if one["in"] == "query"}
        assert places == re.findall(r"{(\w+)}", path)
        assert all("schema" in one for one in operation["parameters"])
    assert used == set(PARAMETERS)


def test_what_is_described_as_open_to_all_is_health_alone(world: World) -> None:
    described = list(operations(document(world)))
    assert [path for _, path, operation in described if operation["security"] == []] == ["/healthz", "/readyz"]
    writing = [operation for method, _, operation in described if method != "GET"]
    assert all(operation["security"] == [{"admin": []}] for operation in writing)
    assert all({"401", "403", "429", "503"} <= set(operation["responses"]) for operation in writing)


def test_it_asks_for_a_token_like_the_rest(world: World) -> None:
    assert world.client(token=None).get("/openapi.json").status_code == 401


def test_every_reference_leads_somewhere(world: World) -> None:
    described = document(world)
    wanted = set(re.findall(r"'\$ref': '#/components/(\w+)/(\w+)'", repr(described)))
    there = {(kind, name) for kind, found in described["components"].items() for name in found}
    assert wanted <= there
    assert there - wanted == {("securitySchemes", "admin"), ("securitySchemes", "read")}


def test_the_copy_among_the_documents_is_that_of_this_version(world: World) -> None:
    renewed = "renew it: python -m tests.admin.description > docs/openapi.json"
    assert COPY.read_text(encoding="utf-8") == text_of(world.app()), renewed


def a_busy(world: World) -> World:
    """Every kind of thing is there, and all is well."""
    world.enlist()
    world.beat()
    world.polled()
    for number, outcome in enumerate((Sent(), Rejected("no"), RetryLater("later"))):
        third = job_number(200 + number, tag=None, queue=None, progress=3)
        world.sees(job_number(number), a_failed_job(100 + number), third)
        world.attempt(outcome, answer="said so")
        with world.db.write() as tx:
            silences.add(tx, a_silence(f"sil_{number}", ends_at=NOON + timedelta(hours=number)))  # the first is over
    which = Filter(state="dead", job="j1")
    by_hand(world.db, now=NOON + timedelta(hours=1)).redrive_batch(which, interval=timedelta(hours=1))
    return world


def strict(schema: Any) -> Any:
    """Return the schema without room for members that it does not name: readers have that room, we have not."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {"additionalProperties": False} if isinstance(schema.get("properties"), dict) else {}
    return closed | {name: strict(one) for name, one in schema.items()}


def half_the_time(**values: list[str]) -> Json:
    """Return settings by which parameters have these values in every second request."""
    return {
        "dictionaries": {name: {"values": known} for name, known in values.items()},
        "parameters": {f"path.{name}": {"dictionary": name, "probability": 0.5} for name in values},
    }


def settings(world: World, *, edges: bool, token: str, port: int) -> Config:
    listed = world.client().get("/api/v1/deliveries").get_json()["items"]
    known = half_the_time(
        job_id=["j0", "j100", "j200"], name=["cms", "ops/1", "vod"], delivery_id=[one["id"] for one in listed],
        silence_id=["sil_0", "sil_1", "sil_2"], batch_id=[batch_id()],
    )  # fmt: skip
    return Config.from_dict(
        {
            "seed": 1,
            "base-url": f"http://127.0.0.1:{port}",
            "headers": {"Authorization": f"Bearer {token}"},
            "continue-on-failure": True,
            "cache": {"enabled": False},
            "generation": {"deterministic": True, "database": "none", "max-examples": 4, "no-shrink": True},
            "phases": {"stateful": {"max-steps": 4}, "coverage": {"enabled": edges}},
            "checks": {"positive_data_acceptance": {"expected-statuses": TAKEN}},
            "operations": [
                # No schema says which globs are right, that an end is to come, or that something is named.
                {"include-name": "POST /api/v1/silences", "checks": {"positive_data_acceptance": {"enabled": False}}},
                # What is posted to looks like a delivery to whoever would read it.
                {
                    "include-name": "POST /api/v1/deliveries/redrive",
                    "checks": {"allow_header_conformance": {"enabled": False}},
                },
            ],
        }
        | known
    )


@pytest.mark.parametrize(
    ("dialect", "token", "edges"), [("sqlite", ADMIN, True), ("sqlite", READ, False), ("postgresql", ADMIN, False)],
    indirect=["dialect"], ids=["sqlite-admin", "sqlite-read", "postgresql-admin"],
)  # fmt: skip
def test_the_api_is_as_described(either_world: World, token: str, edges: bool) -> None:
    world = a_busy(either_world)
    described = document(world)
    described["components"]["schemas"] = strict(described["components"]["schemas"])
    statuses = set()
    app = world.app()

    @app.after_request
    def note(response: Any) -> Any:
        world.ticks += INTERVAL_S  # wrong tokens are tried too, and each shall be looked at
        statuses.add(response.status_code)
        return response

    faults, tried = [], set()
    with served(app, host="127.0.0.1", port=0) as port:
        schema = openapi.from_dict(described, config=settings(world, edges=edges, token=token, port=port))
        for event in from_schema(schema).execute():
            match event:
                case events.NonFatalError() | events.FatalError():
                    faults.append(repr(event))
                case events.ScenarioFinished():
                    tried.add(event.recorder.label)
                    checks = [check for found in event.recorder.checks.values() for check in found]
                    infos = [check.failure_info for check in checks if check.failure_info]
                    faults += [f"{event.recorder.label}: {one.failure}: {one.code_sample}" for one in infos]
                case events.EngineFinished():
                    assert event.stop_reason.value == "completed"
    assert not faults, "\n".join(faults)
    assert {f"{method} {path}" for method, path, _ in operations(described)} <= tried
    usual = {200, 400, 401, 404} | ({201, 202, 409} if token == ADMIN else {403})
    at_edges = {405, 415} if token == ADMIN else set()
    assert usual | (at_edges if edges else set()) <= statuses <= usual | at_edges | {405}
