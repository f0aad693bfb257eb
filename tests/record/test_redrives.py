"""Orders to send again: each delivery once for each order, whoever carries it out and whatever ends him."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from bridge.model import Notifier, Rate, Rejected, Sent
from bridge.pipeline.redriving import MOST, TooMany, carry_out, order
from bridge.record import leases, outbox, pruning, redrives
from bridge.record.database import Database, ms
from bridge.record.pruning import Cutoffs
from bridge.record.reading import Filter
from bridge.record.redrives import CATCH_UP, Order
from bridge.record.rewind import rewind
from bridge.record.schema import DEAD, DROPPED, WAITING, delivery, redrive
from tests.conftest import Opener, only_postgresql, only_sqlite
from tests.record.builders import (
    NOW,
    a_message,
    claim,
    ended,
    hours,
    know,
    minutes,
    put,
    row_of,
    rows,
    seconds,
    settle,
    telling,
)

CMS = Filter(state="dead", notifier="cms")


def bury(db: Database, *ids: str, to: str = "cms", state: int = DEAD, **facts: Any) -> None:
    put(db, *(telling(one, to, message=a_message(f"m-{one}", **facts)) for one in ids))
    with db.write() as tx:
        these = update(delivery).where(delivery.c.id.in_(ids))
        tx.execute(these.values(state=state, ended_at=ms(NOW), attempts=3, why="answered 500"))


def give(db: Database, which: Filter = CMS, *, per_minute: int = 600, id_: str = "rdr_1", now: datetime = NOW) -> Order:
    with db.write() as tx:
        return order(tx, which, per_minute=per_minute, author="ann", id_=id_, now=now)


def standing(db: Database, id_: str = "rdr_1") -> Order:
    with db.read() as tx:
        found = redrives.one(tx, id_)
    assert found
    return found


def waiting(db: Database) -> list[str]:
    return [row["id"] for row in rows(db, delivery) if row["state"] == WAITING]


def names(count: int) -> list[str]:
    return [f"d{number:03}" for number in range(count)]


def test_what_is_dead_is_sent_again_under_its_id_and_the_order_ends(db: Database) -> None:
    bury(db, "d1", "d2", "d3")
    put(db, telling("alive"))
    assert (give(db).total, carry_out(db, NOW + seconds(1))) == (3, 3)
    assert waiting(db) == ["d1", "d2", "d3", "alive"]
    again = row_of(db, delivery, id="d1")
    assert (again["attempts"], again["due_at"], again["why"]) == (0, ms(NOW + seconds(1)), "sent again by hand")
    over = standing(db)
    assert (over.done, over.left, over.ended_at, over.ended_by) == (3, 0, NOW + seconds(1), None)
    assert carry_out(db, NOW + hours(1)) == 0


@pytest.mark.parametrize(
    ("which", "found"),
    [
        ({"notifier": "cms"}, ["c1", "c2"]),
        ({"rule": "all"}, ["c1", "o1"]),
        ({"job": "j2"}, ["c2"]),
        ({"notifier": "cms", "rule": "all"}, ["c1"]),
        ({"since": NOW}, ["c1", "c2", "o1"]),
        ({"since": NOW + seconds(1)}, []),
        ({"until": NOW}, []),
        ({"digest": "dlv_none"}, []),
        ({"state": "dropped", "rule": "all"}, ["x1"]),
    ],
)
def test_a_filter_says_which(db: Database, which: dict[str, Any], found: list[str]) -> None:
    bury(db, "c1", rule="all", job_id="j1")
    bury(db, "c2", rule="failed", job_id="j2")
    bury(db, "o1", to="ops", rule="all", job_id="j1")
    bury(db, "x1", state=DROPPED, rule="all")
    wanted = Filter(**{"state": "dead", **which})
    with db.read() as tx:
        assert redrives.count(tx, wanted) == len(found)
    assert give(db, wanted).total == len(found)
    carry_out(db, NOW + minutes(1))
    assert waiting(db) == found
    assert standing(db).ended_at is not None


@only_sqlite
def test_an_order_for_nothing_is_over_at_once(db: Database) -> None:
    made = give(db)
    assert (made.total, made.left, made.ended_at) == (0, 0, NOW)


@only_sqlite
def test_no_more_are_sent_again_than_the_rate_allows(db: Database) -> None:
    bury(db, *names(100))
    give(db, per_minute=60)
    sent = [carry_out(db, NOW + seconds(at)) for at in (0, 0.5, 1, 5, 9, 9.9)]
    assert sent == [1, 0, 1, 4, 4, 0]  # one a second, from the beginning
    assert (standing(db).done, standing(db).left) == (10, 90)


@only_sqlite
def test_a_slow_rate_waits_a_minute_for_each(db: Database) -> None:
    bury(db, "d1", "d2")
    give(db, per_minute=1)
    assert [carry_out(db, NOW + seconds(at)) for at in (1, 30, 60, 61)] == [1, 0, 1, 0]
    assert standing(db).ended_at == NOW + seconds(60)


@only_sqlite
def test_time_in_which_no_worker_looked_is_not_made_up_for(db: Database) -> None:
    bury(db, *names(100))
    give(db, per_minute=60)
    assert carry_out(db, NOW + hours(1)) == 1 + CATCH_UP // seconds(1)


@only_sqlite
def test_what_is_new_does_not_wait_behind_an_order(db: Database) -> None:
    know(db, Notifier(name="cms", rate=Rate(count=1, per=seconds(1))))
    bury(db, *names(200))
    give(db, per_minute=6000)
    for second in range(1, 10):
        carry_out(db, NOW + seconds(second))
    assert len(waiting(db)) == 1 + CATCH_UP // seconds(1)
    put(db, telling("new"), now=NOW + seconds(10))
    told: list[str] = []
    for second in range(10, 30):
        carry_out(db, NOW + seconds(second))
        claimed = claim(db, now=NOW + seconds(second))
        settle(db, *(ended(one, Sent()) for one in claimed), now=NOW + seconds(second))
        told += [one.id for one in claimed]
    assert "new" in told
    assert len(told) == 20  # and nobody idles
    assert standing(db).ended_at is None


@only_sqlite
def test_who_is_told_nothing_now_does_not_keep_the_others_waiting(db: Database) -> None:
    know(db, "cms", "ops", "tv")
    bury(db, *names(50))
    bury(db, "o1", to="ops")
    bury(db, "t1", to="tv")
    with db.write() as tx:
        outbox.pause(tx, "cms", "no such channel", now=NOW)
        outbox.hold(tx, "ops", NOW + hours(1))
    give(db, Filter(state="dead", since=NOW), per_minute=60)
    for second in range(120):
        carry_out(db, NOW + seconds(second))
    assert waiting(db) == [*names(50), "o1", "t1"]
    assert standing(db).ended_at is not None


@only_sqlite
def test_an_order_of_a_newer_version_is_left_to_it_and_the_others_are_carried_out(db: Database) -> None:
    bury(db, "d1")
    give(db, id_="rdr_newer")
    give(db)
    with db.write() as tx:
        newer = update(redrive).where(redrive.c.id == "rdr_newer")
        tx.execute(newer.values(spec='{"state": "dead", "workflow": "w1"}'))
    assert carry_out(db, NOW + seconds(1)) == 1
    assert standing(db).ended_at is not None
    assert standing(db, "rdr_newer").ended_at is None


def test_what_dies_again_is_not_sent_a_second_time(db: Database) -> None:
    know(db, "cms")
    bury(db, "d1", "d2")
    give(db, per_minute=1)
    assert carry_out(db, NOW) == 1
    settle(db, *(ended(one, Rejected("no")) for one in claim(db)), now=NOW)
    assert carry_out(db, NOW + minutes(1)) == 1
    assert waiting(db) == ["d2"]
    assert (standing(db).done, standing(db).left) == (2, 0)


@only_sqlite
def test_what_is_put_after_the_order_and_dies_is_not_its_business(db: Database) -> None:
    bury(db, "d1", "d2")
    give(db, per_minute=1)
    bury(db, "d3")
    for minute in range(5):
        carry_out(db, NOW + minutes(minute))
    assert waiting(db) == ["d1", "d2"]
    assert standing(db).total == 2


def test_what_somebody_else_sent_again_meanwhile_is_not_counted(db: Database) -> None:
    bury(db, "d1", "d2", "d3")
    give(db, per_minute=1)
    carry_out(db, NOW)
    with db.write() as tx:
        outbox.redrive(tx, select(delivery.c.n).where(delivery.c.id == "d2"), now=NOW)
    assert carry_out(db, NOW + minutes(1)) == 1
    over = standing(db)
    assert (over.total, over.done, over.left, over.ended_by) == (3, 2, 0, None)


def test_an_order_that_is_ended_sends_nothing_more(db: Database) -> None:
    bury(db, "d1", "d2", "d3")
    give(db, per_minute=1)
    carry_out(db, NOW)
    with db.write() as tx:
        assert redrives.end(tx, "rdr_1", by="ben", now=NOW)
        assert not redrives.end(tx, "rdr_1", by="eve", now=NOW)
    assert carry_out(db, NOW + hours(1)) == 0
    over = standing(db)
    assert (over.done, over.left, over.ended_by) == (1, 2, "ben")


def test_a_worker_that_dies_in_the_middle_has_changed_nothing(db: Database) -> None:
    bury(db, *names(5))
    give(db)
    (n,) = [row["n"] for row in rows(db, redrive)]
    with db.engine.connect() as tx:  # which is closed without a commit, as SIGKILL would
        assert redrives.carry_on(tx, n, now=NOW + seconds(1)) == 5
    assert waiting(db) == []
    assert standing(db).done == 0
    assert carry_out(db, NOW + seconds(1)) == 5
    assert waiting(db) == names(5)


def test_any_number_of_workers_send_each_again_once(db: Database, db_url: str, opened: Opener) -> None:
    bury(db, *names(300))
    give(db, per_minute=6000)
    give(db, Filter(state="dead", until=NOW + hours(1)), per_minute=6000, id_="rdr_2")
    workers = [opened(db_url) for _ in range(3)]
    moments = [NOW + timedelta(milliseconds=50 * step) for step in range(1, 100)]

    def work(one: Database) -> int:
        return sum(carry_out(one, moment) for moment in moments)

    with ThreadPoolExecutor(len(workers)) as pool:
        sent = list(pool.map(work, workers))
    assert sum(sent) == 300
    assert waiting(db) == names(300)
    done = [standing(db, id_) for id_ in ("rdr_1", "rdr_2")]
    assert sum(one.done for one in done) == 300
    assert all(one.ended_at for one in done)


@only_postgresql
def test_an_order_that_another_worker_is_about_is_left_to_it(db: Database, db_url: str, opened: Opener) -> None:
    bury(db, "d1", "d2")
    give(db)
    (n,) = [row["n"] for row in rows(db, redrive)]
    with db.write() as tx:
        assert redrives.carry_on(tx, n, now=NOW + seconds(1)) == 2
        assert carry_out(opened(db_url), NOW + seconds(1)) == 0
    assert Counter(waiting(db)) == Counter(["d1", "d2"])


@only_sqlite
def test_orders_have_a_bound(db: Database) -> None:
    bury(db, "d1")
    for number in range(MOST):
        give(db, id_=f"rdr_{number}")
    with pytest.raises(TooMany, match="20 orders have not ended"):
        give(db, id_="rdr_one_more")


@only_sqlite
def test_orders_are_listed_in_pages_newest_first(db: Database) -> None:
    for number in range(5):
        give(db, id_=f"rdr_{number}")
    with db.read() as tx:
        first, cursor = redrives.page(tx, limit=3)
        rest, end = redrives.page(tx, cursor=cursor, limit=3)
    assert [one.id for one in (*first, *rest)] == [f"rdr_{number}" for number in (4, 3, 2, 1, 0)]
    assert end is None


@only_sqlite
def test_an_order_that_ended_long_ago_is_pruned(db: Database) -> None:
    bury(db, "d1")
    give(db, Filter(state="dead", notifier="nobody"), id_="rdr_over")
    give(db, id_="rdr_open")
    cut = Cutoffs(now=NOW + hours(2), ended=NOW + hours(1), dead=NOW, created={})
    with db.write() as tx:
        assert pruning.prune_rest(tx, cut=cut) == 1
        assert [one.id for one in redrives.page(tx)[0]] == ["rdr_open"]


@only_sqlite
def test_an_order_goes_on_when_the_clock_was_set_back(db: Database) -> None:
    bury(db, "d1", "d2")
    give(db, per_minute=1)
    assert carry_out(db, NOW) == 1
    with db.write() as tx:
        leases.enlist(tx, "w1", machine="m", pid=1, now=NOW)
    with db.write() as tx:
        assert rewind(tx, now=NOW - hours(1)) == hours(1)
    assert carry_out(db, NOW - hours(1) + seconds(59)) == 0
    assert carry_out(db, NOW - hours(1) + minutes(1)) == 1
