"""All that follows from what happened: the verdicts of rules, mutes and silences, and what is sent to whom and when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple

from bridge.decide.messages.build import FOR_ANY, build, delivery_to, per_notifier, silence_over, undeliverable
from bridge.decide.messages.incidents import IncidentNews, incident_message
from bridge.decide.rules.gates import Gates
from bridge.decide.rules.levels import TimeInState, newly_overdue, recoveries
from bridge.decide.rules.matching import Matcher, Rule, Verdict
from bridge.decide.rules.picks import Choice
from bridge.decide.rules.rulebook import MessageTemplate, Rulebook
from bridge.decide.templates.functions import variables
from bridge.language import language_of
from bridge.links import NO_LINKS, Links
from bridge.model import Alarm, Hold, Message, NewDelivery, Transition, is_of_incident
from bridge.notifiers import Notifier

# --- verdicts -------------------------------------------------------------------------------------------------------


def evaluate(transition: Transition, matcher: Matcher, gates: Gates, alarms: Iterable[Alarm] = ()) -> list[Verdict]:
    """Return the verdicts of the rules that fire for a transition; a silent one is matched by none.

    `alarms` are those of the time in state that it ends. Verdicts of recoveries come last.
    """
    if transition.silent:
        return []
    fired, facts = matcher.match(transition), matcher.facts(transition)
    edges = [gates.held(verdict, facts) for verdict in fired]
    notified = [
        name for verdict in edges if not verdict.rule.group for name in verdict.notifiers if not verdict.drops(name)
    ]
    ends = (matcher.with_picks(verdict, facts) for verdict in recoveries(alarms, matcher, notified))
    return edges + [gates.held(verdict, facts) for verdict in ends]


Waits = Callable[[Rule, Transition], bool]  # whether another rule's open incident keeps a level rule from firing


def _never(_rule: Rule, _began: Transition) -> bool:
    return False


def evaluate_overdue(
    time: TimeInState, matcher: Matcher, gates: Gates, now: datetime, *, waits: Waits = _never
) -> list[Verdict]:
    """Return the verdicts of the level rules that have something new to notify of, without those that wait."""
    facts = matcher.facts(replace(time.began, seen_at=now), in_state=True)
    fired = [verdict for verdict in newly_overdue(time, matcher, now) if not waits(verdict.rule, time.began)]
    return [gates.held(verdict, facts) for verdict in fired]


# --- deliveries -----------------------------------------------------------------------------------------------------


class TemplateError(NamedTuple):
    """A template that did not render: NAME of [template.NAME], or "notifier.NAME" for a notifier's own template."""

    rule: str
    template: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingResult:
    """What follows from one transition, or from one time in state: `verdicts` of the rules that fired, and messages.

    `ended_silences` has for a delivery's id the silence whose end it mentions, if it is sent at once.
    """

    transition: Transition
    verdicts: Sequence[Verdict] = ()
    deliveries: Sequence[NewDelivery] = ()
    errors: Sequence[TemplateError] = ()
    ended_silences: Mapping[str, str] = field(default_factory=dict)


def route(
    transition: Transition, book: Rulebook, gates: Gates, alarms: Iterable[Alarm] = (), *, links: Links = NO_LINKS
) -> RoutingResult:
    """Match a transition and build its messages; `alarms` are those of the time in state that it ends."""
    return _result(transition, evaluate(transition, book.matcher, gates, alarms), book, gates, links)


def route_overdue(
    time: TimeInState,
    book: Rulebook,
    gates: Gates,
    now: datetime,
    *,
    links: Links = NO_LINKS,
    waits: Waits = _never,
) -> list[RoutingResult]:
    """Return one result for each level rule that has news of a job, and does not wait."""
    step = replace(time.began, seen_at=now)
    verdicts = evaluate_overdue(time, book.matcher, gates, now, waits=waits)
    return [_result(step, [verdict], book, gates, links) for verdict in verdicts]


