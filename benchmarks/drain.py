"""A process: fill an outbox, deliver it, and print how fast that went: DATABASE SINK COUNT."""

from __future__ import annotations

import json
import resource
import sys
import time

from sqlalchemy import func, select

from benchmarks.machine import settle_statistics
from benchmarks.station import Station, now
from benchmarks.tellings import tellings
from bridge.record.outbox import entries
from bridge.record.schema import SENT, deliveries

_BATCH = 500


def main(database: str, sink: str, count: int) -> None:
    station = Station(database, sink)
    for start in range(0, count, _BATCH):
        with station.db.write() as tx:
            entries.put(tx, list(tellings(station.book, range(start, min(start + _BATCH, count)))), now=now())
    settle_statistics(database)
    before_s, from_s, begun = _cpu_s(), time.perf_counter(), 0
    while begun < count or station.dispatcher.unfinished:
        begun += station.dispatcher.turn(claiming=begun < count)  # which in the end would wait for more
    station.dispatcher.finish(until=lambda: False)
    seconds, cpu_s = time.perf_counter() - from_s, _cpu_s() - before_s
    with station.db.read() as tx:
        sent = tx.execute(select(func.count()).where(deliveries.c.state == SENT)).scalar_one()
    station.close()
    print(json.dumps({"sent": sent, "per_s": sent / seconds, "cpu_us": 1e6 * cpu_s / max(sent, 1)}))


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
