"""What changed between two looks at the jobs; and when CI is believed that it does not know one any more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from bridge.model import DONE, GONE, NEW, PAUSE, RUNNING, SUBMITTED, Job, MissingJob, SeenJob, Transition


def diff(
    seen: Mapping[str, SeenJob],
    jobs: Iterable[Job],
    *,
    watch: str,
    now: datetime,
    silence: Callable[[Job], str | None] = lambda _: None,
    still_at: datetime | None = None,
    is_possible: Callable[[datetime], bool] = lambda _: True,
) -> tuple[Transition, ...]:
    """Return a transition for each job whose state is news, in the page's order, after those that it proves.

    `silence` says of a job seen for the first time why nobody is notified (a first snapshot), or None. Of a silent
    transition nothing is inferred. A job that is absent is not a change; a final state is final. `still_at` is the last
    poll that saw them all: they were then as `seen` has them. `is_possible` tells of one of CI's times whether it can
    have been.
    """

    def transitions(job: Job) -> Iterator[Transition]:
        before = seen.get(job.id)
        if before is None:
            step = _transition(job, None, watch=watch, now=now, silent=silence(job), still_at=still_at)
        elif is_news(before.state, job.state):
            step = _transition(job, before, watch=watch, now=now, still_at=still_at)
        else:
            return
        proved = [] if step.silent or not _is_sane(job, is_possible) else list(_proved(job, before))
        yield from _inferred(step, proved)
        yield replace(step, sequence=step.sequence + len(proved))

    return tuple(step for job in latest(jobs) for step in transitions(job))


def _proved(job: Job, before: SeenJob | None) -> Iterator[str]:
    """Yield the states that a job, seen in another one now, passed unseen, as its times prove."""
    was = before.last_ci_state or before.state if before else NEW
    if was == NEW and job.created_at and job.state in (RUNNING, *DONE):
        yield SUBMITTED
    # A paused job waits, and its time of start is news; or it ran before it was paused, and that was seen.
    waited = was in (NEW, SUBMITTED) or (was == PAUSE and before is not None and not before.has_started)
    if waited and job.started_at and job.state in DONE:
        yield RUNNING


def _is_sane(job: Job, is_possible: Callable[[datetime], bool]) -> bool:
    """Tell whether a job's times can be meant: in their order, and none in the future."""
    times = [time for time in (job.created_at, job.started_at, job.ended_at) if time]
    return times == sorted(times) and all(map(is_possible, times))


def _inferred(step: Transition, states: Iterable[str]) -> Iterator[Transition]:
    """Yield the transitions to these states, which come before `step` and begin where it does."""
    was = step.was
    for sequence, state in enumerate(states, start=step.sequence):
        # What CI says of a failure is not about a state before it.
        job = replace(step.job, state=state, code=None, message=None)
        yield replace(step, job=job, was=was, to=state, sequence=sequence, inferred=True)
        was = state


def latest(jobs: Iterable[Job]) -> list[Job]:
    """Return each job once: pages shift while they are read, so one can come twice, and the further one counts."""
    found: dict[str, Job] = {}
    for job in jobs:
        if job.id not in found or _rank(job.state) > _rank(found[job.id].state):
            found[job.id] = job
    return list(found.values())


def _rank(state: str) -> int:
    return 2 if state in DONE else int(state == RUNNING)


def is_news(before: str, state: str) -> bool:
    """Tell whether a job known in `before` may go to `state`: a stale answer must not reopen what has ended."""
    return before != state and before not in DONE


def gone_transitions(
    seen: Iterable[tuple[SeenJob, Job]], *, watch: str, now: datetime, still_at: datetime | None = None
) -> tuple[Transition, ...]:
    """Return the transition to `gone` of each job that CI no longer knows, unless it is closed."""
    return tuple(
        _transition(job, before, watch=watch, now=now, to=GONE, still_at=still_at)
        for before, job in seen
        if is_news(before.state, GONE)
    )


def _transition(
    job: Job,
    before: SeenJob | None,
    *,
    watch: str,
    now: datetime,
    silent: str | None = None,
    to: str | None = None,
    still_at: datetime | None = None,
) -> Transition:
    was = NEW
    if before:  # a job that was gone goes on from the state that CI named last, unless it is in that state again
        was = before.last_ci_state if before.last_ci_state and before.last_ci_state != job.state else before.state
    return Transition(
        job=job,
        was=was,
        to=to or job.state,
        sequence=before.sequence + 1 if before else 1,
        seen_at=now,
        watch=watch,
        silent=silent,
        still_at=still_at,
    )


# --- jobs that CI does not know: when that is believed, and when they are asked for again ---------------------------

_MISSES, _INTERVALS = 3, 2
ASKED_AGAIN = tuple(timedelta(minutes=minutes) for minutes in (5, 30, 120, 480, 1440))  # after it was found to be gone


def to_ask_again(found: Mapping[str, MissingJob], now: datetime) -> Iterator[tuple[str, str]]:
    """Yield (id, stream) of the jobs that are gone and to be asked for again.

    What was answered in the future was before the clock was set back.
    """
    for job_id, missing in found.items():
        if missing.ask_at is not None and (missing.ask_at <= now or missing.last_at > now):
            yield job_id, missing.stream


def count_miss(
    before: MissingJob | None, *, stream: str, began: datetime, now: datetime, seen_at: datetime | None = None
) -> MissingJob:
    """Count that CI did not find a job, at most once in each poll.

    `began` is when this poll did, `seen_at` when the last poll that saw the job did.
    """
    if before is None or before.first_at > now:
        return MissingJob(stream=stream, times=1, first_at=now, last_at=now, seen_at=seen_at)
    if before.last_at >= began:
        return before
    return replace(before, times=before.times + 1, last_at=now)


def is_believed(missing: MissingJob, *, every: timedelta) -> bool:
    """Tell whether CI is believed: three polls, the first and the last at least two of the watch's intervals apart."""
    return missing.times >= _MISSES and missing.last_at - missing.first_at >= _INTERVALS * every


def asked_again(missing: MissingJob, *, now: datetime) -> MissingJob | None:
    """Return a job that is gone with the time of its next question; None: it is not asked for any more."""
    gone_at = missing.gone_at if missing.gone_at and missing.gone_at <= now else now
    ask_at = next((gone_at + pause for pause in ASKED_AGAIN if gone_at + pause > now), None)
    return replace(missing, gone_at=gone_at, ask_at=ask_at) if ask_at else None
