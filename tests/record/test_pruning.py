from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, select, update

from bridge.model import RUNNING, SUCCESS, Rejected, RetryLater, Sent
from bridge.record import pruning
from bridge.record.database import Database, at
from bridge.record.outbox import entries
from bridge.record.polling import snapshots
from bridge.record.pruning import AT_ONCE, RULES_AT_ONCE, Cutoffs
from bridge.record.queries import lists
from bridge.record.queries.lists import Filter
from bridge.record.schema import attempts, deliveries, horizons, jobs, messages, threads, transitions
from tests.conftest import only_postgresql
from tests.support.nouns import BUCKET, LEASE, NOW, a_listed_job, a_message, a_step, hours, minutes, new_delivery
from tests.support.records import claim, ended, execute, know, put, read, row_of, rows, see, settle, write


def days(count: float) -> timedelta:
    return timedelta(days=count)


def cut(now: datetime, **created: datetime) -> Cutoffs:
    """What is pruned by the defaults."""
    bounds = {BUCKET: created["created"]} if created else {}
    return Cutoffs(now=now, ended=now - days(30), dead=now - days(90), created=bounds)


def _all(db: Database, old: Callable[..., Any], prune: Callable[..., int], first: Any, cutoffs: Cutoffs) -> int:
    """Walk a table to its end; return how many went."""
    after, gone = first, 0
    while after is not None:
        found = read(db, old, after=after, cut=cutoffs)
        gone += write(db, prune, found.keys, cut=cutoffs) if found.keys else 0
        after = found.after
    return gone


def prune_deliveries(db: Database, now: datetime) -> int:
    return _all(db, pruning.old_deliveries, pruning.prune_deliveries, 0, cut(now))


def prune_jobs(db: Database, now: datetime, **created: datetime) -> int:
    return _all(db, pruning.old_jobs, pruning.prune_jobs, 0, cut(now, **created))


def prune_threads(db: Database, now: datetime) -> int:
    return _all(db, pruning.old_threads, pruning.prune_threads, ("", ""), cut(now))


def _send(db: Database, outcome: Any, *names: str, now: datetime = NOW) -> None:
    """Send these to `cms`, each with a message of its own; a refusal is for good."""
    know(db, "cms")
    put(db, *(new_delivery(name) for name in names), now=now)
    settle(db, *(ended(delivery, outcome) for delivery in claim(db, now=now)), now=now)


def _left(db: Database) -> tuple[list[str], int, int]:
    return [row["id"] for row in rows(db, deliveries)], len(rows(db, messages)), len(rows(db, attempts))


# --- deliveries -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("outcome", "kept"), [(Sent(), days(30)), (Rejected("no"), days(90))])
def test_a_delivery_goes_after_its_time_with_its_attempts_and_message(
    db: Database, outcome: Any, kept: timedelta
) -> None:
    _send(db, outcome, "old")
    _send(db, outcome, "young", now=NOW + minutes(1))
    assert prune_deliveries(db, NOW + kept) == 0
    assert prune_deliveries(db, NOW + kept + minutes(0.5)) == 1
    assert _left(db) == (["young"], 1, 1)


def test_what_waits_or_is_being_sent_stays_whatever_its_age(db: Database) -> None:
    know(db, "cms")
    put(db, new_delivery("tried"), new_delivery("sending"))
    tried, _sending = claim(db)
    settle(db, ended(tried, RetryLater("busy"), again_at=NOW + hours(1)))
    put(db, new_delivery("waiting"))
    assert prune_deliveries(db, NOW + days(4000)) == 0
    assert _left(db) == (["tried", "sending", "waiting"], 3, 1)


def test_a_message_stays_while_a_delivery_has_it(db: Database) -> None:
    know(db, "cms", "ops")
    shared = a_message("shared")
    put(db, new_delivery("sent", message=shared), new_delivery("waits", to="ops", message=shared))
    settle(db, *(ended(delivery, Sent()) for delivery in claim(db) if delivery.id == "sent"))
    assert prune_deliveries(db, NOW + days(31)) == 1
    assert _left(db) == (["waits"], 1, 0)
    execute(db, update(deliveries).values(state=2, lease=None, ended_at=0))
    assert prune_deliveries(db, NOW + days(31)) == 1
    assert _left(db) == ([], 0, 0)


def test_what_was_resent_since_it_was_read_stays_with_its_attempts(db: Database) -> None:
    _send(db, Rejected("no"), "dead")
    later = cut(NOW + days(91))
    found = read(db, pruning.old_deliveries, after=0, cut=later)
    write(db, entries.redrive, select(deliveries.c.n), now=later.now)
    assert write(db, pruning.prune_deliveries, found.keys, cut=later) == 0
    assert _left(db) == (["dead"], 1, 1)


