from __future__ import annotations

import pytest
from sqlalchemy import event

from bridge.decide.changes.diff import gone_transitions
from bridge.model import FAILED, GONE, RUNNING, SUBMITTED, SUCCESS
from bridge.record.codec import dump_job, load_job
from bridge.record.database import Database, ms
from bridge.record.polling import snapshots
from bridge.record.queries import lists
from bridge.record.queries.lists import Filter
from bridge.record.schema import jobs, transitions
from tests.support.nouns import BUCKET, NOW, a_listed_job, a_step, hours, minutes
from tests.support.records import read, row_of, rows, see


def _unfinished(db: Database, *streams: str) -> list[tuple[str, str]]:
    return [(job.job_id, job.stream) for job in read(db, snapshots.unfinished, streams)]


def test_a_job_comes_back_as_it_was_stored(db: Database) -> None:
    job = a_listed_job(
        queue="p1", state=FAILED, code="E", message='a "text" 转码', progress=0, started_at=NOW,
        ended_at=NOW + hours(1), outputs=("a", "b"), outputs_total=7, user_data="k=v",
    )  # fmt: skip
    see(db, job)
    found = read(db, snapshots.known, BUCKET, ["j1", "j2"])
    assert [one for _, one in snapshots.jobs_of(found)] == [job]
    assert (found["j1"].seen.state, found["j1"].seen.sequence) == (FAILED, 3)  # it was Submitted and Running


def test_a_job_text_of_a_newer_version_is_read_without_what_is_unknown() -> None:
    assert load_job(dump_job(a_listed_job())[:-1] + ',"later":1}') == a_listed_job()


def test_a_new_job_is_open_until_it_is_done(db: Database) -> None:
    see(db, a_listed_job(created_at=None))
    row = row_of(db, jobs, id="j1")
    assert (row["open"], row["sequence"], row["created_at"]) == (True, 1, ms(NOW))  # since when it is seen
    see(db, a_listed_job(state=SUCCESS))
    row = row_of(db, jobs, id="j1")
    assert (row["open"], row["sequence"]) == (False, 2)


@pytest.mark.parametrize("state", [RUNNING, SUCCESS])
def test_a_job_whose_queue_changes_is_found_under_the_new_one(db: Database, state: str) -> None:
    def found(queue: str) -> list[str]:
        with db.read() as tx:
            return [one["id"] for one in lists.find_jobs(tx, Filter(queue=queue)).items]

    see(db, a_listed_job(state=RUNNING, queue="p1"), a_listed_job("j2", state=RUNNING, queue="p1"))
    see(db, a_listed_job(state=state, queue="p2"))
    assert (found("p1"), found("p2")) == (["j2"], ["j1"])
    see(db, a_listed_job(state=state, queue=None))  # CI does not say: it is where it was
    assert found("p2") == ["j1"]
    (whole,) = read(db, lists.job_details, "j1")
    assert whole["queue"] == "p2"


def test_what_changes_without_a_transition_is_stored_too(db: Database) -> None:
    see(db, a_listed_job(state=RUNNING, progress=10))
    see(db, a_listed_job(state=RUNNING, progress=80))
    known = read(db, snapshots.known, BUCKET, ["j1"])["j1"]
    assert (load_job(known.detail).progress, known.seen.sequence) == (80, 2)  # it was Submitted


def test_what_has_not_changed_is_not_written(db: Database) -> None:
    see(db, a_listed_job(), a_listed_job("j2"))
    written = []
    event.listen(
        db.engine, "before_cursor_execute", lambda _c, _k, said, values, _x, _m: written.append((said, values))
    )
    see(db, a_listed_job(), a_listed_job("j2", state=RUNNING), now=NOW + hours(1))
    assert not any("INSERT" in said for said, _ in written)
    assert [row["changed_at"] for row in rows(db, jobs)] == [ms(NOW), ms(NOW + hours(1))]


