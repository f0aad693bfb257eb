"""What a mail server's answers mean for a delivery. Pure.

Codes: RFC 5321, 4.2, and for AUTH RFC 4954, 6; read 2026-12-01.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple, Self

from bridge.display import one_line, visible
from bridge.model import Reason, Rejected, RetryLater
from bridge.send.http_types import Failure, Reply

_CLOSING = 421  # a server says so, to any command, when it wants to be left alone
_BREATH = timedelta(minutes=1)  # it does not say for how long
_TOO_BIG = 552
_OF_AUTH = frozenset({530, 534, 535, 538})
_OF_MESSAGE = frozenset({"DATA", "the message"})


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said to `command`."""

    command: str
    code: int  # outside of 200 to 599 it was no SMTP, or cut off
    text: str

    @classmethod
    def of(cls, command: str, said: tuple[int, bytes | str], mask: Callable[[str], str] = str) -> Self:
        """Read what was said, without the secrets that `mask` knows: of one that is cut, a part would be shown."""
        code, text = said
        text = text if isinstance(text, str) else text.decode("utf-8", "replace")
        return cls(command, code, visible(one_line(mask(text))))

    def __str__(self) -> str:
        return f"{self.code} {self.text}".rstrip()

    @property
    def is_yes(self) -> bool:
        """Whether it means yes, whatever its other digits (RFC 5321, 4.2)."""
        return 200 <= self.code < 300

    @property
    def is_for_now(self) -> bool:
        return 400 <= self.code < 500

    @property
    def is_smtp(self) -> bool:
        return 200 <= self.code < 600

    @property
    def is_last(self) -> bool:
        return self.code == _CLOSING or not self.is_smtp


class Taken(NamedTuple):
    """The answer with which a server accepted a message, and those to the addresses that it refused."""

    answer: Answer
    refused: tuple[Answer, ...]

    def reply(self, seconds: float, address: str) -> Reply:
        lines = [str(self.answer), *(f"{refused.command}: {refused}" for refused in self.refused)]
        return Reply(self.answer.code, (), "\n".join(lines).encode(), seconds, address)


class Stopped(Exception):
    """A talk that ended before a message was accepted. `end` is what is recorded of it."""

    def __init__(self, outcome: RetryLater | Rejected, answer: Answer | None = None) -> None:
        super().__init__(outcome.why)
        self.outcome, self._answer = outcome, answer
        self.end: Reply | Failure | None = None

    def ended(self, seconds: float, address: str) -> Self:
        if answer := self._answer:
            self.end = Reply(answer.code, (), str(answer).encode(), seconds, address)
        else:
            self.end = Failure(self.outcome.why, seconds=seconds, address=address)
        return self


def refusal(answer: Answer, server: str) -> Stopped:
    """Return what follows from an answer that was not the one with which the protocol goes on."""
    if not answer.is_smtp:
        return Stopped(RetryLater(f"{server} did not answer in SMTP", Reason.CONNECTION))
    return Stopped(_meaning(answer, f"{server} answered {answer.command} with {answer}"), answer)


def _meaning(answer: Answer, why: str) -> RetryLater | Rejected:
    if answer.code == _CLOSING:
        return RetryLater(why, Reason.RATE_LIMITED, after=_BREATH, whole_notifier=True)
    if answer.is_for_now:
        return RetryLater(why, Reason.SERVER_ERROR)
    if answer.code < 500:  # yes, but not the yes that the protocol goes on with
        return RetryLater(why)
    if answer.code in _OF_AUTH or answer.command == "AUTH":
        return Rejected(f"{why}: check username and password", Reason.AUTH, pause=True)
    if answer.code == _TOO_BIG or answer.command in _OF_MESSAGE:
        return Rejected(why, Reason.INVALID_PAYLOAD)
    if answer.command == "MAIL FROM":
        return Rejected(f'{why}: it does not send for this address, so check "from"', Reason.AUTH, pause=True)
    # Before there is a message, a server that says no may have been misconfigured a moment ago.
    return RetryLater(why, Reason.CLIENT_ERROR)


def refused_by_all(refused: Sequence[Answer], server: str) -> Stopped:
    """Return what follows if a server takes no address of `to`."""
    if waits := next((answer for answer in refused if answer.is_for_now), None):
        return refusal(waits, server)
    why = f'{server} answered {refused[0].command} with {refused[0]}: check "to", none of which it takes'
    return Stopped(Rejected(why, Reason.CHANNEL, pause=True), refused[0])


def no_starttls(server: str) -> Stopped:
    why = f'{server} offers no STARTTLS, and mail is sent under TLS only: tls = "tls" may be right, with another port'
    return Stopped(RetryLater(why, Reason.CONNECTION))


def no_auth(server: str, offered: Sequence[str]) -> Stopped:
    ways = f"only {' '.join(offered)}, which the bridge cannot" if offered else "none"
    why = f"of the ways to log in, {server} offers {ways}: take out username and password, or name another server"
    return Stopped(Rejected(why, Reason.AUTH, pause=True))
