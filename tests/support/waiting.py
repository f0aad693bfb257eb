"""Waiting for a condition, instead of sleeping for a time."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], *, within_s: float = 60, why: Callable[[], object] = str) -> None:
    """Return once the condition holds; fail with `why()` when it does not in time."""
    until = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > until:
            raise AssertionError(f"did not come true within {within_s:.0f} s: {why()}")
        time.sleep(0.05)
