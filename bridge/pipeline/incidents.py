"""Judges incidents at the end of a poll: which open, go on, close, and whom that is sent to."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from bridge.decide.messages.incidents import MOST_NAMED, Event, IncidentNews, present_message, shows_same
from bridge.decide.routing import TemplateError, Waits, route_incident
from bridge.decide.rules.incidents import (
    ALARM_FIELDS,
    Absence,
    Backlog,
    Course,
    FanIn,
    Gathered,
    Threshold,
    completion,
    deadline,
    follow,
    follow_absence,
    is_of_next,
    key_of,
    kind_of,
    settles_at,
    still_counting,
)
from bridge.decide.rules.joining import Joined, incident_job
from bridge.decide.rules.levels import TimeInState
from bridge.decide.rules.matching import Rule, TextCondition
from bridge.decide.rules.rulebook import Rulebook
from bridge.model import (
    Content,
    Incident,
    IncidentJob,
    IncidentKey,
    Job,
    Message,
    NewDelivery,
    Stream,
    Transition,
    Watch,
)
from bridge.pipeline.joining import add, next_key
from bridge.pipeline.route import current_gates, log_dead
from bridge.record import counters, incidents, public_url, rulesets
from bridge.record.codec import dump
from bridge.record.counters import Count
from bridge.record.outbox import entries, roots
from bridge.record.polling import queues, snapshots, time_in_state

_MOST_JUDGED = 5_000  # keys of one poll; the next one goes on

Saw = Callable[[str, Transition], bool]


@dataclass(frozen=True, slots=True)
class _Seen:
    """Up to when the streams of a rule's key are known: one of them at least, and all of them."""

    newest: datetime | None
    oldest: datetime | None


@dataclass(slots=True, kw_only=True)
class _Judge:
    """What is known while the incidents of a poll are judged, and what there is to say of them."""

    tx: Connection
    book: Rulebook
    as_of: datetime
    now: datetime
    streams: Sequence[_StreamFacts]
    seen_at: Mapping[str, datetime]
    inhibiting: set[IncidentKey]  # open incidents that others wait for
    news: list[tuple[Rule, IncidentNews]] = field(default_factory=list)
    before: dict[int, Incident] = field(default_factory=dict)  # as they are stored
    jobs: dict[int, list[IncidentJob]] = field(default_factory=dict)  # to judge, by incident
    counts: dict[int, incidents.Counts] = field(default_factory=dict)  # by incident of a fan-in
    changes: dict[int, Mapping[str, Any]] = field(default_factory=dict)  # to be stored, by incident
    _of_rules: dict[str, list[_StreamFacts]] = field(default_factory=dict)  # the streams that may list its jobs

    def read(self, current: Collection[Incident], rules: Mapping[str, Rule]) -> None:
        """Read the jobs of these incidents, as far as they are judged by them."""
        specs = {one.n: rules[one.rule].incident for one in current}
        by_times = [number for number, spec in specs.items() if isinstance(spec, Threshold | Absence)]
        self.before = {one.n: one for one in current}
        self.jobs = incidents.jobs_to_judge(self.tx, by_times)
        self.counts = incidents.counts(self.tx, [number for number, spec in specs.items() if isinstance(spec, FanIn)])

    def change(self, incident: Incident, *, due_at: datetime | None) -> None:
        """Let an incident that goes on be stored, with all that differs from what is; its row is not read again."""
        new, before = _columns(incident, due_at), self.before.get(incident.n)
        old = _columns(before, None) if before else {}
        self.changes[incident.n] = {
            name: value for name, value in new.items() if name == "due_at" or name not in old or old[name] != value
        }

    def announce(self, event: Event, rule: Rule, incident: Incident, by: IncidentJob | None = None) -> None:
        self.news.append((rule, IncidentNews(event=event, incident=incident, now=self.now, by=by)))

    def seen(self, rule: Rule, incident: Incident) -> _Seen:
        if rule.name not in self._of_rules:
            self._of_rules[rule.name] = [facts for facts in self.streams if _may_list(rule, facts)]
        mine = [facts["key"] for facts in self._of_rules[rule.name] if _fits(incident, facts)]
        times = [self.seen_at.get(key or "") for key in mine]
        known = [time for time in times if time]
        newest = min(max(known), self.as_of) if known else None
        return _Seen(newest, min(*known, self.as_of) if known and len(known) == len(times) else None)


_StreamFacts = Mapping[str, str | None]


