"""[[rule]], [[mute]], [[test]] and [template.NAME] of rules.toml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from functools import partial
from typing import Any

from bridge.decide.messages.build import body_text
from bridge.decide.rules.gates import Mute, Scope
from bridge.decide.rules.incidents import Absence
from bridge.decide.rules.matching import (
    TEXTS,
    Condition,
    GlobCost,
    LevelSpec,
    Rule,
    TextCondition,
    is_user_data,
    read_match,
)
from bridge.decide.rules.rulebook import MessageTemplate, RuleTest
from bridge.decide.rulesfile.incidents import ANY, IncidentReader, kind_of, looks_at_others
from bridge.decide.rulesfile.tables import (
    GroupTable,
    MuteTable,
    RuleTable,
    Tables,
    TemplateTable,
    TestTable,
    keys_of,
)
from bridge.decide.templates.functions import FIELDS, LARGEST_NUMBER, TemplateFault
from bridge.decide.templates.rendering import Template, compiled
from bridge.decide.text.values import instead, shown, strings
from bridge.model import GONE, Grouping
from bridge.notifiers import Writer

_Path = tuple[str | int, ...]

# --- [[rule]], [[mute]] and [[test]] --------------------------------------------------------------------------------

_GROUPED_BY = (*(field for field in TEXTS if field != "user_data"), "state")
_MOST_GROUPED_BY = 5
_OF_BLIND = ("name", "blind", "match", "notify", "mention", "urgent")
_OF_LEVELS = ("for", "repeat", "recover")


class RuleReader:
    """Reads the tables; what is wrong with them is noted. Rules and mutes come with their numbers in the file."""

    def __init__(self, tables: Tables, aliases: Mapping[str, str]) -> None:
        self._tables = tables
        self._aliases = aliases
        self._cost = GlobCost()
        self._incidents = IncidentReader(tables)

    def rules(self) -> list[tuple[int, Rule]]:
        rules = []
        self._tables.check_unique("rule")
        for at, table in self._tables.each("rule"):
            path = ("rule", at)
            shape = self._tables.shape(RuleTable, table, path)
            self._check_names(table, path)
            conditions = self._conditions(table.get("match"), path)
            if "blind" in table:
                self._check_blind(table, path)
            if shape is None:
                continue
            is_about_jobs = "blind" not in table
            incident = self._incidents.spec(shape, table, path) if is_about_jobs else None
            to = shape.absent if isinstance(incident, Absence) and shape.absent else shape.to
            rule = Rule(
                name=shape.name,
                line=self._tables.line(path),
                was=shape.from_,
                to=ANY if incident and looks_at_others(incident) else to,
                incident=incident,
                by=tuple(dict.fromkeys(shape.by)),
                recover=shape.recover,
                unless=shape.unless,
                escalate=self._incidents.escalation(shape),
                conditions=conditions,
                notify=tuple(dict.fromkeys(shape.notify)),
                template=shape.template,
                stop=shape.stop,
                level=self._level(shape, table, path) if is_about_jobs and kind_of(table) is None else None,
                blind=shape.blind,
                group=self._group(shape.group, (*path, "group")) if shape.group else None,
                throttle=shape.throttle,
                urgent=shape.urgent,
                mention=tuple(dict.fromkeys(shape.mention)),
            )
            rules.append((at, rule))
        self._incidents.check_unless(rules)
        return rules

    def _check_blind(self, table: Mapping[str, Any], path: _Path) -> None:
        for name in filter(self._tables.is_pick, strings(table.get("notify"))):
            text = f'"{name}" is picked by a job, and a rule with blind is about watches: name a notifier'
            self._tables.note((*path, "notify"), text)
        for key in table:
            if key not in _OF_BLIND and key in keys_of(RuleTable):
                text = "is about jobs, and a rule with blind is about watches that cannot see: leave it out"
                self._tables.note((*path, key), text)
        match = table.get("match")
        for field, value in match.items() if isinstance(match, dict) else ():
            if field != "watch":
                self._tables.note((*path, "match", field), "is about jobs; with blind only match.watch can be asked")
            elif isinstance(value, bool):
                self._tables.note((*path, "match", field), 'write the name of a watch, as in match.watch = "vod"')

    def _level(self, shape: RuleTable, table: Mapping[str, Any], path: _Path) -> LevelSpec | None:
        if "in" not in table:
            for key in _OF_LEVELS:
                if key in table:
                    self._tables.note((*path, key), 'is for a rule that has in, as in in = "Running"')
            return None
        for key in ("from", "to"):
            if key in table:
                text = "a rule is about a change (from, to) or about the time in a state (in, for), not both"
                self._tables.note((*path, key), text)
        if isinstance(table.get("match"), dict) and "late" in table["match"]:
            text = "is how late a change was seen, and this rule is about the time in a state: leave it out"
            self._tables.note((*path, "match", "late"), text)
        if "for" not in table:
            self._tables.note((*path, "in"), 'needs for, as in for = "30m": how long a job may be in the state')
        if shape.in_ is None or shape.for_ is None:
            return None
        if shape.repeat and GONE in shape.in_.words:
            self._tables.note((*path, "repeat"), f'would repeat without end: a job that is "{GONE}" rarely comes back')
        return LevelSpec(states=shape.in_, after=shape.for_, repeat=shape.repeat, recover=shape.recover)

    def _group(self, shape: GroupTable, path: _Path) -> Grouping:
        if bool(shape.wait) == bool(shape.at):
            text = 'needs wait = "10m" (from the first message on) or at = "09:00" (each day): one of the two'
            self._tables.note(path, text)
        if len(shape.by) > _MOST_GROUPED_BY:
            self._tables.note((*path, "by"), f"has {len(shape.by)} fields; the limit is {_MOST_GROUPED_BY}")
        for field in shape.by:
            if field not in _GROUPED_BY and not is_user_data(field):
                text = f'a job has no "{field}" to group by{instead(field, (*_GROUPED_BY, "user_data.KEY"))}'
                self._tables.note((*path, "by"), text)
        return Grouping(by=tuple(dict.fromkeys(shape.by)), wait=shape.wait, at=shape.at, most=shape.max)

    def _check_names(self, table: Mapping[str, Any], path: _Path) -> None:
        """Check whom a rule names even when its shape is wrong elsewhere."""
        escalate = table.get("escalate")
        whom = escalate.get("notify") if isinstance(escalate, dict) else None
        named = {"notify": table.get("notify"), "template": table.get("template"), "escalate": whom}
        for key, names in named.items():
            kind = "template" if key == "template" else "notifier"
            for name in strings(names):
                if name and name not in self._tables.names(kind):
                    self._tables.note((*path, key), self._tables.undefined(kind, name))

    def _conditions(self, match: object, path: _Path) -> tuple[Condition, ...]:
        """Return the conditions, those that cost least first."""
        conditions, faults = read_match(match if isinstance(match, dict) else {}, self._aliases)
        for field, text in faults.items():
            self._tables.note((*path, "match", *field.split(".", 1)), text)
        had_too_many = self._cost.fault
        self._cost.add(conditions)
        if self._cost.fault and not had_too_many:
            self._tables.note((*path, "match"), self._cost.fault)
        conditions.sort(key=lambda found: not isinstance(found, TextCondition) or found.exact is None)
        return () if self._cost.fault else tuple(conditions)

    def mutes(self) -> list[tuple[int, Mute]]:
        mutes = []
        self._tables.check_unique("mute")
        for at, table in self._tables.each("mute"):
            path = ("mute", at)
            shape = self._tables.shape(MuteTable, table, path)
            conditions = self._conditions(table.get("match"), path)
            if shape is not None:
                scope = Scope(was=shape.from_, to=shape.to, conditions=conditions)
                window = replace(shape.between, days=shape.days) if shape.days else shape.between
                line, drop = self._tables.line(path), shape.mode == "drop"
                mutes.append((at, Mute(name=shape.name, line=line, scope=scope, window=window, drop=drop)))
        return mutes

    def tests(self) -> tuple[RuleTest, ...]:
        tests = []
        for at, table in self._tables.each("test"):
            shape = self._tables.shape(TestTable, table, ("test", at))
            if shape is None:
                continue
            self._check_expected(shape.expect, ("test", at, "expect"))
            if ("job" in table) == ("jobs" in table):
                self._tables.note(
                    ("test", at), 'needs job = { ... }, or jobs = [{ at = "0m", ... }, ...]: one of the two'
                )
            if "after" in table and "jobs" not in table:
                self._tables.note(("test", at, "after"), "is for a test with jobs: how long after the last it looks")
            tests.append(
                RuleTest(
                    number=at + 1,
                    line=self._tables.line(("test", at)),
                    job=shape.job,
                    expect=tuple(shape.expect),
                    jobs=tuple(shape.jobs or ()),
                    after=shape.after or timedelta(),
                )
            )
        return tuple(tests)

    def _check_expected(self, expect: Sequence[str], path: _Path) -> None:
        rules = [table.get("name") for _, table in self._tables.each("rule")]
        blind = {table.get("name") for _, table in self._tables.each("rule") if "blind" in table}
        for expected in expect:
            rule, arrow, notifier = (part.strip() for part in expected.rpartition("->"))
            if not arrow:
                self._tables.note(path, f'{shown(expected)} is not "RULE -> NOTIFIER", such as "stuck -> ops"')
            elif rule in blind:
                self._tables.note(path, f'rule "{rule}" is about watches, and a test is about a job')
            elif rule not in rules:
                names = [name for name in rules if isinstance(name, str)]
                self._tables.note(path, f'there is no rule "{rule}"{instead(rule, names)}')
            elif notifier not in self._tables.names("notifier"):
                self._tables.note(path, self._tables.undefined("notifier", notifier))


# --- templates ------------------------------------------------------------------------------------------------------

_MOST_CHARACTERS = 200_000  # of all templates of a file
_MOST_TEXTS = 200  # of one body
_DEEPEST = 10  # tables and lists of a body inside of one another, itself included


class TemplateReader:
    """Compiles one template after the other; what is wrong with them is noted."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._characters = 0

    def templates(self) -> dict[str, MessageTemplate]:
        """Return each [template.NAME] by its name."""
        templates = {}
        for name, table in self._tables.named("template"):
            path = ("template", name)
            shape = self._tables.shape(TemplateTable, table, path)
            if shape is None:
                continue
            for field in shape.fields or ():
                if field not in FIELDS:
                    self._tables.note((*path, "fields"), f'a job has no field "{field}"{instead(field, FIELDS)}')
            templates[name] = MessageTemplate(
                title=self.template(shape.title, (*path, "title")) if shape.title else None,
                text=self.template(shape.text, (*path, "text")) if shape.text else None,
                fields=tuple(shape.fields or ()),
            )
        return templates

    def template(self, source: str, path: _Path) -> Template | None:
        """Return the template; None when it is wrong, or when there was too much already."""
        before, self._characters = self._characters, self._characters + len(source)
        if self._characters > _MOST_CHARACTERS:
            if before <= _MOST_CHARACTERS:
                text = f"the templates up to here have more than {_MOST_CHARACTERS:,} characters"
                self._tables.note(path, f"{text}, so the rest was not looked at")
            return None
        try:
            return compiled(source)
        except TemplateFault as error:
            self._tables.note(path, f"the template does not render: {error}")
        return None

    def body(self, table: Mapping[str, Any], path: _Path) -> Writer | None:
        """Return what writes the text of a [notifier.NAME.body]."""
        if not table:
            self._tables.note(path, 'is empty; write what the receiver reads, as in asset = "{{ job.id }}"')
            return None
        if (count := _texts(table)) > _MOST_TEXTS:
            self._tables.note(path, f"has {count:,} texts; the limit is {_MOST_TEXTS}")
            return None
        tree = self._tree(table, path, 1)
        try:
            body_text(tree, None)
        except TemplateFault as error:
            self._tables.note(path, str(error))
        return partial(body_text, tree)

    def _tree(self, tree: Any, path: _Path, depth: int) -> Any:
        """Return the tree with its texts compiled; what is wrong is noted, and None in its place."""
        match tree:
            case dict() | list() if depth > _DEEPEST:
                self._tables.note(path, f"nests too deeply; the limit is {_DEEPEST} levels")
            case dict():
                return {key: self._tree(item, (*path, key), depth + 1) for key, item in tree.items()}
            case list():
                return [self._tree(item, (*path, at), depth + 1) for at, item in enumerate(tree)]
            case str():
                return self.template(tree, path)
            case datetime(tzinfo=None):
                self._tables.note(path, f"{tree.isoformat()} has no UTC offset; write for example 2026-11-21T09:00:00Z")
            case date() | time():
                return tree.isoformat()
            case int() | float() if abs(tree) <= LARGEST_NUMBER:
                return tree
            case _:
                text = f"{shown(tree)} is not sent as a number; the limit is {LARGEST_NUMBER:.0e}; write it as a text"
                self._tables.note(path, text)
        return None


def _texts(tree: Any) -> int:
    match tree:
        case dict():
            return sum(map(_texts, tree.values()))
        case list():
            return sum(map(_texts, tree))
    return isinstance(tree, str)
