from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from bridge.model import JobProblem
from bridge.record import counters
from bridge.record.database import Database
from bridge.record.polling import problems
from bridge.record.schema import job_problems
from tests.support.nouns import BUCKET, NOW, hours, minutes
from tests.support.records import read, row_of, rows, write

ODD_END = JobProblem(job_id="j1", field="EndTime", value="null")
ODD_STATE = JobProblem(job_id="j2", field="State", value="", left_out=True)
NO_ID = JobProblem(job_id="", field="JobId", value="Snapshot, 2026-11-21", left_out=True)


def record(
    db: Database,
    *found: JobProblem,
    read: Sequence[str] = (),
    asked: Sequence[str] = (),
    now: datetime = NOW,
    stream: str = "s1",
) -> list[JobProblem]:
    return write(db, problems.record, BUCKET, stream, read, found, now=now, asked=asked)


def to_ask(db: Database, *streams: str, now: datetime = NOW) -> list[str]:
    with db.read() as tx:
        return [job_id for job_id, _ in problems.to_ask(tx, streams or ("s1",), now=now)]


def test_a_problem_is_news_once_and_again_when_what_is_wrong_changes(db: Database) -> None:
    assert record(db, ODD_END, ODD_STATE, NO_ID, read=["j1"]) == [ODD_END, ODD_STATE, NO_ID]
    assert record(db, ODD_END, ODD_STATE, NO_ID, read=["j1"], now=NOW + hours(2)) == []
    changed = JobProblem(job_id="j1", field="EndTime", value="soon")
    assert record(db, changed, ODD_END, read=["j1"]) == [changed]
    other = JobProblem(job_id="", field="JobId", value="Transcode", left_out=True)
    assert record(db, NO_ID, other) == [other]


def test_what_is_new_is_counted(db: Database) -> None:
    for _ in range(2):
        record(db, ODD_END, ODD_STATE, read=["j1"])
    with db.read() as tx:
        found = {one.labels: one.count for one in counters.totals(tx, ["job_problem"])}
        assert problems.counts(tx) == {"field": 1, "left_out": 1}
    assert found == {("field", "EndTime"): 1, ("left_out", "State"): 1}


def test_what_was_read_well_since_is_forgotten_and_news_when_it_comes_back(db: Database) -> None:
    record(db, ODD_END, ODD_STATE, read=["j1"])
    record(db, read=["j1", "j2", "j3"])
    assert rows(db, job_problems) == []
    assert record(db, ODD_END, read=["j1"]) == [ODD_END]


def test_a_job_that_an_answer_does_not_show_stays_as_it_is(db: Database) -> None:
    record(db, ODD_END, ODD_STATE, read=["j1"])
    record(db, read=["j3"])
    assert len(rows(db, job_problems)) == 2


def test_a_job_that_is_left_out_later_is_both(db: Database) -> None:
    record(db, ODD_END, read=["j1"])
    record(db, JobProblem(job_id="j1", field="State", value="", left_out=True))
    with db.read() as tx:
        assert [(one["field"], one["left_out"]) for one in problems.of_job(tx, BUCKET, "j1")] == [
            ("EndTime", False),
            ("State", True),
        ]
        assert problems.of_job(tx, "other-1250000000", "j1") == []


def test_a_job_that_is_left_out_is_asked_for_at_once_and_then_less_often(db: Database) -> None:
    record(db, ODD_END, ODD_STATE, NO_ID, read=["j1"])
    assert to_ask(db) == ["j2"]
    assert to_ask(db, "s2") == []
    record(db, ODD_STATE)  # the list shows it again, which is no answer to the question
    assert to_ask(db) == ["j2"]
    later = NOW + hours(4)
    record(db, ODD_STATE, asked=["j2"], now=later)
    assert to_ask(db, now=later + minutes(59)) == []
    assert to_ask(db, now=later + minutes(60)) == ["j2"]  # after a fourth of the time it has been left out
    record(db, asked=["j2"], now=later + minutes(60))  # CI does not know it, or says nothing
    assert to_ask(db, now=later + minutes(61)) == []


def test_a_job_that_is_left_out_for_too_long_is_given_up_once(db: Database) -> None:
    record(db, ODD_STATE)
    for before, found in ((NOW, []), (NOW + minutes(1), ["j2"]), (NOW + minutes(2), [])):
        assert write(db, problems.give_up, ["s1"], before=before) == found
    record(db, ODD_STATE, asked=["j2"], now=NOW + hours(30))
    assert to_ask(db, now=NOW + hours(40)) == []
    assert read(db, problems.no_job, "j2").endswith('its State is ""; CI is no longer asked for it')


def test_why_there_is_no_job_is_told(db: Database) -> None:
    record(db, ODD_STATE)
    with db.read() as tx:
        assert problems.no_job(tx, "j2", BUCKET) == (
            f'job "j2" in bucket {BUCKET} is left out since 2026-11-21 09:00:00 UTC, as it cannot be read: '
            'its State is ""; CI is asked for it by id until it can be read'
        )
        assert problems.no_job(tx, "j2", "other-1") == 'no job "j2" has been seen in bucket other-1'


def test_problems_age_from_when_they_were_seen_last(db: Database) -> None:
    record(db, ODD_END, ODD_STATE, read=["j1"])
    record(db, ODD_END, read=["j1"], now=NOW + hours(3))
    assert write(db, problems.prune, before=NOW + hours(2)) == 1
    assert row_of(db, job_problems)["job_id"] == "j1"


def test_hostile_texts_are_stored_as_a_database_takes_them(db: Database) -> None:
    odd = JobProblem(job_id="j1", field="EndTime", value="\0\ud800 ' \" \\ %s")
    assert record(db, odd, odd, read=["j1"]) == [odd]
    assert record(db, odd, read=["j1"]) == []
