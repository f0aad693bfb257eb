"""One event at a time: how long after it was committed (posted, for the peer) the receiver has it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from benchmarks.alertmanager import Alertmanager, posts
from benchmarks.machine import Bench, Stores, module, printed_by, wait_until
from benchmarks.receivers import Arrivals
from benchmarks.report import Line, at_most

_EVENTS, _WARM_UP, _PAUSE_S = 105, 5, 0.05
_TARGETS = {"SQLite": 1.2, "PostgreSQL": 1.6}


def measure(bench: Bench, stores: Stores, rounds: int) -> list[Line]:
    sink = Arrivals(bench)
    medians: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for kind in stores.kinds:
            with stores.empty(kind) as database:
                medians[kind].append(_ours(database, sink))
        medians["Alertmanager"].append(_alertmanager(bench, sink))
    return [
        at_most(
            _TARGETS[kind],
            f"commit to receiver, {kind}",
            "ms",
            ours=medians[kind],
            peer_name="Alertmanager",
            peer=medians["Alertmanager"],
        )
        for kind in stores.kinds
    ]


def _ours(database: str, sink: Arrivals) -> float:
    printed = printed_by(module("single_events", database, sink.url, str(_EVENTS), str(_PAUSE_S)))
    return _median_ms(printed["committed"], sink.take())


def _alertmanager(bench: Bench, sink: Arrivals) -> float:
    peer, posted, came = Alertmanager(bench, sink.url), list[float](), dict[int, float]()

    def all_came() -> bool:
        came.update(sink.take())
        return len(came) == _EVENTS

    try:
        for number in range(_EVENTS):
            (body,) = posts([number])
            time.sleep(_PAUSE_S)
            posted.append(time.time())
            peer.post(body)
        wait_until(all_came, "notifications from Alertmanager")
    finally:
        peer.stop()
    return _median_ms(posted, came)


def _median_ms(began: Sequence[float], came: dict[int, float]) -> float:
    if len(came) != _EVENTS:
        raise RuntimeError(f"{len(came)} of {_EVENTS} events arrived")
    return 1000 * median(came[number] - began[number] for number in range(_WARM_UP, _EVENTS))
