"""What one notifier alone is sent: a body of its own, or a channel that the job names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any

from bridge.decide.events import LARGEST_EVENT
from bridge.decide.rehearsal import Note, Rehearsal
from bridge.decide.template_words import LARGEST_NUMBER, number
from bridge.decide.templates import Budget, Names, Template, TemplateFault, value
from bridge.decide.words import shown
from bridge.model import Notifier, Writer

_MOST_TEXTS = 200  # of one body
_DEEPEST = 10  # tables and lists of a body inside of one another, itself included

_At = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Custom:
    """What a message is for one notifier alone; what is None is as for any other."""

    body: str | None = None
    channel: str | None = None
    note: str | None = None  # why it comes to this channel
    faults: tuple[str, ...] = ()  # templates that did not render


def customs(notifier: Notifier, names: Names) -> Custom:
    """Return what the notifier's own templates make of a message."""
    if notifier.body:
        return _with_body(notifier.body, names)
    if notifier.channel_template:
        return _with_channel(notifier.channel_template, notifier.channels, names)
    return Custom()


def _with_body(writer: Writer, names: Names) -> Custom:
    try:
        return Custom(body=writer(names))
    except TemplateFault as error:
        return Custom(faults=(f"body: {error}",))


def _with_channel(writer: Writer, channels: tuple[str, ...], names: Names) -> Custom:
    try:
        wanted = writer(names)
    except TemplateFault as error:
        return Custom(channel=channels[0], faults=(f"channel: {error}",))
    if wanted in channels:
        return Custom(channel=wanted)
    note = f"meant for channel {shown(wanted)}, which is not among channels" if wanted else None
    return Custom(channel=channels[0], note=note)


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """A [notifier.NAME.body], compiled: a tree whose texts are templates."""

    tree: Mapping[str, Any]

    def __call__(self, names: Names, *, strict: bool = False, budget: Budget | None = None) -> str:
        """Return compact JSON of at most LARGEST_EVENT bytes. Raises TemplateFault saying which key."""
        made = _made(self.tree, (), names, strict, budget or Budget())
        text = json.dumps(made, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        if (size := len(text.encode())) > LARGEST_EVENT:
            raise TemplateFault(f"it has {size:,} bytes of JSON, and {LARGEST_EVENT:,} are the most")
        return text


def _made(tree: Any, path: _At, names: Names, strict: bool, budget: Budget) -> Any:
    match tree:
        case dict():
            return {key: _made(one, (*path, key), names, strict, budget) for key, one in tree.items()}
        case list():
            return [_made(one, (*path, at), names, strict, budget) for at, one in enumerate(tree)]
        case Template():
            try:
                return value(tree, names, strict=strict, budget=budget)
            except TemplateFault as error:
                raise TemplateFault(f"at {shown('.'.join(map(str, path)))}: {error}") from error
    return tree


class BodyReader:
    """Reads one body; `note` takes what is wrong with it."""

    def __init__(self, rehearsal: Rehearsal, note: Note) -> None:
        self._rehearsal = rehearsal
        self._note = note

    def read(self, table: Mapping[str, Any], path: _At) -> Body | None:
        if not table:
            self._note(path, 'is empty; write what the receiver reads, as in asset = "{{ job.id }}"')
            return None
        if (count := _texts(table)) > _MOST_TEXTS:
            self._note(path, f"has {count:,} texts, and {_MOST_TEXTS} are the most")
            return None
        body = Body(self._compiled(table, path, 1))
        try:
            self._rehearsal.plays(body)
        except TemplateFault as error:
            self._note(path, str(error))
        return body

    def _compiled(self, found: Any, path: _At, depth: int) -> Any:
        """Return the tree with its texts compiled; what is wrong is noted, and None in its place."""
        match found:
            case dict() | list() if depth > _DEEPEST:
                self._note(path, f"nests too deeply: {_DEEPEST} levels are the most")
            case dict():
                return {key: self._compiled(one, (*path, key), depth + 1) for key, one in found.items()}
            case list():
                return [self._compiled(one, (*path, at), depth + 1) for at, one in enumerate(found)]
            case str():
                return self._rehearsal.template(found, path, render=value, instead="the default body is sent")
            case datetime(tzinfo=None):
                self._note(path, f"{found.isoformat()} says no offset; write for example 2026-11-21T09:00:00Z")
            case date() | time():
                return found.isoformat()
            case _:
                return self._number(found, path)
        return None

    def _number(self, found: object, path: _At) -> int | float | None:
        try:
            return number(found)
        except TemplateFault:
            text = f"{shown(found)} is not sent as a number: {LARGEST_NUMBER:.0e} is the most; write it as a text"
            self._note(path, text)
        return None


def _texts(tree: Any) -> int:
    match tree:
        case dict():
            return sum(map(_texts, tree.values()))
        case list():
            return sum(map(_texts, tree))
    return isinstance(tree, str)