def test_a_stale_answer_changes_nothing_of_a_closed_job(db: Database) -> None:
    see(db, a_listed_job(state=SUCCESS, progress=100))
    before = rows(db, jobs)
    see(db, a_listed_job(state=RUNNING, progress=40), now=NOW + hours(1))
    assert rows(db, jobs) == before


@pytest.mark.parametrize(("watched", "owner"), [(("a", "b"), "a"), (("b",), "b")])
def test_a_job_stays_with_its_stream_while_that_is_watched(db: Database, watched: tuple[str, ...], owner: str) -> None:
    see(db, a_listed_job(), stream="a", streams=("a", "b"))
    see(db, a_listed_job(), stream="b", streams=watched)
    assert _unfinished(db, "a", "b") == [("j1", owner)]


def test_the_same_id_in_two_buckets_is_two_jobs(db: Database) -> None:
    see(db, a_listed_job())
    other = a_listed_job(bucket="other-1250000000", state=SUCCESS)
    with db.write() as tx:
        assert snapshots.known(tx, other.bucket, ["j1"]) == {}
        snapshots.save(tx, [other], [a_step(other)], {}, stream="o", streams=["o"], now=NOW)
    assert [row["state"] for row in rows(db, jobs)] == [SUBMITTED, SUCCESS]


def test_open_jobs_are_listed_oldest_first(db: Database) -> None:
    see(db, a_listed_job("new"), a_listed_job("old", created_at=NOW - hours(2)), a_listed_job("done", SUCCESS))
    assert _unfinished(db, "s") == [("old", "s"), ("new", "s")]
    assert _unfinished(db, "another") == []
    assert [job.created_at for job in read(db, snapshots.unfinished, ["s"])] == [NOW - hours(2), NOW]


def test_creation_times_are_the_newest_ones_in_ascending_order(db: Database) -> None:
    see(db, *[a_listed_job(f"j{n}", created_at=NOW - minutes(n)) for n in range(5)])
    since = NOW - minutes(3)
    assert read(db, snapshots.created_since, "s", since) == [NOW - minutes(n) for n in (3, 2, 1, 0)]
    assert read(db, snapshots.created_since, "s", since, most=2) == [NOW - minutes(1), NOW]
    assert read(db, snapshots.count_since, "s", since) == 4


def test_a_mark_is_remembered_per_stream(db: Database) -> None:
    with db.write() as tx:
        snapshots.meet(tx, "a", NOW)
        snapshots.meet(tx, "b", NOW)
        snapshots.meet(tx, "b", NOW + hours(2))  # it is met already
        snapshots.set_mark(tx, "a", NOW)
        snapshots.set_mark(tx, "a", NOW + hours(1))
    found = read(db, snapshots.listed, ["a", "b", "c"])
    assert found == {"a": snapshots.Listed(NOW, NOW + hours(1)), "b": snapshots.Listed(NOW, None)}


def test_a_job_that_is_gone_keeps_what_was_last_seen_of_it(db: Database) -> None:
    see(db, a_listed_job(state=RUNNING, progress=40))
    with db.write() as tx:
        before = snapshots.known(tx, BUCKET, ["j1"])
        snapshots.close(tx, gone_transitions(snapshots.jobs_of(before), watch="vod", now=NOW), before, now=NOW)
    row = row_of(db, jobs, id="j1")
    assert (row["state"], row["open"], row["sequence"]) == (GONE, False, 3)  # it was Submitted and Running
    assert load_job(row["detail"]).progress == 40


def test_transitions_come_back_with_the_job_as_it_was_then(db: Database) -> None:
    first = a_step(a_listed_job(), silent="first snapshot")
    second = a_step(a_listed_job(state=FAILED, code="E"), was=SUBMITTED, sequence=2)
    with db.write() as tx:
        snapshots.add_transitions(tx, [(second, [("failed", ["cms", "ops"])]), (first, [])])
        assert [one.transition for one in snapshots.transitions_of(tx, "j1")] == [first, second]
    assert [row["verdicts"] for row in rows(db, transitions)] == ['[["failed",["cms","ops"]]]', "[]"]
