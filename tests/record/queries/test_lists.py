from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event, update

from bridge.model import FAILED, RUNNING, SUCCESS, Rejected, RetryLater, Sent
from bridge.notifiers import Notifier
from bridge.record.codec import iso
from bridge.record.database import Database, ms
from bridge.record.outbox import entries
from bridge.record.polling import leases, snapshots
from bridge.record.queries import gauges, lists
from bridge.record.queries.lists import Filter
from bridge.record.schema import deliveries
from tests.conftest import only_sqlite
from tests.support.nouns import (
    BUCKET,
    NOW,
    a_listed_job,
    a_message,
    a_step,
    a_watch,
    hours,
    minutes,
    new_delivery,
    seconds,
)
from tests.support.records import claim, ended, execute, know, put, read, settle, write


def _store(db: Database, *steps) -> None:
    with db.write() as tx:
        for step in steps:
            before = snapshots.known(tx, step.job.bucket, [step.job.id])
            snapshots.save(tx, [step.job], [step], before, stream="s", streams=["s"], now=step.seen_at)
        snapshots.add_transitions(tx, [(step, [("rule", ["cms"])]) for step in steps])


def _ids(db: Database, what, **facts) -> list[str]:
    with db.read() as tx:
        found = what(tx, Filter(**facts))
    return [item["job"] if what is lists.find_transitions else item["id"] for item in found.items]


@pytest.fixture
def jobs(db: Database) -> None:
    _store(
        db,
        a_step(a_listed_job("j1", SUCCESS, queue="q1", created_at=NOW - hours(2), ended_at=NOW)),
        a_step(a_listed_job("j2", RUNNING, queue="q2", created_at=NOW - hours(1))),
        a_step(a_listed_job("j3", FAILED, tag="Snapshot", created_at=NOW), seen_at=NOW + hours(1)),
    )


@pytest.mark.usefixtures("jobs")
def test_jobs_and_transitions_are_found_by_what_they_are(db: Database) -> None:
    for which, expected in (
        ({}, ["j3", "j2", "j1"]),
        ({"state": SUCCESS}, ["j1"]),
        ({"tag": "Snapshot"}, ["j3"]),
        ({"queue": "q2"}, ["j2"]),
        ({"job": "j2"}, ["j2"]),
        ({"tag": "Transcode", "state": FAILED}, []),
    ):
        assert _ids(db, lists.find_jobs, **which) == _ids(db, lists.find_transitions, **which) == expected
    assert _ids(db, lists.find_jobs, since=NOW - hours(1)) == ["j3", "j2"]
    assert _ids(db, lists.find_jobs, until=NOW) == ["j2", "j1"]
    assert _ids(db, lists.find_transitions, since=NOW + minutes(1)) == ["j3"]


@pytest.mark.usefixtures("jobs")
def test_a_job_is_shown_with_its_times_its_transitions_and_its_deliveries(db: Database) -> None:
    message = a_message("m", bucket=BUCKET, job_id="j1", sequence=1, state=SUCCESS, rule="rule")
    put(db, new_delivery("d1", message=message))
    with db.read() as tx:
        (found,) = lists.job_details(tx, "j1")
        assert lists.job_details(tx, "j9") == []
    assert (found["state"], found["created_at"], found["ended_at"]) == (
        SUCCESS,
        "2026-11-21T07:00:00.000Z",
        "2026-11-21T09:00:00.000Z",
    )
    (step,) = found["transitions"]
    assert (step["from"], step["to"], step["rules"]) == ("new", SUCCESS, [{"rule": "rule", "notifiers": ["cms"]}])
    assert [(one["id"], one["state"], one["tells"]) for one in found["deliveries"]] == [("d1", "waiting", SUCCESS)]


