"""Which calls to make: when to poll next, how far back to list, what to ask by id, what where a page is unreadable."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import accumulate

from bridge.decide.changes.clocks import Chain, Clocks
from bridge.model import (
    IDS_PER_CALL,
    PAGE_SIZE,
    PAUSE,
    RUNNING,
    SUBMITTED,
    Job,
    JobProblem,
    ListProgress,
    Page,
    Stream,
    UnfinishedJob,
    Watch,
)

# --- when a watch is polled next ------------------------------------------------------------------------------------

_PROBED = timedelta(seconds=30)  # how often a CI that does not answer is asked
_MAX_RETRY_AFTER = timedelta(minutes=10)  # of CI


def due_at(*, next_poll_at: int, polled_at: int, failures: int, every: timedelta) -> int:
    """Return when a watch's time comes; the interval may have been shortened since the last poll."""
    return next_poll_at if failures else min(next_poll_at, polled_at + every // timedelta(milliseconds=1))


def is_due(*, next_poll_at: int, polled_at: int, failures: int, every: timedelta, now: int) -> bool:
    """Tell whether a watch's time has come; times are milliseconds since 1970.

    A time further off than a poll can be put off is
    from before the clock was set back.
    """
    every_ms, longest_ms = (span // timedelta(milliseconds=1) for span in (every, _MAX_RETRY_AFTER))
    at = due_at(next_poll_at=next_poll_at, polled_at=polled_at, failures=failures, every=every)
    furthest = now + 2 * max(every_ms, longest_ms)
    return not now < at <= furthest


def pause(every: timedelta, *, refused: bool = False, retry_after: timedelta | None = None) -> timedelta:
    """Return how long after a poll's beginning the next one is.

    `refused`: CI answered nothing, or asks for fewer calls. CI's `retry_after` is believed up to ten minutes.
    """
    if retry_after is not None:
        return max(every, min(retry_after, _MAX_RETRY_AFTER))
    return max(every, _PROBED) if refused else every


def next_poll(
    *, began: datetime, every: timedelta, took: timedelta, others: tuple[datetime, float] | None = None
) -> datetime:
    """Return when to poll next, so that what happens is seen within `every` although a poll takes its time.

    `took` is the longest poll of the watches with this `every`; a quarter of that is allowed for at the most. `others`
    is when the first of them is polled, and by which part of the interval this one is to be apart from it; a poll is
    made up to a tenth earlier for that, never later.
    """
    interval = every - min(took, every / 4)
    at = began + interval
    if others:
        first, part = others
        early = (at - first - interval * part) % interval
        at -= min(early, every / 10) if early < interval * 0.9 else timedelta(0)  # else it is a little too early
    return at


def look_at(polled: datetime, next_poll: datetime) -> datetime:
    """Return when to look early at what is unfinished."""
    return polled + (next_poll - polled) / 2


def likeliest_to_end(jobs: Iterable[Job]) -> tuple[str, ...]:
    """Return the ids of as many unfinished jobs as one call takes: running ones, the furthest first, then the oldest.

    `jobs` are in the order of their creation.
    """
    ordered = sorted(jobs, key=lambda job: (job.state != RUNNING, -(job.progress or 0)))
    return tuple(job.id for job in ordered[:IDS_PER_CALL])


def is_idle(*, watch: Watch, mark: datetime | None, news_at: datetime, now: datetime) -> bool:
    """Tell whether a stream without unfinished jobs need not be listed yet: it has shown no new job for long."""
    if watch.idle is None or mark is None or mark > now:
        return False
    return now - news_at >= watch.idle and now + watch.every <= mark + watch.idle


# --- which lists to ask for, and what to ask by id instead ----------------------------------------------------------

# How far before the mark a list begins: CreationTime has one second's resolution, whether the filter includes
# its bound is not documented, and nothing says how soon a new job is listed.
OVERLAP = timedelta(minutes=5)  # as long as nothing has been measured
_LEAST_OVERLAP, DEEP = timedelta(seconds=10), timedelta(hours=1)
_DEEP_AGAIN = timedelta(minutes=10)
_LONGEST_LAG = timedelta(minutes=40)


def overlap(lag: timedelta | None) -> timedelta:
    """Return how far before the mark a list begins, if it took CI so long to list a job (None: nothing is known)."""
    return OVERLAP if lag is None else min(lag * 1.5 + _LEAST_OVERLAP, DEEP)


def lag_of(mark: datetime, created: Iterable[datetime]) -> timedelta:
    """Return the longest time that it took CI to list one of these jobs, which a list to `mark` did not show."""
    return min(max((mark - time for time in created), default=timedelta(0)), _LONGEST_LAG)


def lag_after(lag: timedelta | None) -> timedelta:
    """Return the lag to expect after ten minutes in which jobs were listed: a third shorter.

    A list still begins so early that it shows, and measures anew, what takes CI as long as before.
    """
    return (OVERLAP / 1.5 if lag is None else lag) / 1.5


def is_deep_due(deep_at: datetime | None, *, now: datetime) -> bool:
    """Tell whether to list from well before the mark, as at `deep_at`: a lag that was never seen is not known."""
    return deep_at is None or not timedelta(0) <= now - deep_at < _DEEP_AGAIN


LISTED_STATES = (SUBMITTED, RUNNING, PAUSE)  # unfinished ones that a list can be asked for; cloud docs 1045/73114
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which lists show what is new of a stream and what is unfinished; other unfinished jobs are asked for by id."""

    since: datetime  # from then on all jobs are listed
    shown: frozenset[str] = frozenset()  # the unfinished jobs that this is to show
    unfinished_since: datetime | None = None  # from then on to `since` the unfinished jobs are listed, by their states
    by_state: frozenset[str] = frozenset()  # the jobs that this is to show


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One plan for a stream, and what it costs: calls for lists, and unfinished jobs that are left to be asked for."""

    plan: Plan
    calls: int
    left: int
    by_state: int  # jobs that are listed by their states
    listed: int  # jobs of the list of all


def ways(
    *,
    latest: datetime,
    unfinished: Sequence[UnfinishedJob] = (),
    known_created: Sequence[datetime] = (),
    known_from: datetime | None = None,
    arrivals: int = 0,
    by_state: bool = True,
) -> list[Way]:
    """Return the plans for a stream that may belong to the cheapest poll.

    The list of all jobs begins at `latest`, or earlier to show unfinished jobs too.
    `unfinished` are this stream's, and `known_created` the creation times of all its jobs, both ascending; with
    `known_from` these are complete only from then on. `arrivals`: how many more jobs are expected.
    """
    older = unfinished[: bisect_left(unfinished, latest, key=_created_at)]
    listable = [0, *accumulate(by_state and job.state in LISTED_STATES for job in older)]

    def since(left: int) -> datetime:
        """Return from when to list so that the oldest `left` jobs are not shown."""
        return latest if left == len(older) else older[left].created_at - _SECOND

    def listed(left: int) -> int:
        return len(known_created) - bisect_left(known_created, since(left)) + arrivals

    def pages(left: int) -> int:
        return max(1, _ceil(listed(left), PAGE_SIZE))

    def furthest(pages: int) -> int:
        """Return how many of the oldest jobs so many pages do not show."""
        beginning = bisect_left(older, known_from, key=lambda job: job.created_at - _SECOND) if known_from else 0
        fits = bisect_left(range(len(older)), True, key=lambda left: listed(left) <= pages * PAGE_SIZE)
        return max(beginning, fits)

    def way(hidden: int, *, lists_states: bool) -> Way:
        of_state = [job for job in older[:hidden] if job.state in LISTED_STATES] if lists_states else []
        return Way(
            plan=Plan(
                since=since(hidden),
                shown=frozenset(job.job_id for job in unfinished[hidden:]),
                unfinished_since=of_state[0].created_at - _SECOND if of_state else None,
                by_state=frozenset(job.job_id for job in of_state),
            ),
            calls=pages(hidden) + _ceil(len(of_state), PAGE_SIZE),
            left=hidden - len(of_state),
            by_state=len(of_state),
            listed=listed(hidden),
        )

    def tenths(hidden: int, *, lists_states: bool) -> int:
        """Return what a way costs in tenths of a call, where other streams' jobs are asked for with its own."""
        of_state = listable[hidden] if lists_states else 0
        return IDS_PER_CALL * (pages(hidden) + _ceil(of_state, PAGE_SIZE)) + hidden - of_state

    most = _calls_for(len(older), listable[-1])
    ends = sorted({len(older), *(furthest(pages(len(older)) + more) for more in range(most + 1))})
    costs = {(end, by): tenths(end, lists_states=by) for end in ends for by in (False, True) if not by or listable[end]}
    # Asking for several streams' jobs together saves less than a call of each.
    least = min(costs.values())
    return [way(end, lists_states=by) for (end, by), cost in costs.items() if cost < least + IDS_PER_CALL]


def cheapest(streams: Sequence[Sequence[Way]]) -> list[Plan]:
    """Return a plan for each stream, so that all of them take the fewest calls; the jobs left are asked for together.

    Among these the most certain: a list by states does not show jobs that ended meanwhile.
    """
    sums: dict[tuple[int, int], _Sum] = {(0, 0): _Sum()}
    for of_stream in streams:
        longer: dict[tuple[int, int], _Sum] = {}
        for (calls, left), before in sums.items():
            for way in of_stream:
                key, added = (calls + way.calls, left + way.left), before.add(way)
                if key not in longer or added.cost < longer[key].cost:
                    longer[key] = added
        sums = _worthwhile(longer)
    _, best = min(sums.items(), key=lambda item: (item[0][0] + _ceil(item[0][1], IDS_PER_CALL), item[1].cost))
    return [*best.plans]


@dataclass(frozen=True, slots=True)
class _Sum:
    cost: tuple[int, int] = (0, 0)  # jobs listed by their states, jobs listed
    plans: tuple[Plan, ...] = ()

    def add(self, way: Way) -> _Sum:
        by_state, listed = self.cost
        return _Sum((by_state + way.by_state, listed + way.listed), (*self.plans, way.plan))


def _worthwhile(sums: Mapping[tuple[int, int], _Sum]) -> dict[tuple[int, int], _Sum]:
    """Return those that a cheapest sum may begin with: rounding saves less than a call."""
    least = min(calls * IDS_PER_CALL + left for calls, left in sums)
    return {key: sum_ for key, sum_ in sums.items() if key[0] * IDS_PER_CALL + key[1] < least + IDS_PER_CALL}


def _created_at(job: UnfinishedJob) -> datetime:
    return job.created_at


def most_to_know(unfinished: int, *, by_state: bool = True) -> int:
    """Return of how many jobs before the list begins a plan needs the times: listing more is never cheaper."""
    return PAGE_SIZE * (_calls_for(unfinished, unfinished if by_state else 0) + 1)


def _calls_for(left: int, listable: int) -> int:
    """Return how many calls show these jobs."""
    return min(_ceil(left, IDS_PER_CALL), _ceil(listable, PAGE_SIZE) + _ceil(left - listable, IDS_PER_CALL))


def _ceil(count: int, per: int) -> int:
    return -(-count // per)


_BY_STATE_AGAIN = timedelta(hours=6)


def takes_states(ignored_at: datetime | None, *, now: datetime) -> bool:
    """Tell whether to ask CI for jobs by their states, which it was seen to ignore at `ignored_at`."""
    return ignored_at is None or not timedelta(0) <= now - ignored_at < _BY_STATE_AGAIN


def in_tens(ids: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield `ids` in the portions that one describe call takes."""
    for at in range(0, len(ids), IDS_PER_CALL):
        yield tuple(ids[at : at + IDS_PER_CALL])


# --- one list, page by page, and what to ask for where a page cannot be read ----------------------------------------

MOST_PAGES = 10_000  # a million jobs; CI documents no end, and a chain of pages must have one
MOST_BROKEN = 30  # unreadable pages in a row: halving 30 days down to a job takes 26
_LONG = 20  # pages; what is shorter is listed anew when it fails
_GROW_AFTER = 10  # pages that could be read: then larger ones are tried again
_EVIDENCE = 3  # jobs
_NARROW = 2 * _SECOND  # a span that halving makes no smaller


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What one chain of list calls asks for: jobs created from `since` to `until`, `size` a call."""

    since: datetime
    until: datetime | None = None
    size: int = PAGE_SIZE
    newest_first: bool = False
    halved: bool = False  # out of a longer one of which not even single jobs could be read


@dataclass(slots=True, kw_only=True, eq=False)
class Listing:
    """A stream's list under way. It is one span, unless a page of it could not be read.

    Spans overlap by a second at each end, as it is not documented whether CI's time filters include their bounds.
    """

    stream: Stream
    chain: Chain
    known_to: datetime | None = None  # the stream's mark when it began
    spans: list[Span]
    job_ids: frozenset[str] = frozenset()  # the unfinished jobs that it is to show
    moves_mark: bool = True  # when it ends; not where it shows only some jobs
    by_state: bool = False  # of unfinished jobs only
    deep: bool = False  # it begins well before the mark
    shown: int = 0  # jobs
    ended: int = 0  # jobs that a list by states has shown although they had ended before
    left_out_jobs: int = 0  # unfinished ones that it has not shown, as questions by id have
    pages: int = 0
    followed: int = 0  # of its stream's unfinished jobs asked for by id, while it goes on
    token: str | None = None
    unreadable: list[Span] = field(default_factory=list)  # what was given up, each about a second
    first_unreadable: tuple[str, ...] = ()  # the id, if it is known, of the first job that makes the span so
    _tokens: set[str] = field(default_factory=set)
    _reached: datetime | None = None  # the newest creation time read of the span, while they ascend
    _ascends: bool = True
    _good: int = 0  # pages of the span that could be read
    _broken: int = 0  # in a row

    @property
    def span(self) -> Span:
        return self.spans[0]

    @property
    def done(self) -> bool:
        return not self.spans

    @property
    def endless(self) -> bool:
        """True when a page's token came again, or there are more pages than any list has."""
        return self.token is not None and (self.token in self._tokens or self.pages >= MOST_PAGES)

    @property
    def is_long(self) -> bool:
        """True when so much was read that it is worth going on where an error interrupted it."""
        return self.pages >= _LONG

    @property
    def ignores_states(self) -> bool:
        """True when CI's answers show that a list is not by states; a few stale entries do not."""
        counts = ((self.ended, self.shown), (self.left_out_jobs, len(self.job_ids)))
        return any(wrong >= _EVIDENCE and 2 * wrong > of for wrong, of in counts)

    @property
    def hopeless(self) -> bool:
        return self._broken >= MOST_BROKEN

    @property
    def progress(self) -> ListProgress:
        stream, reached = self.stream, self._reached if self._ascends else None
        return ListProgress(tag=stream.tag, queue=stream.queue, pages=self.pages, jobs=self.shown, created_to=reached)

    def read(self, page: Page, clocks: Clocks) -> None:
        """Note a page that was read, and what the clocks said then."""
        self.chain = self.chain.add(page, clocks)
        self.pages += 1
        self.shown += len(page.jobs)
        self._good += 1
        self._broken = 0
        for job in page.jobs:
            time = job.created_at
            if time is None or self.span.newest_first or (self._reached and time < self._reached):
                self._ascends = False
            else:
                self._reached = time
        if self.token:
            self._tokens.add(self.token)
        self.token = page.next_token
        if self.token is None:
            self._enter(self.spans[1:])
        # Only once the span is shorter by more than what it repeats, so that it gets shorter each time.
        elif self.span.size < PAGE_SIZE and self._good >= _GROW_AFTER and self._from > self.span.since + _SECOND:
            self._enter([replace(self.span, since=self._from, size=self.span.size * 10), *self.spans[1:]])

    @property
    def _from(self) -> datetime:
        """The time from which the rest of the span is: all jobs that were created earlier have been read."""
        reached = self._reached if self._ascends else None
        return max(reached - _SECOND, self.span.since) if reached else self.span.since

    def resume(self) -> None:
        """Go on, later, with what was not read yet: a page token may have become invalid meanwhile."""
        self._enter([replace(self.span, since=self._from), *self.spans[1:]])

    def narrow(self, now: datetime) -> None:
        """Ask for less, as the page could not be read: fewer jobs a page, then half of the time, then backwards.

        What is left then holds one job that cannot be read, and is given up.
        """
        self._broken += 1
        smaller = _narrower(replace(self.span, since=self._from), now)
        if not smaller:
            self.unreadable.append(self.span)
        self._enter([*smaller, *self.spans[1:]])

    def left_out(self, last: tuple[str, ...], why: str) -> tuple[JobProblem, ...]:
        """Return what is left out with the span given up just now, whose `last` unreadable job has this id, if any.

        Where that is another one than the first, nobody knows what lies between.
        """
        known = dict.fromkeys((*self.first_unreadable, *last))
        problems = [JobProblem.of_whole(job_id, why) for job_id in known]
        if len(known) != 1:
            problems.append(
                JobProblem.of_whole("", f"jobs created about {self.unreadable[-1].since:%Y-%m-%d %H:%M} UTC")
            )
        self.first_unreadable = ()
        return tuple(problems)

    def _enter(self, spans: list[Span]) -> None:
        self.spans = spans
        self.token, self._reached, self._ascends, self._good = None, None, True, 0
        self._tokens.clear()


def _narrower(span: Span, now: datetime) -> Sequence[Span]:
    width = (span.until or max(now, span.since)) - span.since
    if span.size > 1 and (width <= _NARROW or not span.halved):
        return [replace(span, size=span.size // 10)]
    if width > _NARROW:
        middle = span.since + timedelta(seconds=width // _SECOND // 2)
        half = replace(span, size=PAGE_SIZE, halved=True)
        # The later half first: the page that broke was at the beginning, so that half is likely to be well.
        return [replace(half, since=middle), replace(half, until=middle + _SECOND)]
    return [] if span.newest_first else [replace(span, newest_first=True)]
