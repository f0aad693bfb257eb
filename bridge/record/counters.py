"""Counters: how often something happened and how long it took, in all and in slots of time for charts.

A count is stored in the transaction of what it counts, so a crash loses none and doubles none. It is written at the end
of that transaction, in the order of the keys: all that transactions wait for here is a counter with a greater key than
those they hold, so they never wait for each other in a circle.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, lru_cache
from itertools import chain
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
from bridge.record.schema import tallies

# Metrics that have slots; of the others there is only a total.
CHARTED = frozenset(("call", "delivery", "detected", "transition"))
UNTIMED = -1  # the bucket of what has no duration, in a metric of durations

# Upper bounds of a histogram's buckets, in seconds. Rows name a bucket by its index, so these must not change.
_UP_TO_HOURS = (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0, 21600.0)
_FINE = (
    0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0,
    21600.0,
)  # fmt: skip
BOUNDS: Mapping[str, Sequence[float]] = {
    "attempt": (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0),
    "delivery": (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 21600.0, 86400.0),
    "detected": _FINE,
    "job_duration": _UP_TO_HOURS,
    "job_wait": _UP_TO_HOURS,
    "poll": (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
}
MOST_KEPT = 500  # label sets that stay of a metric whose labels come from CI, once there were twice as many
OTHER = "other"  # each label of the rest
AT_ONCE = 500  # rows that `compact` moves in one transaction

_LABELS_FROM_CI = ("job_duration", "job_wait", "transition")
_LONGEST_LABEL = 100  # characters: labels are part of the primary key
_SLOT, _HOUR, _QUARTER_DAY, _KEPT = (
    span // timedelta(milliseconds=1)
    for span in (timedelta(minutes=5), timedelta(hours=1), timedelta(hours=6), timedelta(days=31))
)
_KEY = ("metric", "slot", "labels", "bucket")
_COLUMNS = (*_KEY, "count", "ms", "last_at")
_SUM = cast(func.sum(tallies.c.count), BigInteger)  # PostgreSQL sums into numbers of any size, which are slow to read

Labels = tuple[str, ...]


class Count(NamedTuple):
    """So many of these; `ms` is how long they took together."""

    metric: str
    labels: Labels
    bucket: int = 0
    times: int = 1
    ms: int = 0


def timed(metric: str, labels: Labels, seconds: float) -> Count:
    """Return the count of what took so long; less than nothing, by clocks that disagree, is 0."""
    return Count(metric, labels, bisect_left(BOUNDS[metric], seconds), 1, max(0, round(seconds * 1000)))


def all_timed(metric: str, labels: Labels, times: Iterable[float]) -> Iterator[Count]:
    """Yield the counts of what took so many seconds each, one for each bucket: cheaper than one for each time."""
    bounds, sums = BOUNDS[metric], dict[int, tuple[int, int]]()
    for seconds in times:
        bucket = bisect_left(bounds, seconds)
        count, sum_ms = sums.get(bucket, (0, 0))
        sums[bucket] = (count + 1, sum_ms + max(0, round(seconds * 1000)))
    for bucket, (count, sum_ms) in sums.items():
        yield Count(metric, labels, bucket, count, sum_ms)


def add(tx: Connection, counts: Iterable[Count], *, now: datetime) -> None:
    """Add these at the end of the transaction."""
    sums = tx.info.setdefault(LAST, _Sums())
    when = ms(now)
    for metric, labels, bucket, times, took in counts:
        known = sums.get((metric, labels, bucket, when), (0, 0))
        sums[metric, labels, bucket, when] = (known[0] + times, known[1] + took)


class _Sums(dict[tuple[str, Labels, int, int], tuple[int, int]]):
    """What a transaction has counted so far: how many, and how long they took, by metric, labels, bucket and when."""

    def __call__(self, tx: Connection) -> None:
        _write(tx, chain.from_iterable(_rows(*key, *counted) for key, counted in self.items()))


def _rows(metric: str, labels: Labels, bucket: int, when: int, times: int, took: int) -> Iterator[tuple[Any, ...]]:
    for slot in (0, when - when % _SLOT) if metric in CHARTED else (0,):
        yield metric, slot, _text(labels), bucket, times, took, when


def _write(tx: Connection, rows: Iterable[Sequence[Any]]) -> None:
    """Add rows to those of the same key; this must end the transaction (see above)."""
    sums: dict[tuple[Any, ...], tuple[int, int, int]] = {}
    for *columns, times, took, when in rows:
        key = tuple(columns)
        known = sums.get(key, (0, 0, 0))
        sums[key] = (known[0] + times, known[1] + took, max(known[2], when))
    if sums:
        values = [dict(zip(_COLUMNS, (*key, *sums[key]), strict=True)) for key in sorted(sums)]
        tx.execute(_upsert(tx.dialect.name), values)


@cache
def _upsert(dialect: str) -> Any:
    row = (postgresql if dialect == "postgresql" else sqlite).insert(tallies)
    known, new = tallies.c, row.excluded
    later = case((new.last_at > known.last_at, new.last_at), else_=known.last_at)
    sums = {"count": known["count"] + new["count"], "ms": known.ms + new.ms, "last_at": later}
    return row.on_conflict_do_update(index_elements=_KEY, set_=sums)


@lru_cache(maxsize=10_000)
def _text(labels: Labels) -> str:
    return dump([storable(label)[:_LONGEST_LABEL] for label in labels])


@lru_cache(maxsize=10_000)
def _labels(text: str) -> Labels:
    return tuple(json.loads(text))


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
    """Return what was counted of these metrics since the database was made."""
    mine = select(tallies).where(tallies.c.metric.in_(sorted(metrics)), tallies.c.slot == 0)
    rows = tx.execute(mine.order_by(tallies.c.metric, tallies.c.labels, tallies.c.bucket))
    return [Total(r.metric, _labels(r.labels), r.bucket, r[4], r.ms / 1000, at(r.last_at)) for r in rows]


def matches(tx: Connection) -> dict[str, tuple[int, datetime]]:
    """Return by rule how often it has fired, and when it did last."""
    return {total.labels[0]: (total.count, total.last_at) for total in totals(tx, ["match"])}


def series(tx: Connection, metric: str, slots: Sequence[datetime]) -> dict[Labels, tuple[int, ...]]:
    """Return by labels how often something happened in each slot, given by their beginnings.

    Slots follow each other, at multiples of their length, and are no shorter than `compact` leaves those of their age.
    """
    first, length = ms(slots[0]), ms(slots[1]) - ms(slots[0])
    begins = (tallies.c.slot - tallies.c.slot % literal_column(str(length))).label("begins")
    sums: dict[Labels, list[int]] = {}
    for begin, labels, count in tx.execute(_since(metric, slots[0], begins, tallies.c.labels)):
        place = (begin - first) // length
        if place < len(slots):
            sums.setdefault(_labels(labels), [0] * len(slots))[place] = count
    return {labels: tuple(counts) for labels, counts in sums.items()}


def histogram(tx: Connection, metric: str, since: datetime) -> dict[Labels, dict[int, int]]:
    """Return by labels how often something happened since then, by bucket."""
    buckets: dict[Labels, dict[int, int]] = {}
    for labels, bucket, count in tx.execute(_since(metric, since, tallies.c.labels, tallies.c.bucket)):
        buckets.setdefault(_labels(labels), {})[bucket] = count
    return buckets


def _since(metric: str, since: datetime, *by: Any) -> Select[Any]:
    mine = (tallies.c.metric == metric, tallies.c.slot >= max(1, ms(since)))
    return select(*by, _SUM).where(*mine).group_by(*by)


def compact(tx: Connection, *, now: datetime) -> int:
    """Move some rows to where they belong as they age; return how many. This must be all that the transaction counts.

    After two hours a slot is an hour long, after two days a quarter of a day, and after a month it goes. Of a metric
    that has very many label sets, the rarest become "other".
    """
    return _lengthen_slots(tx, ms(now)) or _fold_rare_labels(tx)


def _lengthen_slots(tx: Connection, now: int) -> int:
    oldest, slot = now - _KEPT, tallies.c.slot
    hours, quarters = (now - 2 * _HOUR) // _HOUR * _HOUR, (now - 48 * _HOUR) // _QUARTER_DAY * _QUARTER_DAY
    too_short = or_(
        slot < oldest, and_(slot < hours, slot % _HOUR != 0), and_(slot < quarters, slot % _QUARTER_DAY != 0)
    )
    rows = _take_out(tx, tallies.c.metric.in_(sorted(CHARTED)), slot > 0, slot < hours, too_short)
    longer = [(row, _QUARTER_DAY if row.slot < quarters else _HOUR) for row in rows if row.slot >= oldest]
    _write(tx, [(row.metric, row.slot // length * length, *row[2:]) for row, length in longer])
    return len(rows)


def _fold_rare_labels(tx: Connection) -> int:
    sets, total = func.count(tallies.c.labels.distinct()), tallies.c.slot == 0
    crowded = select(tallies.c.metric).where(tallies.c.metric.in_(_LABELS_FROM_CI), total).group_by(tallies.c.metric)
    metric = tx.execute(crowded.having(sets > 2 * MOST_KEPT).order_by(tallies.c.metric).limit(1)).scalar()
    if metric is None:
        return 0
    mine = (tallies.c.metric == metric, total)
    by_number = select(tallies.c.labels).where(*mine).group_by(tallies.c.labels)
    rare = by_number.order_by(_SUM.desc(), tallies.c.labels).offset(MOST_KEPT).limit(AT_ONCE)
    rows = _take_out(tx, *mine, tallies.c.labels.in_(rare))
    others = [(row, _text((OTHER,) * len(_labels(row.labels)))) for row in rows]
    _write(tx, [(row.metric, row.slot, labels, *row[3:]) for row, labels in others])
    return len(rows)


def _take_out(tx: Connection, *which: Any) -> Sequence[Any]:
    """Delete some of these rows and return them, but none that another transaction is counting up."""
    keys = [tallies.c[name] for name in _KEY]
    rows = tx.execute(
        select(tallies).where(*which).order_by(*keys).limit(AT_ONCE).with_for_update(skip_locked=True)
    ).all()
    if rows:
        tx.execute(delete(tallies).where(tuple_(*keys).in_([row[:4] for row in rows])))
    return rows
