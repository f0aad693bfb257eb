"""Reads the templates of one rules.toml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from typing import Any, Protocol

from bridge.decide.messages.build import Body
from bridge.decide.templates.functions import LARGEST_NUMBER, TemplateFault
from bridge.decide.templates.rendering import Template, compiled
from bridge.decide.text.values import shown

_MOST_CHARACTERS = 200_000  # of all templates of a file
_MOST_TEXTS = 200  # of one body
_DEEPEST = 10  # tables and lists of a body inside of one another, itself included

_Path = tuple[str | int, ...]


class Note(Protocol):
    """Takes what is wrong with rules.toml."""

    def __call__(self, path: Sequence[str | int], text: str, *, warning: bool = False) -> None: ...


class TemplateReader:
    """Compiles one template after the other; `note` takes what is wrong with them."""

    def __init__(self, note: Note) -> None:
        self._note = note
        self._characters = 0

    def template(self, source: str, path: Sequence[str | int]) -> Template | None:
        """Return the template; None when it is wrong, or when there was too much already."""
        before, self._characters = self._characters, self._characters + len(source)
        if self._characters > _MOST_CHARACTERS:
            if before <= _MOST_CHARACTERS:
                text = f"up to here the templates have more than {_MOST_CHARACTERS:,} characters"
                self._note(path, f"{text}, so the rest was not looked at")
            return None
        try:
            return compiled(source)
        except TemplateFault as error:
            self._note(path, f"the template does not render: {error}")
        return None

    def body(self, table: Mapping[str, Any], path: _Path) -> Body | None:
        """Return a [notifier.NAME.body]."""
        if not table:
            self._note(path, 'is empty; write what the receiver reads, as in asset = "{{ job.id }}"')
            return None
        if (count := _texts(table)) > _MOST_TEXTS:
            self._note(path, f"has {count:,} texts, and {_MOST_TEXTS} are the most")
            return None
        body = Body(self._tree(table, path, 1))
        try:
            body.check()
        except TemplateFault as error:
            self._note(path, str(error))
        return body

    def _tree(self, tree: Any, path: _Path, depth: int) -> Any:
        """Return the tree with its texts compiled; what is wrong is noted, and None in its place."""
        match tree:
            case dict() | list() if depth > _DEEPEST:
                self._note(path, f"nests too deeply: {_DEEPEST} levels are the most")
            case dict():
                return {key: self._tree(item, (*path, key), depth + 1) for key, item in tree.items()}
            case list():
                return [self._tree(item, (*path, at), depth + 1) for at, item in enumerate(tree)]
            case str():
                return self.template(tree, path)
            case datetime(tzinfo=None):
                self._note(path, f"{tree.isoformat()} says no offset; write for example 2026-11-21T09:00:00Z")
            case date() | time():
                return tree.isoformat()
            case int() | float() if abs(tree) <= LARGEST_NUMBER:
                return tree
            case _:
                text = f"{shown(tree)} is not sent as a number: {LARGEST_NUMBER:.0e} is the most; write it as a text"
                self._note(path, text)
        return None


def _texts(tree: Any) -> int:
    match tree:
        case dict():
            return sum(map(_texts, tree.values()))
        case list():
            return sum(map(_texts, tree))
    return isinstance(tree, str)
