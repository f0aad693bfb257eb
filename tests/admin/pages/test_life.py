"""A job's life is told in the order it was lived."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from bridge.admin.pages.jobs import timeline


def a_delivery(id_: str, state: str, at: str) -> SimpleNamespace:
    return SimpleNamespace(id=id_, state=state, created_at=at)


def a_job(**facts: Any) -> Any:
    base = {"created_at": "2026-11-21T12:00:00Z", "started_at": None, "ended_at": None}
    return SimpleNamespace(**base | {"transitions": [], "deliveries": []} | facts)


def test_everything_stands_in_the_order_of_time() -> None:
    job = a_job(
        started_at="2026-11-21T12:01:00Z",
        transitions=[SimpleNamespace(seen_at="2026-11-21T12:02:00Z")],
        deliveries=[a_delivery("d", "sent", "2026-11-21T12:02:00Z")],
    )
    later = {"outcome": "later", "started_at": "2026-11-21T12:02:01Z"}
    tries = {"d": [later, {"outcome": "sent", "started_at": "2026-11-21T12:02:09Z"}]}
    assert [(one["kind"], one["look"]) for one in timeline(job, tries)] == [
        ("ci", "ci"), ("ci", "ci"), ("transition", "transition"), ("delivery", "sent"), ("try", "bad"), ("try", "sent"),
    ]  # fmt: skip


def test_what_ci_did_not_say_is_not_there() -> None:
    assert [one["word"] for one in timeline(a_job(), {})] == ["created"]


def test_what_died_or_is_held_looks_so() -> None:
    states = ["dead", "held", "dropped", "merged", "waiting", "sending"]
    job = a_job(deliveries=[a_delivery(state, state, "2026-11-21T12:00:01Z") for state in states])
    assert [one["look"] for one in timeline(job, {})[1:]] == ["bad", "held", "held", "held", "waiting", "waiting"]
