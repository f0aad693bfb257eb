"""WeCom's robots: what a group is shown, and what answers mean."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridge.model import Attempt, Rejected, RetryLater, Sent
from bridge.notifiers import WecomNotifier
from bridge.send.wecom import LIMIT
from tests.support.receivers import AGAIN, Receiver, answering, attempt_to

OK = answering("200 OK", b'{"errcode":0,"errmsg":"ok"}')


def sent(**delivery: Any) -> tuple[Attempt, str]:
    """Return the attempt, and the markdown that the robot was sent."""
    with Receiver(OK) as receiver:
        made = attempt_to(WecomNotifier(name="ops", url=receiver.url), **delivery)
    (request,) = receiver.requests
    assert (request.path, request.json["msgtype"]) == ("/hook?token=hush", "markdown")
    return made, request.json["markdown"]["content"]


def answered(status: str, body: bytes) -> Any:
    with Receiver(answering(status, body)) as receiver:
        return attempt_to(WecomNotifier(name="ops", url=receiver.url)).outcome


def test_a_group_is_shown_what_slack_is_shown() -> None:
    made, text = sent(says={"public_url": "https://bridge.example.com", "file": "demo.mp4"}, note="Once more.")
    assert isinstance(made.outcome, Sent)
    assert text.splitlines() == [
        "**❌ Transcode failed: [demo.mp4](https://bridge.example.com/jobs/j1)**",
        "bad input",
        "queue: vod",
        "Once more.",
        "failed · j1 · [Silence this rule](https://bridge.example.com/silences/add?rule=failed)",
    ]


@pytest.mark.parametrize("text", ["失败" * 4000, "👩‍👩‍👧‍👦" * 3000, "x" * 60_000, "[a](b)" * 5000, "\u202e" * 9000])
def test_a_long_text_is_cut_between_characters_and_the_rest_stays(text: str) -> None:
    _, shown = sent(says={"text": text, "public_url": "https://bridge.example.com"}, note="n" * 9000)
    assert LIMIT - 40 <= len(shown.encode()) <= LIMIT
    assert "…" in shown
    assert shown.endswith("[Silence this rule](https://bridge.example.com/silences/add?rule=failed)")


@pytest.mark.parametrize("part", ["title", "text", "file", "rule"])
def test_all_parts_too_long_are_each_cut(part: str) -> None:
    long = dict.fromkeys(("title", "text", "rule"), "长" * 5000) | {"fields": [["名" * 500, "值" * 900]] * 30}
    _, shown = sent(says={**long, part: "🎬" * 5000})
    assert len(shown.encode()) <= LIMIT


@pytest.mark.parametrize(
    "name", ["[x](https://evil.example)", "<@all>", "<font color=red>", "a`b*c**d", "](https://e)"]
)
def test_a_name_makes_no_link_mention_or_markup(name: str) -> None:
    _, shown = sent(says={"title": f"Transcode failed: {name}", "text": name, "fields": [[name, name]]})
    assert not set("[]<>`") & set(shown)
    assert shown.count("*") == 4  # of the title, in bold


def test_those_of_wecom_and_everybody_are_called_and_no_others() -> None:
    _, shown = sent(says={"mention": ["U024BE7LH", "wecom:zhang.san", "feishu:ou_1", "channel"]})
    assert shown.splitlines()[-1] == "<@zhang.san> <@all>"


def test_many_long_ids_leave_room_for_the_rest() -> None:
    says = {"title": "会" * 250, "fields": [["名" * 90, "值" * 900]] * 10, "mention": [f"wecom:{'u' * 64}"] * 20}
    _, shown = sent(says=says, note="n" * 900)
    assert len(shown.encode()) <= LIMIT
    assert shown.splitlines()[-1].startswith(f"<@{'u' * 64}> <@")


def test_the_longest_name_of_a_file_is_still_named_in_a_link() -> None:
    name = "课" * 283
    _, shown = sent(
        says={"title": f"Transcode failed: {name}", "file": name, "public_url": "https://bridge.example.com"}
    )
    assert shown.startswith("**❌ Transcode failed: [课课课")
    assert "课…](https://bridge.example.com/jobs/j1)**" in shown


@pytest.mark.parametrize("more", ["&debug=1", "#x", ""])
def test_one_robot_has_one_limit_however_its_address_is_written(more: str) -> None:
    one, other = (f"https://qyapi.weixin.qq.com{port}/cgi-bin/webhook/send?key=hush{more}" for port in ("", ":443"))
    limits = {WecomNotifier(name="ops", url=url).limit_of(None).name for url in (one, other)}
    assert len(limits) == 1


@pytest.mark.parametrize("before", range(160, 201, 5))
def test_of_a_key_that_is_repeated_where_an_answer_is_cut_no_part_is_shown(before: int) -> None:
    said = json.dumps({"errcode": 93000, "errmsg": f"{'x' * before} SECRETKEYabcdef0123456789 {'y' * 90}"})
    with Receiver(answering("200 OK", said.encode())) as receiver:
        url = receiver.url.replace("token=hush", "key=SECRETKEYabcdef0123456789")
        outcome = attempt_to(WecomNotifier(name="ops", url=url)).outcome
    assert "SECRET" not in str(outcome)


def test_what_may_be_a_repetition_says_so() -> None:
    _, shown = sent(**AGAIN)
    assert "An earlier attempt was not answered, so this may be a repetition." in shown


@pytest.mark.parametrize(
    ("code", "pauses", "said"),
    [
        (93000, True, "WeCom says 93000 (hm): add the robot to the group again and give its new url to the notifier"),
        (40058, False, "WeCom says 40058 (hm): it refuses this message"),
    ],
)
def test_what_is_refused_says_what_to_do(code: int, pauses: bool, said: str) -> None:
    outcome = answered("200 OK", json.dumps({"errcode": code, "errmsg": "hm"}).encode())
    assert isinstance(outcome, Rejected)
    assert (outcome.why, outcome.pause) == (said, pauses)


@pytest.mark.parametrize(
    ("status", "body", "attempts"),
    [
        ("200 OK", b'{"errcode":-1,"errmsg":"system busy"}', None),
        ("200 OK", b'{"errcode":77777}', 5),
        ("200 OK", b"<html>log in</html>", None),
        ("200 OK", b"{}", None),
        ("200 OK", b'{"errcode":false}', 5),
        ("200 OK", b'{"errcode":"0"}', None),
        ("500 Oh", b'{"errcode":0}', None),
        ("502 Bad Gateway", b"", None),
        ("200 OK", b"[" * 5000, None),
    ],
)
def test_what_is_not_understood_is_tried_again(status: str, body: bytes, attempts: int | None) -> None:
    outcome = answered(status, body)
    assert isinstance(outcome, RetryLater)
    assert outcome.attempts == attempts
