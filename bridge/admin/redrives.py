"""Sending again and telling by hand: what a person wants told that was not. Workers carry it out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flask import request, url_for
from flask.typing import ResponseReturnValue
from pydantic import RootModel

from bridge.admin import asking, redrive_answers
from bridge.admin.asking import PARAMETERS
from bridge.admin.parts import Parts
from bridge.admin.problems import Problem
from bridge.admin.routes import PAGING, Route
from bridge.decide.ids import ident
from bridge.decide.words import listing, suggest
from bridge.pipeline.by_hand import NotTold, tell_by_hand
from bridge.pipeline.redriving import MOST_PER_MINUTE, STATES, USUAL_PER_MINUTE, TooMany, order, order_facts
from bridge.record import redrives
from bridge.record.reading import Filter

_BY = "api"  # who asks
_FILTERS = ("since", "until", "notifier", "rule", "job", "digest")
_MOST_SEQUENCE = 2**31 - 1
_MOST_FAULTS = 20  # of a body, in one answer

Facts = dict[str, Any]


class _Object(RootModel[dict[str, Any]]):
    """Any JSON object: what it says is read with all its faults at once."""


class Redrives:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def routes(self) -> Iterator[Route]:
        yield Route(
            path="/api/v1/redrives", view=self.listed, name="read_redrives",
            says="orders to send deliveries again, newest first", answer=redrive_answers.Redrives, query=PAGING,
        )  # fmt: skip
        yield Route(
            path="/api/v1/redrives/<redrive_id>", view=self.one, name="read_redrive", says="one order, how far it is",
            answer=redrive_answers.Redrive, refuses=(404,),
        )  # fmt: skip
        yield Route(
            path="/api/v1/deliveries/redrive", view=self.add, name="add_redrive", method="POST",
            says="send all that the filters find again, some a minute; with dry_run only say how many that would be",
            body=redrive_answers.RedriveWanted, answer=redrive_answers.RedriveOrdered, located=True, also=(200,),
            refuses=(409, 413, 415),
        )  # fmt: skip
        yield Route(
            path="/api/v1/redrives/<redrive_id>", view=self.end, name="end_redrive", method="DELETE",
            says="send nothing more again by this order", answer=redrive_answers.Redrive, refuses=(404, 409, 413, 415),
        )  # fmt: skip
        yield Route(
            path="/api/v1/jobs/<job_id>/tell", view=self.tell, name="tell_by_hand", method="POST",
            says="tell a notifier of a transition that no rule told it of", body=redrive_answers.TellWanted,
            answer=redrive_answers.Told, located=True, refuses=(404, 409, 413, 415),
        )  # fmt: skip

    def listed(self) -> ResponseReturnValue:
        asked = asking.read(request)
        with self._parts.db.read() as tx:
            found, cursor = redrives.page(tx, cursor=asked.cursor.when if asked.cursor else None, limit=asked.limit)
        return {"items": list(map(order_facts, found)), "cursor": None if cursor is None else str(cursor)}

    def one(self, redrive_id: str) -> ResponseReturnValue:
        asking.parameters(request, [])
        with self._parts.db.read() as tx:
            return order_facts(_known(redrives.one(tx, redrive_id), redrive_id))

    def add(self) -> ResponseReturnValue:
        asking.parameters(request, [])
        wanted = _wanted(asking.json_of(request, _Object).root, _ORDER)
        which = Filter(state=wanted.get("state", STATES[0]), **{key: wanted.get(key) for key in _FILTERS})
        per_minute = wanted.get("per_minute", USUAL_PER_MINUTE)
        if not any(key in wanted for key in _FILTERS):
            raise Problem(400, f"say which deliveries, with at least one of {listing(_FILTERS)}")
        if wanted.get("dry_run"):
            return self._foreseen(which, per_minute), 200
        try:
            with self._parts.write() as tx:
                id_ = ident("rdr", self._parts.nonce())
                made = order(tx, which, per_minute=per_minute, author=_BY, id_=id_, now=self._parts.clock())
        except TooMany as error:
            raise Problem(409, str(error)) from error
        return order_facts(made), 202, {"Location": url_for("read_redrive", redrive_id=made.id)}

    def _foreseen(self, which: Filter, per_minute: int) -> Facts:
        with self._parts.db.read() as tx:
            total = redrives.count(tx, which)
        said = {"id": None, "filter": redrives.spec_of(which), "author": _BY, "per_minute": per_minute}
        return {
            **said, "created_at": None, "total": total, "done": 0, "left": total, "ended_at": None, "ended_by": None,
        }  # fmt: skip

    def end(self, redrive_id: str) -> ResponseReturnValue:
        asking.parameters(request, [])
        asking.nothing(request)
        with self._parts.write() as tx:
            done = redrives.end(tx, redrive_id, by=_BY, now=self._parts.clock())
            found = _known(redrives.one(tx, redrive_id), redrive_id)
        if not done:
            raise Problem(409, f"order {redrive_id} is over since {found.ended_at:%Y-%m-%dT%H:%M:%SZ}")
        return order_facts(found)

    def tell(self, job_id: str) -> ResponseReturnValue:
        asking.parameters(request, [])
        wanted = _wanted(asking.json_of(request, _Object).root, _TELLING)
        if "notifier" not in wanted:
            raise Problem(400, "notifier: say which one is to be told")
        try:
            with self._parts.write() as tx:
                asked = tell_by_hand(
                    tx, self._parts.book(), job_id=job_id, author=_BY, now=self._parts.clock(), **wanted
                )
        except NotTold as error:
            raise Problem(error.status, str(error)) from error
        where = url_for("read_delivery", delivery_id=asked.delivery)
        return {"delivery": asked.delivery, "waits": asked.waits}, 202, {"Location": where}


def _known(found: redrives.Order | None, redrive_id: str) -> redrives.Order:
    if found is None:
        raise Problem(404, f'there is no order "{redrive_id[:100]}"')
    return found


_Reader = Callable[[str, Any], object]


def _parameter(key: str, value: Any) -> object:
    if isinstance(value, str):
        return PARAMETERS[key].read(key, value)
    raise ValueError(f"{key}: a text is needed")


def _state(key: str, value: Any) -> object:
    if value not in STATES:
        raise ValueError(f"{key}: only what is {' or '.join(STATES)} is sent again")
    return value


def _number(most: int) -> _Reader:
    def read(key: str, value: Any) -> object:
        # JSON knows no difference between 600 and 600.0.
        if isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value <= most and value % 1 == 0:
            return int(value)
        raise ValueError(f"{key}: a whole number from 1 to {most} is needed")

    return read


def _flag(key: str, value: Any) -> object:
    if isinstance(value, bool):
        return value
    raise ValueError(f"{key}: true or false is needed")


_ORDER: Mapping[str, _Reader] = {
    **dict.fromkeys(_FILTERS, _parameter), "state": _state, "per_minute": _number(MOST_PER_MINUTE), "dry_run": _flag,
}  # fmt: skip
_TELLING: Mapping[str, _Reader] = {"notifier": _parameter, "sequence": _number(_MOST_SEQUENCE), "bucket": _parameter}


def _wanted(said: Mapping[str, Any], readers: Mapping[str, _Reader]) -> Facts:
    """Return what a body says, key by key. Raises Problem with every fault."""
    found, faults = {}, []
    for key, value in said.items():
        if key not in readers:
            shown = key[:100]
            faults.append(f'unknown key "{shown}"{suggest(shown, readers)}; there are: {listing(readers)}')
            continue
        try:
            found[key] = readers[key](key, value)
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise Problem(400, "; ".join(faults[:_MOST_FAULTS]))
    return found
