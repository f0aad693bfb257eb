"""A process of the bridge's own: deliver a filled outbox, and say how fast that went."""

from __future__ import annotations

import argparse
import json
import resource
import time
from datetime import UTC, datetime
from ipaddress import ip_network

from sqlalchemy import func, select

from benchmarks.tellings import BODY_BYTES, rulebook, tellings
from bridge.pipeline import Courier
from bridge.record import leases, outbox
from bridge.record.database import Database
from bridge.record.schema import SENT, delivery
from bridge.send.door import Door
from bridge.send.outbound import Outbound

_BATCH = 500


def utc_now() -> datetime:
    return datetime.now(UTC)


def main() -> None:
    options = _options()
    book = rulebook(options.sink)
    db = Database(options.database)
    db.upgrade()
    with db.write() as tx:
        leases.sync(tx, book.watches, [(book.notifiers["hook"], "webhook")])
    told = list(tellings(book, range(options.count)))
    for start in range(0, options.count, _BATCH):
        with db.write() as tx:
            outbox.put(tx, told[start : start + _BATCH], now=utc_now())
    del told
    outbound = Outbound(
        door=Door(allow=(ip_network("127.0.0.0/8"),)),
        notifiers=book.notifiers,
        clock=utc_now,
        slack_api_url="http://127.0.0.1:1/",
    )
    courier = Courier(
        db=db, transport=outbound, book=lambda: book, clock=utc_now, chance=lambda: 0.5, worker="bench"
    )
    before, from_s = _cpu_s(), time.perf_counter()
    begun = 0
    while begun < options.count:
        begun += courier.turn()
    courier.finish(until=lambda: False)
    seconds, cpu_s = time.perf_counter() - from_s, _cpu_s() - before
    with db.read() as tx:
        sent = tx.execute(select(func.count()).where(delivery.c.state == SENT)).scalar_one()
    outbound.close(0)
    db.close()
    print(json.dumps({"sent": sent, "per_s": sent / seconds, "cpu_us": 1e6 * cpu_s / max(sent, 1)}))


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", required=True)
    parser.add_argument("--sink", required=True)
    parser.add_argument("--count", type=int, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
