"""Deliveries a second: from a filled outbox to a receiver, each recorded as delivered before it counts."""

from __future__ import annotations

import json
import threading
from collections import defaultdict

from benchmarks.alertmanager import Alertmanager, posts
from benchmarks.celery_peer import Celery
from benchmarks.deliveries import new_deliveries, rulebook
from benchmarks.machine import Bench, Stores, module, printed_by
from benchmarks.receivers import Counter
from benchmarks.report import Line, at_least

_OURS, _ALERTS, _TASKS = 20_000, 20_000, 1_500
_TARGETS: dict[str, dict[str, float]] = {
    "Alertmanager": {"SQLite": 1.3, "PostgreSQL": 0.6},
    "Celery": {"SQLite": 15, "PostgreSQL": 8},
}


def measure(bench: Bench, stores: Stores, rounds: int) -> list[Line]:
    sink = Counter(bench)
    rates: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for kind in stores.kinds:
            with stores.empty(kind) as database:
                rates[kind].append(_ours(database, sink))
        rates["Alertmanager"].append(_alertmanager(bench, sink))
        rates["Celery"].append(_celery(bench, sink))
    return [
        at_least(targets[kind], f"deliveries, {kind}", "1/s", ours=rates[kind], peer_name=peer, peer=rates[peer])
        for peer, targets in _TARGETS.items()
        for kind in stores.kinds
    ]


def _ours(database: str, sink: Counter) -> float:
    before = sink.count()
    printed = printed_by(module("drain", database, sink.url, str(_OURS)))
    if not printed["sent"] == sink.count() - before == _OURS:
        raise RuntimeError(f"{printed['sent']} of {_OURS} recorded, {sink.count() - before} arrived")
    return float(printed["per_s"])


def _alertmanager(bench: Bench, sink: Counter) -> float:
    peer, bodies, before = Alertmanager(bench, sink.url), posts(range(_ALERTS)), sink.count()

    def post_all() -> None:
        for body in bodies:
            peer.post(body)

    posting = threading.Thread(target=post_all)
    posting.start()
    try:
        return sink.rate(before, _ALERTS, at_most_s=60)
    finally:
        posting.join()
        peer.stop()


def _celery(bench: Bench, sink: Counter) -> float:
    peer, before = Celery(bench), sink.count()
    book = rulebook(sink.url)
    peer.put(sink.url, (json.dumps(delivery.message.event) for delivery in new_deliveries(book, range(_TASKS))))
    peer.work()
    try:
        return sink.rate(before, _TASKS, at_most_s=60)
    finally:
        peer.stop()
