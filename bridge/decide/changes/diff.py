"""What changed between two looks at the jobs; and when CI is believed that it does not know one any more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from bridge.model import DONE, GONE, NEW, PAUSE, RUNNING, SUBMITTED, Job, MissingJob, SeenJob, Transition

_RANK = {SUBMITTED: 0, PAUSE: 0, RUNNING: 1}


def diff(
    seen: Mapping[str, SeenJob],
    jobs: Iterable[Job],
    *,
    watch: str,
    now: datetime,
    silence: Callable[[Job], str | None] = lambda _: None,
    still_at: datetime | None = None,
) -> tuple[Transition, ...]:
    """Return a transition for each job whose state is news, in the page's order.

    `silence` says of a job seen for the first time why nobody is told (a first snapshot), or None. A job that
    is absent is not a change; a final state is final. `still_at` is the last poll that saw them all: they were then as
    `seen` has them.
    """
    transitions = []
    for job in latest(jobs):
        before = seen.get(job.id)
        if before is None:
            silent = silence(job)
            transitions.append(_step(job, None, watch=watch, now=now, silent=silent, still_at=still_at))
        elif is_news(before.state, job.state):
            transitions.append(_step(job, before, watch=watch, now=now, still_at=still_at))
    return tuple(transitions)


def latest(jobs: Iterable[Job]) -> list[Job]:
    """Return each job once: pages shift while they are read, so one can come twice, and the further one counts."""
    found: dict[str, Job] = {}
    for job in jobs:
        other = found.get(job.id)
        if other is None or _rank(job.state) > _rank(other.state):
            found[job.id] = job
    return list(found.values())


def is_news(before: str, state: str) -> bool:
    """Tell whether a job known in `before` may go to `state`: a stale answer must not reopen what has ended."""
    return before != state and before not in DONE


def gone(
    seen: Iterable[tuple[SeenJob, Job]], *, watch: str, now: datetime, still_at: datetime | None = None
) -> tuple[Transition, ...]:
    """Return the transition to `gone` of each job that CI no longer knows, unless it is closed."""
    return tuple(
        _step(job, before, watch=watch, now=now, to=GONE, still_at=still_at)
        for before, job in seen
        if is_news(before.state, GONE)
    )


def _step(
    job: Job,
    before: SeenJob | None,
    *,
    watch: str,
    now: datetime,
    silent: str | None = None,
    to: str | None = None,
    still_at: datetime | None = None,
) -> Transition:
    return Transition(
        job=job,
        was=_was(before, job.state) if before else NEW,
        to=to or job.state,
        sequence=before.sequence + 1 if before else 1,
        seen_at=now,
        watch=watch,
        silent=silent,
        still_at=still_at,
    )


def _was(before: SeenJob, state: str) -> str:
    """Return where a job comes from: one that was gone goes on from the state that CI named last.

    One that is in that state again comes from `gone`.
    """
    return before.named if before.named and before.named != state else before.state


def _rank(state: str) -> int:
    return 2 if state in DONE else _RANK.get(state, 0)


# --- jobs that CI does not know: when that is believed, and when they are asked for again ---------------------------

_DENIALS, _INTERVALS = 3, 2
# After it was told that the job is gone.
ASKED_AGAIN = (
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=8),
    timedelta(hours=24),
)


def due(found: Mapping[str, MissingJob], now: datetime) -> Iterator[tuple[str, str]]:
    """Yield (id, stream) of the jobs that are gone and to be asked for again.

    What was answered in the future was before the clock was set back.
    """
    for job_id, one in found.items():
        if one.ask_at is not None and (one.ask_at <= now or one.last_at > now):
            yield job_id, one.stream


def denied(
    before: MissingJob | None, *, stream: str, began: datetime, now: datetime, seen_at: datetime | None = None
) -> MissingJob:
    """Count a denial, one at most in each poll: `began` is when this one did, `seen_at` the last that saw the job."""
    if before is None or before.first_at > now:
        return MissingJob(stream=stream, times=1, first_at=now, last_at=now, seen_at=seen_at)
    if before.last_at >= began:
        return before
    return replace(before, times=before.times + 1, last_at=now)


def is_believed(missing: MissingJob, *, every: timedelta) -> bool:
    """Tell whether CI is believed: three polls, the first and the last at least two of the watch's intervals apart."""
    return missing.times >= _DENIALS and missing.last_at - missing.first_at >= _INTERVALS * every


def asked_again(missing: MissingJob, *, now: datetime) -> MissingJob | None:
    """Return a job that is gone with the time of its next question; None: it is not asked for any more."""
    told_at = missing.first_at if missing.ask_at and missing.first_at <= now else now
    ask_at = next((told_at + pause for pause in ASKED_AGAIN if told_at + pause > now), None)
    return replace(missing, first_at=told_at, ask_at=ask_at) if ask_at else None
