"""The [[rule]], [[mute]] and [[test]] tables of rules.toml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bridge.decide.rules.conditions import TEXTS, Condition, Globs, TextCondition, condition, flat, is_user_data
from bridge.decide.rules.gates import Mute, Scope
from bridge.decide.rules.matching import Level, Rule
from bridge.decide.rules.rulebook import Trial
from bridge.decide.rulesfile.errors import Faults
from bridge.decide.rulesfile.schema import GroupTable, MuteTable, RuleTable, TrialTable
from bridge.decide.rulesfile.tables import Tables
from bridge.decide.text.values import instead, shown
from bridge.model import GONE, Grouping

_Path = tuple[str | int, ...]
_GROUPED_BY = (*(field for field in TEXTS if field != "user_data"), "state")
_MOST_GROUPED_BY = 5
_OF_LEVELS = ("for", "repeat", "recover")


class RuleReader:
    """Reads the tables; what is wrong with them is noted in `faults`."""

    def __init__(self, tables: Tables, faults: Faults, aliases: Mapping[str, str]) -> None:
        self._tables = tables
        self._faults = faults
        self._aliases = aliases
        self._globs = Globs()
        self.placed: list[tuple[int, Rule]] = []  # the rules, each with its number in the file

    def rules(self) -> tuple[Rule, ...]:
        self._tables.check_unique("rule")
        for at, table in self._tables.each("rule"):
            path = ("rule", at)
            shape = self._tables.shape(RuleTable, table, "rule", path)
            self._check_names(table, at)
            conditions = self._conditions(table.get("match"), path)
            if shape is not None:
                self.placed.append((at, self._rule(shape, table, path, conditions)))
        return tuple(rule for _, rule in self.placed)

    def _rule(self, shape: RuleTable, table: Mapping[str, Any], path: _Path, conditions: tuple[Condition, ...]) -> Rule:
        return Rule(
            name=shape.name,
            line=self._faults.line(path),
            was=shape.from_,
            to=shape.to,
            conditions=conditions,
            notify=tuple(dict.fromkeys(shape.notify)),
            template=shape.template,
            stop=shape.stop,
            level=self._level(shape, table, path),
            group=self._group(shape.group, (*path, "group")) if shape.group else None,
            throttle=shape.throttle,
        )

    def _level(self, shape: RuleTable, table: Mapping[str, Any], path: _Path) -> Level | None:
        if "in" not in table:
            for key in _OF_LEVELS:
                if key in table:
                    self._faults.note((*path, key), 'is for a rule that has in, as in in = "Running"')
            return None
        for key in ("from", "to"):
            if key in table:
                text = "a rule is about a change (from, to) or about staying in a state (in, for), not both"
                self._faults.note((*path, key), text)
        if "for" not in table:
            self._faults.note((*path, "in"), 'needs for, as in for = "30m": how long a job may stay so')
        if shape.in_ is None or shape.for_ is None:
            return None
        if shape.repeat and GONE in shape.in_.words:
            self._faults.note((*path, "repeat"), f'would never end: hardly a job that is "{GONE}" comes back')
        return Level(states=shape.in_, after=shape.for_, repeat=shape.repeat, recover=shape.recover)

    def _group(self, shape: GroupTable, path: _Path) -> Grouping:
        if bool(shape.wait) == bool(shape.at):
            text = 'needs wait = "10m" (from the first message on) or at = "09:00" (each day): one of the two'
            self._faults.note(path, text)
        if len(shape.by) > _MOST_GROUPED_BY:
            self._faults.note((*path, "by"), f"has {len(shape.by)} fields; {_MOST_GROUPED_BY} are the most")
        for field in shape.by:
            if field not in _GROUPED_BY and not is_user_data(field):
                text = f'a job has no "{field}" to group by{instead(field, (*_GROUPED_BY, "user_data.KEY"))}'
                self._faults.note((*path, "by"), text)
        return Grouping(by=tuple(dict.fromkeys(shape.by)), wait=shape.wait, at=shape.at, most=shape.max)

    def _check_names(self, table: Mapping[str, Any], at: int) -> None:
        """Check whom a rule names even when its shape is wrong elsewhere."""
        for key, kind in (("notify", "notifier"), ("template", "template")):
            names = table.get(key, [])
            for name in [names] if isinstance(names, str) else names if isinstance(names, list) else ():
                if isinstance(name, str) and name and name not in self._tables.names(kind):
                    self._faults.note(("rule", at, key), self._tables.undefined(kind, name))

    def _conditions(self, match: object, path: _Path) -> tuple[Condition, ...]:
        found = (
            self._condition(name, value, (*path, "match", *name.split(".", 1)))
            for name, value in flat(match if isinstance(match, dict) else {})
        )
        conditions = sorted((one for one in found if one), key=_cheap_first)
        before = self._globs.too_many
        self._globs.add(conditions)
        if self._globs.too_many and not before:
            self._faults.note((*path, "match"), self._globs.too_many)
        return () if self._globs.too_many else tuple(conditions)

    def _condition(self, name: str, value: object, path: _Path) -> Condition | None:
        try:
            return condition(name, value, self._aliases)
        except ValueError as error:
            self._faults.note(path, str(error))
        return None

    def mutes(self) -> tuple[Mute, ...]:
        mutes: list[Mute] = []
        self._tables.check_unique("mute")
        for at, table in self._tables.each("mute"):
            path = ("mute", at)
            shape = self._tables.shape(MuteTable, table, "mute", path)
            conditions = self._conditions(table.get("match"), path)
            if shape is not None:
                scope = Scope(was=shape.from_, to=shape.to, conditions=conditions)
                found = replace(shape.between, days=shape.days) if shape.days else shape.between
                line = self._faults.line(path)
                mutes.append(Mute(name=shape.name, line=line, scope=scope, window=found, drop=shape.mode == "drop"))
        return tuple(mutes)

    def trials(self) -> tuple[Trial, ...]:
        trials: list[Trial] = []
        for at, table in self._tables.each("test"):
            shape = self._tables.shape(TrialTable, table, "test", ("test", at))
            if shape is None:
                continue
            self._check_expected(shape.expect, ("test", at, "expect"))
            line = self._faults.line(("test", at))
            trials.append(Trial(number=at + 1, line=line, job=shape.job, expect=tuple(shape.expect)))
        return tuple(trials)

    def _check_expected(self, expect: Sequence[str], path: _Path) -> None:
        rules = [table.get("name") for _, table in self._tables.each("rule")]
        for one in expect:
            rule, arrow, notifier = (part.strip() for part in one.rpartition("->"))
            if not arrow:
                self._faults.note(path, f'{shown(one)} is not "RULE -> NOTIFIER", such as "stuck -> ops"')
            elif rule not in rules:
                named = [name for name in rules if isinstance(name, str)]
                self._faults.note(path, f'there is no rule "{rule}"{instead(rule, named)}')
            elif notifier not in self._tables.names("notifier"):
                self._faults.note(path, self._tables.undefined("notifier", notifier))


def _cheap_first(found: Condition) -> int:
    return 0 if isinstance(found, TextCondition) and found.exact is not None else 1