def test_what_was_discarded_is_kept_as_long_as_the_dead(db: Database) -> None:
    _send(db, Rejected("no"), "gone")
    assert write(db, entries.discard, select(deliveries.c.n), "not needed", now=NOW + days(1)) == ["gone"]
    assert prune_deliveries(db, NOW + days(90)) == 0
    assert prune_deliveries(db, NOW + days(92)) == 1
    assert _left(db) == ([], 0, 0)


@only_postgresql
def test_what_is_being_resent_is_not_waited_for(db: Database) -> None:
    _send(db, Rejected("no"), "again", "dead")
    with db.write() as tx:
        entries.redrive(tx, select(deliveries.c.n).where(deliveries.c.id == "again"), now=NOW + days(91))
        assert prune_deliveries(db, NOW + days(91)) == 1
    assert _left(db) == (["again"], 1, 1)


def test_many_are_walked_through_and_what_is_unfinished_is_stepped_over(db: Database) -> None:
    know(db, "cms")
    put(db, *(new_delivery(f"t{n:04}") for n in range(2 * AT_ONCE + 10)))
    execute(db, update(deliveries).where(deliveries.c.n % 2 == 1).values(state=2, ended_at=0))
    assert prune_deliveries(db, NOW + days(31)) == AT_ONCE + 5
    assert {row["state"] for row in rows(db, deliveries)} == {0}


def test_a_walk_ends_where_all_is_too_young_but_not_at_a_row_from_when_the_clock_was_wrong(db: Database) -> None:
    _send(db, Sent(), "wrong", now=NOW + days(1000))
    _send(db, Sent(), "old")
    _send(db, Sent(), "young", now=NOW + days(20))
    now = NOW + days(31)
    found = read(db, pruning.old_deliveries, after=0, cut=cut(now))
    assert len(found.keys) == 1
    assert read(db, pruning.old_deliveries, after=found.after, cut=cut(now)).after is None
    assert prune_deliveries(db, now) == 1
    assert _left(db)[0] == ["wrong", "young"]


def test_deliveries_are_claimed_and_settled_once_in_order_while_others_are_pruned(db: Database) -> None:
    count, last = 300, [0] * 50
    know(db, "cms")
    put(db, *(new_delivery(f"t{n:03}", key=f"j{n % 50}") for n in range(count)))
    sent: list[str] = []
    done = threading.Event()

    def prune() -> int:
        gone = 0
        while not done.is_set():
            gone += prune_deliveries(db, NOW + days(31))
        return gone + prune_deliveries(db, NOW + days(31))

    with ThreadPoolExecutor(1) as pool:
        pruned = pool.submit(prune)
        try:
            while claimed := claim(db, free=16):
                for delivery in claimed:
                    number = int(delivery.id[1:])
                    assert last[number % 50] <= number
                    last[number % 50] = number
                sent += [delivery.id for delivery in claimed]
                assert settle(db, *(ended(delivery, Sent()) for delivery in claimed)) == frozenset()
        finally:
            done.set()
    assert sorted(sent) == [f"t{n:03}" for n in range(count)]
    assert (pruned.result(), _left(db)) == (count, ([], 0, 0))


# --- the rules of deliveries ----------------------------------------------------------------------------------------


def _by_an_older_version(db: Database, *ids: str, now: datetime = NOW, rule: str | None = "r") -> None:
    put(db, *(new_delivery(id_, message=a_message(f"m-{id_}", rule=rule)) for id_ in ids), now=now)
    execute(db, update(deliveries).where(deliveries.c.id.in_(ids)).values(rule=None))


def _write_rules(db: Database, most: int = RULES_AT_ONCE) -> int:
    """Walk all deliveries whose rule is not stored; return of how many it is now."""
    after, written = None, 0
    while True:
        found = read(db, pruning.without_rule, after=after, most=most)
        written += write(db, pruning.write_rules, found.keys)
        after = found.after
        if after is None:
            return written


def _rules(db: Database) -> dict[str, str | None]:
    return {row["id"]: row["rule"] for row in rows(db, deliveries)}


def test_deliveries_of_an_older_version_get_the_rules_of_their_messages(db: Database) -> None:
    _by_an_older_version(db, "d1", "d2")
    _by_an_older_version(db, "of no rule", rule=None)
    put(db, new_delivery("new", message=a_message("m", rule="other")))
    assert _write_rules(db) == 3
    assert _rules(db) == {"d1": "r", "d2": "r", "of no rule": "", "new": "other"}
    assert _write_rules(db) == 0


