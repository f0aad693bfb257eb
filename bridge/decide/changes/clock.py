"""Whether our clock can be trusted, compared with CI's, with the database's, and with what it showed before."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from bridge.decide.text.durations import human
from bridge.decide.text.times import iso
from bridge.model import Reading

_FAR = timedelta(hours=1)
_LATELY = timedelta(minutes=30)

_DATE = timedelta(seconds=1)  # its resolution


def earlier(ours: datetime, ahead: timedelta | None) -> datetime:
    """Return the earlier of our clock and CI's, which is so far `ahead` (None: it does not say).

    By that nothing has lasted for too long that has not by both. A Date has whole seconds: one is no difference.
    """
    return ours + ahead if ahead is not None and ahead < -_DATE else ours


def clock_fault(
    *, now: datetime, trusted_at: datetime | None, readings: Iterable[Reading], local_ahead: timedelta = timedelta(0)
) -> str | None:
    """Return why the clock, which shows `now`, is not to be trusted; None: it is.

    It was right at `trusted_at` (None: nobody knows). `local_ahead` is this machine's clock of the database's. After a
    leap, or a long stop of the bridge, a poll confirms it: answers of CI whose Date is about the same.
    """
    if abs(local_ahead) > _FAR:
        return f"this machine's clock is {_off(local_ahead)} the database's: set it (NTP)"
    known = list(readings)
    if wrong := [one.ahead for one in known if one.ahead is not None and abs(one.ahead) > _FAR]:
        return f"CI's Date is {_off(max(wrong, key=abs))} our clock: set it (NTP), or look what answers in CI's place"
    if trusted_at is None or abs(now - trusted_at) <= _FAR or any(_confirms(one, now) for one in known):
        return None
    return f"the clock went from {iso(trusted_at)} to {iso(now)}, and no Date of CI has confirmed that yet"


def _confirms(one: Reading, now: datetime) -> bool:
    return one.ahead is not None and one.at is not None and abs(now - one.at) <= _LATELY


def _off(ahead: timedelta) -> str:
    return f"{human(abs(ahead.total_seconds()))} {'ahead of' if ahead > timedelta(0) else 'behind'}"
