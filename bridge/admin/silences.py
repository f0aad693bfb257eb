"""Silences: what holds messages back for a while, made, seen and ended by people."""

from __future__ import annotations

from collections.abc import Iterator

from flask import request
from flask.typing import ResponseReturnValue

from bridge.admin import query, silence_answers
from bridge.admin.parts import BY_API, Parts
from bridge.admin.problems import Problem
from bridge.admin.routes import PAGING, Route
from bridge.decide.rulesfile.silences import read_silence
from bridge.decide.text.values import FieldFaults
from bridge.pipeline.silences import LOOKED_AT_IN_WEB, foresee, silence_facts
from bridge.record.outbox import silences


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
        said, now = query.object_of(request), self._parts.clock()
        try:
            wanted = read_silence(said, now=now, author=BY_API)
        except FieldFaults as error:
            raise Problem(400, "; ".join(map(str, error.faults))) from error
        with self._parts.db.read() as tx:
            foreseen = foresee(tx, wanted, self._parts.book(), now=now, most=LOOKED_AT_IN_WEB)
        if wanted.dry_run:
            return {"silence": None, **foreseen}, 200
        made = self._parts.operations().make_silence(wanted)
        return {"silence": silence_facts(made, 0, now=now), **foreseen}, 201

    def end(self, silence_id: str) -> ResponseReturnValue:
        query.parameters(request, [])
        query.nothing(request)
        ended, held = self._parts.operations().end_silence(silence_id)
        return silence_facts(ended, held, now=self._parts.clock())
