"""Look-alikes of the group robots of WeCom, DingTalk, Feishu and Teams: they check keys, keep limits and texts.

A robot has one address with a key in it, and posts to one group. What it refuses it refuses in the body of a 200. Only
what a notifier may send is known here: texts, Markdown and Feishu's cards. Read 2026-12-01, if not said otherwise:

WeCom: developer.work.weixin.qq.com/document/path/99110 (shapes, sizes, 20 a minute) and /90455 (error codes). 40058 as
it was seen (dromara/domain-admin, issue 82). The page says nothing of a backslash, so here it changes nothing.

DingTalk: "custom robot access" and "robot message types" of open.dingtalk.com (shapes, signature, 20 a minute, ten
minutes of refusals), which could be read in copies only: blog.csdn.net/lxw1844912514/article/details/125780346,
cnblogs.com/Fogram-c/p/16992729.html. Codes as they were seen: 130101 (ccfos/nightingale, issue 369), 310000
(jenkinsci/dingtalk-plugin, issues 88 and 116; timonwong/prometheus-webhook-dingtalk, issue 197), 460101 (the latter's
issue 30), 300005 for an unknown token, where the page has 400101. Not confirmed: 40035 and 43004 for bodies that are no
message.

Feishu: open.feishu.cn/document/client-docs/bot-v3/add-custom-bot (shapes, signature, 100 a minute and 5 a second,
20 KB, codes 9499 and 19021 to 19024) and the page "Rich text" of its cards (Markdown, escapes). 11232, 11246, 19001 and
19002 as they stand in many logs. Not confirmed: what the KB are, and how an unknown path is answered.
"""

from __future__ import annotations

import base64
import hmac
import html
import json
import re
import threading
import time
from abc import abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from bridge.simulator.web import Answer, Request, WebServer, json_answer, text_answer

