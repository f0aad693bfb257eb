"""Explaining a job while somebody waits for a page: as much as that is, the newest."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from bridge.decide.rulebook import Rulebook
from bridge.pipeline.explain import explain_stored
from bridge.record.reading import Facts

_MOST = 50  # transitions on one page
_MOST_ASKED, _MOST_ANSWERS = 500, 50_000  # transitions of a job, and answers of rules to them: a second's work


def explained(tx: Connection, job: Facts, book: Rulebook, *, now: datetime) -> tuple[Sequence[Facts], str | None]:
    """Return the explanations of a job, oldest first, and what must be known to read them."""
    count = len(job["transitions"])
    if count > _MOST_ASKED or count * len(book.rules) > _MOST_ANSWERS:
        asked = f"{count:,} transitions and {len(book.rules):,} rules"
        return (), f"Not explained here, as it has {asked}: ci-bridge explain has the time."
    said = explain_stored(tx, job["id"], book, bucket=job["bucket"], now=now)
    left = len(said[:-_MOST])
    return said[-_MOST:], f"Only the newest {_MOST} are explained; {left:,} are older." if left else None
