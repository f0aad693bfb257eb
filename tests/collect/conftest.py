from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

from bridge.collect.client import Credentials, TencentCi
from bridge.collect.jobs_xml import AnswerReader, JobCache
from bridge.model import Page, Place, Stream

FIXTURES = Path(__file__).parent.parent / "fixtures" / "ci"
NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
CREDENTIALS = Credentials(secret_id="AKIDtest", secret_key="a-made-up-key")
PLACE = Place(bucket="clips-1250000000", region="ap-chongqing")
STREAM = Stream(place=PLACE, tag="Transcode")
MANIFEST = json.loads((FIXTURES / "manifest.json").read_text())


def fixture(name: str) -> bytes:
    return (FIXTURES / name).read_bytes()


def reader(cache: JobCache | None = None, *, bucket: str = PLACE.bucket) -> AnswerReader:
    return AnswerReader(bucket=bucket, region=PLACE.region, cache=cache)


def read(body: bytes | str, cache: JobCache | None = None, *, bucket: str = PLACE.bucket) -> Page:
    """Read one answer of the list, that of a bucket."""
    made = reader(cache, bucket=bucket)
    made.feed(body.encode() if isinstance(body, str) else body)
    return made.close().page()


@dataclass
class Asked:
    target: str
    headers: dict[str, str]

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path)

    @property
    def params(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def signed(self) -> dict[str, str]:
        return dict(part.split("=", 1) for part in self.headers["authorization"].split("&"))


Answer = Callable[[BaseHTTPRequestHandler, Asked], None]


def answer(status: int = 200, body: bytes = b"<Response/>", *, date: datetime | None = NOW, **headers: str) -> Answer:
    """A header `retry_after="3"` is sent as Retry-After."""

    def give(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent.setdefault("content-length", str(len(body)))
        if date:
            sent["date"] = format_datetime(date, usegmt=True)
        handler.send_response_only(status)
        for name, value in sent.items():
            handler.send_header(name, value)
        handler.end_headers()
        for at in range(0, len(body), 2**16):  # the handler's timeout is for one of these
            handler.wfile.write(body[at : at + 2**16])
        handler.close_connection = len(body) != int(sent["content-length"])

    return give


def refusal(name: str, **headers: str) -> Answer:
    """One of the documented errors, with the status that it comes with."""
    return answer(MANIFEST[f"errors/{name}"]["http_status"], fixture(f"errors/{name}"), **headers)


@dataclass
class FakeCi:
    """Answers over a real socket, in the order given; the last answer is given again and again."""

    answers: list[Answer] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    def will(self, *answers: Answer) -> None:
        self.answers = list(answers)

    def take(self, handler: BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        self.asked.append(Asked(handler.path, headers))
        give = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        give(handler, self.asked[-1])


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # closing waits for them, so no socket outlives its test

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that hangs up is what some tests are about."""


@pytest.fixture
def fake_ci() -> Iterator[FakeCi]:
    fake = FakeCi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 5
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            fake.take(self)

        def log_message(self, *args: object) -> None:
            pass

    with _Server(("127.0.0.1", 0), Handler) as server:
        fake.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield fake
        server.shutdown()
        thread.join()


@dataclass
class Clock:
    """Time that passes only by sleeping."""

    now: float = NOW.timestamp()
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ci(fake_ci: FakeCi, clock: Clock) -> Iterator[TencentCi]:
    with TencentCi(
        credentials=CREDENTIALS, endpoint=fake_ci.url, clock=clock, monotonic=clock, sleep=clock.sleep
    ) as ci:
        yield ci