def _facts_of(watch: str, stream: Stream) -> _StreamFacts:
    place = stream.place
    facts = {"key": stream.key, "watch": watch, "tag": stream.tag, "queue": stream.queue}
    return facts | {"bucket": place.bucket, "region": place.region}


def _streams(book: Rulebook) -> list[_StreamFacts]:
    return [_facts_of(watch.name, stream) for watch in book.watches for stream in watch.streams]


def _may_list(rule: Rule, facts: _StreamFacts) -> bool:
    """Tell whether a stream may list jobs that a rule is about."""
    conditions = (c for c in rule.conditions if isinstance(c, TextCondition))
    return not any(c.why_not_of((value,)) for c in conditions if (value := facts.get(c.field)))


def _fits(incident: Incident, facts: _StreamFacts) -> bool:
    """Tell whether a stream may list jobs that count for this key."""
    return all(facts.get(name) in (None, value) for name, value in incident.by)


# --- the end of a poll ----------------------------------------------------------------------------------------------


def judge(tx: Connection, watch: Watch, book: Rulebook, *, as_of: datetime, now: datetime, saw: Saw) -> int:
    """Store what becomes of incidents, and the deliveries; return how many these are.

    `as_of` is when the poll began, by the earlier of our clock and CI's; `saw` as of `route_overdue_jobs`.
    """
    rules = {rule.name: rule for rule in book.rules if rule.incident or rule.escalate}
    if not rules:
        return 0
    incidents.take_turn(tx)
    overdue = list(_overdue(tx, watch, book, as_of, saw))
    due = [key for key in incidents.due(tx, now=now, most=_MOST_JUDGED) if key.rule in rules]
    if not due and not overdue:
        return 0
    keys = {*due, *(one.key for one in overdue)}
    if overdue:
        add(tx, overdue, incidents.hold(tx, keys), now)
    current = incidents.lock(tx, keys)
    names = {rule.unless for rule in rules.values() if rule.unless}
    judge = _Judge(
        tx=tx,
        book=book,
        as_of=as_of,
        now=now,
        streams=_streams(book),
        seen_at=snapshots.seen(tx),
        inhibiting=incidents.open_keys(tx, names),
    )
    judge.read(current.values(), rules)
    for incident in sorted(current.values(), key=lambda one: rules[one.rule].unless is not None):
        _judge(judge, rules[incident.rule], incident)
    incidents.change_all(tx, judge.changes)
    count = _put(judge)
    show(tx, [incident.n for incident in current.values() if incident.notifiers], book, now)
    return count


def _judge(judge: _Judge, rule: Rule, incident: Incident) -> None:
    match rule.incident:
        case (Threshold() | Absence()) as spec:
            _judge_times(judge, rule, spec, incident)
        case Backlog() as spec:
            _judge_backlog(judge, rule, spec, incident)
        case FanIn() as spec:
            _judge_fan_in(judge, rule, spec, incident)
        case None:
            _go_on(judge, rule, incident)


def _judge_times(judge: _Judge, rule: Rule, spec: Threshold | Absence, incident: Incident) -> None:
    """Judge what depends on when things happened; one look may find several incidents that are over."""
    while True:
        jobs = _jobs_of(judge, spec, incident)
        course = _course(judge, rule, spec, incident, jobs)
        after = replace(incident, judged=max((job.n for job in jobs), default=incident.judged))
        if course.last_at != incident.since or incident.generation > 1 or jobs:  # else nothing has come so far
            after = replace(after, last_at=course.last_at)
        if course.opened_at and (incident.opened_at or not _is_inhibited(judge, rule, incident)):
            after = replace(after, opened_at=course.opened_at)
        if course.closed_at is None and after.opened_at:
            _open(judge, rule, after, course.by)
            return
        if course.closed_at is None or not after.opened_at:
            _watch(judge, rule, spec, replace(after, last_at=course.closed_at or after.last_at), jobs)
            return
        own = not is_of_next(spec, course.closed_at, course.closed_at)  # what happened in that moment
        since = course.closed_at + timedelta(milliseconds=own)
        incident = _close(judge, rule, after, course.closed_at, course.by, next_since=since)
        if not incident.total and isinstance(spec, Threshold):
            incidents.forget(judge.tx, [incident.n])
            return


