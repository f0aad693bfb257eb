"""Threads, updated roots and channels: which calls are made, and what is kept of the first message."""

from typing import Any

import pytest

from bridge.model import Rejected, Sent
from bridge.send.slack.request import Receipt
from tests.support.slack_servers import ScriptedSlack, no, ok

POST, UPDATE = "chat.postMessage", "chat.update"
THREAD, BOTH = {"thread": "job"}, {"thread": "job", "update": True}
LOOSE = {"type": "message", "text": "bad input", "ts": "171.9"}


def state(sequence: int, *, job: str = "j1", thread: str = "b/j1") -> dict[str, Any]:
    return {"event": f'{{"subject":"{job}","sequence":"{sequence}"}}', "thread": thread}


def places(slack: ScriptedSlack) -> list[tuple[str, str | None]]:
    """The channel and the thread of each call."""
    return [(content["channel"], content.get("thread_ts")) for content in slack.contents]


def test_a_later_message_goes_into_the_thread_of_the_first() -> None:
    slack = ScriptedSlack()
    assert slack.send(THREAD, thread="j1", root="C9:170.5") == Sent()
    assert places(slack) == [("C9", "170.5")]


def test_an_updated_root_is_edited_before_the_thread_gets_its_post() -> None:
    slack = ScriptedSlack()
    assert slack.send(BOTH, thread="j1", root="C9:170.5") == Sent(receipt="C9:170.5:C1:0")
    assert slack.calls == [UPDATE, POST]
    edit = slack.contents[0]
    assert (edit["channel"], edit["ts"], edit["parse"]) == ("C9", "170.5", "none")
    assert edit["blocks"]


def test_without_threads_an_update_only_edits() -> None:
    slack = ScriptedSlack()
    assert slack.send({"update": True}, thread="j1", root="C9:170.5") == Sent(receipt="C9:170.5:C1:0")
    assert slack.calls == [UPDATE]


@pytest.mark.parametrize("error", ["message_not_found", "cant_update_message", "edit_window_closed"])
@pytest.mark.parametrize("thread", ["job", "none"])
def test_a_root_that_cannot_be_edited_is_replaced_by_a_new_one(error: str, thread: str) -> None:
    slack = ScriptedSlack(no(error))
    outcome = slack.send({"thread": thread, "update": True}, thread="j1", root="C9:170.5")
    assert outcome == Sent(receipt="C1:171.2:C1:0")
    assert slack.calls == [UPDATE, POST]
    assert places(slack)[1] == ("C1", None)


@pytest.mark.parametrize(
    "error",
    ["thread_not_found", "cannot_reply_to_message", "restricted_action_thread_locked", "is_archived", "is_inactive",
     "channel_not_found", "not_in_channel"],
)  # fmt: skip
def test_a_thread_whose_root_or_channel_is_gone_begins_anew(error: str) -> None:
    slack = ScriptedSlack(no(error))
    assert slack.send(THREAD, thread="j1", root="C9:170.5:C1") == Sent(receipt="C1:171.2:C1:0")
    assert slack.calls == [POST, POST]


def test_an_archived_channel_pauses_when_a_new_root_is_refused_too() -> None:
    outcome = ScriptedSlack(no("is_archived"), no("is_archived")).send(THREAD, thread="j1", root="C1:170.5:C1:1")
    assert isinstance(outcome, Rejected)
    assert outcome.pause


def test_an_updated_root_whose_thread_is_locked_is_followed_by_a_new_one() -> None:
    slack = ScriptedSlack(ok(), no("restricted_action_thread_locked"))
    assert slack.send(BOTH, thread="j1", root="C1:170.5:C1") == Sent(receipt="C1:171.3:C1:0")


