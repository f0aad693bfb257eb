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
from tests.record.test_snapshots import see
from tests.support.records import (
    BUCKET,
    LEASE,
    NOW,
    a_listed_job,
    a_message,
    a_step,
    claim,
    claimed_ids,
    ended,
    execute,
    hours,
    know,
    minutes,
    new_delivery,
    put,
    read,
    row_of,
    rows,
    settle,
    write,
)


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
        with db.read() as tx:
            found = old(tx, after=after, cut=cutoffs)
        if found.keys:
            with db.write() as tx:
                gone += prune(tx, found.keys, cut=cutoffs)
        after = found.after
    return gone


def prune_deliveries(db: Database, now: datetime) -> int:
    return _all(db, pruning.old_deliveries, pruning.prune_deliveries, 0, cut(now))


def prune_jobs(db: Database, now: datetime, **created: datetime) -> int:
    return _all(db, pruning.old_jobs, pruning.prune_jobs, 0, cut(now, **created))


def prune_threads(db: Database, now: datetime) -> int:
    return _all(db, pruning.old_threads, pruning.prune_threads, ("", ""), cut(now))


def _tell(db: Database, outcome: Any, *names: str, now: datetime = NOW) -> None:
    """Tell these to `cms`, each with a message of its own; a refusal is for good."""
    know(db, "cms")
    put(db, *(new_delivery(name) for name in names), now=now)
    settle(db, *(ended(one, outcome) for one in claim(db, now=now)), now=now)


def _left(db: Database) -> tuple[list[str], int, int]:
    return [row["id"] for row in rows(db, deliveries)], len(rows(db, messages)), len(rows(db, attempts))


# --- deliveries ---------------------------------------------------------------------------------------------


def test_what_was_sent_goes_after_its_time_with_its_attempts_and_message(db: Database) -> None:
    _tell(db, Sent(), "old")
    _tell(db, Sent(), "young", now=NOW + minutes(1))
    assert prune_deliveries(db, NOW + days(30)) == 0
    assert prune_deliveries(db, NOW + days(30) + minutes(0.5)) == 1
    assert _left(db) == (["young"], 1, 1)


def test_a_dead_letter_stays_three_times_as_long(db: Database) -> None:
    _tell(db, Rejected("no"), "dead")
    assert prune_deliveries(db, NOW + days(89)) == 0
    assert prune_deliveries(db, NOW + days(91)) == 1
    assert _left(db) == ([], 0, 0)


def test_a_dead_letter_of_89_days_is_sent_again_with_all_that_was_tried(db: Database) -> None:
    _tell(db, Rejected("no"), "dead")
    later = NOW + days(89)
    prune_deliveries(db, later)
    assert write(db, entries.redrive, select(deliveries.c.n), now=later) == ["dead"]
    assert prune_deliveries(db, NOW + days(200)) == 0
    (again,) = claim(db, now=later)
    settle(db, ended(again, Sent()), now=later)
    assert _left(db) == (["dead"], 1, 2)


def test_what_waits_or_is_being_sent_stays_whatever_its_age(db: Database) -> None:
    know(db, "cms")
    put(db, new_delivery("tried"), new_delivery("sending"))
    tried, _sending = claim(db)
    settle(db, ended(tried, RetryLater("busy"), again_at=NOW + hours(1)))
    put(db, new_delivery("waiting"))
    assert prune_deliveries(db, NOW + days(4000)) == 0
    assert _left(db) == (["tried", "sending", "waiting"], 3, 1)


def test_a_message_stays_until_nobody_tells_it(db: Database) -> None:
    know(db, "cms", "ops")
    shared = a_message("shared")
    put(db, new_delivery("sent", message=shared), new_delivery("waits", to="ops", message=shared))
    settle(db, *(ended(one, Sent()) for one in claim(db) if one.id == "sent"))
    assert prune_deliveries(db, NOW + days(31)) == 1
    assert _left(db) == (["waits"], 1, 0)
    execute(db, update(deliveries).values(state=2, lease=None, ended_at=0))
    assert prune_deliveries(db, NOW + days(31)) == 1
    assert _left(db) == ([], 0, 0)


def test_what_was_sent_again_since_it_was_looked_at_stays_with_its_attempts(db: Database) -> None:
    _tell(db, Rejected("no"), "dead")
    later = cut(NOW + days(91))
    found = read(db, pruning.old_deliveries, after=0, cut=later)
    write(db, entries.redrive, select(deliveries.c.n), now=later.now)
    assert write(db, pruning.prune_deliveries, found.keys, cut=later) == 0
    assert _left(db) == (["dead"], 1, 1)