def _course(
    judge: _Judge, rule: Rule, spec: Threshold | Absence, incident: Incident, jobs: Sequence[IncidentJob]
) -> Course:
    seen = judge.seen(rule, incident)
    if isinstance(spec, Absence):
        last_at = incident.last_at or incident.since
        known_to, zone = seen.oldest, judge.book.zone
        return follow_absence(spec, jobs, opened_at=incident.opened_at, last_at=last_at, known_to=known_to, zone=zone)
    return follow(
        spec,
        jobs,
        opened_at=incident.opened_at,
        last_at=incident.last_at or incident.opened_at,
        judged=incident.judged,
        as_of=seen.newest or incident.since,
    )


def _jobs_of(judge: _Judge, spec: Threshold | Absence, incident: Incident) -> list[IncidentJob]:
    new = judge.jobs.pop(incident.n, None)
    if new is None:  # a generation that has begun just now
        new = incidents.jobs_to_judge(judge.tx, [incident.n])[incident.n]
    if not (incident.is_open and isinstance(spec, Threshold) and spec.last):
        return new
    before = incidents.last_jobs(judge.tx, incident.n, most=spec.last, judged=incident.judged)
    return sorted([*before, *new], key=lambda job: (job.happened_at, job.n))


def _watch(
    judge: _Judge, rule: Rule, spec: Threshold | Absence, incident: Incident, jobs: Sequence[IncidentJob]
) -> None:
    """Keep of a key that is not open what may still count; forget it when nothing does."""
    if isinstance(spec, Absence):
        last_at = incident.last_at or incident.since
        incidents.drop_jobs(judge.tx, incident.n, rows=[job.n for job in jobs if job.happened_at < last_at])
        judge.change(incident, due_at=_later(deadline(spec, last_at, judge.book.zone), judge.now))
        return
    kept = still_counting(spec, jobs, judge.seen(rule, incident).oldest)
    if not kept:
        incidents.forget(judge.tx, [incident.n])
        return
    incidents.drop_jobs(judge.tx, incident.n, rows=[job.n for job in jobs if job not in kept])
    due_at = kept[-1].happened_at + 2 * spec.within if spec.within else None
    judge.change(replace(incident, judged=0), due_at=_later(due_at, judge.now))


def _judge_backlog(judge: _Judge, rule: Rule, spec: Backlog, incident: Incident) -> None:
    """A backlog closes when it has been small for as long as a job may wait: one at the limit is told once."""
    exceeds = spec.limit.holds(incident.counted)
    opens = exceeds and incidents.has_news(judge.tx, incident.n) and not _is_inhibited(judge, rule, incident)
    small_since = None if exceeds else incident.last_at or judge.as_of
    if incident.opened_at is None and not opens:
        if incident.counted:
            judge.change(incident, due_at=judge.now if exceeds else None)
        else:
            incidents.forget(judge.tx, [incident.n])
    elif small_since is None or small_since + spec.after > judge.as_of:
        opened_at = incident.opened_at or _exceeded_at(judge, spec, incident)
        _open(judge, rule, replace(incident, opened_at=opened_at, last_at=small_since), None)
    else:
        following = _close(judge, rule, incident, small_since + spec.after, None)
        if not incidents.copy_jobs(judge.tx, incident, following):
            incidents.forget(judge.tx, [following.n])


def _exceeded_at(judge: _Judge, spec: Backlog, incident: Incident) -> datetime:
    """Return since when so many jobs have been in their state for too long: a poll may find that late."""
    began = incidents.began_at(judge.tx, incident.n, nth=spec.limit.least)
    exceeded_at = min(began + spec.after, judge.as_of) if began else judge.as_of
    return exceeded_at if incident.generation == 1 else max(exceeded_at, incident.since)


_FAILED = "a job failed"  # why a fan-in closed


def _judge_fan_in(judge: _Judge, rule: Rule, spec: FanIn, incident: Incident) -> None:
    counts = judge.counts.get(incident.n)
    if counts is None:
        incidents.close_all(judge.tx, [incident.n], "its jobs belong to another key now", now=judge.now)
        return
    expected = 1 if incident.generation > 1 and spec.expect else incident.expected
    found = Gathered(states=counts.states, expected=expected, last_at=counts.last_at)
    ended = completion(spec, found, known_to=judge.seen(rule, incident).oldest)
    incident = replace(incident, last_at=found.last_at)
    if ended is None:
        due_at = settles_at(spec, found)
        _go_on(judge, rule, incident, due_at=_later(due_at, judge.now))
        return
    is_news = incidents.has_news(judge.tx, incident.n)
    failed = _FAILED if ended == "failed" else None
    closed = replace(
        incident,
        opened_at=incident.opened_at or found.last_at,
        closed_at=found.last_at,
        closed_why=failed if is_news else "a first snapshot found all of its jobs",
        notified_at=incident.notified_at or (judge.now if is_news else None),
    )
    incidents.change(judge.tx, closed.n, **_columns(closed, None))
    if is_news:
        judge.announce(ended, rule, closed)


