"""Parses foreign JSON to a limited depth, the same on every Python."""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import Any

DEEPEST = 100  # nested objects and lists

# Unterminated strings match too: searching for their ends again and again would take forever.
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


def loads(text: str) -> Any:
    """Return parsed JSON. Raises ValueError, for too deep nesting before it is parsed."""
    steps = (_STEPS.get(token[0], 0) for token in _TOKEN.finditer(text))
    if any(depth > DEEPEST for depth in accumulate(steps)):
        raise ValueError(f"it nests too deeply; the limit is {DEEPEST} levels")
    return json.loads(text)


_STEPS = {"[": 1, "{": 1, "]": -1, "}": -1}
