"""Floods: what would wait for more than a minute for its channel becomes one digest."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import select

from bridge.model import FAILED, RUNNING, SUBMITTED, SUCCESS, Reason, Rejected, RetryLater
from bridge.record.database import Database
from bridge.record.outbox import entries
from bridge.record.schema import DEAD, deliveries, state_is
from tests.conftest import on_both
from tests.support.nouns import minutes, seconds
from tests.support.slack_rig import ALL, GIVEN, JOB, SlackRig

URGENT = (
    '[[rule]]\nname = "urgent"\nto = "Failed"\nmatch.input = "in/hot*"\nnotify = "ops"\nurgent = true\nstop = true\n'
)
SECOND = '[notifier.second]\ntype = "slack"\nchannel = "C024BE91L"\ntoken = { env = "TOKEN" }\n'
PLACES = 55  # of a channel in a minute


def fail(slack: SlackRig, count: int, first: int = 0) -> None:
    for n in range(first, first + count):
        slack.has(f"j{n:03}", FAILED)
    slack.poll()


def states(slack: SlackRig, **which: str) -> dict[str, int]:
    found = [row["state"] for row in slack.deliveries(**which)]
    return {state: found.count(state) for state in dict.fromkeys(found)}


def digests(slack: SlackRig) -> list[str]:
    posts = [json.loads(one.says) for one in slack.transport.begun]
    return [says["title"] for says in posts if says.get("digest")]


@on_both
def test_a_flood_is_posted_for_a_minute_and_the_rest_is_one_digest(slack: SlackRig) -> None:
    slack.begin(ops="")
    fail(slack, 200)
    slack.lives(minutes(2), step=seconds(0.5))
    posted = len(slack.channels.posts) - 1
    assert PLACES - 5 <= posted <= PLACES + 5
    assert states(slack) == {"sent": posted + 1, "merged": 200 - posted}
    assert len(digests(slack)) == 1
    assert f"{200 - posted} Failed" in digests(slack)[0]


@on_both
def test_no_message_of_a_few_that_a_channel_takes_in_a_minute_is_folded(slack: SlackRig) -> None:
    slack.begin(ops="flood = 5")
    fail(slack, PLACES - 5)
    slack.lives(minutes(3))
    assert states(slack) == {"sent": PLACES - 5}


def test_a_flood_below_its_number_is_not_folded(slack: SlackRig) -> None:
    slack.begin(ops="flood = 150")
    fail(slack, 100)
    slack.lives(minutes(4))
    assert states(slack) == {"sent": 100}


def test_without_flood_nothing_is_folded(slack: SlackRig) -> None:
    slack.begin(ops="flood = false")
    fail(slack, 100)
    slack.lives(minutes(4))
    assert states(slack) == {"sent": 100}


@on_both
def test_an_urgent_message_is_not_folded(slack: SlackRig) -> None:
    slack.begin(URGENT + ALL, ops="")
    fail(slack, 150)
    slack.lives(seconds(3))
    slack.has("hot", FAILED)
    slack.poll()
    slack.lives(seconds(3))
    assert states(slack, job="hot") == {"sent": 1}


def test_an_urgent_message_takes_in_what_was_folded_of_its_job(slack: SlackRig) -> None:
    slack.begin(URGENT + ALL, ops=JOB)
    for n in range(100):
        slack.has(f"j{n:03}", FAILED)
    slack.poll()
    slack.moves("hot", RUNNING)
    slack.lives(seconds(3))
    assert [row["state"] for row in slack.deliveries(job="hot")] == ["held"]
    slack.moves("hot", FAILED)
    slack.lives(minutes(2))
    assert [row["state"] for row in slack.deliveries(job="hot")] == ["merged", "sent"]
    (digest,) = digests(slack)
    assert "Running" not in digest


@on_both
def test_a_folded_job_has_no_root_until_its_next_message(slack: SlackRig) -> None:
    slack.begin(ops=JOB)
    for n in range(100):
        slack.has(f"j{n:03}", SUBMITTED)
    slack.poll()
    slack.lives(minutes(2))
    folded = next(row["job"] for row in slack.deliveries() if row["state"] == "merged")
    assert f"clips-1250000000/{folded}" not in slack.channels.roots
    slack.moves(folded, SUCCESS)
    slack.lives(seconds(5))
    assert slack.channels.roots[f"clips-1250000000/{folded}"] == [f"{folded} Success"]


def test_what_follows_a_folded_message_of_its_job_is_folded_too(slack: SlackRig) -> None:
    slack.begin(ops=JOB)
    for n in range(100):
        slack.has(f"j{n:03}", SUBMITTED)
    slack.poll()
    slack.lives(seconds(50))
    folded = [row["job"] for row in slack.deliveries() if row["state"] == "held"]
    slack.moves(folded[0], RUNNING)
    slack.lives(minutes(2))
    assert [row["state"] for row in slack.deliveries(job=folded[0])] == ["merged", "merged"]


@on_both
def test_notifiers_of_one_channel_are_one_flood_and_have_a_digest_each(slack: SlackRig) -> None:
    slack.begin(ALL.replace('notify = "ops"', 'notify = ["ops", "second"]'), ops="", more=SECOND)
    fail(slack, 60)
    slack.lives(minutes(3))
    assert len(digests(slack)) == 2
    assert set(states(slack)) == {"sent", "merged"}


def test_what_a_person_sends_is_not_folded(slack: SlackRig) -> None:
    slack.begin(ops="")
    fail(slack, 1)
    slack.lives(seconds(3))
    slack.channels.refuses = lambda _: Rejected("Slack says no_text", Reason.INVALID_PAYLOAD)
    fail(slack, 1, first=1)
    slack.lives(seconds(3))
    slack.channels.refuses = lambda _: None
    fail(slack, 150, first=2)
    with slack.db.write() as tx:
        entries.redrive(tx, select(deliveries.c.n).where(state_is(DEAD)), now=slack.clock())
    slack.lives(minutes(5))
    assert states(slack, job="j001") == {"sent": 1}


@pytest.mark.parametrize("refusal", [RetryLater("no answer", Reason.CONNECTION), Rejected("archived", pause=True)])
def test_what_waits_for_a_notifier_that_takes_nothing_is_not_folded(
    slack: SlackRig, refusal: RetryLater | Rejected
) -> None:
    slack.begin(ops="")
    slack.channels.refuses = lambda _: refusal
    fail(slack, 30)
    slack.lives(minutes(2))
    fail(slack, 150, first=30)
    slack.lives(minutes(2))
    assert "held" not in states(slack)
    slack.channels.refuses = lambda _: None
    with slack.db.write() as tx:
        entries.resume(tx, "ops")
    slack.lives(minutes(4))
    assert set(states(slack)) == {"sent", "merged"}
    assert len(digests(slack)) == 1


def test_nothing_of_a_flood_is_lost_when_the_worker_changes(db: Database, slack: SlackRig) -> None:
    slack.begin(ops="")
    fail(slack, 100)
    slack.lives(seconds(5))
    slack.start()
    slack.lives(minutes(2))
    assert states(slack)["merged"] + states(slack)["sent"] == 101
    assert len(digests(slack)) == 1


@on_both
def test_what_follows_a_message_that_is_tried_again_is_not_folded_before_it(slack: SlackRig) -> None:
    slack.begin(ops=JOB)
    slack.channels.refuses = lambda _: RetryLater("Slack answered 500", Reason.SERVER_ERROR)
    slack.sees("x1", state=RUNNING)
    slack.channels.refuses = lambda _: None
    fail(slack, 100)
    slack.moves("x1", FAILED)
    slack.lives(seconds(3))
    assert [row["state"] for row in slack.deliveries(job="x1")] == ["waiting", "waiting"]
    slack.lives(minutes(5))
    assert [row["state"] for row in slack.deliveries(job="x1")] == ["sent", "sent"]


@pytest.mark.parametrize("channel", ["C07ABCDEFGH", "#media-transcodes-of-the-big-archive-chongqing"])
@on_both
def test_a_flood_of_a_channel_that_jobs_name_is_folded_however_long_its_name(slack: SlackRig, channel: str) -> None:
    slack.begin(ops="")
    given = GIVEN.format(ops=f'channels = ["C024BE91L", "{channel}"]')
    slack.start(given=given.replace('channel = "C024BE91L"', 'channel = "{{ job.user_data.channel }}"'))
    for n in range(100):
        slack.has(f"j{n:03}", FAILED, user_data=json.dumps({"channel": channel}))
    slack.poll()
    slack.lives(minutes(2))
    assert set(states(slack)) == {"sent", "merged"}


@on_both
def test_a_group_of_a_channel_that_jobs_name_is_stored_however_long_its_name(slack: SlackRig) -> None:
    slack.begin(ops="")
    given = GIVEN.format(ops='channels = ["C024BE91L", "C07ABCDEFGH"]')
    given = given.replace('channel = "C024BE91L"', 'channel = "{{ job.user_data.channel }}"')
    slack.start(ALL + 'group = { by = ["queue"], wait = "1m" }\n', given=given)
    slack.has("j1", FAILED, user_data='{"channel": "C07ABCDEFGH"}')
    slack.poll()
    slack.lives(minutes(2))
    assert len(digests(slack)) == 1