# --- the first messages of threads ----------------------------------------------------------------------------------


def show(tx: Connection, numbers: Collection[int], book: Rulebook, now: datetime) -> None:
    """Let the first messages of these incidents' threads show what has become of them, where they do not."""
    if not book.editing or not numbers:
        return
    found = {incident.id: incident for incident in incidents.read(tx, numbers)}
    about = {
        (name, thread): id_
        for name, notifier in book.editing.items()
        for id_ in found
        for thread in notifier.threads_of_incident(id_)
    }
    stale = defaultdict[str, list[roots.Root]](list)
    for root in roots.find(tx, about):
        stale[about[root.key]].append(root)
    book = replace(book, ci_queue_names=queues.names(tx)) if stale else book
    wishes: dict[roots.Key, tuple[Content, Mapping[str, str]]] = {}
    for id_, mine in stale.items():
        message = _present(tx, found[id_], book, now)
        for root in mine:
            if root.wanted is None or not shows_same(json.loads(root.wanted.event), message.event):
                wishes[root.key] = entries.content_of(message), {}
    roots.change(tx, wishes, now=now)


def _present(tx: Connection, incident: Incident, book: Rulebook, now: datetime) -> Message:
    rule = next((one for one in book.rules if one.name == incident.rule), None)
    event: Event = "closed" if incident.closed_at else "opened"
    if incident.closed_at and rule and isinstance(rule.incident, FanIn):
        ends: dict[str | None, Event] = {_FAILED: "failed", None: "completed"}
        event = ends.get(incident.closed_why, "closed")
    news = _with_jobs(tx, IncidentNews(event=event, incident=incident, now=now))
    return present_message(news, rule, book.shown_queue_names, links=public_url.links(tx), language=book.language)


def _with_jobs(tx: Connection, news: IncidentNews) -> IncidentNews:
    jobs = incidents.details(tx, incidents.last_jobs(tx, news.incident.n, most=MOST_NAMED))
    counted = incidents.counts(tx, [news.incident.n]).get(news.incident.n)
    return replace(news, jobs=jobs, states=counted.states if counted else {})


def _threads(tx: Connection, incident: Incident, book: Rulebook) -> dict[str, str | None]:
    """Return by notifier in which channel (None: the notifier's only one) the thread of an incident is."""
    own = f"incident/{incident.id}"
    keys = {(name, thread) for name, one in book.editing.items() for thread in one.threads_of_incident(incident.id)}
    found = roots.find(tx, keys) if keys else ()
    return {name: thread.removesuffix(own).rstrip("/") or None for name, thread in (root.key for root in found)}


# --- what an incident can do ----------------------------------------------------------------------------------------


def _later(due_at: datetime | None, now: datetime) -> datetime | None:
    """Return when to judge again: what waits for a time that is over comes after what is due since."""
    return max(due_at, now) if due_at else None


def _is_inhibited(judge: _Judge, rule: Rule, incident: Incident) -> bool:
    """Tell whether the rule that this one waits for has an open incident for the same key."""
    if rule.unless is None:
        return False
    other = next((one for one in judge.book.rules if one.name == rule.unless), None)
    values = dict(incident.by)
    return (
        other is not None and key_of(other.name, tuple((name, values[name]) for name in other.by)) in judge.inhibiting
    )


def _open(judge: _Judge, rule: Rule, incident: Incident, by: IncidentJob | None) -> None:
    """Store that an incident is open; it is sent when it opens, and when twice as many jobs count as it said last."""
    if incident.notified_at is None:
        incident = replace(incident, notified_at=judge.now, said=incident.counted)
        judge.announce("opened", rule, incident, by)
        judge.inhibiting.add(incident.of)
    elif incident.said and incident.counted >= 2 * incident.said:
        incident = replace(incident, said=incident.counted)
        judge.announce("joined", rule, incident)
    spec = rule.incident
    quiet = spec.within if isinstance(spec, Threshold) else spec.after if isinstance(spec, Backlog) else None
    due_at = incident.last_at + quiet if quiet and incident.last_at else None
    _go_on(judge, rule, incident, due_at=_later(due_at, judge.now))


