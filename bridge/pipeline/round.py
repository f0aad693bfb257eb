"""One poll under way: what was known when it began, and which jobs it tells of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection

from bridge.collect.errors import CiError
from bridge.decide.listing import Listing
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
    error: CiError | None = None  # the first
    behind: list[str] = field(default_factory=list)  # tags whose list goes on in the next poll

    def count(self, tellings: Sequence[Telling]) -> None:
        """Count transitions, and what is told of them."""
        self.transitions += len(tellings)
        self.deliveries += sum(len(telling.told) for telling in tellings)


@dataclass(slots=True, kw_only=True)
class Round:
    """One poll under way."""

    watch: Watch
    book: Rulebook
    began: datetime
    poll: Poll
    probing: bool  # CI answered nothing in the last poll, nor yet in this one
    listed: dict[str, snapshots.Listed]
    listings: list[Listing] = field(default_factory=list)
    unseen: dict[str, str] = field(
        default_factory=dict
    )  # unfinished jobs that no answer has shown yet, and their stream
    seen: set[str] = field(default_factory=set)  # jobs that an answer has shown
    incomplete: set[str] = field(default_factory=set)  # streams of which not all was seen
    behind: timedelta = timedelta(0)  # CI's clock

    @property
    def complete(self) -> set[str]:
        """The streams all of whose unfinished jobs this poll has seen."""
        return self.listed.keys() - self.incomplete

    def saw(self, stream: str, job_id: str) -> bool:
        """Tell whether this poll has seen a job of a stream, or that CI has it no more."""
        return job_id in self.seen or stream in self.complete

    def still_at(self, *streams: str) -> datetime | None:
        """Return when the last poll began that saw the jobs of these streams as they are on record."""
        polls = [known.seen_at if (known := self.listed.get(stream)) else None for stream in streams]
        return min((one for one in polls if one), default=None) if all(polls) else None

    def answered(self, served_at: datetime | None, now: datetime) -> None:
        """Note a call that CI answered, by its clock at `served_at`."""
        self.probing = False
        self.poll.calls += 1
        if served_at:
            self.compare_clocks(served_at, now)

    def fail(self, error: CiError, streams: Iterable[str]) -> None:
        """Note an error because of which not all of these streams' jobs are seen."""
        self.poll.error = self.poll.error or error
        self.incomplete.update(streams)

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
