"""What pages show beside the lists: attempts, what each transition caused, and how a delivery goes out."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select, tuple_

from bridge.display import one_line
from bridge.model import Delivery
from bridge.record.database import at
from bridge.record.queries.lists import DELIVERIES, Facts, attempt_facts, delivery_facts, iso
from bridge.record.schema import attempt as A  # noqa: N812  (tables are capital letters in SQL here)
from bridge.record.schema import delivery as D  # noqa: N812
from bridge.record.schema import job as J  # noqa: N812
from bridge.record.schema import message as M  # noqa: N812
from bridge.record.schema import notifier as N  # noqa: N812


def of_deliveries(tx: Connection, ids: Collection[str]) -> Mapping[str, Sequence[Facts]]:
    """Return the attempts of these deliveries by their ids, oldest first."""
    rows = tx.execute(select(A, D.c.id).join(D, D.c.n == A.c.delivery).where(D.c.id.in_(ids)).order_by(A.c.n))
    found: dict[str, list[Facts]] = defaultdict(list)
    for row in rows:
        found[row.id].append(attempt_facts(len(found[row.id]) + 1, row))
    return found


def caused_by(tx: Connection, transitions: Collection[Facts]) -> Mapping[tuple[str, str, int], Sequence[Facts]]:
    """Return the deliveries that these transitions caused, by (bucket, job, sequence), oldest first."""
    keys = [(one["bucket"], one["job"], one["sequence"]) for one in transitions]
    # The job's id is said twice, as the index is on it.
    mine = M.c.job_id.in_({job for _, job, _ in keys}), tuple_(M.c.bucket, M.c.job_id, M.c.sequence).in_(keys)
    found: dict[tuple[str, str, int], list[Facts]] = defaultdict(list)
    for row in tx.execute(DELIVERIES.where(*mine).order_by(D.c.n)) if keys else ():
        found[row.bucket, row.job_id, row.sequence].append(delivery_facts(row))
    return found


def inputs_of(tx: Connection, transitions: Collection[Facts]) -> Mapping[tuple[str, str], str]:
    """Return the inputs of the jobs of these transitions as a list has them, by (bucket, job)."""
    keys = {(one["bucket"], one["job"]) for one in transitions}
    mine = J.c.id.in_({job for _, job in keys}), tuple_(J.c.bucket, J.c.id).in_(list(keys))
    found = tx.execute(select(J.c.bucket, J.c.id, J.c.detail).where(*mine)) if keys else ()
    return {(row.bucket, row.id): one_line(json.loads(row.detail).get("input") or "") for row in found}


def delivery(tx: Connection, delivery_id: str) -> Delivery | None:
    """Return a delivery as its next attempt would have it."""
    found = select(D, M.c.event, M.c.says, M.c.happened_at).join(M, M.c.id == D.c.message)
    row = tx.execute(found.where(D.c.id == delivery_id)).first()
    if row is None:
        return None
    facts: dict[str, Any] = {name: getattr(row, name) for name in ("n", "id", "notifier", "event", "says", "lost")}
    facts |= {name: getattr(row, name) for name in ("attempts", "thread", "note", "body", "channel")}
    return Delivery(**facts, lease=row.lease or "", happened_at=at(row.happened_at))


def lane(tx: Connection, notifier: str) -> Facts | None:
    """Return what keeps the deliveries of a notifier waiting, without counting them; None: no worker knows it."""
    found = select(N.c.paused_at, N.c.paused_why, N.c.not_before, N.c.failures).where(N.c.name == notifier)
    row = tx.execute(found).first()
    if row is None:
        return None
    times = {"paused_at": iso(row.paused_at), "not_before": iso(row.not_before or None)}
    return {**times, "paused_why": row.paused_why, "failures": row.failures}
