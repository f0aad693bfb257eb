"""Slack's limits: who shares one, and that its name reveals no secret."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from bridge.model import Rate, SharedLimit
from bridge.notifiers import MOST_PAGES, SlackNotifier
from tests.support.receivers import a_slack

TOKEN, OTHER = "xoxb-hush-1", "xoxb-hush-2"
ID = "C024BE91L"


def to(channel: str | None, *, token: str = TOKEN, **facts: Any) -> SharedLimit:
    """Return the limit of a notifier's posts to the channel that it has."""
    notifier = a_slack(channel=channel, token=token, **facts)
    return notifier.limit_of(None)


def of_hook(url: str) -> SharedLimit:
    return a_slack(channel=None, token=None, url=url).limit_of(None)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (to(ID), to(ID, name="nights")),
        (to(ID), to(ID, token=OTHER)),
        (to("general"), to("general", name="nights")),
        (of_hook("https://hooks.slack.example/a"), of_hook("https://hooks.slack.example/a")),
    ],
    ids=["notifiers of one channel", "apps in one channel", "notifiers of one name", "notifiers of one webhook"],
)
def test_who_posts_to_the_same_channel_shares_its_limit(one: SharedLimit, other: SharedLimit) -> None:
    assert one == other


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (to(ID), to("C024BE91M")),
        (to("general"), to("general", token=OTHER)),
        (to("C1"), to("C1", token=OTHER)),
        (of_hook("https://hooks.slack.example/a"), of_hook("https://hooks.slack.example/b")),
    ],
    ids=["channels", "a name of two tokens", "what is too short for an id", "webhooks"],
)
def test_who_posts_elsewhere_has_another_limit(one: SharedLimit, other: SharedLimit) -> None:
    assert one.name != other.name


def test_each_of_a_notifiers_channels_has_its_own_limit_and_any_other_means_the_first() -> None:
    notifier = a_slack(channel=ID, channels=(ID, "C024BE91M"))
    names = [notifier.limit_of(channel).name for channel in (ID, "C024BE91M", None, "C024BE91X")]
    assert names == [f"slack channel {ID}", "slack channel C024BE91M", *[f"slack channel {ID}"] * 2]


def test_edits_and_reads_have_a_limit_for_each_token_whatever_the_channel() -> None:
    one, same, other = (
        a_slack(channel=channel, token=token, update=True)
        for channel, token in ((ID, TOKEN), ("general", TOKEN), (ID, OTHER))
    )
    assert one.edit_limit == same.edit_limit != other.edit_limit
    assert one.look_up_limit == same.look_up_limit != other.look_up_limit
    assert one.edit_limit
    assert one.edit_limit.name != one.look_up_limit.name


def test_who_never_edits_has_no_limit_of_edits() -> None:
    hook = a_slack(update=True, channel=None, token=None, url="https://h.example/x")
    assert hook.edit_limit is None
    assert a_slack().edit_limit  # of incidents


@pytest.mark.parametrize(("rate", "per_s"), [(None, 1), (Rate(count=20, per=timedelta(seconds=1)), 20)])
def test_a_channel_is_posted_to_a_little_less_often_than_its_rate_allows(rate: Rate | None, per_s: int) -> None:
    notifier = a_slack(rate=rate, update=True)
    posts, edits, reads = notifier.limit_of(None), notifier.edit_limit, notifier.look_up_limit
    assert edits
    assert 1 < posts.interval.total_seconds() * per_s < 1.1
    # Slack accepts 50 edits a minute, and a message a second: who may send more of these may edit as much more.
    assert reads.interval == MOST_PAGES * edits.interval
    assert 60 / 50 < edits.interval.total_seconds() * per_s < 60 / 50 * 1.1


@pytest.mark.parametrize(
    "notifier",
    [
        a_slack(channel="general", token=TOKEN, update=True),
        a_slack(channel=ID, token=TOKEN, update=True),
        a_slack(channel=None, token=None, url="https://hooks.slack.example/services/T0/B0/hush-hush"),
    ],
    ids=["a name", "an id", "an incoming webhook"],
)
def test_no_secret_nor_a_part_of_one_is_in_the_name_of_a_limit(notifier: SlackNotifier) -> None:
    limits = (notifier.limit_of(None), notifier.edit_limit, notifier.look_up_limit)
    names = " ".join(limit.name for limit in limits if limit)
    assert not [part for part in ("hush", "xoxb", "hooks", "T0", *notifier.hidden) if part in names]
