"""Notifiers of the type "dingtalk": custom robots in groups of DingTalk (钉钉).

open.dingtalk.com, "custom robot access", "customize robot security settings" and "robot message types": Markdown with a
title, mentions by the ids of users, a signature, 20 messages a minute, and ten minutes of refusals for more. The pages
could be read in copies only, on 2026-12-01: blog.csdn.net/lxw1844912514/article/details/125780346,
cnblogs.com/Fogram-c/p/16992729.html. Seen in answers: a body of at most 20,000 bytes and 460101
(timonwong/prometheus-webhook-dingtalk, issue 30), 130101 (ccfos/nightingale, issue 369), 310000 with its four causes in
words (jenkinsci/dingtalk-plugin, issues 88 and 116), and 300001, 300005 and 660026, which the pages do not have. Not
confirmed: whether a refused message makes the ten minutes longer, and -1, 88 and 90030.
"""

from __future__ import annotations

import binascii
import hmac
import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from bridge.model import Reason
from bridge.notifiers import DingTalkNotifier
from bridge.send.chat import Markdown, Shown, message, plain_title
from bridge.send.robot import Meaning, Robot, again, limit, pause, refused

LIMIT = 17_000  # bytes of the text, as they stand in a body of at most 20,000
_TITLE = 300  # bytes, before JSON escapes some
_NEW_URL = "add the robot to the group again and give its new url to the notifier"
_SECURITY = (
    "compare its security settings with the notifier: the secret, the keywords, the addresses; and set the clock"
)
_ENABLE = "enable the robot in the settings of the group"
_LOCKED_OUT = timedelta(minutes=10)


class _Markdown(Markdown):
    def escaped(self, character: str) -> str:
        # Two spaces make a line break of one line's end ("robot message types").
        return "  \n  " if character == "\n" else super().escaped(character)

    def size(self, text: str) -> int:
        return len(json.dumps(text, ensure_ascii=False).encode()) - 2


CODES: Mapping[int, Meaning] = {
    -1: again(),  # "busy"
    88: again(),
    40035: refused(),  # a member is missing
    43004: refused(),  # the type of the body
    90030: limit(timedelta(hours=1)),  # as many as the organisation may send in some time
    130101: limit(_LOCKED_OUT),
    300001: pause(_NEW_URL, Reason.GONE),  # the token does not exist
    300005: pause(_NEW_URL, Reason.GONE),  # likewise
    310000: pause(_SECURITY),
    400013: pause("the group was dissolved: name the robot of another", Reason.CHANNEL),
    400101: pause(_NEW_URL, Reason.GONE),  # as 300001
    400102: pause(_ENABLE, Reason.GONE),
    400105: refused(),  # type of message
    400106: pause("the robot is not in the group: add it, and give its new url to the notifier", Reason.CHANNEL),
    410100: limit(_LOCKED_OUT),
    430101: refused(),  # a link that DingTalk takes for unsafe
    430102: refused(),  # a text that it takes for improper
    430103: refused(),  # a picture
    430104: refused(),  # anything
    460101: refused(),  # too long
    660026: limit(_LOCKED_OUT),
}


class DingTalk(Robot):
    tool = "DingTalk"
    codes = CODES

    _notifier: DingTalkNotifier

    def url(self, now: datetime) -> str:
        """Return the robot's URL, signed: the time in milliseconds is accepted for an hour."""
        if not self._notifier.secret:
            return self._notifier.url
        timestamp = str(int(now.timestamp() * 1000))
        query = urlencode({"timestamp": timestamp, "sign": signature(timestamp, self._notifier.secret)})
        return f"{self._notifier.url}&{query}"

    def body(self, shown: Shown, now: datetime) -> Mapping[str, Any]:  # noqa: ARG002 - the URL is signed
        users = shown.called("dingtalk")
        markup = _Markdown()
        text = message(shown, LIMIT, markup, end=[f"@{user}" for user in users], between=markup.escaped("\n"))
        return {
            "msgtype": "markdown",
            "markdown": {"title": plain_title(shown, _TITLE), "text": text},
            "at": {"atUserIds": users, "isAtAll": shown.calls_everybody},
        }

    def code(self, answer: Mapping[str, Any]) -> tuple[Any, Any]:
        code, words = super().code(answer)
        # The pages show it in quotes, answers have none.
        return int(code) if isinstance(code, str) and re.fullmatch(r"-?\d{1,9}", code) else code, words

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "signed": bool(self._notifier.secret)}


def signature(timestamp: str, secret: str) -> str:
    digest = hmac.digest(secret.encode(), f"{timestamp}\n{secret}".encode(), "sha256")
    return binascii.b2a_base64(digest, newline=False).decode()
