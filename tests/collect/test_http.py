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
from http.server import BaseHTTPRequestHandler

import pytest

from bridge.collect.client import TencentCi
from bridge.collect.errors import BrokenReply, CiError, ConfigError, TemporaryError, UnreadableReply
from bridge.collect.http import Proxies, Reply
from bridge.collect.jobs_xml import PART_LIMIT, REPLY_LIMIT
from bridge.model import Stream
from tests.collect.conftest import CREDENTIALS, NOW, PLACE, STREAM, Answer, Asked, FakeCi, answer, fixture, refusal

PAGE = fixture("list_two_jobs_next_token.xml").strip()


def failure(ci: TencentCi, stream: Stream = STREAM) -> CiError:
    with pytest.raises(CiError) as caught:
        ci.list(stream)
    assert CREDENTIALS.secret_key not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html><body>Please log in</body></html>", "the reply is an HTML page"),
        (b'{"code": 11009, "request_id": "r-1"}', "the reply is JSON, not XML (11009, HTTP 200, request id r-1)"),
        (fixture("errors/access_denied_403.xml"), "a <Error>, not a <Response> (AccessDenied, HTTP 200"),
        (b"", "the reply is empty"),
        (PAGE[: len(PAGE) // 2], "the reply is broken or cut off"),
    ],
)  # fmt: skip
def test_a_reply_of_200_that_is_no_page_is_unreadable(body: bytes, said: str, ci: TencentCi, fake_ci: FakeCi) -> None:
    fake_ci.will(answer(body=body))
    error = failure(ci)
    assert isinstance(error, UnreadableReply)
    assert said in str(error)
    assert len(fake_ci.asked) == 1


def test_half_a_page_with_the_length_of_a_whole_is_refused(ci: TencentCi, fake_ci: FakeCi) -> None:
    # Even where what arrived could be read as a page.
    fake_ci.will(answer(body=b"<Response/>", content_length="999"))
    error = failure(ci)
    assert isinstance(error, BrokenReply)
    assert "the reply broke off before its end" in str(error)


def test_what_broke_off_and_was_no_page_is_not_asked_for_in_smaller_ones(ci: TencentCi, fake_ci: FakeCi) -> None:
    fake_ci.will(answer(body=b"<html>", content_length="999"))
    assert not isinstance(failure(ci), UnreadableReply)


