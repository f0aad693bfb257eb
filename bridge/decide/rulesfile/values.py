"""What values of rules.toml are read as: templates, trees of them, URLs, and what the environment holds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any, Protocol

from bridge.decide.messages.build import Body
from bridge.decide.rulesfile.schema import Env
from bridge.decide.templates.functions import LARGEST_NUMBER, TemplateFault
from bridge.decide.templates.rendering import Template, compiled
from bridge.decide.text.values import shown
from bridge.environment import fault, lookup
from bridge.url import encoded

# --- templates ------------------------------------------------------------------------------------------------------

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


# --- addresses, and values of the environment -----------------------------------------------------------------------

_USUAL_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Values:
    """`note` takes what is wrong; `templates` compiles what may be a template."""

    environ: Mapping[str, str]
    note: Note
    templates: TemplateReader

    def url(self, value: str | Env, path: Path) -> str:
        """Return the URL as it goes onto the wire."""
        url = value if isinstance(value, str) else self.one(value, path)
        if url is None:
            return ""
        try:
            return encoded(url)
        except ValueError as error:
            self.note(path, _no_url(value, fault(url) or str(error)))
        return ""

    def one(self, env: Env | None, path: Path) -> str | None:
        """Return the value; a variable that is missing or empty is a fault."""
        if env is None:
            return None
        if len(env.env) > 1:
            self.note(path, "takes one environment variable; only a secret can have two")
        value = self.value(env.env[0])
        if not value:
            self.note(path, self.missing(env.env[0]))
        return value

    def value(self, variable: str) -> str | None:
        return lookup(self.environ, variable)

    def missing(self, variable: str) -> str:
        if variable in self.environ:
            return f"environment variable {variable} is empty"
        # A secret that stands where its name belongs must not be said back.
        if not _USUAL_NAME.fullmatch(variable):
            return "no environment variable has this name; they are usually written LIKE_THIS"
        return f"environment variable {variable} is not set"


def _no_url(value: str | Env, why: str) -> str:
    # Not shown: user and password in it may be the very fault.
    said = "this" if isinstance(value, str) else f"the value of {value.env[0]}"
    right = "https://cms.example.com/hooks/media"
    return f"{said} is not an http(s) address without user and password, such as {right}: {why}"
