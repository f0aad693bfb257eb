"""The look-alikes of group robots, through plain HTTP, with signatures made as the tools' pages make them."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any
from urllib.parse import quote_plus

import pytest
import requests

from bridge.simulator.robots import ROBOTS, DingTalk, Feishu, Robot, Wecom
from tests.simulator.test_slack import Clock

SECRET = "SEC0123456789"
HOUR_S = 3600


def markdown(text: str, **more: Any) -> dict[str, Any]:
    """Return a message of WeCom's, or with a title of DingTalk's."""
    body = {"title": more.pop("title"), "text": text} if "title" in more else {"content": text}
    return {"msgtype": "markdown", "markdown": body, **more}


def card(*lines: str, title: str = "a.mp4", **more: Any) -> dict[str, Any]:
    elements = [{"tag": "markdown", "content": line} for line in lines]
    header = {"title": {"tag": "plain_text", "content": title}}
    return {
        "msg_type": "interactive",
        "card": {"schema": "2.0", "header": header, "body": {"elements": elements}},
    } | more


MESSAGES = {
    "wecom": markdown("failed [a.mp4](https://b.example/1) <@li.lei>"),
    "dingtalk": markdown("failed [a.mp4](https://b.example/1) @li.lei", title="a.mp4", at={"atUserIds": ["li.lei"]}),
    "feishu": card("failed [a.mp4](https://b.example/1) <at id=li.lei></at>"),
}


def post(robot: Robot, said: Any, *, url: str = "") -> dict[str, Any]:
    response = requests.post(url or robot.webhook, json=said, timeout=10)
    assert response.status_code == 200
    return response.json()


def code(robot: Robot, said: Any, *, url: str = "") -> int:
    answer = post(robot, said, url=url)
    return answer.get("errcode", answer.get("code"))


def dingtalk_url(robot: DingTalk, *, at: float, secret: str = SECRET) -> str:
    """Return the address as the Python example of DingTalk's page signs it."""
    stamp = str(round(at * 1000))
    digest = hmac.new(secret.encode(), f"{stamp}\n{secret}".encode(), digestmod=hashlib.sha256).digest()
    return f"{robot.webhook}&timestamp={stamp}&sign={quote_plus(base64.b64encode(digest))}"


def feishu_signed(said: dict[str, Any], *, at: float, secret: str = SECRET) -> dict[str, Any]:
    """Return the body as the Python example of Feishu's page signs it."""
    stamp = str(int(at))
    digest = hmac.new(f"{stamp}\n{secret}".encode(), digestmod=hashlib.sha256).digest()
    return said | {"timestamp": stamp, "sign": base64.b64encode(digest).decode()}


@pytest.mark.parametrize("tool", ROBOTS)
def test_a_group_shows_what_was_accepted_with_its_links_and_whom_it_notifies(tool):
    clock = Clock()
    with ROBOTS[tool](clock=clock) as robot:
        answer = post(robot, MESSAGES[tool])
        (shown,) = robot.posts
    assert 0 in (answer.get("errcode"), answer.get("code"))
    assert shown.text.startswith("failed [a.mp4]")
    assert (shown.at, shown.links, shown.mentions) == (clock.now, ("https://b.example/1",), ("li.lei",))
    assert shown.title == ("" if tool == "wecom" else "a.mp4")
    assert robot.answers == {0: 1}


@pytest.mark.parametrize(("tool", "refusal"), [("wecom", 93000), ("dingtalk", 300005), ("feishu", 19001)])
def test_another_key_is_refused_and_nothing_is_shown(tool, refusal):
    with ROBOTS[tool]() as robot:
        assert code(robot, MESSAGES[tool], url=robot.webhook + "x") == refusal
        assert (robot.posts, robot.answers) == ([], {refusal: 1})


