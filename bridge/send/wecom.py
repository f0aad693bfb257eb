"""Notifiers of the type "wecom": robots in groups of WeCom (企业微信).

developer.work.weixin.qq.com/document/path/99110, read 2026-12-01: the shapes, and `<@userid>` for a member of the
group, which the second version of its Markdown does not have; its limits, 4,096 bytes and 20 messages a minute, as
others quote them. Codes: .../path/90455, read the same day; 40058 and 93000 as they were seen (dromara/domain-admin,
issue 82; wes-lin/Cloud189Checkin, issue 175). Not confirmed: that `<@all>` calls everybody in Markdown, for how long
45009 lasts, 93004 and 93008.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from bridge.model import Reason
from bridge.send.chat import Markdown, Shown, message
from bridge.send.robot import Meaning, Robot, again, limit, pause, refused

LIMIT = 4096  # bytes
_NEW_KEY = "add the robot to the group again and give its new url to the notifier"

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
        ids = [*shown.called("wecom"), *(["all"] if shown.calls_everybody else [])]
        called = [f"<@{id_}>" for id_ in ids]
        return {"msgtype": "markdown", "markdown": {"content": message(shown, LIMIT, Markdown(), end=called)}}
