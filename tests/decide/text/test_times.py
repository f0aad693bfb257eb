import re
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.decide.text.times import Window, next_at, time_of_day, window

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
SHANGHAI = ZoneInfo("Asia/Shanghai")
SATURDAY = date(2026, 11, 21)

# Days on which a clock was or will be set, each odd in its own way.
ODD_DAYS = [
    ("Europe/Berlin", date(2026, 3, 29)),
    ("Europe/Berlin", date(2026, 10, 25)),
    ("America/New_York", date(2026, 3, 8)),
    ("America/New_York", date(2026, 11, 1)),
    ("Australia/Lord_Howe", date(2026, 4, 5)),  # by half an hour
    ("Australia/Lord_Howe", date(2026, 10, 4)),
    ("Pacific/Apia", date(2011, 12, 30)),  # there was no such day
    ("America/Havana", date(2026, 3, 8)),  # there was no midnight
    ("America/Havana", date(2026, 11, 1)),
    ("America/St_Johns", date(2010, 11, 7)),  # back at 00:01, to the day before
    ("America/Nuuk", date(2026, 3, 28)),  # the day's last hour is left out
    ("America/Nuuk", date(2026, 10, 24)),
    ("Asia/Pyongyang", date(2018, 5, 4)),
]

times = st.times().map(lambda at: at.replace(second=0, microsecond=0))
zones = st.sampled_from(sorted(available_timezones())).map(ZoneInfo)
moments = st.datetimes(datetime(2000, 1, 2), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  (it adds UTC)
weekdays = st.frozensets(st.integers(0, 6), min_size=1)
windows = st.builds(Window, times, times, weekdays)


@st.composite
def odd_moments(draw):
    """Draw a zone, a day on which its clock is set, and a moment near that."""
    zone, day = draw(st.sampled_from(ODD_DAYS))
    minutes = draw(st.integers(-36 * 60, 48 * 60))
    return ZoneInfo(zone), day, datetime.combine(day, time(12), UTC) + minutes * MINUTE


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def clock(moment: datetime, zone: ZoneInfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None)


@cache
def readings(zone: ZoneInfo, day: date) -> list[tuple[datetime, datetime]]:
    """Return every minute from five days before the day to five days after, with what the local clock shows."""
    start = datetime.combine(day, time(), UTC) - 5 * DAY
    return [(moment, clock(moment, zone)) for moment in (start + n * MINUTE for n in range(11 * 1440))]


def reached(minutes, wall: datetime) -> datetime:
    """Return the first minute at which the clock shows `wall` or is past it."""
    return next(moment for moment, shows in minutes if shows >= wall)


def left(minutes, wall: datetime) -> datetime:
    """Return the last minute at which the clock shows `wall`, or the first one past it if none does."""
    last = [moment for moment, shows in minutes if shows == wall]
    return last[-1] if last else reached(minutes, wall)


@pytest.mark.parametrize(
    "text", ["", "9:00", "24:01", "25:00", "12:60", "12", "1200", "12:00:00", " 12:00", "12:00\n", "١٢:00"]
)
def test_what_is_no_time_of_day_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r'is not a time of day; write for example "09:00"$'):
        time_of_day(text)


@pytest.mark.parametrize(
    ("zone", "at", "after", "then"),
    [
        ("UTC", "09:00", "2026-11-21 08:59:59", "2026-11-21 09:00"),
        ("UTC", "09:00", "2026-11-21 09:00", "2026-11-22 09:00"),  # strictly after
        ("Asia/Shanghai", "09:00", "2026-11-21 12:00", "2026-11-22 01:00"),
        ("Europe/Berlin", "02:30", "2026-03-28 12:00", "2026-03-29 01:00"),  # 02:00 to 03:00 is left out
        ("Europe/Berlin", "02:30", "2026-10-24 12:00", "2026-10-25 00:30"),  # the first of two
        ("Europe/Berlin", "02:30", "2026-10-25 00:30", "2026-10-26 01:30"),  # and not the second
        ("Australia/Lord_Howe", "02:15", "2026-10-03 00:00", "2026-10-03 15:30"),  # 02:00 to 02:30 is left out
        ("Australia/Lord_Howe", "01:45", "2026-04-04 00:00", "2026-04-04 14:45"),
        ("Pacific/Apia", "09:00", "2011-12-29 19:00", "2011-12-30 19:00"),  # from the 29th to the 31st
        ("America/Havana", "00:00", "2026-03-07 12:00", "2026-03-08 05:00"),
        ("America/Nuuk", "23:30", "2026-03-28 12:00", "2026-03-29 01:00"),  # the 28th ends at 23:00
    ],
)
def test_the_next_time_of_day_is_what_the_local_clock_says(zone, at, after, then):
    assert next_at(time_of_day(at), after=utc(after), zone=ZoneInfo(zone)) == utc(then)


