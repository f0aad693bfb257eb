from contextlib import closing
from functools import partial
from typing import Any

import pytest
from slack_sdk import WebClient

from bridge.model import Rejected, Sent
from bridge.send.client import HttpClient
from bridge.send.slack.request import Receipt, SlackSender
from bridge.simulator.slack import DEMO_TOKEN, Post, SlackLookAlike
from tests.support.receivers import LOOPBACK, NOON, a_delivery, a_slack
from tests.support.slack_servers import no, paths, send, slack
from tests.support.strict_slack import StrictSlack


def test_a_later_message_goes_into_the_thread_of_the_first(client: HttpClient) -> None:
    with slack() as receiver:
        outcome = send(client, receiver, {"thread": "job"}, thread="j1", root="C9:170.5")
    assert outcome == Sent()
    assert [(seen.json["channel"], seen.json["thread_ts"]) for seen in receiver.requests] == [("C9", "170.5")]


def test_an_updated_root_is_edited_before_the_thread_gets_its_post(client: HttpClient) -> None:
    with slack() as receiver:
        outcome = send(client, receiver, {"thread": "job", "update": True}, thread="j1", root="C9:170.5")
    assert outcome == Sent(receipt="C9:170.5:C1:0")
    assert paths(receiver) == ["/api/chat.update", "/api/chat.postMessage"]
    edit = receiver.requests[0].json
    assert (edit["channel"], edit["ts"]) == ("C9", "170.5")
    assert edit["blocks"]
    assert edit["parse"] == "none"


def test_without_threads_an_update_only_edits(client: HttpClient) -> None:
    with slack() as receiver:
        outcome = send(client, receiver, {"update": True}, thread="j1", root="C9:170.5")
    assert outcome == Sent(receipt="C9:170.5:C1:0")
    assert paths(receiver) == ["/api/chat.update"]


@pytest.mark.parametrize("error", ["message_not_found", "cant_update_message", "edit_window_closed"])
@pytest.mark.parametrize("thread", ["job", "none"])
def test_a_root_that_cannot_be_edited_is_replaced_by_a_new_one(client: HttpClient, error: str, thread: str) -> None:
    with slack(no(error)) as receiver:
        outcome = send(client, receiver, {"thread": thread, "update": True}, thread="j1", root="C9:170.5")
    assert outcome == Sent(receipt="C1:171.2:C1:0")
    assert paths(receiver) == ["/api/chat.update", "/api/chat.postMessage"]
    assert receiver.requests[1].json["channel"] == "C1"
    assert "thread_ts" not in receiver.requests[1].json


@pytest.mark.parametrize(
    "error",
    ["thread_not_found", "cannot_reply_to_message", "restricted_action_thread_locked", "is_archived", "is_inactive",
     "channel_not_found", "not_in_channel"],
)  # fmt: skip
def test_a_thread_whose_root_or_channel_is_gone_begins_anew(client: HttpClient, error: str) -> None:
    with slack(no(error)) as receiver:
        outcome = send(client, receiver, {"thread": "job"}, thread="j1", root="C9:170.5:C1")
    assert outcome == Sent(receipt="C1:171.2:C1:0")
    assert paths(receiver) == ["/api/chat.postMessage"] * 2


def test_an_archived_channel_pauses_when_a_new_root_is_refused_too(client: HttpClient) -> None:
    with slack(no("is_archived"), no("is_archived")) as receiver:
        outcome = send(client, receiver, {"thread": "job"}, thread="j1", root="C1:170.5:C1:1")
    assert isinstance(outcome, Rejected)
    assert outcome.pause


def test_an_updated_root_whose_thread_is_locked_is_followed_by_a_new_one(client: HttpClient) -> None:
    with slack({"ok": True}, no("restricted_action_thread_locked")) as receiver:
        outcome = send(client, receiver, {"thread": "job", "update": True}, thread="j1", root="C1:170.5:C1")
    assert outcome == Sent(receipt="C1:171.3:C1:0")


@pytest.mark.parametrize("notifier", [{"thread": "job"}, {"update": True}, {"thread": "job", "update": True}])
def test_a_root_of_another_channel_is_left_for_a_new_one_in_the_configured_channel(
    client: HttpClient, notifier: dict[str, Any]
) -> None:
    with slack({"ok": True, "channel": "C2", "ts": "171.1"}) as receiver:
        outcome = send(client, receiver, notifier | {"channel": "general"}, thread="j1", root="C1:170.5:old:1")
    assert outcome == Sent(receipt="C2:171.1:general:0")
    (seen,) = receiver.requests
    assert (seen.json["channel"], "thread_ts" in seen.json) == ("general", False)


