"""What charts show: how many jobs were in which state, how soon that was seen, and what became of deliveries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate

from sqlalchemy import Connection

from bridge.model import CLOSED, NEW
from bridge.record import counters
from bridge.record.counters import BOUNDS, UNTIMED
from bridge.record.queries import gauges

# Length of the chart and of its slots: as long as `counters.compact` leaves them at that age.
SPANS = {
    "1h": (timedelta(hours=1), timedelta(minutes=5)),
    "24h": (timedelta(hours=24), timedelta(hours=1)),
    "7d": (timedelta(days=7), timedelta(hours=6)),
}
_MOST = 200  # lines of one chart: the largest, as tags and queues are whatever CI says

Counts = tuple[int, ...]  # one for each slot


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How many unfinished jobs stood in a state at the end of each slot."""

    queue: str
    tag: str
    state: str
    counts: Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """How many jobs came into a state in each slot."""

    queue: str
    tag: str
    to: str
    counts: Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """How many deliveries ended so in each slot: delivered, dead, merged or dropped."""

    notifier: str
    outcome: str
    counts: Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """From what happened until the receiver accepted it, over all slots. None: nothing was delivered."""

    notifier: str
    count: int
    p50_s: float | None
    p95_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """How soon the changes of a watch's jobs were seen, and with how many calls, over all slots.

    Changes are those that were seen and are news. `p50_s` and `p99_s` are of those whose time CI says, in whole
    seconds, rounded down: up to a second too much. None: there were none.
    """

    watch: str
    transitions: int
    calls: int  # that CI answered
    p50_s: float | None
    p99_s: float | None

    @property
    def calls_per_transition(self) -> float | None:
        return self.calls / self.transitions if self.transitions else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """How jobs moved; `slots` as in Stats."""

    slots: tuple[datetime, ...]
    jobs: tuple[Standing, ...]
    transitions: tuple[Moved, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats(Movement):
    """`slots` are the beginnings of spans of `step`, oldest first; the last one is under way and ends at `until`."""

    span: str
    since: datetime
    until: datetime
    step: timedelta
    deliveries: tuple[Settled, ...]
    latency: tuple[Latency, ...]
    detection: tuple[Detection, ...]


def moved(tx: Connection, span: str, now: datetime, tag: str | None = None, queue: str | None = None) -> Movement:
    """Return how jobs moved in a span of SPANS; perhaps only those of a tag or a queue (its id)."""
    slots = _slots(now, *SPANS[span])

    def wanted(of_tag: str, of_queue: str) -> bool:
        return tag in (None, of_tag) and queue in (None, of_queue)

    transitions = counters.series(tx, "transition", slots)
    moves = {labels: counts for labels, counts in transitions.items() if wanted(labels[0], labels[1])}
    open_ = {key: count for key, count in gauges.open_jobs(tx).items() if wanted(key[2], key[1])}
    return Movement(slots=slots, jobs=_standing(open_, moves, slots), transitions=_moved(moves, slots))


def stats(tx: Connection, span: str, now: datetime, tag: str | None = None, queue: str | None = None) -> Stats:
    """Return what there is to say of a span of SPANS; of jobs and transitions as `moved`."""
    found = moved(tx, span, now, tag, queue)
    ends = counters.series(tx, "delivery", found.slots)
    return Stats(
        span=span,
        since=found.slots[0],
        until=now,
        step=SPANS[span][1],
        slots=found.slots,
        jobs=found.jobs,
        transitions=found.transitions,
        deliveries=tuple(
            Settled(notifier=notifier, outcome=outcome, counts=counts)
            for (notifier, outcome), counts in sorted(ends.items())
        ),
        latency=latency(tx, span, now),
        detection=detection(tx, span, now),
    )


def latency(tx: Connection, span: str, now: datetime) -> tuple[Latency, ...]:
    """Return how long it took in a span of SPANS until messages were accepted."""
    found, bounds = counters.histogram(tx, "delivery", _slots(now, *SPANS[span])[0]), BOUNDS["delivery"]
    return tuple(
        Latency(
            notifier=notifier,
            count=sum(buckets.values()),
            p50_s=quantile(0.5, buckets, bounds),
            p95_s=quantile(0.95, buckets, bounds),
        )
        for (notifier, outcome), buckets in sorted(found.items())
        if outcome == "delivered"
    )


def detection(tx: Connection, span: str, now: datetime) -> tuple[Detection, ...]:
    """Return how soon changes were seen in a span of SPANS, and with how many calls, by watch."""
    since, bounds = _slots(now, *SPANS[span])[0], BOUNDS["detected"]
    seen, calls = (counters.histogram(tx, metric, since) for metric in ("detected", "call"))
    timed = {by: {bucket: count for bucket, count in seen[by].items() if bucket != UNTIMED} for by in seen}
    return tuple(
        Detection(
            watch=by[0],
            transitions=sum(seen.get(by, {}).values()),
            calls=sum(calls.get(by, {}).values()),
            p50_s=quantile(0.5, timed.get(by, {}), bounds),
            p99_s=quantile(0.99, timed.get(by, {}), bounds),
        )
        for by in sorted({*seen, *calls})
    )


def _slots(now: datetime, length: timedelta, step: timedelta) -> tuple[datetime, ...]:
    last = now - timedelta(seconds=now.timestamp() % step.total_seconds())
    return tuple(last - step * back for back in reversed(range(length // step)))


_Moves = Mapping[tuple[str, ...], Counts]


def _moved(moves: _Moves, slots: Sequence[datetime]) -> tuple[Moved, ...]:
    sums: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0] * len(slots))
    for (tag, queue, _, to), counts in moves.items():
        _add(sums[queue, tag, to], counts)
    return tuple(Moved(queue=q, tag=t, to=to, counts=tuple(found)) for (q, t, to), found in _largest(sums))


def _standing(
    open_: Mapping[tuple[str, str, str], int], moves: _Moves, slots: Sequence[datetime]
) -> tuple[Standing, ...]:
    """Go back from those that are open now: before a slot there were as many less as it brought more."""
    net: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0] * len(slots))
    for (tag, queue, was, to), counts in moves.items():
        if to not in CLOSED:
            _add(net[queue, tag, to], counts)
        if was not in CLOSED and was != NEW:
            _add(net[queue, tag, was], [-count for count in counts])
    sums = {}
    for queue, tag, state in {*net, *((queue, tag, state) for state, queue, tag in open_)}:
        came, now = net[queue, tag, state], open_.get((state, queue, tag), 0)
        later = list(accumulate(reversed(came), initial=0))[:-1][::-1]  # what came after the end of each slot
        stood = [max(0, now - more) for more in later]
        if any(stood):
            sums[queue, tag, state] = stood
    return tuple(Standing(queue=q, tag=t, state=s, counts=tuple(found)) for (q, t, s), found in _largest(sums))


def _add(sums: list[int], counts: Sequence[int]) -> None:
    sums[:] = [a + b for a, b in zip(sums, counts, strict=True)]


def _largest(
    sums: Mapping[tuple[str, str, str], Sequence[int]],
) -> list[tuple[tuple[str, str, str], Sequence[int]]]:
    """Return the largest lines, by name."""
    return sorted(sorted(sums.items(), key=lambda line: (-sum(line[1]), line[0]))[:_MOST])


def quantile(share: float, buckets: Mapping[int, int], bounds: Sequence[float]) -> float | None:
    """Return what this share of all took at most, in seconds, as Prometheus estimates it; None if there are none.

    In the last bucket, which has no end, that is where it begins.
    """
    rank, below = share * sum(buckets.values()), 0
    for bucket in range(len(bounds)):
        inside = buckets.get(bucket, 0)
        if inside and below + inside >= rank:
            low = bounds[bucket - 1] if bucket else 0.0
            return low + (bounds[bucket] - low) * (rank - below) / inside
        below += inside
    return bounds[-1] if buckets else None