@only_postgresql
def test_what_is_being_sent_again_is_not_waited_for(db: Database) -> None:
    _tell(db, Rejected("no"), "again", "dead")
    again = select(deliveries.c.n).where(deliveries.c.id == "again")
    with db.write() as tx:
        entries.redrive(tx, again, now=NOW + days(91))
        assert prune_deliveries(db, NOW + days(91)) == 1
    assert _left(db) == (["again"], 1, 1)


def test_many_are_walked_through_and_what_is_unfinished_is_stepped_over(db: Database) -> None:
    know(db, "cms")
    put(db, *(new_delivery(f"t{n:04}") for n in range(2 * AT_ONCE + 10)))
    execute(db, update(deliveries).where(deliveries.c.n % 2 == 1).values(state=2, ended_at=0))
    assert prune_deliveries(db, NOW + days(31)) == AT_ONCE + 5
    assert {row["state"] for row in rows(db, deliveries)} == {0}


def test_a_look_ends_where_all_is_too_young(db: Database) -> None:
    _tell(db, Sent(), "old")
    _tell(db, Sent(), "young", now=NOW + days(20))
    with db.read() as tx:
        found = pruning.old_deliveries(tx, after=0, cut=cut(NOW + days(31)))
        assert len(found.keys) == 1
        assert pruning.old_deliveries(tx, after=found.after, cut=cut(NOW + days(31))).after is None


def test_a_row_from_an_hour_when_the_clock_was_wrong_does_not_end_the_walk(db: Database) -> None:
    _tell(db, Sent(), "wrong", now=NOW + days(1000))
    _tell(db, Sent(), "old")
    assert prune_deliveries(db, NOW + days(31)) == 1
    assert _left(db)[0] == ["wrong"]


def test_a_batch_that_is_cut_off_changes_nothing_and_comes_again(db: Database) -> None:
    _tell(db, Sent(), "a", "b")
    late = cut(NOW + days(31))

    class Killed(Exception):
        pass

    def die() -> None:
        found = read(db, pruning.old_deliveries, after=0, cut=late)
        with db.write() as tx:
            assert pruning.prune_deliveries(tx, found.keys, cut=late) == 2
            raise Killed

    with pytest.raises(Killed):
        die()
    assert _left(db) == (["a", "b"], 2, 2)
    assert prune_deliveries(db, late.now) == 2


def test_a_lane_goes_on_in_its_order_when_what_came_before_is_pruned(db: Database) -> None:
    know(db, "cms")
    put(db, new_delivery("first", key="j1"))
    settle(db, *(ended(one, Sent()) for one in claim(db)))
    put(db, new_delivery("second", key="j1"), new_delivery("third", key="j1"))
    assert prune_deliveries(db, NOW + days(31)) == 1
    assert claimed_ids(db) == ["second"]
    assert claimed_ids(db) == []


def test_deliveries_are_claimed_and_settled_once_while_others_are_pruned(db: Database) -> None:
    count = 300
    know(db, "cms")
    put(db, *(new_delivery(f"t{n:03}", key=f"j{n % 50}") for n in range(count)))
    sent: list[str] = []
    done = threading.Event()

    def prune() -> int:
        gone = 0
        while not done.is_set():
            gone += prune_deliveries(db, NOW + days(31))
        return gone + prune_deliveries(db, NOW + days(31))

    pruned: list[int] = []
    pruner = threading.Thread(target=lambda: pruned.append(prune()))
    pruner.start()
    try:
        while found := claim(db, free=16):
            sent += [one.id for one in found]
            assert settle(db, *(ended(one, Sent()) for one in found)) == frozenset()
    finally:
        done.set()
        pruner.join()
    assert sorted(sent) == [f"t{n:03}" for n in range(count)]
    assert (pruned, _left(db)) == ([count], ([], 0, 0))


# --- the rules of deliveries --------------------------------------------------------------------------------


def _by_an_older_version(db: Database, *ids: str, now: datetime = NOW, rule: str | None = "r") -> None:
    put(db, *(new_delivery(id_, message=a_message(f"m-{id_}", rule=rule)) for id_ in ids), now=now)
    execute(db, update(deliveries).where(deliveries.c.id.in_(ids)).values(rule=None))


