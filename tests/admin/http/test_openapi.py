"""The description of the API is whole and true: every route is in it, and schemathesis finds nothing that differs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from schemathesis import Config, openapi
from schemathesis.engine import events, from_schema

from bridge.admin.auth_throttle import INTERVAL_S
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
    gets += " incidents incidents/{incident_id}"
    posts = (
        "watches/{name}/poll watches/{name}/pause watches/{name}/resume deliveries/{delivery_id}/redrive"
        " deliveries/redrive notifiers/{name}/test rules/check rules/explain silences"
        " incidents/{incident_id}/acknowledge"
    )
    promised = {("GET", path) for path in gets.split()} | {("POST", path) for path in posts.split()}
    promised.add(("DELETE", "silences/{silence_id}"))
    described = {(method, path.removeprefix("/api/v1/")) for method, path, _ in operations(document(world))}
    assert promised <= described


def test_what_is_described_as_open_to_all_is_health_callbacks_and_clicks_alone(world: World) -> None:
    described = list(operations(document(world)))
    assert [path for _, path, operation in described if operation["security"] == []] == [
        "/healthz", "/readyz", "/hooks/ci/{token}", "/hooks/ci/{token}/{watch}", "/hooks/slack"
    ]  # fmt: skip
    writing = [one for method, path, one in described if method != "GET" and not path.startswith("/hooks/")]
    assert all(operation["security"] == [{"admin": []}] for operation in writing)
    assert all({"401", "403", "429", "503"} <= set(operation["responses"]) for operation in writing)


def test_the_copy_among_the_documents_is_that_of_this_version(world: World) -> None:
    renewed = "renew it: python -m tests.admin.description > docs/openapi.json"
    assert COPY.read_text(encoding="utf-8") == text_of(world.app()), renewed


def a_busy(world: World) -> World:
    """Every kind of thing is there, and all is well."""
    world.register()
    world.beat()
    world.polled()
    for number, outcome in enumerate((Sent(), Rejected("no"), RetryLater("later"))):
        third = job_number(200 + number, tag=None, queue=None, progress=3)
        world.sees(job_number(number), a_failed_job(100 + number), third)
        world.attempt(outcome, answer="said so")
        world.incident(f"j{number}", key=f"k{number}")
        with world.db.write() as tx:
            silences.add(tx, a_silence(f"sil_{number}", ends_at=NOON + timedelta(hours=number)))  # the first is over
    which = Filter(state="dead", job="j1")
    by_hand(world.db, now=NOON + timedelta(hours=1)).redrive_batch(which, interval=timedelta(hours=1))
    return world


def half_the_time(**values: list[str]) -> Json:
    """Return settings by which parameters have these values in every second request."""
    return {
        "dictionaries": {name: {"values": known} for name, known in values.items()},
        "parameters": {f"path.{name}": {"dictionary": name, "probability": 0.5} for name in values},
    }


def settings(world: World, *, port: int) -> Config:
    listed = world.client().get("/api/v1/deliveries").get_json()["items"]
    known = half_the_time(
        job_id=["j0", "j100", "j200"], name=["cms", "ops/1", "vod"], delivery_id=[one["id"] for one in listed],
        silence_id=["sil_0", "sil_1", "sil_2"], batch_id=[batch_id()],
        incident_id=["inc_k0", "inc_k1", "inc_k2"],
    )  # fmt: skip
    off = {"enabled": False}
    return Config.from_dict(
        {
            "seed": 1,
            "base-url": f"http://127.0.0.1:{port}",
            "headers": {"Authorization": f"Bearer {ADMIN}"},
            "continue-on-failure": True,
            "cache": {"enabled": False},
            "generation": {"deterministic": True, "database": "none", "max-examples": 4, "no-shrink": True},
            "phases": {"stateful": {"max-steps": 4}, "coverage": {"enabled": True}},
            "checks": {"positive_data_acceptance": {"expected-statuses": TAKEN}},
            "operations": [
                # No schema says which globs are right, that an end is to come, or that something is named.
                {"include-name": "POST /api/v1/silences", "checks": {"positive_data_acceptance": off}},
                {
                    "include-name": "PATCH /api/v1/silences/{silence_id}",
                    "checks": {"positive_data_acceptance": off},
                },
                # What is posted to looks like a delivery to whoever would read it.
                {"include-name": "POST /api/v1/deliveries/redrive", "checks": {"allow_header_conformance": off}},
                # Nor does a schema say which signs are invisible, which no reason may have.
                {
                    "include-name": "POST /api/v1/deliveries/{delivery_id}/discard",
                    "checks": {"positive_data_acceptance": off},
                },
                {
                    "include-name": "POST /api/v1/notifiers/{name}/pause",
                    "checks": {"positive_data_acceptance": off},
                },
                {
                    "include-name": "POST /api/v1/deliveries/discard",
                    "checks": {"allow_header_conformance": off, "positive_data_acceptance": off},
                },
            ],
        }
        | known
    )


def test_the_api_is_as_described(world: World) -> None:
    """Answers are built by what describes them; what is refused, with which status and headers, is tried here."""
    app, statuses = a_busy(world).app(), set()

    @app.after_request
    def note(response: Any) -> Any:
        world.ticks += INTERVAL_S  # wrong tokens are tried too, and each shall be looked at
        statuses.add(response.status_code)
        return response

    described, faults, tried = document(world), [], set()
    with served(app, host="127.0.0.1", port=0) as port:
        schema = openapi.from_dict(described, config=settings(world, port=port))
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
    assert statuses == {200, 201, 202, 400, 401, 404, 405, 409, 415}