def _go_on(judge: _Judge, rule: Rule, incident: Incident, *, due_at: datetime | None = None) -> None:
    """Store an incident that is not over, and escalate it when it is time."""
    escalate, began = rule.escalate, incident.notified_at
    if escalate and isinstance(rule.incident, FanIn) and incidents.has_news(judge.tx, incident.n):
        began = began or incident.since  # nothing is said when it begins
    if escalate and began and not incident.escalated_at and not incident.acknowledged_at:
        if began + escalate.after <= judge.now:
            opened_at = incident.opened_at or judge.now
            incident = replace(incident, escalated_at=judge.now, opened_at=opened_at, notified_at=began)
            judge.announce("escalated", rule, incident)
        else:
            due_at = min(due_at or began + escalate.after, began + escalate.after)
    judge.change(incident, due_at=due_at)


def _close(
    judge: _Judge,
    rule: Rule,
    incident: Incident,
    closed_at: datetime,
    by: IncidentJob | None,
    *,
    next_since: datetime | None = None,
) -> Incident:
    """Close an incident, and return the next generation of its key, which is watched from then on.

    Jobs that happened since `next_since` count for that one.
    """
    closed = replace(incident, closed_at=closed_at, notified_at=incident.notified_at or judge.now)
    incidents.change(judge.tx, closed.n, **_columns(closed, None))
    judge.inhibiting.discard(closed.of)
    new = next_key(rule, incident.of, incident.by, incident, since=closed_at)
    incidents.begin(judge.tx, [new])
    following = incidents.lock(judge.tx, [new.key])[new.key]
    if next_since:
        closed, following = incidents.move_jobs(judge.tx, closed, following, since=next_since)
    if incident.notified_at is None:  # it was over before it was seen
        judge.announce("opened", rule, closed, by)
    else:
        judge.announce("closed", rule, closed)
    return following


def _columns(incident: Incident, due_at: datetime | None) -> dict[str, Any]:
    names = ("opened_at", "notified_at", "closed_at", "closed_why", "escalated_at", "last_at", "said", "judged")
    return {"due_at": due_at, **{name: getattr(incident, name) for name in names}}


# --- rules that have changed ----------------------------------------------------------------------------------------


def adopt(tx: Connection, book: Rulebook, now: datetime) -> None:
    """Let incidents follow the rules that are in force now: by the names of these.

    Those of rules that are gone, or are about other keys, or about jobs that no watch lists, are closed without a word.
    Jobs that no watch has any more leave the backlogs. An absence for all jobs is watched from now on.
    """
    incidents.take_turn(tx)
    closed, listed = list[int](), _streams(book)
    rules = {rule.name: rule for rule in book.rules if rule.incident or rule.escalate}
    for name in sorted(incidents.current_rules(tx) - rules.keys()):
        gone = [one.n for one in incidents.current(tx, name)]
        closed += incidents.close_all(tx, gone, "its rule is no longer in rules.toml", now=now)
    backlogs = [rule.name for rule in rules.values() if isinstance(rule.incident, Backlog)]
    incidents.leave(tx, incidents.unwatched_jobs(tx, backlogs) if backlogs else (), now=now)
    for rule in rules.values():
        fields = rule.by if rule.incident else ALARM_FIELDS
        current = incidents.current(tx, rule.name)
        others = [one.n for one in current if tuple(name for name, _ in one.by) != tuple(fields)]
        closed += incidents.close_all(tx, others, "its rule has another `by` now", now=now)
        others = [one.n for one in current if one.kind not in (None, kind_of(rule.incident))]
        closed += incidents.close_all(tx, others, "its rule is of another kind now", now=now)
        streams = [facts for facts in listed if _may_list(rule, facts)]
        unseen = [one.n for one in current if not any(_fits(one, facts) for facts in streams)]
        closed += incidents.close_all(tx, unseen, "no watch lists such jobs any more", now=now)
        if isinstance(rule.incident, Absence) and not rule.by and streams:
            key = key_of(rule.name, ())
            last = incidents.latest_closed(tx, [key]).get(key)
            if not incidents.hold(tx, [key]):
                incidents.begin(tx, [next_key(rule, key, (), last, since=now)])
    incidents.touch_all(tx)
    show(tx, closed, book, now)


# --- backlogs, and alarms that escalate -----------------------------------------------------------------------------


