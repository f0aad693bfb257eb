"""All that follows from what happened: which rules fire, and what is told to whom, at once or later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from bridge.decide.conditions import Facts
from bridge.decide.customs import customs
from bridge.decide.events import Stay
from bridge.decide.levels import Alarm, Staying, overdue
from bridge.decide.matching import Rule, Verdict
from bridge.decide.messages import Built, Wording, address, build
from bridge.decide.mutes import Gates
from bridge.decide.rulebook import Rulebook
from bridge.model import Notifier, Told, Transition


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """What follows from one transition, or from one stay.

    `faults` are (rule, why): templates that did not render; `faulty` names them, as (rule, template). `over` has for
    a delivery's id the silence whose end it tells, if it is told at once.
    """

    transition: Transition
    verdicts: Sequence[Verdict] = ()
    told: Sequence[Told] = ()
    faults: Sequence[tuple[str, str]] = ()
    faulty: Sequence[tuple[str, str]] = ()
    over: Mapping[str, str] = field(default_factory=dict)


def tell(transition: Transition, book: Rulebook, gates: Gates, alarms: Iterable[Alarm] = ()) -> Telling:
    """Match a transition and build its messages; a silent one is matched by nobody.

    `alarms` are those of the stay that it ends: whoever was told of that hears of its end, unless an edge rule tells
    him of this transition anyway.
    """
    if transition.silent:
        return Telling(transition=transition)
    verdicts = book.matcher.match(transition)
    teller = _Teller(book, gates, book.matcher.facts(transition))
    heard: set[str] = set()
    for verdict in verdicts:
        told = teller.tell(transition, verdict.rule, verdict.notifiers)
        if not verdict.rule.group:
            heard.update(one.notifier for one in told if not (one.hold and one.hold.drop))
    for alarm in alarms:
        if (rule := _recovering(book, alarm)) is not None:
            stay = Stay(state=alarm.state, since=alarm.since, after=rule.level.after, over=True)  # type: ignore[union-attr]  # it has one
            teller.tell(transition, rule, [name for name in alarm.notifiers if name not in heard], stay)
            heard.update(alarm.notifiers)
    return teller.telling(transition, verdicts)


def _recovering(book: Rulebook, alarm: Alarm) -> Rule | None:
    return next((r for r in book.matcher.levels if r.name == alarm.rule and r.level and r.level.recover), None)


def tell_overdue(staying: Staying, book: Rulebook, gates: Gates, now: datetime) -> list[tuple[Rule, Stay, Telling]]:
    """Build the messages of the level rules that a stay has become too long for."""
    found = []
    step = replace(staying.began, seen_at=now)
    for rule, stay in overdue(staying, book.matcher, now):
        teller = _Teller(book, gates, book.matcher.facts(step))
        teller.tell(step, rule, rule.notify, stay)
        found.append((rule, stay, teller.telling(step)))
    return found


def tell_by_hand(transition: Transition, book: Rulebook, notifier: Notifier, author: str) -> tuple[Told, Sequence[str]]:
    """Build what a person tells a notifier of a transition; and which templates did not render.

    It has the default text, as no rule names another, and passes no gate: somebody wants it now.
    """
    built = build(transition, None, Wording(), book.queue_names, zone=book.zone)
    custom = customs(notifier, built.names)
    return address(built.message, notifier, note=f"Sent by hand by {author}.", custom=custom), custom.faults


class _Teller:
    def __init__(self, book: Rulebook, gates: Gates, facts: Facts) -> None:
        self._book = book
        self._gates = gates
        self._facts = facts
        self._told: list[Told] = []
        self._faults: list[tuple[str, str]] = []
        self._faulty: list[tuple[str, str]] = []
        self._over: dict[str, str] = {}

    def tell(self, step: Transition, rule: Rule, names: Sequence[str], stay: Stay | None = None) -> Sequence[Told]:
        """Build a message of a rule, and return its tellings."""
        if not names:
            return ()
        book = self._book
        wording = book.wordings.get(rule.template or "", Wording())
        built = build(step, rule.name, wording, book.queue_names, zone=book.zone, stay=stay)
        if built.fault:
            self._faults.append((rule.name, f'template "{rule.template}": {built.fault}'))
            self._faulty.append((rule.name, rule.template or ""))
        told = [self._addressed(built, rule, name) for name in names if name in book.notifiers]
        self._told += told
        return told

    def _addressed(self, built: Built, rule: Rule, name: str) -> Told:
        notifier = self._book.notifiers[name]
        custom = customs(notifier, built.names)
        self._faults += [(rule.name, f'notifier "{name}": {fault}') for fault in custom.faults]
        self._faulty += [(rule.name, own_template(name)) for _ in custom.faults]
        hold = self._gates.hold(self._facts, rule, name)
        # The first message after a silence says that it is over; a digest finds that out when it is told.
        silence = None if hold else self._gates.over(self._facts, rule.name, name)
        note = f"{silence} is over." if silence else None
        told = replace(address(built.message, notifier, note=note, custom=custom), hold=hold, throttle=rule.throttle)
        self._over |= {told.id: silence.id} if silence else {}
        return told

    def telling(self, transition: Transition, verdicts: Sequence[Verdict] = ()) -> Telling:
        return Telling(
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