def test_lists_have_one_line_of_a_text_and_details_have_it_whole(db: Database) -> None:
    long = "one\ntwo " * 50_000
    job = a_listed_job(
        "j\n" + "1" * 300, FAILED, message=long, input="in/" + "x" * 900, outputs=("o\n" * 200,), user_data=long
    )
    step = a_step(job, silent=long)
    with db.write() as tx:
        snapshots.save(tx, [job], [step], {}, stream="s", streams=["s"], now=NOW)
        snapshots.add_transitions(tx, [(step, [])])
    with db.read() as tx:
        (listed,) = lists.find_jobs(tx, Filter()).items
        (change,) = lists.find_transitions(tx, Filter()).items
        (whole,) = lists.job_details(tx, job.id)
    line = ("one two " * 25)[:199] + "…"
    assert (listed["message"], listed["user_data"], change["silent"]) == (line, line, line)
    assert listed["input"] == "in/" + "x" * 196 + "…"
    assert listed["outputs"] == ["o " * 99 + "o…"]
    assert (listed["id"], change["job"]) == (job.id, job.id)  # what is asked for by it is asked for in vain otherwise
    assert (whole["message"], whole["input"], whole["outputs"]) == (long, job.input, list(job.outputs))
    assert whole["transitions"][0]["silent"] == long


def test_jobs_of_two_buckets_with_one_id_are_told_apart(db: Database) -> None:
    _store(db, a_step(a_listed_job()), a_step(a_listed_job(bucket="other-1250000000")))
    put(db, new_delivery("d1", message=a_message("m", bucket=BUCKET, job_id="j1")))
    found = read(db, lists.job_details, "j1")
    assert [(len(one["transitions"]), len(one["deliveries"])) for one in found] == [(1, 1), (1, 0)]


def test_pages_meet_whatever_arrives_meanwhile_and_the_last_one_has_no_cursor(db: Database) -> None:
    _store(db, *[a_step(a_listed_job(f"j{n}")) for n in range(4)])
    first = read(db, lists.find_jobs, Filter(), limit=2)
    _store(db, a_step(a_listed_job("new")))
    second = read(db, lists.find_jobs, Filter(), cursor=first.cursor, limit=2)
    assert [item["id"] for page in (first, second) for item in page.items] == ["j3", "j2", "j1", "j0"]
    assert second.cursor is None
    assert len(read(db, lists.find_jobs, Filter(), limit=0).items) == 1  # one at least
    assert len(read(db, lists.find_jobs, Filter(), limit=10**9).items) == 5


@pytest.fixture
def _deliveries(db: Database) -> None:
    know(db, "cms", "ops")
    put(db, new_delivery("sent"), new_delivery("dead", to="ops", message=a_message("m", rule="r", job_id="j1")))
    put(db, new_delivery("later", message=a_message("m2", event={"type": "t"})), now=NOW + hours(1))
    first, second = sorted(claim(db), key=lambda d: d.id, reverse=True)
    settle(db, ended(first, Sent(), status=200), ended(second, Rejected("blocked")))


@pytest.mark.usefixtures("_deliveries")
def test_deliveries_are_found_by_their_status(db: Database) -> None:
    for which, expected in (
        ({}, ["later", "dead", "sent"]),
        ({"state": "dead"}, ["dead"]),
        ({"state": "waiting"}, ["later"]),
        ({"notifier": "cms"}, ["later", "sent"]),
        ({"rule": "r"}, ["dead"]),
        ({"job": "j1"}, ["dead"]),
        ({"since": NOW + minutes(1)}, ["later"]),
        ({"until": NOW + minutes(1), "state": "sent"}, ["sent"]),
        ({"state": "dead", "notifier": "ops"}, ["dead"]),
        ({"state": "sent", "notifier": "ops"}, []),
        ({"rule": "r", "notifier": "cms"}, []),
        ({"job": "j1", "rule": "r", "state": "dead"}, ["dead"]),
    ):
        assert _ids(db, lists.find_deliveries, **which) == expected


@pytest.mark.usefixtures("_deliveries")
def test_what_an_older_version_stored_is_found_and_shown_by_the_rule_of_its_message(db: Database) -> None:
    execute(db, update(deliveries).values(rule=None))
    assert _ids(db, lists.find_deliveries, rule="r") == ["dead"]
    listed = {item["id"]: item["rule"] for item in read(db, lists.find_deliveries, Filter()).items}
    assert listed == {"later": None, "dead": "r", "sent": None}