@pytest.mark.parametrize(("tool", "refusal"), [("wecom", 45009), ("dingtalk", 130101)])
def test_the_21st_message_within_a_minute_is_refused(tool, refusal):
    clock = Clock()
    with ROBOTS[tool](clock=clock) as robot:
        for _ in range(20):
            assert code(robot, MESSAGES[tool]) == 0
            clock.now += 2.9  # 19 * 2.9 s < a minute
        assert code(robot, MESSAGES[tool]) == refusal
        assert len(robot.posts) == 20


def test_wecom_accepts_again_when_the_minute_is_over():
    clock = Clock()
    with Wecom(clock=clock) as robot:
        assert [code(robot, MESSAGES["wecom"]) for _ in range(21)] == [*[0] * 20, 45009]
        clock.now += 60
        assert code(robot, MESSAGES["wecom"]) == 0


def test_dingtalk_refuses_for_ten_minutes_after_it_was_asked_too_fast():
    clock = Clock()
    with DingTalk(clock=clock) as robot:
        assert [code(robot, MESSAGES["dingtalk"]) for _ in range(21)] == [*[0] * 20, 130101]
        clock.now += 9 * 60
        assert code(robot, MESSAGES["dingtalk"]) == 130101
        clock.now += 60
        assert code(robot, MESSAGES["dingtalk"]) == 0


def test_feishu_accepts_five_a_second_and_a_hundred_a_minute():
    clock = Clock()
    with Feishu(clock=clock) as robot:
        assert [code(robot, MESSAGES["feishu"]) for _ in range(6)] == [*[0] * 5, 11232]
        clock.now += 1
        for _ in range(95):
            clock.now += 0.25
            assert code(robot, MESSAGES["feishu"]) == 0
        clock.now += 1
        assert code(robot, MESSAGES["feishu"]) == 11232
        assert len(robot.posts) == 100


def test_a_shorter_minute_shortens_all_limits_and_not_the_age_of_signatures():
    clock = Clock()
    with DingTalk(clock=clock, minute_s=1, secret=SECRET) as robot:
        url = dingtalk_url(robot, at=clock.now)
        assert [code(robot, MESSAGES["dingtalk"], url=url) for _ in range(21)] == [*[0] * 20, 130101]
        clock.now += 10
        assert code(robot, MESSAGES["dingtalk"], url=url) == 0
        clock.now += HOUR_S
        assert code(robot, MESSAGES["dingtalk"], url=url) == 310000


@pytest.mark.parametrize(
    ("away_s", "accepted"), [(0, True), (HOUR_S, True), (-HOUR_S, True), (HOUR_S + 1, False), (-HOUR_S - 1, False)]
)
def test_a_signature_is_accepted_within_an_hour_of_its_time(away_s, accepted):
    clock = Clock()
    with DingTalk(clock=clock, secret=SECRET) as ding, Feishu(clock=clock, secret=SECRET) as feishu:
        at = clock.now + away_s
        assert code(ding, MESSAGES["dingtalk"], url=dingtalk_url(ding, at=at)) == (0 if accepted else 310000)
        assert code(feishu, feishu_signed(MESSAGES["feishu"], at=at)) == (0 if accepted else 19021)


def test_who_signs_with_another_secret_or_not_at_all_is_refused():
    clock = Clock()
    with DingTalk(clock=clock, secret=SECRET) as ding, Feishu(clock=clock, secret=SECRET) as feishu:
        other = dingtalk_url(ding, at=clock.now, secret="SECother")
        assert post(ding, MESSAGES["dingtalk"], url=other)["errmsg"] == "sign not match"
        assert code(ding, MESSAGES["dingtalk"]) == 310000
        assert code(feishu, feishu_signed(MESSAGES["feishu"], at=clock.now, secret="SECother")) == 19021
        assert code(feishu, MESSAGES["feishu"]) == 19021


@pytest.mark.parametrize(("robot_of", "refusal"), [(DingTalk, 310000), (Feishu, 19024)])
def test_a_message_needs_one_of_the_keywords(robot_of, refusal):
    tool = next(name for name, known in ROBOTS.items() if known is robot_of)
    with robot_of(keywords=["转码", "a.mp4"]) as robot:
        assert code(robot, MESSAGES[tool]) == 0
        robot.keywords = ("转码",)
        assert code(robot, MESSAGES[tool]) == refusal


