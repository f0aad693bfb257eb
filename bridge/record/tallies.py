"""Tallies: how often something happened and how long it took, in all and in spans of time.

What a transaction counts is written at its very end, in one statement and in the order of the keys (`Database.write`
sees to it). So a transaction that waits for a tally, which another one has just counted up, holds nothing that the
other one needs: that has its tallies too, or waits for one further on. Workers never wait for each other in a circle.

A count is stored with what it counts: a crash loses none and doubles none.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Connection,
    Select,
    and_,
    case,
    cast,
    delete,
    func,
    literal_column,
    or_,
    select,
    tuple_,
)
from sqlalchemy.dialects import postgresql, sqlite

from bridge.record.codec import dump, storable
from bridge.record.database import LAST, at, ms
from bridge.record.schema import tally as Y  # noqa: N812  (tables are capital letters in SQL here)

CHARTED = frozenset({"transition", "delivery"})  # these have series; the others are only counted in all
UNTIMED = -1  # the bucket of what has no duration among others that have one

# What a histogram's buckets reach up to, in seconds; rows name them by place, so these stay as they are.
_UP_TO_HOURS = (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0, 21600.0)
BOUNDS: Mapping[str, Sequence[float]] = {
    "attempt": (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0),
    "delivery": (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 21600.0, 86400.0),
    "detection": (1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0),
    "job_duration": _UP_TO_HOURS,
    "job_wait": _UP_TO_HOURS,
    "poll": (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
}

# PostgreSQL sums into numbers of any size, which take long to read.
_COUNTS = cast(func.sum(Y.c.count), BigInteger)
Labels = tuple[str, ...]
_LONGEST = 100  # characters of a label: the key of an index is made of them
_SLOT = timedelta(minutes=5)


class Counted(NamedTuple):
    """So many of these; `ms` is how long they took in all."""

    metric: str
    labels: Labels
    bucket: int = 0
    times: int = 1
    ms: int = 0


def timed(metric: str, labels: Labels, *seconds: float) -> list[Counted]:
    """Return the tallies of things that took so long, each in its bucket."""
    bounds = BOUNDS[metric]
    found: dict[int, list[float]] = {}
    for took in seconds:
        found.setdefault(bisect_left(bounds, took), []).append(took)
    return [
        Counted(metric, labels, bucket, len(times), max(0, round(sum(times) * 1000))) for bucket, times in found.items()
    ]


class _Ledger:
    """What one transaction has counted so far."""

    def __init__(self) -> None:
        self.now = 0
        self.sums: dict[tuple[str, Labels, int], tuple[int, int]] = {}

    def add(self, counted: Iterable[Counted]) -> None:
        sums = self.sums
        for metric, labels, bucket, count, took in counted:
            key = (metric, labels, bucket)
            known = sums.get(key, (0, 0))
            sums[key] = (known[0] + count, known[1] + took)

    def __call__(self, tx: Connection) -> None:
        add(tx, [Counted(*key, *sums) for key, sums in self.sums.items()], now=at(self.now))


def count(tx: Connection, counted: Iterable[Counted], *, now: datetime) -> None:
    """Count these at the end of the transaction."""
    ledger = tx.info.get(LAST)
    if ledger is None:
        ledger = tx.info[LAST] = _Ledger()
    ledger.now = max(ledger.now, ms(now))
    ledger.add(counted)


def add(tx: Connection, counted: Iterable[Counted], *, now: datetime) -> None:
    """Store tallies, in one statement; it must be the last one of the transaction (see above)."""
    when = ms(now)
    slot = when - when % _ms(_SLOT)
    rows: dict[tuple[str, int, str, int], tuple[int, int]] = {}
    for metric, labels, bucket, number, took in counted:
        text = _text(labels)
        for begins in (0, slot) if metric in CHARTED else (0,):
            key = (metric, begins, text, bucket)
            known = rows.get(key, (0, 0))
            rows[key] = (known[0] + number, known[1] + took)
    _write(tx, [(*key, *rows[key], when) for key in sorted(rows)])


_COLUMNS = ("metric", "slot", "labels", "bucket", "count", "ms", "last_at")


def _write(tx: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    if rows:
        tx.execute(_upsert(tx.dialect.name), [dict(zip(_COLUMNS, row, strict=True)) for row in rows])


@cache
def _upsert(dialect: str) -> Any:
    row = (postgresql if dialect == "postgresql" else sqlite).insert(Y)
    new = row.excluded
    later = case((new.last_at > Y.c.last_at, new.last_at), else_=Y.c.last_at)
    sums = {"count": Y.c.count + new["count"], "ms": Y.c.ms + new.ms, "last_at": later}
    return row.on_conflict_do_update(index_elements=["metric", "slot", "labels", "bucket"], set_=sums)


@lru_cache(maxsize=10_000)
def _text(labels: Labels) -> str:
    return dump([storable(label)[:_LONGEST] for label in labels])


def _ms(span: timedelta) -> int:
    return span // timedelta(milliseconds=1)


# --- what was counted ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Total:
    """What was counted in all, in one bucket."""

    metric: str
    labels: Labels
    bucket: int
    count: int
    seconds: float
    last_at: datetime


def totals(tx: Connection, metrics: Collection[str]) -> list[Total]:
    """Return what was counted of these metrics since ever."""
    found = select(Y).where(Y.c.metric.in_(sorted(metrics)), Y.c.slot == 0)
    rows = tx.execute(found.order_by(Y.c.metric, Y.c.labels, Y.c.bucket))
    return [Total(r.metric, _labels(r.labels), r.bucket, r[4], r.ms / 1000, at(r.last_at)) for r in rows]


def matches(tx: Connection) -> dict[str, tuple[int, datetime]]:
    """Return by rule how often it has fired, and when it did last."""
    return {one.labels[0]: (one.count, one.last_at) for one in totals(tx, ["match"])}


def series(tx: Connection, metric: str, since: datetime, span: timedelta) -> dict[Labels, dict[datetime, int]]:
    """Return by labels how often something happened in each span of time, by its beginning; the first one has `since`.

    Spans are multiples of five minutes, and as long as what `compact` leaves of that age.
    """
    begins = (Y.c.slot - Y.c.slot % literal_column(str(_ms(span)))).label("begins")
    sums = _since(metric, at(_begun(since, span)), begins, Y.c.labels, _COUNTS)
    rows = tx.execute(sums.group_by(begins, Y.c.labels)).all()
    moments = {begin: at(begin) for begin in {row[0] for row in rows}}
    found: dict[Labels, dict[datetime, int]] = {}
    for begin, labels, number in rows:
        found.setdefault(_labels(labels), {})[moments[begin]] = number
    return found


def histogram(tx: Connection, metric: str, since: datetime) -> dict[Labels, dict[int, int]]:
    """Return by labels how often something happened since then, by bucket."""
    columns = (Y.c.labels, Y.c.bucket)
    found: dict[Labels, dict[int, int]] = {}
    for labels, bucket, number in tx.execute(_since(metric, since, *columns, _COUNTS).group_by(*columns)):
        found.setdefault(_labels(labels), {})[bucket] = number
    return found


def _since(metric: str, since: datetime, *columns: Any) -> Select[Any]:
    return select(*columns).where(Y.c.metric == metric, Y.c.slot >= max(1, ms(since)))


@lru_cache(maxsize=10_000)
def _labels(text: str) -> Labels:
    return tuple(json.loads(text))


# --- what is left of it as it ages --------------------------------------------------------------------------

AT_ONCE = 500  # rows in one transaction
_FROM_CI = frozenset({"transition", "job_duration", "job_wait"})  # whose labels are whatever CI says
MOST_KEPT = 500  # label sets of one of these, once there were twice as many
OTHER = "other"
_HOUR, _QUARTER = timedelta(hours=1), timedelta(hours=6)
_KEPT = timedelta(days=31)


def compact(tx: Connection, *, now: datetime) -> int:
    """Merge some slots into longer ones as they age, and take out the oldest; return how many rows that were.

    After two hours a slot is an hour long, after two days a quarter of a day, and after a month it goes. Of a metric
    that has very many label sets, the rarest become "other".
    """
    return _age(tx, now) or _fold(tx)


def _age(tx: Connection, now: datetime) -> int:
    hours, quarters = _begun(now - 2 * _HOUR, _HOUR), _begun(now - timedelta(days=2), _QUARTER)
    old = or_(
        Y.c.slot < ms(now - _KEPT),
        and_(Y.c.slot < hours, Y.c.slot % _ms(_HOUR) != 0),
        and_(Y.c.slot < quarters, Y.c.slot % _ms(_QUARTER) != 0),
    )
    found = select(Y).where(Y.c.metric.in_(sorted(CHARTED)), Y.c.slot > 0, Y.c.slot < hours, old)
    found = found.order_by(Y.c.metric, Y.c.slot, Y.c.labels, Y.c.bucket).limit(AT_ONCE)
    rows = tx.execute(_unlocked(tx, found)).all()
    if rows:
        _take_out(tx, rows)
        kept = [row for row in rows if row.slot >= ms(now - _KEPT)]
        _write(tx, _merged(kept, lambda slot: slot - slot % _ms(_QUARTER if slot < quarters else _HOUR)))
    return len(rows)


def _begun(moment: datetime, span: timedelta) -> int:
    return ms(moment) - ms(moment) % _ms(span)


def _merged(rows: Sequence[Any], into: Callable[[int], int]) -> list[tuple[Any, ...]]:
    sums: dict[tuple[Any, ...], tuple[int, int, int]] = {}
    for metric, slot, labels, bucket, number, took, last in rows:
        key = (metric, into(slot), labels, bucket)
        known = sums.get(key, (0, 0, 0))
        sums[key] = (known[0] + number, known[1] + took, max(known[2], last))
    return [(*key, *sums[key]) for key in sorted(sums)]


def _fold(tx: Connection) -> int:
    labels = (Y.c.metric.in_(sorted(_FROM_CI)), Y.c.slot == 0)
    numbers = select(Y.c.metric, func.count(Y.c.labels.distinct())).where(*labels).group_by(Y.c.metric)
    many = [metric for metric, number in tx.execute(numbers) if number > 2 * MOST_KEPT]
    if not many:
        return 0
    mine = (Y.c.metric == min(many), Y.c.slot == 0)
    rare = select(Y.c.labels).where(*mine).group_by(Y.c.labels).order_by(_COUNTS.desc(), Y.c.labels)
    names = tx.execute(rare.offset(MOST_KEPT).limit(AT_ONCE)).scalars().all()
    found = select(Y).where(*mine, Y.c.labels.in_(names)).order_by(Y.c.labels, Y.c.bucket).limit(AT_ONCE)
    rows = tx.execute(_unlocked(tx, found)).all()
    _take_out(tx, rows)
    width = len(_labels(names[0]))
    others = [(row.metric, 0, _text((OTHER,) * width), row.bucket, row[4], row.ms, row.last_at) for row in rows]
    _write(tx, _merged(others, lambda slot: slot))
    return len(rows)


def _unlocked(tx: Connection, found: Select[Any]) -> Select[Any]:
    return found.with_for_update(skip_locked=True) if tx.dialect.name == "postgresql" else found


def _take_out(tx: Connection, rows: Sequence[Any]) -> None:
    keys = [(row.metric, row.slot, row.labels, row.bucket) for row in rows]
    tx.execute(delete(Y).where(tuple_(Y.c.metric, Y.c.slot, Y.c.labels, Y.c.bucket).in_(keys)))