def test_the_newest_get_theirs_first_and_what_comes_meanwhile_in_the_next_walk(db: Database) -> None:
    for number in (3, 1, 2):
        _by_an_older_version(db, f"{number}a", f"{number}b", now=NOW + minutes(number))
    first = read(db, pruning.without_rule, after=None, most=3)
    _by_an_older_version(db, "new", now=NOW + minutes(4))
    rest = read(db, pruning.without_rule, after=first.after, most=4)
    ids = {row["n"]: row["id"] for row in rows(db, deliveries)}
    assert [ids[n] for n in first.keys] == ["3b", "3a", "2b"]
    assert [ids[n] for n in rest.keys] == ["2a", "1b", "1a"]
    assert rest.after is None
    assert _write_rules(db, most=1) == 7


def test_lists_by_rule_ask_deliveries_alone_once_all_have_theirs(db: Database) -> None:
    _by_an_older_version(db, "d1", "d2")
    statements: list[str] = []
    event.listen(db.engine, "before_cursor_execute", lambda *seen: statements.append(seen[2]))

    def look() -> tuple[list[str], bool]:
        statements.clear()
        found = read(db, lists.find_deliveries, Filter(rule="r")).items
        return [item["id"] for item in found], any("coalesce" in statement for statement in statements)

    assert look() == (["d2", "d1"], True)
    _write_rules(db)
    assert look() == (["d2", "d1"], False)


@only_postgresql
def test_what_another_transaction_has_changed_is_not_waited_for(db: Database) -> None:
    know(db, "cms")
    _by_an_older_version(db, "d1", "d2")
    with db.write() as tx:
        tx.execute(update(deliveries).where(deliveries.c.id == "d1").values(due_at=0))
        assert _write_rules(db) == 1
    assert _rules(db) == {"d1": None, "d2": "r"}
    assert _write_rules(db) == 1


def test_deliveries_are_claimed_and_settled_once_while_their_rules_are_written(db: Database) -> None:
    ids = [f"t{n:03}" for n in range(300)]
    know(db, "cms")
    _by_an_older_version(db, *ids)
    sent: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(lambda: sum(iter(lambda: _write_rules(db, most=20), 0)))
        while len(sent) < len(ids):
            claimed = claim(db, free=16)
            sent += [delivery.id for delivery in claimed]
            assert settle(db, *(ended(delivery, Sent()) for delivery in claimed)) == frozenset()
        writing.result()
    _write_rules(db)
    assert sorted(sent) == ids
    assert {(row["rule"], row["state"]) for row in rows(db, deliveries)} == {("r", 2)}


# --- jobs -----------------------------------------------------------------------------------------------------------


def _saw(db: Database, id_: str, *states: str, **facts: Any) -> None:
    for number, state in enumerate(states, 1):
        job = a_listed_job(id_, state, **facts)
        see(db, job)
        write(db, snapshots.add_transitions, [(a_step(job, "new" if number == 1 else RUNNING, number), ())])


def _horizon(db: Database) -> list[tuple[str, datetime]]:
    return [(row["bucket"], at(row["pruned_to"])) for row in rows(db, horizons)]


def test_a_closed_job_goes_after_its_time_with_all_its_transitions(db: Database) -> None:
    _saw(db, "j1", RUNNING, SUCCESS, created_at=NOW - days(100))  # however long ago it was created
    assert prune_jobs(db, NOW + days(30)) == 0
    assert prune_jobs(db, NOW + days(31)) == 1
    assert (rows(db, jobs), rows(db, transitions)) == ([], [])
    assert _horizon(db) == [(BUCKET, NOW - days(100))]


def test_an_open_job_stays_with_its_transitions_whatever_its_age(db: Database) -> None:
    _saw(db, "j1", RUNNING, created_at=NOW - days(100))
    assert prune_jobs(db, NOW + days(4000)) == 0
    assert (len(rows(db, jobs)), len(rows(db, transitions)), _horizon(db)) == (1, 1, [])


def test_a_job_that_a_list_may_show_again_stays(db: Database) -> None:
    _saw(db, "j1", SUCCESS)
    assert prune_jobs(db, NOW + days(31), created=NOW) == 0
    assert prune_jobs(db, NOW + days(31), created=NOW + minutes(1)) == 1


def test_the_jobs_of_another_bucket_keep_their_transitions_though_the_id_is_the_same(db: Database) -> None:
    _saw(db, "j1", SUCCESS)
    other = a_listed_job("j1", RUNNING, bucket="other-1250000000")
    with db.write() as tx:
        snapshots.save(tx, [other], [a_step(other)], {}, stream="s", streams=(), now=NOW)
        snapshots.add_transitions(tx, [(a_step(other), ())])
    assert prune_jobs(db, NOW + days(31)) == 1
    assert [row["bucket"] for row in rows(db, transitions)] == ["other-1250000000"]


