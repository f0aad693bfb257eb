"""Actions: what people did, who did it, and what it changed."""

from __future__ import annotations

import json
from collections.abc import Iterator

from flask import url_for
from flask.typing import ResponseReturnValue

from bridge.admin.http.routes import Route
from bridge.admin.pages.routes import ROWS, Pages, asked_for, show
from bridge.pipeline.operations import WHATS
from bridge.record.queries import lists
from bridge.record.queries.lists import Facts

_FIELDS = ("who", "what", "subject", "since", "until")


class ActionPages(Pages):
    def routes(self) -> Iterator[Route]:
        yield Route(path="/actions", view=self.actions, name="actions")

    def actions(self) -> ResponseReturnValue:
        asked = asked_for(_FIELDS, self.parts.clock())
        with self.parts.db.read() as tx:
            found = lists.find_actions(tx, asked.which, cursor=asked.cursor, limit=ROWS)
        fields = (
            ("who", "Who", None),
            ("what", "What", [(what, words(what)) for what in WHATS]),
            ("subject", "Done to", None),
            ("since", "Since", None),
            ("until", "Before", None),
        )
        rows = [
            (one, words(one["what"]), _link(one["what"], one["subject"]), changes(one["before"], one["after"]))
            for one in found.items
        ]
        return show("actions.html", asked=asked, actions=rows, cursor=found.cursor, fields=fields)


def words(what: str) -> str:
    """Return an action in the words of the pages, which resend where commands redrive."""
    return what.replace("redrive", "resend").replace("_", " ")


def changes(before: Facts | None, after: Facts | None) -> list[tuple[str, str]]:
    """Return what an action changed, or what was asked for, by name: "dead → waiting"."""
    found: dict[str, list[str]] = {}
    for facts in (before or {}, after or {}):
        for name, value in facts.items():
            found.setdefault(name, []).append(value if isinstance(value, str) else json.dumps(value))
    return [(name, " → ".join(values)) for name, values in found.items()]


_PAGES = {"": "delivery", "batch": "batch", "incident": "incident"}  # of one of what the kind of action is about
_LISTS = {"notifier": "notifiers", "watch": "watches", "silence": "silences"}


def _link(what: str, subject: str) -> str | None:
    """Return where the page about a subject is; None: a later version stored this kind of action."""
    kind = what.partition("_")[2]
    if kind in _PAGES:
        return url_for(f"pages.{_PAGES[kind]}", **{f"{_PAGES[kind]}_id": subject}, _external=False)
    return url_for(f"pages.{_LISTS[kind]}", _anchor=f"{kind}-{subject}") if kind in _LISTS else None
