"""Polls of one watch: transitions, pages, turns, and when the next poll is due."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

import pytest
from sqlalchemy import event

from bridge.collect.errors import AuthError, CiError, ConfigError, TemporaryError, Throttled
from bridge.decide.changes.scan import OVERLAP
from bridge.model import FAILED, GONE, RUNNING, SUBMITTED, SUCCESS, Job, Page
from bridge.pipeline.poll import Halted, PollResult
from bridge.pipeline.poller import Poller
from bridge.record.database import Database, at
from bridge.record.polling import leases, snapshots
from bridge.record.polling.leases import BUCKET_LEASE
from bridge.record.queries import gauges
from bridge.record.schema import deliveries, transitions, watches
from bridge.record.schema import jobs as job_table
from bridge.record.schema import leases as lease_table
from bridge.record.schema import streams as stream_table
from tests.conftest import Opener, on_both
from tests.support.fakes import FakeCi, count, notify_all
from tests.support.nouns import BUCKET, NOW, a_listed_job, a_stream, hours, minutes, seconds
from tests.support.records import row_of, rows
from tests.support.rig import Rig

ALL, TWO = notify_all(), notify_all("Transcode", "Snapshot")
TABLES = [job_table, transitions, deliveries, stream_table]
_DOWN = {tag: TemporaryError("502") for tag in ("Transcode", "Snapshot")}


@pytest.fixture
def rig(db: Database) -> Rig:
    return Rig(db, given=ALL)


@pytest.fixture
def polled(rig: Rig) -> Rig:
    """After a first poll half a minute ago."""
    rig.poll()
    rig.clock.advance(seconds(30))
    return rig


def new(rig: Rig, *ids: str, state: str = SUBMITTED, **facts: Any) -> list[Job]:
    """Let CI have jobs that were created just now."""
    jobs = [a_listed_job(id_, state, **{"created_at": rig.clock(), **facts}) for id_ in ids]
    rig.ci.has(*jobs)
    return jobs


def many(rig: Rig, tag: str, how_many: int) -> None:
    for n in range(how_many):
        new(rig, f"{tag}{n:03}", tag=tag, created_at=rig.clock() - seconds(n))


def sent(rig: Rig) -> int:
    return count(rig.db, "delivery")


def watch_row(rig: Rig) -> dict[str, Any]:
    return row_of(rig.db, watches, name="vod")


def next_at(rig: Rig) -> datetime:
    return at(watch_row(rig)["next_poll_at"])


def tags(rig: Rig) -> list[str]:
    return [tag for tag, _, _ in rig.ci.listed]


# --- the first snapshot -------------------------------------------------------------------------------------


@pytest.mark.parametrize("announce", [False, True])
@on_both
def test_a_first_snapshot_is_recorded_and_only_announced_if_the_rules_say_so(rig: Rig, announce: bool) -> None:
    rig.use(given=notify_all(announce=announce))
    new(rig, "old", state=SUCCESS)
    new(rig, "running", state=RUNNING)
    found = rig.poll()
    assert (found.jobs, found.transitions, found.deliveries, found.error) == (2, 2, 2 * announce, None)
    assert rig.steps() == [("old", "new", SUCCESS), ("running", "new", RUNNING)]
    assert {*rig.silent().values()} == {None if announce else 'first snapshot of Transcode in watch "vod"'}
    assert rig.ci.listed == [("Transcode", NOW - hours(24) - OVERLAP, None)]


@pytest.mark.parametrize(("behind_s", "is_news"), [(1200, True), (30, False), (20, False)])
def test_a_job_that_only_looks_older_than_the_first_question_as_cis_clock_is_behind_is_news(
    rig: Rig, behind_s: int, is_news: bool
) -> None:
    (job,) = new(rig, "j1", created_at=rig.clock() + seconds(10 - behind_s))
    rig.ci.pages["Transcode"] = [Page(jobs=(job,), served_at=rig.clock() + seconds(20 - behind_s))]
    rig.ci.before_call = lambda: rig.clock.advance(seconds(20))
    assert rig.poll().deliveries == is_news


def test_a_first_poll_that_fails_makes_no_job_created_later_silent(rig: Rig) -> None:
    new(rig, "before")
    rig.clock.advance(minutes(1))
    rig.ci.refuses = _DOWN
    rig.poll()
    rig.clock.advance(minutes(30))
    new(rig, "later")
    rig.clock.advance(minutes(30))
    rig.ci.refuses = {}
    rig.poll()
    assert rig.news() == ["later"]


# --- transitions --------------------------------------------------------------------------------------------


@on_both
def test_every_state_that_is_seen_is_one_transition_with_a_delivery(polled: Rig) -> None:
    for state in (SUBMITTED, RUNNING, SUCCESS):
        for progress in (1, 50):  # which is no transition
            polled.has("j1", state, progress=progress)
            polled.polls()
    assert polled.steps() == [("j1", "new", SUBMITTED), ("j1", SUBMITTED, RUNNING), ("j1", RUNNING, SUCCESS)]
    assert [row["sequence"] for row in rows(polled.db, transitions)] == [1, 2, 3]
    assert sent(polled) == 3


@on_both
def test_a_final_state_is_final(polled: Rig) -> None:
    for state in (SUCCESS, RUNNING, FAILED, SUBMITTED):
        new(polled, "j1", state=state)
        polled.poll()
    assert polled.steps() == [("j1", "new", SUCCESS)]
    assert row_of(polled.db, job_table, id="j1")["state"] == SUCCESS


class _Fails:
    levels = ()
    pick_of = MappingProxyType[str, str]({})

    def match(self, _: object) -> None:
        raise ZeroDivisionError


@on_both
def test_a_page_is_stored_with_its_deliveries_or_not_at_all(polled: Rig) -> None:
    new(polled, "j1")
    before, book = [rows(polled.db, table) for table in TABLES], polled.book
    polled.book = replace(book, matcher=_Fails())
    with pytest.raises(ZeroDivisionError):
        polled.poll()
    assert [rows(polled.db, table) for table in TABLES] == before
    assert row_of(polled.db, lease_table, name=BUCKET)["token"] is None  # free for the next poll
    polled.book = book
    assert polled.poll().deliveries == 1


@pytest.mark.parametrize("table", ["delivery", "job", "transition"])
@on_both
def test_deliveries_and_snapshot_are_stored_together_or_not_at_all(polled: Rig, table: str) -> None:
    new(polled, "j1")
    before = [rows(polled.db, table) for table in TABLES]

    def fail(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith(f"INSERT INTO {table} "):
            raise ZeroDivisionError

    event.listen(polled.db.engine, "before_cursor_execute", fail)
    with pytest.raises(ZeroDivisionError):
        polled.poll()
    event.remove(polled.db.engine, "before_cursor_execute", fail)
    assert [rows(polled.db, table) for table in TABLES] == before
    assert polled.poll().deliveries == 1


def test_the_dispatcher_is_woken_after_each_page_is_stored(rig: Rig) -> None:
    woken: list[int] = []
    rig.poller = rig.new_poller(on_stored=lambda: woken.append(count(rig.db, "job")))
    rig.ci.page_size = 2
    new(rig, "j0", "j1", "j2")
    rig.poll()
    assert woken == [2, 3]


# --- pages --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pages", "steps"),
    [
        ([[("j1", SUBMITTED), ("j2", SUBMITTED)], [("j2", SUBMITTED), ("j3", SUBMITTED)]], 3),  # on two pages
        ([[("j1", SUBMITTED)], [("j1", RUNNING)]], 2),  # moves on between two pages
        ([[("j1", SUCCESS), ("j1", RUNNING)]], 1),  # twice on one page: the further state
    ],
)
def test_a_job_that_is_listed_twice_is_seen_in_each_state_once(
    polled: Rig, pages: list[list[tuple[str, str]]], steps: int
) -> None:
    listed = [tuple(a_listed_job(id_, state, created_at=polled.clock()) for id_, state in page) for page in pages]
    tokens = [*("a" for _ in listed[1:]), None]
    polled.ci.pages["Transcode"] = [
        Page(jobs=jobs, next_token=token) for jobs, token in zip(listed, tokens, strict=True)
    ]
    assert polled.poll().deliveries == steps
    assert len({(job, state) for job, _, state in polled.steps()}) == len(polled.steps()) == steps


def test_jobs_that_arrive_while_pages_are_read_are_not_missed(polled: Rig) -> None:
    polled.ci.page_size = 10
    many(polled, "Transcode", 25)
    arrivals = iter(range(100))
    polled.ci.before_call = lambda: new(polled, f"late{next(arrivals)}", created_at=polled.clock() + seconds(1))
    polled.poll()
    polled.ci.before_call = lambda: None
    polled.polls()
    assert sorted(job for job, _, _ in polled.steps()) == sorted(polled.ci.jobs)


def test_the_mark_moves_with_the_last_page_only(polled: Rig) -> None:
    polled.ci.page_size = 2
    new(polled, *(f"j{n}" for n in range(5)))
    marks: list[datetime | None] = []
    polled.ci.before_call = lambda: (marks.append(polled.mark()), polled.clock.advance(seconds(5)))
    polled.poll()
    assert marks == [NOW, NOW, NOW]
    assert polled.mark() == NOW + seconds(30)  # when the poll began: that is earlier than CI's Date


@on_both
def test_a_list_that_fails_halfway_keeps_what_was_read_and_not_the_mark(polled: Rig) -> None:
    polled.ci.page_size = 2
    new(polled, *(f"j{n}" for n in range(4)))

    def fail_later() -> None:
        if len(polled.ci.listed) == 3:
            raise TemporaryError("reset by peer")

    polled.ci.before_call = fail_later
    assert str(polled.poll().error) == "reset by peer"
    assert (count(polled.db, "job"), sent(polled), polled.mark()) == (2, 2, NOW)
    polled.ci.before_call = lambda: None
    assert polled.poll().error is None
    assert (count(polled.db, "job"), sent(polled), polled.mark()) == (4, 4, polled.clock())


def test_a_list_that_gives_the_same_token_for_ever_ends_with_an_error(polled: Rig) -> None:
    polled.ci.pages["Transcode"] = [Page(jobs=tuple(new(polled, f"j{n}")), next_token="again") for n in range(50)]
    found = polled.poll()
    assert "does not end: page token 'again' came again" in str(found.error)
    assert (found.calls, sent(polled), polled.mark()) == (2, 2, NOW)


# --- what the list does not show ----------------------------------------------------------------------------


@pytest.fixture
def aged(rig: Rig) -> Rig:
    """A watch with 12 old unfinished jobs among so many finished ones that listing them all is dearer."""
    created = rig.clock() - hours(20)
    rig.ci.has(*[a_listed_job(f"open{n:02}", RUNNING, created_at=created + seconds(n)) for n in range(12)])
    rig.ci.has(*[a_listed_job(f"done{n}", SUCCESS, created_at=created + minutes(1)) for n in range(900)])
    rig.poll()
    rig.ci.listed.clear()
    rig.clock.advance(seconds(30))
    return rig


@on_both
def test_unfinished_jobs_that_no_list_shows_are_asked_for_by_id_in_tens_until_they_end(aged: Rig) -> None:
    aged.ci.hidden.update(aged.ci.jobs)
    aged.poll()  # which notices that no list by states shows them
    aged.ci.described.clear()
    aged.ci.has(replace(aged.ci.jobs["open07"], state=SUCCESS))
    found = aged.poll()
    assert [len(ids) for ids in aged.ci.described] == [10, 2]
    assert (found.calls, found.transitions, found.deliveries) == (3, 1, 1)
    assert aged.steps()[-1] == ("open07", RUNNING, SUCCESS)  # the others left the list, and are not gone
    aged.ci.has(*[replace(job, state=SUCCESS) for job in aged.ci.jobs.values()])
    aged.poll()
    aged.ci.described.clear()
    aged.poll()
    assert aged.ci.described == []


@on_both
def test_a_job_that_ci_no_longer_knows_is_gone_once(aged: Rig) -> None:
    aged.ci.forgets("open03")
    assert [aged.polls().deliveries for _ in range(4)] == [0, 0, 1, 0]
    assert aged.steps()[-1] == ("open03", RUNNING, GONE)
    row = row_of(aged.db, job_table, id="open03")
    assert (row["state"], row["open"]) == (GONE, False)
    assert sum("open03" in ids for ids in aged.ci.described) == 3


def test_what_ci_describes_unasked_is_left_alone(aged: Rig) -> None:
    describe = aged.ci.describe
    unasked = a_listed_job("unasked", SUCCESS)
    aged.ci.describe = lambda *asked: replace(found := describe(*asked), jobs=(*found.jobs, unasked))  # type: ignore[method-assign]
    before = count(aged.db, "job")
    aged.poll()
    assert count(aged.db, "job") == before


def test_a_describe_that_fails_fails_the_poll_and_is_tried_again(aged: Rig) -> None:
    aged.ci.refuses["describe"] = TemporaryError("timed out")
    aged.ci.has(replace(aged.ci.jobs["open07"], state=SUCCESS))
    assert str(aged.poll().error) == "timed out"
    aged.ci.refuses.clear()
    assert aged.poll().deliveries == 1


# --- many streams -------------------------------------------------------------------------------------------


@on_both
def test_a_tag_added_later_is_silent_about_old_jobs_and_notifies_of_new_ones(polled: Rig) -> None:
    new(polled, "old", state=RUNNING, tag="Snapshot", created_at=NOW - hours(1))
    new(polled, "new", tag="Snapshot", created_at=NOW + seconds(10))
    polled.use(given=TWO)
    assert polled.poll().deliveries == 1
    assert polled.news() == ["new"]
    new(polled, "old", state=SUCCESS, tag="Snapshot", created_at=NOW - hours(1))
    assert polled.poll().deliveries == 1


def test_an_outage_longer_than_the_lookback_is_covered_by_the_mark(polled: Rig) -> None:
    for day in range(7):
        new(polled, f"j{day}", state=SUCCESS, created_at=polled.clock() + hours(24 * day))
    polled.clock.advance(hours(24 * 7))
    assert polled.poll().deliveries == 7
    assert polled.ci.listed[-1][1] == NOW - OVERLAP


@on_both
def test_a_stream_that_fails_does_not_stop_the_others(rig: Rig) -> None:
    rig.use(given=TWO)
    rig.poll()
    rig.ci.refuses["Transcode"] = TemporaryError("502")
    new(rig, "s1", tag="Snapshot")
    new(rig, "t1")
    found = rig.poll()
    assert (str(found.error), found.deliveries, watch_row(rig)["error"]) == ("502", 1, "Transcode: 502")
    rig.ci.refuses["Snapshot"] = ConfigError("no such tag")
    rig.poll()
    assert watch_row(rig)["error"] == "Transcode: 502; Snapshot: no such tag"
    rig.ci.refuses.clear()
    assert rig.poll().deliveries == 1
    assert watch_row(rig)["error"] is None


def test_a_stream_that_fails_does_not_keep_old_jobs_of_others_from_being_asked_for(aged: Rig) -> None:
    aged.use(given=TWO)
    aged.ci.refuses["Snapshot"] = ConfigError("no such tag")
    aged.ci.has(replace(aged.ci.jobs["open07"], state=SUCCESS))
    found = aged.poll()
    assert (str(found.error), found.deliveries) == ("no such tag", 1)


@pytest.mark.parametrize("error", [AuthError("denied"), Throttled("slow down")], ids=lambda error: error.kind)
def test_what_would_fail_for_every_stream_is_asked_once(rig: Rig, error: CiError) -> None:
    rig.use(given=TWO)
    rig.poll()
    rig.ci.listed.clear()
    rig.ci.refuses = {"Transcode": error, "Snapshot": error}
    assert rig.poll().error is error
    assert tags(rig) == ["Transcode"]


@on_both
def test_a_job_that_two_watches_show_is_sent_once(rig: Rig) -> None:
    rig.use(ALL.partition("[notifier")[0].replace('"vod"', '"copy"').partition('"silent"')[2])
    for _ in range(2):
        for number in range(2):
            rig.poll(number)
        new(rig, "j1")
    assert sent(rig) == 1


# --- when ---------------------------------------------------------------------------------------------------


def test_the_next_poll_begins_so_early_that_it_ends_an_interval_after_this_one_began(rig: Rig) -> None:
    rig.ci.before_call = lambda: rig.clock.advance(seconds(5))
    rig.poll()
    assert next_at(rig) == NOW + seconds(25)
    rig.clock.now = next_at(rig)
    rig.ci.before_call = lambda: rig.clock.advance(seconds(10))
    rig.poll()
    assert next_at(rig) == NOW + seconds(25 + 30 - 7.5)  # a quarter of the interval is the most
    rig.ci.before_call = lambda: rig.clock.advance(seconds(90))
    rig.poll()
    assert next_at(rig) == rig.clock()  # late already: at once


@pytest.mark.parametrize(("every_s", "probed_s"), [(10, 30), (30, 30), (300, 300)])
def test_a_ci_that_answers_nothing_is_asked_by_one_call_every_half_minute_or_as_seldom_as_usual(
    rig: Rig, every_s: int, probed_s: int
) -> None:
    rig.use(given=notify_all("Transcode", "Snapshot", every=f"{every_s}s"))
    rig.poll()
    rig.ci.refuses = _DOWN
    rig.poll()
    rig.ci.listed.clear()
    for _ in range(7):
        assert next_at(rig) == rig.clock() + seconds(probed_s)
        rig.clock.now = next_at(rig)
        rig.poll()
    assert tags(rig) == ["Transcode"] * 7
    rig.ci.refuses = {}
    new(rig, "s1", tag="Snapshot")
    new(rig, "t1")
    assert rig.poll().deliveries == 2  # the poll that notices that CI is back sees everything
    assert (next_at(rig), watch_row(rig)["failures"]) == (rig.clock() + seconds(every_s), 0)


def test_a_tag_that_ci_refuses_delays_no_other(rig: Rig) -> None:
    rig.use(given=notify_all("Bogus", "Transcode", every="10s"))
    rig.ci.refuses["Bogus"] = ConfigError("no such tag")
    for number in range(3):
        new(rig, f"t{number}")
        rig.poll()
        assert next_at(rig) == rig.clock() + seconds(10)
        rig.clock.now = next_at(rig)
    assert len(rig.steps()) == 3


@pytest.mark.parametrize(("asked_s", "given_s"), [(1, 30), (60, 60), (600, 600), (7 * 86_400, 600)])
def test_ci_is_given_the_time_that_it_asks_for_up_to_ten_minutes(rig: Rig, asked_s: int, given_s: int) -> None:
    rig.ci.refuses["Transcode"] = Throttled("slow down", retry_after=seconds(asked_s))
    rig.poll()
    assert next_at(rig) == rig.clock() + seconds(given_s)
    assert rig.poller.due(rig.book.watches) == []  # such a time is not taken for a clock that was set back
    rig.clock.advance(seconds(given_s))
    assert rig.poller.due(rig.book.watches) == [*rig.book.watches]


def test_a_failed_poll_says_why_and_remembers_the_last_good_one(polled: Rig) -> None:
    polled.ci.refuses["Transcode"] = AuthError("denied", advice="check the keys")
    polled.poll()
    row = watch_row(polled)
    assert (row["error"], row["failures"], at(row["ok_at"])) == ("denied; check the keys", 1, NOW)


@on_both
def test_a_watch_is_due_when_its_time_has_come_or_the_clock_was_set_back_far_unless_it_is_paused(rig: Rig) -> None:
    def is_due(after_s: float, early_s: float = 0.0) -> bool:
        rig.clock.now = NOW + seconds(after_s)
        return bool(rig.poller.due(rig.book.watches, early=seconds(early_s)))

    rig.poll()
    assert [is_due(0), is_due(29.4), is_due(29.4, 0.6), is_due(30), is_due(-86_400 * 30)] == [0, 0, 1, 1, 1]
    with rig.db.write() as tx:
        leases.set_watch(tx, "vod", paused=True)
    assert not is_due(3600)


def test_watches_that_are_polled_as_often_are_spread_over_the_interval(rig: Rig) -> None:
    place = 'bucket = "clips-1250000000"\nregion = "ap-chongqing"\nevery = "30s"\n'
    more = [f'[[watch]]\nname = "{name}"\n{place}tags = ["{name}"]\n' for name in ("w0", "w1")]
    rig.use(given=ALL.replace("[notifier.cms]", "".join(more) + "[notifier.cms]"))
    began: dict[str, list[datetime]] = {"vod": [], "w0": [], "w1": []}
    for _ in range(60):
        for watch in rig.poller.due(rig.book.watches):
            began[watch.name].append(rig.clock())
            rig.poll(rig.book.watches.index(watch))
        rig.clock.now = rig.poller.next_due(rig.book.watches) or rig.clock()
    last = [times[-1] for times in began.values()]
    apart = sorted((time - last[0]) % seconds(30) for time in last)
    assert apart == [seconds(0), seconds(10), seconds(20)]
    gaps = [later - earlier for times in began.values() for earlier, later in itertools.pairwise(times)]
    assert max(gaps) == seconds(30)
    assert min(gaps) >= seconds(27)


@on_both
def test_the_next_due_time_is_that_of_the_first_watch_that_is_not_due_yet(rig: Rig) -> None:
    assert rig.poller.next_due(rig.book.watches) is None
    rig.poll()
    assert rig.poller.next_due(rig.book.watches) == NOW + seconds(30)
    rig.clock.advance(seconds(31))
    assert rig.poller.next_due(rig.book.watches) is None


def test_an_interval_that_was_shortened_counts_at_once(rig: Rig) -> None:
    rig.use(given=notify_all(every="1h"))
    rig.poll()
    rig.clock.advance(seconds(31))
    assert rig.poller.due(rig.book.watches) == []
    rig.use(given=ALL)
    assert rig.poller.due(rig.book.watches) == [*rig.book.watches]


# --- what is idle -------------------------------------------------------------------------------------------


@pytest.fixture
def quiet(rig: Rig) -> Rig:
    """Transcode has shown nothing new for five minutes, Snapshot has a job that runs."""
    rig.use(given=notify_all("Transcode", "Snapshot", watch='idle = "5m"'))
    rig.has("s1", RUNNING, tag="Snapshot")
    rig.poll()
    rig.clock.advance(minutes(5))
    rig.poll()
    rig.clock.advance(seconds(30))
    rig.ci.listed.clear()
    return rig


def poll_as_worker(rig: Rig) -> list[str]:
    """Poll half a minute later as a worker does; return the tags that were listed."""
    rig.ci.listed.clear()
    assert rig.poll(within=minutes(1)).error is None
    rig.clock.advance(seconds(30))
    return tags(rig)


@on_both
def test_a_tag_of_which_nothing_new_comes_is_polled_less_often(quiet: Rig) -> None:
    polls = [poll_as_worker(quiet) for _ in range(20)]
    assert polls == [*[["Snapshot"]] * 9, ["Transcode", "Snapshot"]] * 2
    new(quiet, "t1")
    assert [poll_as_worker(quiet) for _ in range(10)][-1] == ["Transcode", "Snapshot"]
    assert quiet.news()[-1] == "t1"
    assert poll_as_worker(quiet) == ["Transcode", "Snapshot"]  # it is unfinished
    quiet.has("t1", SUCCESS)
    assert [poll_as_worker(quiet) for _ in range(8)] == [["Transcode", "Snapshot"]] * 8


@on_both
def test_a_poll_with_nothing_to_ask_is_complete_and_the_next_one_is_due_as_usual(quiet: Rig) -> None:
    quiet.has("s1", SUCCESS, tag="Snapshot")
    assert poll_as_worker(quiet) == ["Snapshot"]
    quiet.clock.advance(minutes(5))
    assert poll_as_worker(quiet) == ["Transcode", "Snapshot"]
    before, began = quiet.mark(), quiet.clock()
    assert poll_as_worker(quiet) == []
    row = watch_row(quiet)
    assert (at(row["ok_at"]), next_at(quiet), row["calls"], row["error"]) == (began, began + seconds(30), 0, None)
    assert quiet.mark() == before


def test_a_poll_that_a_person_asks_for_asks_for_everything(quiet: Rig) -> None:
    with quiet.db.write() as tx:
        leases.set_watch(tx, "vod", poll_now=True)
    assert poll_as_worker(quiet) == ["Transcode", "Snapshot"]
    quiet.ci.listed.clear()
    quiet.poll()
    assert tags(quiet) == ["Transcode", "Snapshot"]


# --- taking turns -------------------------------------------------------------------------------------------


def test_long_lists_take_turns_page_by_page_and_short_ones_come_first(rig: Rig) -> None:
    rig.use(given=notify_all("Transcode", "Snapshot", "Concat"))
    rig.ci.page_size = 2
    for tag, how_many in (("Transcode", 6), ("Snapshot", 4), ("Concat", 1)):
        many(rig, tag, how_many)
    rig.poll()
    assert tags(rig) == ["Transcode", "Snapshot", "Concat", "Transcode", "Snapshot", "Transcode"]


@on_both
def test_news_of_known_jobs_come_before_the_rest_of_a_long_list(rig: Rig) -> None:
    rig.use(given=TWO)
    old = a_listed_job("old", RUNNING, tag="Snapshot", created_at=rig.clock() - hours(30))
    rig.poll()
    with rig.db.write() as tx:
        snapshots.save(tx, [old], [], {}, stream=a_stream("Snapshot").key, streams=(), now=rig.clock())
    rig.ci.page_size = 2
    many(rig, "Transcode", 6)
    rig.ci.has(replace(old, state=SUCCESS))
    rig.ci.pages["Snapshot"] = [Page(jobs=(), served_at=rig.clock())]
    calls: list[int] = []
    rig.ci.before_call = lambda: calls.append(len(rig.ci.described))
    rig.poll()
    assert calls == [0, 0, 1, 1, 1]  # two first pages, then by id, then two more pages


@pytest.fixture
def hurried(rig: Rig) -> Callable[..., PollResult]:
    """Polls as a worker does: what takes longer than three looks at the clock goes on in the next poll."""
    looks = iter(range(10_000))
    rig.use(given=TWO)
    rig.poller = rig.new_poller(worker="w1", monotonic=lambda: float(next(looks)))
    rig.ci.page_size = 1
    many(rig, "Transcode", 8)
    return lambda watch=0: rig.poll(watch, within=seconds(3))


@pytest.fixture
def rival(rig: Rig, db_url: str, opened: Opener) -> Poller:
    return rig.new_poller(db=opened(db_url), source=FakeCi(rig.clock, jobs=rig.ci.jobs))


def test_a_list_that_takes_too_long_goes_on_in_the_next_poll_after_what_is_fresh(
    rig: Rig, hurried: Callable[..., PollResult]
) -> None:
    first = hurried()
    assert (first.behind, first.error, next_at(rig)) == (["Transcode"], None, rig.clock())
    assert (rig.mark(), rig.mark("Snapshot")) == (None, rig.clock())
    rig.ci.listed.clear()
    new(rig, "s1", tag="Snapshot")
    for _ in range(9):
        if not hurried().behind:
            break
    assert tags(rig)[0] == "Snapshot"
    assert tags(rig).count("Transcode") == 8 - 3  # no page is asked for again
    assert (len(rig.steps()), rig.mark()) == (9, NOW)


@on_both
def test_a_list_that_goes_on_shows_how_far_it_has_come(rig: Rig, hurried: Callable[..., PollResult]) -> None:
    hurried()
    (found,) = progress(rig)
    assert found == {"tag": "Transcode", "queue": None, "pages": 3, "jobs": 3, "created_to": None}  # the newest first
    while hurried().behind:
        pass
    assert progress(rig) == []


def test_a_long_list_says_every_half_a_minute_how_far_it_has_come(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    many(rig, "Transcode", 30)
    shown: list[list[int]] = []

    def answers() -> None:
        rig.clock.advance(seconds(4))
        shown.append([one["pages"] for one in progress(rig)])

    rig.ci.page_size, rig.ci.before_call = 1, answers
    rig.poll()
    said = [one for one in caplog.records if one.message == "a long list goes on"]
    assert [one.__dict__["pages"] for one in said] == [9, 17, 25]
    assert shown[-1] == [25]
    assert progress(rig) == []


def progress(rig: Rig) -> list[dict[str, Any]]:
    with rig.db.read() as tx:
        return next(row["progress"] for row in gauges.read_watches(tx) if row["name"] == "vod")  # type: ignore[no-any-return]  # plain values


@on_both
def test_a_worker_keeps_the_bucket_while_a_list_goes_on(
    rig: Rig, hurried: Callable[..., PollResult], rival: Poller
) -> None:
    assert hurried().behind
    assert rival.poll_once(rig.book.watches[0], rig.book) is None
    while hurried().behind:
        pass
    assert rival.poll_once(rig.book.watches[0], rig.book) is not None


def test_a_list_that_goes_on_makes_way_for_another_watch_of_the_bucket(
    rig: Rig, hurried: Callable[..., PollResult]
) -> None:
    other = '[[watch]]\nname = "other"\nbucket = "clips-1250000000"\nregion = "ap-chongqing"\ntags = ["Snapshot"]\n'
    rig.use(other, given=ALL)
    assert hurried().behind  # "other" has never been polled
    assert tags(rig) == ["Transcode"]
    assert not hurried(1).behind
    hurried()
    assert len(rig.ci.listed) > 3


@on_both
def test_what_another_worker_has_listed_meanwhile_is_not_listed_on(
    rig: Rig, hurried: Callable[..., PollResult], rival: Poller
) -> None:
    assert hurried().behind
    for poll in (lambda: rival.poll_once(rig.book.watches[0], rig.book), hurried):
        rig.clock.advance(BUCKET_LEASE + seconds(1))
        rig.ci.listed.clear()
        assert poll()
    assert rig.ci.listed[0][2] is None  # it begins anew, from the other's mark


# --- two at once --------------------------------------------------------------------------------------------


@on_both
def test_of_two_pollers_at_one_bucket_one_polls(rig: Rig, rival: Poller) -> None:
    refused: list[object] = []
    rig.ci.before_call = lambda: refused.append(rival.poll_once(rig.book.watches[0], rig.book))
    assert rig.poll().error is None
    assert refused == [None]
    assert rival.poll_once(rig.book.watches[0], rig.book) is not None  # afterwards it may


def given_up(rig: Rig) -> bool:
    return rig.poller.poll_once(rig.book.watches[0], rig.book) is None


@on_both
def test_a_poller_that_was_away_too_long_stores_nothing(polled: Rig, rival: Poller) -> None:
    new(polled, "j1", state=RUNNING)

    def away() -> None:
        polled.ci.before_call = lambda: None
        polled.clock.advance(BUCKET_LEASE + seconds(1))
        new(polled, "j1", state=SUCCESS, created_at=NOW)
        assert rival.poll_once(polled.book.watches[0], polled.book) is not None
        new(polled, "j1", "j2", state=RUNNING, created_at=NOW)

    polled.ci.before_call = away
    assert given_up(polled)
    assert polled.steps() == [("j1", "new", SUCCESS)]


@on_both
def test_a_poller_whose_bucket_another_has_taken_stores_nothing(polled: Rig) -> None:
    new(polled, "j1", state=RUNNING)

    def taken() -> None:
        polled.clock.advance(BUCKET_LEASE + seconds(1))
        with polled.db.write() as tx:
            assert leases.acquire(tx, BUCKET, "other", now=polled.clock())

    before = rows(polled.db, watches), polled.mark()
    polled.ci.before_call = taken
    assert given_up(polled)
    assert (polled.steps(), (rows(polled.db, watches), polled.mark())) == ([], before)
    assert row_of(polled.db, lease_table, name=BUCKET)["token"] == "other"  # and is left what it has


def test_a_poll_stops_between_two_calls_when_the_process_stops(rig: Rig) -> None:
    rig.poll()
    rig.ci.page_size = 1
    new(rig, "j1", "j2")
    rig.poller = rig.new_poller(halted=lambda: len(rig.ci.listed) > 1)
    assert given_up(rig)
    assert (count(rig.db, "job"), rig.mark()) == (1, NOW)
    assert row_of(rig.db, lease_table, name=BUCKET)["token"] is None


def test_a_source_that_is_halted_while_it_waits_gives_the_poll_up(polled: Rig) -> None:
    def halt() -> None:
        raise Halted

    polled.ci.before_call = halt
    assert given_up(polled)


# --- rules that change -----------------------------------------------------------------------------------------


@on_both
def test_a_new_watch_that_overlaps_does_not_keep_silent_about_jobs_that_nobody_was_notified_of(polled: Rig) -> None:
    polled.clock.advance(seconds(10))
    new(polled, "j1", queue="p1")
    polled.clock.advance(seconds(10))
    second = ALL.partition("[notifier")[0].partition('"silent"')[2]
    polled.use(second.replace('"vod"', '"second"\nqueues = ["p1"]'))
    for number in (1, 0):
        polled.poll(number)
    assert sent(polled) == 1


@on_both
def test_unfinished_jobs_are_followed_on_when_the_queues_of_their_watch_change(rig: Rig) -> None:
    (job,) = new(rig, "j1", state=RUNNING, queue="p1")
    rig.poll()
    rig.polls(4, hours(9))
    rig.use(given=notify_all(watch='queues = ["p1"]'))
    rig.ci.has(replace(job, state=SUCCESS))
    rig.polls()
    assert (rig.steps()[-1], sent(rig)) == (("j1", RUNNING, SUCCESS), 1)


@pytest.mark.parametrize("before", [1, 2])
@on_both
def test_a_poll_that_is_under_way_when_other_rules_come_into_force_stores_nothing_more(rig: Rig, before: int) -> None:
    """Whether the first or the second page is on its way."""
    rig.poll()
    rig.clock.advance(seconds(10))
    new(rig, "j0", "j1", "j2")
    old, rig.ci.page_size, asked = rig.book, 2, rig.ci.calls()

    def change() -> None:
        if rig.ci.calls() == asked + before:
            rig.use("# changed")

    rig.ci.before_call = change
    rig.clock.advance(seconds(30))
    assert rig.poller.poll_once(old.watches[0], old) is None
    assert sent(rig) == (before - 1) * 2
    rig.ci.before_call = lambda: None
    assert rig.poller.poll_once(old.watches[0], old) is None  # nor does it begin another one
    rig.poll()
    assert sent(rig) == 3


def test_level_rules_are_not_asked_by_rules_that_are_not_in_force(rig: Rig) -> None:
    rig.use('[[rule]]\nname = "stuck"\nin = "Running"\nfor = "30m"\nnotify = "cms"\n')
    old = rig.book
    rig.poll()
    rig.clock.advance(seconds(10))
    new(rig, "j1", state=RUNNING)
    rig.polls()
    before = sent(rig)
    rig.clock.advance(hours(1))
    rig.use("")
    assert rig.poller.poll_once(old.watches[0], old) is None
    rig.poll()
    assert sent(rig) == before
