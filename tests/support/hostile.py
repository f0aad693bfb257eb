"""Servers that behave badly, and ready-made answers for a simulated CI that has a bad day."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bridge.simulator.ci import CiSimulator
from bridge.simulator.web import Answer, Fault, Request
from tests.support.receivers import Receiver, dripping


@dataclass(frozen=True)
class Refusing:
    url: str


@contextlib.contextmanager
def refuses_connection() -> Iterator[Refusing]:
    """A port that is taken, so that nobody else gets it, and not listened on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield Refusing(f"http://127.0.0.1:{bound.getsockname()[1]}/hook")


def never_answers() -> Receiver:
    """Reads the request and stays silent, the connection open."""
    return Receiver(dripping(b"", b""))


def ci_error(status: int, code: str, message: str = "", headers: Mapping[str, str] | None = None) -> Answer:
    """CI's documented error body, with any status and code."""
    body = f"<Error><Code>{code}</Code><Message>{message}</Message><RequestId>r</RequestId></Error>"
    return Answer(status=status, body=body.encode(), headers={"Content-Type": "application/xml", **(headers or {})})


def slow_down(retry_after_s: int | None = None) -> Answer:
    """CI's word for "too many requests"."""
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return ci_error(503, "SlowDown", "Reduce your request rate.", headers)


def html_page(status: int = 502) -> Answer:
    """What a proxy on the way says."""
    body = b"<!DOCTYPE html><html><body><h1>Bad gateway</h1></body></html>"
    return Answer(status=status, body=body, headers={"Content-Type": "text/html"})


def json_error(status: int = 500) -> Answer:
    """The JSON error body that the Go SDK also reads."""
    body = json.dumps({"code": -1, "message": "internal error", "request_id": "r"}).encode()
    return Answer(status=status, body=body, headers={"Content-Type": "application/json"})


def empty_body(status: int = 200) -> Answer:
    """An answer with nothing in it."""
    return Answer(status=status)


def hang_up() -> Answer:
    """The connection is closed without an answer."""
    return Answer(hang_up=True)


def half_a_page(ci: CiSimulator, *, announced: bool) -> Fault:
    """Half of the true answer; `announced`: its Content-Length is that of the whole."""

    def fault(request: Request) -> Answer:
        true = ci.honest(request, record=False)
        half = true.body[: len(true.body) // 2]
        length = len(true.body) if announced else None
        return Answer(status=true.status, body=half, headers=true.headers, length=length)

    return fault


def same_token_for_ever(ci: CiSimulator) -> Fault:
    """The first page of the tag, always with the same next token, and never the last."""
    first: dict[str | None, Answer] = {}

    def fault(request: Request) -> Answer:
        tag = dict(request.query).get("tag")
        true = first[tag] if tag in first else first.setdefault(tag, ci.honest(request))
        bare = re.sub(rb"<NextToken>.*?</NextToken>", b"", true.body).replace(b"<Response />", b"<Response></Response>")
        body = bare.replace(b"</Response>", b"<NextToken>225508</NextToken></Response>")
        return Answer(status=true.status, body=body, headers=true.headers)

    return fault
