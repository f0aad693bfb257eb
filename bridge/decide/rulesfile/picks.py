"""Names that stand for several notifiers, of which each job picks one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo

from bridge.decide.rules.picks import Pick, member
from bridge.decide.rulesfile.notifiers import TYPES, no_pick
from bridge.decide.rulesfile.rules import TemplateReader
from bridge.decide.rulesfile.tables import OF_PICKS, PickTable, Tables, is_pick, keys_of
from bridge.decide.text.values import printable, shown

_LONGEST_NAME = 100  # characters of "customer.acme"


def read_picks(tables: Tables, templates: TemplateReader, zone: ZoneInfo) -> dict[str, Pick]:
    """Return each [notifier.NAME] with `pick` by its name. Times in its template are by the clock of `zone`."""
    picks = {}
    for name, table in tables.named("notifier"):
        if tables.is_pick(name) and (shape := _pick_shape(tables, table, ("notifier", name))):
            template = templates.template(shape.pick, ("notifier", name, "pick"))
            if template and template.constant is not None:
                example = '"{{ job.user_data.customer }}"'
                text = f"is {shown(shape.pick)} for every job; write a template, such as {example}"
                tables.note(("notifier", name, "pick"), text)
            if template:
                to = {text: member(name, text) for text in shape.to}
                picks[name] = Pick(
                    name=name, source=shape.pick, template=template, to=to, otherwise=shape.otherwise, zone=zone
                )
    return picks


def _pick_shape(tables: Tables, table: Mapping[str, Any], path: tuple[str, str]) -> PickTable | None:
    for key in table:
        if key in _OF_TYPES:
            tables.note(path, f'"{key}" belongs to the notifiers of a pick: write it below {_entry(path[1])}', key=key)
    if "pick" not in table:
        text = 'needs pick beside it, a template such as pick = "{{ job.user_data.customer }}"'
        tables.note((*path, "to"), text)
    if table.get("to", {}) == {}:
        tables.note((*path, "pick"), f"needs the notifiers that a job may pick: write {_entry(path[1])} for each")
    if not all(key in table for key in OF_PICKS):
        return None
    shape = tables.shape(PickTable, {key: value for key, value in table.items() if key not in _OF_TYPES}, path)
    if shape:
        _check_otherwise(tables, shape.otherwise, path)
        for text, inner in shape.to.items():
            _check_entry(tables, text, inner, path)
    return shape


def _check_otherwise(tables: Tables, otherwise: str | None, path: tuple[str, str]) -> None:
    if otherwise and tables.is_pick(otherwise):
        tables.note((*path, "otherwise"), no_pick(otherwise))
    elif otherwise and otherwise not in tables.names("notifier"):
        tables.note((*path, "otherwise"), tables.undefined("notifier", otherwise))


def _check_entry(tables: Tables, text: str, table: object, path: tuple[str, str]) -> None:
    name, path_to = member(path[1], text), (*path, "to", text)
    if not isinstance(table, dict):
        tables.note(path_to, f"is not a table; write [notifier.{path[1]}.to.{text}], and the keys below it")
    elif is_pick(table):
        tables.note(path_to, "is a pick inside of a pick; write one notifier here")
    if not text or text != text.strip():
        tables.note(path_to, f"{shown(text)} is never picked: what a template gives has no space around it")
    if len(name) > _LONGEST_NAME:
        tables.note(path_to, f"is too long a name; the limit is {_LONGEST_NAME} characters")
    try:
        printable(text)
    except ValueError as error:
        tables.note(path_to, str(error))


_OF_TYPES = frozenset(key for kind in TYPES.values() for key in keys_of(kind.table)) - OF_PICKS


def _entry(name: str) -> str:
    return f"[notifier.{name}.to.TEXT]"
