"""[[rule]]s over several jobs: what they are about, and which keys they may have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bridge.decide.rules.incidents import Absence, Backlog, Escalation, FanIn, IncidentSpec, Threshold
from bridge.decide.rules.matching import DURATIONS, TEXTS, Rule, is_user_data
from bridge.decide.rulesfile.tables import RuleTable, Tables, keys_of
from bridge.decide.templates.functions import TemplateFault
from bridge.decide.templates.rendering import compiled
from bridge.decide.text.values import instead, states
from bridge.model import CLOSED

_Path = tuple[str | int, ...]
_BY = (*(field for field in TEXTS if field != "user_data"), "state", "workflow_run")
_MOST_BY = 5
ANY = states(["*"])
_COMMON = ("name", "match", "notify", "mention", "urgent", "by", "escalate")
# By what makes a rule one of a kind: what it is called, and which other keys it may have.
_KINDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "all": ("all jobs of a key are done", ("expect", "settle")),
    "absent": ("nothing happens", ("for", "between", "days", "recover", "unless")),
    "in": ("many jobs are in a state", ("for", "count", "recover", "unless")),
    "share": ("a share of the jobs", ("from", "to", "within", "recover")),
    "count": ("many jobs", ("from", "to", "within", "in_a_row", "recover")),
}


def kind_of(table: Mapping[str, Any]) -> str | None:
    """Return the key that makes a rule one over several jobs; None: it is about one job, or about watches."""
    if "in" in table:
        return "in" if "count" in table else None
    return next((key for key in ("all", "absent", "share", "count") if key in table), None)


class IncidentReader:
    """Reads what makes a rule one over several jobs; what is wrong is noted."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def spec(self, shape: RuleTable, table: Mapping[str, Any], path: _Path) -> IncidentSpec | None:
        kind = kind_of(table)
        if kind is None:
            self._check_alone(table, path)
            return None
        self._check_keys(kind, table, path)
        self._check_times(kind, table, path)
        self.check_by(shape.by, path)
        match kind:
            case "all":
                return self._fan_in(shape, table, path)
            case "absent":
                return self._absence(shape, table, path)
            case "in":
                return self._backlog(shape, table, path)
        return self._threshold(shape, table, path)

    def _check_alone(self, table: Mapping[str, Any], path: _Path) -> None:
        """Note keys that mean nothing for a rule that is about one job."""
        is_level = "in" in table
        for key in ("by", "in_a_row", "within", "between", "days", "expect", "settle", "unless", "escalate"):
            if key in table and not (is_level and key in ("unless", "escalate")):
                kinds = 'count = ">= 5", share = "> 20% of 50", absent = "Success" or all = "done"'
                also = ", or one with in and for" if key in ("unless", "escalate") else ""
                self._tables.note((*path, key), f"is for a rule over several jobs, which has {kinds}{also}")

    def _check_keys(self, kind: str, table: Mapping[str, Any], path: _Path) -> None:
        what, also = _KINDS[kind]
        for key in table:
            if key in keys_of(RuleTable) and key not in (kind, *_COMMON, *also):
                self._tables.note((*path, key), f"does not go with {kind}: this rule says that {what}")

    def _check_times(self, kind: str, table: Mapping[str, Any], path: _Path) -> None:
        """Note conditions that change while a job goes on, or between two looks at it."""
        found = table.get("match")
        match = found if isinstance(found, dict) else {}
        for field in DURATIONS:
            if field in match and kind == "all":
                text = "changes while a job goes on, and a job belongs to its key from the start: leave it out"
                self._tables.note((*path, "match", field), text)
            elif field in match and field == "late":
                text = "is how late a change was seen, and this rule counts when it happened: leave it out"
                self._tables.note((*path, "match", field), text)

    def check_by(self, by: list[str], path: _Path) -> None:
        if len(by) > _MOST_BY:
            self._tables.note((*path, "by"), f"has {len(by)} fields; the limit is {_MOST_BY}")
        for field in by:
            if field not in _BY and not is_user_data(field):
                text = f'a job has no "{field}" to tell incidents apart{instead(field, (*_BY, "user_data.KEY"))}'
                self._tables.note((*path, "by"), text)

    def _threshold(self, shape: RuleTable, table: Mapping[str, Any], path: _Path) -> Threshold | None:
        key = "share" if "share" in table else "count"
        if shape.to == ANY:
            self._tables.note((*path, "to" if "to" in table else key), 'needs one or more states, as in to = "Failed"')
        elif (shape.share or shape.in_a_row) and (others := sorted(shape.to.words - CLOSED)):
            what = "share" if shape.share else "in_a_row"
            text = f'"{others[0]}" is not the end of a job, and {what} is about jobs that ended'
            self._tables.note((*path, "to"), text)
        if "within" not in table and not shape.in_a_row:
            text = 'needs within, as in within = "10m": the time in which so many come'
            self._tables.note((*path, key), text)
        if shape.share:
            limit, last = shape.share
            return Threshold(wanted=shape.to, limit=limit, within=shape.within, last=last)
        if shape.count is None:
            return None
        return Threshold(wanted=shape.to, limit=shape.count, within=shape.within, in_a_row=shape.in_a_row)

    def _absence(self, shape: RuleTable, table: Mapping[str, Any], path: _Path) -> Absence | None:
        if "for" not in table:
            self._tables.note((*path, "absent"), 'needs for, as in for = "2h": how long nothing may come')
        if "days" in table and "between" not in table:
            self._tables.note((*path, "days"), 'needs between, as in between = "09:00-18:00"')
        if shape.absent is None or shape.for_ is None:
            return None
        window = replace(shape.between, days=shape.days) if shape.between and shape.days else shape.between
        return Absence(wanted=shape.absent, after=shape.for_, window=window)

    def _backlog(self, shape: RuleTable, table: Mapping[str, Any], path: _Path) -> Backlog | None:
        if "for" not in table:
            self._tables.note((*path, "in"), 'needs for, as in for = "10m": how long a job may be in the state')
        if shape.in_ is None or shape.for_ is None or shape.count is None:
            return None
        return Backlog(states=shape.in_, after=shape.for_, limit=shape.count)

    def _fan_in(self, shape: RuleTable, table: Mapping[str, Any], path: _Path) -> FanIn | None:
        if not table.get("by"):
            text = 'needs by, as in by = ["user_data.asset_id"]: which jobs belong together'
            self._tables.note((*path, "all"), text)
        if "expect" not in table and "settle" not in table:
            text = 'needs expect, as in expect = "{{ job.user_data.parts }}" (how many there are), or settle = "1m"'
            self._tables.note((*path, "all"), text)
        try:
            expect = None if shape.expect is None else compiled(shape.expect)
        except TemplateFault as error:
            self._tables.note((*path, "expect"), f"the template does not render: {error}")
            return None
        return FanIn(success=shape.all == "Success", expect=expect, settle=shape.settle)

    def check_unless(self, rules: Sequence[tuple[int, Rule]]) -> None:
        """Check which rules others wait for, once all are read."""
        named = {rule.name: rule for _, rule in rules}
        each = self._tables.each("rule")
        tables = {name: table for _, table in each if isinstance(name := table.get("name"), str)}
        for at, rule in rules:
            if rule.unless is None:
                continue
            other, path = named.get(rule.unless), ("rule", at, "unless")
            if other is rule:
                self._tables.note(path, "names the rule itself; name another, with count, share or absent")
            elif other is None and rule.unless in tables:
                continue  # what is wrong with it is noted already
            elif other is None:
                self._tables.note(path, f'there is no rule "{rule.unless}"{instead(rule.unless, named)}')
            elif other.incident is None and kind_of(tables[other.name]) not in (None, "all"):
                continue
            elif other.incident is None or isinstance(other.incident, FanIn):
                text = f'rule "{other.name}" has no incidents that stay open; name one with count, share or absent'
                self._tables.note(path, text)
            elif other.unless:
                self._tables.note(path, f'rule "{other.name}" waits for another itself; name one without unless')
            elif rule.incident and (missing := [field for field in other.by if field not in rule.by]):
                text = f'rule "{other.name}" has an incident for each {missing[0]}: add that to by of this rule'
                self._tables.note(path, text)

    def escalation(self, shape: RuleTable) -> Escalation | None:
        found = shape.escalate
        return Escalation(after=found.after, notify=tuple(dict.fromkeys(found.notify))) if found else None


def looks_at_others(spec: IncidentSpec) -> bool:
    """Tell whether a rule looks at transitions to other states than those that it names."""
    return not isinstance(spec, Absence | Threshold) or (
        isinstance(spec, Threshold) and (spec.in_a_row or bool(spec.last))
    )
