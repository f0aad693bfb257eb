"""What is kept of the first message of a Slack thread, so that later ones find it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

_SHAPE = re.compile(r"([^:]+):([^:]+)(?::(.+?)(?::(\d+))?)?")


@dataclass(frozen=True, slots=True)
class Receipt:
    """Written as "C1:171.5:general:3"; the last one or two parts may be missing in what is read.

    `channel` is Slack's id for what was `configured`, which may be a name. `sequence` is that of the state
    which the message shows; 0 where it is not known, or means nothing.
    """

    channel: str
    ts: str
    configured: str | None = None
    sequence: int = 0

    @classmethod
    def parse(cls, text: str) -> Self | None:
        found = _SHAPE.fullmatch(text)
        return cls(found[1], found[2], found[3], int(found[4] or 0)) if found else None

    def __str__(self) -> str:
        return f"{self.channel}:{self.ts}:{self.configured}:{self.sequence}"
