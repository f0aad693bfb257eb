"""The notifiers of rules.toml, with their secrets taken from the environment. TYPES is what may stand after `type`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from bridge.decide.rulesfile.notifiers import slack, webhook
from bridge.decide.rulesfile.schema import NotifierTable
from bridge.decide.rulesfile.values import Note, TemplateReader, Values
from bridge.decide.text.values import shown, suggest
from bridge.model import Notifier


class NotifierType(NamedTuple):
    """Which keys a type has, and what makes a notifier of them, or notes why that cannot be."""

    table: type[NotifierTable]
    read: Callable[[str, Any, Values], Notifier | None]


TYPES: Mapping[str, NotifierType] = {
    "slack": NotifierType(slack.SlackTable, slack.read),
    "webhook": NotifierType(webhook.WebhookTable, webhook.read),
}
KEYS = {name: tuple(one.table.model_fields) for name, one in TYPES.items()}
_THERE_ARE = " or ".join(f'"{name}"' for name in TYPES)


class NotifierReader:
    """Reads one [notifier.NAME] after the other; `note` takes the faults."""

    def __init__(self, environ: Mapping[str, str], note: Note, templates: TemplateReader | None = None) -> None:
        self._note = note
        self._values = Values(environ, note, templates or TemplateReader(note))

    def shape_of(self, table: Mapping[str, Any], path: tuple[str, ...]) -> type[NotifierTable] | None:
        kind = table.get("type")
        if isinstance(kind, str) and kind in TYPES:
            return TYPES[kind].table
        if kind is None:
            self._note(path, f'"type" is missing; it is {_THERE_ARE}')
        else:
            near = suggest(kind, TYPES) if isinstance(kind, str) else ""
            self._note((*path, "type"), f"{shown(kind)} is no type of notifier{near}; it is {_THERE_ARE}")
        return None

    def read(self, name: str, shape: NotifierTable) -> Notifier | None:
        return TYPES[shape.type].read(name, shape, self._values)
