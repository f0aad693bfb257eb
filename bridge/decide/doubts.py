"""What rules.toml may say but surely does not mean: warnings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import product

from bridge.decide.conditions import TextCondition
from bridge.decide.faults import Faults
from bridge.decide.matching import Rule
from bridge.decide.shadows import shadowed
from bridge.decide.tables import Tables
from bridge.decide.template_words import human
from bridge.decide.words import STATE_WORDS, States, instead, listing, suggest
from bridge.model import (
    DONE,
    KNOWN_QUEUE_TYPES,
    KNOWN_TAGS,
    NEW,
    RUNNING,
    SUBMITTED,
    Notifier,
    Watch,
    WebhookNotifier,
)

_Values = Callable[[Watch], Iterable[str]]
_POLLED: Mapping[str, _Values] = {
    "tag": lambda watch: (stream.tag for stream in watch.streams),
    "bucket": lambda watch: (watch.place.bucket,),
    "region": lambda watch: (watch.place.region,),
    "watch": lambda watch: (watch.name,),
}
_MOST_NARROWED = 100  # pairs of bucket and tag that a rule is about


class Doubts:
    """Notes its doubts in `faults`."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._polled: dict[str, dict[str, None]] = {}

    def _note(self, path: Sequence[str | int], text: str) -> None:
        self._faults.note(path, text, warning=True)

    def of_tags(self, tags: Iterable[str], at: int) -> None:
        for tag in tags:
            if tag not in KNOWN_TAGS and not self._faults.has_enough(warning=True):
                self._note(("watch", at, "tags"), f'"{tag}" is not a documented tag{suggest(tag, KNOWN_TAGS)}')

    def of_queue_type(self, kind: str | None, at: int) -> None:
        if kind and kind not in KNOWN_QUEUE_TYPES:
            near = instead(kind, KNOWN_QUEUE_TYPES)
            self._note(("watch", at, "queue_type"), f'"{kind}" is not a documented queue type{near}')

    def of_queues(self, queues: Iterable[str], aliases: Mapping[str, str], path: Sequence[str | int]) -> None:
        for queue in queues:
            if queue not in aliases and queue not in aliases.values() and (near := suggest(queue, aliases)):
                self._note(path, f'"{queue}" is not in [alias.queue], so it is taken for the id of a queue{near}')

    def of_rules(
        self,
        rules: Sequence[tuple[int, Rule]],
        watches: Sequence[Watch],
        aliases: Mapping[str, str],
    ) -> None:
        self._of_names(aliases)
        polls = _Polls(watches)
        for at, rule in rules:
            self.of_rule(rule, at, watches, aliases)
            self._of_polls(rule, at, polls, aliases)
        for place, above in shadowed(rule for _, rule in rules):
            text = f'never fires: rule "{above.name}" (line {above.line}) matches all that it does, and stops'
            self._note(("rule", rules[place][0]), text)

    def _of_names(self, aliases: Mapping[str, str]) -> None:
        names = {queue: name for name, queue in aliases.items()}
        for name, queue in aliases.items():
            if names[queue] != name:
                self._note(("alias", "queue", name), f'is the queue "{names[queue]}" too, and is shown by that name')

    def of_rule(self, rule: Rule, at: int, watches: Sequence[Watch], aliases: Mapping[str, str]) -> None:
        if self._faults.has_enough(warning=True):
            return
        stays = rule.level.states if rule.level else None
        for key, states in (("from", rule.was), ("to", rule.to), *([("in", stays)] if stays else [])):
            for word in sorted(states.words.difference(STATE_WORDS)):
                text = f'no state "{word}" is documented; there are {listing(STATE_WORDS)}'
                self._note(("rule", at, key), text)
        if rule.was.exact and rule.was.exact <= DONE:
            self._note(("rule", at, "from"), "never fires: a job that ended changes no more")
        if forgotten := _forgotten(rule.was, rule.to):
            text = f"misses jobs that finish between two polls: leave from out, or add {' and '.join(forgotten)}"
            self._note(("rule", at, "from"), text)
        for condition in rule.conditions:
            if isinstance(condition, TextCondition) and condition.exact:
                self._of_condition(condition.field, condition.exact, at, watches, aliases)

    def _of_condition(
        self, field: str, exact: Iterable[str], at: int, watches: Sequence[Watch], aliases: Mapping[str, str]
    ) -> None:
        path = ("rule", at, "match", field)
        if field == "queue":
            self.of_queues(exact, aliases, path)
        if field not in _POLLED or not watches:
            return
        if field not in self._polled:
            self._polled[field] = dict.fromkeys(value for watch in watches for value in _POLLED[field](watch))
        polled = self._polled[field]
        for value in sorted(set(exact).difference(polled)):
            what = f'there is no watch "{value}"' if field == "watch" else f'no watch polls the {field} "{value}"'
            self._note(path, f"{what}{instead(value, polled)}")

    def _of_polls(self, rule: Rule, at: int, polls: _Polls, aliases: Mapping[str, str]) -> None:
        """Doubt a queue that no watch lists, and spans that are shorter than from one poll to the next."""
        if self._faults.has_enough(warning=True):
            return
        narrowed = {one.field: one.exact for one in rule.conditions if isinstance(one, TextCondition) and one.exact}
        if "queue" in narrowed and (listed := polls.queues(narrowed)):
            self._of_listed(narrowed["queue"].difference(listed), listed, aliases, ("rule", at, "match", "queue"))
        spans = {"for": rule.level.after, "repeat": rule.level.repeat} if rule.level else {}
        for key, span in spans.items():
            if span and span < (every := polls.every(narrowed)):
                text = f"{_said(span)} is less than the {_said(every)} between two polls, and only a poll finds it"
                self._note(("rule", at, key), text)

    def _of_listed(
        self, missing: Iterable[str], listed: Iterable[str], aliases: Mapping[str, str], path: Sequence[str | int]
    ) -> None:
        names = {queue: alias for alias, queue in aliases.items()}
        for queue in sorted(names.get(one, one) for one in missing):
            known = sorted(names.get(one, one) for one in listed)
            self._note(path, f'no watch polls the queue "{queue}"{instead(queue, known)}')

    def of_use(self, tables: Tables, notifiers: Mapping[str, Notifier]) -> None:
        """Doubt what no rule names; rules that are wrong elsewhere count too."""
        watches, rules = [table for _, table in tables.each("watch")], [table for _, table in tables.each("rule")]
        if not watches:
            self._note((), "there is no [[watch]], so nothing is polled")
        if not rules:
            self._note((), "there is no [[rule]], so nobody is told")
        told = {name for rule in rules for name in _texts(rule.get("notify"))}
        told |= {notifier.fallback for notifier in notifiers.values() if notifier.fallback}
        for name in notifiers:
            if name not in told:
                self._note(("notifier", name), "no rule notifies it")
        for at, rule in tables.each("rule"):
            self._of_digests(rule, at, notifiers)
        worded = {name for rule in rules for name in _texts(rule.get("template"))}
        for name in tables.names("template"):
            if name not in worded:
                self._note(("template", name), "no rule uses it")

    def _of_digests(self, rule: Mapping[str, object], at: int, notifiers: Mapping[str, Notifier]) -> None:
        for name in _texts(rule.get("notify")):
            notifier = notifiers.get(name)
            for key in ("group", "throttle"):
                if key in rule and isinstance(notifier, WebhookNotifier) and notifier.body:
                    text = f'digests do not have the body of notifier "{name}": they come in the default form'
                    self._note(("rule", at, key), text)


