"""A process: deliver single events, stored now and then by another thread: DATABASE SINK COUNT PAUSE_S.

It prints when each was committed.
"""

from __future__ import annotations

import json
import sys
import threading
import time

from benchmarks.bench_bridge import BenchBridge, now
from benchmarks.deliveries import new_deliveries
from bridge.record.outbox import entries


def main(database: str, sink: str, count: int, pause_s: float) -> None:
    bench, committed = BenchBridge(database, sink), list[float]()

    def write() -> None:
        for number in range(count):
            time.sleep(pause_s)
            deliveries = list(new_deliveries(bench.book, range(number, number + 1), note=f"event={number};"))
            with bench.db.write() as tx:
                entries.put(tx, deliveries, now=now())
            committed.append(time.time())
            bench.dispatcher.wake()

    writer, begun = threading.Thread(target=write), 0
    writer.start()
    while begun < count:
        begun += bench.dispatcher.run_once()
    bench.dispatcher.finish(until=lambda: False)
    writer.join()
    bench.close()
    print(json.dumps({"committed": committed}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
