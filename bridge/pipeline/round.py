"""One poll under way: what was known when it began, and which jobs it tells of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection

from bridge.collect.errors import CiError
from bridge.decide.rulebook import Rulebook
from bridge.decide.tellings import Telling
from bridge.model import Job, Stream, Watch
from bridge.record import snapshots

RESOLUTION = timedelta(seconds=1)  # of CI's CreationTime, which is rounded down
_CLOCKS_AGREE = timedelta(seconds=30)  # an answer may be so long on its way


@dataclass(slots=True)
class Poll:
    """What one poll of one watch came to."""

    watch: str
    calls: int = 0
    jobs: int = 0
    transitions: int = 0
    deliveries: int = 0
    stays: int = 0  # that a level rule told of
    error: CiError | None = None

    def count(self, tellings: Sequence[Telling]) -> None:
        """Count transitions, and what is told of them."""
        self.transitions += len(tellings)
        self.deliveries += sum(len(telling.told) for telling in tellings)


@dataclass(slots=True, kw_only=True)
class Round:
    """What stays the same during one poll."""

    watch: Watch
    book: Rulebook
    began: datetime
    poll: Poll
    listed: dict[str, snapshots.Listed]
    still_at: datetime | None  # the last complete poll
    unseen: dict[str, str] = field(default_factory=dict)  # unfinished jobs that no answer has shown yet
    behind: timedelta = timedelta(0)  # CI's clock

    def silence(self, stream: Stream, horizon: datetime | None) -> Callable[[Job], str | None]:
        """Return why a job that this stream shows for the first time is told to nobody.

        The first snapshot of a stream is silent about jobs from before it was first asked for. Jobs up to the
        horizon may have been told and pruned.
        """
        listed = self.listed[stream.key]
        told_from = listed.told_from - self.behind
        announced = listed.mark or self.watch.announce_first
        first = f'first snapshot of {stream.tag} in watch "{self.watch.name}"'

        def why(job: Job) -> str | None:
            if horizon and job.created_at and job.created_at <= horizon:
                return "older than what is kept"
            return None if announced or (job.created_at and job.created_at > told_from) else first

        return why

    def compare_clocks(self, served_at: datetime, now: datetime) -> None:
        """Notice a CI whose clock is behind: a job made after the first question would look older than that.

        One whose clock is ahead makes some older jobs look new: better told in vain than not told.
        """
        behind = now - served_at
        self.behind = behind if behind > _CLOCKS_AGREE else timedelta(0)


def meet(tx: Connection, watch: Watch, book: Rulebook, began: datetime, complete_at: datetime | None) -> None:
    """Make the streams known that are asked for the first time, and say from when on their jobs are news.

    That is now; or since another stream's last complete listing that covers this one (a watch that overlaps, a queue
    taken out); or since this watch's last complete poll (a tag added): what came after it nobody has told.
    """
    streams = [stream for one in book.watches for stream in one.streams]
    listed = snapshots.listed(tx, {stream.key for stream in (*streams, *watch.streams)})
    for stream in watch.streams:
        if stream.key not in listed:
            marks = [known.mark for s in streams if (known := listed.get(s.key)) and known.mark and s.covers(stream)]
            since = max(marks, default=complete_at)
            snapshots.meet(tx, stream.key, since - RESOLUTION if since else began)