@only_sqlite
@pytest.mark.parametrize(
    ("which", "index"),
    [
        ({"tag": "Transcode", "state": FAILED}, "job_listed_state"),
        ({"tag": "Snapshot", "state": SUCCESS}, "job_listed_tag"),
        ({"job": "j3", "tag": "Transcode", "state": SUCCESS}, "job_by_id"),
    ],
)
def test_sqlite_finds_jobs_by_the_rarest_of_several_filters(db: Database, which: dict[str, str], index: str) -> None:
    jobs = [a_listed_job(f"j{n}", SUCCESS) for n in range(5)]
    _store(db, *map(a_step, [*jobs, a_listed_job("rare", FAILED), a_listed_job("odd", SUCCESS, tag="Snapshot")]))
    asked: list[tuple[str, Any]] = []
    event.listen(db.engine, "before_cursor_execute", lambda *seen: asked.append((seen[2], seen[3])))
    _ids(db, lists.find_jobs, **which)
    last, values = asked[-1]
    with db.read() as tx:
        plan = [row[3] for row in tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {last}", values)]
    assert index in plan[0]


@pytest.mark.usefixtures("_deliveries")
def test_a_delivery_is_shown_with_its_tries_and_what_it_says(db: Database) -> None:
    write(db, entries.redrive, lists.numbers_of(["dead"]), now=NOW)
    settle(db, ended(claim(db)[0], RetryLater("503"), again_at=NOW + hours(2), status=503, answer="busy"))
    with db.read() as tx:
        found = lists.delivery_details(tx, "dead")
        assert lists.delivery_details(tx, "unknown") is None
    assert found
    assert [(t["number"], t["outcome"], t["why"], t["status"], t["answer"]) for t in found["tries"]] == [
        (1, "refused", "blocked", None, None),
        (2, "later", "503", 503, "busy"),
    ]
    assert (found["state"], found["due_at"], found["ended_at"]) == ("waiting", "2026-11-21T11:00:00.000Z", None)
    assert found["event"] == {"specversion": "1.0", "id": "dead", "type": "ci.job.running"}
    assert found["says"]["title"] == "title of m"


@pytest.mark.usefixtures("_deliveries")
def test_notifiers_are_shown_with_their_counts(db: Database) -> None:
    know(db, Notifier(name="cms", max_in_flight=2))
    write(db, entries.pause, "ops", "410", now=NOW)
    cms, ops = read(db, gauges.read_notifiers)
    assert (cms["waiting"], cms["sending"], cms["dead"], cms["max_in_flight"]) == (1, 0, 0, 2)
    assert cms["oldest_waiting_at"] == "2026-11-21T10:00:00.000Z"
    assert (ops["dead"], ops["paused_at"], ops["paused_why"]) == (1, "2026-11-21T09:00:00.000Z", "410")


def test_watches_and_workers_are_shown(db: Database) -> None:
    know(db, watches=[a_watch()])
    write(db, leases.register, "w1", machine="m", pid=7, now=NOW)
    write(db, leases.polled, "vod", began=NOW, next_poll=NOW, error="no", failures=3, calls=1, jobs=0)
    (watch,), (worker,) = read(db, gauges.read_watches), read(db, gauges.read_workers)
    shown = {name: watch[name] for name in ("name", "polled_at", "ok_at", "error", "failures")}
    assert shown == {"name": "vod", "polled_at": iso(ms(NOW)), "ok_at": None, "error": "no", "failures": 3}
    assert (worker["id"], worker["pid"], worker["started_at"]) == ("w1", 7, iso(ms(NOW)))


def test_what_keeps_a_notifier_waiting_is_known(db: Database) -> None:
    assert read(db, lists.notifier_row, "cms") is None
    know(db, "cms")
    usual = {"paused_at": None, "paused_why": None, "not_before": None, "failures": 0}
    assert read(db, lists.notifier_row, "cms") == usual
    write(db, entries.pause, "cms", "gone", now=NOW)
    write(db, entries.postpone_notifier, "cms", NOW + minutes(5))
    write(db, entries.failed, "cms", 3, threshold=10, run=seconds(0))
    until = iso(ms(NOW + minutes(5)))
    held = {"paused_at": iso(ms(NOW)), "paused_why": "gone", "not_before": until, "failures": 3}
    assert read(db, lists.notifier_row, "cms") == held