def manual_delivery(
    transition: Transition, book: Rulebook, notifier: Notifier, author: str, *, links: Links = NO_LINKS
) -> tuple[NewDelivery, str | None]:
    """Build what a person sends to a notifier about a transition; and why its own template did not render.

    It has the default text, as no rule names another, and passes no gate: somebody wants it now.
    """
    built = build(
        transition,
        None,
        MessageTemplate(),
        book.shown_queue_names,
        zone=book.zone,
        links=links,
        language=book.language,
    )
    own = per_notifier(notifier, built.names)
    note = book.language.say("Sent manually by {who}.", who=author)
    return delivery_to(built.message, notifier, note=note, own=own), own.fault


def _result(step: Transition, verdicts: Sequence[Verdict], book: Rulebook, gates: Gates, links: Links) -> RoutingResult:
    deliveries: list[NewDelivery] = []
    errors: list[TemplateError] = []
    ended_silences: dict[str, str] = {}
    facts = book.matcher.facts(step, in_state=any(verdict.kind == "level" for verdict in verdicts))
    for verdict in verdicts:
        if not verdict.notifiers:
            continue
        rule, template = verdict.rule, book.templates.get(verdict.rule.template or "", MessageTemplate())
        built = build(
            step,
            rule.name,
            template,
            book.shown_queue_names,
            zone=book.zone,
            level_event=verdict.level_event,
            links=links,
            mention=rule.mention,
            language=book.language,
        )
        if built.fault:
            errors.append(TemplateError(rule.name, rule.template or "", f'template "{rule.template}": {built.fault}'))
        for name in verdict.notifiers:
            choice = verdict.unpicked.get(name)
            errors += _pick_errors(choice, rule)
            if choice and choice.is_dead:
                deliveries.append(replace(undeliverable(built.message, choice), hold=verdict.holds.get(name)))
            if name not in book.notifiers:
                continue
            hold, own = verdict.holds.get(name), per_notifier(book.notifiers[name], built.names)
            if own.fault:
                errors.append(TemplateError(rule.name, own_template(name), f'notifier "{name}": {own.fault}'))
            # The first message after a silence mentions its end; a digest finds that out when it is sent.
            silence = None if hold else gates.ended(facts, rule.name, name)
            notes = [choice.note if choice else None, silence_over(silence, book.language) if silence else None]
            note = " ".join(filter(None, notes)) or None
            delivery = delivery_to(built.message, book.notifiers[name], note=note, own=own)
            deliveries.append(_for_rule(delivery, rule, book.notifiers[name], hold))
            if silence:
                ended_silences[delivery.id] = silence.id
    return RoutingResult(
        transition=step, verdicts=verdicts, deliveries=deliveries, errors=errors, ended_silences=ended_silences
    )


# --- incidents ------------------------------------------------------------------------------------------------------


NO_THREADS: Mapping[str, str | None] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedIncident:
    """The deliveries of what is said of an incident, and templates of notifiers that did not render."""

    deliveries: Sequence[NewDelivery] = ()
    errors: Sequence[TemplateError] = ()


def route_incident(
    news: IncidentNews,
    rule: Rule,
    about: Transition | None,
    book: Rulebook,
    gates: Gates,
    *,
    links: Links = NO_LINKS,
    threads: Mapping[str, str | None] = NO_THREADS,
) -> RoutedIncident:
    """Build the message of what has become of an incident, for whom it is.

    `about` is the transition of the job that opened it, or its last one: silences and mutes ask it, and the notifiers'
    own templates name its job. Without one, as when nothing has happened, there is only the default body. `threads` has
    the notifiers in which it has a thread, each with the channel that was selected for that.
    """
    message = incident_message(news, rule, book.shown_queue_names, links=links, language=book.language)
    facts = book.matcher.facts(about) if about else None
    names = None
    if about:
        names = variables(about, rule.name, book.shown_queue_names, zone=book.zone, links=links, language=book.language)
    deliveries: list[NewDelivery] = []
    errors: list[TemplateError] = []
    notified, unpicked = book.matcher.picked(recipients(news, rule), rule.name, facts)
    for choice in unpicked.values() if news.event != "joined" else ():
        errors += _pick_errors(choice, rule)
        deliveries += [undeliverable(message, choice)] if choice.is_dead else []
    for notifier in (book.notifiers[name] for name in notified if name in book.notifiers):
        if news.event == "joined" and not notifier.threads_incidents:
            continue
        own = per_notifier(notifier, names) if names else FOR_ANY
        if own.fault:
            errors.append(
                TemplateError(rule.name, own_template(notifier.name), f'notifier "{notifier.name}": {own.fault}')
            )
        own = replace(own, channel=threads.get(notifier.name, own.channel))
        note = unpicked[notifier.name].note if notifier.name in unpicked else None
        delivery = _in_thread(delivery_to(message, notifier, note=note, own=own), notifier, threads)
        deliveries.append(replace(delivery, hold=gates.quiet(facts, rule.name, notifier.name), urgent=rule.urgent))
    return RoutedIncident(deliveries=deliveries, errors=errors)


