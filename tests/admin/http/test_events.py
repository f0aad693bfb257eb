"""What /openapi.json says of webhooks is whole and true: the body of every type is as described."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import jsonschema_rs
import pytest
from pydantic import ValidationError

from bridge.admin.schemas.events import EVENTS
from bridge.decide.messages.incidents import IncidentNews, incident_message
from bridge.decide.messages.sight import blind_message, sees_message
from bridge.decide.rulesfile.read import read
from bridge.links import Links
from bridge.model import Blindness, Incident, IncidentJob, Message
from bridge.record.outbox.entries import content_of
from bridge.send.webhook import Webhook
from tests.support.admin_world import World
from tests.support.nouns import NOW, a_job, a_watch
from tests.support.receivers import a_delivery, a_webhook
from tests.support.rig import GIVEN
from tests.support.slack_messages import messages

Json = dict[str, Any]
SICK = """
[[rule]]
name = "sick"
to = "Failed"
count = ">= 3"
within = "10m"
notify = "ops"
[[rule]]
name = "all"
all = "done"
by = "workflow_run"
settle = "1m"
notify = "ops"
[[rule]]
name = "blind"
blind = "10m"
notify = "ops"
"""
OPENED, ENDED = ("opened", "joined", "escalated", "closed"), ("completed", "failed")


def of_incidents() -> Iterator[Message]:
    sick, every, _ = read(GIVEN + SICK, {}).rules
    incident = Incident(
        n=1, id="inc_1", rule="sick", key="k", generation=1, by=(("queue", "p1"),), since=NOW, opened_at=NOW
    )
    member = IncidentJob(bucket="b", job_id="j1", sequence=3, state="Failed", happened_at=NOW)
    for rule, events in ((sick, OPENED), (every, ENDED)):
        for event in events:
            news = IncidentNews(event=event, incident=incident, now=NOW, jobs=[(member, a_job())], states={"Failed": 3})  # type: ignore[arg-type]  # one of them
            yield incident_message(news, rule, {"p1": "vod"})


def of_sight() -> Iterator[Message]:
    rule, watch = read(GIVEN + SICK, {}).rules[2], a_watch("Transcode")
    blind, links = Blindness(since=NOW - timedelta(minutes=10)), Links("https://bridge.example.com")
    yield blind_message(watch, blind, rule, error="it does not answer", now=NOW, links=links)
    yield sees_message(watch, blind, rule, caught_up=1, now=NOW)


def bodies() -> list[Json]:
    """Return what a webhook receives, of each type."""
    events = [delivery.event for _, delivery in messages()]
    events += [content_of(message).event for message in (*of_incidents(), *of_sight())]
    sent = [Webhook(a_webhook()).request(a_delivery(event=event), NOW).body for event in events]
    return [json.loads(body) for body in sent]


def kinds_of(body: Json) -> list[str]:
    """Return the models that a body is of, which refuse members that they do not name."""
    found = []
    for model in EVENTS:
        with contextlib.suppress(ValidationError):
            model.model_validate(body, strict=True)
            found.append(model.__name__)
    return found


@pytest.mark.parametrize("body", bodies(), ids=lambda body: body["type"])
def test_each_body_is_described_with_all_its_members(body: Json) -> None:
    kinds = kinds_of(body)
    if body["type"] in ("ci.job.overdue", "ci.job.recovered"):
        assert kinds == ["JobTimeEvent"]
    else:
        assert len(kinds) == 1


def test_each_description_is_of_something_that_is_sent() -> None:
    assert {kind for body in bodies() for kind in kinds_of(body)} == {model.__name__ for model in EVENTS}


def test_the_description_of_the_api_has_each_and_takes_what_is_sent(world: World) -> None:
    described = world.client().get("/openapi.json").get_json()
    assert list(described["webhooks"]) == [model.__name__ for model in EVENTS]
    for body in bodies():
        (kind,) = kinds_of(body)
        schema = described["webhooks"][kind]["post"]["requestBody"]["content"]["application/json"]["schema"]
        jsonschema_rs.validate(schema | {"components": described["components"]}, body | {"later": 1})


def test_a_note_and_a_state_of_tomorrow_are_as_described() -> None:
    event = next(messages())[1].event.replace("ci.job.running", "ci.job.dreaming")
    sent = Webhook(a_webhook()).request(a_delivery(event=event, note="Sent manually by ann."), NOW).body
    assert kinds_of(json.loads(sent)) == ["JobEvent"]
