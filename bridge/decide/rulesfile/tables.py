"""The tables of rules.toml, each held against its shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from bridge.decide.rulesfile.errors import Faults, RulesRefused
from bridge.decide.rulesfile.notifiers import KEYS as KEYS_OF_NOTIFIERS
from bridge.decide.rulesfile.schema import KEYS as KEYS_OF_TABLES
from bridge.decide.text.values import instead, printable, shown

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
