"""What `doctor` can know of notifiers without sending a message."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TypeVar

from bridge.decide.rules.rulebook import Rulebook
from bridge.send.notifier_type import Egress
from bridge.send.registry import type_of
from bridge.settings import Settings
from bridge.wiring.parts import http_client

_Check = TypeVar("_Check")


def notifier_checks(
    settings: Settings, book: Rulebook, check: Callable[[str, bool | None, str], _Check]
) -> Iterator[_Check]:
    """Yield what can be known of each notifier without sending it a message."""
    with closing(http_client(settings)) as out:
        egress = Egress(out, settings.slack_api_url)
        for notifier in book.notifiers.values():
            found = type_of(notifier).check(notifier, egress)
            yield check(f"notifier {notifier.name}", found.trouble is None, found.trouble or found.well)
