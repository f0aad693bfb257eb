"""Notifiers of the type "feishu": custom bots in groups of Feishu (飞书), and of Lark, which is the same elsewhere.

open.feishu.cn/document/client-docs/bot-v3/add-custom-bot, read 2026-12-01: shapes, signature, 100 messages a minute and
5 a second, a body of at most 20 KB, and the codes 9499, 11232 and 19021 to 19024. The page "Rich text" of cards in JSON
2.0, read the same day: Markdown, its escapes, mentions. As they stand in many logs: 19001, 19002, 19007, 11246, and the
9499 that means "too many". Not confirmed: which kilobytes, so the text leaves room; for how long 11232 lasts; 19036.
"""

from __future__ import annotations

import binascii
import hmac
import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from bridge.model import Reason
from bridge.notifiers import FeishuNotifier
from bridge.send.chat import Markdown, Shown, message, plain_title
from bridge.send.robot import Meaning, Robot, limit, pause, refused

LIMIT = 18_000  # bytes of the text, as they stand in a body of at most 20,000
_TITLE = 300  # bytes, before JSON escapes some
_NEW_URL = "add the bot to the group again and give its new url to the notifier"
_SECRET = "give the notifier the secret of the bot's security settings, and set the clock"  # noqa: S105 - advice
_TOO_MANY = 11232
_ESCAPED = {ord(sign): f"&#{ord(sign)};" for sign in "&<>[]()*_~`!#\\|:+-$"}


class _Markdown(Markdown):
    """Entities of HTML are how its signs are written as characters."""

    def escaped(self, character: str) -> str:
        return character.translate(_ESCAPED)

    def size(self, text: str) -> int:
        return len(json.dumps(text, ensure_ascii=False).encode()) - 2


CODES: Mapping[int, Meaning] = {
    9499: refused(),  # a body that it does not read, or one that is too long
    11246: refused(),  # a card that it does not read
    11310: refused(),  # likewise
    _TOO_MANY: limit(timedelta(seconds=10)),  # at full and half hours also for few
    19001: pause(_NEW_URL, Reason.GONE),  # the token in the URL
    19002: refused(),  # type of message
    19007: pause("enable the bot in the settings of the group", Reason.GONE),
    19021: pause(_SECRET),
    19022: pause("add the bridge's address to the bot's security settings"),
    19024: pause("add a keyword that is in every message to the bot's security settings, or sign instead"),
    19036: refused(),  # too long
}


class Feishu(Robot):
    tool = "Feishu"
    codes = CODES

    _notifier: FeishuNotifier

    def body(self, shown: Shown, now: datetime) -> Mapping[str, Any]:
        ids = [*shown.called("feishu"), *(["all"] if shown.calls_everybody else [])]
        called = [f"<at id={id_}></at>" for id_ in ids]
        card = {
            "schema": "2.0",
            "config": {"summary": {"content": plain_title(shown, _TITLE)}},  # what the list of chats shows
            "body": {"elements": [{"tag": "markdown", "content": message(shown, LIMIT, _Markdown(), end=called)}]},
        }
        return {**self._signed(now), "msg_type": "interactive", "card": card}

    def _signed(self, now: datetime) -> dict[str, str]:
        """Return the signature, if there is a secret: the time in seconds is accepted for an hour."""
        if not self._notifier.secret:
            return {}
        timestamp = str(int(now.timestamp()))
        return {"timestamp": timestamp, "sign": signature(timestamp, self._notifier.secret)}

    def code(self, answer: Mapping[str, Any]) -> tuple[Any, Any]:
        code, words = answer.get("code", answer.get("StatusCode")), answer.get("msg")
        too_many = code == 9499 and isinstance(words, str) and re.search("too many|frequency", words, re.IGNORECASE)
        return _TOO_MANY if too_many else code, words

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "signed": bool(self._notifier.secret)}


def signature(timestamp: str, secret: str) -> str:
    # Both are the key, and nothing is signed with it.
    digest = hmac.digest(f"{timestamp}\n{secret}".encode(), b"", "sha256")
    return binascii.b2a_base64(digest, newline=False).decode()