@pytest.mark.parametrize(
    ("tool", "said", "refusal"),
    [
        ("wecom", [], 40008),
        ("wecom", {"msgtype": "card"}, 40008),
        ("wecom", {"msgtype": "markdown"}, 44004),
        ("wecom", markdown(""), 44004),
        ("wecom", markdown("会" * 1365 + "xx"), 40058),  # 3 * 1,365 + 2 = 4,097 bytes
        ("wecom", markdown("会" * 1365 + "x"), 0),
        ("wecom", {"msgtype": "text", "text": {"content": "x" * 2049}}, 40058),
        ("wecom", {"msgtype": "text", "text": {"content": "x" * 2048}}, 0),
        ("dingtalk", [], 40035),
        ("dingtalk", {"msgtype": "card"}, 400105),
        ("dingtalk", markdown("x"), 40035),
        ("dingtalk", markdown("", title="x"), 40035),
        ("dingtalk", markdown("x" * 20_000, title="x"), 460101),
        ("dingtalk", {"msgtype": "text", "text": {"content": "x"}}, 0),
        ("feishu", [], 9499),
        ("feishu", {}, 19002),
        ("feishu", {"msg_type": "image"}, 9499),
        ("feishu", {"msg_type": "text", "content": {}}, 9499),
        ("feishu", {"msg_type": "text", "content": {"text": "x"}}, 0),
        ("feishu", {"msg_type": "interactive"}, 11246),
        ("feishu", {"msg_type": "interactive", "card": {"elements": []}}, 11246),
        ("feishu", card("x" * 20_000), 9499),
    ],
)
def test_what_is_no_message_or_too_long_is_refused_with_the_tools_own_code(tool, said, refusal):
    with ROBOTS[tool]() as robot:
        assert code(robot, said) == refusal
        assert len(robot.posts) == (refusal == 0)


def test_dingtalk_wants_the_type_of_json():
    with DingTalk() as robot:
        answer = requests.post(robot.webhook, data=b"{}", timeout=10).json()
    assert answer["errcode"] == 43004


def test_wecom_mentions_in_markdown_but_not_in_its_second_version():
    with Wecom() as robot:
        post(robot, {"msgtype": "text", "text": {"content": "hi <@a>", "mentioned_list": ["b", "@all"]}})
        post(robot, {"msgtype": "markdown_v2", "markdown_v2": {"content": "hi <@a>"}})
        assert [shown.mentions for shown in robot.posts] == [("a", "b", "@all"), ()]


def test_dingtalk_notifies_whom_both_the_text_and_the_list_name():
    with DingTalk() as robot:
        post(robot, markdown("hi @a @c", title="x", at={"atUserIds": ["a", "b"]}))
        post(robot, markdown("hi", title="x", at={"isAtAll": True}))
        assert [shown.mentions for shown in robot.posts] == [("a",), ("all",)]


def test_what_is_escaped_for_feishu_leads_nowhere_and_notifies_nobody():
    with Feishu() as robot:
        post(robot, card("&#60;at id=all&#62; &#91;x&#93;&#40;https://evil.example&#41;"))
        (shown,) = robot.posts
    assert (shown.links, shown.mentions) == ((), ())


def test_a_card_of_feishu_is_titled_by_its_header_or_its_summary():
    summary = card("x")
    del summary["card"]["header"]
    summary["card"]["config"] = {"summary": {"content": "b.mp4"}}
    with Feishu() as robot:
        post(robot, card("x"))
        post(robot, summary)
        assert [shown.title for shown in robot.posts] == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize("tool", ROBOTS)
def test_only_posts_to_the_robots_path_are_answered(tool):
    with ROBOTS[tool]() as robot:
        assert requests.get(robot.webhook, timeout=10).status_code == 404
        assert requests.post(f"{robot.url}/elsewhere", json={}, timeout=10).status_code == 404