def test_a_channel_configured_by_name_is_threaded_by_slacks_id_for_it(client: HttpClient) -> None:
    with slack() as receiver:
        send(client, receiver, {"channel": "general", "thread": "job"}, thread="j1", root="C2:170.5:general:1")
    assert [(seen.json["channel"], seen.json["thread_ts"]) for seen in receiver.requests] == [("C2", "170.5")]


def test_after_a_move_to_another_channel_the_thread_goes_on_there() -> None:
    with StrictSlack(archived=["C1"]) as look_alike, closing(HttpClient(allow=LOOPBACK)) as client:
        told = partial(told_to, look_alike, client)
        assert isinstance(told("C1", root="C1:170.5:C1:1"), Rejected)
        moved = told("C2", root="C1:170.5:C1:1")
        assert isinstance(moved, Sent)
        assert told("C2", root=moved.receipt) == Sent()
    assert [post.channel for post in look_alike.posts] == ["C2", "C2"]
    assert look_alike.posts[1].thread_ts == look_alike.posts[0].ts


@pytest.mark.parametrize("thread", ["job", "workflow"])
def test_a_reply_whose_root_was_deleted_is_the_root_from_then_on(thread: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="bridge")
    with StrictSlack() as look_alike, closing(HttpClient(allow=LOOPBACK)) as client:
        told = partial(told_to, look_alike, client, "C1", thread=thread)
        first = told()
        assert told(root=first.receipt) == Sent()
        delete(look_alike, look_alike.posts[0])
        loose = told(root=first.receipt)
        assert loose.receipt not in (None, first.receipt)
        assert told(root=loose.receipt) == Sent()
    _, root, reply = look_alike.posts
    assert (root.thread_ts, reply.thread_ts) == (None, root.ts)
    assert [(record.getMessage(), vars(record)["why"]) for record in caplog.records] == [
        ("the root of a slack thread is gone, a new one begins", "deleted")
    ]


def test_an_updated_root_that_was_deleted_is_followed_by_one_that_is_updated() -> None:
    with StrictSlack() as look_alike, closing(HttpClient(allow=LOOPBACK)) as client:
        told = partial(told_to, look_alike, client, "C1", update=True)
        first = told(**state(1))
        delete(look_alike, look_alike.posts[0])
        again = told(root=first.receipt, **state(2))
        moved = told(root=again.receipt, **state(3))
    root, reply = look_alike.posts
    assert (root.thread_ts, len(root.edits), reply.thread_ts) == (None, 1, root.ts)
    assert (again.receipt, moved.receipt) == (f"C1:{root.ts}:C1:2", f"C1:{root.ts}:C1:3")


def delete(look_alike: SlackLookAlike, post: Post) -> None:
    WebClient(token=DEMO_TOKEN, base_url=look_alike.api_url).chat_delete(channel=post.channel, ts=post.ts)


def told_to(
    look_alike: SlackLookAlike,
    client: HttpClient,
    channel: str,
    *,
    thread: str = "job",
    update: bool = False,
    **delivery: Any,
) -> Any:
    notifier = a_slack(channel=channel, token=DEMO_TOKEN, thread=thread, update=update)
    told = a_delivery(**{"thread": "b/j1"} | delivery)
    return SlackSender(notifier, look_alike.api_url, client).send(told, NOON).outcome


LOOSE = {"type": "message", "text": "bad input", "ts": "171.9"}


@pytest.mark.parametrize("message", [LOOSE, LOOSE | {"thread_ts": None}, LOOSE | {"thread_ts": "171.9"}])
@pytest.mark.parametrize("update", [True, False])
def test_an_acceptance_without_the_thread_is_told_once_and_keeps_what_is_known_of_the_thread(
    client: HttpClient, update: bool, message: dict[str, Any]
) -> None:
    said = {"ok": True, "channel": "C2", "ts": "171.9", "message": message}
    notifier = {"channel": "general", "thread": "job", "update": update}
    with slack(*[{"ok": True}] * update, said) as receiver:
        outcome = send(client, receiver, notifier, **state(4), root="C2:170.5:general:3")
    assert outcome == Sent("C2:171.9:general:4")
    assert paths(receiver) == ["/api/chat.update"] * update + ["/api/chat.postMessage"]


def test_an_older_state_may_become_the_root_and_says_that_it_is_older(client: HttpClient) -> None:
    said = {"ok": True, "channel": "C1", "ts": "171.9", "message": LOOSE}
    with slack(said) as receiver:
        outcome = send(client, receiver, {"thread": "job", "update": True}, **state(2), root="C1:170.5:C1:3")
    assert outcome == Sent("C1:171.9:C1:2")
    assert paths(receiver) == ["/api/chat.postMessage"]


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"message": None},
        {"message": {}},
        {"message": []},
        {"message": "bad input"},
        {"message": LOOSE | {"thread_ts": "170.5"}},
        {"message": LOOSE | {"thread_ts": "169.1"}},  # 170.5 was a reply itself: it is in the thread of that one
    ],
)
def test_an_answer_that_does_not_say_that_a_reply_is_loose_keeps_the_root(
    client: HttpClient, said: dict[str, Any]
) -> None:
    with slack({"ok": True, "channel": "C1", "ts": "171.9"} | said) as receiver:
        assert send(client, receiver, {"thread": "job"}, thread="j1", root="C1:170.5:C1:1") == Sent()
    assert paths(receiver) == ["/api/chat.postMessage"]


