"""What is asked of CI, how it is signed, and what is tried again."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from bridge.collect.client import TencentCi
from bridge.collect.credentials import Credentials
from bridge.collect.errors import AuthError, ClockError, TemporaryError, Throttled
from bridge.collect.signature import authorization
from tests.collect.conftest import CREDENTIALS, NOW, PLACE, STREAM, Asked, Clock, FakeCi, answer, fixture, refusal
from tests.support.receivers import Behaviour

SHANGHAI = timezone(timedelta(hours=8))


def listed(ci: TencentCi, fake_ci: FakeCi, **span: Any) -> Asked:
    """List a page; return what CI was asked."""
    fake_ci.will(answer())
    ci.list(STREAM, **span)
    return fake_ci.asked[-1]


def resigned(asked: Asked, headers: tuple[str, ...] = ("host",)) -> str:
    """The header that CI would compute from what arrived."""
    start, end = asked.signed["q-sign-time"].split(";")
    return authorization(
        secret_id=CREDENTIALS.secret_id,
        secret_key=CREDENTIALS.secret_key,
        method="GET",
        path=asked.resource,
        params=asked.params,
        headers={name: asked.headers[name] for name in headers},
        start=int(start),
        end=int(end),
    )


@pytest.mark.parametrize("date", [NOW, None])
def test_a_page_is_listed(ci: TencentCi, fake_ci: FakeCi, date: datetime | None) -> None:
    fake_ci.will(answer(body=fixture("list_two_jobs_next_token.xml"), date=date))
    page = ci.list(STREAM)
    assert [job.state for job in page.jobs] == ["Running", "Success"]
    assert page.jobs[0].bucket == "clips-1250000000"
    assert page.served_at == date
    (asked,) = fake_ci.asked
    assert (asked.resource, asked.params) == ("/jobs", {"tag": "Transcode", "orderByTime": "Asc", "size": "100"})


def test_every_parameter_is_sent_as_documented(ci: TencentCi, fake_ci: FakeCi) -> None:
    fake_ci.will(answer())
    stream = replace(STREAM, queue="p1", queue_type="Transcoding", workflow="w1", input="目录 1/a+b&c.mp4")
    since = datetime(2026, 11, 21, 8, 0, tzinfo=SHANGHAI)
    ci.list(
        stream, since=since, until=NOW, token="225508", order="Desc", states=("Submitted", "Running", "Pause"), size=10
    )
    (asked,) = fake_ci.asked
    assert asked.params == {
        "tag": "Transcode",
        "queueId": "p1",
        "queueType": "Transcoding",
        "workflowId": "w1",
        "inputObject": "目录 1/a+b&c.mp4",
        "startCreationTime": "2026-11-21T00:00:00+0000",
        "endCreationTime": "2026-11-21T09:00:00+0000",
        "orderByTime": "Desc",
        "size": "10",
        "nextToken": "225508",
        "states": "Submitted,Running,Pause",
    }
    assert "startCreationTime=2026-11-21T00%3A00%3A00%2B0000" in asked.path
    assert asked.headers["authorization"] == resigned(asked)


def test_the_real_host_is_sent_and_signed_behind_an_endpoint(ci: TencentCi, fake_ci: FakeCi) -> None:
    asked = listed(ci, fake_ci)
    assert asked.headers["host"] == "clips-1250000000.ci.ap-chongqing.myqcloud.com"
    assert asked.signed["q-header-list"] == "host"
    # A minute before now and ten after: 09:00 on 2026-11-21 is 1795251600.
    assert asked.signed["q-sign-time"] == "1795251540;1795252200"


def test_a_places_own_endpoint_comes_first_and_a_token_of_temporary_keys_is_sent_and_signed(
    fake_ci: FakeCi, clock: Clock
) -> None:
    fake_ci.will(answer())
    keys = replace(CREDENTIALS, token="tok/EX+AMPLE==")
    with TencentCi(credentials=keys, endpoint="http://127.0.0.1:1", clock=clock) as ci:
        ci.list(replace(STREAM, place=replace(PLACE, endpoint=fake_ci.url + "/")))
    (asked,) = fake_ci.asked
    assert asked.resource == "/jobs"
    assert asked.headers["x-ci-security-token"] == "tok/EX+AMPLE=="
    assert asked.headers["authorization"] == resigned(asked, ("host", "x-ci-security-token"))


def test_jobs_are_described_by_id(ci: TencentCi, fake_ci: FakeCi) -> None:
    fake_ci.will(answer(body=fixture("describe_with_nonexist.xml")))
    described = ci.describe(PLACE, ["je27bb668da8f11ee8001525400a1b2c3", "j4f3c8bb8da8311ee8003525400a1b2c3"])
    assert [job.state for job in described.jobs] == ["Running"]
    assert described.missing == ("j4f3c8bb8da8311ee8003525400a1b2c3",)
    assert described.served_at == NOW
    (asked,) = fake_ci.asked
    assert asked.resource == "/jobs/je27bb668da8f11ee8001525400a1b2c3,j4f3c8bb8da8311ee8003525400a1b2c3"
    assert asked.params == {}
    assert asked.headers["authorization"] == resigned(asked)


@pytest.mark.parametrize(
    "odd", ["j1,j2", "a/b", "..", ".", "a b", "a?b", "a#b", "a%2Cb", "媒", "a\nb", "a\ufffdb", "a\\b"]
)
def test_an_id_that_no_path_takes_is_not_asked_for_and_the_others_are(odd: str, ci: TencentCi, fake_ci: FakeCi) -> None:
    fake_ci.will(answer())
    assert ci.describe(PLACE, [odd]).missing == ()
    assert fake_ci.asked == []
    ci.describe(PLACE, ["j1", odd, "j-2_3.4"])
    assert [asked.resource for asked in fake_ci.asked] == ["/jobs/j1,j-2_3.4"]


@pytest.mark.parametrize("count", [0, 11])
def test_ten_ids_is_the_most(ci: TencentCi, count: int) -> None:
    with pytest.raises(ValueError, match=f"1 to 10 ids, not {count}"):
        ci.describe(PLACE, ["j1"] * count)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        (Credentials(secret_id="", secret_key="k"), "TENCENTCLOUD_SECRET_ID is empty"),
        (Credentials(secret_id="i", secret_key=""), "TENCENTCLOUD_SECRET_KEY is empty"),
        (Credentials(secret_id="i", secret_key="hush\n"), "TENCENTCLOUD_SECRET_KEY contains white space"),
        (Credentials(secret_id="i", secret_key="k", token="hush\r\nX: y"), "TENCENTCLOUD_SECURITY_TOKEN contains"),
    ],
)
def test_missing_or_broken_keys_are_named_without_asking(keys: Credentials, why: str, fake_ci: FakeCi) -> None:
    with TencentCi(credentials=keys, endpoint=fake_ci.url) as ci, pytest.raises(AuthError) as caught:
        ci.list(STREAM)
    assert str(caught.value).startswith(why)
    assert "hush" not in str(caught.value)
    assert fake_ci.asked == []


def test_wrong_keys_are_reported_once_and_never_shown(ci: TencentCi, fake_ci: FakeCi) -> None:
    echo = b"<Error><Code>SignatureDoesNotMatch</Code><Message>a-made-up-key is wrong</Message></Error>"
    fake_ci.will(answer(403, echo, x_ci_request_id="Njv"))
    with pytest.raises(AuthError) as caught:
        ci.list(STREAM)
    assert "[secret] is wrong (SignatureDoesNotMatch, HTTP 403, request id Njv)" in str(caught.value)
    assert "check TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY" in str(caught.value)
    assert len(fake_ci.asked) == 1
    assert "a-made-up-key" not in repr(CREDENTIALS)


def test_netrc_is_never_read(ci: TencentCi, fake_ci: FakeCi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\ndefault login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert listed(ci, fake_ci).headers["authorization"].startswith("q-sign-algorithm=sha1&")


def minds_the_time(its_clock: float) -> Behaviour:
    """A CI whose clock is `its_clock` and that checks q-sign-time, as CI does."""
    date = datetime.fromtimestamp(its_clock, UTC)
    skewed = answer(403, fixture("errors/request_time_too_skewed_403.xml"), date=date)

    def give(connection: Any, seen: Any, over: Any) -> None:
        start, end = map(int, Asked(seen.path, seen.headers, seen.body).signed["q-sign-time"].split(";"))
        (answer(date=date) if start <= its_clock <= end else skewed)(connection, seen, over)

    return give


@pytest.mark.parametrize("minutes", [20, -20])
def test_a_clock_twenty_minutes_off_is_corrected_once_logged_and_followed_back(
    minutes: int, ci: TencentCi, fake_ci: FakeCi, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    its_clock = clock.now + minutes * 60
    fake_ci.will(minds_the_time(its_clock))
    with caplog.at_level(logging.WARNING, "bridge.collect.client"):
        ci.list(STREAM)
        ci.list(STREAM)
    assert ci.offset(PLACE) == timedelta(minutes=minutes)
    assert len(fake_ci.asked) == 3  # refused, corrected, and then right at once
    (record,) = caplog.records
    assert vars(record)["offset_s"] == minutes * 60
    clock.now = its_clock  # as an operator sets it
    ci.list(STREAM)
    assert ci.offset(PLACE) == timedelta()


def test_an_expired_signature_is_a_matter_of_the_clock(ci: TencentCi, fake_ci: FakeCi) -> None:
    expired = answer(403, fixture("errors/request_has_expired_403.xml"), date=NOW + timedelta(hours=1))
    fake_ci.will(expired, answer())
    ci.list(STREAM)
    assert ci.offset(PLACE) == timedelta(hours=1)


@pytest.mark.parametrize(
    ("date", "calls", "why"),
    [
        (NOW + timedelta(hours=1), 2, "this machine's clock is 3600 s behind CI's"),
        (NOW - timedelta(hours=1), 2, "this machine's clock is 3600 s ahead of CI's"),
        (NOW + timedelta(seconds=29), 1, "this machine's clock is 29 s behind CI's"),
        (None, 1, "sent no time of its own"),
    ],
)
def test_a_clock_that_cannot_be_corrected_is_reported(
    date: datetime | None, calls: int, why: str, ci: TencentCi, fake_ci: FakeCi
) -> None:
    fake_ci.will(answer(403, fixture("errors/request_time_too_skewed_403.xml"), date=date))
    with pytest.raises(ClockError) as caught:
        ci.list(STREAM)
    assert why in str(caught.value)
    assert str(caught.value).endswith("; set this machine's clock (NTP)")
    assert len(fake_ci.asked) == calls


@pytest.mark.parametrize("wait", [{}, {"retry_after": "3"}])
def test_throttling_is_waited_out_twice_and_the_third_is_raised(
    wait: dict[str, str], ci: TencentCi, fake_ci: FakeCi, clock: Clock
) -> None:
    fake_ci.will(refusal("slow_down_503.xml"), refusal("too_many_requests_429.xml", **wait))
    with pytest.raises(Throttled):
        ci.list(STREAM)
    assert clock.slept == [1, 3 if wait else 2]
    assert len(fake_ci.asked) == 3


@pytest.mark.parametrize(("asks", "wait_s"), [("6", 6), ("Sat, 21 Nov 2026 09:01:00 GMT", 60), ("86400", 600)])
def test_a_long_wait_is_left_to_the_caller(
    asks: str, wait_s: int, ci: TencentCi, fake_ci: FakeCi, clock: Clock
) -> None:
    fake_ci.will(refusal("service_unavailable_503.xml", retry_after=asks))
    with pytest.raises(Throttled) as caught:
        ci.list(STREAM)
    assert caught.value.retry_after == timedelta(seconds=wait_s)
    assert clock.slept == []


@pytest.mark.parametrize("name", ["internal_error_500.xml", "service_unavailable_503.xml"])
def test_a_server_error_is_tried_once_more(name: str, ci: TencentCi, fake_ci: FakeCi, clock: Clock) -> None:
    fake_ci.will(refusal(name), answer())
    ci.list(STREAM)
    fake_ci.will(refusal(name))
    with pytest.raises(TemporaryError) as caught:
        ci.list(STREAM)
    assert caught.value.status in (500, 503)
    assert len(fake_ci.asked) == 4
    assert clock.slept == [1, 1]


def test_requests_to_a_bucket_keep_the_rate(ci: TencentCi, fake_ci: FakeCi, clock: Clock) -> None:
    for _ in range(6):
        listed(ci, fake_ci)
    assert clock.slept == [1]  # five a second, so the sixth waits


def test_a_bucket_that_refused_is_asked_less_often_and_faster_again_after_a_series(
    ci: TencentCi, fake_ci: FakeCi, clock: Clock
) -> None:
    fake_ci.will(refusal("too_many_requests_429.xml"), answer())
    for _ in range(22):
        ci.list(STREAM)
    assert clock.slept == [1, *map(pytest.approx, [0.4] * 19), pytest.approx(0.32), pytest.approx(0.32)]
