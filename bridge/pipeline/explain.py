"""Why did I (not) get this? Every rule's verdict on a transition, and what became of the messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from itertools import zip_longest
from typing import Any

from sqlalchemy import Connection

from bridge.decide.routing import route, route_overdue
from bridge.decide.rules.gates import Gates
from bridge.decide.rules.levels import TimeInState, judge_time_in_state
from bridge.decide.rules.matching import Answer, Rule, Verdict
from bridge.decide.rules.rulebook import Rulebook, Ruleset
from bridge.decide.rulesfile.rulesets import thaw
from bridge.decide.text.times import human, iso
from bridge.decide.whatif.rule_tests import sample_time_in_state
from bridge.model import Transition, Watch
from bridge.pipeline.delivery_status import Around, not_made, status, would_be
from bridge.record import rulesets
from bridge.record.outbox import silences
from bridge.record.polling import leases, snapshots, time_in_state
from bridge.record.polling.snapshots import Judged
from bridge.record.queries import explanations

Facts = dict[str, Any]


def explain_sample(
    step: Transition, book: Rulebook, *, now: datetime, tx: Connection | None, unknown: str | None = None
) -> Facts:
    """Return whom the present rules would notify of a transition, with which texts, and what would hold these.

    Without `tx` silences and paused notifiers are not known; `unknown` says why.
    """
    known = silences.recent(tx, now=now) if tx else []
    gates = Gates(mutes=book.mutes, silences=known, zone=book.zone, now=now)
    stay = sample_time_in_state(step)
    routings = [route(step, book, gates), *route_overdue(stay, book, gates, now)]
    around = Around(
        now=now,
        rules=book,
        tx=tx,
        standings=explanations.standings(tx) if tx else {},
        silences={silence.id: silence for silence in known},
    )
    rules = {rule.name: rule for rule in book.rules}
    told = [new for routing in routings for new in routing.deliveries]
    edges, deliveries = _edges(step, book), [would_be(new, rules[str(new.message.rule)], around) for new in told]
    messages = {new.message.id: new.message for new in told}
    errors = [error for routing in routings for error in routing.errors]
    faults = [f'rule "{error.rule}": {error.why}: the default text is sent' for error in errors]
    no_record = [] if tx else [f"silences and paused notifiers are not known: {unknown or 'there is no database'}"]
    return _explanation(
        step,
        edges,
        _levels(_InState(time=stay, now=now, seen_at=now), book, {}),
        [*deliveries, *not_made(edges, deliveries, "the present rules have no such notifier")],
        [{"kind": m.kind, "rule": m.rule, "title": m.title, "text": m.text} for m in messages.values()],
        rules=book.sha,
        notes=[*no_record, *dict.fromkeys(faults)],
    )


def explain_stored(
    tx: Connection, job_id: str, book: Rulebook, *, now: datetime, bucket: str | None = None, newest: int | None = None
) -> list[Facts]:
    """Return what is known of each transition of a job, oldest first; nothing when no job of this id is on record.

    Two buckets may each have one: `bucket` says which is meant. With `newest` only so many transitions are explained.
    """
    steps = [
        judged for judged in snapshots.transitions_of(tx, job_id) if bucket in (None, judged.transition.job.bucket)
    ]
    history = _History(tx, job_id, book, now)
    pairs = list(zip_longest(steps, steps[1:]))
    return [
        history.explain(judged, _next(judged, then)) for judged, then in (pairs if newest is None else pairs[-newest:])
    ]


def _next(judged: Judged, then: Judged | None) -> Judged | None:
    return then if then and then.transition.job.bucket == judged.transition.job.bucket else None


# --- what each rule says -------------------------------------------------------------------------------------------


def _edges(step: Transition, ruleset: Ruleset) -> list[Verdict]:
    """Return what every edge rule says, top to bottom; when all say no, the nearest miss first."""
    verdicts = list(ruleset.matcher.explain(step))
    if any(verdict.fired for verdict in verdicts):
        return verdicts
    # Of two that miss by as much, the one about this change is rather what a person means.
    return sorted(
        verdicts,
        key=lambda verdict: (len(verdict.misses), step.to not in verdict.rule.to or step.was not in verdict.rule.was),
    )


def _edge_facts(verdict: Verdict) -> Facts:
    return {
        "rule": verdict.rule.name,
        "line": verdict.rule.line,
        "matches": verdict.fired,
        "answer": verdict.answer,
        "why_not": verdict.why_not,
        "misses": len(verdict.misses),
        "notifiers": list(verdict.notifiers),
        "already_told": list(verdict.already),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _InState:
    """A job's time in a state: `left_at` is None while it goes on.

    `seen_at` is when the last poll began that saw it so; `no_poll` says why none has come since.
    """

    time: TimeInState
    now: datetime
    left_at: datetime | None = None
    seen_at: datetime | None = None
    no_poll: str | None = None

    @property
    def lasted(self) -> str:
        return human(self.lasted_s)

    @property
    def lasted_s(self) -> float:
        return max(0.0, ((self.left_at or self.now) - self.time.since).total_seconds())

    @property
    def asked_at(self) -> datetime:
        """When level rules were asked the last time: once it has ended, by the last poll that saw it."""
        return max(self.seen_at or self.time.began.seen_at, self.time.began.seen_at) if self.left_at else self.now


def _levels(period: _InState, ruleset: Ruleset, fired: Mapping[str, time_in_state.Fired]) -> list[Facts]:
    """Return what every level rule says, top to bottom, then those that fired and are no longer among the rules."""
    matcher = ruleset.matcher
    levels = []
    for verdict in judge_time_in_state(period.time, matcher, period.asked_at, matcher.levels):
        alarm = fired.get(verdict.rule.name)
        answer, why = (Answer.FIRED, _fired(alarm, verdict.rule)) if alarm else _not_fired(verdict, period)
        levels.append(_level_facts(period, verdict.rule, answer, why, alarm) | {"judged_by": ruleset.sha})
    named = {rule.name for rule in matcher.levels}
    gone = [alarm for name, alarm in fired.items() if name not in named]
    return levels + [_level_facts(period, None, Answer.FIRED, _fired(alarm, None), alarm) for alarm in gone]


def _not_fired(verdict: Verdict, period: _InState) -> tuple[Answer, str]:
    """Return what a rule that has not fired says, with what polls have to do with that."""
    level = verdict.rule.level
    if level is None or verdict.answer in (Answer.NO, Answer.STOPPED):
        return verdict.answer, verdict.why_not or ""
    state, limit, due = period.time.began.to, human(level.after.total_seconds()), period.time.since + level.after
    if period.left_at is None:
        if not verdict.fired:
            return Answer.WAITING, f"{verdict.why_not}: due at {iso(due)}"
        if period.no_poll:
            return Answer.WAITING, f"no poll has seen it since it became overdue at {iso(due)}: {period.no_poll}"
        return Answer.WAITING, f"{state} for more than {limit} since {iso(due)}: fires when the next poll is complete"
    left = f"left {state} after {period.lasted}"
    if period.left_at < due:
        return Answer.NO, f"{left}, before {limit}"
    if period.seen_at is None or period.seen_at < due:
        last = f"the last poll that saw it began at {iso(period.seen_at)}" if period.seen_at else "there was none"
        return Answer.NO, f"{left}, but no poll saw it for {limit}: {last}"
    return Answer.NO, f"{left}, which is more than {limit}, but no message is on record: was the rule there then?"


def _fired(alarm: time_in_state.Fired, rule: Rule | None) -> str:
    text = f"fired at {iso(alarm.fired_at)}"
    if alarm.count:
        text += f", repeated {'once' if alarm.count == 1 else f'{alarm.count} times'} until {iso(alarm.told_at)}"
    if alarm.recovered_at:
        text += f", it moved on at {iso(alarm.recovered_at)}"
        recovers = rule is None or rule.level is None or rule.level.recover
        text += "" if recovers else " (recover is not set, so nobody is notified of that)"
    return text


def _level_facts(
    period: _InState, rule: Rule | None, answer: Answer, why: str, alarm: time_in_state.Fired | None
) -> Facts:
    level, since = rule.level if rule else None, alarm.since if alarm else period.time.since
    return {
        "rule": rule.name if rule else alarm and alarm.rule,
        "line": rule.line if rule else None,
        "judged_by": None,
        "in": period.time.began.to,
        "answer": answer,
        "why": why,
        "since": iso(since),
        "until": iso(period.left_at),
        "stayed_seconds": round(period.lasted_s),
        "for_seconds": round(level.after.total_seconds()) if level else None,
        "due_at": iso(since + level.after) if level else None,
        "notifiers": list(alarm.notifiers if alarm else rule.notify if rule else ()),
        "fired_at": iso(alarm.fired_at) if alarm else None,
        "repeated": alarm.count if alarm else None,
        "ended_at": iso(alarm.recovered_at) if alarm else None,
    }


# --- transitions on record: each judged by the rules that were in force then ---------------------------------------


@dataclass(frozen=True, slots=True)
class _InForce:
    """The rules that judged, or the present ones, and why it is these."""

    rules: Ruleset
    known: bool
    note: str | None = None


_NOW = "these are the verdicts of the present rules"


class _History:
    """What is on record about the jobs of one id."""

    def __init__(self, tx: Connection, job_id: str, book: Rulebook, now: datetime) -> None:
        self._tx = tx
        self._job_id = job_id
        self._book = book
        self._now = now
        self._kept: dict[str | None, _InForce] = {book.sha: _InForce(book, known=True)}

    def explain(self, judged: Judged, then: Judged | None) -> Facts:
        """Say all about a transition, and about the time in state that it began and `then` ended."""
        step, force = judged.transition, self._in_force(judged.rules)
        staying = self._in_force(then.rules if then else self._book.sha)
        edges = _edges(step, force.rules)
        around = replace(self._around, rules=force.rules)
        mine = [
            delivery
            for delivery in around.deliveries
            if (delivery.bucket, delivery.sequence) == (step.job.bucket, step.sequence)
        ]
        deliveries = [status(delivery, around) for delivery in mine]
        if not step.silent:
            missing = "it is kept for a time only" if force.known else "other rules were in force then"
            deliveries += list(not_made(edges, deliveries, missing))
        messages = {delivery.message: delivery for delivery in mine}.values()
        return _explanation(
            step,
            edges,
            self._levels(step, then, staying.rules),
            deliveries,
            [
                {"kind": message.kind, "rule": message.rule, "title": message.title, "text": message.text}
                for message in messages
            ],
            rules=force.rules.sha,
            notes=[note for note in (force.note, self._note_on_levels(force, staying, ended=bool(then))) if note],
            all_asked={force.rules.sha, staying.rules.sha} == {self._book.sha},
            would_tell_now=self._now_instead(step, force.rules),
        )

    def _in_force(self, sha: str | None) -> _InForce:
        if sha not in self._kept:
            self._kept[sha] = self._thawed(sha)
        return self._kept[sha]

    def _thawed(self, sha: str | None) -> _InForce:
        text = rulesets.text_of(self._tx, sha) if sha else None
        if text is None or sha is None:
            which = f"the rules that judged this ({sha})" if sha else "the rules that judged this"
            return _InForce(self._book, known=False, note=f"{which} are not on record; {_NOW}")
        try:
            note = f"judged by the rules that were in force then ({sha}), and others are in force now"
            return _InForce(thaw(sha, text), known=True, note=note)
        except (ValueError, KeyError):  # kept by a version that wrote them in another way
            note = f"the rules that judged this ({sha}) cannot be read any more; {_NOW}"
            return _InForce(self._book, known=False, note=note)

    def _now_instead(self, step: Transition, then: Ruleset) -> Facts | None:
        """Return whom the present rules would notify, where that differs."""
        if then.sha == self._book.sha or step.silent:
            return None
        now = _notified(step, self._book)
        return None if now == _notified(step, then) else {"rules": self._book.sha, "tells": now}

    def _note_on_levels(self, force: _InForce, staying: _InForce, *, ended: bool) -> str | None:
        """Say which level rules were asked, where they are others than the edge rules."""
        sha = staying.rules.sha
        if sha == force.rules.sha or not (staying.rules.matcher.levels or force.rules.matcher.levels):
            return None
        if not staying.known:
            return f"level rules: the present ones ({sha}), as those of when it ended are not on record"
        return f"level rules: {'those of when it ended' if ended else 'the present ones'} ({sha})"

    def _levels(self, step: Transition, then: Judged | None, rules: Ruleset) -> list[Facts]:
        """Ask the level rules: those in force when the job left the state, or the present ones."""
        fired = [alarm for alarm in self._alarms.get(step.job.bucket, ()) if alarm.sequence == step.sequence]
        if not fired and not rules.matcher.levels:
            return []
        period = self._ended(step, then.transition) if then else self._going_on(step)
        return _levels(period, rules, {alarm.rule: alarm for alarm in fired})

    def _ended(self, step: Transition, then: Transition) -> _InState:
        # CI may have said only later when it began.
        job = replace(step.job, created_at=then.job.created_at, started_at=then.job.started_at)
        staying = TimeInState(began=replace(step, job=job))
        return _InState(time=staying, now=self._now, left_at=then.happened_at, seen_at=then.still_at)

    def _going_on(self, step: Transition) -> _InState:
        last = self._last.get(step.job.bucket)
        began = replace(step, job=last.job) if last else step
        seen_at, no_poll = self._polls(last.stream if last else "")
        return _InState(time=TimeInState(began=began), now=self._now, seen_at=seen_at, no_poll=no_poll)

    def _polls(self, stream: str) -> tuple[datetime | None, str | None]:
        """Return when the last poll began that saw all of a stream, and why none is expected to have come since."""
        watches = {watch.name: watch for watch in self._book.watches if any(s.key == stream for s in watch.streams)}
        rows = leases.polls(self._tx, watches)
        if not rows:
            return None, "no watch of the present rules looks after this job"
        known = snapshots.listed(self._tx, [stream]).get(stream)
        seen_at = known.seen_at if known else None
        row = max(rows, key=lambda row: row.polled_at)
        return seen_at, self._why_no_poll(watches[row.name], row, seen_at)

    def _why_no_poll(self, watch: Watch, row: leases.Due, seen_at: datetime | None) -> str | None:
        if seen_at and self._now - seen_at <= 2 * watch.every:
            return None
        last = f"the last one began at {iso(seen_at)}" if seen_at else "there has been none"
        failed = f", and {row.failures} failed since" if row.failures else ""
        return f'{last}{failed}; watch "{watch.name}" {"is paused" if row.paused else "is late: does a worker run?"}'

    @cached_property
    def _around(self) -> Around:
        deliveries = explanations.fates(self._tx, self._job_id)
        held_by = {(delivery.held_by or "").partition(":")[::2] for delivery in deliveries}
        named = {name for gate, name in held_by if gate == "silence"}
        named |= {
            delivery.digest.name for delivery in deliveries if delivery.digest and delivery.digest.gate == "silence"
        }
        return Around(
            now=self._now,
            rules=self._book,
            tx=self._tx,
            standings=explanations.standings(self._tx),
            silences={name: silence for name in sorted(named) if (silence := silences.get(self._tx, name))},
            deliveries=deliveries,
        )

    @cached_property
    def _last(self) -> dict[str, explanations.Last]:
        return explanations.last(self._tx, self._job_id)

    @cached_property
    def _alarms(self) -> Mapping[str, Sequence[time_in_state.Fired]]:
        return {bucket: time_in_state.of_job(self._tx, bucket, self._job_id) for bucket in self._last}


def _notified(step: Transition, ruleset: Ruleset) -> list[Facts]:
    """Return which rules notify whom of a transition."""
    fired = ruleset.matcher.match(step)
    return [{"rule": verdict.rule.name, "notifiers": list(verdict.notifiers)} for verdict in fired if verdict.notifiers]


# --- the answer ----------------------------------------------------------------------------------------------------

_MOST_STATUSES = 4  # in a headline
_STATUSES = {
    "sent": "sent",
    "waiting": "waits for its first attempt",
    "retrying": "waits for a retry",
    "digest": "waits in a digest",
    "merged": "sent in a digest",
    "paused": "waits, the notifier is paused",
    "not_on_record": "not on record",
    "at_once": "at once",
}  # the others are words for people, too
_NO_DELIVERY = ("already_told", "stopped")  # an earlier rule has made it, which is said


def _explanation(
    step: Transition,
    edges: Sequence[Verdict],
    levels: Sequence[Facts],
    deliveries: Sequence[Facts],
    messages: Sequence[Facts],
    *,
    rules: str | None,
    notes: Sequence[str] = (),
    all_asked: bool = True,
    would_tell_now: Facts | None = None,
) -> Facts:
    """Return all that is known of a transition, the answer in one line first.

    `rules` judged it (their sha); with `all_asked` there are no others that may be about it.
    """
    job = step.job
    return {
        "headline": _headline(step, edges, levels, deliveries, all_asked=all_asked),
        "job": job.id,
        "bucket": job.bucket,
        "tag": job.tag,
        "queue": job.queue,
        "from": step.was,
        "to": step.to,
        "sequence": step.sequence,
        "happened_at": iso(step.happened_at),
        "seen_at": iso(step.seen_at),
        "watch": step.watch,
        "silent": step.silent,
        "judged_by": rules,
        "notes": list(notes),
        "would_tell_now": would_tell_now,
        "rules": [_edge_facts(edge) for edge in edges],
        "levels": list(levels),
        "deliveries": list(deliveries),
        "messages": list(messages),
    }


def _headline(
    step: Transition, edges: Sequence[Verdict], levels: Sequence[Facts], deliveries: Sequence[Facts], *, all_asked: bool
) -> str:
    parts = [f"nobody was notified: {step.silent}"] if step.silent else []
    made = [delivery for delivery in deliveries if delivery["rule"] and delivery["answer"] not in _NO_DELIVERY]
    if made:
        parts.append(_by_rule(made))
    elif not step.silent:
        parts.append(_nearest(edges, levels, all_asked=all_asked))
    manual = (delivery for delivery in deliveries if not delivery["rule"])
    parts += [f"manually to {delivery['notifier']}: {_status_of(delivery)}" for delivery in manual]
    heard = {delivery["rule"] for delivery in made}
    waiting = [level for level in levels if level["answer"] is Answer.WAITING and level["rule"] not in heard]
    if waiting and (edges or made or step.silent):
        parts.append(f"{_named(waiting[0])}: {waiting[0]['why']}")
    return "; ".join(parts)


def _by_rule(deliveries: Sequence[Facts]) -> str:
    """Say what became of each: those of one rule with the same end together."""
    same: dict[tuple[str, str], list[str]] = {}
    for delivery in deliveries:
        same.setdefault((delivery["rule"], _status_of(delivery)), []).append(delivery["notifier"])
    parts = [f'"{rule}" notifies {", ".join(dict.fromkeys(names))}: {end}' for (rule, end), names in same.items()]
    more = [f"and {len(parts) - _MOST_STATUSES} more"] if len(parts) > _MOST_STATUSES else []
    return "; ".join(parts[:_MOST_STATUSES] + more)


def _status_of(delivery: Facts) -> str:
    answer: str = delivery["answer"]
    return _STATUSES.get(answer, answer)


def _nearest(edges: Sequence[Verdict], levels: Sequence[Facts], *, all_asked: bool) -> str:
    if edges:
        near, rule = edges[0], edges[0].rule
        more = f" (and {len(near.misses) - 1} more)" if len(near.misses) > 1 else ""
        return f'no rule matched; nearest: "{rule.name}" (line {rule.line}): {near.why_not}{more}'
    if levels:
        best = min(levels, key=lambda level: bool(level["answer"] is Answer.NO))
        return f"no rule matched; nearest: {_named(best)}: {best['why']}"
    return f"no rule matched: {'there are none' if all_asked else 'there were none, neither edge nor level rules'}"


def _named(level: Facts) -> str:
    return f'"{level["rule"]}" (line {level["line"]})'
