"""Pages and jobs of CI that cannot be read: they silence no other, and count when they can be read again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bridge.collect.client import TencentCi
from bridge.collect.credentials import Credentials
from bridge.decide.changes.scan import MOST_BROKEN
from bridge.model import RUNNING, SUCCESS, Description, Job, JobProblem, Page, Place, Rate, Stream
from bridge.pipeline.poll import PollResult
from bridge.record.database import Database
from bridge.record.polling import problems
from bridge.record.schema import job_problems
from bridge.simulator.ci import DEMO_SECRET_ID, DEMO_SECRET_KEY, CiSimulator
from bridge.simulator.web import Answer, Request
from tests.support.fakes import FakeCi, notify_all
from tests.support.nouns import BUCKET, NOW, a_listed_job, hours, minutes
from tests.support.records import rows
from tests.support.rig import Rig

# --- pages, over real HTTP ---------------------------------------------------------------------------------


class Broken:
    """A rig that polls a simulated CI, whose answers may be spoiled."""

    def __init__(self, db: Database, ci: CiSimulator, source: TencentCi) -> None:
        self.ci = ci
        self.rig = Rig(db, given=notify_all(announce=True))
        self.rig.poller = self.rig.new_poller(source=source, clock=lambda: datetime.now(UTC))

    def creates(self, how_many: int, ago_s: float, apart_s: float = 0) -> list[str]:
        begun = self.ci.now() - ago_s
        return [self.ci.create(BUCKET, "Transcode", "p1", created_at=begun + apart_s * n) for n in range(how_many)]

    def polls(self) -> PollResult:
        poll = self.rig.poll()
        assert poll.error is None
        return poll

    def seen(self, state: str | None = None) -> set[str]:
        return {job for job, _, to in self.rig.steps() if state in (None, to)}

    def breaks(self, jobs: Collection[str], how: Callable[[bytes], bytes]) -> None:
        """Spoil every answer that has one of these jobs."""

        def fault(request: Request) -> Answer | None:
            true = self.ci.honest(request)
            if not any(job.encode() in true.body for job in jobs):
                return true
            return Answer(status=200, body=how(true.body), headers=true.headers)

        self.ci.fault = fault


@pytest.fixture
def broken(db: Database) -> Iterator[Broken]:
    credentials = Credentials(secret_id=DEMO_SECRET_ID, secret_key=DEMO_SECRET_KEY)
    rate = Rate(count=1_000_000, per=timedelta(seconds=1))
    with CiSimulator() as ci, TencentCi(credentials=credentials, endpoint=ci.url, rate=rate) as source:
        yield Broken(db, ci, source)


def _cut_off(body: bytes) -> bytes:
    return body[: len(body) * 2 // 3]


def _crossed_tags(body: bytes) -> bytes:
    return body.replace(b"</JobsDetail>", b"</JobsDetial>", 1)


@pytest.mark.parametrize("how", [_cut_off, _crossed_tags])
def test_a_job_that_breaks_every_page_it_is_on_silences_no_other(broken: Broken, how: Callable[[bytes], bytes]) -> None:
    jobs = broken.creates(130, 600, 3)
    broken.breaks({jobs[64]}, how)
    broken.polls()
    assert broken.seen() == {*jobs} - {jobs[64]}
    (after,) = broken.creates(1, 0)
    broken.polls()
    assert after in broken.seen()


def test_of_two_in_the_same_second_each_is_asked_for_and_it_is_shown_that_more_may_be_missing(broken: Broken) -> None:
    same = broken.creates(5, 600)
    bad = {same[1], same[3]}
    broken.breaks(bad, _cut_off)
    broken.polls()
    left_out = {row["job_id"] for row in rows(broken.rig.db, job_problems)}
    assert left_out > bad
    assert all(job_id.startswith("?") for job_id in left_out - bad)
    broken.ci.fault = None
    broken.polls()
    assert broken.seen() >= bad


def test_one_whose_id_never_comes_is_shown_as_left_out(broken: Broken) -> None:
    jobs = broken.creates(5, 600, 3)
    broken.breaks({jobs[2]}, lambda body: body[: body.index(b"<JobsDetail>")])
    broken.polls()
    assert broken.seen() == {*jobs} - {jobs[2]}
    with broken.rig.db.read() as tx:
        assert problems.counts(tx)["left_out"] == 1


def test_when_its_page_can_be_read_again_the_job_is_seen(broken: Broken) -> None:
    jobs = broken.creates(3, 30)
    broken.breaks({jobs[1]}, _cut_off)
    broken.polls()
    assert broken.seen() == {jobs[0], jobs[2]}
    broken.ci.fault = None
    broken.polls()
    assert broken.seen() == {*jobs}


def test_of_ten_asked_by_id_the_one_that_breaks_the_answer_silences_no_other(broken: Broken) -> None:
    jobs = broken.creates(12, 7200)
    broken.polls()
    for job in jobs:
        broken.ci.move(job, "Running")
        broken.ci.hide(job)
    broken.breaks({jobs[3]}, _cut_off)
    broken.polls()
    assert broken.seen("Running") == {*jobs} - {jobs[3]}


def test_a_ci_that_answers_nothing_but_broken_pages_is_a_failed_poll_after_a_few_calls(broken: Broken) -> None:
    broken.creates(1, 0)
    broken.ci.fault = lambda request: Answer(status=200, body=_cut_off(broken.ci.honest(request).body))
    assert broken.rig.poll().error is not None
    assert len(broken.ci.requests) <= MOST_BROKEN


# --- jobs --------------------------------------------------------------------------------------------------


@dataclass
class OddCi(FakeCi):
    """A CI some of whose jobs have a state that cannot be read, and some of which are shown by id only."""

    odd: set[str] = field(default_factory=set)
    unlisted: set[str] = field(default_factory=set)

    def list(self, stream: Stream, **asked: Any) -> Page:
        page = super().list(stream, **asked)
        jobs, unread = self._read([job for job in page.jobs if job.id not in self.unlisted])
        return replace(page, jobs=jobs, problems=unread)

    def describe(self, place: Place, ids: Sequence[str]) -> Description:
        found = super().describe(place, ids)
        jobs, unread = self._read(found.jobs)
        return replace(found, jobs=jobs, problems=unread)

    def _read(self, jobs: Sequence[Job]) -> tuple[tuple[Job, ...], tuple[JobProblem, ...]]:
        bad = [JobProblem(job_id=job.id, field="State", value="?", left_out=True) for job in jobs if job.id in self.odd]
        return tuple(job for job in jobs if job.id not in self.odd), tuple(bad)


@pytest.fixture
def rig(db: Database) -> Rig:
    return Rig(db, '[[rule]]\nname = "all"\nnotify = "ops"\n')


@pytest.fixture
def odd(rig: Rig) -> OddCi:
    rig.ci = rig.poller.source = odd = OddCi(rig.clock)
    return odd


@pytest.mark.parametrize("unlisted", [set(), {"j1"}], ids=["by a list", "by id"])
@pytest.mark.parametrize("created_at", [None, NOW - minutes(2)], ids=["unreadable", "listed late"])
def test_one_that_came_after_the_first_snapshot_is_news_however_it_is_shown_later(
    rig: Rig, odd: OddCi, unlisted: set[str], created_at: datetime | None
) -> None:
    rig.first_poll()
    odd.has(a_listed_job("j1", RUNNING, created_at=created_at))
    odd.odd = {"j1"}
    rig.poll()
    odd.odd, odd.unlisted = set(), unlisted
    rig.passes(minutes(1))
    assert rig.lines() == ["09:02 ops: Transcode Running: j1"]


@pytest.mark.parametrize("unlisted", [set(), {"old"}], ids=["by a list", "by id"])
@pytest.mark.parametrize("created_at", [None, NOW - hours(10)], ids=["unreadable", "hours ago"])
def test_one_of_a_first_snapshot_is_old_news_however_it_is_shown_later(
    rig: Rig, odd: OddCi, unlisted: set[str], created_at: datetime | None
) -> None:
    odd.has(*(a_listed_job(f"open {n}", RUNNING, created_at=NOW - hours(12)) for n in range(30)))
    odd.has(a_listed_job("old", SUCCESS, created_at=created_at))
    odd.odd = {"old"}
    rig.poll()
    odd.odd, odd.unlisted = set(), unlisted
    rig.clock.advance(minutes(5))
    assert rig.poll().transitions == 1
    rig.deliver()
    assert rig.lines() == []