def test_a_loose_reply_of_which_nobody_says_where_it_is_begins_nothing(client: HttpClient) -> None:
    with slack({"ok": True, "message": {"text": "bad input"}}) as receiver:
        assert send(client, receiver, {"thread": "job"}, thread="j1", root="C1:170.5:C1:1") == Sent()
    assert paths(receiver) == ["/api/chat.postMessage"]


CHOICE = {"channel": "C1", "channels": ("C1", "C2"), "thread": "job"}


@pytest.mark.parametrize(
    ("meant", "told"),
    [("C2", "C2"), ("C1", "C1"), (None, "C1"), ("C9", "C1")],
    ids=["allowed", "first", "none", "no longer allowed"],
)
def test_a_delivery_goes_to_its_own_channel_while_the_rules_allow_it(
    client: HttpClient, meant: str | None, told: str
) -> None:
    with slack({"ok": True, "channel": told, "ts": "171.1"}) as receiver:
        outcome = send(client, receiver, CHOICE, thread="j1", channel=meant)
    assert [seen.json["channel"] for seen in receiver.requests] == [told]
    assert outcome == Sent(receipt=f"{told}:171.1:{told}:0")


def test_a_notifier_of_one_channel_posts_nowhere_else(client: HttpClient) -> None:
    with slack() as receiver:
        send(client, receiver, {"channel": "C1"}, channel="C2")
    assert [seen.json["channel"] for seen in receiver.requests] == ["C1"]


def test_a_thread_goes_on_in_the_channel_that_the_job_names(client: HttpClient) -> None:
    with slack() as receiver:
        send(client, receiver, CHOICE, thread="j1", channel="C2", root="C2:170.5:C2:1")
        send(client, receiver, CHOICE, thread="j1", channel="C2", root="C1:170.5:C1:1")
    assert [(seen.json["channel"], seen.json.get("thread_ts")) for seen in receiver.requests] == [
        ("C2", "170.5"),
        ("C2", None),
    ]


def state(sequence: int, *, job: str = "j1", thread: str = "b/j1") -> dict[str, Any]:
    return {"event": f'{{"subject":"{job}","sequence":"{sequence}"}}', "thread": thread}


@pytest.mark.parametrize("thread", ["job", "none"])
def test_the_receipt_tells_which_state_the_root_shows(client: HttpClient, thread: str) -> None:
    with slack() as receiver:
        first = send(client, receiver, {"update": True, "thread": thread}, **state(1))
        later = send(client, receiver, {"update": True, "thread": thread}, **state(3), root="C1:171.1:C1:1")
    assert (first, later) == (Sent("C1:171.1:C1:1"), Sent("C1:171.1:C1:3"))


def test_an_older_state_told_again_does_not_turn_the_root_back(client: HttpClient) -> None:
    with slack() as receiver:
        outcome = send(client, receiver, {"update": True, "thread": "job"}, **state(2), root="C1:171.1:C1:3")
    assert outcome == Sent()
    assert paths(receiver) == ["/api/chat.postMessage"]
    assert receiver.requests[0].json["thread_ts"] == "171.1"


def test_an_older_state_has_nothing_to_say_where_the_root_is_all_there_is(client: HttpClient) -> None:
    with slack() as receiver:
        assert send(client, receiver, {"update": True}, **state(2), root="C1:171.1:C1:3") == Sent()
    assert paths(receiver) == []


def test_the_same_state_is_edited_again(client: HttpClient) -> None:
    with slack() as receiver:
        outcome = send(client, receiver, {"update": True}, **state(3), root="C1:171.1:C1:3")
    assert outcome == Sent("C1:171.1:C1:3")
    assert paths(receiver) == ["/api/chat.update"]


def test_states_of_several_jobs_of_a_workflow_are_not_compared(client: HttpClient) -> None:
    of_workflow = state(1, job="j2", thread="b/w1")
    with slack() as receiver:
        outcome = send(client, receiver, {"update": True, "thread": "workflow"}, **of_workflow, root="C1:171.1:C1:0")
    assert outcome == Sent("C1:171.1:C1:0")
    assert paths(receiver) == ["/api/chat.update", "/api/chat.postMessage"]


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
