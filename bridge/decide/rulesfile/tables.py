"""The tables of rules.toml: each held against its shape; [[rule]], [[mute]], [[test]] and [template.NAME] read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from bridge.decide.rules.gates import Mute, Scope
from bridge.decide.rules.matching import (
    TEXTS,
    Condition,
    Globs,
    Level,
    Rule,
    TextCondition,
    condition,
    flat,
    is_user_data,
)
from bridge.decide.rules.rulebook import DEFAULT_FIELDS, Trial, Wording
from bridge.decide.rulesfile.errors import Faults, RulesRefused
from bridge.decide.rulesfile.notifiers import KEYS as KEYS_OF_NOTIFIERS
from bridge.decide.rulesfile.schema import KEYS as KEYS_OF_TABLES
from bridge.decide.rulesfile.schema import GroupTable, MuteTable, RuleTable, TemplateTable, TrialTable
from bridge.decide.rulesfile.values import TemplateReader
from bridge.decide.templates.functions import FIELDS
from bridge.decide.text.values import instead, printable, shown
from bridge.model import GONE, Grouping

_T = TypeVar("_T", bound=BaseModel)
_At = tuple[str | int, ...]

KEYS = {**KEYS_OF_TABLES, **KEYS_OF_NOTIFIERS}
_MOST = {"rule": 10_000, "watch": 1_000, "notifier": 1_000, "template": 200, "mute": 1_000, "test": 1_000}


class Tables:
    """The parsed file; whatever has the wrong shape is noted in `faults`."""

    def __init__(self, tables: Mapping[str, Any], faults: Faults) -> None:
        self._tables = tables
        self._faults = faults
        self._check_numbers()
        self._unknown_keys(tables, "", ())

    def _check_numbers(self) -> None:
        """Raise RulesRefused at once where there is more of something than anybody means."""
        for kind, most in _MOST.items():
            found = self._tables.get(kind)
            if isinstance(found, dict | list) and len(found) > most:
                self._faults.note((kind,), f"there are {len(found):,} of these, and {most:,} are the most")
                raise RulesRefused(self._faults.found)

    def shape(self, model: type[_T], table: Mapping[str, Any], kind: str, path: _At) -> _T | None:
        """Return the table as its model after noting every fault in it.

        What is wrong is left out, so that the rest can be checked further; None where that leaves too little.
        """
        self._unknown_keys(table, kind, path)
        known = {key: value for key, value in table.items() if key in KEYS[kind]}
        try:
            return model.model_validate(known)
        except ValidationError as error:
            problems = error.errors()
        for problem in problems:
            self._faults.note((*path, *_inside(table, problem["loc"])), _say(problem))
        wrong = {str(problem["loc"][0]) for problem in problems}
        if not wrong.isdisjoint(_SECRETS):
            return None  # without it the rest would look wrong too
        try:
            return model.model_validate({key: value for key, value in known.items() if key not in wrong})
        except ValidationError:
            return None

    def _unknown_keys(self, table: Mapping[str, Any], kind: str, path: _At) -> None:
        for key in table:
            if key not in KEYS[kind]:
                self._faults.note(path, f'unknown key "{key}"{instead(key, KEYS[kind])}', key=key)

    def one(self, kind: str) -> dict[str, Any]:
        """Return the table [kind], empty when there is none."""
        table = self._tables.get(kind, {})
        if isinstance(table, dict):
            return table
        self._faults.note((kind,), f"write [{kind}] with single brackets")
        return {}

    def each(self, kind: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the tables [[kind]] with their numbers."""
        tables = self._tables.get(kind, [])
        if not isinstance(tables, list):
            self._faults.note((kind,), f"write [[{kind}]] with double brackets: there can be many")
            return
        for at, table in enumerate(tables):
            if isinstance(table, dict):
                yield at, table
            else:
                self._faults.note((kind, at), f"{shown(table)} is not a table; write [[{kind}]]")

    def named(self, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the tables [kind.NAME] with their names."""
        tables = self._tables.get(kind, {})
        if not isinstance(tables, dict):
            self._faults.note((kind,), f"write [{kind}.NAME] with single brackets and a name")
            return
        for name, table in tables.items():
            try:
                printable(name)
            except ValueError as error:
                self._faults.note((kind, name), str(error))
            if isinstance(table, dict):
                yield name, table
            else:
                self._faults.note((kind, name), f"is no table; write [{kind}.NAME] with a name, and the keys below it")

    def check_unique(self, kind: str) -> None:
        """Note each [[kind]] that has the name of an earlier one."""
        lines: dict[str, int] = {}
        for at, table in self.each(kind):
            name = table.get("name")
            if isinstance(name, str) and name in lines:
                self._faults.note((kind, at, "name"), f"there is a {kind} of this name already, on line {lines[name]}")
            elif isinstance(name, str):
                lines[name] = self._faults.line((kind, at))

    def names(self, kind: str) -> tuple[str, ...]:
        """Return the names of the tables [kind.NAME], whether they are right or not."""
        tables = self._tables.get(kind)
        return tuple(tables) if isinstance(tables, dict) else ()

    def undefined(self, kind: str, name: str) -> str:
        return f'there is no {kind} "{name}"{instead(name, self.names(kind))}'


def _inside(table: Any, loc: tuple[str | int, ...]) -> _At:
    """Return as much of a problem's place as the file has: pydantic adds words of its own to it."""
    found: list[str | int] = []
    for key in loc:
        try:
            table = table[key]
        except (KeyError, IndexError, TypeError):
            break
        found.append(key)
    return tuple(found)


_SECRETS = frozenset({"url", "token", "secret"})
# What may be secret is never shown, nor is what was written in its place.
_UNSEEN = {
    "token": 'a secret comes from the environment: write token = { env = "NAME" }',
    "secret": 'a secret comes from the environment: write secret = { env = "NAME" }',
    "url": 'write url = { env = "NAME" }, with the name of an environment variable',
    "headers": 'write headers = { "X-Team" = "media", "X-Key" = { env = "NAME" } }',
    "endpoint": "is not the address of a host, such as http://127.0.0.1:8080",
}
_PATTERN_HINTS = {
    "bucket": "is not a bucket name with its APPID, such as media-1250000000",
    "region": "is not a region, such as ap-chongqing",
    "input": "holds a control character, such as a line break",
}


def _say(problem: Mapping[str, Any]) -> str:
    """Say a pydantic problem in our words."""
    kind, loc, context = problem["type"], problem["loc"], problem.get("ctx", {})
    if unseen := _UNSEEN.get(str(loc[0])) if kind != "missing" or len(loc) > 1 else None:
        return unseen
    value = shown(problem["input"])
    match kind:
        case "extra_forbidden":
            return f"unknown key{instead(str(loc[-1]), KEYS.get(str(loc[0]), ()))}"
        case "missing":
            return f'"{loc[-1]}" is missing'
        case "value_error":
            return str(context["error"])
        case "literal_error":
            return f"{value} is not one of {context['expected']}".replace("'", '"')
        case "string_pattern_mismatch":
            return f"{value} {_PATTERN_HINTS[str(loc[0])]}"
        case "string_too_short":
            return "is empty"
        case "string_too_long" | "too_long":
            return f"is too long: {context['max_length']} is the most"
        case "greater_than_equal":
            return f"{value} is too small: {context['ge']} is the least"
        case "less_than_equal":
            return f"{value} is too large: {context['le']} is the most"
    return f"{value} is not {_KINDS[kind]}" if kind in _KINDS else f"{value}: {problem['msg']}"


_KINDS = {
    "string_type": "a text",
    "model_type": 'a table such as { wait = "10m" }',
    "bool_type": "true or false",
    "int_type": "a whole number",
    "dict_type": "a table",
    "list_type": "a list",
}


# --- [[rule]], [[mute]] and [[test]] --------------------------------------------------------------------------------

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


# --- [template.NAME] ------------------------------------------------------------------------------------------------


def read_wordings(tables: Tables, faults: Faults, reader: TemplateReader | None = None) -> dict[str, Wording]:
    """Return the templates by name; what is wrong with them is noted in `faults`."""
    reader = reader or TemplateReader(faults.note)
    wordings = {}
    for name, table in tables.named("template"):
        path = ("template", name)
        shape = tables.shape(TemplateTable, table, "template", path)
        if shape is None:
            continue
        wordings[name] = Wording(
            title=reader.template(shape.title, (*path, "title")) if shape.title else None,
            text=reader.template(shape.text, (*path, "text")) if shape.text else None,
            fields=_field_names(shape.fields, (*path, "fields"), faults),
        )
    return wordings


def _field_names(names: Sequence[str] | None, path: tuple[str, ...], faults: Faults) -> tuple[str, ...]:
    for name in names or ():
        if name not in FIELDS:
            faults.note(path, f'a job has no field "{name}"{instead(name, FIELDS)}')
    return DEFAULT_FIELDS if names is None else tuple(names)
