"""What is read of Slack's history, and what becomes of a delivery when it fails, is slow, odd or hostile."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from bridge.model import Reason, RetryLater, Sent
from bridge.send.http_types import Failure, Reply
from bridge.send.slack.client import DEADLINE_S
from tests.support.receivers import AGAIN, NOON, REPETITION, of_delivery
from tests.support.slack_servers import ScriptedSlack, no, ok, says

POST, HISTORY, REPLIES = "chat.postMessage", "conversations.history", "conversations.replies"
THREAD = {"thread": "job"}
MINE = of_delivery("d_1", since=NOON)


def test_a_history_is_asked_for_from_its_newest_end_although_our_clock_may_be_wrong_by_minutes() -> None:
    slack = ScriptedSlack(ok(messages=[]))
    slack.send(THREAD, **AGAIN | {"since": NOON - timedelta(hours=3)})
    asked, hour, minutes = slack.contents[0], 3600, 600
    assert (asked["channel"], asked["include_all_metadata"]) == ("C1", "true")
    assert float(asked["oldest"]) == NOON.timestamp() - 3 * hour - minutes
    assert float(asked["latest"]) == NOON.timestamp() + minutes


@pytest.mark.parametrize(("root", "where"), [(None, ("C2", None)), ("C7:170.5:C2", ("C7", "170.5"))])
def test_a_message_is_looked_for_where_it_would_be_posted(root: str | None, where: tuple[str, str | None]) -> None:
    slack = ScriptedSlack(ok(messages=[]))
    slack.send(THREAD | {"channels": ("C1", "C2")}, **AGAIN, channel="C2", root=root)
    looked, posted = slack.contents
    assert (looked["channel"], looked.get("ts")) == (posted["channel"], posted.get("thread_ts")) == where


def test_a_history_says_nothing_of_threads() -> None:
    slack = ScriptedSlack(no("thread_not_found"))
    assert slack.send(THREAD, **AGAIN) == Sent("C1:171.2:C1")
    assert REPETITION in json.dumps(slack.contents[1]["blocks"])


def test_a_thread_that_is_not_there_is_followed_by_a_look_into_the_channel() -> None:
    slack = ScriptedSlack(no("thread_not_found"), ok(messages=[{"metadata": MINE, "ts": "171.9"}]))
    assert slack.send(THREAD, **AGAIN, root="C1:170.5:C1") == Sent("C1:171.9:C1")
    assert slack.calls == [REPLIES, HISTORY]


UNANSWERED = [
    says(500, b""),
    says(503, b"<html>sorry</html>"),
    no("internal_error"),
    Failure("no answer", Reason.TIMEOUT, seconds=7.5),
    Failure("the connection broke", Reason.CONNECTION),
]


@pytest.mark.parametrize("answer", UNANSWERED, ids=lambda answer: str(answer)[:40])
def test_a_history_that_fails_is_asked_once_more_before_anything_is_posted(answer: Reply | Failure) -> None:
    slack = ScriptedSlack(answer)
    outcome = slack.send(THREAD, **AGAIN | {"attempts": 2})
    assert isinstance(outcome, RetryLater)
    assert outcome.limit is None
    assert slack.calls == [HISTORY]


@pytest.mark.parametrize(
    "answer", [no("ratelimited"), says(429, b""), says(429, b"<html>")], ids=["200", "429", "page"]
)
def test_slacks_wish_to_wait_is_followed_however_often_it_comes(answer: Reply) -> None:
    slack = ScriptedSlack(answer)
    outcome = slack.send(THREAD, **AGAIN | {"attempts": 99})
    assert isinstance(outcome, RetryLater)
    assert (outcome.limit or "").startswith("slack reads ")
    assert slack.calls == [HISTORY]


@pytest.mark.parametrize("answer", UNANSWERED, ids=lambda answer: str(answer)[:40])
def test_a_history_that_fails_again_is_not_waited_for(answer: Reply | Failure) -> None:
    slack = ScriptedSlack(answer)
    assert slack.send(THREAD, **AGAIN | {"attempts": 3}) == Sent("C1:171.2:C1")
    assert REPETITION in json.dumps(slack.contents[1]["blocks"])


def test_a_look_up_leaves_half_of_the_deadline_to_the_post() -> None:
    slow = ok(messages=[], response_metadata={"next_cursor": "a"})
    slack = ScriptedSlack(replace(slow, seconds=5.0), Failure("no answer", Reason.TIMEOUT, seconds=2.5))
    assert slack.send(THREAD, **AGAIN | {"attempts": 3}) == Sent("C1:171.3:C1")
    assert [request.deadline_s for request in slack.requests] == [DEADLINE_S / 2, DEADLINE_S / 2 - 5, DEADLINE_S / 2]


@pytest.mark.parametrize(
    "answer",
    [
        no("missing_scope"),
        no("channel_not_found"),
        no("unknown_method"),
        no("never_heard_of"),
        says(404, b"<html>"),
        says(200, b"<html>"),
        says(200, b""),
        says(200, b"["),
        ok(),
        ok(messages=None),
        ok(messages={}),
        ok(messages="none"),
        ok(messages=[], response_metadata={"next_cursor": "\ud800"}),
        ok(messages=[], response_metadata={"next_cursor": "a b"}),
        ok(messages=[], response_metadata={"next_cursor": "a" * 1001}),
    ],
    ids=lambda answer: str(answer.body)[:60],
)
def test_what_is_no_history_is_as_one_that_may_not_be_read(answer: Reply) -> None:
    slack = ScriptedSlack(answer)
    assert slack.send(THREAD, **AGAIN) == Sent("C1:171.2:C1")
    assert REPETITION in json.dumps(slack.contents[1]["blocks"])


@pytest.mark.parametrize(
    "rest",
    [
        {},
        {"response_metadata": None},
        {"response_metadata": []},
        {"response_metadata": "x"},
        {"response_metadata": {}},
        {"response_metadata": {"next_cursor": ""}},
        {"response_metadata": {"next_cursor": None}},
        {"response_metadata": {"next_cursor": 7}},
        {"response_metadata": {"next_cursor": ["a"]}},
    ],
    ids=str,
)
def test_a_history_without_a_cursor_is_at_its_end(rest: dict[str, Any]) -> None:
    slack = ScriptedSlack(ok(messages=[], **rest))
    assert slack.send(THREAD, **AGAIN) == Sent("C1:171.2:C1")
    assert slack.calls == [HISTORY, POST]
    assert REPETITION not in json.dumps(slack.contents[1]["blocks"])


def test_cursors_without_end_are_followed_five_times() -> None:
    slack = ScriptedSlack(*[ok(messages=[{}], response_metadata={"next_cursor": "a"})] * 9)
    slack.send(THREAD, **AGAIN)
    assert slack.calls[:5] == [HISTORY] * 5
    assert HISTORY not in slack.calls[5:]


@pytest.mark.parametrize(
    "message",
    [
        None, 7, "d_1", [], {}, {"metadata": None}, {"metadata": []}, {"metadata": "x"}, {"metadata": {}},
        {"metadata": {"event_type": "ci_bridge_delivery"}},
        {"metadata": MINE | {"event_type": "another_app"}},
        {"metadata": MINE | {"event_type": ["ci_bridge_delivery"]}},
        {"metadata": MINE | {"event_payload": "d_1"}},
        {"metadata": MINE | {"event_payload": ["delivery"]}},
        {"metadata": MINE | {"event_payload": {"delivery": ["d_1"]}}},
        {"metadata": MINE | {"event_payload": {"delivery": None}}},
        {"metadata": MINE | {"event_payload": {"delivery": "d_11"}}},
        {"metadata": MINE | {"event_payload": {"delivery": "d_1", "since": None}}},
        {"metadata": MINE | {"event_payload": {"delivery": "d_1", "since": {}}}},
        {"subtype": ["tombstone"], "ts": {}},
    ],
    ids=str,
)  # fmt: skip
def test_nothing_odd_in_a_history_is_taken_for_the_message(message: Any) -> None:
    slack = ScriptedSlack(ok(messages=[message]))
    assert slack.send(THREAD, **AGAIN) == Sent("C1:171.2:C1")
    assert slack.calls == [HISTORY, POST]
    under = ScriptedSlack(ok(messages=[message]))
    assert under.send(THREAD, **AGAIN, root="C1:170.5:C1") == Sent()
    assert under.calls == [REPLIES, POST]


@pytest.mark.parametrize("ts", [None, 171.5, "", {}, "1:2", "\ud800"])
def test_a_message_that_is_found_without_a_place_is_sent_and_no_root(ts: Any) -> None:
    slack = ScriptedSlack(ok(messages=[{"metadata": MINE, "ts": ts}]))
    assert slack.send(THREAD, **AGAIN) == Sent()
    assert slack.calls == [HISTORY]


@pytest.mark.parametrize(
    ("ts", "date", "pages"),
    [
        (NOON - timedelta(minutes=8), NOON, 1),
        (NOON - timedelta(minutes=8), NOON - timedelta(minutes=5), 2),
        (NOON - timedelta(minutes=2), NOON, 2),
        (NOON - timedelta(minutes=8), None, 2),
        (NOON - timedelta(minutes=8), NOON + timedelta(days=300), 2),
    ],
    ids=["before it", "before it, but by a clock that is behind", "since", "no Date", "an odd Date"],
)
def test_a_history_is_read_back_to_when_the_delivery_came_by_slacks_clock(
    ts: datetime, date: datetime | None, pages: int
) -> None:
    message = {"type": "message", "ts": f"{ts.timestamp():.6f}"}
    header = [f"Date: {format_datetime(date, usegmt=True)}\r\n".encode()] if date else []
    body = {"ok": True, "messages": [message], "response_metadata": {"next_cursor": "more"}}
    slack = ScriptedSlack(says(200, json.dumps(body).encode(), *header), ok(messages=[]))
    slack.send(THREAD, **AGAIN | {"since": NOON - timedelta(minutes=5)})
    assert len([call for call in slack.calls if call.startswith("conversations")]) == pages
