"""A state in plain words says why a delivery stands where it stands, and what can be done."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from bridge.admin.pages.deliveries import status
from bridge.record.schema import DELIVERY_STATES
from tests.support.admin_world import NOON

IDLE: dict[str, Any] = {"paused_at": None, "paused_why": None, "not_before": None, "failures": 0}
LATER, EARLIER = ((NOON + timedelta(minutes=sign)).isoformat() for sign in (5, -5))


def said(state: str, lane: dict[str, Any] | None = IDLE, *, held_by: str | None = None, in_rules: bool = True) -> str:
    facts = {"state": state, "notifier": "cms", "held_by": held_by, "attempts": 0, "why": None, "tries": []}
    return status(facts, lane, in_rules=in_rules, now=NOON)


def test_every_state_has_its_own_words() -> None:
    assert len({said(state) for state in DELIVERY_STATES}) == len(DELIVERY_STATES)


@pytest.mark.parametrize(
    ("lane", "words"),
    [
        (IDLE, "Waits for its next attempt"),
        (None, "Waits for its next attempt"),
        (IDLE | {"paused_at": EARLIER, "paused_why": "it is gone"}, "its notifier is paused: it is gone. Resume"),
        (IDLE | {"failures": 10}, "does not answer"),
        (IDLE | {"failures": 9}, "Waits for its next attempt"),
        (IDLE | {"not_before": LATER}, "asked to wait"),
        (IDLE | {"not_before": EARLIER}, "Waits for its next attempt"),
    ],
)
def test_what_waits_says_what_for(lane: dict[str, Any] | None, words: str) -> None:
    assert words in said("waiting", lane)


def test_a_notifier_that_is_gone_is_to_be_put_back() -> None:
    assert "not in rules.toml" in said("waiting", in_rules=False)


def test_why_a_receiver_is_not_asked_matters_only_while_it_waits() -> None:
    assert "paused" not in said("sent", IDLE | {"paused_at": EARLIER, "paused_why": "gone"})


@pytest.mark.parametrize(
    ("held_by", "words"),
    [
        ("group:夜间: a", 'Rule "夜间: a" groups'),
        ("throttle:t", 'The throttle of rule "t"'),
        ("mute:nights", 'The mute "nights" was active'),
        ("silence:sil_1", 'The silence "sil_1" was active'),
        ("unheard-of:x", "Held until"),
    ],
)
def test_what_held_it_is_named(held_by: str, words: str) -> None:
    assert said("held", held_by=held_by).startswith(words)
