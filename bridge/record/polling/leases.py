"""Who polls what: the leases of buckets, the poll times of watches, and the workers that hold the leases."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, insert, or_, select, update

from bridge.model import Blindness, Calls, ListProgress, Pace, Watch
from bridge.notifiers import Notifier
from bridge.record.codec import dump
from bridge.record.database import at, maybe_at, ms, upsert
from bridge.record.schema import HEAD, leases, notifiers, watches, workers

# A call to CI ends within its own deadline of 30 s, and the lease is renewed for each.
BUCKET_LEASE = timedelta(seconds=90)
_MOST_CALLS = 1_000_000  # of one time: the most that a rate allows
_SILENT_FOR = timedelta(minutes=10)  # a live worker beats every 15 s
_OLDER_SILENT_FOR = timedelta(hours=1)  # one of an older version, which may only be asleep


class LeaseLost(Exception):
    """Another worker polls this bucket now; what this one has seen is not stored."""


@dataclass(frozen=True, slots=True)
class StoredWatch:
    """A watch, as the last poll left it."""

    name: str
    next_poll_at: int
    polled_at: int
    paused: bool
    failures: int
    ok_at: datetime | None
    answered: int  # calls of the last poll
    took: timedelta  # the last poll
    looked_at: int
    is_complete: bool  # the last poll


def sync(tx: Connection, named: Iterable[Watch], typed: Iterable[tuple[Notifier, str]]) -> None:
    """Make rows for the watches, and the notifiers with their types, of rules.toml; what rows remember stays."""
    for watch in named:
        tx.execute(upsert(tx, watches).values(name=watch.name).on_conflict_do_nothing())
        tx.execute(upsert(tx, leases).values(name=watch.place.bucket).on_conflict_do_nothing())
    for notifier, kind in typed:
        rate = notifier.rate
        facts = {
            "type": kind,
            "max_in_flight": notifier.max_in_flight,
            "interval_ms": max(1, round(rate.interval / timedelta(milliseconds=1))) if rate else None,
            "burst": rate.count if rate else 1,
        }
        row = upsert(tx, notifiers).values(name=notifier.name, **facts)
        tx.execute(row.on_conflict_do_update(index_elements=["name"], set_=facts))


# Executed in each transaction of a poll, so built once.
_MINE = update(leases).where(leases.c.name == bindparam("of"))
_HELD = _MINE.where(leases.c.token == bindparam("by"))
_FREE = (leases.c.token.is_(None), leases.c.until < bindparam("now"), leases.c.until > bindparam("latest"))
_TAKEN: dict[str, Any] = {"token": bindparam("by"), "until": bindparam("end")}
_ACQUIRE = _MINE.where(or_(leases.c.token == bindparam("by"), *_FREE)).values(_TAKEN)
_RENEW = _HELD.values(until=bindparam("end"))
_RELEASE = _HELD.values(token=None, until=0)


def acquire(tx: Connection, name: str, token: str, *, now: datetime) -> bool:
    """Take or keep a lease; False if another worker holds it.

    A lease that ends much later than one can is from before the clock was set back, and counts as over; the
    clocks of two machines may differ by up to BUCKET_LEASE.
    """
    times = {"now": ms(now), "latest": ms(now + 2 * BUCKET_LEASE), "end": ms(now + BUCKET_LEASE)}
    return tx.execute(_ACQUIRE, {"of": name, "by": token, **times}).rowcount == 1


def renew(tx: Connection, name: str, token: str, *, now: datetime) -> None:
    """Keep a lease, and lock its row until the transaction ends. Raises LeaseLost."""
    if tx.execute(_RENEW, {"of": name, "by": token, "end": ms(now + BUCKET_LEASE)}).rowcount != 1:
        raise LeaseLost(name)


def holds(tx: Connection, name: str, token: str) -> bool:
    return tx.execute(select(leases.c.name).filter_by(name=name, token=token)).first() is not None


def release(tx: Connection, name: str, token: str) -> None:
    tx.execute(_RELEASE, {"of": name, "by": token})


# --- pace -----------------------------------------------------------------------------------------------------------


def pace_text(tx: Connection, bucket: str) -> str | None:
    """Return how often CI was asked for a bucket of late, as it was stored; see `pace_of`."""
    text: str | None = tx.execute(select(leases.c.starts).filter_by(name=bucket)).scalar()
    return text


def pace_of(text: str | None) -> Pace:
    """Return the stored pace; one that another version stored in another form counts as none."""
    try:
        kept = json.loads(text) if text else {}
        return Pace(
            calls=_calls(kept.get("calls", [])),
            of_watches={str(name): _calls(calls) for name, calls in kept.get("watches", {}).items()},
            slowdown=float(kept.get("slowdown", 1)),
        )
    except (ValueError, TypeError, AttributeError, OverflowError, OSError):
        return Pace()


def _calls(kept: Iterable[tuple[int, int]]) -> Calls:
    return tuple((at(int(time)), min(int(count), _MOST_CALLS)) for time, count in kept)


def text_of(pace: Pace) -> str:
    """Return a pace as it is stored."""
    of_watches = {name: [(ms(time), count) for time, count in calls] for name, calls in pace.of_watches.items()}
    kept = {"calls": [(ms(time), count) for time, count in pace.calls], "watches": of_watches}
    return dump(kept | {"slowdown": round(pace.slowdown, 3)})


def set_pace(tx: Connection, bucket: str, text: str) -> None:
    """Store how often CI was asked for a bucket of late, for the process that takes it next."""
    tx.execute(update(leases).filter_by(name=bucket).values(starts=text))


def waited(tx: Connection, name: str, waited: timedelta) -> None:
    """Store how long the calls of a watch's last complete poll waited for their turn."""
    tx.execute(update(watches).filter_by(name=name).values(waited_ms=waited // timedelta(milliseconds=1)))


_POLLS = select(watches).where(watches.c.name.in_(bindparam("names", expanding=True))).order_by(watches.c.next_poll_at)


def polls(tx: Connection, names: Collection[str]) -> list[StoredWatch]:
    """Return the watches of these names, the one waiting longest first."""
    return [
        StoredWatch(
            row.name,
            row.next_poll_at,
            row.polled_at or 0,
            row.paused,
            row.failures,
            maybe_at(row.ok_at),
            row.calls,
            timedelta(milliseconds=row.took_ms or 0),
            row.looked_at or 0,
            row.ok_at is not None and row.ok_at == row.polled_at,
        )
        for row in tx.execute(_POLLS, {"names": list(names)})
    ]


def polled(
    tx: Connection,
    name: str,
    *,
    began: datetime,
    next_poll: datetime,
    error: str | None,
    behind: Collection[str] = (),
    progress: Collection[ListProgress] = (),
    failures: int,
    calls: int,
    jobs: int,
    clock: tuple[timedelta | None, ...] = (),
    took: timedelta = timedelta(0),
) -> None:
    """Store how a poll ended, and how long it `took`.

    `behind` are the tags whose list goes on in the next one, `progress` is that of the lists that were kept, `failures`
    counts in a row, `clock` is how far CI's was ahead, if CI answered.
    """
    facts: dict[str, object] = {"polled_at": ms(began), "next_poll_at": ms(next_poll), "error": error}
    facts |= {"failures": failures, "calls": calls, "jobs": jobs, "behind": dump(list(behind)) if behind else None}
    if clock:
        facts["clock_ms"] = None if clock[0] is None else clock[0] // timedelta(milliseconds=1)
    if error is None and not behind:
        facts |= {"ok_at": ms(began), "took_ms": took // timedelta(milliseconds=1), "blind": None}
    tx.execute(update(watches).filter_by(name=name).values(facts))
    note_progress(tx, name, progress)


def note_progress(tx: Connection, name: str, progress: Collection[ListProgress]) -> None:
    """Store how far the lists of a watch that go on have come."""
    found = [asdict(one) | {"created_to": one.created_to and ms(one.created_to)} for one in progress]
    tx.execute(update(watches).filter_by(name=name).values(progress=dump(found) if found else None))


def looked(tx: Connection, name: str, now: datetime) -> None:
    """Store that unfinished jobs of a watch were asked for between two polls."""
    tx.execute(update(watches).filter_by(name=name).values(looked_at=ms(now)))


def sight(tx: Connection, name: str) -> tuple[datetime | None, Blindness | None]:
    """Return when the last complete poll of a watch began, and what is known of its blindness since."""
    row = tx.execute(select(watches.c.ok_at, watches.c.blind).filter_by(name=name)).first()
    if row is None or not row.blind:
        return (maybe_at(row.ok_at) if row else None), None
    facts = json.loads(row.blind)
    return maybe_at(row.ok_at), Blindness(since=at(facts["since"]), notified=facts["notified"])


def set_blind(tx: Connection, name: str, blind: Blindness) -> None:
    """Store since when a watch is blind, and who knows; the end of a complete poll is the end of that."""
    facts = dump({"since": ms(blind.since), "notified": blind.notified})
    tx.execute(update(watches).filter_by(name=name).values(blind=facts))


def set_watch(tx: Connection, name: str, *, paused: bool | None = None, poll_now: bool = False) -> bool:
    """Pause, resume or bring forward a watch; False if there is none of this name."""
    facts: dict[str, object] = {} if paused is None else {"paused": paused}
    if poll_now:
        facts["next_poll_at"] = 0
    return tx.execute(update(watches).filter_by(name=name).values(facts)).rowcount == 1


def bring_forward(tx: Connection, name: str, *, now: datetime) -> bool:
    """Let a watch be polled next; False if that is so already, or there is none of this name."""
    waits = (watches.c.name == name, watches.c.next_poll_at > ms(now))
    return tx.execute(update(watches).where(*waits).values(next_poll_at=0)).rowcount == 1


# --- workers --------------------------------------------------------------------------------------------------------


def register(
    tx: Connection, worker: str, *, machine: str, pid: int, now: datetime, rules_sha: str | None = None
) -> None:
    row = {"id": worker, "machine": machine, "pid": pid, "started_at": ms(now), "beat_at": ms(now)}
    tx.execute(insert(workers).values(row | {"revision": HEAD, "rules_sha": rules_sha}))


def beat(
    tx: Connection,
    worker: str,
    *,
    now: datetime,
    rules_sha: str,
    rules_fault: str | None,
    rules_note: str | None = None,
    clock_fault: str | None = None,
) -> bool:
    """Store that a worker is alive; False if its row was deleted, and it has to register again."""
    facts = {"beat_at": ms(now), "rules_sha": rules_sha, "rules_fault": rules_fault, "rules_note": rules_note}
    facts["clock_fault"] = clock_fault
    return tx.execute(update(workers).filter_by(id=worker).values(facts)).rowcount == 1


def any_older(tx: Connection, *, now: datetime) -> bool:
    """Tell whether a worker of an older version may be alive: it does not know what this one may do."""
    return tx.execute(select(workers.c.id).where(_may_be_older(now)).limit(1)).first() is not None


def _may_be_older(now: datetime) -> ColumnElement[bool]:
    return and_(workers.c.revision < HEAD, workers.c.beat_at >= ms(now - _OLDER_SILENT_FOR))


def workers_on(tx: Connection, machine: str) -> list[tuple[str, int]]:
    """Return (worker, pid) of the workers of this machine."""
    return [(row.id, row.pid) for row in tx.execute(select(workers).filter_by(machine=machine))]


def unregister(tx: Connection, worker: str) -> None:
    """Delete a worker that ended, and free the buckets it held."""
    tx.execute(update(leases).filter_by(token=worker).values(token=None, until=0))
    tx.execute(delete(workers).filter_by(id=worker))


def delete_silent_workers(tx: Connection, *, now: datetime) -> None:
    """Delete workers that have been silent for long. One that is alive all the same registers again."""
    tx.execute(delete(workers).where(workers.c.beat_at < ms(now - _SILENT_FOR), ~_may_be_older(now)))
