"""What other rules over several jobs would have sent, beside what was sent.

When polls saw nothing new is not on record. Where that decides what is sent, nothing is compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from bridge.decide.rules.gates import Gates
from bridge.decide.rules.incidents import Backlog
from bridge.decide.rules.rulebook import Ruleset
from bridge.decide.whatif.incidents import Incidents, Step
from bridge.model import Hold, IncidentKey, Transition


@dataclass(frozen=True, slots=True, kw_only=True)
class PastNews:
    """A message about an incident on record: for whom it was, and what became of each delivery."""

    key: IncidentKey
    by: tuple[tuple[str, str], ...]
    event: str
    happened_at: datetime
    made_at: datetime
    since: datetime  # since when the key was watched
    is_acknowledged: bool
    notified: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentChange:
    """What was sent about an incident, and what would be, by notifier."""

    key: IncidentKey
    event: str
    at: datetime
    before: Mapping[str, str]
    after: Mapping[str, str]


GatesAt = Callable[[datetime], Gates]


@dataclass(slots=True)
class _Escalation:
    """An escalation that polls have surely found if the incident is not over by then."""

    step: Step
    sure_from: datetime


@dataclass(slots=True)
class IncidentReplay:
    """Feed it all transitions in order, then say until when polls went on; `changes` compares with what was sent."""

    rules: Ruleset
    machine: Incidents
    gates_at: GatesAt
    first_at: datetime | None = None
    unsure: set[IncidentKey] = field(default_factory=set)
    _found: dict[tuple[IncidentKey, str], list[Step]] = field(default_factory=lambda: defaultdict(list))
    _opened: dict[tuple[IncidentKey, int], datetime] = field(default_factory=dict)  # when it was surely seen
    _pending: list[_Escalation] = field(default_factory=list)
    _batch: list[tuple[Transition, datetime | None]] = field(default_factory=list)
    _looked_at: datetime | None = None

    def feed(self, step: Transition) -> None:
        """Take note of a transition; those of one poll are looked at together."""
        if self._batch and self._batch[0][0].seen_at != step.seen_at:
            self._poll()
        self._batch.append((step, step.still_at))
        self.first_at = self.first_at or step.seen_at

    def end(self, polled_at: datetime | None) -> None:
        self._poll()
        if polled_at and self._looked_at and polled_at > self._looked_at:
            self._look(polled_at)
        self.unsure |= {each.step.key for each in self._pending}

    def _poll(self) -> None:
        if not self._batch:
            return
        now = self._batch[0][0].seen_at
        before = max((at for _, at in self._batch if at and at < now), default=None)
        if before and (self._looked_at is None or before > self._looked_at):
            self._look(before)
        for step, _ in self._batch:
            self.unsure.update(self.machine.settling(step))
            self.machine.feed(step)
        self._batch = []
        self._look(now)

    def _look(self, now: datetime) -> None:
        current: dict[IncidentKey, int | None] = {}
        for step in self.machine.look(now):
            current.setdefault(step.key, step.generation)
            if step.event == "opened":
                self._opened[step.key, step.generation] = now
                if isinstance(step.rule.incident, Backlog) and step.generation != current[step.key]:
                    self.unsure.add(step.key)  # whether a poll found it small for long enough
            if step.event == "escalated" and step.rule.escalate:
                told_at = self._opened.get((step.key, step.generation), now - step.rule.escalate.after)
                self._pending.append(_Escalation(step, told_at + step.rule.escalate.after))
            elif step.event != "closed":
                self._found[step.key, step.event].append(step)
        self._looked_at = now
        for each in list(self._pending):
            is_over = self.machine.generation(each.step.key) != each.step.generation
            if is_over:
                self.unsure.add(each.step.key)
            elif each.sure_from <= now:
                self._found[each.step.key, "escalated"].append(each.step)
            if is_over or each.sure_from <= now:
                self._pending.remove(each)

    # --- comparing --------------------------------------------------------------------------------------------

    def changes(self, past: Iterable[PastNews], *, since: datetime) -> tuple[list[IncidentChange], int]:
        """Return what was, and what would be sent from `since` on, and how many messages cannot be compared."""
        on_record: dict[tuple[IncidentKey, str], list[PastNews]] = defaultdict(list)
        for one in past:
            on_record[one.key, one.event].append(one)
        unsure, found, unknown = self._unsure(on_record), list[IncidentChange](), 0
        for key, event in sorted({*on_record, *self._found}):
            for news, step in _pairs(on_record[key, event], self._found.get((key, event), [])):
                at = news.made_at if news else step.seen_at if step else since
                if at < since:
                    continue
                if key in unsure or (event == "escalated" and self._is_escalation_unsure(key, on_record)):
                    unknown += 1
                    continue
                before, after = news.notified if news else {}, self._statuses(step, at) if step else {}
                found.append(IncidentChange(key=key, event=event, at=at, before=before, after=after))
        return sorted(found, key=lambda change: change.at), unknown

    def _unsure(self, on_record: Mapping[tuple[IncidentKey, str], Sequence[PastNews]]) -> set[IncidentKey]:
        """Return the keys of which the beginning is no longer on record, or the polls decide."""
        names = {rule.name for rule in self.rules.rules if rule.incident}
        alarms = {rule.name for rule in self.rules.rules if rule.level and rule.escalate}
        begun_before = {
            key
            for (key, _), all_news in on_record.items()
            for news in all_news
            if key.rule in alarms or (key.rule in names and news.by and self.first_at and news.since < self.first_at)
        }
        return self.unsure | begun_before

    @staticmethod
    def _is_escalation_unsure(
        key: IncidentKey, on_record: Mapping[tuple[IncidentKey, str], Sequence[PastNews]]
    ) -> bool:
        return any(news.is_acknowledged for news in on_record.get((key, "opened"), ()))

    def _statuses(self, step: Step, at: datetime) -> dict[str, str]:
        gates = self.gates_at(at)
        facts = self.rules.matcher.facts(step.about) if step.about else None
        return {name: _status(gates.quiet(facts, step.rule.name, name)) for name in step.notifiers}


def _status(hold: Hold | None) -> str:
    if hold is None:
        return "told"
    return "dropped" if hold.drop else hold.gate


def _pairs(past: Sequence[PastNews], steps: Sequence[Step]) -> Iterator[tuple[PastNews | None, Step | None]]:
    """Pair what happened at the same time, then the rest in order."""
    left, rest = list(past), list[Step]()
    for step in steps:
        same = next((news for news in left if news.happened_at == step.happened_at), None)
        if same:
            left.remove(same)
            yield same, step
        else:
            rest.append(step)
    left.sort(key=lambda news: news.happened_at)
    both = min(len(left), len(rest))
    yield from zip(left[:both], rest[:both], strict=True)
    yield from ((news, None) for news in left[both:])
    yield from ((None, step) for step in rest[both:])
