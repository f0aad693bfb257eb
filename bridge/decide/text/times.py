"""Durations, rates, times and windows of the day: as rules.toml and RFC 3339 write them, and as a person reads them."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import count
from zoneinfo import ZoneInfo

from bridge.decide.text.values import instead, listing, shown
from bridge.language import ENGLISH
from bridge.model import Rate

# --- durations and rates --------------------------------------------------------------------------------------------

_LONGEST_DURATION = 40  # characters
_MOST_AT_ONCE = 1_000_000  # of a rate

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SPANS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_DURATION = re.compile(r"(?:\d+[smhd])+")
_PIECE = re.compile(r"(\d+)([smhd])")
_RATE = re.compile(r"(\d+)/(\d*[smhd])")


def duration(text: str) -> timedelta:
    """Read "90s", "45m", "1h30m", "7d". Raises ValueError saying what would be right."""
    if len(text) > _LONGEST_DURATION or not _DURATION.fullmatch(text):
        raise ValueError(f'"{text[:80]}" is not a duration; write for example "30s", "45m", "1h30m" or "7d"')
    seconds = sum(int(count) * _UNITS[unit] for count, unit in _PIECE.findall(text))
    if not 0 < seconds <= 3650 * 86400:
        raise ValueError(f'"{text}" is out of range; a duration is more than nothing and at most ten years')
    return timedelta(seconds=seconds)


def rate(text: str) -> Rate:
    """Read "10/s" or "10/5m". Raises ValueError saying what would be right."""
    found = _RATE.fullmatch(text) if len(text) <= _LONGEST_DURATION else None
    if not found or int(found[1]) == 0:
        raise ValueError(f'"{text[:80]}" is not a rate; write for example "10/s" or "100/5m"')
    count, per = int(found[1]), duration(found[2] if found[2][0].isdigit() else f"1{found[2]}")
    if count > _MOST_AT_ONCE or per > timedelta(days=1):
        raise ValueError(f'"{text}" is out of range; a rate is at most {_MOST_AT_ONCE:,}, in at most a day')
    return Rate(count=count, per=per)


def human(seconds: float | None) -> str:
    """Return a number of seconds in its two largest units, in English: "45 s", "3 min 5 s", "2 h 10 min", "3 d 4 h"."""
    return ENGLISH.span(seconds)


def ago(at: datetime, now: datetime) -> str:
    passed = (now - at).total_seconds()
    if abs(passed) < 1:
        return "now"
    return f"{span(passed)} ago" if passed > 0 else f"in {span(-passed)}"


def span(seconds: float | timedelta | None) -> str:
    """Return a length of time in its largest unit, and the next one if the count is small."""
    if seconds is None:
        return "–"
    left = round(seconds.total_seconds() if isinstance(seconds, timedelta) else seconds)
    if left < 1:
        return "0 s"
    for place, (size, unit) in enumerate(_SPANS):
        if left >= size:
            count, rest = divmod(left, size)
            more = rest // _SPANS[place + 1][0] if place + 1 < len(_SPANS) and count < 10 else 0
            return f"{count} {unit}" + (f" {more} {_SPANS[place + 1][1]}" if more else "")
    return "0 s"


def iso(moment: datetime | None) -> str | None:
    """Return RFC 3339 in UTC to the second, as in 2026-11-21T09:00:00Z."""
    # Not strftime, which writes the year 1 as "1" on some systems.
    return f"{moment.replace(tzinfo=None).isoformat(timespec='seconds')}Z" if moment else None


# --- times of the day, the next of them, and windows such as "22:00-08:00" ------------------------------------------

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_EVERY_DAY = frozenset(range(7))
_DAY = timedelta(days=1)
_MIDNIGHT = time()
_TIME_OF_DAY = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]")


def time_of_day(text: str) -> time:
    """Read "09:00". Raises ValueError saying what would be right."""
    if not _TIME_OF_DAY.fullmatch(text):
        right = "00:00" if text == "24:00" else "09:00"
        raise ValueError(f'{shown(text)} is not a time of day; write for example "{right}"')
    return time.fromisoformat(text)


def next_at(at: time, *, after: datetime, zone: ZoneInfo) -> datetime:
    """Return the first moment after `after` at which the local clock shows `at`, in UTC: one for each local day.

    On a day that has that time twice it is the first. Where the clock is set forward over it, it is the first moment
    after that. A day that the zone leaves out (Pacific/Apia, 2011-12-30) has none.
    """
    today = after.astimezone(zone).date()  # what belongs to the days before it is over
    days = (today + n * _DAY for n in count())
    existing = (day for day in days if _moment(day, _MIDNIGHT, zone).astimezone(zone).date() == day)
    return next(moment for day in existing if (moment := _moment(day, at, zone)) > after)


@dataclass(frozen=True, slots=True)
class Window:
    """A time of the day that comes again on each of `days` (Monday is 0), the days on which it starts.

    With an end that is not after the start it ends on the next day; one that ends where it starts lasts a day.
    """

    start: time
    end: time
    days: frozenset[int] = _EVERY_DAY

    def ends(self, now: datetime, zone: ZoneInfo) -> datetime | None:
        """Return when the window that `now` is in ends, in UTC, or None when it is in none.

        The start is in the window, the end is not. A window that touches the next day's ends all the same. It starts
        when the clock first shows the start and ends when it last shows the end, so an hour that comes twice is in
        it twice. A start or an end that the clock leaves out is the first moment after that.
        """
        today = now.astimezone(zone).date()
        # A clock that is set back over midnight has begun tomorrow, or not yet ended yesterday.
        days = [day for n in (-2, -1, 0, 1) if (day := today + n * _DAY).weekday() in self.days]
        lasts = timedelta() if self.start < self.end else _DAY
        spans = ((_moment(day, self.start, zone), _moment(day + lasts, self.end, zone, again=True)) for day in days)
        return max((end for start, end in spans if start <= now < end), default=None)

    def next_start(self, after: datetime, zone: ZoneInfo) -> datetime:
        """Return the first moment after `after` at which it starts, in UTC."""
        moment = next_at(self.start, after=after, zone=zone)
        while moment.astimezone(zone).weekday() not in self.days:
            moment = next_at(self.start, after=moment, zone=zone)
        return moment

    def __str__(self) -> str:
        end = "24:00" if self.end == _MIDNIGHT else f"{self.end:%H:%M}"
        days = "" if self.days == _EVERY_DAY else f" on {listing(DAYS[day] for day in sorted(self.days))}"
        return f"{self.start:%H:%M}-{end}{days}"


def window(between: str, days: Sequence[str] | None) -> Window:
    """Read "22:00-08:00" and ["mon", "tue"]; None is every day. Raises ValueError saying what would be right."""
    start, dash, end = (part.strip() for part in between.partition("-"))
    if not dash:
        raise ValueError(f'{shown(between)} is not a window of the day; write for example "22:00-08:00"')
    first, last = time_of_day(start), _MIDNIGHT if end == "24:00" else time_of_day(end)
    if start == end:
        raise ValueError(f'{shown(between)} ends where it starts; a whole day is "00:00-24:00"')
    if days is None:
        return Window(first, last)
    if not days:
        raise ValueError("the list of days is empty; leave it out for every day")
    if unknown := [day for day in days if day not in DAYS]:
        raise ValueError("; ".join(f"there is no day {shown(day)}{instead(day, DAYS)}" for day in unknown))
    return Window(first, last, frozenset(map(DAYS.index, days)))


def _moment(day: date, at: time, zone: ZoneInfo, *, again: bool = False) -> datetime:
    """Return when the clock first shows `at` on that day (`again`: last), or else when it is set forward over it."""
    wall = datetime.combine(day, at)
    first, last = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first <= last:
        return last if again else first
    # In a gap fold 0 reckons with the offset before it and fold 1 with that after it, so they come in the wrong
    # order, and the gap ends between them (PEP 495).
    seconds = range((first - last) // timedelta(seconds=1))
    return last + timedelta(seconds=bisect_left(seconds, wall, key=lambda s: _shown_at(last, s, zone)))


def _shown_at(moment: datetime, seconds_later: int, zone: ZoneInfo) -> datetime:
    return (moment + timedelta(seconds=seconds_later)).astimezone(zone).replace(tzinfo=None)
