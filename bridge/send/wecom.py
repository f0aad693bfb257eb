"""Notifiers of the type "wecom": robots in groups of WeCom (企业微信).

https://developer.work.weixin.qq.com/document/path/91770: markdown of at most 4,096 bytes, 20 messages a minute, and
`<@userid>` for a member of the group. Codes: .../document/path/90313. The pages were not at hand on 2026-12-01; what is
said here was checked against what people quote from them and from its answers (github.com/dromara/domain-admin,
issue 82: 40058 for a text that is too long; github.com/wes-lin/Cloud189Checkin, issue 175: 93000 for an unknown key).
Not confirmed: that `<@all>` calls everybody in markdown, and for how long 45009 lasts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from bridge.model import Reason
from bridge.send.chat import Markdown, Shown, message
from bridge.send.robot import Meaning, Robot, again, limit, pause, refused

LIMIT = 4096  # bytes
_NEW_KEY = "add the robot to the group again and give its new url to the notifier"
_USER = re.compile(r"[A-Za-z0-9][\w.@-]{0,63}", re.ASCII)

CODES: Mapping[int, Meaning] = {
    -1: again(),  # "busy"
    40008: refused(),  # message type
    40033: refused(),  # a character that it does not take
    40058: refused(),  # a value out of range: the text is too long
    44004: refused(),  # no content
    45002: refused(),  # too long
    45009: limit(timedelta(minutes=1)),
    45033: limit(timedelta(minutes=1)),  # too many at the same time
    93000: pause(_NEW_KEY, Reason.GONE),
    93004: pause("the robot is disabled: enable it", Reason.GONE),
    93008: pause("the robot is not in the group: add it", Reason.CHANNEL),
}


class Wecom(Robot):
    tool = "WeCom"
    codes = CODES

    def body(self, shown: Shown, now: datetime) -> Mapping[str, Any]:  # noqa: ARG002 - nothing is signed
        called = " ".join(filter(None, map(_mention, shown.mentions)))
        return {"msgtype": "markdown", "markdown": {"content": message(shown, LIMIT, Markdown(), end=called)}}


def _mention(who: str) -> str | None:
    if who in ("here", "channel"):
        return "<@all>"
    tool, _, user = who.partition(":")
    return f"<@{user}>" if tool == "wecom" and _USER.fullmatch(user) else None
