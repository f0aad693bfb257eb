"""CI's clock and ours: whether ours can be trusted, and up to when both together say that jobs are known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from bridge.decide.text.times import human, iso
from bridge.model import ClockReading, Page

# --- whether our clock can be trusted -------------------------------------------------------------------------------

_FAR = timedelta(hours=1)
_LATELY = timedelta(minutes=30)

_DATE = timedelta(seconds=1)  # its resolution


def earlier(ours: datetime, ahead: timedelta | None) -> datetime:
    """Return the earlier of our clock and CI's, which is so far `ahead` (None: it does not say).

    By that nothing has lasted for too long that has not by both. A Date has whole seconds: one is no difference.
    """
    return ours + ahead if ahead is not None and ahead < -_DATE else ours


def clock_fault(
    *,
    now: datetime,
    trusted_at: datetime | None,
    readings: Iterable[ClockReading],
    local_ahead: timedelta = timedelta(0),
) -> str | None:
    """Return why the clock, which shows `now`, is not to be trusted; None: it is.

    It was right at `trusted_at` (None: nobody knows). `local_ahead` is this machine's clock of the database's. After a
    leap, or a long stop of the bridge, a poll confirms it: answers of CI whose Date is about the same.
    """
    if abs(local_ahead) > _FAR:
        return f"this machine's clock is {_off(local_ahead)} the database's: set it (NTP)"
    known = list(readings)
    if wrong := [reading.ahead for reading in known if reading.ahead is not None and abs(reading.ahead) > _FAR]:
        off = _off(max(wrong, key=abs))
        return f"CI's Date is {off} our clock: set it (NTP), or check whether a proxy answers instead of CI"
    if trusted_at is None or abs(now - trusted_at) <= _FAR:
        return None
    if any(reading.ahead is not None and reading.at and abs(now - reading.at) <= _LATELY for reading in known):
        return None
    return f"the clock jumped from {iso(trusted_at)} to {iso(now)}; no answer of CI has confirmed the new time yet"


def _off(ahead: timedelta) -> str:
    return f"{human(abs(ahead.total_seconds()))} {'ahead of' if ahead > timedelta(0) else 'behind'}"


# --- how far a stream is known: neither CI's Date nor our own clock is believed alone -------------------------------

RESOLUTION = timedelta(seconds=1)  # of CI's Date and CreationTime, which are rounded down
AGREE = timedelta(minutes=1)  # clocks that differ by no more than this agree
_QUIET = timedelta(hours=1)  # a mark stays no further back because a stream shows no job


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """What the clocks said at one answer: CI's Date, and ours when it was asked and when it had answered."""

    asked: datetime
    answered: datetime
    date: datetime | None

    @property
    def ahead(self) -> timedelta | None:
        """By how much CI's clock is ahead of ours; the time that an answer takes does not count. None: no Date."""
        if self.date is None:
            return None
        return max(self.date - self.answered, timedelta(0)) + min(self.date - self.asked, timedelta(0))

    @property
    def agree(self) -> bool:
        return self.ahead is not None and abs(self.ahead) <= AGREE

    def jobs_ahead(self, created: Iterable[datetime]) -> timedelta:
        """By how much the clock of the jobs' times is ahead of ours: it shows CI's Date, or what ours does.

        That is the earlier of the two, unless a job of this answer was created after it.
        """
        if self.date is None or self.agree:
            return timedelta(0)
        earlier, later = sorted((timedelta(0), self.date - self.answered))
        shown = [time for time in created if self.answered + earlier + RESOLUTION < time and self.is_possible(time)]
        return later if shown else earlier

    def is_possible(self, time: datetime) -> bool:
        """Tell whether a job of this answer can have been created, or have started or ended, then, by either clock."""
        return time <= max(self.answered, self.date or self.answered) + AGREE


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """What a chain of list calls has shown so far; `began` is when the poll did, by our clock."""

    began: datetime
    date: datetime | None = None  # CI's, the earliest
    agreed: bool = True  # CI's clock and ours, in every answer
    newest: datetime | None = None  # CreationTime that lies before both

    @property
    def _now(self) -> datetime:
        return min(self.began, self.date or self.began)

    def add(self, page: Page, clocks: Clocks) -> Chain:
        dates = [date for date in (self.date, clocks.date) if date]
        dated = replace(self, date=min(dates, default=None), agreed=self.agreed and clocks.agree)
        created = [self.newest, *(job.created_at for job in page.jobs)]
        return replace(dated, newest=max((time for time in created if time and time <= dated._now), default=None))

    def mark(self, before: datetime | None) -> datetime:
        """Return up to when the jobs are known, now that the chain has ended; `before` it was this.

        That is the earlier of CI's clock and ours. Where they differ it is no later than the newest job that was
        listed, or an hour earlier than both: a quiet stream's mark moves on too.
        """
        if self.agreed:
            return self._now
        known = [time for time in (self.newest, before) if time and time <= self._now]
        return max([self._now - _QUIET, *known])


def believed(mark: datetime, *, now: datetime, lookback: timedelta) -> datetime:
    """Return from when on to list: a mark in the future was set by a wrong clock, and hides what came since."""
    return min(mark, now) if mark <= now + AGREE else now - lookback


def begins_anew(*, out_at: datetime, back_at: datetime, mark: datetime | None, lookback: timedelta) -> bool:
    """Tell whether a stream has been out of the rules for so long that what happened meanwhile is no news.

    Another worker, with other rules, may have listed it since: up to `mark`.
    """
    last = max(out_at, mark) if mark else out_at
    return back_at - last > lookback


def clock_warning(ahead: timedelta | None) -> str | None:
    """Say that CI's clock and ours differ, or None when they agree or nothing is known."""
    if ahead is None or abs(ahead) <= AGREE:
        return None
    return f"CI's clock is {_off(ahead)} ours; set this machine's clock (NTP), if CI's is right"
