"""Threads, roots and channels: which calls are made, what roots show, and what is kept of them."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from bridge.model import Reason, Rejected, RetryLater, Sent
from bridge.send.slack.request import Receipt
from tests.support.receivers import NOON, a_content
from tests.support.slack_servers import HOOK, ScriptedSlack, no, ok, says

POST, UPDATED = "chat.postMessage", "chat.update"
THREAD, BOTH, UPDATE = {"thread": "job"}, {"thread": "job", "update": True}, {"update": True}
LOOSE = {"type": "message", "text": "bad input", "ts": "171.9"}
NEWEST = a_content(title="Transcode done: demo.mp4", state="Success")


def places(slack: ScriptedSlack) -> list[tuple[str, str | None]]:
    """The channel and the thread of each call."""
    return [(content["channel"], content.get("thread_ts")) for content in slack.contents]


def test_a_later_message_goes_into_the_thread_of_the_first() -> None:
    slack = ScriptedSlack()
    assert slack.send(THREAD, thread="j1", root="C9:170.5") == Sent()
    assert places(slack) == [("C9", "170.5")]


def test_a_reply_under_an_updated_root_is_one_post_as_the_root_is_edited_by_itself() -> None:
    slack = ScriptedSlack()
    assert slack.send(BOTH, thread="j1", root="C9:170.5", wanted=NEWEST, wanted_no=3) == Sent()
    assert slack.calls == [POST]
    (reply,) = slack.contents
    assert reply["text"].startswith("❌ Transcode failed")  # the reply says what it reports, not what is newest


@pytest.mark.parametrize("notifier", [UPDATE, BOTH])
def test_an_edit_shows_what_the_root_should_show_and_says_which_number_it_has(notifier: dict[str, Any]) -> None:
    slack = ScriptedSlack()
    edited = slack.edit(notifier, root="C9:170.5:C1", says={"title": "Transcode done"}, wanted_no=7)
    assert edited == Sent(receipt="C9:170.5:C1", shown_no=7)
    assert slack.calls == [UPDATED]
    (edit,) = slack.contents
    assert (edit["channel"], edit["ts"], edit["parse"]) == ("C9", "170.5", "none")
    assert "Transcode done" in edit["text"]
    assert edit["blocks"]
    assert "metadata" not in edit  # of the delivery that posted it, which stays


def test_without_threads_a_message_of_a_thread_with_a_root_edits_that_to_the_newest_state() -> None:
    slack = ScriptedSlack()
    sent = slack.send(UPDATE, thread="j1", root="C9:170.5:C1", wanted=NEWEST, wanted_no=3)
    assert sent == Sent(receipt="C9:170.5:C1", shown_no=3)
    assert slack.calls == [UPDATED]
    assert "Transcode done" in slack.contents[0]["text"]


def test_a_new_root_that_is_not_edited_shows_its_own_message() -> None:
    slack = ScriptedSlack()
    assert slack.send(THREAD, thread="j1", wanted=NEWEST, wanted_no=3) == Sent(receipt="C1:171.1:C1")
    assert slack.contents[0]["text"].startswith("❌ Transcode failed")


def test_what_an_older_version_put_is_shown_although_its_root_is_to_show_something_older() -> None:
    slack = ScriptedSlack()
    older = NEWEST._replace(event='{"subject":"j1","sequence":"0000000002"}')
    newer = {"event": '{"subject":"j1","sequence":"0000000003"}', "thread": "b/j1", "wanted": older, "wanted_no": 3}
    assert slack.send(UPDATE, **newer, root="C9:170.5:C1:2") == Sent(receipt="C9:170.5:C1:3")
    assert slack.contents[0]["text"].startswith("❌ Transcode failed")


@pytest.mark.parametrize("notifier", [UPDATE, BOTH])
def test_a_new_root_is_posted_in_the_newest_state_and_as_late_as_that_is(notifier: dict[str, Any]) -> None:
    slack = ScriptedSlack()
    earlier = NOON - timedelta(hours=1)
    sent = slack.send(notifier, thread="j1", happened_at=earlier, wanted=NEWEST, wanted_no=3, note="Sent by ann.")
    assert sent == Sent(receipt="C1:171.1:C1", shown_no=3)
    (root,) = slack.contents
    assert root["text"].startswith("✅ Transcode done: demo.mp4")
    assert "late" not in json.dumps(root["blocks"])
    assert "Sent by ann." in json.dumps(root["blocks"])


def test_a_message_of_an_older_version_which_does_not_say_what_its_root_should_show_shows_itself() -> None:
    slack = ScriptedSlack()
    assert slack.send(BOTH, thread="j1", wanted=None, wanted_no=3) == Sent(receipt="C1:171.1:C1")
    assert slack.contents[0]["text"].startswith("❌ Transcode failed")


@pytest.mark.parametrize(("own", "said"), [(["U1"], ["<@U1>"]), (None, []), ([], [])])
def test_a_new_root_mentions_those_of_its_own_rule_whatever_state_it_shows(own: Any, said: list[str]) -> None:
    newest = a_content(mention=["U2", "channel"])
    slack = ScriptedSlack()
    slack.send(BOTH, thread="j1", says={"mention": own}, wanted=newest, wanted_no=3)
    assert mentions_in(slack.contents[0]) == said


def test_an_edit_mentions_nobody() -> None:
    slack = ScriptedSlack()
    slack.edit(UPDATE, says={"mention": ["U2", "here"]})
    assert mentions_in(slack.contents[0]) == []


def mentions_in(content: dict[str, Any]) -> list[str]:
    blocks = json.dumps(content["blocks"])
    return [word for word in ("<@U1>", "<@U2>", "<!here>", "<!channel>") if word in blocks]


@pytest.mark.parametrize("root", ["C1:170.5:old", "nonsense", "", None])
def test_an_edit_of_a_root_that_is_in_no_channel_of_the_notifier_is_given_up(root: str | None) -> None:
    slack = ScriptedSlack()
    outcome = slack.edit(UPDATE, root=root)
    assert outcome == Rejected("the root is not in a channel of the notifier", Reason.GONE)
    assert slack.calls == []


@pytest.mark.parametrize("root", ["C1:170.5", "C1:170.5:C1"])
def test_an_edit_is_given_up_when_the_notifier_has_become_an_incoming_webhook(root: str) -> None:
    slack = ScriptedSlack()
    assert isinstance(slack.edit(HOOK, root=root), Rejected)
    assert slack.calls == []


@pytest.mark.parametrize("named", ["C1", "C2"])
def test_a_root_is_edited_in_whichever_channel_of_the_notifier_it_is(named: str) -> None:
    slack = ScriptedSlack()
    edited = slack.edit(UPDATE | {"channels": ("C1", "C2")}, root=f"C9:170.5:{named}")
    assert edited == Sent(receipt=f"C9:170.5:{named}", shown_no=3)
    assert slack.contents[0]["channel"] == "C9"


def test_an_edit_whose_blocks_are_refused_shows_as_plain_text_without_the_old_blocks() -> None:
    slack = ScriptedSlack(no("invalid_blocks"))
    assert slack.edit(UPDATE) == Sent(receipt="C1:170.5:C1", shown_no=3)
    first, second = slack.contents
    assert first["blocks"]
    assert second["blocks"] == []  # without any, the old ones would stay
    assert second["text"].startswith("❌ Transcode failed")


def test_an_edit_that_is_refused_as_plain_text_too_is_refused() -> None:
    slack = ScriptedSlack(no("invalid_blocks"), no("msg_too_long"))
    assert slack.edit(UPDATE) == Rejected("Slack says msg_too_long: it refuses this message", Reason.INVALID_PAYLOAD)


def test_an_edit_that_slack_is_too_busy_for_waits_for_the_limit_of_edits() -> None:
    outcome = ScriptedSlack(says(429, b"", b"Retry-After: 7")).edit(UPDATE)
    assert isinstance(outcome, RetryLater)
    assert (outcome.limit or "").startswith("slack edits ")
    wait = timedelta(seconds=7)
    assert replace(outcome, limit=None) == RetryLater("Slack says to slow down", Reason.RATE_LIMITED, after=wait)


@pytest.mark.parametrize("error", ["message_not_found", "cant_update_message", "edit_window_closed"])
def test_a_message_that_would_edit_a_root_which_cannot_be_edited_is_a_new_one(error: str) -> None:
    slack = ScriptedSlack(no(error))
    outcome = slack.send(UPDATE, thread="j1", root="C9:170.5", wanted=NEWEST, wanted_no=3)
    assert outcome == Sent(receipt="C1:171.2:C1", shown_no=3)
    assert slack.calls == [UPDATED, POST]
    assert places(slack)[1] == ("C1", None)


@pytest.mark.parametrize(
    "error",
    ["thread_not_found", "cannot_reply_to_message", "restricted_action_thread_locked", "is_archived", "is_inactive",
     "channel_not_found", "not_in_channel"],
)  # fmt: skip
def test_a_thread_whose_root_or_channel_is_gone_begins_anew(error: str) -> None:
    slack = ScriptedSlack(no(error))
    assert slack.send(THREAD, thread="j1", root="C9:170.5:C1") == Sent(receipt="C1:171.2:C1")
    assert slack.calls == [POST, POST]


def test_an_archived_channel_pauses_when_a_new_root_is_refused_too() -> None:
    outcome = ScriptedSlack(no("is_archived"), no("is_archived")).send(THREAD, thread="j1", root="C1:170.5:C1")
    assert isinstance(outcome, Rejected)
    assert outcome.pause


def test_a_new_root_for_a_thread_that_is_locked_shows_the_newest_state() -> None:
    slack = ScriptedSlack(no("restricted_action_thread_locked"))
    outcome = slack.send(BOTH, thread="j1", root="C1:170.5:C1", wanted=NEWEST, wanted_no=3)
    assert outcome == Sent(receipt="C1:171.2:C1", shown_no=3)
    reply, root = slack.contents
    assert (reply["text"][0], root["text"][0]) == ("❌", "✅")


@pytest.mark.parametrize("notifier", [THREAD, UPDATE, BOTH])
def test_a_root_of_another_channel_is_left_for_a_new_one_in_the_configured_channel(notifier: dict[str, Any]) -> None:
    slack = ScriptedSlack(ok(channel="C2", ts="171.1"))
    outcome = slack.send(notifier | {"channel": "general"}, thread="j1", root="C1:170.5:old:1")
    assert outcome == Sent(receipt="C2:171.1:general")
    assert places(slack) == [("general", None)]


def test_a_channel_configured_by_name_is_threaded_by_slacks_id_for_it() -> None:
    slack = ScriptedSlack()
    slack.send({"channel": "general", "thread": "job"}, thread="j1", root="C2:170.5:general:1")
    assert places(slack) == [("C2", "170.5")]


@pytest.mark.parametrize("message", [LOOSE, LOOSE | {"thread_ts": None}, LOOSE | {"thread_ts": "171.9"}])
@pytest.mark.parametrize("update", [True, False])
def test_a_reply_outside_of_the_thread_is_sent_once_and_becomes_the_root(
    update: bool, message: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="bridge")
    slack = ScriptedSlack(ok(channel="C2", ts="171.9", message=message))
    notifier = {"channel": "general", "thread": "job", "update": update}
    # It shows its own state, not the newest: so it is to be edited.
    outcome = slack.send(notifier, thread="j1", root="C2:170.5:general:3", wanted=NEWEST, wanted_no=3)
    assert outcome == Sent("C2:171.9:general", shown_no=0)
    assert slack.calls == [POST]
    assert [(record.getMessage(), vars(record)["why"]) for record in caplog.records] == [
        ("the root of a slack thread is gone, a new one begins", "deleted")
    ]


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"message": None},
        {"message": {}},
        {"message": []},
        {"message": "bad input"},
        {"message": LOOSE | {"thread_ts": "170.5"}},
        {"message": LOOSE | {"thread_ts": "169.1"}},  # 170.5 was a reply itself: it is in the thread of that one
        {"message": LOOSE, "channel": None},
    ],
)
def test_an_answer_that_does_not_say_that_a_reply_is_loose_and_where_keeps_the_root(answer: dict[str, Any]) -> None:
    slack = ScriptedSlack(ok(**{"channel": "C1", "ts": "171.9"} | answer))
    assert slack.send(THREAD, thread="j1", root="C1:170.5:C1") == Sent()
    assert slack.calls == [POST]


CHOICE = {"channel": "C1", "channels": ("C1", "C2"), "thread": "job"}


@pytest.mark.parametrize(
    ("notifier", "named", "channel"),
    [
        (CHOICE, "C2", "C2"),
        (CHOICE, "C1", "C1"),
        (CHOICE, None, "C1"),
        (CHOICE, "C9", "C1"),
        ({"channel": "C1"}, "C2", "C1"),
    ],
    ids=["allowed", "first", "none", "no longer allowed", "only one"],
)
def test_a_delivery_goes_to_its_own_channel_while_the_rules_allow_it(
    notifier: dict[str, Any], named: str | None, channel: str
) -> None:
    slack = ScriptedSlack(ok(channel=channel, ts="171.1"))
    assert slack.send(notifier, thread="j1", channel=named) == Sent(f"{channel}:171.1:{channel}")
    assert places(slack) == [(channel, None)]


@pytest.mark.parametrize(("root", "thread"), [("C2:170.5:C2:1", "170.5"), ("C1:170.5:C1:1", None)])
def test_a_thread_goes_on_in_the_channel_that_the_job_names(root: str, thread: str | None) -> None:
    slack = ScriptedSlack()
    slack.send(CHOICE, thread="j1", channel="C2", root=root)
    assert places(slack) == [("C2", thread)]


@pytest.mark.parametrize(
    ("text", "receipt"),
    [
        ("C1:170.5", Receipt("C1", "170.5")),
        ("C1:170.5:general", Receipt("C1", "170.5", "general")),
        ("C1:170.5:2026", Receipt("C1", "170.5", "2026")),
        ("C1:170.5:general:3", Receipt("C1", "170.5", "general", 3)),
        ("C1:170.5:a:b:3", Receipt("C1", "170.5", "a:b", 3)),
        ("nonsense", None),
        ("C1:", None),
        (":170.5", None),
        ("", None),
    ],
)
def test_receipts_of_every_age_are_read(text: str, receipt: Receipt | None) -> None:
    assert Receipt.parse(text) == receipt
    assert receipt is None or Receipt.parse(str(receipt)) == receipt


def test_an_edit_that_is_older_than_what_an_older_version_has_shown_is_not_made() -> None:
    slack = ScriptedSlack()
    older = NEWEST._replace(event='{"subject":"j1","sequence":"0000000002"}')
    edit = {"event": older.event, "wanted": older, "root": "C9:170.5:C1:3"}
    assert slack.edit(UPDATE, **edit) == Sent("C9:170.5:C1:3", shown_no=3)
    assert slack.calls == []
