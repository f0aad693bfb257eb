"""What has happened, oldest first and a page at a time: transitions with what was told of them. It only reads."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Row, and_, case, func, select
from sqlalchemy import text as sql

from bridge.model import Transition
from bridge.record.database import at, maybe_at, ms
from bridge.record.polling.snapshots import judged
from bridge.record.polling.time_in_state import Fired
from bridge.record.schema import HELD, MERGED
from bridge.record.schema import alarm as L  # noqa: N812  (tables are capital letters in SQL here)
from bridge.record.schema import delivery as D  # noqa: N812
from bridge.record.schema import digest as G  # noqa: N812
from bridge.record.schema import job as J  # noqa: N812
from bridge.record.schema import job_problem as P  # noqa: N812
from bridge.record.schema import message as M  # noqa: N812
from bridge.record.schema import stream as S  # noqa: N812
from bridge.record.schema import transition as T  # noqa: N812

AT_ONCE = 500  # transitions, with all that was told of them: about 5 MB
_NEXT = T.alias("following")
_FOLLOWS = and_(_NEXT.c.bucket == T.c.bucket, _NEXT.c.job_id == T.c.job_id, _NEXT.c.sequence == T.c.sequence + 1)
# Since CI denied a job, and until it is gone, no poll has seen it.
_DENIED = and_(P.c.bucket == T.c.bucket, P.c.job_id == T.c.job_id, P.c.kind == "missing", P.c.ask_at.is_(None))
# How the notes of what a fallback is sent begin; the second is what older versions wrote.
_BY_FALLBACK = ("This could not be sent to ", "This could not be told to ")

Key = tuple[str, str, int]  # bucket, job, sequence
Line = tuple[str, str, str]  # kind of message, rule, notifier


def hold_still(tx: Connection) -> None:
    """See nothing of what others write from now on. First in a transaction; on SQLite it is always so."""
    if tx.dialect.name == "postgresql":
        tx.execute(sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))


@dataclass(frozen=True, slots=True)
class Extent:
    """How many transitions there are in a time, and the rulesets that judged them (None: before those were kept)."""

    count: int
    rulesets: Sequence[str | None]


def extent(tx: Connection, since: datetime) -> Extent:
    found = select(T.c.rules, func.count()).where(T.c.seen_at >= ms(since)).group_by(T.c.rules)
    rows = tx.execute(found).all()
    return Extent(sum(row[1] for row in rows), [row[0] for row in rows])


def after_newest(tx: Connection, count: int) -> datetime | None:
    """Return since when no more than `count` transitions were seen; None when there are not that many."""
    found = select(T.c.seen_at).order_by(T.c.n.desc()).offset(count).limit(1)
    seen_at = tx.execute(found).scalar()
    return None if seen_at is None else at(seen_at + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A transition on record, the (rule, notifier) that were told of it, and what is known of its end.

    `followed` the job has moved on since; `still_at` is the last poll that saw it before that, or the last one at all.
    """

    transition: Transition
    verdicts: frozenset[tuple[str, str]]
    rules: str | None
    followed: bool
    still_at: datetime | None
    followed_under: str | None  # the ruleset that judged the next transition

    @property
    def key(self) -> Key:
        return self.transition.job.bucket, self.transition.job.id, self.transition.sequence


def pages(tx: Connection, since: datetime, *, at_once: int = AT_ONCE) -> Iterator[list[Stored]]:
    """Yield the transitions seen since then, in the order in which they were stored, `at_once` at a time."""
    found = (
        select(
            T,
            _NEXT.c.n.label("next_n"),
            _NEXT.c.still_at.label("next_still_at"),
            _NEXT.c.rules.label("next_rules"),
            case((P.c.job_id.is_(None), S.c.seen_at), else_=P.c.seen_at).label("last_seen_at"),
        )
        .outerjoin(_NEXT, _FOLLOWS)
        .outerjoin(J, and_(J.c.bucket == T.c.bucket, J.c.id == T.c.job_id))
        .outerjoin(S, S.c.key == J.c.stream)
        .outerjoin(P, _DENIED)
        .where(T.c.seen_at >= ms(since))
        .order_by(T.c.n)
        .limit(at_once)
    )
    rows = tx.execute(found).all()
    while rows:
        yield [_stored(row) for row in rows]
        rows = tx.execute(found.where(T.c.n > rows[-1].n)).all()


def _stored(row: Row[Any]) -> Stored:
    return Stored(
        transition=judged(row).transition,
        verdicts=_verdicts(row.verdicts),
        rules=row.rules,
        followed=row.next_n is not None,
        still_at=maybe_at(row.last_seen_at if row.next_n is None else row.next_still_at),
        followed_under=row.next_rules,
    )


@lru_cache(maxsize=1_000)  # most transitions have those of another
def _verdicts(text: str) -> frozenset[tuple[str, str]]:
    return frozenset((rule, name) for rule, names in json.loads(text) for name in names)


def told(tx: Connection, steps: Sequence[Stored]) -> Mapping[Key, Mapping[Line, str]]:
    """Return what became of the messages about these transitions and stays: "told", "dropped" or the gate.

    That is what happened when they were made, whatever came of it later; of a stay's it is the first. What a fallback
    told is left out, and what a person told, which no rule did.
    """
    # Dropped by its first gate, also when it was sent again by hand. What waited in a digest may be dropped by a mute
    # when that is due: then the first gate was another one.
    first_gate = D.c.held_by == G.c.gate + ":" + G.c.name
    dropped = and_(G.c.drops, first_gate, D.c.state.not_in((HELD, MERGED))).label("dropped")
    columns = (M.c.bucket, M.c.job_id, M.c.sequence, M.c.kind, M.c.rule, D.c.notifier, D.c.note, D.c.held_by, dropped)
    of_jobs = M.c.job_id.in_({one.transition.job.id for one in steps})
    rows = select(*columns).join(D, D.c.message == M.c.id).outerjoin(G, G.c.n == D.c.digest)
    found: dict[Key, dict[Line, str]] = defaultdict(dict)
    for bucket, job_id, sequence, kind, rule, notifier, note, held_by, is_dropped in tx.execute(
        rows.where(of_jobs).order_by(D.c.n)
    ):
        if sequence is not None and rule is not None and not (note and note.startswith(_BY_FALLBACK)):
            fate = "dropped" if is_dropped else _gate(held_by)
            found[bucket, job_id, sequence].setdefault((kind, rule, notifier), fate)
    return found


def _gate(held_by: str | None) -> str:
    return held_by.partition(":")[0] if held_by else "told"


def fired(tx: Connection, steps: Sequence[Stored]) -> Mapping[Key, Mapping[str, Fired]]:
    """Return the alarms of the stays that these transitions began, by rule."""
    keys = {one.key for one in steps}
    of_jobs = (L.c.bucket.in_({key[0] for key in keys}), L.c.job_id.in_({key[1] for key in keys}))
    found: dict[Key, dict[str, Fired]] = defaultdict(dict)
    for row in tx.execute(select(L).where(*of_jobs).order_by(L.c.n)):
        if (key := (row.bucket, row.job_id, row.sequence)) in keys:
            found[key][row.rule] = Fired(
                n=row.n, bucket=row.bucket, job_id=row.job_id, sequence=row.sequence, rule=row.rule, count=row.repeats,
                notifiers=tuple(json.loads(row.notifiers)), since=at(row.since), fired_at=at(row.fired_at),
                told_at=at(row.told_at), recovered_at=maybe_at(row.recovered_at),
            )  # fmt: skip
    return found
