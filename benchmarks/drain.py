"""A process: fill an outbox, deliver it, and print how fast that went: DATABASE SINK COUNT."""

from __future__ import annotations

import json
import resource
import sys
import time

from sqlalchemy import func, select

from benchmarks.bench_bridge import BenchBridge, now
from benchmarks.deliveries import new_deliveries
from benchmarks.machine import settle_statistics
from bridge.record.outbox import entries
from bridge.record.schema import SENT, deliveries

_BATCH = 500


def main(database: str, sink: str, count: int) -> None:
    bench = BenchBridge(database, sink)
    for start in range(0, count, _BATCH):
        with bench.db.write() as tx:
            entries.put(tx, list(new_deliveries(bench.book, range(start, min(start + _BATCH, count)))), now=now())
    settle_statistics(database)
    before_s, from_s, begun = _cpu_s(), time.perf_counter(), 0
    while begun < count or bench.dispatcher.unfinished:
        begun += bench.dispatcher.run_once(claiming=begun < count)  # which in the end would wait for more
    bench.dispatcher.finish(until=lambda: False)
    seconds, cpu_s = time.perf_counter() - from_s, _cpu_s() - before_s
    with bench.db.read() as tx:
        sent = tx.execute(select(func.count()).where(deliveries.c.state == SENT)).scalar_one()
    bench.close()
    print(json.dumps({"sent": sent, "per_s": sent / seconds, "cpu_us": 1e6 * cpu_s / max(sent, 1)}))


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