def streamed(*pieces: bytes, headers: dict[str, str]) -> Answer:
    def give(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        handler.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        handler.close_connection = True
        handler.send_response_only(200)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        for piece in pieces:
            handler.wfile.write(piece)

    return give


def test_a_chunked_page_is_read_whole_or_not_at_all(ci: TencentCi, fake_ci: FakeCi) -> None:
    chunked = {"transfer-encoding": "chunked"}
    chunk = b"%x\r\n%s\r\n" % (len(PAGE), PAGE)
    fake_ci.will(streamed(chunk, b"0\r\n\r\n", headers=chunked), streamed(chunk, headers=chunked))
    assert len(ci.list(STREAM).jobs) == 2
    assert isinstance(failure(ci), TemporaryError)


def test_a_compressed_page_is_read(ci: TencentCi, fake_ci: FakeCi) -> None:
    fake_ci.will(answer(body=gzip.compress(PAGE), content_encoding="gzip"))
    assert len(ci.list(STREAM).jobs) == 2


def test_broken_compression_is_told(ci: TencentCi, fake_ci: FakeCi) -> None:
    fake_ci.will(answer(body=b"no gzip", content_encoding="gzip"))
    error = failure(ci)
    assert isinstance(error, TemporaryError)
    assert "the reply is compressed in a way that cannot be undone" in str(error)


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


def a_page(*insides: str) -> bytes:
    jobs = (
        f"<JobsDetail><Operation>{inside}</Operation><JobId>j{n}</JobId><State>Success</State></JobsDetail>"
        for n, inside in enumerate(insides)
    )
    return f"<Response>{''.join(jobs)}<NextToken>7</NextToken></Response>".encode()


@pytest.mark.parametrize(("jobs", "size"), [(100, 180_000), (10, 2_000_000)])
def test_a_page_of_large_results_is_read_as_it_comes_and_they_are_not_kept(
    jobs: int, size: int, ci: TencentCi, fake_ci: FakeCi
) -> None:
    word = f"<Words><State>no</State>{'é' * 60}</Words>"
    words = f"<SpeechRecognitionResult>{word * (size // 150)}</SpeechRecognitionResult>"
    fake_ci.will(answer(body=a_page(*[words + f"<UserData>{n}</UserData>" for n in range(jobs)])))
    tracemalloc.start()
    page = ci.list(STREAM)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    found = [(job.id, job.state, job.user_data) for job in page.jobs]
    assert found == [(f"j{n}", "Success", str(n)) for n in range(jobs)]
    assert (page.next_token, page.problems) == ("7", ())
    assert most < 16 * size + PART_LIMIT  # one job as a tree, and what arrived of the next


@pytest.mark.parametrize("packed", [False, True])
def test_a_reply_without_end_is_cut(packed: bool, fake_ci: FakeCi) -> None:
    """Packed, as a bomb would be; each look at the clock is a moment later, so the deadline is not what ends it."""
    piece = b"<JobsDetail><MediaInfo>" + b"b" * 2**20 + b"</MediaInfo></JobsDetail>"

    def endless(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        handler.close_connection = True
        handler.send_response_only(200)
        if packed:
            handler.send_header("content-encoding", "gzip")
        handler.end_headers()
        pack = zlib.compressobj(wbits=31)
        begin = b"<Response><JobsDetail><JobId>j1</JobId></JobsDetail>"
        for part in (begin, *[piece] * (REPLY_LIMIT // len(piece) + 2)):
            try:
                handler.wfile.write(pack.compress(part) + pack.flush(zlib.Z_SYNC_FLUSH) if packed else part)
            except OSError:
                return

    fake_ci.will(endless)
    with TencentCi(credentials=CREDENTIALS, endpoint=fake_ci.url, deadline_s=300) as ci:
        error = failure(ci)
    assert isinstance(error, BrokenReply)
    assert "longer than 128 MB" in str(error)
    assert error.ids == ("j1",)


@pytest.mark.parametrize("limit", [0, PART_LIMIT])
def test_a_page_that_takes_too_long_to_arrive_may_be_asked_for_in_smaller_ones(limit: int, fake_ci: FakeCi) -> None:
    done = threading.Event()

    def stall(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        handler.close_connection = True
        handler.send_response_only(200)
        handler.end_headers()
        handler.wfile.write(b"<Response><JobsDetail><JobId>j1</JobId>" + b" " * limit)
        done.wait(30)

    fake_ci.will(stall)
    with TencentCi(credentials=CREDENTIALS, endpoint=fake_ci.url, deadline_s=0.5) as ci:
        error = failure(ci)
        done.set()
    assert isinstance(error, BrokenReply)
    assert "took longer than 0.5 s" in str(error)
    assert error.ids == ("j1",)


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_server_that_drips_is_cut_at_the_deadline(part: bytes, fake_ci: FakeCi) -> None:
    """Each look at the clock finds it a second later, so thirty bytes are some thirty seconds."""
    done = threading.Event()

    def drip(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        handler.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        handler.close_connection = True
        handler.wfile.write(part)
        while not done.wait(0.001):
            handler.wfile.write(b"a" if part else b"")

    fake_ci.will(drip)
    ticks = itertools.count()
    # The silent server is the one that real time has to end.
    deadline_s, clock = (30.0, lambda: float(next(ticks))) if part else (0.05, None)
    timing = {"monotonic": clock} if clock else {}
    with TencentCi(credentials=CREDENTIALS, endpoint=fake_ci.url, deadline_s=deadline_s, **timing) as ci:
        error = failure(ci)
        done.set()
    assert isinstance(error, TemporaryError)
    assert f"took longer than {deadline_s:g} s" in str(error)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(status: int, ci: TencentCi, fake_ci: FakeCi) -> None:
    fake_ci.will(answer(status, b"", location=fake_ci.url + "/elsewhere"))
    error = failure(ci)
    assert isinstance(error, ConfigError)
    assert "not followed" in str(error)
    assert len(fake_ci.asked) == 1


def test_no_such_bucket_is_told_with_what_to_check(ci: TencentCi, fake_ci: FakeCi) -> None:
    fake_ci.will(refusal("no_such_bucket_404.xml"))
    error = failure(ci)
    assert isinstance(error, ConfigError)
    assert "check that `bucket` has the APPID" in str(error)


def test_a_cookie_is_not_sent_back(ci: TencentCi, fake_ci: FakeCi) -> None:
    fake_ci.will(answer(set_cookie="a=b; Path=/"))
    ci.list(STREAM)
    ci.list(STREAM)
    assert "cookie" not in fake_ci.asked[1].headers


def test_a_connection_that_was_closed_while_idle_is_made_again(ci: TencentCi, fake_ci: FakeCi) -> None:
    def hang_up(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        handler.close_connection = True

    fake_ci.will(answer(), hang_up, answer())
    ci.list(STREAM)
    ci.list(STREAM)
    assert len(fake_ci.asked) == 3


def test_a_refused_connection_says_where_and_why() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound and not listening: nobody can answer there
        endpoint = f"http://user:hush@127.0.0.1:{bound.getsockname()[1]}"
        with TencentCi(credentials=CREDENTIALS) as ci:
            error = failure(ci, replace(STREAM, place=replace(PLACE, endpoint=endpoint)))
    assert isinstance(error, TemporaryError)
    host = "clips-1250000000.ci.ap-chongqing.myqcloud.com"
    assert str(error) == f"{host} through {endpoint.rpartition('@')[2]}: Connection refused"


def test_a_call_to_a_host_of_two_addresses_that_take_no_connections_ends_at_its_deadline() -> None:
    with ExitStack() as stack:
        four = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = four.getsockname()[1]
        six = stack.enter_context(socket.create_server(("::1", port), backlog=0, family=socket.AF_INET6))
        for full in (four, six):  # each has room for one
            stack.enter_context(socket.create_connection(full.getsockname()[:2]))
        endpoint = f"http://localhost:{port}"
        ci = stack.enter_context(TencentCi(credentials=CREDENTIALS, endpoint=endpoint, deadline_s=1))
        before = time.monotonic()
        error = failure(ci)
        took_s = time.monotonic() - before
    assert isinstance(error, TemporaryError)
    assert "took longer than 1 s" in str(error)
    assert took_s < 1.9  # a second try or address with a second of its own would be two


def test_a_proxy_that_cannot_be_reached_is_told_without_its_password() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        proxies = Proxies(https=f"http://user:hush@127.0.0.1:{bound.getsockname()[1]}")
        with TencentCi(credentials=CREDENTIALS, proxies=proxies) as ci:
            error = failure(ci)
    assert str(error) == f"{PLACE.host}: the proxy: Connection refused"


@pytest.mark.parametrize(
    ("bucket", "endpoint"), [("a" * 64, None), ("clips", "localhost:80"), ("clips", "localhost"), ("clips", "http://")]
)
def test_an_address_that_cannot_be_is_a_fault_of_the_file(bucket: str, endpoint: str | None) -> None:
    impossible = replace(STREAM, place=replace(PLACE, bucket=bucket, endpoint=endpoint))
    with TencentCi(credentials=CREDENTIALS) as ci:
        error = failure(ci, impossible)
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
    [("Sat, 21 Nov 2026 09:00:00 GMT", NOW), ("Fri, 31 Dec 9999 23:59:59 GMT", None), ("now", None),
     ("Mon, 01 Jan 0500 00:00:00 GMT", None)],
)  # fmt: skip
def test_a_date_of_no_year_that_can_be_is_none(date: str, time: datetime | None) -> None:
    assert Reply(status=200, headers={"Date": date}, body=b"").date == time


@pytest.mark.parametrize("date", [{"Date": "Sat, 21 Nov 2026 08:59:40 GMT"}, {}])
def test_a_wait_until_a_time_counts_from_cis_clock_where_it_said_one(date: dict[str, str]) -> None:
    headers = {"Retry-After": "Sat, 21 Nov 2026 09:00:20 GMT"} | date
    wait = Reply(status=429, headers=headers, body=b"").retry_after(NOW)
    assert wait == timedelta(seconds=40 if date else 20)
