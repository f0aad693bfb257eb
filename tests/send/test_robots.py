"""Robots of every tool, sent to their look-alikes: nothing is injected, nothing is too long, no secret is shown."""

from __future__ import annotations

import html
import json
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest

from bridge.model import Attempt, Reason, Rejected, RetryLater, Sent
from bridge.notifiers import RobotNotifier
from bridge.send.registry import integration_of
from bridge.simulator.robots import ROBOTS, Robot
from bridge.simulator.web import Answer, json_answer
from tests.support.nouns import NOON
from tests.support.receivers import a_delivery, attempt_to

SECRET = "SEC-hush-0123456789"
NOTIFIERS: dict[str, Callable[..., RobotNotifier]] = {kind.type: kind for kind in RobotNotifier.__subclasses__()}
PAGE = "https://bridge.example.com"
HOSTILE = (
    "[x](https://evil.example).mp4", "](https://evil.example).mp4", "![x](https://evil.example/p.png)",
    "<@all>", "<at id=all></at>", "@all @li.lei", "<https://evil.example>", "<font color=red>", "**b** _i_ `c`",
    "&#60;at id=all&#62;", "\\[x\\](https://evil.example)", "|a|b|", "```", "# h", "> q", "\u202ecod.exe",
)  # fmt: skip

each_tool = pytest.mark.parametrize("tool", ROBOTS)


def a_robot(tool: str, **facts: Any) -> Robot:
    return ROBOTS[tool](clock=NOON.timestamp, **facts)


def sent(robot: Robot, *, secret: str | None = None, **delivery: Any) -> Attempt:
    tool = next(name for name, kind in ROBOTS.items() if kind is type(robot))
    return attempt_to(NOTIFIERS[tool](name="ops", url=robot.webhook, secret=secret), **delivery)


def shown(tool: str, **says: Any) -> Any:
    """Return what the group shows of a message that is accepted."""
    with a_robot(tool) as robot:
        assert isinstance(sent(robot, says={"public_url": PAGE} | says).outcome, Sent)
        (post,) = robot.posts
    return post


def readable(tool: str, text: str) -> str:
    """Return a text as people read it: signs that stand in the place of others are these."""
    return unicodedata.normalize("NFKC", html.unescape(text) if tool == "feishu" else text)


def test_every_look_alike_has_a_notifier_of_its_type():
    assert ROBOTS.keys() <= NOTIFIERS.keys()


@each_tool
def test_a_message_says_what_happened_and_leads_to_the_job(tool):
    post = shown(tool, file="demo.mp4", text="bad input\n会议 😀", fields=[["queue", "vod"]])
    text = readable(tool, post.text)
    assert "[demo.mp4](" in text
    assert all(part in text for part in ("Transcode failed: ", "bad input", "会议 😀", "queue: vod", "failed"))
    assert post.links[0] == f"{PAGE}/jobs/j1"
    assert post.mentions == ()


@each_tool
@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_leads_nowhere_calls_nobody_and_is_readable(tool, name):
    post = shown(tool, title=f"failed: {name}", file=name, text=name, fields=[["name", name], [name, "x"]], rule=name)
    assert post.links[0] == f"{PAGE}/jobs/j1"
    assert all(link.startswith(PAGE) for link in post.links)
    assert post.mentions == ()
    if name.isprintable():
        assert readable(tool, post.text).count(unicodedata.normalize("NFKC", name)) >= 4


@each_tool
@pytest.mark.parametrize("sign", ["x", "会", "😀", '"', "\n", "<", "[", "\\"])
def test_60_000_bytes_of_any_sign_are_cut_to_what_the_tool_takes(tool, sign):
    long = sign * (60_000 // len(sign.encode()))
    post = shown(tool, title=f"t {long}", text=long, fields=[[long, long]] * 10, file=long)
    assert "…" in post.text
    assert "\ufffd" not in post.text
    assert post.links[-1] == f"{PAGE}/silences/add?rule=failed"  # what is told last is still there
    assert "&#6" not in post.text.replace("&#60;", "")  # no entity is cut in two


@each_tool
def test_mentions_call_those_of_the_tool_and_no_others(tool):
    everybody = "@all" if tool == "wecom" else "all"
    assert shown(tool, mention=[f"{tool}:li.lei", "other:x", "U024BE7LH"]).mentions == ("li.lei",)
    assert shown(tool, mention=["here"]).mentions in [(everybody,), ("all",)]


@each_tool
def test_a_limit_that_is_exceeded_is_waited_for_by_all_that_use_the_robot(tool):
    with a_robot(tool) as robot:
        ends = [sent(robot, n=n, id=f"d_{n}").outcome for n in range(21)]
    first_refused = next(end for end in ends if not isinstance(end, Sent))
    assert ends.index(first_refused) == (5 if tool == "feishu" else 20)
    assert isinstance(first_refused, RetryLater)
    assert first_refused.reason == Reason.RATE_LIMITED
    assert first_refused.after
    assert first_refused.limit
    assert robot.key not in first_refused.limit


@each_tool
def test_an_unknown_key_pauses_the_notifier_and_shows_no_secret(tool):
    with a_robot(tool) as robot:
        notifier = NOTIFIERS[tool](name="ops", url=robot.webhook + "-hush", secret=SECRET)
        made = attempt_to(notifier)
    assert isinstance(made.outcome, Rejected)
    assert (made.outcome.pause, made.outcome.reason) == (True, Reason.GONE)
    facts = str(integration_of(notifier).facts())
    preview = str(integration_of(notifier).preview(a_delivery(), at=NOON, agent="x"))
    for text in (str(made), repr(notifier), facts, preview):
        assert "hush" not in text
        assert SECRET not in text


@each_tool
@pytest.mark.parametrize("body", [b"<html>sign in</html>", b"[]", b"{}", b"\xff", b""])
def test_what_is_not_the_tools_answer_is_no_acceptance(tool, body):
    with a_robot(tool) as robot:
        robot.fault = lambda _: Answer(body=body)
        outcome = sent(robot).outcome
    assert isinstance(outcome, RetryLater)
    assert "is not understood" in outcome.why


@each_tool
def test_a_code_that_is_not_known_is_tried_a_few_times(tool):
    with a_robot(tool) as robot:
        robot.fault = lambda _: json_answer({"errcode": 987654, "code": 987654})
        outcome = sent(robot).outcome
    assert isinstance(outcome, RetryLater)
    assert outcome.attempts == 5


@each_tool
def test_the_words_of_the_tool_are_kept_without_a_secret(tool):
    with a_robot(tool) as robot:
        words = f"no: {robot.webhook} {SECRET}"
        robot.fault = lambda _: json_answer({"errcode": 310000, "code": 19021, "errmsg": words, "msg": words})
        made = sent(robot, secret=SECRET)
    assert robot.key not in f"{made.outcome} {made.answer}"
    assert SECRET not in f"{made.outcome} {made.answer}"


@each_tool
def test_a_repetition_says_so(tool):
    with a_robot(tool) as robot:
        sent(robot, unsure_at=NOON)
        (post,) = robot.posts
    assert "may be a repetition" in readable(tool, post.text)


@each_tool
def test_a_body_is_json_of_the_tools_shape(tool):
    with a_robot(tool) as robot:
        sent(robot)
        (request,) = robot.requests
    assert request.headers["content-type"] == "application/json; charset=utf-8"
    assert isinstance(json.loads(request.body), dict)
