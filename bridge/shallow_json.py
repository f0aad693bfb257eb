"""JSON that others wrote: what nests too deeply is refused at a depth of ours, which is that of every Python."""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import Any

DEEPEST = 100  # objects and lists inside of one another

# Strings that do not end match too: looking for their ends again and again would take forever.
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


def loads(text: str) -> Any:
    """Return what a JSON text says. Raises ValueError, for one that nests too deeply too, before it is parsed."""
    steps = (_STEPS.get(token[0], 0) for token in _TOKEN.finditer(text))
    if any(depth > DEEPEST for depth in accumulate(steps)):
        raise ValueError(f"it nests too deeply; the limit is {DEEPEST} levels")
    return json.loads(text)


_STEPS = {"[": 1, "{": 1, "]": -1, "}": -1}