def _in_thread(delivery: NewDelivery, notifier: Notifier, threads: Collection[str]) -> NewDelivery:
    """Let the first message of an incident's thread be edited; what must be read shows as no edit of a job's."""
    if is_of_incident(delivery.thread):
        return replace(delivery, updates=notifier.name not in threads)
    return replace(delivery, thread=None) if notifier.shows_by_edits else delivery


def recipients(news: IncidentNews, rule: Rule) -> Sequence[str]:
    """Return whom news of an incident are for; that more joined, for those of them that have threads."""
    match news.event:
        case "escalated":
            return rule.escalate.notify if rule.escalate else ()
        case "closed":
            return news.incident.notifiers if rule.recover else ()
        case "joined":
            return news.incident.notifiers
        case "completed" | "failed":
            return tuple(dict.fromkeys((*rule.notify, *news.incident.notifiers)))
    return rule.notify


def _pick_errors(choice: Choice | None, rule: Rule) -> Sequence[TemplateError]:
    if choice is None or choice.fault is None:
        return ()
    return [TemplateError(rule.name, own_template(choice.pick), f'notifier "{choice.pick}": pick: {choice.fault}')]


def _for_rule(delivery: NewDelivery, rule: Rule, notifier: Notifier, hold: Hold | None) -> NewDelivery:
    return replace(
        delivery,
        hold=hold,
        throttle=rule.throttle,
        urgent=rule.urgent,
        may_fold=notifier.most_waiting is not None and not rule.urgent,
        updates=notifier.updates,
        shows_by_edit=notifier.shows_by_edits,
    )


def root_message(
    routing: RoutingResult, book: Rulebook, notifier: str, rule: str | None, *, links: Links = NO_LINKS
) -> Message | None:
    """Return what the first message of a job's thread shows now, also where no rule notifies of it.

    `rule` is the one whose message it showed before. None: a level rule that is not for this notifier.
    """
    mine = [delivery.message for delivery in routing.deliveries if delivery.notifier == notifier]
    if mine:
        return next((message for message in mine if message.kind != "recovery"), mine[0])
    if any(verdict.level_event and not verdict.level_event.recovered for verdict in routing.verdicts):
        return None
    named = next((found for found in book.rules if found.name == rule), None)
    template = book.templates.get((named and named.template) or "", MessageTemplate())
    built = build(
        routing.transition,
        rule,
        template,
        book.shown_queue_names,
        zone=book.zone,
        links=links,
        language=book.language,
    )
    return built.message


def workflow_message(transition: Transition, message: Message, states: Mapping[str, str]) -> Message:
    """Return what the first message of a workflow's thread shows: its jobs by state, and what happened last."""
    job = transition.job
    name = job.workflow_name or job.workflow or job.workflow_run
    title = language_of(message.language).say("Workflow {name}", name=name)
    counts = dict(Counter(states.values()).most_common())
    text = f"{message.title}\n{message.text}".strip()
    return replace(message, title=title, text=text, fields=(), state=None, job_id=None, counts=counts)


def own_template(notifier: str) -> str:
    """Return the name under which metrics count a notifier's own templates (its body, its channel)."""
    return f"notifier.{notifier}"