DEMO_KEY = "5f0d1b9e-simulator"  # opens nothing but a look-alike
STAMP_AGE_S = 3600  # a signature is accepted so long before and after its time
_LINK = re.compile(r"\[([^\[\]\n]*)\]\(([^()\s]+)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """A message as the group shows it.

    text: the markup, as it was sent. links: where it leads. mentions: the ids of whom it notifies, "all" for everybody.
    """

    at: float
    title: str
    text: str
    links: tuple[str, ...]
    mentions: tuple[str, ...]

    @property
    def plain(self) -> str:
        """What people read of the text."""
        return html.unescape(_LINK.sub(r"\1", self.text).replace("**", ""))


class Refused(Exception):
    """A refusal by one of the tool's codes."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


class _Windows:
    """Counts what was accepted within times; pages do not say whether a minute slides, so it does."""

    def __init__(self, limits: Sequence[tuple[int, float]]) -> None:
        self._limits = limits
        self._accepted: deque[float] = deque(maxlen=max(count for count, _ in limits))

    def is_full(self, now: float) -> bool:
        return any(sum(at > now - within_s for at in self._accepted) >= count for count, within_s in self._limits)

    def add(self, now: float) -> None:
        self._accepted.append(now)


class Robot(WebServer):
    """One robot and its group; a robot with a `secret` wants a signature, one with `keywords` one of them in the text.

    `minute_s` is how long the minute of its limits takes: less for a test that cannot wait. A second and ten minutes
    follow it, the age of a signature does not.
    """

    path: ClassVar[str]
    accepted: ClassVar[str] = "ok"
    limits: ClassVar[Sequence[tuple[int, float]]]  # so many messages in so many minutes
    too_fast: ClassVar[tuple[int, str]]
    refuses_for: ClassVar[float] = 0.0  # minutes, after messages came too fast
    no_keyword: ClassVar[tuple[int, str]]

    def __init__(
        self,
        *,
        key: str = DEMO_KEY,
        secret: str = "",
        keywords: Sequence[str] = (),
        minute_s: float = 60.0,
        clock: Callable[[], float] = time.time,
        port: int = 0,
    ) -> None:
        super().__init__(port=port, clock=clock)
        self.answers: Counter[int] = Counter()  # how often each code was answered; 0 is accepted
        self.key, self.secret, self.keywords = key, secret, tuple(keywords)
        self._minute_s = minute_s
        self._windows = _Windows([(count, minutes * minute_s) for count, minutes in self.limits])
        self._refuses_until = 0.0
        self._posts: list[Post] = []
        self._lock = threading.Lock()

    @property
    @abstractmethod
    def webhook(self) -> str:
        """The address that a person copies from the group's settings; it has the key."""

    @property
    def posts(self) -> list[Post]:
        """What the group shows, oldest first."""
        with self._lock:
            return list(self._posts)

    def respond(self, request: Request) -> Answer:
        if request.method != "POST" or not self._is_path(request.path):
            return text_answer("not found", status=404)
        try:
            self._accept(request)
        except Refused as refusal:
            self._count(refusal.code)
            return json_answer(self._answer(refusal.code, str(refusal)))
        self._count(0)
        return json_answer(self._answer(0, self.accepted))

    def _accept(self, request: Request) -> None:
        said = self._read(self._content(request), request.at)
        if self.keywords and not any(word in said.title + said.text for word in self.keywords):
            raise Refused(*self.no_keyword)
        with self._lock:
            self._check_rate(request.at)
            self._windows.add(request.at)
            self._posts.append(said)

    def _check_rate(self, now: float) -> None:
        if now < self._refuses_until:
            raise Refused(*self.too_fast)
        if self._windows.is_full(now):
            self._refuses_until = now + self.refuses_for * self._minute_s
            raise Refused(*self.too_fast)

    def _count(self, code: int) -> None:
        with self._lock:
            self.answers[code] += 1

    def _is_path(self, path: str) -> bool:
        return path == self.path

    # --- what differs between the tools ---------------------------------------------------------------------------

    @abstractmethod
    def _content(self, request: Request) -> Mapping[str, Any]:
        """Check key and signature; return the JSON object of the body."""

    @abstractmethod
    def _read(self, content: Mapping[str, Any], at: float) -> Post:
        """Check a message; return what it shows."""

    def _answer(self, code: int, why: str) -> dict[str, Any]:
        return {"errcode": code, "errmsg": why}


class Wecom(Robot):
    """The key is all: it knows no signature and no keywords."""

    path = "/cgi-bin/webhook/send"
    limits = ((20, 1.0),)
    too_fast = (45009, "api freq out of limit")
    _MOST_BYTES: ClassVar[Mapping[str, int]] = {"text": 2048, "markdown": 4096, "markdown_v2": 4096}
    _MENTION = re.compile(r"<@([^<>\s]+)>")

    @property
    def webhook(self) -> str:
        return f"{self.url}{self.path}?key={self.key}"

    def _content(self, request: Request) -> Mapping[str, Any]:
        if dict(request.query).get("key") != self.key:
            raise Refused(93000, "invalid webhook url, from ip: 127.0.0.1")
        content = _object(request.body)
        if content is None:
            # What is no JSON has no msgtype (developers.weixin.qq.com/community, "40008", read 2026-12-01).
            raise Refused(40008, "invalid message type. Warning: wrong json format.")
        return content

    def _read(self, content: Mapping[str, Any], at: float) -> Post:
        kind = str(content.get("msgtype"))
        if kind not in self._MOST_BYTES:
            raise Refused(40008, "invalid message type")
        text = _text(content, kind, "content")
        if not text:
            raise Refused(44004, "empty content")
        most = self._MOST_BYTES[kind]
        if len(text.encode()) > most:
            raise Refused(40058, f"{kind}.content exceed max length {most}. invalid Request Parameter")
        mentions = [] if kind == "markdown_v2" else self._MENTION.findall(text)
        if kind == "text":
            mentions += map(str, content["text"].get("mentioned_list", ()))
        return _post(at, text, links=[] if kind == "text" else _links(text), mentions=mentions)


class DingTalk(Robot):
    """Once more than 20 messages come within a minute, it refuses all for ten."""

    path = "/robot/send"
    limits = ((20, 1.0),)
    too_fast = (130101, "send too fast, exceed 20 times per minute")
    refuses_for = 10.0
    no_keyword = (310000, "keywords not in content")
    _MOST_BYTES = 20_000  # of the body

    @property
    def webhook(self) -> str:
        return f"{self.url}{self.path}?access_token={self.key}"

    def _content(self, request: Request) -> Mapping[str, Any]:
        query = dict(request.query)
        if query.get("access_token") != self.key:
            raise Refused(300005, "token is not exist")
        if self.secret:
            self._check_signature(query.get("timestamp", ""), query.get("sign"), request.at)
        if not request.headers.get("content-type", "").startswith("application/json"):
            raise Refused(43004, "invalid http header Content-Type, must be application/json;charset=utf-8")
        if len(request.body) > self._MOST_BYTES:
            raise Refused(460101, f"message too long, exceed {self._MOST_BYTES} bytes")
        content = _object(request.body)
        if content is None:
            raise Refused(40035, "缺少参数 json")
        return content

    def _check_signature(self, stamp: str, signature: str | None, now: float) -> None:
        if not _is_fresh(stamp, now, per_second=1000):
            raise Refused(310000, "invalid timestamp")
        if not _is_signed(signature, key=self.secret, text=f"{stamp}\n{self.secret}"):
            raise Refused(310000, "sign not match")

    def _read(self, content: Mapping[str, Any], at: float) -> Post:
        match content.get("msgtype"):
            case "text":
                title, text, links = "", _text(content, "text", "content"), []
            case "markdown":
                # The title stands in the list of chats and in notifications only.
                title, text = _text(content, "markdown", "title"), _text(content, "markdown", "text")
                if not title:
                    raise Refused(40035, "缺少参数 title")
                links = _links(text)
            case _:
                raise Refused(400105, "不支持的消息类型")
        if not text:
            raise Refused(40035, "缺少参数 content")
        return _post(at, text, title=title, links=links, mentions=self._mentions(content, text))

    @staticmethod
    def _mentions(content: Mapping[str, Any], text: str) -> list[str]:
        """Return whom the message notifies: who is in the text and in `at`. An "@" in the text alone does nothing."""
        at = content.get("at") or {}
        named = [str(who) for key in ("atUserIds", "atMobiles") for who in at.get(key) or ()]
        return [who for who in named if f"@{who}" in text] + (["all"] if at.get("isAtAll") else [])


class Feishu(Robot):
    path = "/open-apis/bot/v2/hook/"
    accepted = "success"
    limits = ((100, 1.0), (5, 1 / 60))
    too_fast = (11232, "frequency limited psm[lark.oapi.app_platform_runtime]appID[1500]")
    no_keyword = (19024, "Key Words Not Found")
    _MOST_BYTES = 20_000  # of the body; the page says 20 KB, and this is the smaller reading
    _MENTION = re.compile(r"""<at (?:user_)?id=["']?([^"'<>\s]+)["']?\s*/?>""")

    @property
    def webhook(self) -> str:
        return f"{self.url}{self.path}{self.key}"

    def _is_path(self, path: str) -> bool:
        return path.startswith(self.path)

    def _content(self, request: Request) -> Mapping[str, Any]:
        if request.path.removeprefix(self.path) != self.key:
            raise Refused(19001, "param invalid: incoming webhook access token invalid")
        content = _object(request.body)
        if content is None or len(request.body) > self._MOST_BYTES:
            raise Refused(9499, "Bad Request")
        if self.secret:
            self._check_signature(str(content.get("timestamp", "")), content.get("sign"), request.at)
        return content

    def _check_signature(self, stamp: str, signature: Any, now: float) -> None:
        # Time and secret are the key, and nothing is signed with it.
        signed = _is_signed(signature, key=f"{stamp}\n{self.secret}", text="")
        if not (signed and _is_fresh(stamp, now, per_second=1)):
            raise Refused(19021, "sign match fail or timestamp is not within one hour from current time")

    def _read(self, content: Mapping[str, Any], at: float) -> Post:
        match content.get("msg_type"):
            case "text":
                text = _text(content, "content", "text")
                if not text:
                    raise Refused(9499, "Bad Request")
                return _post(at, text, mentions=self._MENTION.findall(text))
            case "interactive":
                return self._card(content.get("card"), at)
            case None:
                raise Refused(19002, "params error, msg_type need")
            case _:
                raise Refused(9499, "Bad Request")

    def _card(self, card: Any, at: float) -> Post:
        """Return a card (JSON 2.0) of Markdown, with a header, or a summary for the list of chats."""
        try:
            if card["schema"] != "2.0":
                raise Refused(11246, "parse card json err: this look-alike knows schema 2.0")
            title = _plain(card["header"]["title"]) if "header" in card else _text(card, "config", "summary", "content")
            text = "\n".join(self._elements(card["body"]["elements"]))
        except (KeyError, TypeError) as error:
            raise Refused(11246, f"parse card json err: {error}") from None
        return _post(at, text, title=title, links=_links(text), mentions=self._MENTION.findall(text))

    @staticmethod
    def _elements(elements: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        for element in elements:
            if element["tag"] == "markdown" and isinstance(element["content"], str):
                yield element["content"]
            elif element["tag"] != "hr":
                raise Refused(11246, f"ErrCode: 200861; unsupported type of block; ErrorValue: {element['tag']}")

    def _answer(self, code: int, why: str) -> dict[str, Any]:
        more = {"Extra": None, "StatusCode": 0, "StatusMessage": why} if code == 0 else {}
        return {"code": code, "data": {}, "msg": why, **more}


class Teams(Robot):
    """A workflow of Microsoft Teams: it answers by status, as `send/teams.py` says, and signs in its address."""

    path = "/workflows/1/triggers/manual/paths/invoke"
    limits = ((4, 1 / 60),)
    too_fast = (429, "TooManyRequests")
    _MOST_BYTES = 28_000  # of the body

    @property
    def webhook(self) -> str:
        return f"{self.url}{self.path}?sig={self.key}"

    def respond(self, request: Request) -> Answer:
        if request.method != "POST" or request.path != self.path:
            return json_answer({"error": {"code": "WorkflowNotFound", "message": "not found"}}, status=404)
        try:
            self._accept(request)
        except Refused as refusal:
            self._count(refusal.code)
            return json_answer({"error": {"code": str(refusal), "message": ""}}, status=refusal.code)
        self._count(0)
        return Answer(status=202)

    def _content(self, request: Request) -> Mapping[str, Any]:
        if dict(request.query).get("sig") != self.key:
            raise Refused(401, "AuthorizationFailed")
        if len(request.body) > self._MOST_BYTES:
            raise Refused(413, "RequestEntityTooLarge")
        content = _object(request.body)
        if content is None:
            raise Refused(400, "InvalidRequestContent")
        return content

    def _read(self, content: Mapping[str, Any], at: float) -> Post:
        try:
            (attachment,) = content["attachments"]
            card = attachment["content"]
            first, *rest = [self._line(line) for line in card["body"]]
            actions = [action["url"] for action in card["actions"]]
        except (KeyError, TypeError, ValueError):
            raise Refused(400, "InvalidRequestContent") from None
        links = [*first[1], *actions, *(url for _, urls in rest for url in urls)]
        return _post(at, "\n".join(text for text, _ in (first, *rest)), links=links)

    @staticmethod
    def _line(line: Mapping[str, Any]) -> tuple[str, list[str]]:
        """Return the text of a line, and where it leads."""
        runs = line["inlines"]
        return "".join(run["text"] for run in runs), [
            run["selectAction"]["url"] for run in runs if "selectAction" in run
        ]


ROBOTS: Mapping[str, type[Robot]] = {"wecom": Wecom, "dingtalk": DingTalk, "feishu": Feishu}  # that answer by codes
CHATS: Mapping[str, type[Robot]] = {**ROBOTS, "teams": Teams}


def _post(at: float, text: str, *, title: str = "", links: Sequence[str] = (), mentions: Sequence[str] = ()) -> Post:
    return Post(at=at, title=title, text=text, links=tuple(links), mentions=tuple(mentions))


def _links(text: str) -> list[str]:
    return [url for _, url in _LINK.findall(text)]


def _object(body: bytes) -> Mapping[str, Any] | None:
    try:
        content = json.loads(body)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _text(content: Mapping[str, Any], *keys: str) -> str:
    """Return the text under the keys; "" if there is none."""
    found: Any = content
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, str) else ""


def _plain(text: Mapping[str, Any]) -> str:
    if text["tag"] != "plain_text" or not isinstance(text["content"], str):
        raise TypeError("a header's title is plain_text")
    return text["content"]


def _is_fresh(stamp: str, now: float, *, per_second: int) -> bool:
    return stamp.isascii() and stamp.isdecimal() and abs(now - int(stamp) / per_second) <= STAMP_AGE_S


def _is_signed(signature: Any, *, key: str, text: str) -> bool:
    wanted = base64.b64encode(hmac.digest(key.encode(), text.encode(), "sha256")).decode()
    return isinstance(signature, str) and hmac.compare_digest(signature.encode(), wanted.encode())
