"""A process: deliver single events, stored now and then by another thread: DATABASE SINK COUNT PAUSE_S.

It prints when each was committed.
"""

from __future__ import annotations

import json
import sys
import threading
import time

from benchmarks.station import Station, now
from benchmarks.tellings import tellings
from bridge.record.outbox import entries


def main(database: str, sink: str, count: int, pause_s: float) -> None:
    station, committed = Station(database, sink), list[float]()

    def tell() -> None:
        for number in range(count):
            time.sleep(pause_s)
            told = list(tellings(station.book, range(number, number + 1), note=f"event={number};"))
            with station.db.write() as tx:
                entries.put(tx, told, now=now())
            committed.append(time.time())
            station.dispatcher.wake()

    teller, begun = threading.Thread(target=tell), 0
    teller.start()
    while begun < count:
        begun += station.dispatcher.turn()
    station.dispatcher.finish(until=lambda: False)
    teller.join()
    station.close()
    print(json.dumps({"committed": committed}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
