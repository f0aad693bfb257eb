"""Store for which incidents transitions count, in the transaction that stores them."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import pairwise

from sqlalchemy import Connection

from bridge.decide.rules.incidents import (
    ALARM_FIELDS,
    Absence,
    Backlog,
    FanIn,
    Threshold,
    incident_id,
    is_of_last,
    key_of,
    kind_of,
)
from bridge.decide.rules.joining import Joined, incident_job, joined
from bridge.decide.rules.matching import Rule
from bridge.decide.rules.rulebook import Rulebook
from bridge.model import Alarm, Incident, IncidentJob, IncidentKey, Transition
from bridge.record import incidents, rulesets
from bridge.record.incidents import Held, Membership, NewKey

logger = logging.getLogger(__name__)


def join(
    tx: Connection,
    book: Rulebook,
    transitions: Sequence[Transition],
    ended: Mapping[str, Sequence[Alarm]],
    now: datetime,
) -> None:
    """Store for which keys these transitions (of one bucket) count, to be judged at the end of the poll.

    `ended` are by job the alarms of the times in state that they end.
    """
    rules = {rule.name: rule for rule in book.rules if rule.incident or rule.escalate}
    if not rules:
        return
    found = {(one.key, one.job.job_id): one for step in transitions for one in joined(step, book.matcher)}
    known = incidents.memberships(tx, transitions[0].job.bucket, {step.job.id for step in transitions})
    over = {
        _alarm_key(alarm.rule, step.job.bucket, step.job.id, alarm.sequence)[0]: step
        for step in transitions
        for alarm in ended.get(step.job.id, ())
        if alarm.rule in rules and not step.inferred
    }
    if not found and not known:
        return
    keys = {key for key, _ in found} | {one.key for one in known if one.is_current} | over.keys()
    incidents.take_turn(tx)
    current = incidents.hold(tx, keys)
    _close_alarms(tx, over, current)
    _leave_backlogs(tx, transitions, known, rules, now)
    new = _not_known(tx, found, known)
    add(tx, new, current, now)
    _expect(tx, found.values(), current)
    rulesets.fault(tx, {(one.rule.name, one.fault) for one in found.values() if one.fault}, now=now)


def _leave_backlogs(
    tx: Connection,
    transitions: Iterable[Transition],
    known: Iterable[Membership],
    rules: Mapping[str, Rule],
    now: datetime,
) -> None:
    """Let jobs leave the backlogs whose states they have left."""
    states = {step.job.id: step.to for step in transitions}
    left = [
        one.row
        for one in known
        if (rule := rules.get(one.key.rule))
        and isinstance(rule.incident, Backlog)
        and states[one.job_id] not in rule.incident.states
    ]
    incidents.leave(tx, left, now=now)


def _not_known(
    tx: Connection, found: Mapping[tuple[IncidentKey, str], Joined], known: Iterable[Membership]
) -> list[Joined]:
    """Return what is not stored yet, and store the newer states of jobs that a fan-in has already."""
    mine = defaultdict[str, list[Membership]](list)
    for membership in known:
        mine[membership.job_id].append(membership)
    new, changed, touched = list[Joined](), list[tuple[int, IncidentJob]](), set[int]()
    for (key, job_id), one in found.items():
        same = [membership.incident for membership in mine[job_id] if membership.key == key]
        if not same:
            new.append(one)
        if isinstance(one.rule.incident, FanIn):
            changed += [(max(same), one.job)] if same else []
            touched |= _forget_other_keys(tx, key, mine[job_id])
            touched |= {*same} if _may_change(one) else set()
    incidents.change_jobs(tx, changed)
    incidents.touch(tx, touched)
    return new


def _forget_other_keys(tx: Connection, key: IncidentKey, known: Iterable[Membership]) -> set[int]:
    """Take a job out of the fan-ins of other keys, as what its key is made from has changed; return these."""
    others = [one for one in known if one.is_current and one.key.rule == key.rule and one.key != key]
    for other in others:
        incidents.drop_jobs(tx, other.incident, rows=[other.row])
    return {other.incident for other in others}


def add(tx: Connection, new: Sequence[Joined], current: dict[IncidentKey, Held], now: datetime) -> None:
    """Store jobs that count for something new; `current` gets the keys that are watched from now on."""
    if not new:
        return
    # A fan-in that goes on takes what comes.
    asked = {one.key for one in new if one.key not in current or not isinstance(one.rule.incident, FanIn)}
    closed = incidents.latest_closed(tx, asked)
    late = [one for one in new if _is_of_closed(one, closed)]
    rest = [one for one in new if one not in late]
    # A job that only ends a row of others begins none.
    begun = current.keys() | {one.key for one in rest if one.job.counts or not _is_in_a_row(one.rule)}
    rest = _without_needless([one for one in rest if one.key in begun])
    missing = {one.key: one for one in rest if one.key not in current}
    fitting = [missing[key] for key in _with_room(tx, missing, now)]
    keys = [next_key(one.rule, one.key, one.by, closed.get(one.key), since=now) for one in fitting]
    current |= incidents.begin(tx, keys)
    added = [(current[one.key].n, one) for one in rest if one.key in current]
    touched = {number for number, one in added if _may_change(one)}
    jobs = [(number, one.job) for number, one in added] + [(closed[one.key].n, one.job) for one in late]
    incidents.add_jobs(tx, jobs, touch=touched)


def _without_needless(found: Sequence[Joined]) -> list[Joined]:
    """Leave out the jobs of an absence that lie between two no further apart than it waits: they change nothing."""
    kept, of_absence = list[Joined](), defaultdict[IncidentKey, list[Joined]](list)
    for one in found:
        (of_absence[one.key] if isinstance(one.rule.incident, Absence) else kept).append(one)
    for mine in of_absence.values():
        mine.sort(key=lambda one: one.job.happened_at)
        kept.append(mine[0])
        for one, following in pairwise(mine[1:]):
            spec, apart = one.rule.incident, following.job.happened_at - kept[-1].job.happened_at
            if isinstance(spec, Absence) and apart > spec.after:
                kept.append(one)
        kept += mine[1:][-1:]
    return kept


def _may_change(one: Joined) -> bool:
    """Tell whether a key is to be judged because of a job: one that is not done completes no fan-in."""
    return one.job.counts or one.rule.escalate is not None or not isinstance(one.rule.incident, FanIn)


def _is_in_a_row(rule: Rule) -> bool:
    return isinstance(rule.incident, Threshold) and rule.incident.in_a_row


def next_key(
    rule: Rule, key: IncidentKey, by: Sequence[tuple[str, str]], last: Incident | None, *, since: datetime
) -> NewKey:
    """Return what is watched of a key of a rule from then on, after its `last` incident."""
    generation, kind = last.generation + 1 if last else 1, kind_of(rule.incident)
    return NewKey(key=key, id=incident_id(key, generation), kind=kind, by=by, generation=generation, since=since)


def _is_of_closed(one: Joined, closed: Mapping[IncidentKey, Incident]) -> bool:
    """Tell whether it belongs to the last incident of its key, which is over."""
    last, spec = closed.get(one.key), one.rule.incident
    if last is None or last.closed_at is None or spec is None:
        return False
    at = one.job.happened_at
    return is_of_last(spec, at, closed_at=last.closed_at, total=last.total, expected=last.expected)


def _with_room(tx: Connection, missing: Collection[IncidentKey], now: datetime) -> list[IncidentKey]:
    """Return the new keys that there is room for; the oldest without an open incident are forgotten for them."""
    by_rule = defaultdict[str, list[IncidentKey]](list)
    for key in sorted(missing):
        by_rule[key.rule].append(key)
    fitting = []
    for rule, keys in by_rule.items():
        forgotten, surplus = incidents.make_room(tx, rule, len(keys))
        fitting += keys[: max(0, len(keys) - surplus)]
        if forgotten or surplus:
            text = f"it has more than {incidents.MOST_KEYS:,} keys: the oldest without an open incident are forgotten"
            rulesets.fault(tx, [(rule, text)], now=now)
            logger.warning(text, extra={"rule": rule, "forgotten": forgotten, "left_out": surplus})
    return fitting


def _expect(tx: Connection, found: Iterable[Joined], current: Mapping[IncidentKey, Held]) -> None:
    """Store the greatest number of jobs that any job of a fan-in names: one that shrinks is not believed."""
    most: dict[IncidentKey, int] = {}
    for one in found:
        if one.expected is not None:
            most[one.key] = max(one.expected, most.get(one.key, 0))
    for key, expected in most.items():
        incident = current.get(key)
        if incident and expected > (incident.expected or 0):
            incidents.change(tx, incident.n, expected=expected)


# --- alarms of level rules that escalate ----------------------------------------------------------------------------


def open_alarm(tx: Connection, rule: Rule, began: Transition, now: datetime) -> None:
    """Store that a level rule that escalates has fired for a job's time in state, unless it has before."""
    if rule.escalate is None:
        return
    key, by = _alarm_key(rule.name, began.job.bucket, began.job.id, began.sequence)
    if incidents.hold(tx, [key]) or incidents.latest_closed(tx, [key]):
        return
    new = replace(next_key(rule, key, by, None, since=now), due_at=now + rule.escalate.after)
    incident = incidents.begin(tx, [new])[key]
    incidents.add_jobs(tx, [(incident.n, incident_job(began))])
    incidents.change(tx, incident.n, opened_at=now, notified_at=now, said=1)


def _alarm_key(rule: str, bucket: str, job_id: str, sequence: int) -> tuple[IncidentKey, tuple[tuple[str, str], ...]]:
    by = tuple(zip(ALARM_FIELDS, (bucket, job_id, str(sequence)), strict=True))
    return key_of(rule, by), by


def _close_alarms(tx: Connection, ended: Mapping[IncidentKey, Transition], current: Mapping[IncidentKey, Held]) -> None:
    """Close what was open for the times in state that these transitions end."""
    for key, step in ended.items():
        if incident := current.get(key):
            incidents.change(tx, incident.n, closed_at=step.happened_at, due_at=None)
