"""All that follows from what happened: the verdicts of rules, mutes and silences, and what is sent to whom and when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from bridge.decide.messages.build import Built, address, build, customs
from bridge.decide.rules.gates import Gates
from bridge.decide.rules.levels import Alarm, Staying, overdue, recoveries
from bridge.decide.rules.matching import Facts, Matcher, Verdict
from bridge.decide.rules.rulebook import Rulebook, Wording
from bridge.model import NewDelivery, Notifier, Transition

# --- verdicts -------------------------------------------------------------------------------------------------------


def judge(transition: Transition, matcher: Matcher, gates: Gates, alarms: Iterable[Alarm] = ()) -> list[Verdict]:
    """Return the verdicts of the rules that fire for a transition; a silent one is matched by none.

    `alarms` are those of the time in state that it ends; what recovers from them comes last.
    """
    if transition.silent:
        return []
    fired, facts = matcher.match(transition), matcher.facts(transition)
    edges = [gates.held(verdict, facts) for verdict in fired]
    notified = [
        name for verdict in edges if not verdict.rule.group for name in verdict.notifiers if not verdict.drops(name)
    ]
    return edges + [gates.held(verdict, facts) for verdict in recoveries(alarms, matcher, notified)]


def judge_overdue(staying: Staying, matcher: Matcher, gates: Gates, now: datetime) -> list[Verdict]:
    """Return the verdicts of the level rules that have something new to notify of."""
    verdicts = list(overdue(staying, matcher, now))
    return gates_at(verdicts, staying, matcher, gates, now) if verdicts else []


def gates_at(
    verdicts: Iterable[Verdict], staying: Staying, matcher: Matcher, gates: Gates, now: datetime
) -> list[Verdict]:
    """Return verdicts on a time in state with what holds their messages back."""
    facts = matcher.facts(replace(staying.began, seen_at=now))
    return [gates.held(verdict, facts) for verdict in verdicts]


# --- deliveries -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingResult:
    """What follows from one transition, or from one time in state: `verdicts` of the rules that fired, and messages.

    `faults` are (rule, why): templates that did not render; `faulty` names them, as (rule, template). `over` has for
    a delivery's id the silence whose end it tells, if it is told at once.
    """

    transition: Transition
    verdicts: Sequence[Verdict] = ()
    told: Sequence[NewDelivery] = ()
    faults: Sequence[tuple[str, str]] = ()
    faulty: Sequence[tuple[str, str]] = ()
    over: Mapping[str, str] = field(default_factory=dict)


def route(transition: Transition, book: Rulebook, gates: Gates, alarms: Iterable[Alarm] = ()) -> RoutingResult:
    """Match a transition and build its messages; `alarms` are those of the time in state that it ends."""
    verdicts = judge(transition, book.matcher, gates, alarms)
    return _result(transition, verdicts, book, gates)


def route_overdue(staying: Staying, book: Rulebook, gates: Gates, now: datetime) -> list[RoutingResult]:
    """Build the messages of the level rules that a job has been in a state for too long for: one verdict each."""
    step = replace(staying.began, seen_at=now)
    verdicts = judge_overdue(staying, book.matcher, gates, now)
    return [_result(step, [verdict], book, gates) for verdict in verdicts]


def tell_by_hand(
    transition: Transition, book: Rulebook, notifier: Notifier, author: str
) -> tuple[NewDelivery, Sequence[str]]:
    """Build what a person tells a notifier of a transition; and which templates did not render.

    It has the default text, as no rule names another, and passes no gate: somebody wants it now.
    """
    built = build(transition, None, Wording(), book.queue_names, zone=book.zone)
    custom = customs(notifier, built.names)
    return address(built.message, notifier, note=f"Sent by hand by {author}.", custom=custom), custom.faults


def _result(transition: Transition, verdicts: Sequence[Verdict], book: Rulebook, gates: Gates) -> RoutingResult:
    if not verdicts:
        return RoutingResult(transition=transition)
    teller = _Teller(book, gates, book.matcher.facts(transition))
    for verdict in verdicts:
        teller.route(transition, verdict)
    return teller.routing(transition, verdicts)


class _Teller:
    def __init__(self, book: Rulebook, gates: Gates, facts: Facts) -> None:
        self._book = book
        self._gates = gates
        self._facts = facts
        self._told: list[NewDelivery] = []
        self._faults: list[tuple[str, str]] = []
        self._faulty: list[tuple[str, str]] = []
        self._over: dict[str, str] = {}

    def route(self, step: Transition, verdict: Verdict) -> None:
        """Build the message of a rule for each notifier."""
        if not verdict.notifiers:
            return
        book, rule = self._book, verdict.rule
        wording = book.wordings.get(rule.template or "", Wording())
        built = build(step, rule.name, wording, book.queue_names, zone=book.zone, stay=verdict.stay)
        if built.fault:
            self._faults.append((rule.name, f'template "{rule.template}": {built.fault}'))
            self._faulty.append((rule.name, rule.template or ""))
        self._told += [self._addressed(built, verdict, name) for name in verdict.notifiers if name in book.notifiers]

    def _addressed(self, built: Built, verdict: Verdict, name: str) -> NewDelivery:
        notifier, rule, hold = self._book.notifiers[name], verdict.rule, verdict.holds.get(name)
        custom = customs(notifier, built.names)
        self._faults += [(rule.name, f'notifier "{name}": {fault}') for fault in custom.faults]
        self._faulty += [(rule.name, own_template(name)) for _ in custom.faults]
        # The first message after a silence says that it is over; a digest finds that out when it is told.
        silence = None if hold else self._gates.over(self._facts, rule.name, name)
        note = f"{silence} is over." if silence else None
        told = replace(address(built.message, notifier, note=note, custom=custom), hold=hold, throttle=rule.throttle)
        self._over |= {told.id: silence.id} if silence else {}
        return told

    def routing(self, transition: Transition, verdicts: Sequence[Verdict]) -> RoutingResult:
        return RoutingResult(
            transition=transition,
            verdicts=verdicts,
            told=self._told,
            faults=self._faults,
            faulty=self._faulty,
            over=self._over,
        )


def own_template(notifier: str) -> str:
    """Return how a template is called in figures that a notifier has for itself: its body, its channel."""
    return f"notifier.{notifier}"
