"""Slack's history, in which the message of an earlier attempt is looked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from slack_sdk.errors import SlackApiError
from slack_sdk.web import SlackResponse

from bridge.http_headers import http_date
from bridge.model import Delivery
from bridge.notifiers import MOST_PAGES
from bridge.send.slack.answer import error_in
from bridge.send.slack.client import SlackWebClient

EVENT_TYPE = "ci_bridge_delivery"
_LOOK_BACK = timedelta(minutes=10)  # before a delivery was put into the outbox: clocks may disagree
_TOLERANCE = timedelta(seconds=15)  # of a time by Slack's own clock
_SECONDS = re.compile(r"[0-9]{1,12}\.[0-9]{1,9}")
_PAGE = 200  # messages
_NO_THREAD = ("thread_not_found", "message_not_found")
_CURSOR = re.compile(r"[!-~]{1,1000}")


class ThreadGone(Exception):
    """The thread, or its first message, is not there."""


class Unreadable(Exception):
    """A history that is none, or longer than what is read."""


def metadata(delivery: Delivery) -> dict[str, Any]:
    """Return what tells the message of a delivery from all others.

    What was sent before the delivery was resent is another message.
    """
    return {"event_type": EVENT_TYPE, "event_payload": {"delivery": delivery.id, "since": _since(delivery)}}


def find(
    client: SlackWebClient, delivery: Delivery, *, channel: str, thread_ts: str | None, now: datetime
) -> Mapping[str, Any] | None:
    """Return the message of a delivery in a thread or, without one, in the channel; None if it is not there.

    Raises ThreadGone, Unreadable, and what a call raises.
    """
    is_deleted = False
    for message in _messages(client, delivery, channel=channel, thread_ts=thread_ts, now=now):
        if _is_of(message, delivery):
            return message
        is_deleted |= message.get("subtype") == "tombstone" and message.get("ts") == thread_ts
    if is_deleted:  # then Slack may have put the message into the channel
        raise ThreadGone("deleted")
    return None


def _messages(
    client: SlackWebClient, delivery: Delivery, *, channel: str, thread_ts: str | None, now: datetime
) -> Iterator[Mapping[str, Any]]:
    call: Callable[..., SlackResponse] = partial(client.conversations_history, channel=channel)
    if thread_ts:
        call = partial(client.conversations_replies, channel=channel, ts=thread_ts)
    # Without `latest`, the first page has the oldest messages (slackhq/slack-api-docs, issue 4, read 2026-11-30).
    span = {"oldest": _ts((delivery.since or now) - _LOOK_BACK), "latest": _ts(now + _LOOK_BACK)}
    cursor: str | None = None
    for _ in range(MOST_PAGES):
        try:
            answer = call(cursor=cursor, include_all_metadata=True, limit=_PAGE, **span)
        except SlackApiError as fault:
            if thread_ts and (error := error_in(fault.response)) in _NO_THREAD:
                raise ThreadGone(error) from fault
            raise
        messages = answer.get("messages")
        if not isinstance(messages, list):
            raise Unreadable
        yield from (message for message in messages if isinstance(message, dict))
        cursor = _next_cursor(answer)
        if not cursor or (not thread_ts and _is_before(messages, delivery, answer, now)):
            return
    raise Unreadable


def _is_before(messages: Sequence[Any], delivery: Delivery, answer: SlackResponse, now: datetime) -> bool:
    """Tell whether the oldest of these messages was posted before the delivery was there, by Slack's clock."""
    slacks_now = http_date(str(answer.headers.get("date", "")))
    if not slacks_now or not delivery.since or abs(slacks_now - now) > _LOOK_BACK:
        return False
    match messages:
        case [*_, {"ts": str(ts)}] if _SECONDS.fullmatch(ts):
            return float(ts) < (delivery.since - now + slacks_now - _TOLERANCE).timestamp()
    return False


def _next_cursor(answer: SlackResponse) -> str | None:
    match answer.get("response_metadata"):
        case {"next_cursor": str(cursor)} if cursor:
            if not _CURSOR.fullmatch(cursor):
                raise Unreadable
            return cursor
    return None


def _is_of(message: Mapping[str, Any], delivery: Delivery) -> bool:
    match message.get("metadata"):
        case {"event_type": kind, "event_payload": {"delivery": id_} as payload}:
            since = _since(delivery)
            # Older versions wrote no `since`.
            return (kind, id_, payload.get("since", since)) == (EVENT_TYPE, delivery.id, since)
    return False


def _since(delivery: Delivery) -> str:
    return delivery.since.isoformat() if delivery.since else ""


def _ts(at: datetime) -> str:
    return f"{at.timestamp():.6f}"
