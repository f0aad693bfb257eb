"""The messages of which docs/ has pictures."""

from __future__ import annotations

import pytest

from bridge.model import Delivery
from bridge.send.slack.blocks import blocks, plain
from tests.support.slack_messages import NOW, messages
from tests.support.strict_slack import refusal_of

MESSAGES = dict(messages())


def test_there_are_twelve_and_each_has_a_first_line_of_its_own() -> None:
    assert len({blocks(delivery, NOW)[0].partition("\n")[0] for delivery in MESSAGES.values()}) == len(MESSAGES) == 12


@pytest.mark.parametrize("delivery", MESSAGES.values(), ids=MESSAGES)
def test_slack_takes_each(delivery: Delivery) -> None:
    text, made = blocks(delivery, NOW)
    assert refusal_of(text, made) is None
    assert refusal_of(plain(delivery, NOW), []) is None
