"""A process: deliver single events as they come, from a thread that stores one now and then: DATABASE SINK COUNT PAUSE."""

from __future__ import annotations

import json
import sys
import threading
import time

from benchmarks.station import Station, now
from benchmarks.tellings import tellings
from bridge.record import outbox

_WARM_UP = 5


def main(database: str, sink: str, count: int, pause_s: float) -> None:
    station = Station(database, sink)

    def tell() -> None:
        time.sleep(1)
        for number in range(_WARM_UP + count):
            time.sleep(pause_s)
            # The stamp is older than the transaction: a peer's is taken before it is asked, too.
            (told,) = tellings(station.book, range(number, number + 1), note=_stamp(number))
            with station.db.write() as tx:
                outbox.put(tx, [told], now=now())
            station.courier.wake()

    teller = threading.Thread(target=tell)
    teller.start()
    begun = 0
    while begun < _WARM_UP + count:
        begun += station.courier.turn()
    station.courier.finish(until=lambda: False)
    teller.join()
    station.close()
    print(json.dumps({"begun": begun}))


def _stamp(number: int) -> str:
    return f"t={time.time():.6f};" if number >= _WARM_UP else ""


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
