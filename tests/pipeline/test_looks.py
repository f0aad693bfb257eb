"""Early looks at unfinished jobs, halfway between two polls."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.collect.errors import TemporaryError
from bridge.decide.changes.scan import likeliest_to_end
from bridge.model import PAUSE, RUNNING, SUBMITTED, SUCCESS
from bridge.pipeline.looks import Looks
from bridge.record.counters import totals
from bridge.record.database import Database, ms
from bridge.record.polling import leases
from bridge.record.schema import job_problems, transitions
from tests.conftest import on_both
from tests.support.fakes import notify_all
from tests.support.nouns import BUCKET, NOW, a_listed_job, hours, minutes, seconds
from tests.support.records import rows
from tests.support.rig import Rig


class Early(Rig):
    def looks(self) -> list[str]:
        """Make the early looks that are due; return the jobs that were asked for."""
        self.ci.described.clear()
        looks = Looks(poller=self.poller)
        for watch in looks.due(self.book):
            looks.ask(watch, self.book)
        return [job_id for ids in self.ci.described for job_id in ids]


@pytest.fixture
def rig(db: Database) -> Early:
    """Two jobs run; the last poll was five seconds ago, the next one is in five seconds."""
    rig = Early(db, given=notify_all(every="10s"))
    rig.poll()
    rig.clock.advance(seconds(10))
    rig.has("j1", RUNNING, progress=10)
    rig.has("j2", RUNNING, progress=90)
    rig.poll()
    rig.clock.advance(seconds(5))
    return rig


@on_both
def test_halfway_between_two_polls_the_unfinished_jobs_are_asked_for_once(rig: Early) -> None:
    rig.has("j1", SUCCESS)
    assert rig.looks() == ["j2", "j1"]
    assert rig.steps()[-1] == ("j1", RUNNING, SUCCESS)
    rig.deliver()
    assert "Success" in rig.received()[-1].title
    assert rig.looks() == []
    rig.clock.advance(seconds(5))
    assert rig.poll().transitions == 0
    rig.clock.advance(seconds(5))
    assert rig.looks() == ["j2"]


def test_a_look_counts_as_a_call_of_its_watch(rig: Early) -> None:
    before = rig.ci.calls()
    assert rig.looks() == ["j2", "j1"]
    with rig.db.read() as tx:
        (found,) = totals(tx, ["call"])
    assert (found.labels, found.count) == (("vod",), before + 1)


def test_no_look_is_made_before_half_the_time_or_just_before_the_next_poll(rig: Early) -> None:
    looks = Looks(poller=rig.poller)
    due = []
    for half_seconds in range(10, 21):
        rig.clock.now = NOW + seconds(10 + half_seconds / 2)
        due.append(bool(looks.due(rig.book)))
    assert due == [True] * 5 + [False] * 6
    rig.clock.now = NOW + seconds(12)
    assert looks.next_due(rig.book) == NOW + seconds(15)


def test_the_ten_jobs_that_are_likeliest_to_end_are_asked_for() -> None:
    jobs = [a_listed_job(f"p{n}", RUNNING, progress=n) for n in range(8)]
    others = [a_listed_job("waits", SUBMITTED), a_listed_job("rests", PAUSE), a_listed_job("none", RUNNING)]
    asked = likeliest_to_end([*others, *jobs, a_listed_job("last", SUBMITTED)])
    assert asked == ("p7", "p6", "p5", "p4", "p3", "p2", "p1", "none", "p0", "waits")


def test_nobody_looks_where_nothing_is_unfinished(rig: Early) -> None:
    rig.has("j1", SUCCESS)
    rig.has("j2", SUCCESS)
    rig.poll()
    rig.clock.advance(seconds(5))
    assert rig.looks() == []


@pytest.mark.parametrize("why", ["paused", "failed", "refused", "half used", "extra calls"])
def test_nobody_looks_where_calls_are_scarce_or_polls_fail(rig: Early, why: str) -> None:
    if why == "paused":
        with rig.db.write() as tx:
            leases.set_watch(tx, "vod", paused=True)
    elif why == "failed":
        rig.ci.refuses["Transcode"] = TemporaryError("502")
        rig.poll()
        rig.clock.advance(seconds(5))
    elif why == "refused":
        rig.ci.slowed = True
    elif why == "half used":
        rig.use(given=rig.given.replace("[defaults]", '[defaults]\nrate = "1/10s"'))
    else:
        rig.clock.advance(minutes(10))  # a list goes back by an hour
        rig.poll()
        rig.clock.advance(seconds(5))
    assert rig.looks() == []
    if why == "extra calls":
        rig.clock.advance(seconds(5))
        rig.poll()
        rig.clock.advance(seconds(5))
        assert rig.looks() == ["j2", "j1"]


def test_a_look_that_fails_or_finds_nothing_changes_nothing(rig: Early) -> None:
    rig.ci.refuses["describe"] = TemporaryError("502")
    assert rig.looks() == ["j2", "j1"]
    rig.ci.refuses.clear()
    rig.clock.advance(seconds(5))
    rig.poll()
    for job_id in ("j1", "j2"):
        rig.ci.forgets(job_id)
    rig.clock.advance(seconds(5))
    assert rig.looks() == ["j2", "j1"]
    assert rows(rig.db, job_problems) == []  # only polls count
    assert rig.poller.poll_once(rig.book.watches[0], rig.book) is not None


@on_both
def test_nobody_looks_while_another_worker_has_the_bucket(rig: Early) -> None:
    with rig.db.write() as tx:
        assert leases.acquire(tx, BUCKET, "other", now=rig.clock())
    assert rig.looks() == []


def test_a_job_that_was_looked_at_is_dated_by_the_last_poll(rig: Early) -> None:
    rig.ci.has(replace(rig.ci.jobs["j1"], state=PAUSE, created_at=NOW - hours(1)))
    rig.looks()
    (last,) = [row for row in rows(rig.db, transitions) if row["state"] == PAUSE]
    assert last["still_at"] == ms(NOW + seconds(10))