@given(times, moments, zones)
def test_the_next_time_of_day_is_a_later_moment_in_utc_and_at_most_two_days_away(at, after, zone):
    then = next_at(at, after=after, zone=zone)
    assert after < then <= after + 2 * DAY + HOUR
    assert then.tzinfo is UTC


@settings(deadline=None, max_examples=40)  # each looks at every minute of eleven days
@given(times, odd_moments())
def test_every_day_that_there_is_has_its_moment_once_where_clocks_are_set_too(at, odd):
    zone, day, after = odd
    minutes = readings(zone, day)
    there_are = sorted({shows.date() for _, shows in minutes})[1:-1]  # the outer days are not whole
    wanted = [reached(minutes, datetime.combine(day, at)) for day in there_are]
    assert wanted == sorted(set(wanted))
    found = [wanted[0]]
    while found[-1] < wanted[-1]:
        found.append(next_at(at, after=found[-1], zone=zone))
    assert found == wanted
    assert next_at(at, after=after, zone=zone) == next(moment for moment in wanted if moment > after)


@pytest.mark.parametrize("text", ["22:00-08:00", "00:00-24:00", "22:00-24:00", "00:00-00:01"])
def test_a_window_reads_as_it_was_written(text):
    assert window(f" {text.replace('-', ' - ')} ", None) == window(text, None)
    assert str(window(text, None)) == text
    assert str(window(text, ["tue", "mon"])) == f"{text} on mon, tue"
    assert window(text, ["tue", "mon"]) == window(text, ["mon", "tue", "mon"])


