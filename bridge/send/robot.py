"""Robots in the groups of chat tools: a message is one POST to a URL that holds a key, answered by a code in JSON."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, Literal

from bridge import shallow_json
from bridge.display import one_line
from bridge.model import Delivery, Outcome, Reason, Rejected, RetryLater, Sent, SharedLimit
from bridge.notifiers import RobotNotifier
from bridge.redact import Mask
from bridge.send.chat import Shown, perhaps_repeated, previewed
from bridge.send.http_types import Failure, Reply, Request, reason_of
from bridge.send.integration import PATH, Check, Egress, OneRequest, Preview, check_address
from bridge.url import origin

_HEADERS = ("content-type: application/json; charset=utf-8",)
_UNKNOWN_ATTEMPTS = 5  # what is refused with a code that is not known is attempted so often, then dead
_SAID = 200  # characters of a tool's own words that are kept


@dataclass(frozen=True, slots=True)
class Meaning:
    """What to do about a code.

    remedy: "pause": nothing will be accepted until a person has followed the advice. "refused": this message alone,
        for good. "limit": too many messages, for `after` unless the answer says how long. "again": it passes by itself.
    """

    remedy: Literal["pause", "refused", "limit", "again"]
    advice: str = ""
    reason: Reason = Reason.SERVER_ERROR
    after: timedelta | None = None


_NEW_URL = "add the robot again and give its new url to the notifier"


def pause(advice: str, reason: Reason = Reason.AUTH) -> Meaning:
    return Meaning("pause", advice, reason)


def refused() -> Meaning:
    return Meaning("refused", "it refuses this message", Reason.INVALID_PAYLOAD)


def limit(after: timedelta) -> Meaning:
    return Meaning("limit", "too many messages", Reason.RATE_LIMITED, after)


def again() -> Meaning:
    return Meaning("again")


class Robot(OneRequest):
    """A robot of one tool; its class says how a message is written, and what each code means.

    Where there is no code that is known, the status counts.
    """

    tool: ClassVar[str]  # its name, for people
    codes: ClassVar[Mapping[Any, Meaning]]
    statuses: ClassVar[Mapping[int, Meaning]] = dict.fromkeys((404, 410), pause(_NEW_URL, Reason.GONE))
    counts_retry_after = True

    def __init__(self, notifier: RobotNotifier) -> None:
        self._notifier = notifier
        self._mask = Mask(notifier.hidden)

    @abstractmethod
    def body(self, shown: Shown, now: datetime) -> Mapping[str, Any]:
        """Return the body of a message; `now` is when it is signed."""

    def url(self, now: datetime) -> str:  # noqa: ARG002 - for tools whose signature is in it
        return self._notifier.url

    def code(self, answer: Mapping[str, Any]) -> tuple[Any, Any]:
        """Return the code in an answer, and what the tool says beside it."""
        return answer.get("errcode"), answer.get("errmsg")

    def accepts(self, reply: Reply, code: Any) -> bool:
        """Tell whether an answer means that the message was accepted."""
        return 200 <= reply.status < 300 and code == 0 and not isinstance(code, bool)

    def request(self, delivery: Delivery, now: datetime) -> Request:
        if delivery.unsure_at:
            delivery = perhaps_repeated(delivery)
        body = json.dumps(self.body(Shown.of(delivery, now), now), ensure_ascii=False)
        return Request(self.url(now), _HEADERS, body.encode())

    def outcome(self, ended: Reply | Failure, now: datetime) -> Outcome:
        if isinstance(ended, Failure):
            return ended.outcome
        code, words = self.code(_object(ended.body))
        if self.accepts(ended, code):
            return Sent()
        meaning = self.codes.get(code) if isinstance(code, int | str) else None
        if ended.status == 429:
            meaning = limit(self._limit.interval)
        after = ended.retry_after(now)
        if meaning is None:
            return self._unknown(ended.status, code, after)
        # Masked before it is cut: of a secret that is cut, a part would be shown.
        said = f" ({one_line(self._mask(words), _SAID)})" if isinstance(words, str) and words else ""
        return self._follows(meaning, f"{self.tool} says {429 if ended.status == 429 else code}{said}", after)

    def _unknown(self, status: int, code: Any, after: timedelta | None) -> Outcome:
        """A code that is not documented, or the answer of a proxy or a login page: that says nothing of the message."""
        if isinstance(code, int) and status < 500:
            return RetryLater(f"{self.tool} says {code}", attempts=_UNKNOWN_ATTEMPTS)
        why = f"{self.tool} answered {status}"
        if meaning := self.statuses.get(status):
            return self._follows(meaning, why, after)
        if 200 <= status < 300:
            return RetryLater(f"{self.tool}'s answer is not understood: a proxy or a login page may have answered")
        redirect = ": redirects are not followed" if 300 <= status < 400 else ""
        wish = after if status == 503 else None
        return RetryLater(f"{why}{redirect}", reason_of(status), after=wish, whole_notifier=wish is not None)

    def _follows(self, meaning: Meaning, what: str, after: timedelta | None) -> Outcome:
        why = f"{what}: {meaning.advice}" if meaning.advice else what
        match meaning.remedy:
            case "limit":
                return RetryLater(why, meaning.reason, after=after or meaning.after, limit=self._limit.name)
            case "again":
                return RetryLater(why, meaning.reason)
        return Rejected(why, meaning.reason, pause=meaning.remedy == "pause")

    @property
    def _limit(self) -> SharedLimit:
        return self._notifier.limit_of(None)

    def facts(self) -> dict[str, Any]:
        return {"target": origin(self._notifier.url), "flood": self._notifier.flood}

    def preview(self, delivery: Delivery, *, at: datetime, agent: str) -> Preview:  # noqa: ARG002 - no request is shown
        address = f"{origin(self._notifier.url)}{PATH}"
        return Preview(app=self.tool, address=address, lines=previewed(Shown.of(delivery, at)))

    def check(self, egress: Egress) -> Sequence[Check]:
        return [check_address(self._notifier.url, egress.client)]


def _object(body: bytes) -> dict[str, Any]:
    try:
        answer = shallow_json.loads(body.decode("utf-8-sig", "replace"))
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
