"""Silences: what holds messages back for a while, made, seen and ended by people."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from flask import request
from flask.typing import ResponseReturnValue
from pydantic import RootModel

from bridge.admin import query, silence_answers
from bridge.admin.parts import Parts
from bridge.admin.problems import Problem
from bridge.admin.routes import PAGING, Route
from bridge.decide.rulesfile.silences import Wanted, doubts, read_wanted
from bridge.decide.text.facts import ident
from bridge.decide.text.values import FieldFaults
from bridge.pipeline.silences import IdUsed, TooMany, make, preview, preview_facts, silence_facts
from bridge.record.outbox import silences

_BY = "api"  # who asks, where nobody else is named
_LOOKED_AT = 10_000  # messages of a preview: a second's work, in a process that may also deliver


class _Object(RootModel[dict[str, Any]]):
    """Any JSON object: what it says is read with all its faults at once."""


class Silences:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def routes(self) -> Iterator[Route]:
        yield Route(
            path="/api/v1/silences", view=self.listed, name="read_silences", says="silences, newest first",
            answer=silence_answers.Silences, query=PAGING,
        )  # fmt: skip
        yield Route(
            path="/api/v1/silences", view=self.add, name="add_silence", method="POST",
            says="hold (or drop) what matches, until it ends; with dry_run only say what that would have been",
            body=silence_answers.SilenceWanted, answer=silence_answers.SilenceMade, done=201, also=(200,),
            refuses=(409, 413, 415),
        )  # fmt: skip
        yield Route(
            path="/api/v1/silences/<silence_id>", view=self.end, name="end_silence", method="DELETE",
            says="end a silence now; what it holds is told as one digest", answer=silence_answers.Silence,
            refuses=(404, 409, 413, 415),
        )  # fmt: skip

    def listed(self) -> ResponseReturnValue:
        asked = query.read(request)
        with self._parts.db.read() as tx:
            found, cursor = silences.page(tx, cursor=asked.cursor.when if asked.cursor else None, limit=asked.limit)
        now = self._parts.clock()
        items = [silence_facts(one, held, now=now) for one, held in found]
        return {"items": items, "cursor": None if cursor is None else str(cursor)}

    def add(self) -> ResponseReturnValue:
        query.parameters(request, [])
        said, now = query.json_of(request, _Object).root, self._parts.clock()
        try:
            wanted = read_wanted(said, now=now, author=_BY)
        except FieldFaults as error:
            raise Problem(400, "; ".join(map(str, error.faults))) from error
        answer = self.foresee(wanted, now)
        return (answer, 200) if wanted.dry_run else (answer | {"silence": self.make(wanted, now)}, 201)

    def make(self, wanted: Wanted, now: datetime, *, nonce: str | None = None) -> dict[str, Any]:
        """Store a silence; what is asked for twice with one id, or one nonce, is one. Raises Problem 409."""
        id_ = ident("sil", "id", wanted.id) if wanted.id else ident("sil", nonce or self._parts.nonce())
        try:
            with self._parts.db.write() as tx:
                made = make(tx, wanted, id_, now=now)
        except (TooMany, IdUsed) as error:
            raise Problem(409, str(error)) from error
        return silence_facts(made, 0, now=now)

    def foresee(self, wanted: Wanted, now: datetime) -> dict[str, Any]:
        """Return what it would have matched of the last day, and what may be a slip of the pen."""
        book = self._parts.book()
        with self._parts.db.read() as tx:
            found = preview(tx, wanted, book.queue_names, now=now, most=_LOOKED_AT)
        warnings = doubts(
            wanted.scope, rules=[rule.name for rule in book.rules], notifiers=book.notifiers, watches=book.watches,
            queue_names=book.queue_names,
        )  # fmt: skip
        return {"silence": None, "preview": preview_facts(found), "warnings": warnings}

    def end(self, silence_id: str) -> ResponseReturnValue:
        query.parameters(request, [])
        query.nothing(request)
        return self.end_now(silence_id, by=_BY)

    def end_now(self, silence_id: str, *, by: str) -> dict[str, Any]:
        """End a silence. Raises Problem 404 or 409."""
        now = self._parts.clock()
        with self._parts.db.write() as tx:
            done = silences.end(tx, silence_id, by=by, now=now)
            found, held = silences.one(tx, silence_id), silences.held(tx, [silence_id])
        if found is None:
            raise Problem(404, f'there is no silence "{silence_id[:100]}"')
        if not done:
            raise Problem(409, f"silence {silence_id} is over since {found.ends_at:%Y-%m-%dT%H:%M:%SZ}")
        return silence_facts(found, held.get(silence_id, 0), now=now)
