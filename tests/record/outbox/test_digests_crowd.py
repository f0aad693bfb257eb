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
from tests.support.records import NOW, a_message, hours, new_delivery, read, rows, seconds, write

NOTIFIERS = ("n0", "n1")
MOST = 4
RATE = Rate(count=3, per=seconds(2))


@dataclass
class Crowd:
    """What all threads share: a clock that goes on with every look at it, and what was told."""

    ticks: itertools.count[int] = field(default_factory=itertools.count)
    told: Counter[int] = field(default_factory=Counter)  # messages, by the digest that was told
    tellings: Counter[int] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def now(self) -> datetime:
        return NOW + seconds(next(self.ticks) / 20)

    def count(self, n: int, messages: int) -> None:
        with self.lock:
            self.told[n] += messages
            self.tellings[n] += 1


def _enter(db: Database, crowd: Crowd, worker: str, turns: int) -> None:
    """Tell as a page does: for some notifiers, through several gates at once."""
    chance = random.Random(worker)
    for turn in range(turns):
        with db.write() as tx:
            now = crowd.now()
            standing = silences.standing(tx, now=now)
            told = [_telling(chance, f"{worker}-{turn}-{k}", standing[0], now) for k in range(chance.randint(1, 30))]
            entries.put(tx, told, now=now)


def _telling(chance: random.Random, id_: str, silence: Silence, now: datetime) -> NewDelivery:
    rule = chance.choice(("r0", "r1"))
    group = Hold(gate="group", name=rule, until=now + seconds(1), key=chance.choice(("", "p1")), most=MOST)
    mute = Hold(gate="mute", name="quiet", until=now + seconds(3))
    never = Hold(gate="mute", name="never", until=now + seconds(3), drop=True)
    quiet = Hold(gate="silence", name=silence.id, until=silence.ends_at)
    hold = chance.choice((group, group, mute, never, quiet, None))
    message = a_message(f"m-{id_}", job_id=id_, state=chance.choice(("Failed", "Success")), rule=rule)
    return new_delivery(id_, message=message, to=chance.choice(NOTIFIERS), hold=hold, throttle=RATE)


def _tell(db: Database, crowd: Crowd, is_over: Callable[[], bool]) -> None:
    """Tell what is due, until nothing more comes."""
    for _ in range(100_000):
        last = is_over()
        now = crowd.now()
        due = read(db, digests.due, now=now)
        for n in due:
            with db.write() as tx:
                if (ended := digests.end(tx, n, now=now)) is None:
                    continue
                count = sum(digests.counts(tx, n).values())
                if count:
                    summary = new_delivery(f"d-{n}", to=ended.notifier, message=a_message(f"md-{n}", kind="digest"))
                    entries.put(tx, [summary], now=now)
                    digests.merged(tx, n, summary.id, now=now)
            crowd.count(n, count)
        if last and not due:
            return


def _silence(db: Database, number: int) -> None:
    silence = Silence(
        id=f"s{number:03}", spec="{}", author="ann", reason="maintenance", begins_at=NOW, ends_at=NOW + hours(1)
    )
    write(db, silences.add, silence)


def _end_silences(db: Database, crowd: Crowd, count: int, is_over: Callable[[], bool]) -> None:
    """End one after the other, while messages come that it holds; there is always another."""
    for number in range(count):
        _silence(db, number + 1)
        for _ in range(100_000):
            with db.read() as tx:
                if is_over() or silences.held(tx, [f"s{number:03}"]):
                    break
        assert write(db, silences.end, f"s{number:03}", by="ben", now=crowd.now())


def _crowd(db: Database, url: str, opened: Opener, *, enterers: int, tellers: int, turns: int) -> None:
    crowd = Crowd()
    _silence(db, 0)
    with ThreadPoolExecutor(enterers + tellers + 1) as pool:
        entering = [pool.submit(_enter, opened(url), crowd, f"w{n}", turns) for n in range(enterers)]

        def is_over() -> bool:
            return all(one.done() for one in entering)

        telling_ = [pool.submit(_tell, opened(url), crowd, is_over) for _ in range(tellers)]
        ending = pool.submit(_end_silences, opened(url), crowd, turns // 2, is_over)
    for one in (*entering, *telling_, ending):
        one.result()
    late = Crowd(ticks=itertools.count(20 * 3600 * 2), told=crowd.told, tellings=crowd.tellings)
    _tell(db, late, lambda: True)
    _compare(db, crowd)


def _compare(db: Database, crowd: Crowd) -> None:
    found = rows(db, schema.digests)
    members: dict[int, Counter[str]] = defaultdict(Counter)
    for row in rows(db, deliveries):
        if row["digest"] is not None:
            members[row["digest"]][DELIVERY_STATES[row["state"]]] += 1
    assert [row for row in found if row["ended_at"] is None] == []
    assert set(crowd.tellings.values()) == {1}
    for row in found:
        here = members[row["n"]]
        assert set(here) <= {"dropped" if row["drops"] else "merged"}
        assert (row["members"], crowd.told[row["n"]]) == (here.total(), here["merged"])
        assert (row["delivery"] is not None) == (here["merged"] > 0)
    assert max(members[row["n"]].total() for row in found if row["gate"] == "group") == MOST
    alone = [row["state"] for row in rows(db, deliveries) if row["digest"] is None and not row["id"].startswith("d-")]
    assert {DELIVERY_STATES[state] for state in alone} == {"waiting"}
    passed = [row["passed"] for row in found if row["gate"] == "throttle"]
    assert (max(passed), sum(passed)) == (RATE.count, len(alone))
    assert {row["gate"] for row in found if row["members"]} == {"group", "throttle", "mute", "silence"}


@only_postgresql
def test_four_workers_on_postgresql_hold_each_message_once_while_others_tell(
    db: Database, db_url: str, opened: Opener
) -> None:
    _crowd(db, db_url, opened, enterers=4, tellers=2, turns=30)


@only_sqlite
def test_two_workers_on_sqlite_hold_each_message_once_while_another_tells(
    db: Database, db_url: str, opened: Opener
) -> None:
    _crowd(db, db_url, opened, enterers=2, tellers=1, turns=20)
