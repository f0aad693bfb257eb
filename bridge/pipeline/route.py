"""Store transitions, overdue jobs, and what follows from both by the rules: deliveries, alarms, counters."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection

from bridge.decide.routing import RoutingResult, Waits, root_message, route, route_overdue, workflow_message
from bridge.decide.rules.gates import Gates
from bridge.decide.rules.levels import GONE_FOR, TimeInState
from bridge.decide.rules.matching import Verdict
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.templates.functions import Names, variables
from bridge.links import Links
from bridge.model import DONE, GONE, Alarm, Content, Message, NewDelivery, Transition, Watch
from bridge.pipeline import joining
from bridge.record import counters, public_url, rulesets
from bridge.record.counters import UNTIMED, Count, timed
from bridge.record.outbox import entries, roots, silences
from bridge.record.polling import queues, snapshots, time_in_state

logger = logging.getLogger(__name__)

_MOST_OVERDUE = 1_000  # messages of one poll; the next one goes on


def current_gates(tx: Connection, book: Rulebook, now: datetime) -> Gates:
    """Return the mutes and silences of this moment."""
    known, pick_of = silences.recent(tx, now=now), book.matcher.pick_of
    return Gates(mutes=book.mutes, silences=known, zone=book.zone, now=now, pick_of=pick_of)


def with_queue_names(tx: Connection, book: Rulebook, transitions: Iterable[Transition]) -> Rulebook:
    """Return the rules with CI's names of these jobs' queues, where they have no alias: for messages."""
    unnamed = {transition.job.queue or "" for transition in transitions} - book.queue_names.keys() - {""}
    return replace(book, ci_queue_names=queues.names(tx, unnamed)) if unnamed else book


def variables_for(tx: Connection, message: Message, transition: Transition, book: Rulebook) -> Names:
    """Return what templates can name for a stored message about a transition, or about the time in state it began."""
    queue_names = with_queue_names(tx, book, [transition]).shown_queue_names
    in_state, links = message.kind == "level", public_url.links(tx)
    return variables(transition, message.rule, queue_names, zone=book.zone, links=links, in_state=in_state)


def route_all(
    tx: Connection, book: Rulebook, transitions: Sequence[Transition], now: datetime
) -> Sequence[RoutingResult]:
    """Store transitions and their deliveries."""
    if not transitions:
        return ()
    book = with_queue_names(tx, book, transitions)
    gates = current_gates(tx, book, now)
    fired = time_in_state.ended_by(tx, transitions) if book.matcher.levels else {}
    links = public_url.links(tx)
    routings = [
        route(step, book, gates, () if step.inferred else fired.get(step.job.id, ()), links=links)
        for step in transitions
    ]
    matches = [
        [(verdict.rule.name, verdict.notifiers) for verdict in routing.verdicts if verdict.kind == "transition"]
        for routing in routings
    ]
    judged = list(zip(transitions, matches, strict=True))
    snapshots.add_transitions(tx, judged, rules=book.sha)
    joining.join(tx, book, transitions, fired, now)
    if fired:
        time_in_state.recovered(tx, [alarm.n for alarms in fired.values() for alarm in alarms], now=now)
    counters.add(
        tx,
        [count for transition, match in judged for count in _of_transition(transition, matched=bool(match))],
        now=now,
    )
    _put(tx, routings, book, now)
    return routings


def route_overdue_jobs(
    tx: Connection,
    watch: Watch,
    book: Rulebook,
    as_of: datetime,
    now: datetime,
    *,
    saw: Callable[[str, Transition], bool],
    waits: Waits,
) -> Sequence[RoutingResult]:
    """Store the deliveries of the jobs of a watch that have been in a state for too long. `as_of`: when the poll began.

    `saw` says of a job, by its stream's key and the transition that began its state, whether that poll saw it: what
    was not shown may have moved; `waits` whether a rule does not fire for it now, as an incident is open. `as_of` is by
    the earlier of our clock and CI's, and so are repetitions.
    """
    levels = [rule.level for rule in book.matcher.levels if rule.level]
    if not levels:
        return ()
    gone = [level.after for level in levels if GONE in level.states]
    found = time_in_state.jobs_in_state(
        tx,
        [stream.key for stream in watch.streams],
        began_before=as_of - min(level.after for level in levels),
        as_of=as_of,
        gone_after=as_of - GONE_FOR - max(gone) if gone else None,
    )
    book = replace(book, ci_queue_names=queues.names(tx))
    gates, links = current_gates(tx, book, now), public_url.links(tx)
    routings: list[RoutingResult] = []
    for began, alarms, stream in found:
        if not saw(stream, began):
            continue
        time = TimeInState(began=began, alarms=alarms)
        for routing in route_overdue(time, book, gates, as_of, links=links, waits=waits):
            for verdict in routing.verdicts:
                _fire(tx, began, verdict, alarms.get(verdict.rule.name), as_of)
                joining.open_alarm(tx, verdict.rule, began, now)
            routings.append(routing)
        if len(routings) >= _MOST_OVERDUE:
            break
    _put(tx, routings, book, now)
    return routings


def _fire(tx: Connection, began: Transition, verdict: Verdict, last: Alarm | None, as_of: datetime) -> None:
    """Remember that a level rule fired, and whom it was for: all but those whom a gate keeps it from for good."""
    if verdict.level_event is None:
        return
    names = (*(last.notifiers if last else ()), *(name for name in verdict.notifiers if not verdict.drops(name)))
    notifiers, overdue = tuple(dict.fromkeys(names)), verdict.level_event
    time_in_state.fire(tx, began, verdict.rule.name, overdue.count, notifiers=notifiers, since=overdue.since, now=as_of)


def _put(tx: Connection, routings: Sequence[RoutingResult], book: Rulebook, now: datetime) -> None:
    """Store deliveries and which templates did not render, and count both."""
    deliveries = [new for routing in routings for new in routing.deliveries]
    at_once = entries.put(tx, deliveries, now=now)
    log_dead(deliveries)
    _show_newest(tx, routings, book, now)
    over = {delivery: silence for routing in routings for delivery, silence in routing.ended_silences.items()}
    silences.mark_notified(tx, [(over[new.id], new.notifier) for new in at_once if new.id in over])
    errors = [error for routing in routings for error in routing.errors]
    rulesets.fault(tx, [(error.rule, error.why) for error in errors], now=now)
    counts = [Count("template_error", (error.rule, error.template)) for error in errors]
    counters.add(tx, [*_of_matches(routings), *counts], now=now)
    for error in errors:
        logger.warning("template fell back to the default text", extra={"rule": error.rule, "fault": error.why})


def log_dead(new: Sequence[NewDelivery]) -> None:
    """Log the dead letters among new deliveries: a pick found no notifier for them."""
    for delivery in new:
        if delivery.dead:
            facts = {"delivery": delivery.id, "notifier": delivery.notifier, "reason": delivery.dead}
            logger.error("delivery is dead", extra=facts)


# --- the first messages of threads ----------------------------------------------------------------------------------

_MOST_JOBS = 5_000  # of a workflow, whose states are counted


def _show_newest(tx: Connection, routings: Sequence[RoutingResult], book: Rulebook, now: datetime) -> None:
    """Let the first messages of threads show the newest state of their jobs, whatever rules and gates say."""
    about: dict[roots.Key, list[RoutingResult]] = defaultdict(list)
    stored = {
        (new.notifier, new.thread): new.message.id
        for routing in routings
        for new in routing.deliveries
        if new.updates and not new.hold and not new.throttle
    }
    for name, notifier in book.updating.items():
        for routing in routings:
            for thread in notifier.threads_of(routing.transition.job):
                about[name, thread].append(routing)
    wishes: dict[roots.Key, tuple[Content, Mapping[str, str]]] = {}
    for root in roots.find(tx, about):
        message, states = _newest(root, about[root.key], book, public_url.links(tx))
        if message and stored.get(root.key) != message.id:
            wishes[root.key] = entries.content_of(message), states
    roots.change(tx, wishes, now=now)


def _newest(
    root: roots.Root, routings: Sequence[RoutingResult], book: Rulebook, links: Links
) -> tuple[Message | None, Mapping[str, str]]:
    """Return what a root should show after these, and the states of its workflow's jobs."""
    name, thread = root.key
    last = routings[-1]
    rule = json.loads(root.wanted.says).get("rule") if root.wanted else None
    message = root_message(last, book, name, rule, links=links)
    job = last.transition.job
    if message is None or not job.workflow_run or not thread.endswith(f"{job.bucket}/{job.workflow_run}"):
        return message, {}
    states = {**root.states, **{routing.transition.job.id: routing.transition.to for routing in routings}}
    states = dict(list(states.items())[-_MOST_JOBS:])
    return replace(workflow_message(last.transition, message, states), id=""), states