def _write_rules(db: Database, most: int = RULES_AT_ONCE) -> int:
    """Walk all deliveries that do not say their rule; return how many say it now."""
    after, written = None, 0
    while True:
        found = read(db, pruning.without_rule, after=after, most=most)
        with db.write() as tx:
            written += pruning.write_rules(tx, found.keys)
        after = found.after
        if after is None:
            return written


def _rules(db: Database) -> dict[str, str | None]:
    return {row["id"]: row["rule"] for row in rows(db, deliveries)}


def test_deliveries_of_an_older_version_get_the_rules_of_their_messages(db: Database) -> None:
    _by_an_older_version(db, "d1", "d2")
    _by_an_older_version(db, "told by none", rule=None)
    put(db, new_delivery("new", message=a_message("m", rule="other")))
    assert _write_rules(db) == 3
    assert _rules(db) == {"d1": "r", "d2": "r", "told by none": "", "new": "other"}
    assert _write_rules(db) == 0


def test_the_newest_get_theirs_first(db: Database) -> None:
    for number in (3, 1, 2):
        _by_an_older_version(db, f"{number}a", f"{number}b", now=NOW + minutes(number))
    with db.read() as tx:
        found = pruning.without_rule(tx, after=None, most=3)
        rest = pruning.without_rule(tx, after=found.after, most=4)
    ids = {row["n"]: row["id"] for row in rows(db, deliveries)}
    assert [ids[n] for n in found.keys] == ["3b", "3a", "2b"]
    assert [ids[n] for n in rest.keys] == ["2a", "1b", "1a"]
    assert rest.after is None
    assert _write_rules(db, most=1) == 6


def test_what_an_older_version_writes_meanwhile_is_found_by_the_next_walk(db: Database) -> None:
    _by_an_older_version(db, "d1", "d2")
    first = read(db, pruning.without_rule, after=None, most=1)
    _by_an_older_version(db, "d3", now=NOW + minutes(1))
    with db.read() as tx:
        assert len(pruning.without_rule(tx, after=first.after).keys) == 1
    assert _write_rules(db) == 3


def test_lists_by_rule_ask_deliveries_alone_once_all_say_theirs(db: Database) -> None:
    _by_an_older_version(db, "d1", "d2")
    asked: list[str] = []
    event.listen(db.engine, "before_cursor_execute", lambda *said: asked.append(said[2]))

    def look() -> tuple[list[str], bool]:
        asked.clear()
        found = read(db, lists.find_deliveries, Filter(rule="r")).items
        return [item["id"] for item in found], any("coalesce" in one for one in asked)

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
            found = claim(db, free=16)
            sent += [one.id for one in found]
            assert settle(db, *(ended(one, Sent()) for one in found)) == frozenset()
        writing.result()
    _write_rules(db)
    assert sorted(sent) == ids
    assert {(row["rule"], row["state"]) for row in rows(db, deliveries)} == {("r", 2)}


# --- jobs ---------------------------------------------------------------------------------------------------


def _saw(db: Database, id_: str, *states: str, **facts: Any) -> None:
    for number, state in enumerate(states, 1):
        one = a_listed_job(id_, state, **facts)
        see(db, one)
        write(db, snapshots.add_transitions, [(a_step(one, "new" if number == 1 else RUNNING, number), ())])


def _horizon(db: Database) -> list[tuple[str, datetime]]:
    return [(row["bucket"], at(row["pruned_to"])) for row in rows(db, horizons)]


def test_a_closed_job_goes_after_its_time_with_all_its_transitions(db: Database) -> None:
    _saw(db, "j1", RUNNING, SUCCESS, created_at=NOW - hours(1))
    assert prune_jobs(db, NOW + days(30)) == 0
    assert prune_jobs(db, NOW + days(31)) == 1
    assert (rows(db, jobs), rows(db, transitions)) == ([], [])
    assert _horizon(db) == [(BUCKET, NOW - hours(1))]


def test_an_open_job_stays_with_its_transitions_whatever_its_age(db: Database) -> None:
    _saw(db, "j1", RUNNING, created_at=NOW - days(100))
    assert prune_jobs(db, NOW + days(4000)) == 0
    assert (len(rows(db, jobs)), len(rows(db, transitions)), _horizon(db)) == (1, 1, [])


