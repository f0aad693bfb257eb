"""Jobs that cannot be read at first, and what is told of them when they can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import pytest

from bridge.model import RUNNING, SUCCESS, Description, Job, JobProblem, Page, Place, Stream
from bridge.record.database import Database
from tests.support.fakes import FakeCi
from tests.support.records import NOW, Clock, a_listed_job, hours, minutes
from tests.support.simulated_bridge import House

ALL = """
[[rule]]
name = "all"
notify = "ops"
"""


@dataclass
class Odd(FakeCi):
    """A CI some of whose jobs have a state that cannot be read, and some of which are shown by id only."""

    odd: set[str] = field(default_factory=set)
    unlisted: set[str] = field(default_factory=set)

    def list(self, stream: Stream, **asked: Any) -> Page:
        page = super().list(stream, **asked)
        jobs, problems = self._read([job for job in page.jobs if job.id not in self.unlisted])
        return replace(page, jobs=jobs, problems=problems)

    def describe(self, place: Place, ids: Sequence[str]) -> Description:
        found = super().describe(place, ids)
        jobs, problems = self._read(found.jobs)
        return replace(found, jobs=jobs, problems=problems)

    def _read(self, jobs: Sequence[Job]) -> tuple[tuple[Job, ...], tuple[JobProblem, ...]]:
        bad = [JobProblem(job_id=job.id, field="State", value="?", left_out=True) for job in jobs if job.id in self.odd]
        return tuple(job for job in jobs if job.id not in self.odd), tuple(bad)


@pytest.fixture
def odd_ci(clock: Clock) -> Odd:
    return Odd(clock)


@pytest.fixture
def house(db: Database, clock: Clock, odd_ci: Odd) -> House:
    found = House(db, ALL, clock)
    found.ci = odd_ci
    found.start()
    return found


@pytest.mark.parametrize("unlisted", [set(), {"j1"}], ids=["by a list", "by id"])
@pytest.mark.parametrize("created_at", [None, NOW - minutes(2)], ids=["unreadable", "listed late"])
def test_one_that_came_after_the_first_snapshot_is_news_however_it_is_shown_later(
    house: House, odd_ci: Odd, unlisted: set[str], created_at: datetime | None
) -> None:
    house.poll()
    house.clock.advance(minutes(1))
    house.ci.has(a_listed_job("j1", RUNNING, created_at=created_at))
    odd_ci.odd = {"j1"}
    house.poll()
    odd_ci.odd, odd_ci.unlisted = set(), unlisted
    house.clock.advance(minutes(1))
    house.poll()
    house.deliver()
    assert house.said() == ["09:02 ops: Transcode Running: j1"]


@pytest.mark.parametrize("unlisted", [set(), {"old"}], ids=["by a list", "by id"])
@pytest.mark.parametrize("created_at", [None, NOW - hours(10)], ids=["unreadable", "hours ago"])
def test_one_of_a_first_snapshot_is_old_news_however_it_is_shown_later(
    house: House, odd_ci: Odd, unlisted: set[str], created_at: datetime | None
) -> None:
    house.ci.has(*(a_listed_job(f"open {n}", RUNNING, created_at=NOW - hours(12)) for n in range(30)))
    house.ci.has(a_listed_job("old", SUCCESS, created_at=created_at))
    odd_ci.odd = {"old"}
    house.poll()
    odd_ci.odd, odd_ci.unlisted = set(), unlisted
    house.clock.advance(minutes(5))
    assert house.poll().transitions == 1
    house.deliver()
    assert house.said() == []
