"""Microsoft Teams: the card that a workflow posts, and what its answers mean."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.model import Attempt, Reason, Rejected, RetryLater, Sent
from bridge.notifiers import TeamsNotifier
from bridge.send.chat import Shown
from bridge.send.teams import LIMIT, card, size
from tests.support.receivers import AGAIN, NOON, REPETITION, Receiver, a_delivery, answering, attempt_to

BRIDGE = "https://bridge.example.com"
OK = answering("202 Accepted", b"")


def sent(**delivery: Any) -> tuple[Attempt, dict[str, Any]]:
    """Return the attempt, and the card that the workflow was sent."""
    with Receiver(OK) as receiver:
        made = attempt_to(TeamsNotifier(name="ops", url=receiver.url), **delivery)
    (request,) = receiver.requests
    assert request.headers["content-type"] == "application/json; charset=utf-8"
    (attachment,) = request.json["attachments"]
    assert request.json["type"] == "message"
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    content: dict[str, Any] = attachment["content"]
    assert (content["type"], content["version"]) == ("AdaptiveCard", "1.4")
    return made, content


def answered(status: str, body: bytes = b"", *headers: str) -> Any:
    with Receiver(answering(status, body, *headers)) as receiver:
        return attempt_to(TeamsNotifier(name="ops", url=receiver.url)).outcome


def lines(card: dict[str, Any]) -> list[str]:
    return ["".join(run["text"] for run in element["inlines"]) for element in card["body"]]


def links(card: dict[str, Any]) -> dict[str, str]:
    runs = [run for element in card["body"] for run in element["inlines"] if "selectAction" in run]
    return {run["text"]: run["selectAction"]["url"] for run in runs}


def elements(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object in a card."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from elements(inner)


def test_a_channel_is_shown_what_slack_is_shown() -> None:
    says = {"public_url": BRIDGE, "file": "demo.mp4", "text": "bad input\nSince 2026-11-21T09:00:00Z"}
    made, card = sent(says=says, note="Once more.")
    assert made.outcome == Sent()
    assert lines(card) == [
        "❌ Transcode failed: demo.mp4",
        "bad input",
        "Since 2026-11-21 09:00:00 UTC",
        "queue: vod",
        "Once more.",
        "failed · j1 · Silence this rule",
    ]
    assert links(card) == {"demo.mp4": f"{BRIDGE}/jobs/j1", "Silence this rule": f"{BRIDGE}/silences/add?rule=failed"}
    assert card["actions"] == []


def test_what_can_be_done_is_a_button() -> None:
    event = json.dumps({"type": "ci.job.overdue", "data": {"job": {"id": "j1"}}})
    _, card = sent(event=event, says={"public_url": BRIDGE})
    assert card["actions"] == [
        {"type": "Action.OpenUrl", "title": "Open the job", "url": f"{BRIDGE}/jobs/j1"},
        {"type": "Action.OpenUrl", "title": "Silence this rule", "url": f"{BRIDGE}/silences/add?rule=failed"},
    ]


@pytest.mark.parametrize("name", ["[x](https://evil.example)", "**b** _i_ <at>all</at>", "- a\r- b", "<b>&amp;\\*x\\*"])
def test_a_hostile_name_is_shown_as_it_is_and_is_no_markup(name: str) -> None:
    _, card = sent(says={"title": f"Failed: {name}", "text": name, "fields": [[name, name]], "file": name}, note=name)
    kinds = {element["type"] for element in elements(card) if "type" in element}
    assert kinds == {"AdaptiveCard", "RichTextBlock", "TextRun"}  # in none of which there is Markdown
    assert links(card) == {}
    assert "entities" not in card["msteams"]
    assert lines(card)[1] == name.replace("\r", "\\r")


def test_what_turns_a_text_around_is_spelt_out() -> None:
    _, card = sent(says={"text": "\u202egnp.exe"})
    assert lines(card)[1] == "\\u202egnp.exe"


@pytest.mark.parametrize(
    "text", ["失败" * 9000, "🎬" * 9000, "x" * 60_000, '"\\' * 9000, "a\n" * 9000, "\u202e" * 9000, "长\n" * 3000]
)
def test_a_long_text_is_cut_and_the_rest_stays(text: str) -> None:
    _, card = sent(says={"text": text, "public_url": BRIDGE}, note="n" * 9000)
    assert LIMIT * 0.9 <= size(card) <= LIMIT
    assert lines(card)[-1] == "failed · j1 · Silence this rule"


@settings(deadline=None)
@given(text=st.text(), times=st.integers(1, 400))
def test_no_text_makes_a_card_too_big(text: str, times: int) -> None:
    long = text * times
    says = {"title": long, "text": long, "fields": [[long, long]] * 12, "public_url": BRIDGE}
    assert size(card(Shown.of(a_delivery(says=says, note=long), NOON))) <= LIMIT


@pytest.mark.parametrize("part", ["title", "text", "file", "rule"])
def test_all_parts_too_long_are_each_cut(part: str) -> None:
    long = dict.fromkeys(("title", "text", "rule"), "长" * 5000) | {"fields": [["名" * 500, "值" * 900]] * 30}
    _, card = sent(says={**long, "public_url": BRIDGE, part: "🎬" * 5000}, note="注" * 5000)
    assert size(card) <= LIMIT
    assert lines(card)[0].endswith("…")


def test_a_link_that_does_not_fit_is_cut_with_its_label_or_left_out() -> None:
    label = "开" * 3000
    links_said = [[label, "https://h.example/x"], ["too long", f"https://h.example/{'x' * 600}"]]
    text = f"{label} (https://h.example/x)\ntoo long (https://h.example/{'x' * 600})"
    _, card = sent(says={"text": text, "links": links_said, "title": text, "file": None})
    assert set(links(card).values()) <= {"https://h.example/x"}
    assert size(card) <= LIMIT


def test_a_second_attempt_after_no_answer_says_that_it_may_be_a_repetition() -> None:
    _, card = sent(**AGAIN)
    assert REPETITION in lines(card)


@pytest.mark.parametrize(
    ("status", "body"),
    [("202 Accepted", b""), ("200 OK", b""), ("200 OK", b"1"), ("200 OK", b'{"sent":true}'), ("201 Created", b"{}")],
)
def test_what_a_workflow_accepts_is_sent_whatever_its_own_answer(status: str, body: bytes) -> None:
    assert answered(status, body) == Sent()


def test_a_workflow_that_is_off_has_not_accepted_whatever_the_status() -> None:
    outcome = answered("200 OK", b'{"error":{"code":"WorkflowTriggerIsNotEnabled","message":"off"}}')
    assert isinstance(outcome, Rejected)
    assert outcome.pause


@pytest.mark.parametrize("begin", [b"\r\n", b"\xef\xbb\xbf", b""])
def test_a_page_is_no_answer_of_a_workflow(begin: bytes) -> None:
    outcome = answered("200 OK", begin + b"<!DOCTYPE html><title>Sign in</title>")
    assert isinstance(outcome, RetryLater)
    assert outcome.why == "Teams's answer is not understood: a proxy or a login page may have answered"


@pytest.mark.parametrize(
    ("status", "code", "reason", "advice"),
    [
        ("401 Unauthorized", "DirectApiAuthorizationRequired", Reason.AUTH, "copy the workflow's url again"),
        ("403 Forbidden", "AuthorizationFailed", Reason.AUTH, "copy the workflow's url again"),
        ("404 Not Found", "WorkflowNotFound", Reason.GONE, "make the workflow again"),
        ("410 Gone", "", Reason.GONE, "make the workflow again"),
        ("400 Bad Request", "WorkflowTriggerIsNotEnabled", Reason.GONE, "turn the workflow on"),
        ("409 Conflict", "WorkflowTriggerIsNotEnabled", Reason.GONE, "turn the workflow on"),
    ],
)
def test_what_only_a_person_can_mend_pauses_the_notifier(status: str, code: str, reason: Reason, advice: str) -> None:
    outcome = answered(status, json.dumps({"error": {"code": code, "message": "no"}}).encode())
    assert isinstance(outcome, Rejected)
    assert (outcome.pause, outcome.reason) == (True, reason)
    assert advice in outcome.why


@pytest.mark.parametrize("status", ["400 Bad Request", "413 Payload Too Large"])
def test_a_card_that_is_refused_is_refused_alone(status: str) -> None:
    outcome = answered(status, b'{"error":{"code":"TriggerInputSchemaMismatch","message":"no"}}')
    assert isinstance(outcome, Rejected)
    assert (outcome.pause, outcome.reason) == (False, Reason.INVALID_PAYLOAD)


@pytest.mark.parametrize("status", ["500 Oh", "502 Bad Gateway", "408 Request Timeout"])
def test_other_answers_are_tried_again(status: str) -> None:
    outcome = answered(status, b'{"error":{"code":"NoResponse","message":"..."}}')
    assert isinstance(outcome, RetryLater)
    assert not outcome.whole_notifier