def test_a_job_that_ended_lately_stays_however_old_it_is(db: Database) -> None:
    _saw(db, "j1", RUNNING, SUCCESS, created_at=NOW - days(100))
    assert prune_jobs(db, NOW + days(29)) == 0


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


def test_the_horizon_moves_in_the_transaction_that_prunes(db: Database) -> None:
    _saw(db, "j1", SUCCESS)

    def die() -> None:
        with db.write() as tx:
            assert pruning.prune_jobs(tx, [row["n"] for row in rows(db, jobs)], cut=cut(NOW + days(31))) == 1
            raise InterruptedError

    with pytest.raises(InterruptedError):
        die()
    assert (len(rows(db, jobs)), len(rows(db, transitions)), _horizon(db)) == (1, 1, [])


def test_a_job_whose_creation_cannot_be_does_not_end_the_walk(db: Database) -> None:
    _saw(db, "odd", SUCCESS, created_at=NOW + days(4000))
    _saw(db, "j1", SUCCESS)
    assert prune_jobs(db, NOW + days(31)) == 1
    assert [row["id"] for row in rows(db, jobs)] == ["odd"]


# --- threads ------------------------------------------------------------------------------------------------

SHOWN = f"{BUCKET}/j1"


def _thread(db: Database, name: str = SHOWN, *, now: datetime = NOW, receipt: str | None = "C1 1.0") -> None:
    """Tell something in a thread."""
    know(db, "ops")
    put(db, new_delivery(f"d{(now - NOW).days}-{name[-5:]}", to="ops", key=name, thread=name), now=now)
    settle(db, *(ended(one, Sent(receipt)) for one in claim(db, now=now)), now=now)


def test_a_thread_goes_when_nobody_has_used_it_for_as_long_as_dead_letters_are_kept(db: Database) -> None:
    _thread(db)
    assert prune_threads(db, NOW + days(89)) == 0
    assert prune_threads(db, NOW + days(91)) == 1
    assert rows(db, threads) == []


def test_a_message_under_the_first_one_of_a_thread_uses_it(db: Database) -> None:
    _thread(db)
    _thread(db, now=NOW + days(80), receipt=None)
    assert prune_threads(db, NOW + days(91)) == 0
    assert row_of(db, threads, thread=SHOWN)["receipt"] == "C1 1.0"
    assert prune_threads(db, NOW + days(171)) == 1


@pytest.mark.parametrize("name", ["j1", "run1"])
def test_the_thread_of_an_unfinished_job_or_its_workflow_run_stays(db: Database, name: str) -> None:
    _saw(db, "j1", RUNNING, workflow_run="run1")
    _thread(db, f"{BUCKET}/{name}")
    _thread(db, f"{BUCKET}/other")
    assert prune_threads(db, NOW + days(1000)) == 1
    assert [row["thread"] for row in rows(db, threads)] == [f"{BUCKET}/{name}"]


def test_a_thread_in_which_something_waits_to_be_told_stays(db: Database) -> None:
    _thread(db)
    put(db, new_delivery("waits", to="ops", key=SHOWN, thread=SHOWN))
    assert prune_threads(db, NOW + days(1000)) == 0


def test_a_thread_of_a_version_that_did_not_say_when_it_was_used_begins_to_age(db: Database) -> None:
    _thread(db)
    execute(db, update(threads).values(used_at=0))
    assert prune_threads(db, NOW) == 0
    assert prune_threads(db, NOW + days(89)) == 0
    assert prune_threads(db, NOW + days(91)) == 1


def test_more_threads_than_one_look_takes_are_walked_through(db: Database) -> None:
    with db.write() as tx:
        old = [{"notifier": f"n{n % 3}", "thread": f"t{n}", "receipt": "r", "used_at": n % 2 + 1} for n in range(500)]
        tx.execute(threads.insert(), old)
        tx.execute(update(threads).where(threads.c.used_at == 2).values(used_at=int(NOW.timestamp() * 1000)))
    assert prune_threads(db, NOW + days(1)) == 250
    assert len(rows(db, threads)) == 250


# --- one at a time ------------------------------------------------------------------------------------------


def test_one_worker_prunes_at_a_time(db: Database) -> None:
    with db.write() as tx:
        assert pruning.acquire(tx, "w1", now=NOW)
        assert not pruning.acquire(tx, "w2", now=NOW)
        assert pruning.acquire(tx, "w2", now=NOW + 4 * LEASE)
