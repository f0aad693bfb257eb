from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

from bridge.collect.client import TencentCi
from bridge.collect.credentials import Credentials
from bridge.collect.jobs_xml import AnswerReader, JobCache
from bridge.model import Page, Place, Stream
from tests.support.receivers import Behaviour, Receiver, Seen, raw

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


class Asked(Seen):
    """A request as CI takes it apart."""

    @property
    def resource(self) -> str:
        return unquote(urlsplit(self.path).path)

    @property
    def params(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))

    @property
    def signed(self) -> dict[str, str]:
        return dict(part.split("=", 1) for part in self.headers["authorization"].split("&"))


def answer(
    status: int = 200, body: bytes = b"<Response/>", *, date: datetime | None = NOW, **headers: str
) -> Behaviour:
    """A header `retry_after="3"` is sent as Retry-After."""
    fields = {"content-length": str(len(body))} | {name.replace("_", "-"): value for name, value in headers.items()}
    if date:
        fields["date"] = format_datetime(date, usegmt=True)
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    is_whole = fields["content-length"] == str(len(body))
    return raw(f"HTTP/1.1 {status} Hm\r\n{head}\r\n".encode() + body, close=not is_whole)


def refusal(name: str, **headers: str) -> Behaviour:
    """One of the documented errors, with the status that it comes with."""
    return answer(MANIFEST[f"errors/{name}"]["http_status"], fixture(f"errors/{name}"), **headers)


class FakeCi(Receiver):
    """Answers in the order given; the last answer is given again and again."""

    def __init__(self) -> None:
        super().__init__(self._next)
        self.url = f"http://127.0.0.1:{self.port}"

    def will(self, *answers: Behaviour) -> None:
        self._answers = list(answers)

    @property
    def asked(self) -> list[Asked]:
        return [Asked(seen.path, seen.headers, seen.body) for seen in self.requests]

    def _next(self, *request: Any) -> None:
        give = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        give(*request)


@pytest.fixture
def fake_ci() -> Iterator[FakeCi]:
    with FakeCi() as fake:
        yield fake


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
