from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis.strategies import text

from bridge.http_headers import http_date, retry_after

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("wish", "after"),
    [
        ("0", timedelta()),
        ("120", timedelta(minutes=2)),
        ("00120", timedelta(minutes=2)),
        ("  120  ", timedelta(minutes=2)),
        ("0" * 30 + "9", timedelta(seconds=9)),
        ("86400", DAY),
        ("86401", DAY),
        ("315360000", DAY),
        (str(10**30), DAY),
        ("9" * 5000, DAY),
        ("Sat, 21 Nov 2026 12:10:00 GMT", timedelta(minutes=10)),
        ("Sat, 21 Nov 2026 20:10:00 +0800", timedelta(minutes=10)),
        ("Saturday, 21-Nov-26 12:10:00 GMT", timedelta(minutes=10)),
        ("Sat Nov 21 12:10:00 2026", timedelta(minutes=10)),
        ("21 Nov 2026 12:10:00 GMT", timedelta(minutes=10)),
        ("Sat, 21 Nov 2026 12:10:00", timedelta(minutes=10)),
        ("Sat, 21 Nov 2026 07:10:00 EST", timedelta(minutes=10)),
        ("Sat, 21 Nov 2026 12:10:00 -0000", timedelta(minutes=10)),
        ("Sat, 21 Nov 2036 12:00:00 GMT", DAY),
    ],
)
def test_retry_after_is_seconds_or_a_time_and_at_most_the_limit(wish: str, after: timedelta) -> None:
    assert retry_after(wish, now=NOON, most=DAY) == after


@pytest.mark.parametrize(
    "wish",
    [
        "-5", "+5", "soon", "", " ", "1.5", "1,5", "5, 6", "5s", "1e3", "0x10", "1_000", "²", "٣٠", "３０",
        "Sat, 21 Nov 2026 11:00:00 GMT", "Sat, 21 Nov 2026 12:00:00 GMT", "Sat, 99 Nov 2026 11:00:00",
        "Saturday, 21-Nov-26 11:00:00 GMT", "Sat Nov 21 11:00:00 2026", "Sat, 21 Nov 2026 12:10:60 GMT",
        "Mon, 01 Jan 0001 00:00:00 GMT", f"Sat, 21 Nov {10**30} 12:10:00 GMT", "2026-11-21T12:10:00Z",
        f"Sat, 21 Nov 2026 12:10:00 +{10**20}", "Sat, 21 Nov 2026 12:10:00 +9900", "21 Nov , 12:10:00 GMT", "Sat,",
    ],
)  # fmt: skip
def test_a_retry_after_that_makes_no_sense_or_is_over_is_none(wish: str) -> None:
    assert retry_after(wish, now=NOON, most=DAY) is None


@given(text(alphabet=":,+-. 0123456789aSsatNovGMTZ٣"))
def test_no_retry_after_raises(wish: str) -> None:
    after = retry_after(wish, now=NOON, most=DAY)
    assert after is None or timedelta() <= after <= DAY


@pytest.mark.parametrize(
    ("written", "time"),
    [
        ("Sat, 21 Nov 2026 12:00:00 GMT", NOON),
        ("", None),
        ("now", None),
        ("Sat, 99 Nov 2026 09:00:00 GMT", None),
        ("Fri, 31 Dec 9999 23:00:00 -0800", None),
    ],
)
def test_a_date_that_cannot_be_read_is_none(written: str, time: datetime | None) -> None:
    assert http_date(written) == time
