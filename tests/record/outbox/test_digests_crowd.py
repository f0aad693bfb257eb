"""Many workers at the same digests, at full speed: nobody waits for ever, and every message is in one digest."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime

from bridge.model import Hold, NewDelivery, Rate, Silence
from bridge.record import schema
from bridge.record.database import Database
from bridge.record.outbox import digests, entries, silences
from bridge.record.schema import DELIVERY_STATES, deliveries
from tests.conftest import Opener, only_postgresql, only_sqlite
from tests.support.nouns import NOW, a_message, hours, new_delivery, seconds
from tests.support.records import read, rows, write

MOST = 4
RATE = Rate(count=3, per=seconds(2))


@dataclass
class Crowd:
    """What all threads share: a clock that goes on with every look at it, and what was sent."""

    ticks: itertools.count[int] = field(default_factory=itertools.count)
    sent: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))  # messages, by digest
    lock: threading.Lock = field(default_factory=threading.Lock)

    def now(self) -> datetime:
        return NOW + seconds(next(self.ticks) / 20)


def _enter(db: Database, crowd: Crowd, worker: str, turns: int) -> None:
    """Store what a page does: for some notifiers, through several gates at once."""
    chance = random.Random(worker)
    for turn in range(turns):
        with db.write() as tx:
            now = crowd.now()
            silence = silences.not_ended(tx, now=now)[0]
            ids = [f"{worker}-{turn}-{k}" for k in range(chance.randint(1, 30))]
            entries.put(tx, [_delivery(chance, id_, silence, now) for id_ in ids], now=now)


def _delivery(chance: random.Random, id_: str, silence: Silence, now: datetime) -> NewDelivery:
    rule = chance.choice(("r0", "r1"))
    group = Hold(gate="group", name=rule, until=now + seconds(1), key=chance.choice(("", "p1")), most=MOST)
    mute = Hold(gate="mute", name="quiet", until=now + seconds(3))
    never = Hold(gate="mute", name="never", until=now + seconds(3), drop=True)
    quiet = Hold(gate="silence", name=silence.id, until=silence.ends_at)
    hold = chance.choice((group, group, mute, never, quiet, None))
    message = a_message(f"m-{id_}", job_id=id_, state=chance.choice(("Failed", "Success")), rule=rule)
    return new_delivery(id_, message=message, to=chance.choice(("n0", "n1")), hold=hold, throttle=RATE)


def _send(db: Database, crowd: Crowd, is_over: Callable[[], bool]) -> None:
    """Send the digests that are due, until no more come."""
    for _ in range(100_000):
        last, now = is_over(), crowd.now()
        due = read(db, digests.due, now=now)
        for n in due:
            with db.write() as tx:
                if (ended := digests.end(tx, n, now=now)) is None:
                    continue
                if count := sum(digests.counts(tx, n).values()):
                    summary = new_delivery(f"d-{n}", to=ended.notifier, message=a_message(f"md-{n}", kind="digest"))
                    entries.put(tx, [summary], now=now)
                    digests.merged(tx, n, summary.id, now=now)
            with crowd.lock:
                crowd.sent[n].append(count)
        if last and not due:
            return


def _silence(db: Database, number: int) -> None:
    bounds = {"begins_at": NOW, "ends_at": NOW + hours(1)}
    silence = Silence(id=f"s{number:03}", spec="{}", author="ann", reason="maintenance", **bounds)
    write(db, silences.add, silence)


def _end_silences(db: Database, crowd: Crowd, count: int, is_over: Callable[[], bool]) -> None:
    """End one after the other, while messages come that it holds; there is always another."""
    for number in range(count):
        _silence(db, number + 1)
        for _ in range(100_000):
            if is_over() or read(db, silences.counts, [f"s{number:03}"]):
                break
        assert write(db, silences.end, f"s{number:03}", by="ben", now=crowd.now())


def _crowd(db: Database, url: str, opened: Opener, *, writers: int, senders: int, turns: int) -> None:
    crowd = Crowd()
    _silence(db, 0)
    with ThreadPoolExecutor(writers + senders + 1) as pool:
        entering = [pool.submit(_enter, opened(url), crowd, f"w{n}", turns) for n in range(writers)]

        def is_over() -> bool:
            return all(writer.done() for writer in entering)

        sending = [pool.submit(_send, opened(url), crowd, is_over) for _ in range(senders)]
        ending = pool.submit(_end_silences, opened(url), crowd, turns // 2, is_over)
    for thread in (*entering, *sending, ending):
        thread.result()
    crowd.ticks = itertools.count(20 * 3600 * 2)
    _send(db, crowd, lambda: True)
    _compare(db, crowd)


def _compare(db: Database, crowd: Crowd) -> None:
    found, stored = rows(db, schema.digests), rows(db, deliveries)
    members: dict[int, Counter[str]] = defaultdict(Counter)
    for row in stored:
        if row["digest"] is not None:
            members[row["digest"]][DELIVERY_STATES[row["state"]]] += 1
    assert [row for row in found if row["ended_at"] is None] == []
    for row in found:
        here = members[row["n"]]
        assert set(here) <= {"dropped" if row["drops"] else "merged"}
        assert row["members"] == here.total()
        assert crowd.sent[row["n"]] == [here["merged"]]  # once
        assert (row["delivery"] is not None) == (here["merged"] > 0)
    assert max(members[row["n"]].total() for row in found if row["gate"] == "group") == MOST
    alone = [row["state"] for row in stored if row["digest"] is None and not row["id"].startswith("d-")]
    assert {DELIVERY_STATES[state] for state in alone} == {"waiting"}
    passed = [row["passed"] for row in found if row["gate"] == "throttle"]
    assert (max(passed), sum(passed)) == (RATE.count, len(alone))
    assert {row["gate"] for row in found if row["members"]} == {"group", "throttle", "mute", "silence"}


@only_postgresql
def test_four_workers_on_postgresql_hold_each_message_once_while_others_send(
    db: Database, db_url: str, opened: Opener
) -> None:
    _crowd(db, db_url, opened, writers=4, senders=2, turns=30)


@only_sqlite
def test_two_workers_on_sqlite_hold_each_message_once_while_another_sends(
    db: Database, db_url: str, opened: Opener
) -> None:
    _crowd(db, db_url, opened, writers=2, senders=1, turns=20)
