"""Many workers at one outbox, at full speed: every delivery is sent once, those of one ordering key in order."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from sqlalchemy import func, select

from bridge.model import Delivery, RetryLater, Sent
from bridge.notifiers import Notifier
from bridge.record.database import Database
from bridge.record.outbox import claims, results
from bridge.record.outbox.results import Ended
from bridge.record.schema import DEAD, SENT, deliveries
from tests.conftest import Opener, only_postgresql, only_sqlite
from tests.support.nouns import LEASE, NOW, new_delivery
from tests.support.records import ended, know, put, rows


@dataclass
class Receiver:
    """Accepts some and fails others, and notices what it must never see."""

    sent: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    busy: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, one: Delivery) -> None:
        key, _, _ = one.id.partition("-")
        with self.lock:
            if key in self.busy:
                self.faults.append(f"{one.id}: another of its key is being sent")
            self.busy.add(key)

    def end(self, one: Delivery, chance: float) -> Ended:
        key, _, number = one.id.partition("-")
        with self.lock:
            self.busy.discard(key)
            if chance < 0.2:
                return ended(one, RetryLater("bad luck"), again_at=NOW)
            self.sent[key].append(int(number))
        return ended(one, Sent())


def _work(db: Database, receiver: Receiver, worker: str, count: int) -> None:
    chance = random.Random(worker)
    mine: list[Ended] = []
    for turn in range(100_000):
        with db.write() as tx:
            assert results.settle(tx, mine, now=NOW) == frozenset()
            lease = f"{worker}.{turn}"
            found = claims.claim(tx, free=16, lease=lease, lease_for=LEASE, now=NOW, turn=turn).deliveries
        for one in found:
            receiver.begin(one)
        mine = [receiver.end(one, chance.random()) for one in found]
        if not mine and _finished(db) == count:
            return


def _finished(db: Database) -> int:
    with db.read() as tx:
        return tx.execute(select(func.count()).where(deliveries.c.state.in_([SENT, DEAD]))).scalar_one()


def _crowd(db: Database, url: str, opened: Opener, *, count: int, keys: int, workers: int) -> None:
    names = [f"n{number}" for number in range(4)]
    know(db, *[Notifier(name=name, max_in_flight=8) for name in names])
    put(
        db,
        *[
            new_delivery(f"key{at}-{number}", to=names[at % len(names)], key=f"key{at}")
            for number in range(count // keys)
            for at in range(keys)
        ],
    )
    receiver = Receiver()
    with ThreadPoolExecutor(workers) as pool:
        running = [pool.submit(_work, opened(url), receiver, f"w{n}", count) for n in range(workers)]
    for one in running:
        one.result()
    assert receiver.faults == []
    assert dict(receiver.sent) == {f"key{at}": list(range(count // keys)) for at in range(keys)}
    assert {row["state"] for row in rows(db, deliveries)} == {SENT}


@only_postgresql
def test_four_workers_on_postgresql_send_each_once_and_in_order(db: Database, db_url: str, opened: Opener) -> None:
    _crowd(db, db_url, opened, count=800, keys=20, workers=4)


@only_sqlite
def test_two_workers_on_sqlite_send_each_once_and_in_order(db: Database, db_url: str, opened: Opener) -> None:
    _crowd(db, db_url, opened, count=200, keys=10, workers=2)
