"""Transitions on record: each judged by the rules that were in force then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from itertools import zip_longest
from typing import Any

from sqlalchemy import Connection

from bridge.decide.archive import Ruleset, thaw
from bridge.decide.levels import Staying
from bridge.decide.rulebook import Rulebook
from bridge.decide.text.times import iso
from bridge.model import Silence, Transition, Watch
from bridge.pipeline.explain.answers import answer
from bridge.pipeline.explain.edges import edges_of, tells
from bridge.pipeline.explain.fates import Circumstances, fate_facts
from bridge.pipeline.explain.stays import Looked, levels_of
from bridge.pipeline.explain.untold import untold
from bridge.record import alarms, explaining, leases, rulesets, silences, snapshots
from bridge.record.explaining import Fate
from bridge.record.snapshots import Judged

Facts = dict[str, Any]


def explain_stored(
    tx: Connection, job_id: str, book: Rulebook, *, now: datetime, bucket: str | None = None, newest: int | None = None
) -> list[Facts]:
    """Return what is known of each transition of a job, oldest first; nothing when no job of this id is on record.

    Two buckets may each have one: `bucket` says which is meant. With `newest` only so many transitions are explained.
    """
    steps = [one for one in snapshots.transitions_of(tx, job_id) if bucket in (None, one.transition.job.bucket)]
    history = _History(tx, job_id, book, now)
    pairs = list(zip_longest(steps, steps[1:]))
    return [history.explain(one, _next(one, then)) for one, then in (pairs if newest is None else pairs[-newest:])]


def _next(one: Judged, then: Judged | None) -> Judged | None:
    return then if then and then.transition.job.bucket == one.transition.job.bucket else None


@dataclass(frozen=True, slots=True)
class _InForce:
    """The rules that judged, or those of now, and why it is these."""

    rules: Ruleset
    known: bool
    note: str | None = None


_THEN = "judged by the rules that were in force then"
_NOW = "these are the answers of the rules of now"
_NONE = "there are none"
_NONE_THEN = "there were none about such a change, and none about staying"


class _History:
    """What is on record about the jobs of one id."""

    def __init__(self, tx: Connection, job_id: str, book: Rulebook, now: datetime) -> None:
        self._tx = tx
        self._job_id = job_id
        self._book = book
        self._now = now
        self._kept: dict[str | None, _InForce] = {book.sha: _InForce(book, known=True)}

    def explain(self, judged: Judged, then: Judged | None) -> Facts:
        """Say all about a transition, and about the stay that it began and `then` ended."""
        step, force = judged.transition, self._in_force(judged.rules)
        staying = self._in_force(then.rules if then else self._book.sha)
        edges = edges_of(step, force.rules)
        fates = [one for one in self._around.fates if (one.bucket, one.sequence) == (step.job.bucket, step.sequence)]
        deliveries = [fate_facts(one, force.rules, self._around) for one in fates]
        missing = "it is kept for a time only" if force.known else "other rules were in force then"
        deliveries += [] if step.silent else untold(edges, list(deliveries), missing)
        return answer(
            step,
            edges,
            self._levels(step, then, staying.rules),
            deliveries,
            _messages(fates),
            rules=force.rules.sha,
            notes=[note for note in (force.note, self._staying(force, staying, ended=bool(then))) if note],
            none=_NONE if {force.rules.sha, staying.rules.sha} == {self._book.sha} else _NONE_THEN,
            would_tell_now=self._now_instead(step, force.rules),
        )

    def _in_force(self, sha: str | None) -> _InForce:
        if sha not in self._kept:
            self._kept[sha] = self._thawed(sha)
        return self._kept[sha]

    def _thawed(self, sha: str | None) -> _InForce:
        text = rulesets.one(self._tx, sha) if sha else None
        if text is None or sha is None:
            which = f"the rules that judged this ({sha})" if sha else "the rules that judged this"
            return _InForce(self._book, known=False, note=f"{which} are not on record; {_NOW}")
        try:
            return _InForce(thaw(sha, text), known=True, note=f"{_THEN} ({sha}), and others are in force now")
        except (ValueError, KeyError):  # kept by a version that wrote them in another way
            said = f"the rules that judged this ({sha}) cannot be read any more; {_NOW}"
            return _InForce(self._book, known=False, note=said)

    def _now_instead(self, step: Transition, then: Ruleset) -> Facts | None:
        """Return whom the rules of now would tell, where that differs."""
        if then.sha == self._book.sha or step.silent:
            return None
        told = tells(step, self._book)
        return None if told == tells(step, then) else {"rules": self._book.sha, "tells": told}

    def _staying(self, force: _InForce, staying: _InForce, *, ended: bool) -> str | None:
        """Say which rules were asked about the stay, where they are others than were asked about its beginning."""
        sha = staying.rules.sha
        if sha == force.rules.sha or not (staying.rules.matcher.levels or force.rules.matcher.levels):
            return None
        if not staying.known:
            return f"rules about staying: those of now ({sha}), as those of when it ended are not on record"
        return f"rules about staying: those of {'when it ended' if ended else 'now'} ({sha})"

    def _levels(self, step: Transition, then: Judged | None, rules: Ruleset) -> list[Facts]:
        """Ask the level rules about a stay: those in force when it ended, or now."""
        found = [one for one in self._alarms.get(step.job.bucket, ()) if one.sequence == step.sequence]
        if not found and not rules.matcher.levels:
            return []
        looked = self._ended(step, then.transition) if then else self._going_on(step)
        return levels_of(looked, rules, {one.rule: one for one in found})

    def _ended(self, step: Transition, then: Transition) -> Looked:
        # CI may have said only later when it began.
        since = Staying(began=replace(step, job=then.job)).since
        return Looked(began=step, since=since, now=self._now, left_at=then.happened_at, ok_at=then.still_at)

    def _going_on(self, step: Transition) -> Looked:
        last = self._last.get(step.job.bucket)
        began = replace(step, job=last.job) if last else step
        ok_at, no_poll = self._polls(last.stream if last else "")
        return Looked(began=began, since=Staying(began=began).since, now=self._now, ok_at=ok_at, no_poll=no_poll)

    def _polls(self, stream: str) -> tuple[datetime | None, str | None]:
        """Return when the last poll began that saw all of a stream, and why none is expected to have come since."""
        watches = {one.name: one for one in self._book.watches if any(s.key == stream for s in one.streams)}
        rows = leases.polls(self._tx, watches)
        if not rows:
            return None, "no watch of the rules of now looks after this job"
        known = snapshots.listed(self._tx, [stream]).get(stream)
        seen_at = known.seen_at if known else None
        row = max(rows, key=lambda one: one.polled_at)
        return seen_at, self._why_none(watches[row.name], row, seen_at)

    def _why_none(self, watch: Watch, row: leases.Due, seen_at: datetime | None) -> str | None:
        if seen_at and self._now - seen_at <= 2 * watch.every:
            return None
        last = f"the last one began at {iso(seen_at)}" if seen_at else "there has been none"
        failed = f", and {row.failures} failed since" if row.failures else ""
        return f'{last}{failed}; watch "{watch.name}" {"is paused" if row.paused else "is late: does a worker run?"}'

    @cached_property
    def _around(self) -> Circumstances:
        fates = explaining.fates(self._tx, self._job_id)
        return Circumstances(
            now=self._now, standings=explaining.standings(self._tx), silences=self._silences(fates), fates=fates
        )

    def _silences(self, fates: Sequence[Fate]) -> dict[str, Silence]:
        named = {one.digest.name for one in fates if one.digest and one.digest.gate == "silence"}
        named |= {
            one.held_by.removeprefix("silence:") for one in fates if one.held_by and one.held_by.startswith("silence:")
        }
        return {name: found for name in sorted(named) if (found := silences.one(self._tx, name))}

    @cached_property
    def _last(self) -> dict[str, explaining.Last]:
        return explaining.last(self._tx, self._job_id)

    @cached_property
    def _alarms(self) -> Mapping[str, Sequence[alarms.Fired]]:
        return {bucket: alarms.of_job(self._tx, bucket, self._job_id) for bucket in self._last}


def _messages(fates: Sequence[Fate]) -> list[Facts]:
    by_id = {one.message: one for one in fates}
    return [{"kind": one.kind, "rule": one.rule, "title": one.title, "text": one.text} for one in by_id.values()]