# --- counters -------------------------------------------------------------------------------------------------------


def _of_transition(transition: Transition, *, matched: bool) -> Iterator[Count]:
    """Yield what a transition counts; how long all took only where it was watched, not found in a first snapshot.

    An inferred one counts nothing, as it was not seen.
    """
    if transition.inferred:
        return
    job = transition.job
    tag, queue = job.tag or "", job.queue or ""
    yield Count("transition", (tag, queue, transition.was, transition.to))
    if transition.silent:
        return
    if not matched:
        yield Count("unmatched", ())
    late, by = transition.late_seconds, (transition.watch,)
    yield Count("detected", by, UNTIMED) if late is None else timed("detected", by, late)
    if transition.to in DONE:
        took = job.seconds(transition.happened_at)
        if took["duration"] is not None:
            yield timed("job_duration", (tag, queue, transition.to), took["duration"])
        if job.started_at and took["wait"] is not None:
            yield timed("job_wait", (queue,), took["wait"])


def _of_matches(routings: Iterable[RoutingResult]) -> Iterator[Count]:
    """Yield what the rules that fired count; that an alarm is over is no match of its own."""
    verdicts = (verdict for routing in routings for verdict in routing.verdicts if verdict.kind != "recovery")
    for verdict in verdicts:
        yield Count("match", (verdict.rule.name,))
        if verdict.notified_earlier:
            yield Count("suppressed", (verdict.rule.name, "first_wins"), times=len(verdict.notified_earlier))