def _overdue(tx: Connection, watch: Watch, book: Rulebook, as_of: datetime, saw: Saw) -> Iterator[Joined]:
    """Yield the jobs of a watch that have been in a state for too long since now, with the key that they count for."""
    rules = [(rule, rule.incident) for rule in book.matcher.incidents if isinstance(rule.incident, Backlog)]
    if not rules:
        return
    found = time_in_state.jobs_in_state(
        tx,
        [stream.key for stream in watch.streams],
        began_before=as_of - min(spec.after for _, spec in rules),
        as_of=as_of,
        with_alarms=False,
    )
    counted = incidents.counted_jobs(tx, [rule.name for rule, _ in rules])
    for began, _, stream in found:
        for rule, spec in rules:
            if (rule.name, began.job.bucket, began.job.id) not in counted and saw(stream, began):
                for key, by in _backlogs_of(rule, spec, began, book, as_of):
                    yield Joined(rule=rule, key=key, by=by, job=incident_job(began))


def _backlogs_of(
    rule: Rule, spec: Backlog, began: Transition, book: Rulebook, as_of: datetime
) -> Iterator[tuple[IncidentKey, tuple[tuple[str, str], ...]]]:
    """Yield the key that a job counts for if it has been in its state for too long."""
    if began.to not in spec.states or TimeInState(began=began).since + spec.after > as_of:
        return
    facts = book.matcher.facts(replace(began, seen_at=as_of), in_state=True)
    by = facts.key(rule.by)
    if not isinstance(by, str) and not any(condition.why_not(facts) for condition in rule.conditions):
        yield key_of(rule.name, by), by


def _notify_of_recovery(tx: Connection, rule: Rule, notifiers: Sequence[str], incident: Incident) -> None:
    """Let those to whom an alarm was escalated hear of its end."""
    for job in incidents.last_jobs(tx, incident.n, most=1):
        time_in_state.add_notifiers(tx, job.bucket, job.job_id, job.sequence, rule.name, notifiers)


def inhibited_levels(tx: Connection, book: Rulebook) -> Waits:
    """Return what tells whether a level rule waits, for a job, until another rule's incident has closed."""
    others = {rule.name: rule for rule in book.rules if rule.incident}
    found = incidents.open_keys(tx, {rule.unless for rule in book.matcher.levels if rule.unless})

    def is_inhibited(rule: Rule, began: Transition) -> bool:
        other = others.get(rule.unless or "")
        by = book.matcher.facts(began).key(other.by) if other else ""
        return other is not None and not isinstance(by, str) and key_of(other.name, by) in found

    return is_inhibited


# --- news -----------------------------------------------------------------------------------------------------------


def _put(judge: _Judge) -> int:
    """Store the deliveries of what there is to say, and count it; return how many these are."""
    tx, now = judge.tx, judge.now
    if not judge.news:
        return 0
    book = replace(judge.book, ci_queue_names=queues.names(tx))
    gates, links = current_gates(tx, book, now), public_url.links(tx)
    new: list[NewDelivery] = []
    errors: list[TemplateError] = []
    for rule, news in judge.news:
        full, threads = _with_jobs(tx, news), _threads(tx, news.incident, book)
        about = _about(tx, news, full.jobs)
        routed = route_incident(full, rule, about, book, gates, links=links, threads=threads)
        new += routed.deliveries
        errors += routed.errors
        notified = [one.notifier for one in routed.deliveries if not (one.dead or (one.hold and one.hold.drop))]
        told = tuple(dict.fromkeys((*news.incident.notifiers, *notified)))
        incidents.change(tx, news.incident.n, notifiers=dump(told))
        if rule.level and news.event == "escalated":
            _notify_of_recovery(tx, rule, notified, news.incident)
    entries.put(tx, new, now=now)
    log_dead(new)
    rulesets.fault(tx, [(error.rule, error.why) for error in errors], now=now)
    fired = [
        Count("match", (rule.name,)) for rule, news in judge.news if news.event in ("opened", "completed", "failed")
    ]
    counters.add(tx, fired, now=now)
    return len(new)


def _about(tx: Connection, news: IncidentNews, jobs: Sequence[tuple[IncidentJob, Job | None]]) -> Transition | None:
    """Return the transition that opened an incident, or its last one; None: there is none on record."""
    by = news.by or (jobs[-1][0] if jobs else None)
    return snapshots.transition_at(tx, by.bucket, by.job_id, by.sequence) if by else None
