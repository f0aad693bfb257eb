"""One event at a time: how old it is when the receiver has it."""

from __future__ import annotations

import time
from collections import defaultdict
from statistics import median

from benchmarks.alertmanager import Alertmanager, stamped_post
from benchmarks.machine import Bench, Stores, module, told_by, wait_until
from benchmarks.report import Line, at_most
from benchmarks.sinks import Arrivals

_EVENTS, _PAUSE_S, _WARM_UP = 100, 0.05, 5
_TARGETS = {"SQLite": 1.2, "PostgreSQL": 1.6}


def measure(bench: Bench, stores: Stores, rounds: int) -> list[Line]:
    sink = Arrivals(bench)
    medians: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for kind in stores.kinds:
            with stores.empty(kind) as database:
                told_by(module("at_rest", database, sink.url, str(_EVENTS), str(_PAUSE_S)))
            medians[kind].append(_median(sink.take()))
        medians["Alertmanager"].append(_alertmanager(bench, sink))
    return [
        at_most(
            _TARGETS[kind],
            what=f"stored to received, {kind}",
            unit="ms",
            ours=medians[kind],
            peer_name="Alertmanager",
            peer=medians["Alertmanager"],
        )
        for kind in stores.kinds
    ]


def _alertmanager(bench: Bench, sink: Arrivals) -> float:
    peer, ages = Alertmanager(bench, sink.url), list[float]()

    def all_came() -> bool:
        ages.extend(sink.take())
        return len(ages) >= _WARM_UP + _EVENTS

    try:
        time.sleep(1)
        for number in range(_WARM_UP + _EVENTS):
            time.sleep(_PAUSE_S)
            peer.post(stamped_post(number))
        wait_until(all_came, "notifications from Alertmanager")
    finally:
        peer.stop()
    return _median(ages[_WARM_UP:])


def _median(ages: list[float]) -> float:
    if len(ages) != _EVENTS:
        raise RuntimeError(f"{len(ages)} of {_EVENTS} events arrived")
    return median(ages)
