"""Callbacks as hints: exactly those jobs are asked for by id, and what CI answers is stored as a list's is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import pairwise

import pytest

from bridge.collect.callbacks import NamedJob
from bridge.collect.errors import BrokenReply, TemporaryError
from bridge.model import Job, JobProblem
from bridge.pipeline import callbacks
from bridge.pipeline.hints import Hints
from bridge.pipeline.poller import Poller
from bridge.record.counters import totals
from bridge.record.database import Database
from bridge.record.polling import leases
from bridge.record.polling.hints import AGAIN, KEPT, MOST_WAITING
from bridge.record.schema import hints, job_problems
from tests.conftest import on_both
from tests.support.nouns import BUCKET, hours, minutes, seconds
from tests.support.records import rows
from tests.support.rig import GIVEN, OVER, Rig

pytestmark = on_both

BOTH = OVER + '[[rule]]\nname = "all"\nnotify = "cms"\n'


@dataclass
class Hinted(Rig):
    """A rig whose CI sends callbacks, or somebody who says so."""

    rules: str = BOTH
    hints: Hints = field(init=False)

    def start(self, rules: str | None = None, **facts: object) -> None:
        super().start(rules, **facts)  # type: ignore[arg-type]  # as they are
        self.hints = self.new_hints(self.poller)

    def new_hints(self, poller: Poller) -> Hints:
        return Hints(poller=poller, monotonic=self._monotonic)

    def called_back(self, *ids: str, bucket: str | None = BUCKET, about: str | None = None) -> None:
        named = [NamedJob(job_id, bucket) for job_id in ids]
        watch = next((watch for watch in self.book.watches if watch.name == about), None)
        with self.db.write() as tx:
            callbacks.take(tx, named, self.book.watches, about=watch, now=self.clock())

    def asks(self) -> list[tuple[str, ...]]:
        """Let a worker look once; return what it asked CI for."""
        before = len(self.ci.described)
        for bucket in self.hints.due(self.book.watches):
            self.hints.ask(bucket, self.book)
        return self.ci.described[before:]

    def counts(self, metric: str) -> dict[str, int]:
        with self.db.read() as tx:
            return {total.labels[0]: total.count for total in totals(tx, [metric])}

    def waiting(self) -> set[str]:
        return {row["job_id"] for row in rows(self.db, hints) if row["ask_at"] is not None}


@pytest.fixture
def rig(db: Database) -> Hinted:
    return Hinted(db)


def test_a_job_that_a_callback_names_is_asked_for_alone_and_told(rig: Hinted) -> None:
    rig.first_poll()
    rig.sees("j1", "j2", state="Running")
    rig.has("j1", "Success")
    rig.has("j2", "Failed")
    listed = len(rig.ci.listed)

    rig.called_back("j1")

    assert rig.asks() == [("j1",)]
    rig.deliver()
    assert rig.steps()[-1] == ("j1", "Running", "Success")
    assert rig.received("ops")[-1].event["data"]["to"] == "Success"
    assert len(rig.ci.listed) == listed
    assert rig.asks() == []
    assert rows(rig.db, hints) == []


def test_what_a_callback_says_is_not_believed(rig: Hinted) -> None:
    rig.first_poll()
    rig.sees("j1", state="Running")
    steps = rig.steps()

    rig.called_back("j1")

    assert rig.asks() == [("j1",)]
    assert rig.steps() == steps
    assert rig.counts("hint") == {"no_news": 1}


def test_a_job_that_has_ended_on_record_costs_no_call(rig: Hinted) -> None:
    rig.first_poll()
    rig.sees("j1", state="Success")

    rig.called_back("j1")

    assert rig.asks() == []
    assert rig.counts("callback_job") == {"ended": 1}


def test_a_job_that_a_poll_saw_end_meanwhile_costs_no_call(rig: Hinted) -> None:
    rig.first_poll()
    rig.sees("j1", state="Running")
    rig.called_back("j1")
    rig.sees("j1", state="Success")

    assert rig.asks() == []
    assert rows(rig.db, hints) == []


def test_a_new_job_of_a_watch_is_told_as_if_a_list_had_shown_it(rig: Hinted) -> None:
    rig.first_poll()
    mark = rig.mark()
    rig.has("short", "Success")

    rig.called_back("short")
    rig.asks()
    rig.deliver()

    assert rig.steps() == [("short", "new", "Success")]
    assert [message.event["subject"] for message in rig.received("ops")] == ["short"]
    assert rig.mark() == mark
    rig.polls(2)
    rig.deliver()
    assert rig.steps() == [("short", "new", "Success")]


def test_a_job_that_no_watch_has_is_left_alone(rig: Hinted) -> None:
    rig.first_poll()
    rig.has("other", "Success", tag="Concat")

    rig.called_back("other")

    assert rig.asks() == [("other",)]
    assert rig.steps() == []
    assert rig.counts("hint") == {"not_watched": 1}
    rig.called_back("other")
    rig.clock.advance(minutes(1))
    assert rig.asks() == []
    assert rig.counts("call") == {"vod": rig.ci.calls()}


def test_a_watch_of_one_queue_takes_no_job_of_another(rig: Hinted) -> None:
    rig.start(given=GIVEN.replace('every = "5m"', 'queues = ["vod"]\nevery = "5m"'))
    rig.first_poll()
    rig.has("mine", "Success", queue="p1")
    rig.has("theirs", "Success", queue="p2")

    rig.called_back("mine", "theirs")
    rig.asks()

    assert rig.steps() == [("mine", "new", "Success")]


def test_a_new_job_is_left_to_a_first_snapshot_that_is_not_complete(rig: Hinted) -> None:
    rig.has("old", "Success")

    rig.called_back("old")
    rig.asks()
    assert rig.steps() == []

    rig.poll()
    rig.deliver()
    assert rig.steps() == [("old", "new", "Success")]
    assert rig.received() == []  # the first snapshot is silent


def test_a_job_from_before_the_lookback_is_not_told(rig: Hinted) -> None:
    rig.first_poll()
    rig.has("ancient", "Success", created_at=rig.clock() - hours(30))

    rig.called_back("ancient")
    rig.asks()
    rig.deliver()

    assert "older than the first snapshot" in str(rig.silent()["ancient"])
    assert rig.received() == []


def test_a_job_that_ci_denies_is_not_missed_on_record_and_not_asked_for_again_for_a_while(rig: Hinted) -> None:
    rig.first_poll()
    rig.sees("j1", state="Running")
    rig.ci.forgets("j1")

    rig.called_back("j1", "stranger")
    assert rig.asks() == [("j1", "stranger")]
    assert rows(rig.db, job_problems) == []  # polls count misses, once each
    for _ in range(3):
        rig.clock.advance(minutes(2))
        rig.called_back("j1", "stranger")
        assert rig.asks() == []

    assert rig.counts("callback_job") == {"waiting": 2, "denied": 6}
    rig.clock.advance(KEPT)
    rig.called_back("j1", "stranger")
    assert rig.asks() == [("j1", "stranger")]


def test_unknown_jobs_cost_one_call_in_an_interval_once_ci_has_denied_one(rig: Hinted) -> None:
    rig.first_poll()
    calls = 0

    for second in range(600):
        rig.called_back(*(f"s{second}-{n}" for n in range(30)))
        calls += len(rig.asks())
        rig.clock.advance(seconds(1))

    assert calls <= 2 + timedelta(seconds=600) / rig.book.watches[0].every
    assert rig.counts("callback_job")["too_many"] > 0
    assert len(rig.waiting()) <= MOST_WAITING


def test_new_jobs_that_ci_knows_are_asked_for_at_once_however_many(rig: Hinted) -> None:
    rig.first_poll()
    for second in range(5):
        ids = [f"j{second}-{n}" for n in range(10)]
        for job_id in ids:
            rig.has(job_id, "Success")
        rig.called_back(*ids)
        assert len(rig.asks()) == 1
        rig.clock.advance(seconds(1))

    assert len(rig.steps()) == 50


def test_a_flood_of_unknown_jobs_does_not_delay_known_ones(rig: Hinted) -> None:
    rig.first_poll()
    rig.sees("j1", state="Running")
    rig.called_back(*(f"stranger-{n}" for n in range(2 * MOST_WAITING)))
    rig.asks()

    rig.has("j1", "Success")
    rig.called_back("j1")
    rig.asks()

    assert rig.steps()[-1] == ("j1", "Running", "Success")


def test_a_job_is_asked_for_every_few_seconds_at_most_however_often_it_is_named(rig: Hinted) -> None:
    rig.first_poll()
    rig.sees("j1", state="Running")
    calls = 0

    for _ in range(60):
        rig.called_back("j1")
        calls += len(rig.asks())
        rig.clock.advance(seconds(1))

    assert calls <= 1 + seconds(60) / AGAIN


def test_a_job_named_twice_is_asked_for_again_after_those_seconds(rig: Hinted) -> None:
    rig.first_poll()
    rig.sees("j1", state="Running")
    rig.called_back("j1")
    rig.asks()
    rig.has("j1", "Success")
    rig.called_back("j1")
    assert rig.asks() == []

    rig.clock.advance(AGAIN)

    assert rig.asks() == [("j1",)]
    assert rig.steps()[-1] == ("j1", "Running", "Success")


def test_jobs_named_while_ci_answers_are_asked_for_once_more(rig: Hinted) -> None:
    rig.first_poll()
    rig.sees("j1", state="Running")
    rig.called_back("j1")

    def finishes() -> None:
        rig.ci.before_call = lambda: None
        rig.clock.advance(seconds(1))
        rig.called_back("j1")

    rig.ci.before_call = finishes
    assert rig.asks() == [("j1",)]
    assert rig.waiting() == {"j1"}
    rig.clock.advance(AGAIN)
    assert rig.asks() == [("j1",)]


def test_a_bucket_that_another_worker_has_is_left_to_it(rig: Hinted) -> None:
    rig.first_poll()
    rig.sees("j1", state="Running")
    rig.called_back("j1")
    with rig.db.write() as tx:
        assert leases.acquire(tx, BUCKET, "another", now=rig.clock())

    assert rig.asks() == []
    assert rig.waiting() == {"j1"}


def test_a_poll_under_way_asks_between_its_calls(rig: Hinted) -> None:
    rig.first_poll()
    rig.sees("j1", "j2", state="Running")
    rig.poller = rig.new_poller()
    rig.poller.between_calls = rig.new_hints(rig.poller).ask_between
    rig.ci.page_size = 1
    rig.has("j1", "Success", created_at=rig.clock() - hours(20))  # so the list does not show it first
    seen: list[bool] = []

    def called_back() -> None:
        if len(rig.ci.listed) == listed + 1:
            rig.called_back("j1")
        rig.clock.advance(seconds(1))
        seen.append(("j1", "Running", "Success") in rig.steps())

    listed, rig.ci.before_call = len(rig.ci.listed), called_back
    result = rig.poll()

    assert ("j1",) in rig.ci.described
    assert True in seen  # before the poll was over
    assert result.error is None
    assert rig.steps().count(("j1", "Running", "Success")) == 1
    assert rig.counts("call") == {"vod": rig.ci.calls()}


def flood(rig: Hinted, jobs: int) -> None:
    """Let unfinished jobs be on record, and callbacks name them all."""
    rig.first_poll()
    ids = [f"j{n}" for n in range(jobs)]
    rig.sees(*ids, state="Running")
    rig.called_back(*ids)


def test_however_many_jobs_are_named_a_poll_under_way_makes_every_other_call(rig: Hinted) -> None:
    flood(rig, 100)
    rig.poller = rig.new_poller()
    rig.poller.between_calls = rig.new_hints(rig.poller).ask_between
    rig.ci.page_size = 10
    kinds: list[bool] = []
    rig.ci.before_call = lambda: kinds.append(len(rig.ci.described) > sum(kinds))  # whether it asks by id

    rig.poll()

    assert kinds.count(True) == 10  # all of them
    assert (True, True) not in list(pairwise(kinds))


def test_a_poll_that_comes_due_need_not_wait_until_all_that_is_named_was_asked_for(rig: Hinted) -> None:
    flood(rig, 100)
    rig.ci.before_call = lambda: rig.clock.advance(minutes(3))

    assert len(rig.asks()) == 2
    assert rig.poller.due(rig.book.watches)


def test_what_ci_does_not_answer_is_asked_for_later(rig: Hinted) -> None:
    rig.first_poll()
    rig.sees("j1", state="Running")
    rig.has("j1", "Success")
    rig.called_back("j1")
    rig.ci.refuses["describe"] = TemporaryError("CI is away")
    assert rig.asks() == [("j1",)]
    assert rig.asks() == []

    del rig.ci.refuses["describe"]
    rig.clock.advance(minutes(1))

    assert rig.asks() == [("j1",)]
    assert rig.steps()[-1] == ("j1", "Running", "Success")


def test_one_job_that_breaks_the_answer_silences_no_other(rig: Hinted) -> None:
    rig.first_poll()
    rig.sees("j1", "j2", state="Running")
    rig.has("j1", "Success")
    rig.called_back("j1", "j2")

    def breaks() -> None:
        rig.ci.refuses.pop("describe", None)
        if "j2" in rig.ci.described[-1]:
            rig.ci.refuses["describe"] = BrokenReply("not well-formed")

    rig.ci.before_call = breaks
    rig.asks()

    assert ("j1", "Running", "Success") in rig.steps()
    assert rig.waiting() == set()


def test_a_paused_watch_takes_no_hints(rig: Hinted) -> None:
    rig.first_poll()
    rig.sees("j1", state="Running")
    rig.has("j1", "Success")
    with rig.db.write() as tx:
        leases.set_watch(tx, "vod", paused=True)

    rig.called_back("j1")
    assert rig.asks() == []

    with rig.db.write() as tx:
        leases.set_watch(tx, "vod", paused=False)
    assert rig.asks() == [("j1",)]


TWO = (
    GIVEN
    + """
