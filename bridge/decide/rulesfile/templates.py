"""The [template.NAME] of rules.toml, compiled."""

from __future__ import annotations

from collections.abc import Sequence

from bridge.decide.rules.rulebook import DEFAULT_FIELDS, Wording
from bridge.decide.rulesfile.errors import Faults
from bridge.decide.rulesfile.schema import TemplateTable
from bridge.decide.rulesfile.tables import Tables
from bridge.decide.rulesfile.template_reader import TemplateReader
from bridge.decide.templates.names import FIELDS
from bridge.decide.text.values import instead


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
