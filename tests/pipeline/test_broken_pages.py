"""Pages of CI's list that cannot be read, over real HTTP: healthy jobs beside the one that breaks them are told."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from bridge.collect.client import Credentials, TencentCi
from bridge.decide.changes.scan import MOST_BROKEN
from bridge.model import Rate
from bridge.pipeline.poll import Poller
from bridge.pipeline.poll_context import Poll
from bridge.record.database import Database
from bridge.record.polling import problems
from bridge.record.schema import job_problem, transition
from bridge.simulator.ci import DEMO_SECRET_ID, DEMO_SECRET_KEY, CiSimulator
from bridge.simulator.web import Answer, Request
from tests.support.fakes import a_book, watch_of
from tests.support.records import BUCKET, know, rows

BOOK = a_book(announce=True)


@pytest.fixture
def ci() -> Iterator[CiSimulator]:
    with CiSimulator() as simulator:
        yield simulator


@pytest.fixture
def poll(db: Database, ci: CiSimulator) -> Iterator[Callable[[], Poll]]:
    know(db, *BOOK.notifiers.values(), watches=BOOK.watches)
    credentials = Credentials(secret_id=DEMO_SECRET_ID, secret_key=DEMO_SECRET_KEY)
    rate = Rate(count=1_000_000, per=timedelta(seconds=1))
    with TencentCi(credentials=credentials, endpoint=ci.url, rate=rate) as source:
        poller = Poller(db=db, source=source, clock=lambda: datetime.now(UTC), worker="w1")

        def polls() -> Poll:
            found = poller.poll_once(watch_of(BOOK), BOOK)
            assert found is not None
            return found

        yield polls


def told(db: Database) -> set[str]:
    return {row["job_id"] for row in rows(db, transition)}


def breaking(
    ci: CiSimulator, jobs: Collection[str], how: Callable[[bytes], bytes]
) -> Callable[[Request], Answer | None]:
    """Return a fault that spoils every answer which has one of these jobs."""

    def fault(request: Request) -> Answer | None:
        true = ci.honest(request)
        if not any(job.encode() in true.body for job in jobs):
            return true
        return Answer(status=200, body=how(true.body), headers=true.headers)

    return fault


def _cut_off(body: bytes) -> bytes:
    return body[: len(body) * 2 // 3]


def _crossed_tags(body: bytes) -> bytes:
    return body.replace(b"</JobsDetail>", b"</JobsDetial>", 1)


@pytest.mark.parametrize("how", [_cut_off, _crossed_tags])
def test_a_job_that_breaks_every_page_it_is_on_silences_no_other(
    db: Database, ci: CiSimulator, poll: Callable[[], Poll], how: Callable[[bytes], bytes]
) -> None:
    jobs = [ci.create(BUCKET, "Transcode", "p1", created_at=ci.now() - 600 + 3 * n) for n in range(130)]
    ci.fault = breaking(ci, {jobs[64]}, how)
    found = poll()
    assert found.error is None
    assert told(db) == {*jobs} - {jobs[64]}
    after = ci.create(BUCKET, "Transcode", "p1")
    assert poll().error is None
    assert after in told(db)


def test_of_two_in_the_same_second_each_is_asked_for_and_it_is_shown_that_more_may_be_missing(
    db: Database, ci: CiSimulator, poll: Callable[[], Poll]
) -> None:
    same = [ci.create(BUCKET, "Transcode", "p1", created_at=ci.now() - 600) for _ in range(5)]
    bad = {same[1], same[3]}
    ci.fault = breaking(ci, bad, _cut_off)
    assert poll().error is None
    left_out = {row["job_id"] for row in rows(db, job_problem)}
    assert left_out > bad
    assert [job_id for job_id in left_out - bad if not job_id.startswith("?")] == []
    ci.fault = None
    poll()
    assert told(db) >= bad


def test_one_whose_id_never_comes_is_shown_as_left_out(db: Database, ci: CiSimulator, poll: Callable[[], Poll]) -> None:
    jobs = [ci.create(BUCKET, "Transcode", "p1", created_at=ci.now() - 600 + 3 * n) for n in range(5)]
    ci.fault = breaking(ci, {jobs[2]}, lambda body: body[: body.index(b"<JobsDetail>")])
    assert poll().error is None
    assert told(db) == {*jobs} - {jobs[2]}
    with db.read() as tx:
        assert problems.counts(tx)["left_out"] == 1


def test_when_its_page_can_be_read_again_the_job_is_told(
    db: Database, ci: CiSimulator, poll: Callable[[], Poll]
) -> None:
    jobs = [ci.create(BUCKET, "Transcode", "p1", created_at=ci.now() - 30) for _ in range(3)]
    ci.fault = breaking(ci, {jobs[1]}, _cut_off)
    poll()
    assert told(db) == {jobs[0], jobs[2]}
    ci.fault = None
    poll()
    assert told(db) == {*jobs}


def test_of_ten_asked_by_id_the_one_that_breaks_the_answer_silences_no_other(
    db: Database, ci: CiSimulator, poll: Callable[[], Poll]
) -> None:
    jobs = [ci.create(BUCKET, "Transcode", "p1", created_at=ci.now() - 7200) for _ in range(12)]
    poll()
    for job in jobs:
        ci.move(job, "Running")
        ci.hide(job)
    ci.fault = breaking(ci, {jobs[3]}, _cut_off)
    assert poll().error is None
    moved = {row["job_id"] for row in rows(db, transition) if row["state"] == "Running"}
    assert moved == {*jobs} - {jobs[3]}


def test_a_ci_that_answers_nothing_but_broken_pages_is_a_failed_poll_after_a_few_calls(
    ci: CiSimulator, poll: Callable[[], Poll]
) -> None:
    ci.create(BUCKET, "Transcode", "p1")
    ci.fault = lambda request: Answer(status=200, body=_cut_off(ci.honest(request).body))
    found = poll()
    assert found.error is not None
    assert len(ci.requests) <= MOST_BROKEN
