"""What rules.toml may say but surely does not mean: warnings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from bridge.decide.conditions import TextCondition
from bridge.decide.faults import Faults
from bridge.decide.matching import Rule
from bridge.decide.tables import Tables
from bridge.decide.words import STATE_WORDS, instead, listing, suggest
from bridge.model import DONE, KNOWN_QUEUE_TYPES, KNOWN_TAGS, Notifier, Watch

_Values = Callable[[Watch], Iterable[str]]
_POLLED: Mapping[str, _Values] = {
    "tag": lambda watch: (stream.tag for stream in watch.streams),
    "bucket": lambda watch: (watch.place.bucket,),
    "region": lambda watch: (watch.place.region,),
    "watch": lambda watch: (watch.name,),
}


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
        rules: Iterable[tuple[int, Rule]],
        watches: Sequence[Watch],
        aliases: Mapping[str, str],
    ) -> None:
        for at, rule in rules:
            self.of_rule(rule, at, watches, aliases)

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
        worded = {name for rule in rules for name in _texts(rule.get("template"))}
        for name in tables.names("template"):
            if name not in worded:
                self._note(("template", name), "no rule uses it")


def _texts(value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [one for one in values if isinstance(one, str)]