class _Polls:
    """What the watches list, and how often, by what a rule may narrow itself to."""

    def __init__(self, watches: Sequence[Watch]) -> None:
        self._queues: dict[tuple[str, str], set[str | None]] = defaultdict(set)
        self._every: dict[tuple[str, str], timedelta] = {}
        for watch in watches:
            for stream in watch.streams:
                for key in product(("", watch.place.bucket), ("", stream.tag)):
                    self._queues[key].add(stream.queue)
            for field, value in [("", ""), *((name, one) for name, of in _POLLED.items() for one in of(watch))]:
                self._every[field, value] = min(watch.every, self._every.get((field, value), watch.every))

    def queues(self, narrowed: Mapping[str, frozenset[str]]) -> set[str]:
        """Return the queues that are polled for such jobs; nothing when all are, or when it would take long to say."""
        buckets, tags = narrowed.get("bucket", {""}), narrowed.get("tag", {""})
        if len(buckets) * len(tags) > _MOST_NARROWED:
            return set()
        found = {queue for key in product(buckets, tags) for queue in self._queues.get(key, ())}
        return {queue for queue in found if queue} if None not in found else set()

    def every(self, narrowed: Mapping[str, frozenset[str]]) -> timedelta:
        """Return an interval that no watch of such jobs is below."""
        wanted = [("", {""}), *((field, narrowed[field]) for field in _POLLED if field in narrowed)]
        found = [[self._every[field, one] for one in values if (field, one) in self._every] for field, values in wanted]
        return max((min(one) for one in found if one), default=timedelta())


def _forgotten(was: States, to: States) -> list[str]:
    """Return the states that a rule about jobs that ran, and ended, forgets that they may come from."""
    if RUNNING not in (was.exact or ()) or not to.exact or not to.exact <= DONE:
        return []
    return [state for state in (SUBMITTED, NEW) if state not in was]


def _said(span: timedelta) -> str:
    return human(span.total_seconds())


def _texts(value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [one for one in values if isinstance(one, str)]
