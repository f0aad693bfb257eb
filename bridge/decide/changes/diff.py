"""What changed between the snapshot and what CI says now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from bridge.model import DONE, GONE, NEW, PAUSE, RUNNING, SUBMITTED, Job, Seen, Transition

_RANK = {SUBMITTED: 0, PAUSE: 0, RUNNING: 1}


def diff(
    seen: Mapping[str, Seen],
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
    seen: Iterable[tuple[Seen, Job]], *, watch: str, now: datetime, still_at: datetime | None = None
) -> tuple[Transition, ...]:
    """Return the transition to `gone` of each job that CI no longer knows, unless it is closed."""
    return tuple(
        _step(job, before, watch=watch, now=now, to=GONE, still_at=still_at)
        for before, job in seen
        if is_news(before.state, GONE)
    )


def _step(
    job: Job,
    before: Seen | None,
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


def _was(before: Seen, state: str) -> str:
    """Return where a job comes from: one that was gone goes on from the state that CI named last.

    One that is in that state again comes from `gone`.
    """
    return before.named if before.named and before.named != state else before.state


def _rank(state: str) -> int:
    return 2 if state in DONE else _RANK.get(state, 0)
