from datetime import UTC, datetime, timedelta

import pytest

from bridge.collect.http import Reply

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)


def a_reply(**headers: str) -> Reply:
    return Reply(status=200, headers=headers, body=b"")


def test_the_date_is_cis_own_clock() -> None:
    assert a_reply(Date="Sat, 21 Nov 2026 09:00:00 GMT").date == NOW


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "Sat, 99 Nov 2026 09:00:00 GMT",
        "Fri, 31 Dec 9999 23:00:00 -0800",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Mon, 01 Jan 0500 00:00:00 GMT",
    ],
)
def test_a_date_that_cannot_be_read_is_none(text: str) -> None:
    assert a_reply(Date=text).date is None


def test_a_wait_is_asked_for_in_seconds() -> None:
    assert a_reply(**{"Retry-After": " 7 "}).retry_after(NOW) == timedelta(seconds=7)


def test_a_wait_until_a_time_counts_from_cis_clock_not_from_ours() -> None:
    headers = {"Date": "Sat, 21 Nov 2026 10:00:00 GMT", "Retry-After": "Sat, 21 Nov 2026 10:00:20 GMT"}
    assert a_reply(**headers).retry_after(NOW) == timedelta(seconds=20)
    del headers["Date"]
    assert a_reply(**headers).retry_after(NOW + timedelta(hours=1)) == timedelta(seconds=20)


@pytest.mark.parametrize("text", ["", "soon", "-3", "1.5", "٣"])
def test_a_wait_that_cannot_be_read_is_none(text: str) -> None:
    assert a_reply(**{"Retry-After": text}).retry_after(NOW) is None


@pytest.mark.parametrize("text", ["9" * 5000, "601", "86400", "Sat, 21 Nov 2099 10:00:20 GMT"])
def test_no_wait_is_longer_than_ten_minutes(text: str) -> None:
    assert a_reply(**{"Retry-After": text}).retry_after(NOW) == timedelta(minutes=10)


def test_a_time_that_is_over_is_no_wait() -> None:
    assert a_reply(**{"Retry-After": "Sat, 21 Nov 2026 08:00:00 GMT"}).retry_after(NOW) == timedelta()
