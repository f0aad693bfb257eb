"""Limits that notifiers share: a channel's for posts, a token's for edits; and who goes first within them."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from datetime import timedelta

import pytest

from bridge.model import FAILED, RUNNING, SUBMITTED, SUCCESS, Delivery, Outcome, Reason, RetryLater, RootEdit
from bridge.record.clocks import rewind
from bridge.record.schema import SENT, attempts, deliveries, rate_limits
from tests.conftest import on_both
from tests.support.nouns import hours, minutes, seconds
from tests.support.records import rows
from tests.support.slack_rig import ALL, GIVEN, JOB, NEW, SlackRig

POSTS, OTHER_POSTS = "slack channel C024BE91L", "slack channel C024BE91M"
SECOND = '[notifier.second]\ntype = "slack"\nchannel = "{channel}"\ntoken = {{ env = "TOKEN" }}\n'
TO_SECOND = '[[rule]]\nname = "some"\nmatch.input = "in/s*"\nnotify = "second"\nstop = true\n'
URGENT = (
    '[[rule]]\nname = "urgent"\nto = "Failed"\nmatch.input = "in/hot*"\nnotify = "ops"\nurgent = true\nstop = true\n'
)


def limited(limit: str, after_s: float | None = 20) -> RetryLater:
    after = None if after_s is None else seconds(after_s)
    return RetryLater("Slack says ratelimited", Reason.RATE_LIMITED, after=after, limit=limit)


def titles(slack: SlackRig, notifier: str = "ops") -> list[str]:
    return [json.loads(one.says)["title"] for one in slack.transport.begun if one.notifier == notifier]


def posts_at(slack: SlackRig) -> list[timedelta]:
    """Return when each was begun, after the first."""
    times = [slack.transport.began_at[id_] for id_ in dict.fromkeys(slack.transport.ids())]
    return [time - times[0] for time in times]


@on_both
def test_a_channel_gets_a_post_a_second(slack: SlackRig) -> None:
    slack.begin(ops="")
    for n in range(5):
        slack.has(f"j{n}", FAILED)
    slack.poll()
    slack.passes(seconds(10), polls=False, every=seconds(0.1))
    times = posts_at(slack)
    assert len(times) == 5
    assert all(seconds(1) <= later - sooner <= seconds(1.3) for sooner, later in itertools.pairwise(times))


@on_both
def test_notifiers_of_one_channel_share_its_limit_in_turn(slack: SlackRig) -> None:
    rules = ALL.replace('notify = "ops"', 'notify = ["ops", "second"]')
    slack.begin(rules, ops="", more=SECOND.format(channel="C024BE91L"))
    for n in range(6):
        slack.has(f"j{n}", FAILED)
    slack.poll()
    slack.passes(seconds(8), polls=False, every=seconds(0.2))
    by_notifier = Counter(one.notifier for one in slack.transport.begun)
    assert max(by_notifier.values()) - min(by_notifier.values()) <= 1
    assert 7 <= by_notifier.total() <= 8


def test_another_channel_has_a_limit_of_its_own(slack: SlackRig) -> None:
    rules = ALL.replace('notify = "ops"', 'notify = ["ops", "second"]')
    slack.begin(rules, ops="", more=SECOND.format(channel="C024BE91M"))
    slack.transport.answer = lambda one: limited(POSTS, 60) if one.notifier == "ops" else slack.channels(one)
    for n in range(3):
        slack.has(f"j{n}", FAILED)
    slack.poll()
    slack.lives(seconds(10))
    assert (len(titles(slack)), len(titles(slack, "second"))) == (1, 3)


@on_both
def test_a_channel_that_asks_to_wait_is_left_alone_and_nothing_counts_as_an_attempt(slack: SlackRig) -> None:
    slack.begin(ops='retry = "1m"')
    asked: list[Delivery] = []

    def answer(one: Delivery) -> Outcome | None:
        if not asked:
            asked.append(one)
            return limited(POSTS, 20)
        return slack.channels(one)

    slack.transport.answer = answer
    for n in range(90):
        slack.has(f"j{n:02}", FAILED)
    slack.use(given=GIVEN.format(ops='retry = "1m"\nflood = false'))
    slack.poll()
    slack.lives(seconds(19))
    assert len(slack.transport.begun) == 1
    slack.lives(minutes(5))
    assert {row["state"] for row in slack.deliveries()} == {"sent"}
    assert slack.transport.begun[1].id == asked[0].id  # it keeps its place
    assert {row["attempts"] for row in rows(slack.db, deliveries)} == {1}
    assert [row["reason"] for row in rows(slack.db, attempts) if row["outcome"] == "later"] == ["rate_limited"]


@on_both
def test_a_limit_that_lasts_uses_up_no_retry_time(slack: SlackRig) -> None:
    slack.begin(ops='retry = "1m"')
    slack.channels.refuses = lambda _: RetryLater("500", Reason.SERVER_ERROR)
    slack.sees("j1")
    slack.channels.refuses = lambda _: limited(POSTS, 30)
    slack.lives(minutes(10))
    assert slack.states() == {"j1": "waiting"}
    slack.channels.refuses = lambda _: None
    slack.lives(minutes(2))
    assert slack.states() == {"j1": "sent"}


def test_a_limit_that_does_not_say_how_long_is_asked_again_soon(slack: SlackRig) -> None:
    slack.begin(ops="")
    slack.channels.refuses = lambda _: limited(POSTS, None)
    slack.sees("j1")
    slack.channels.refuses = lambda _: None
    slack.lives(seconds(12))
    assert slack.states() == {"j1": "sent"}


@on_both
def test_an_edit_that_must_wait_holds_edits_and_no_posts(slack: SlackRig) -> None:
    slack.begin(NEW)
    slack.sees("j1", state=SUBMITTED)
    limit = slack.book.notifiers["ops"].edit_limit
    assert limit
    slack.channels.refuses = lambda one: limited(limit.name, 30) if isinstance(one, RootEdit) else None
    slack.moves("j1", RUNNING)
    slack.lives(seconds(3))
    slack.sees("j2", state=SUBMITTED)
    slack.lives(seconds(5))
    assert slack.channels.posts == ["j1 Submitted", "j2 Submitted"]
    slack.channels.refuses = lambda _: None
    assert slack.thread()["attempts"] == 0
    slack.moves("j1", SUCCESS)
    slack.lives(seconds(15))
    assert slack.channels.edits == 0
    slack.lives(seconds(15))
    assert slack.channels.shows()[0] == "j1 Success"


def test_edits_that_were_refused_once_are_made_as_often_as_slack_documents(slack: SlackRig) -> None:
    slack.begin(NEW, ops=f'{JOB}\nrate = "20/s"')
    for n in range(20):
        slack.has(f"j{n}", SUBMITTED)
    slack.poll()
    slack.passes(seconds(5), polls=False, every=seconds(0.05))
    limit = slack.book.notifiers["ops"].edit_limit
    assert limit
    assert limit.interval < seconds(0.1)
    refusals = [limited(limit.name, 2)]
    slack.channels.refuses = lambda one: refusals.pop() if refusals and isinstance(one, RootEdit) else None
    for n in range(20):
        slack.has(f"j{n}", SUCCESS)
    slack.poll()
    slack.passes(seconds(15), polls=False, every=seconds(0.1))
    assert 9 <= slack.channels.edits <= 11
    slack.passes(seconds(20), polls=False, every=seconds(1))
    assert slack.channels.edits == 20


@on_both
def test_look_ups_keep_their_limit_and_hold_up_nothing_else(slack: SlackRig) -> None:
    slack.begin(ops='rate = "10/s"\nflood = false')
    limit = slack.book.notifiers["ops"].look_up_limit
    assert limit
    slack.channels.refuses = lambda _: RetryLater("timed out", Reason.TIMEOUT)
    for n in range(6):
        slack.has(f"j{n}", FAILED)
    slack.poll()
    slack.passes(seconds(2), polls=False, every=seconds(0.2))
    slack.channels.refuses = lambda _: None
    before = len(slack.transport.begun)
    slack.passes(seconds(10), polls=False, every=seconds(0.1))
    looked = sorted(slack.transport.began_at[one.id] for one in slack.transport.begun[before:])
    assert len(looked) == 6
    assert all(later - sooner >= limit.interval for sooner, later in itertools.pairwise(looked))
    assert slack.stored_states("ops") == [SENT] * 6


def test_a_slow_answer_does_not_stop_the_others_of_its_channel(slack: SlackRig) -> None:
    slack.begin(ops="")
    slack.transport.answer = lambda one: None if "j0" in one.says else slack.channels(one)
    for n in range(5):
        slack.has(f"j{n}", FAILED)
    slack.poll()
    for _ in range(20):
        slack.clock.advance(seconds(1))
        slack.dispatcher.run_once()
    assert len(slack.channels.posts) == 4


# --- who goes first -----------------------------------------------------------------------------------------


@on_both
def test_new_roots_go_before_replies(slack: SlackRig) -> None:
    slack.begin()
    slack.sees("j1", state=SUBMITTED)
    slack.moves("j1", RUNNING)
    slack.has("j2", SUBMITTED)
    slack.has("j3", SUBMITTED)
    slack.poll()
    slack.lives(seconds(10))
    assert slack.channels.posts == ["j1 Submitted", "j2 Submitted", "j3 Submitted", "j1 Running"]


@on_both
def test_an_urgent_message_goes_first(slack: SlackRig) -> None:
    slack.begin(URGENT + ALL, ops="flood = false")
    for n in range(30):
        slack.has(f"j{n:02}", FAILED)
    slack.poll()
    slack.lives(seconds(4))
    slack.has("hot", FAILED)
    slack.poll()
    slack.lives(seconds(2), step=seconds(1))
    assert titles(slack)[-1] == "hot Failed"
    assert len(titles(slack)) < 10


@on_both
def test_what_waits_for_the_job_of_an_urgent_message_is_merged_into_it(slack: SlackRig) -> None:
    slack.begin(URGENT + ALL, ops=f"{JOB}\nflood = false")
    for n in range(10):
        slack.has(f"j{n}", FAILED)
    slack.poll()
    slack.moves("hot", SUBMITTED, RUNNING)
    slack.lives(seconds(2))
    slack.moves("hot", FAILED)
    slack.lives(seconds(2), step=seconds(1))
    assert titles(slack)[-1] == "hot Failed"
    assert slack.transport.begun[-1].note == "Takes the place of earlier messages: Submitted, Running."
    assert [row["state"] for row in slack.deliveries(job="hot")] == ["merged", "merged", "sent"]


def test_an_urgent_message_waits_for_the_one_of_its_job_that_is_being_sent(slack: SlackRig) -> None:
    slack.begin(URGENT + ALL)
    slack.moves("hot", RUNNING)
    slack.transport.answer = lambda _: None
    slack.dispatcher.run_once()
    slack.moves("hot", FAILED)
    slack.clock.advance(seconds(3))
    slack.dispatcher.run_once()
    assert len(slack.transport.begun) == 1
    slack.transport.answer = slack.channels
    slack.lives(seconds(3))
    assert [row["state"] for row in slack.deliveries(job="hot")] == ["sent", "sent"]


# --- clocks -------------------------------------------------------------------------------------------------


def test_a_limit_from_before_the_clock_was_set_back_holds_nobody(slack: SlackRig) -> None:
    slack.begin(ops="")
    slack.sees("j1")
    slack.clock.advance(-hours(5))
    with slack.db.write() as tx:
        rewind(tx, now=slack.clock())
    slack.sees("j2")
    slack.lives(seconds(3))
    assert slack.states() == {"j1": "sent", "j2": "sent"}


def test_no_secret_is_in_the_name_of_a_limit(slack: SlackRig) -> None:
    slack.begin(NEW)
    slack.sees("j1", state=SUBMITTED)
    slack.moves("j1", RUNNING)
    slack.lives(seconds(3))
    names = {row["name"] for row in rows(slack.db, rate_limits)}
    assert POSTS in names
    assert not any("xoxb" in name for name in names)


@pytest.mark.parametrize("ops", [JOB, ""])
def test_two_workers_keep_one_limit(slack: SlackRig, ops: str) -> None:
    slack.begin(ops=ops)
    other = slack.new_dispatcher()
    for n in range(10):
        slack.has(f"j{n}", FAILED)
    slack.poll()
    for _ in range(50):
        slack.clock.advance(seconds(0.1))
        for dispatcher in (slack.dispatcher, other):
            dispatcher.run_once()
    posts = [one for one in slack.transport.begun if not isinstance(one, RootEdit)]
    assert len(posts) <= 6


@on_both
def test_a_notifier_whose_deliveries_are_blocked_starves_no_other_of_its_channel(slack: SlackRig) -> None:
    slack.begin(TO_SECOND + ALL, ops=JOB, more=SECOND.format(channel="C024BE91L"))
    slack.channels.refuses = lambda one: (
        RetryLater("Slack answered 500", Reason.SERVER_ERROR) if one.notifier == "ops" else None
    )
    slack.sees("blk", state=SUBMITTED)
    slack.lives(minutes(3))  # it pauses for minutes now
    slack.moves("blk", RUNNING)  # due at once, and blocked by the first
    slack.lives(seconds(5))
    for n in range(5):
        slack.has(f"s{n}", FAILED)
    slack.poll()
    slack.lives(minutes(1))
    assert slack.stored_states("second") == [SENT] * 5


@on_both
def test_a_backlog_in_one_channel_starves_no_notifier_of_another(slack: SlackRig) -> None:
    """`ops` has two channels and a backlog for the first; `second` uses only the second channel."""
    ops = 'flood = false\nchannels = ["C024BE91L", "C024BE91M"]'
    given = GIVEN.format(ops=ops) + SECOND.format(channel="C024BE91M")
    given = given.replace('channel = "C024BE91L"', 'channel = "{{ job.user_data.channel }}"')
    slack.begin(ALL, ops="flood = false")
    slack.start(TO_SECOND + ALL, given=given)
    for n in range(100):
        slack.has(f"j{n:03}", FAILED, user_data='{"channel":"C024BE91L"}')
    for n in range(20):
        slack.has(f"s{n:03}", FAILED, user_data='{"channel":"C024BE91L"}')
    slack.poll()
    slack.poll()
    slack.lives(seconds(40))
    got = Counter(one.notifier for one in slack.transport.begun)
    assert got["second"] == 20, got


def test_an_urgent_message_takes_in_nothing_of_another_channel(slack: SlackRig) -> None:
    urgent = '[[rule]]\nname = "urgent"\nto = "Failed"\nnotify = "ops"\nurgent = true\nstop = true\n'
    slack.begin(urgent + ALL)
    given = GIVEN.format(ops='flood = false\nchannels = ["C024BE91L", "C024BE91M"]')
    given = given.replace(
        'channel = "C024BE91L"', """channel = "{{ 'C024BE91M' if to == 'Failed' else 'C024BE91L' }}" """
    )
    slack.start(given=given)
    slack.moves("j1", RUNNING, FAILED)
    slack.lives(seconds(10))
    got = [(one.channel, json.loads(one.says)["state"]) for one in slack.transport.begun]
    assert ("C024BE91L", RUNNING) in got, got
