"""The queues of a bucket: how CI is asked for them, and what its answers may be."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest

from bridge.collect.client import TencentCi
from bridge.collect.errors import AuthError, BrokenReply, CiError, TemporaryError, Throttled, UnreadableReply
from bridge.model import Queue, Rate
from tests.collect.conftest import CREDENTIALS, PLACE, Clock, FakeCi, answer, fixture, refusal
from tests.support.receivers import dripping


def page(*names: str, first: int = 0, total: int | str | None = None) -> bytes:
    queues = "".join(
        f"<QueueList><QueueId>p{first + n}</QueueId><Name>{name}</Name><State>Active</State></QueueList>"
        for n, name in enumerate(names)
    )
    count = "" if total is None else f"<TotalCount>{total}</TotalCount>"
    return f"<Response>{count}{queues}</Response>".encode()


def test_queues_have_names_and_states_and_not_those_of_their_callbacks(ci: TencentCi, fake_ci: FakeCi) -> None:
    fake_ci.will(answer(body=fixture("queue_list.xml")))
    assert ci.queues(PLACE) == (
        Queue(id="p7c1de90f2a6b4c0d8e1f5a3b9c7d6e42", name="queue-1", state="Active"),
        Queue(id="p11223344556677889900aabbccddeeff", name="queue-speed-transcoding-process-1", state="Paused"),
    )
    (asked,) = fake_ci.asked
    assert (asked.resource, asked.params) == (
        "/queue",
        {"category": "CateAll", "pageNumber": "1", "pageSize": "10"},
    )


def test_a_bucket_may_have_no_queue(ci: TencentCi, fake_ci: FakeCi) -> None:
    fake_ci.will(answer(body=fixture("queue_nonexist.xml")))
    assert ci.queues(PLACE) == ()


def test_pages_are_read_until_all_are_there(ci: TencentCi, fake_ci: FakeCi) -> None:
    fake_ci.will(*(answer(body=page(*"abcdefghij", first=n * 10, total=25)) for n in range(2)))
    fake_ci.will(
        answer(body=page(*"abcdefghij", total=12)),
        answer(body=page(*"kl", first=10, total=12)),
    )
    assert "".join(queue.name for queue in ci.queues(PLACE)) == "abcdefghijkl"
    assert [asked.params["pageNumber"] for asked in fake_ci.asked] == ["1", "2"]


@pytest.mark.parametrize("total", [None, "many", 10**12])
def test_a_ci_that_ignores_the_page_asked_for_is_asked_twice(
    ci: TencentCi, fake_ci: FakeCi, total: int | str | None
) -> None:
    fake_ci.will(answer(body=page(*"abcdefghij", total=total)))
    assert len(ci.queues(PLACE)) == 10
    assert len(fake_ci.asked) == 2


def test_queues_without_end_are_read_up_to_two_hundred(ci: TencentCi, fake_ci: FakeCi) -> None:
    fake_ci.will(*(answer(body=page(*"abcdefghij", first=n * 10)) for n in range(100)))
    assert len(ci.queues(PLACE)) == 200


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("<![CDATA[<b onclick='x()'>]]>", "<b onclick='x()'>"),
        (" two\n lines ", "two lines"),
        ("a&#0;b\x01c & d", "a\ufffdb\ufffdc & d"),
        ("x" * 300, "x" * 199 + "…"),
        ("", ""),
        ("<Name>nested</Name>", "nested"),
    ],
)
def test_a_name_is_any_text_and_never_long(ci: TencentCi, fake_ci: FakeCi, written: str, name: str) -> None:
    fake_ci.will(answer(body=page(written, total=1)))
    (queue,) = ci.queues(PLACE)
    assert queue.name == name


def test_a_queue_without_a_usable_id_is_left_out(ci: TencentCi, fake_ci: FakeCi) -> None:
    body = page("a", "b", total=2).replace(b"p0", b"").replace(b"p1", b"p" * 201)
    fake_ci.will(answer(body=body))
    assert ci.queues(PLACE) == ()


@pytest.mark.parametrize(
    ("body", "kind", "why"),
    [
        (b"", UnreadableReply, "the reply is empty"),
        (b"{}", UnreadableReply, "the reply is JSON, not XML"),
        (b"<html>", UnreadableReply, "the reply is an HTML page"),
        (b"<Error/>", UnreadableReply, "the reply is a <Error>, not a <Response>"),
        (b"<!DOCTYPE x []><Response/>", UnreadableReply, "document type declaration"),
        (page("a")[:-20], BrokenReply, "broken or cut off"),
        (page("a" * 2**21), BrokenReply, "the reply is longer than 1 MB"),
    ],
)
def test_a_reply_that_is_none_is_refused(
    ci: TencentCi, fake_ci: FakeCi, body: bytes, kind: type[CiError], why: str
) -> None:
    fake_ci.will(answer(body=body))
    with pytest.raises(kind, match=why):
        ci.queues(PLACE)


def test_a_reply_that_breaks_off_is_told(ci: TencentCi, fake_ci: FakeCi) -> None:
    fake_ci.will(answer(body=page("a"), content_length="9999"))
    with pytest.raises(BrokenReply, match="broke off before its end"):
        ci.queues(PLACE)


def test_keys_that_may_not_ask_for_queues_say_what_to_grant(ci: TencentCi, fake_ci: FakeCi) -> None:
    fake_ci.will(refusal("access_denied_403.xml"))
    with pytest.raises(AuthError, match="grant ci:DescribeMediaQueues on the bucket to these keys"):
        ci.queues(PLACE)
    fake_ci.will(refusal("signature_does_not_match_403.xml"))
    with pytest.raises(AuthError, match="check TENCENTCLOUD_SECRET_ID"):
        ci.queues(PLACE)


@pytest.mark.parametrize("refused", ["too_many_requests_429.xml", "slow_down_503.xml", "internal_error_500.xml"])
def test_a_refusal_is_not_waited_out_and_slows_no_poll_down(
    ci: TencentCi, fake_ci: FakeCi, clock: Clock, refused: str
) -> None:
    fake_ci.will(refusal(refused))
    with pytest.raises((Throttled, TemporaryError)):
        ci.queues(PLACE)
    assert len(fake_ci.asked) == 1
    assert clock.slept == []
    assert not ci.is_slowed(PLACE)


def test_many_queues_for_which_the_rate_makes_us_wait_are_given_up(
    ci: TencentCi, fake_ci: FakeCi, clock: Clock
) -> None:
    ci.set_rate(Rate(count=1, per=timedelta(seconds=8)))
    fake_ci.will(*(answer(body=page(*"abcdefghij", first=n * 10)) for n in range(20)))
    with pytest.raises(TemporaryError, match="longer than 20 s"):
        ci.queues(PLACE)
    assert len(fake_ci.asked) == 4


def test_an_answer_that_takes_long_is_cut_after_seconds(fake_ci: FakeCi) -> None:
    ticks = itertools.count(step=0.1)
    with TencentCi(credentials=CREDENTIALS, endpoint=fake_ci.url, monotonic=lambda: next(ticks)) as ci:
        fake_ci.will(dripping(b"", b"a", every_s=0.001))
        with pytest.raises(TemporaryError, match="took longer than 5 s"):
            ci.queues(PLACE)
