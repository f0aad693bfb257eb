"""Rules that never fire, because an earlier one matches all that they do, and stops."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from bridge.decide.conditions import Condition, DurationCondition, PresenceCondition, TextCondition
from bridge.decide.matching import Level, Rule
from bridge.decide.words import States
from bridge.model import GONE

_MOST_COMPARED = 50  # rules that stop, for one rule

_Key = tuple[bool, str, str]  # of level rules?, a field, a text or glob that it may match


def shadowed(rules: Iterable[Rule]) -> Iterator[tuple[int, Rule]]:
    """Yield the place of each rule that never fires, with the first rule found above it that stops all it matches.

    What it does not find: a rule that several others stop together; one whose texts another's glob covers; one about
    staying for another time; one that more than 50 might stop, by the texts that both name, when none of the first 50
    does.
    """
    stopping = _Stopping()
    for place, rule in enumerate(rules):
        above = next((one for one in stopping.may_stop(rule) if _covers(one, rule)), None)
        if above:
            yield place, above
        elif rule.stop:  # what it would stop, the one above does
            stopping.add(rule)


class _Stopping:
    """The rules that stop, each by the texts of one field, of which a rule that it covers names some and no others."""

    def __init__(self) -> None:
        self._by_text: dict[_Key, list[Rule]] = defaultdict(list)

    def add(self, rule: Rule) -> None:
        keys = [[(bool(rule.level), field, text) for text in texts] for field, texts in _wanted(rule)]
        rarest = min(keys, key=lambda found: max(len(self._by_text.get(key, ())) for key in found), default=None)
        for key in rarest or [(bool(rule.level), "", "")]:
            self._by_text[key].append(rule)

    def may_stop(self, rule: Rule) -> Sequence[Rule]:
        """Return rules that were added and may cover this one; every one that does is under any of its texts."""
        kind = bool(rule.level)
        keys = [(kind, "", ""), *((kind, field, min(texts)) for field, texts in _wanted(rule))]
        return [one for key in keys for one in self._by_text.get(key, ())[:_MOST_COMPARED]][:_MOST_COMPARED]


def _wanted(rule: Rule) -> Iterator[tuple[str, set[str]]]:
    for one in rule.conditions:
        if isinstance(one, TextCondition) and one.wanted:
            yield one.field, _texts(one.wanted)


def _covers(above: Rule, rule: Rule) -> bool:
    """Tell whether `above` matches whatever `rule` does."""
    return (
        _includes(above.was, rule.was)
        and _includes(above.to, rule.to)
        and _is_as_soon(above.level, rule.level)
        and all(any(_implies(theirs, ours) for theirs in rule.conditions) for ours in above.conditions)
    )


def _includes(wide: States, narrow: States) -> bool:
    return "*" in wide.words or all(
        word in wide.words if word in ("*", "active") else word in wide for word in narrow.words
    )


def _is_as_soon(above: Level | None, level: Level | None) -> bool:
    """Tell whether `above` holds at every moment of a stay at which `level` does."""
    if above is None or level is None:
        return above is level
    # One that has held for longer may be silent: a first snapshot found it so, or the job is gone for more than a day.
    return above.after == level.after and GONE not in level.states and _includes(above.states, level.states)


def _implies(narrow: Condition, wide: Condition) -> bool:
    """Tell whether every job that the one holds for is one that the other holds for."""
    if narrow.field != wide.field:
        return False
    match narrow, wide:
        case TextCondition(), TextCondition():
            wanted = not wide.wanted or (bool(narrow.wanted) and _texts(narrow.wanted) <= _texts(wide.wanted))
            return wanted and _texts(wide.unwanted) <= _texts(narrow.unwanted)
        case TextCondition(), PresenceCondition():
            return wide.present and bool(narrow.wanted)
        case PresenceCondition(), PresenceCondition():
            return narrow.present == wide.present
        case DurationCondition(), DurationCondition() if narrow.sign[0] == wide.sign[0]:
            further = narrow.limit > wide.limit if wide.sign[0] == ">" else narrow.limit < wide.limit
            return further or (narrow.limit == wide.limit and (narrow.sign == wide.sign or wide.sign[1:] == "="))
    return False


def _texts(tests: Iterable[tuple[str, object]]) -> set[str]:
    return {text for text, _ in tests}
