"""A small CI client of the tests' own: it signs as the document says and speaks http.client."""

from __future__ import annotations

import hashlib
import hmac
import http.client
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from urllib.parse import quote
from xml.etree import ElementTree as ET

from bridge.simulator.ci import DEMO_SECRET_ID, DEMO_SECRET_KEY, CiSimulator

BUCKET = "media-1250000000"
HOST = f"{BUCKET}.ci.ap-chongqing.myqcloud.com"
NOW = 1_780_000_000


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Message
    body: bytes

    @property
    def xml(self) -> ET.Element:
        return ET.fromstring(self.body)  # noqa: S314 - our own simulator made it

    @property
    def ids(self) -> list[str | None]:
        return [e.text for e in self.xml.findall("JobsDetail/JobId")]

    @property
    def token(self) -> str | None:
        return self.xml.findtext("NextToken")

    @property
    def refusal(self) -> tuple[int, str | None]:
        return self.status, self.xml.findtext("Code")


def encoded(text: str) -> str:
    return quote(text, safe="-_.~")


def authorization(
    path: str,
    params: Mapping[str, str],
    headers: Mapping[str, str],
    *,
    secret_id: str = DEMO_SECRET_ID,
    key: str = DEMO_SECRET_KEY,
    start: int = NOW - 60,
    end: int = NOW + 3600,
) -> str:
    window = f"{start};{end}"
    names, values = [], []
    for pairs in (params, headers):
        ready = sorted((encoded(name).lower(), encoded(value)) for name, value in pairs.items())
        names.append(";".join(name for name, _ in ready))
        values.append("&".join("=".join(pair) for pair in ready))
    text = f"get\n{path}\n{values[0]}\n{values[1]}\n"
    sign_key = hmac.new(key.encode(), window.encode(), "sha1").hexdigest()
    to_sign = f"sha1\n{window}\n{hashlib.sha1(text.encode()).hexdigest()}\n"  # noqa: S324 - CI's own
    signature = hmac.new(sign_key.encode(), to_sign.encode(), "sha1").hexdigest()
    return (
        f"q-sign-algorithm=sha1&q-ak={secret_id}&q-sign-time={window}&q-key-time={window}"
        f"&q-header-list={names[1]}&q-url-param-list={names[0]}&q-signature={signature}"
    )


def send(ci: CiSimulator, target: str, headers: Mapping[str, str], method: str = "GET") -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", ci.port, timeout=10)
    try:
        connection.putrequest(method, target, skip_host=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        return Reply(response.status, response.headers, response.read())
    finally:
        connection.close()


def get(
    ci: CiSimulator,
    path: str,
    *,
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    host: str = HOST,
    **signing: object,
) -> Reply:
    asked, signed = params or {}, {"host": host, **(headers or {})}
    target = path + ("?" + "&".join(f"{k}={encoded(v)}" for k, v in asked.items()) if asked else "")
    said = authorization(path, asked, signed, **signing)  # type: ignore[arg-type]  # as given by the test
    return send(ci, target, {**signed, "Authorization": said})


def jobs(ci: CiSimulator, tag: str = "Transcode", **params: str) -> Reply:
    return get(ci, "/jobs", params={"tag": tag, **params})


def describe(ci: CiSimulator, ids: Sequence[str]) -> Reply:
    return get(ci, "/jobs/" + ",".join(ids))


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self, at: float = NOW) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


@contextmanager
def simulated(clock: Clock | None = None, **options: object) -> Iterator[CiSimulator]:
    with CiSimulator(clock=clock or Clock(), **options) as ci:  # type: ignore[arg-type]  # as given by the test
        yield ci
