"""Resending and telling by hand: what a person wants told that was not. Workers send it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any

from flask import request, url_for
from flask.typing import ResponseReturnValue
from pydantic import RootModel

from bridge.admin import query, redrive_answers
from bridge.admin.parts import Parts
from bridge.admin.problems import Problem
from bridge.admin.query import PARAMETERS
from bridge.admin.routes import Route
from bridge.decide.text.facts import ident
from bridge.decide.text.values import listing, suggest
from bridge.pipeline.manual import NotTold, tell_by_hand
from bridge.pipeline.resend import (
    MOST_PER_MINUTE,
    STATES,
    USUAL_PER_MINUTE,
    TooMany,
    batch_facts,
    cancel,
    resend,
)
from bridge.record.outbox import batches
from bridge.record.outbox.batches import Batch
from bridge.record.queries.lists import Filter

_BY = "api"  # who asks
_FILTERS = ("since", "until", "notifier", "rule", "job", "digest", "batch")
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
            path="/api/v1/deliveries/redrive", view=self.resend, name="add_redrive", method="POST",
            says="resend all that the filters find, some a minute; with dry_run only say how many that would be",
            body=redrive_answers.RedriveWanted, answer=redrive_answers.BatchMade, located=True, also=(200,),
            refuses=(409, 413, 415),
        )  # fmt: skip
        yield Route(
            path="/api/v1/deliveries/batches/<batch_id>", view=self.batch, name="read_batch",
            says="how far a batch of resent deliveries is", answer=redrive_answers.Batch, refuses=(404,),
        )  # fmt: skip
        yield Route(
            path="/api/v1/deliveries/batches/<batch_id>", view=self.cancel, name="cancel_batch", method="DELETE",
            says="let what is not due yet of a batch be dead again", answer=redrive_answers.BatchCancelled,
            refuses=(404, 413, 415),
        )  # fmt: skip
        yield Route(
            path="/api/v1/jobs/<job_id>/tell", view=self.notify, name="tell_by_hand", method="POST",
            says="tell a notifier of a transition that no rule told it of", body=redrive_answers.TellWanted,
            answer=redrive_answers.NewDelivery, located=True, refuses=(404, 409, 413, 415),
        )  # fmt: skip

    def resend(self) -> ResponseReturnValue:
        query.parameters(request, [])
        wanted = _wanted(query.json_of(request, _Object).root, _RESEND)
        which = Filter(state=wanted.get("state", STATES[0]), **{key: wanted.get(key) for key in _FILTERS})
        if not any(key in wanted for key in _FILTERS):
            raise Problem(400, f"say which deliveries, with at least one of {listing(_FILTERS)}")
        if wanted.get("dry_run"):
            with self._parts.db.read() as tx:
                total = batches.count(tx, which)
            return batch_facts(Batch(id="", scheduled=total)) | {"id": None}, 200
        batch = self._resent(which, interval=timedelta(minutes=1) / wanted.get("per_minute", USUAL_PER_MINUTE))
        if not batch.total:
            return batch_facts(batch) | {"id": None}, 200
        return batch_facts(batch), 202, {"Location": url_for("read_batch", batch_id=batch.id)}

    def _resent(self, which: Filter, *, interval: timedelta) -> Batch:
        id_, now = ident("rdr", self._parts.nonce()), self._parts.clock()
        try:
            return resend(self._parts.db, which, id_=id_, interval=interval, author=_BY, now=now)
        except TooMany as error:
            raise Problem(409, str(error)) from error

    def batch(self, batch_id: str) -> ResponseReturnValue:
        query.parameters(request, [])
        with self._parts.db.read() as tx:
            return batch_facts(_known(batches.progress(tx, batch_id, now=self._parts.clock()), batch_id))

    def cancel(self, batch_id: str) -> ResponseReturnValue:
        query.parameters(request, [])
        query.nothing(request)
        found, cancelled = cancel(self._parts.db, batch_id, author=_BY, now=self._parts.clock())
        return batch_facts(_known(found, batch_id)) | {"cancelled": cancelled}

    def notify(self, job_id: str) -> ResponseReturnValue:
        query.parameters(request, [])
        wanted = _wanted(query.json_of(request, _Object).root, _TELLING)
        if "notifier" not in wanted:
            raise Problem(400, "notifier: say which one is to be told")
        try:
            with self._parts.db.write() as tx:
                asked = tell_by_hand(
                    tx, self._parts.book(), job_id=job_id, author=_BY, now=self._parts.clock(), **wanted
                )
        except NotTold as error:
            raise Problem(error.status, str(error)) from error
        where = url_for("read_delivery", delivery_id=asked.delivery)
        return {"delivery": asked.delivery, "waits": asked.waits}, 202, {"Location": where}


def _known(found: Batch | None, batch_id: str) -> Batch:
    if found is None:
        raise Problem(404, f'there is no batch "{batch_id[:100]}"')
    return found


_Reader = Callable[[str, Any], object]


def _parameter(key: str, value: Any) -> object:
    if isinstance(value, str):
        return PARAMETERS[key].read(key, value)
    raise ValueError(f"{key}: a text is needed")


def _state(key: str, value: Any) -> object:
    if value not in STATES:
        raise ValueError(f"{key}: only what is {' or '.join(STATES)} can be resent")
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


_RESEND: Mapping[str, _Reader] = {
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
