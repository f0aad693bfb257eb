"""Explaining a job while somebody waits for a page: as much as that is, the newest."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from bridge.decide.rules.rulebook import Rulebook
from bridge.pipeline.explain import explain_stored
from bridge.record.queries.lists import Facts

_MOST = 50  # transitions on one page


def explained(tx: Connection, job: Facts, book: Rulebook, *, now: datetime) -> tuple[Sequence[Facts], str | None]:
    """Return the explanations of a job, oldest first, and what must be known to read them."""
    said = explain_stored(tx, job["id"], book, bucket=job["bucket"], now=now, newest=_MOST)
    left = len(job["transitions"]) - len(said)
    more = f"Only the newest {_MOST} are explained; {left:,} are older: ci-bridge rules explain names them all."
    return said, more if left > 0 else None
