"""What may happen between CI and us, over real sockets."""

from __future__ import annotations

import gzip
import itertools
import socket
import threading
import time
import tracemalloc
import zlib
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from bridge.collect.client import TencentCi
from bridge.collect.errors import BrokenReply, CiError, ConfigError, TemporaryError, UnreadableReply
from bridge.collect.http import Proxies, Reply
from bridge.collect.jobs_xml import PART_LIMIT, REPLY_LIMIT
from tests.collect.conftest import CREDENTIALS, NOW, PLACE, STREAM, FakeCi, answer, fixture, refusal
from tests.support.receivers import Behaviour, dripping, raw

PAGE = fixture("list_two_jobs_next_token.xml").strip()
OK = b"HTTP/1.1 200 OK\r\n"


def failure(ci: TencentCi, **place: Any) -> CiError:
    with pytest.raises(CiError) as caught:
        ci.list(replace(STREAM, place=replace(PLACE, **place)))
    assert CREDENTIALS.secret_key not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value


@pytest.mark.parametrize(
    ("reply", "kind", "why"),
    [
        (
            answer(body=b'{"code": 11009, "request_id": "r-1"}'),
            UnreadableReply,
            "the reply is JSON, not XML (11009, HTTP 200, request id r-1)",
        ),
        (
            answer(body=fixture("errors/access_denied_403.xml")),
            UnreadableReply,
            "a <Error>, not a <Response> (AccessDenied, HTTP 200",
        ),
        (answer(body=PAGE[: len(PAGE) // 2]), BrokenReply, "the reply is broken or cut off"),
        # Even where what arrived could be read as a page:
        (answer(body=b"<Response/>", content_length="999"), BrokenReply, "the reply broke off before its end"),
        (answer(body=b"<html>", content_length="999"), TemporaryError, "the reply broke off before its end"),
        (
            answer(body=b"no gzip", content_encoding="gzip"),
            TemporaryError,
            "the reply cannot be decompressed",
        ),
        (answer(302, b"", location="/elsewhere"), ConfigError, "not followed"),
        (answer(308, b"", location="/elsewhere"), ConfigError, "not followed"),
        (refusal("no_such_bucket_404.xml"), ConfigError, "check that `bucket` has the APPID"),
    ],
)
def test_an_answer_that_is_no_page_is_raised_for_what_it_is_and_asked_for_once(
    reply: Behaviour, kind: type[CiError], why: str, ci: TencentCi, fake_ci: FakeCi
) -> None:
    fake_ci.will(reply)
    error = failure(ci)
    assert type(error) is kind
    assert why in str(error)
    assert len(fake_ci.asked) == 1


def test_a_chunked_page_is_read_whole_or_not_at_all(ci: TencentCi, fake_ci: FakeCi) -> None:
    chunk = OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(PAGE), PAGE)
    fake_ci.will(raw(chunk, b"0\r\n\r\n"), raw(chunk))
    assert len(ci.list(STREAM).jobs) == 2
    assert isinstance(failure(ci), TemporaryError)


def test_a_compressed_page_is_read(ci: TencentCi, fake_ci: FakeCi) -> None:
    fake_ci.will(answer(body=gzip.compress(PAGE), content_encoding="gzip"))
    assert len(ci.list(STREAM).jobs) == 2


@pytest.mark.parametrize("status", [302, 404, 500])
@pytest.mark.parametrize("packed", [False, True])
def test_of_an_error_without_end_the_beginning_is_read(
    packed: bool, status: int, ci: TencentCi, fake_ci: FakeCi
) -> None:
    body = b"<Error><Code>Odd</Code><Message>" + b" " * 2**24 + b"</Message></Error>"
    packing = {"content_encoding": "gzip"} if packed else {}
    fake_ci.will(answer(status, gzip.compress(body) if packed else body, location="/", **packing))
    error = failure(ci)
    assert (error.status, error.code) == (status, "Odd")


@pytest.mark.parametrize(("jobs", "size"), [(50, 180_000), (5, 2_000_000)])
def test_a_page_of_large_results_is_read_as_it_comes_and_they_are_not_kept(
    jobs: int, size: int, ci: TencentCi, fake_ci: FakeCi
) -> None:
    word = f"<Words><State>no</State>{'é' * 60}</Words>"
    words = f"<SpeechRecognitionResult>{word * (size // 150)}</SpeechRecognitionResult>"
    page = "".join(
        f"<JobsDetail><Operation>{words}<UserData>{n}</UserData></Operation><JobId>j{n}</JobId>"
        "<State>Success</State></JobsDetail>"
        for n in range(jobs)
    )
    fake_ci.will(answer(body=f"<Response>{page}<NextToken>7</NextToken></Response>".encode()))
    tracemalloc.start()
    read = ci.list(STREAM)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [(job.id, job.user_data) for job in read.jobs] == [(f"j{n}", str(n)) for n in range(jobs)]
    assert (read.next_token, read.problems) == ("7", ())
    assert most < 16 * size + PART_LIMIT  # one job as a tree, and what arrived of the next


@pytest.mark.parametrize("packed", [False, True])
def test_a_reply_without_end_is_cut(packed: bool, fake_ci: FakeCi) -> None:
    """Packed, as a bomb would be."""
    piece = b"<JobsDetail><MediaInfo>" + b"b" * 2**20 + b"</MediaInfo></JobsDetail>"

    def endless(connection: socket.socket, *_: object) -> None:
        connection.sendall(OK + b"Content-Encoding: gzip\r\n" * packed + b"\r\n")
        pack = zlib.compressobj(wbits=31)
        begin = b"<Response><JobsDetail><JobId>j1</JobId></JobsDetail>"
        for part in (begin, *[piece] * (REPLY_LIMIT // len(piece) + 2)):
            connection.sendall(pack.compress(part) + pack.flush(zlib.Z_SYNC_FLUSH) if packed else part)

    fake_ci.will(endless)
    with TencentCi(credentials=CREDENTIALS, endpoint=fake_ci.url, deadline_s=300) as ci:
        error = failure(ci)
    assert isinstance(error, BrokenReply)
    assert "longer than 128 MB" in str(error)
    assert error.ids == ("j1",)


@pytest.mark.parametrize("blanks", [0, PART_LIMIT])
def test_a_page_that_takes_too_long_to_arrive_may_be_asked_for_in_smaller_ones(blanks: int, fake_ci: FakeCi) -> None:
    start = OK + b"\r\n<Response><JobsDetail><JobId>j1</JobId>" + b" " * blanks
    fake_ci.will(dripping(start, b""))
    with TencentCi(credentials=CREDENTIALS, endpoint=fake_ci.url, deadline_s=0.5) as ci:
        error = failure(ci)
    assert isinstance(error, BrokenReply)
    assert "took longer than 0.5 s" in str(error)
    assert error.ids == ("j1",)


@pytest.mark.parametrize("start", [b"HTTP/1.1 ", OK + b"X: ", OK + b"\r\n"])
def test_a_server_that_drips_is_cut_at_the_deadline(start: bytes, fake_ci: FakeCi) -> None:
    """Each look at the clock finds it a second later, so thirty bytes are some thirty seconds."""
    fake_ci.will(dripping(start, b"a", every_s=0.001))
    ticks = itertools.count()
    with TencentCi(credentials=CREDENTIALS, endpoint=fake_ci.url, monotonic=lambda: float(next(ticks))) as ci:
        error = failure(ci)
    assert type(error) is TemporaryError
    assert "took longer than 30 s" in str(error)


def test_a_silent_server_is_cut_at_the_deadline(fake_ci: FakeCi) -> None:
    fake_ci.will(dripping(b"", b""))
    with TencentCi(credentials=CREDENTIALS, endpoint=fake_ci.url, deadline_s=0.05) as ci:
        assert "took longer than 0.05 s" in str(failure(ci))


def test_a_cookie_is_not_sent_back(ci: TencentCi, fake_ci: FakeCi) -> None:
    fake_ci.will(answer(set_cookie="a=b; Path=/"))
    ci.list(STREAM)
    ci.list(STREAM)
    assert "cookie" not in fake_ci.asked[1].headers


def test_a_connection_that_was_closed_while_idle_is_made_again(ci: TencentCi, fake_ci: FakeCi) -> None:
    fake_ci.will(answer(), raw(), answer())
    ci.list(STREAM)
    ci.list(STREAM)
    assert len(fake_ci.asked) == 3


def test_a_refused_connection_says_where_and_why_without_passwords() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound and not listening: nobody can answer there
        place = f"127.0.0.1:{bound.getsockname()[1]}"
        with TencentCi(credentials=CREDENTIALS) as ci:
            error = failure(ci, endpoint=f"http://user:hush@{place}")
        with TencentCi(credentials=CREDENTIALS, proxies=Proxies(https=f"http://user:hush@{place}")) as ci:
            by_proxy = failure(ci)
    assert str(error) == f"{PLACE.host} through {place}: Connection refused"
    assert str(by_proxy) == f"{PLACE.host}: the proxy: Connection refused"
    assert isinstance(error, TemporaryError)


def test_a_call_to_a_host_of_two_addresses_that_take_no_connections_ends_at_its_deadline() -> None:
    with ExitStack() as stack:
        four = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = four.getsockname()[1]
        six = stack.enter_context(socket.create_server(("::1", port), backlog=0, family=socket.AF_INET6))
        for full in (four, six):  # each has room for one
            stack.enter_context(socket.create_connection(full.getsockname()[:2]))
        ci = stack.enter_context(TencentCi(credentials=CREDENTIALS, endpoint=f"http://localhost:{port}", deadline_s=1))
        before = time.monotonic()
        error = failure(ci)
        took_s = time.monotonic() - before
    assert isinstance(error, TemporaryError)
    assert "took longer than 1 s" in str(error)
    assert took_s < 1.9  # a second try or address with a second of its own would be two


@pytest.mark.parametrize(
    "place",
    [{"bucket": "a" * 64}, {"endpoint": "localhost:80"}, {"endpoint": "localhost"}, {"endpoint": "http://"}],
)
def test_an_address_that_cannot_be_is_a_fault_of_the_file(place: dict[str, str]) -> None:
    with TencentCi(credentials=CREDENTIALS) as ci:
        error = failure(ci, **place)
    assert isinstance(error, ConfigError)
    assert str(error).endswith("check `bucket`, `region` and `endpoint`")


def test_threads_share_one_client(fake_ci: FakeCi) -> None:
    fake_ci.will(answer(body=PAGE))
    counts: list[int] = []
    with TencentCi(credentials=CREDENTIALS, endpoint=fake_ci.url, sleep=lambda _: None) as ci:
        threads = [threading.Thread(target=lambda: counts.append(len(ci.list(STREAM).jobs))) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert counts == [2] * 20


@pytest.mark.parametrize(
    ("date", "time"),
    [
        ("Sat, 21 Nov 2026 09:00:00 GMT", NOW),
        ("Fri, 31 Dec 9999 23:59:59 GMT", None),
        ("Mon, 01 Jan 0500 00:00:00 GMT", None),
    ],
)
def test_a_date_of_no_year_that_can_be_is_none(date: str, time: datetime | None) -> None:
    assert Reply(status=200, headers={"Date": date}, body=b"").date == time


@pytest.mark.parametrize("date", [{"Date": "Sat, 21 Nov 2026 08:59:40 GMT"}, {}])
def test_a_wait_until_a_time_counts_from_cis_clock_where_it_said_one(date: dict[str, str]) -> None:
    headers = {"Retry-After": "Sat, 21 Nov 2026 09:00:20 GMT"} | date
    wait = Reply(status=429, headers=headers, body=b"").retry_after(NOW)
    assert wait == timedelta(seconds=40 if date else 20)