@pytest.mark.parametrize("notifier", [THREAD, {"update": True}, BOTH])
def test_a_root_of_another_channel_is_left_for_a_new_one_in_the_configured_channel(notifier: dict[str, Any]) -> None:
    slack = ScriptedSlack(ok(channel="C2", ts="171.1"))
    outcome = slack.send(notifier | {"channel": "general"}, thread="j1", root="C1:170.5:old:1")
    assert outcome == Sent(receipt="C2:171.1:general:0")
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
    slack = ScriptedSlack(*[ok()] * update, ok(channel="C2", ts="171.9", message=message))
    notifier = {"channel": "general", "thread": "job", "update": update}
    assert slack.send(notifier, **state(4), root="C2:170.5:general:3") == Sent("C2:171.9:general:4")
    assert slack.calls == [UPDATE] * update + [POST]
    assert [(record.getMessage(), vars(record)["why"]) for record in caplog.records] == [
        ("the root of a slack thread is gone, a new one begins", "deleted")
    ]


def test_an_older_state_may_become_the_root_and_its_receipt_says_that_it_is_older() -> None:
    slack = ScriptedSlack(ok(channel="C1", ts="171.9", message=LOOSE))
    assert slack.send(BOTH, **state(2), root="C1:170.5:C1:3") == Sent("C1:171.9:C1:2")
    assert slack.calls == [POST]


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
    assert slack.send(THREAD, thread="j1", root="C1:170.5:C1:1") == Sent()
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
    assert slack.send(notifier, thread="j1", channel=named) == Sent(f"{channel}:171.1:{channel}:0")
    assert places(slack) == [(channel, None)]


@pytest.mark.parametrize(("root", "thread"), [("C2:170.5:C2:1", "170.5"), ("C1:170.5:C1:1", None)])
def test_a_thread_goes_on_in_the_channel_that_the_job_names(root: str, thread: str | None) -> None:
    slack = ScriptedSlack()
    slack.send(CHOICE, thread="j1", channel="C2", root=root)
    assert places(slack) == [("C2", thread)]


@pytest.mark.parametrize("thread", ["job", "none"])
def test_the_receipt_says_which_state_the_root_shows(thread: str) -> None:
    slack = ScriptedSlack()
    first = slack.send({"update": True, "thread": thread}, **state(1))
    later = slack.send({"update": True, "thread": thread}, **state(3), root="C1:171.1:C1:1")
    assert (first, later) == (Sent("C1:171.1:C1:1"), Sent("C1:171.1:C1:3"))


@pytest.mark.parametrize(
    ("notifier", "delivery", "root", "receipt", "calls"),
    [
        (BOTH, state(2), "C1:171.1:C1:3", None, [POST]),
        ({"update": True}, state(2), "C1:171.1:C1:3", None, []),
        ({"update": True}, state(3), "C1:171.1:C1:3", "C1:171.1:C1:3", [UPDATE]),
        (
            {"update": True, "thread": "workflow"},
            state(1, job="j2", thread="b/w1"),
            "C1:171.1:C1:0",
            "C1:171.1:C1:0",
            [UPDATE, POST],
        ),
    ],
    ids=["older, with a thread", "older, without", "the same state again", "another job of the workflow"],
)
def test_an_older_state_of_the_same_job_does_not_turn_the_root_back(
    notifier: dict[str, Any], delivery: dict[str, Any], root: str, receipt: str | None, calls: list[str]
) -> None:
    slack = ScriptedSlack()
    assert slack.send(notifier, **delivery, root=root) == Sent(receipt)
    assert slack.calls == calls


@pytest.mark.parametrize(
    ("text", "receipt"),
    [
        ("C1:170.5", Receipt("C1", "170.5")),
        ("C1:170.5:general", Receipt("C1", "170.5", "general")),
        ("C1:170.5:2026", Receipt("C1", "170.5", "2026")),
        ("C1:170.5:general:3", Receipt("C1", "170.5", "general", 3)),
        ("C1:170.5:a:b:3", Receipt("C1", "170.5", "a:b", 3)),
        ("nonsense", None),
    ],
)
def test_receipts_of_every_age_are_read(text: str, receipt: Receipt | None) -> None:
    assert Receipt.parse(text) == receipt
    assert receipt is None or receipt.configured is None or Receipt.parse(str(receipt)) == receipt