[[watch]]
name = "raw"
bucket = "raw-1250000000"
region = "ap-chongqing"
tags = ["Transcode"]
"""
)


def test_without_a_bucket_the_only_one_is_asked(rig: Hinted) -> None:
    rig.first_poll()
    rig.has("short", "Success")

    rig.called_back("short", bucket=None)
    rig.asks()

    assert rig.steps() == [("short", "new", "Success")]


def test_without_a_bucket_and_with_several_only_jobs_on_record_are_taken(rig: Hinted) -> None:
    rig.start(given=TWO)
    rig.first_poll()
    rig.sees("j1", state="Running")

    rig.called_back("j1", "short", bucket=None)

    assert rig.asks() == [("j1",)]
    assert rig.counts("callback_job") == {"waiting": 1, "no_bucket": 1}


def test_the_watch_of_the_address_says_the_bucket_whatever_the_body_says(rig: Hinted) -> None:
    rig.start(given=TWO)
    rig.first_poll()
    rig.has("short", "Success")

    rig.called_back("short", bucket="elsewhere-1250000000", about="vod")
    rig.asks()

    assert rig.steps() == [("short", "new", "Success")]


def test_a_bucket_that_is_not_watched_costs_nothing(rig: Hinted) -> None:
    rig.first_poll()

    rig.called_back("j1", bucket="elsewhere-1250000000")

    assert rig.asks() == []
    assert rows(rig.db, hints) == []
    assert rig.counts("callback") == {"other_bucket": 1}
    assert rig.counts("callback_job") == {"other_bucket": 1}


def test_a_gone_job_that_is_there_after_all_goes_on(rig: Hinted) -> None:
    rig.first_poll()
    rig.sees("j1", state="Running")
    job: Job = rig.ci.jobs["j1"]
    rig.ci.forgets("j1")
    rig.polls(5, every=minutes(5))
    assert rig.steps()[-1] == ("j1", "Running", "gone")
    rig.ci.has(job)
    rig.has("j1", "Success")

    rig.called_back("j1")
    rig.asks()

    assert rig.steps()[-1] == ("j1", "Running", "Success")


def test_a_field_that_cannot_be_read_is_on_record(rig: Hinted) -> None:
    rig.first_poll()
    rig.sees("j1", state="Running")
    rig.has("j1", "Success")
    rig.called_back("j1")
    describe = rig.ci.describe

    def with_problem(*asked: object) -> object:
        found = describe(*asked)  # type: ignore[arg-type]  # as it was called
        return replace(found, problems=(JobProblem(job_id="j1", field="EndTime", value="soon"),))

    rig.ci.describe = with_problem  # type: ignore[method-assign,assignment]
    rig.asks()

    assert [row["job_id"] for row in rows(rig.db, job_problems)] == ["j1"]
    assert rows(rig.db, hints) == []


def test_a_job_on_record_goes_on_although_its_new_stream_was_never_listed(rig: Hinted) -> None:
    rig.first_poll()
    rig.sees("j1", state="Running", queue="p1")
    rig.use(given=GIVEN.replace('every = "5m"', 'queues = ["vod"]\nevery = "5m"'))  # so the job has another stream
    rig.has("j1", "Success")

    rig.called_back("j1")
    rig.asks()

    assert rig.steps()[-1] == ("j1", "Running", "Success")