def test_the_horizon_never_moves_back(db: Database) -> None:
    _saw(db, "newer", SUCCESS, created_at=NOW - hours(1))
    prune_jobs(db, NOW + days(31))
    _saw(db, "older", SUCCESS, created_at=NOW - hours(9))
    assert prune_jobs(db, NOW + days(31)) == 1
    assert _horizon(db) == [(BUCKET, NOW - hours(1))]


def test_a_transaction_that_is_cut_off_prunes_nothing_and_leaves_the_horizon(db: Database) -> None:
    _saw(db, "j1", SUCCESS)
    _send(db, Sent(), "d1")
    late = cut(NOW + days(31))

    def die() -> None:
        with db.write() as tx:
            assert pruning.prune_jobs(tx, [row["n"] for row in rows(db, jobs)], cut=late) == 1
            assert pruning.prune_deliveries(tx, [row["n"] for row in rows(db, deliveries)], cut=late) == 1
            raise InterruptedError

    with pytest.raises(InterruptedError):
        die()
    assert (len(rows(db, jobs)), len(rows(db, transitions)), _horizon(db)) == (1, 1, [])
    assert _left(db) == (["d1"], 1, 1)


def test_a_job_whose_creation_cannot_be_does_not_end_the_walk(db: Database) -> None:
    _saw(db, "odd", SUCCESS, created_at=NOW + days(4000))
    _saw(db, "j1", SUCCESS)
    assert prune_jobs(db, NOW + days(31)) == 1
    assert [row["id"] for row in rows(db, jobs)] == ["odd"]


# --- threads --------------------------------------------------------------------------------------------------------

SHOWN = f"{BUCKET}/j1"


def _thread(db: Database, name: str = SHOWN, *, now: datetime = NOW, receipt: str | None = "C1 1.0") -> None:
    """Send something in a thread."""
    know(db, "ops")
    put(db, new_delivery(f"d{(now - NOW).days}-{name[-5:]}", to="ops", key=name, thread=name), now=now)
    settle(db, *(ended(delivery, Sent(receipt)) for delivery in claim(db, now=now)), now=now)


def test_a_thread_goes_when_it_was_not_used_for_as_long_as_dead_letters_are_kept(db: Database) -> None:
    _thread(db)
    assert prune_threads(db, NOW + days(89)) == 0
    _thread(db, now=NOW + days(80), receipt=None)  # a message under the first one uses it
    assert prune_threads(db, NOW + days(91)) == 0
    assert row_of(db, threads, thread=SHOWN)["receipt"] == "C1 1.0"
    put(db, new_delivery("waits", to="ops", key=SHOWN, thread=SHOWN), now=NOW + days(170))
    assert prune_threads(db, NOW + days(171)) == 0  # as something waits
    settle(db, *(ended(delivery, Rejected("no")) for delivery in claim(db, now=NOW + days(171))))
    assert prune_threads(db, NOW + days(171)) == 1
    assert rows(db, threads) == []


@pytest.mark.parametrize("name", ["j1", "run1"])
def test_the_thread_of_an_unfinished_job_or_its_workflow_run_stays(db: Database, name: str) -> None:
    _saw(db, "j1", RUNNING, workflow_run="run1")
    _thread(db, f"{BUCKET}/{name}")
    _thread(db, f"{BUCKET}/other")
    assert prune_threads(db, NOW + days(1000)) == 1
    assert [row["thread"] for row in rows(db, threads)] == [f"{BUCKET}/{name}"]


def test_a_thread_of_a_version_that_did_not_store_when_it_was_used_begins_to_age(db: Database) -> None:
    _thread(db)
    execute(db, update(threads).values(used_at=0))
    assert prune_threads(db, NOW) == 0
    assert prune_threads(db, NOW + days(89)) == 0
    assert prune_threads(db, NOW + days(91)) == 1


def test_more_threads_than_are_read_at_once_are_walked_through(db: Database) -> None:
    with db.write() as tx:
        old = [{"notifier": f"n{n % 3}", "thread": f"t{n}", "receipt": "r", "used_at": n % 2 + 1} for n in range(500)]
        tx.execute(threads.insert(), old)
        tx.execute(update(threads).where(threads.c.used_at == 2).values(used_at=int(NOW.timestamp() * 1000)))
    assert prune_threads(db, NOW + days(1)) == 250
    assert len(rows(db, threads)) == 250


def test_one_worker_prunes_at_a_time(db: Database) -> None:
    assert write(db, pruning.acquire, "w1", now=NOW)
    assert not write(db, pruning.acquire, "w2", now=NOW)
    assert write(db, pruning.acquire, "w2", now=NOW + 4 * LEASE)