@pytest.mark.parametrize(
    ("between", "days", "said"),
    [
        ("22:00", None, '"22:00" is not a window of the day; write for example "22:00-08:00"'),
        ("22:00-25:00", None, '"25:00" is not a time of day; write for example "09:00"'),
        ("24:00-08:00", None, '"24:00" is not a time of day; write for example "00:00"'),
        ("09:00-09:00", None, '"09:00-09:00" ends where it starts; a whole day is "00:00-24:00"'),
        ("22:00-08:00", [], "the list of days is empty; leave it out for every day"),
        ("22:00-08:00", ["Mon"], 'there is no day "Mon" (did you mean "mon"?)'),
        ("22:00-08:00", ["sum", "mun"], 'there is no day "sum" (did you mean "sun"?); there is no day "mun" (did'),
        ("22:00-08:00", ["x"], 'there is no day "x"; there are mon, tue, wed, thu, fri, sat, sun'),
    ],
)
def test_what_is_no_window_is_refused_with_what_would_be_right(between, days, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        window(between, days)


def test_the_start_is_in_the_window_and_the_end_is_not():
    office = window("09:00-17:00", None)  # 01:00 to 09:00 UTC
    end = utc("2026-11-21 09:00")
    assert office.ends(utc("2026-11-21 00:59:59"), SHANGHAI) is None
    assert office.ends(utc("2026-11-21 01:00"), SHANGHAI) == end
    assert office.ends(utc("2026-11-21 08:59:59"), SHANGHAI) == end
    assert office.ends(end, SHANGHAI) is None


def test_a_windows_days_are_those_on_which_it_starts():
    friday_night = window("22:00-08:00", ["fri"])
    assert friday_night.ends(utc("2026-11-20 23:00"), ZoneInfo("UTC")) == utc("2026-11-21 08:00")
    assert friday_night.ends(utc("2026-11-21 07:59"), ZoneInfo("UTC")) == utc("2026-11-21 08:00")
    assert friday_night.ends(utc("2026-11-20 07:00"), ZoneInfo("UTC")) is None  # of Thursday
    assert friday_night.ends(utc("2026-11-21 22:00"), ZoneInfo("UTC")) is None


def test_a_whole_day_ends_with_the_day_though_the_next_one_follows():
    always = window("00:00-24:00", None)
    assert always.ends(utc("2026-11-21 00:00"), ZoneInfo("UTC")) == utc("2026-11-22 00:00")
    assert always.ends(utc("2026-11-22 00:00"), ZoneInfo("UTC")) == utc("2026-11-23 00:00")


@pytest.mark.parametrize(
    ("zone", "between", "start", "end"),
    [
        ("Asia/Shanghai", "22:00-08:00", "2026-11-20 14:00", "2026-11-21 00:00"),
        ("Europe/Berlin", "22:00-08:00", "2026-03-28 21:00", "2026-03-29 06:00"),  # 9 h
        ("Europe/Berlin", "22:00-08:00", "2026-10-24 20:00", "2026-10-25 07:00"),  # 11 h
        ("Europe/Berlin", "02:30-04:00", "2026-03-29 01:00", "2026-03-29 02:00"),  # starts after the gap
        ("Europe/Berlin", "01:00-02:30", "2026-03-29 00:00", "2026-03-29 01:00"),  # ends after the gap
        ("Europe/Berlin", "02:00-03:00", "2026-10-25 00:00", "2026-10-25 02:00"),  # both of the hours
        ("America/New_York", "00:00-24:00", "2026-03-08 05:00", "2026-03-09 04:00"),
        ("Australia/Lord_Howe", "01:30-02:15", "2026-10-03 15:00", "2026-10-03 15:30"),
        ("Pacific/Apia", "22:00-08:00", "2011-12-30 08:00", "2011-12-30 10:00"),  # cut where the 31st begins
    ],
)
def test_a_window_is_what_the_local_clock_says(zone, between, start, end):
    zone, day = ZoneInfo(zone), clock(utc(start), ZoneInfo(zone)).weekday()
    once = Window(window(between, None).start, window(between, None).end, frozenset({day}))
    assert once.ends(utc(start) - timedelta(seconds=1), zone) is None
    assert once.ends(utc(start), zone) == utc(end)
    assert once.ends(utc(end) - timedelta(seconds=1), zone) == utc(end)
    assert once.ends(utc(end), zone) is None


def test_where_midnight_comes_twice_the_window_that_ends_later_counts():
    havana, always = ZoneInfo("America/Havana"), window("00:00-24:00", None)
    between = utc("2026-11-01 04:30")  # midnights at 04:00 and 05:00: one day has begun, the other has not ended
    assert always.ends(between, havana) == utc("2026-11-02 05:00")


def test_a_clock_that_is_set_back_to_yesterday_ends_no_window_that_has_begun_and_not_come_to_its_last_end():
    st_johns = ZoneInfo("America/St_Johns")
    back = utc("2010-11-07 02:31")  # 00:01 on Sunday becomes 23:01 on Saturday
    assert window("00:00-01:00", ["sun"]).ends(back - MINUTE, st_johns) == utc("2010-11-07 04:30")
    assert window("00:00-01:00", ["sun"]).ends(back, st_johns) == utc("2010-11-07 04:30")
    assert window("23:50-23:30", ["fri"]).ends(back - MINUTE, st_johns) == utc("2010-11-07 03:00")
    assert window("23:50-23:30", ["fri"]).ends(back, st_johns) == utc("2010-11-07 03:00")


@settings(deadline=None)
@given(windows, st.integers(0, 7 * 1440 - 1), st.sampled_from(["UTC", "Asia/Shanghai", "America/New_York"]))
def test_on_ordinary_days_a_window_is_on_from_its_start_until_the_clock_shows_its_end(window, minute, zone):
    local = datetime.combine(SATURDAY, time()) + minute * MINUTE  # a week in which no clock is set
    now = local.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    since = next(then for n in range(1441) if (then := local - n * MINUTE).time() == window.start)
    until = next(then for n in range(1, 1441) if (then := since + n * MINUTE).time() == window.end)
    inside = since.weekday() in window.days and local < until
    assert window.ends(now, ZoneInfo(zone)) == (now + (until - local) if inside else None)


@settings(deadline=None, max_examples=40)
@given(windows, odd_moments())
def test_where_clocks_are_set_a_window_is_on_from_its_first_start_to_its_last_end(window, odd):
    zone, odd_day, now = odd
    minutes = readings(zone, odd_day)
    starts = [day for n in range(-4, 4) if (day := odd_day + n * DAY).weekday() in window.days]
    overnight = DAY * (window.end <= window.start)
    spans = [
        (
            reached(minutes, datetime.combine(day, window.start)),
            left(minutes, datetime.combine(day + overnight, window.end)),
        )
        for day in starts
    ]
    assert window.ends(now, zone) == max((end for start, end in spans if start <= now < end), default=None)
