"""POST and DELETE under /api/v1/: what people do by hand. Workers carry it out, so most answers are 202."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any

from flask import request, url_for
from flask.typing import ResponseReturnValue

from bridge.admin import query, redrive_answers
from bridge.admin.answers import DeliveryAccepted, NotifierAccepted, WatchAccepted
from bridge.admin.parts import Parts
from bridge.admin.problems import Problem
from bridge.admin.query import PARAMETERS
from bridge.admin.redrive_answers import NewDelivery, TestWanted
from bridge.admin.routes import Route
from bridge.decide.text.values import listing, suggest
from bridge.pipeline.operations import MOST_PER_MINUTE, RESENDABLE, USUAL_PER_MINUTE
from bridge.record.outbox import batches
from bridge.record.outbox.batches import Batch
from bridge.record.queries.lists import Facts, Filter

_FILTERS = ("since", "until", "notifier", "rule", "job", "digest", "batch")
_MOST_SEQUENCE = 2**31 - 1
_MOST_FAULTS = 20  # of a body, in one answer


class OperationsApi:
    """Only the admin token may ask for them."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def routes(self) -> Iterator[Route]:
        for path, view, answer, says, refuses in (
            ("deliveries/<delivery_id>/redrive", self.redrive, DeliveryAccepted, "send a dead delivery again", (409,)),
            ("notifiers/<path:name>/test", self.test_notifier, NewDelivery, "send a test message", ()),
            ("notifiers/<path:name>/resume", self.resume_notifier, NotifierAccepted, "tell it again", ()),
            ("watches/<path:name>/poll", self.poll_watch, WatchAccepted, "poll now", (409,)),
            ("watches/<path:name>/pause", self.pause_watch, WatchAccepted, "poll no more", ()),
            ("watches/<path:name>/resume", self.resume_watch, WatchAccepted, "poll again", ()),
        ):
            yield Route(
                path=f"/api/v1/{path}", view=view, name=view.__name__, says=says, method="POST", answer=answer,
                located=answer in (DeliveryAccepted, NewDelivery), refuses=(404, 413, 415, *refuses),
                body=TestWanted if answer is NewDelivery else None, body_needed=False,
            )  # fmt: skip

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

    def redrive(self, delivery_id: str) -> ResponseReturnValue:
        _takes_nothing()
        self._parts.operations().redrive(delivery_id)
        return _accepted(delivery_id)

    def test_notifier(self, name: str) -> ResponseReturnValue:
        query.parameters(request, [])
        id_ = query.maybe_json_of(request, TestWanted).id
        test = self._parts.operations().test_notifier(self._parts.book(), name, key=id_)
        return _accepted(test.delivery, waits=test.waits)

    def resume_notifier(self, name: str) -> ResponseReturnValue:
        _takes_nothing()
        self._parts.operations().resume_notifier(name, self._parts.book())
        return {"notifier": name, "paused": False}, 202

    def poll_watch(self, name: str) -> ResponseReturnValue:
        _takes_nothing()
        self._parts.operations().poll_watch(self._parts.book(), name)
        return {"watch": name, "paused": False}, 202

    def pause_watch(self, name: str) -> ResponseReturnValue:
        _takes_nothing()
        self._parts.operations().pause_watch(self._parts.book(), name)
        return {"watch": name, "paused": True}, 202

    def resume_watch(self, name: str) -> ResponseReturnValue:
        _takes_nothing()
        self._parts.operations().resume_watch(self._parts.book(), name)
        return {"watch": name, "paused": False}, 202

    def resend(self) -> ResponseReturnValue:
        query.parameters(request, [])
        wanted = _wanted(query.object_of(request), _RESEND)
        which = Filter(state=wanted.get("state", RESENDABLE[0]), **{key: wanted.get(key) for key in _FILTERS})
        if not any(key in wanted for key in _FILTERS):
            raise Problem(400, f"say which deliveries, with at least one of {listing(_FILTERS)}")
        if wanted.get("dry_run"):
            with self._parts.db.read() as tx:
                batch = Batch(id="", scheduled=batches.count(tx, which))
            return batch.facts() | {"id": None}, 200
        interval = timedelta(minutes=1) / wanted.get("per_minute", USUAL_PER_MINUTE)
        batch = self._parts.operations().redrive_batch(which, interval=interval)
        if not batch.total:
            return batch.facts() | {"id": None}, 200
        return batch.facts(), 202, {"Location": url_for("read_batch", batch_id=batch.id)}

    def batch(self, batch_id: str) -> ResponseReturnValue:
        query.parameters(request, [])
        with self._parts.db.read() as tx:
            found = batches.progress(tx, batch_id, now=self._parts.clock())
        if found is None:
            raise Problem(404, f'there is no batch "{batch_id[:100]}"')
        return found.facts()

    def cancel(self, batch_id: str) -> ResponseReturnValue:
        _takes_nothing()
        batch, cancelled = self._parts.operations().cancel_batch(batch_id)
        return batch.facts() | {"cancelled": cancelled}

    def notify(self, job_id: str) -> ResponseReturnValue:
        query.parameters(request, [])
        wanted = _wanted(query.object_of(request), _NOTIFY)
        if "notifier" not in wanted:
            raise Problem(400, "notifier: say which one is to be told")
        delivery = self._parts.operations().notify(self._parts.book(), job_id=job_id, **wanted)
        return _accepted(delivery.delivery, waits=delivery.waits)


def _takes_nothing() -> None:
    query.parameters(request, [])
    query.nothing(request)


def _accepted(delivery_id: str, **more: str | None) -> ResponseReturnValue:
    return {"delivery": delivery_id, **more}, 202, {"Location": url_for("read_delivery", delivery_id=delivery_id)}


_Reader = Callable[[str, Any], object]


def _parameter(key: str, value: Any) -> object:
    if isinstance(value, str):
        return PARAMETERS[key].read(key, value)
    raise ValueError(f"{key}: a text is needed")


def _state(key: str, value: Any) -> object:
    if value not in RESENDABLE:
        raise ValueError(f"{key}: only what is {' or '.join(RESENDABLE)} can be resent")
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
_NOTIFY: Mapping[str, _Reader] = {"notifier": _parameter, "sequence": _number(_MOST_SEQUENCE), "bucket": _parameter}


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
