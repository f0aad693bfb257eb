"""What can be said of a notifier's token and channels without posting anything."""

from __future__ import annotations

import pytest

from bridge.send.client import HttpClient
from bridge.send.http_types import Reply
from bridge.send.integration import Check, Egress
from bridge.send.slack import Slack
from bridge.simulator.slack import ALL_SCOPES, DEMO_TOKEN, READ_SCOPES, Limits, SlackLookAlike
from bridge.simulator.workspace import Channel
from tests.support.receivers import NOBODY, a_slack
from tests.support.slack_servers import ScriptedSlack, no, ok, says

CHANNELS = (
    Channel(id="C1", name="general"),
    Channel(id="C2", name="old", is_archived=True),
    Channel(id="C3", name="elsewhere", is_member=False),
    Channel(id="C4", name="secret", is_private=True),
    Channel(id="C5", name="hidden", is_private=True, is_member=False),
)
KNOWN = Check(True, "Slack knows the token")
ADD = 'add it under "OAuth & Permissions" and install the app again'
LOST = "so it cannot find a message whose answer was lost, and posts it again"


def checked(client: HttpClient, *channels: str, without: frozenset[str] = frozenset()) -> list[Check]:
    """Return what is said of these channels by an app that has all scopes but these."""
    with SlackLookAlike(channels=CHANNELS) as slack:
        slack.tokens = {DEMO_TOKEN: ALL_SCOPES - without}
        notifier = a_slack(token=DEMO_TOKEN, channel=channels[0], channels=channels if len(channels) > 1 else ())
        found = list(Slack(notifier).check(Egress(client, slack.api_url)))
        assert slack.posts == []
    return found


def test_a_token_and_a_channel_that_work_are_said_to(client: HttpClient) -> None:
    assert checked(client, "C1") == [KNOWN, Check(True, "the app is in channel C1 (#general)")]
    assert checked(client, "C4") == [KNOWN, Check(True, "the app is in channel C4 (#secret)")]


def test_each_channel_is_checked_and_each_fault_says_what_mends_it(client: HttpClient) -> None:
    _, *found = checked(client, "C1", "C2", "C3", "C5", "C9", "#general", without=frozenset({"chat:write.public"}))
    private = "check its id; if it is private, invite the app (/invite)"
    assert found == [
        Check(True, "the app is in channel C1 (#general)"),
        Check(False, "channel C2 (#old) is archived: unarchive it, or name another"),
        Check(False, "the app is not in channel C3 (#elsewhere), so it cannot post: invite it (/invite)"),
        Check(False, f"channel C5 is none that the app can see: {private}"),
        Check(False, f"channel C9 is none that the app can see: {private}"),
        Check(None, 'channel #general is not checked: give its id, from the bottom of the channel\'s "About"'),
    ]


def test_an_app_that_may_post_everywhere_is_advised_to_be_where_it_posts(client: HttpClient) -> None:
    _, found = checked(client, "C3")
    assert found == Check(None, f"the app is not in channel C3 (#elsewhere), {LOST}: invite it (/invite)")


BUTTONS = {"signing_secret": "hush", "actions": ("U1",)}


@pytest.mark.parametrize(
    ("team", "expected"),
    [
        ("T000", Check(True, "team is the workspace of the token")),
        ("T999", Check(False, 'the token is of the workspace T000, so no button works: write team = "T000"')),
    ],
)
def test_the_workspace_of_those_who_may_click_is_compared_with_that_of_the_token(
    client: HttpClient, team: str, expected: Check
) -> None:
    with SlackLookAlike(channels=CHANNELS) as slack:
        notifier = a_slack(token=DEMO_TOKEN, team=team, **BUTTONS)
        found = list(Slack(notifier).check(Egress(client, slack.api_url)))
    assert found == [KNOWN, expected, Check(True, "the app is in channel C1 (#general)")]


def test_a_slack_that_does_not_name_the_workspace_is_no_fault() -> None:
    _, found, _ = Slack(a_slack(team="T1", **BUTTONS)).check(ScriptedSlack(ok(), ok(channel={"name": "x"})).egress)
    assert found == Check(None, "team is not checked: " + found.detail.partition(": ")[2])


def test_without_the_scope_to_post_nothing_works(client: HttpClient) -> None:
    found = checked(client, "C1", without=frozenset({"chat:write", "chat:write.public"}))
    assert Check(False, f"the app has not the scope chat:write: {ADD}") in found


@pytest.mark.parametrize(("channel", "name", "scope"), [("C1", "general", "channels"), ("C4", "secret", "groups")])
def test_without_the_scope_to_read_messages_there_is_a_hint(
    client: HttpClient, channel: str, name: str, scope: str
) -> None:
    _, found = checked(client, channel, without=frozenset({f"{scope}:history"}))
    why = f"the app is in channel {channel} (#{name}), but it has not the scope {scope}:history, {LOST}: {ADD}"
    assert found == Check(None, why)


def test_without_the_scope_to_look_at_channels_they_are_not_checked(client: HttpClient) -> None:
    _, found = checked(client, "C1", without=READ_SCOPES)
    why = f"channel C1 is not checked: the app has not the scope channels:read (groups:read): {ADD}"
    assert found == Check(None, why)


def test_scopes_are_separated_with_and_without_spaces(client: HttpClient) -> None:
    header = b"X-OAuth-Scopes: channels:history, chat:write, channels:read"
    slack = ScriptedSlack(says(200, b'{"ok":true}', header), ok(channel={"name": "ops", "is_member": True}))
    assert list(Slack(a_slack()).check(slack.egress)) == [KNOWN, Check(True, "the app is in channel C1 (#ops)")]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (ok(), "Slack's answer is not understood"),
        (ok(channel="C1"), "Slack's answer is not understood"),
        (no("never_heard_of"), "Slack says never_heard_of"),
        (no("xoxb-1 is wrong"), "Slack says [secret] is wrong"),
        (says(200, b"<html>"), "Slack says nothing"),
    ],
)
def test_an_answer_about_a_channel_that_says_nothing_is_no_fault(answer: Reply, why: str) -> None:
    found = list(Slack(a_slack()).check(ScriptedSlack(ok(), answer).egress))
    assert found == [KNOWN, Check(None, f"channel C1 is not checked: {why}")]


def test_more_channels_than_slack_answers_for_in_a_minute_are_no_fault(client: HttpClient) -> None:
    channels = [f"C{n}" for n in range(100, 160)]
    with SlackLookAlike(limits=Limits()) as slack:
        notifier = a_slack(token=DEMO_TOKEN, channel=channels[0], channels=tuple(channels))
        _, *found = Slack(notifier).check(Egress(client, slack.api_url))
    assert [check.ok for check in found] == [True] * 50 + [None] * 10
    assert found[-1].detail == "channel C159 is not checked: Slack says ratelimited"


def test_a_slack_that_is_not_there_is_a_fault(client: HttpClient) -> None:
    (found,) = Slack(a_slack()).check(Egress(client, NOBODY))
    assert found.ok is False
