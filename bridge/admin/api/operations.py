"""POST and DELETE under /api/v1/: what people do manually. Workers carry it out, so most responses are 202."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

from flask import request, url_for
from flask.typing import ResponseReturnValue

from bridge.admin.http import query
from bridge.admin.http.problems import Problem, fault_at, faulty
from bridge.admin.http.routes import Endpoints, Route, answer
from bridge.admin.schemas import deliveries
from bridge.admin.schemas.deliveries import (
    DeliveryAccepted,
    NewDelivery,
    NotifierPauseRequest,
    NotifierTestRequest,
    NotifyRequest,
)
from bridge.admin.schemas.incidents import AcknowledgeRequest, Incident
from bridge.admin.schemas.rulebook import NotifierAccepted, WatchAccepted
from bridge.admin.schemas.silences import NewSilence, Silence, SilenceEdit, SilenceMade
from bridge.decide.rulesfile.silences import read_silence
from bridge.decide.text.values import FieldFaults
from bridge.pipeline.incident_facts import incident_details
from bridge.pipeline.operations import LOOKED_AT_IN_WEB, Accepted, foresee, silence_facts
from bridge.record.outbox import batches
from bridge.record.outbox.batches import Batch
from bridge.record.queries.lists import Filter


class OperationsApi(Endpoints):
    """Only the admin token may use them."""

    def routes(self) -> Iterator[Route]:
        def post(path: str, view: Any, summary: str, **more: Any) -> Route:
            refuses = (404, 413, 415, *more.pop("refuses", ()))
            return Route(
                path=f"/api/v1/{path}", view=view, method="POST", summary=summary, refuses=refuses,
                **{"name": view.__name__, **more},
            )  # fmt: skip

        yield post(
            "deliveries/<delivery_id>/redrive", self.redrive, "resend a dead, dropped or discarded delivery",
            answer=DeliveryAccepted, located=True, refuses=(409,),
        )  # fmt: skip
        yield post(
            "deliveries/<delivery_id>/discard", self.discard, "discard a dead delivery: it ends, unless it is resent",
            body=deliveries.DiscardRequest, answer=DeliveryAccepted, done=200, refuses=(409,),
        )  # fmt: skip
        yield post(
            "notifiers/<path:name>/test", self.test_notifier, "send a test message", answer=NewDelivery, located=True,
            body=NotifierTestRequest, body_needed=False,
        )  # fmt: skip
        yield post(
            "notifiers/<path:name>/pause", self.pause_notifier, "send a notifier nothing; its deliveries wait",
            body=NotifierPauseRequest, answer=NotifierAccepted, refuses=(409,),
        )  # fmt: skip
        summary = "resume a paused notifier"
        yield post("notifiers/<path:name>/resume", self.resume_notifier, summary, answer=NotifierAccepted)
        yield post("watches/<path:name>/poll", self.poll_watch, "poll now", answer=WatchAccepted, refuses=(409,))
        yield post("watches/<path:name>/pause", self.pause_watch, "stop polling", answer=WatchAccepted)
        yield post("watches/<path:name>/resume", self.resume_watch, "resume polling", answer=WatchAccepted)
        yield post(
            "jobs/<job_id>/tell", self.notify, "notify manually of a transition that no rule notified of",
            name="tell_by_hand", body=NotifyRequest, answer=NewDelivery, located=True, refuses=(409,),
        )  # fmt: skip
        yield post(
            "incidents/<incident_id>/acknowledge", self.acknowledge,
            "say that somebody takes care of an incident, which then does not escalate",
            body=AcknowledgeRequest, body_needed=False, answer=Incident, done=200, refuses=(409,),
        )  # fmt: skip
        yield from self._batch_routes()
        yield from self._silence_routes()

    def _batch_routes(self) -> Iterator[Route]:
        yield Route(
            path="/api/v1/deliveries/redrive", view=self.resend, name="add_redrive", method="POST",
            summary="resend all that match the filters, some per minute; with dry_run only count them",
            body=deliveries.RedriveRequest, answer=deliveries.BatchMade, located=True, also=(200,),
            refuses=(409, 413, 415),
        )  # fmt: skip
        yield Route(
            path="/api/v1/deliveries/discard", view=self.discard_all, name="discard_all", method="POST",
            summary="discard the dead ones that match the filters, as a batch; with dry_run only count them",
            body=deliveries.DiscardAllRequest, answer=deliveries.BatchMade, done=200, refuses=(409, 413, 415),
        )  # fmt: skip
        yield Route(
            path="/api/v1/deliveries/batches/<batch_id>", view=self.batch, name="read_batch",
            summary="the progress of a batch of resent or discarded deliveries", answer=deliveries.Batch,
            refuses=(404,),
        )  # fmt: skip
        yield Route(
            path="/api/v1/deliveries/batches/<batch_id>", view=self.cancel, name="cancel_batch", method="DELETE",
            summary="cancel a batch: deliveries that are not due yet become dead letters",
            answer=deliveries.BatchCancelled, refuses=(404, 413, 415),
        )  # fmt: skip

    def _silence_routes(self) -> Iterator[Route]:
        yield Route(
            path="/api/v1/silences", view=self.add_silence, name="add_silence", method="POST",
            summary="hold (or drop) what matches, until it ends; with dry_run only show what it would have matched",
            body=NewSilence, answer=SilenceMade, done=201, also=(200,), refuses=(409, 413, 415),
        )  # fmt: skip
        yield Route(
            path="/api/v1/silences/<silence_id>", view=self.change_silence, name="change_silence", method="PATCH",
            summary="change the end or the reason of a silence; what it holds is sent at the new end", answer=Silence,
            body=SilenceEdit, refuses=(404, 409, 413, 415),
        )  # fmt: skip
        yield Route(
            path="/api/v1/silences/<silence_id>", view=self.end_silence, name="end_silence", method="DELETE",
            summary="end a silence now; what it holds is sent in one digest for each notifier", answer=Silence,
            refuses=(404, 409, 413, 415),
        )  # fmt: skip

    # --- deliveries --------------------------------------------------------------------------------------------

    def redrive(self, delivery_id: str) -> ResponseReturnValue:
        query.nothing(request)
        self.operations().redrive(delivery_id)
        return answer(DeliveryAccepted(delivery=delivery_id), 202, _location(delivery_id))

    def discard(self, delivery_id: str) -> ResponseReturnValue:
        asked = query.json_of(request, deliveries.DiscardRequest)
        self.operations().discard(delivery_id, asked.reason)
        return answer(DeliveryAccepted(delivery=delivery_id))

    def discard_all(self) -> ResponseReturnValue:
        asked = query.json_of(request, deliveries.DiscardAllRequest)
        if asked.dry_run:
            batch = Batch(id="", dead=self._count(asked.filter))
        else:
            batch = self.operations().discard_batch(asked.filter, asked.reason)
        return answer(_made(batch, asked.dry_run))

    def _count(self, which: Filter) -> int:
        with self.parts.db.read() as tx:
            return batches.count(tx, which)

    def notify(self, job_id: str) -> ResponseReturnValue:
        asked = query.json_of(request, NotifyRequest)
        return _accepted(
            self.operations().notify(
                self.parts.book(), job_id=job_id, notifier=asked.notifier, bucket=asked.bucket, sequence=asked.sequence
            )
        )

    def resend(self) -> ResponseReturnValue:
        asked = query.json_of(request, deliveries.RedriveRequest)
        if asked.dry_run:
            batch = Batch(id="", scheduled=self._count(asked.filter))
        else:
            interval = timedelta(minutes=1) / asked.per_minute
            batch = self.operations().redrive_batch(asked.filter, interval=interval)
        made = _made(batch, asked.dry_run)
        return answer(made, 202, {"Location": url_for("read_batch", batch_id=made.id)}) if made.id else answer(made)

    def batch(self, batch_id: str) -> ResponseReturnValue:
        query.parameters(request, [])
        with self.parts.db.read() as tx:
            batch = batches.progress(tx, batch_id, now=self.parts.clock())
        if batch is None:
            raise Problem(404, f'there is no batch "{batch_id[:100]}"')
        return answer(deliveries.Batch.model_validate(batch.facts()))

    def cancel(self, batch_id: str) -> ResponseReturnValue:
        query.nothing(request)
        batch, cancelled = self.operations().cancel_batch(batch_id)
        return answer(deliveries.BatchCancelled.model_validate(batch.facts() | {"cancelled": cancelled}))

    # --- incidents ---------------------------------------------------------------------------------------------

    def acknowledge(self, incident_id: str) -> ResponseReturnValue:
        query.parameters(request, [])
        asked = query.json_of(request, AcknowledgeRequest) if query.body(request) else AcknowledgeRequest()
        self.operations(asked.author).acknowledge(incident_id, self.parts.book())
        with self.parts.db.read() as tx:
            found = incident_details(tx, incident_id, self.parts.in_force(tx), now=self.parts.clock(), limit=1)
        if found is None:
            raise Problem(404, f'there is no incident "{incident_id[:100]}"')
        return answer(Incident.model_validate(found[0]))

    # --- notifiers and watches ---------------------------------------------------------------------------------

    def test_notifier(self, name: str) -> ResponseReturnValue:
        query.parameters(request, [])
        asked = query.json_of(request, NotifierTestRequest) if query.body(request) else NotifierTestRequest()
        return _accepted(self.operations().test_notifier(self.parts.book(), name, key=asked.id))

    def pause_notifier(self, name: str) -> ResponseReturnValue:
        query.parameters(request, [])
        asked = query.json_of(request, NotifierPauseRequest)
        self.operations().pause_notifier(self.parts.book(), name, asked.reason)
        return answer(NotifierAccepted(notifier=name, paused=True), 202)

    def resume_notifier(self, name: str) -> ResponseReturnValue:
        query.nothing(request)
        self.operations().resume_notifier(name, self.parts.book())
        return answer(NotifierAccepted(notifier=name, paused=False), 202)

    def poll_watch(self, name: str) -> ResponseReturnValue:
        query.nothing(request)
        self.operations().poll_watch(self.parts.book(), name)
        return answer(WatchAccepted(watch=name, paused=False), 202)

    def pause_watch(self, name: str) -> ResponseReturnValue:
        query.nothing(request)
        self.operations().pause_watch(self.parts.book(), name)
        return answer(WatchAccepted(watch=name, paused=True), 202)

    def resume_watch(self, name: str) -> ResponseReturnValue:
        query.nothing(request)
        self.operations().resume_watch(self.parts.book(), name)
        return answer(WatchAccepted(watch=name, paused=False), 202)

    # --- silences ----------------------------------------------------------------------------------------------

    def add_silence(self) -> ResponseReturnValue:
        given, now = query.object_of(request), self.parts.clock()
        try:
            wanted = read_silence(given, now=now, author=self.by)
        except FieldFaults as error:
            raise faulty(fault_at(filter(None, [fault.key]), str(fault)) for fault in error.faults) from error
        operations = self.operations(wanted.author if "author" in given else None)
        wanted = replace(wanted, author=str(operations.who))
        with self.parts.db.read() as tx:
            facts = foresee(tx, wanted, self.parts.book(), now=now, most=LOOKED_AT_IN_WEB)
        made = None if wanted.dry_run else operations.make_silence(wanted)
        facts["silence"] = made and silence_facts(made, 0, now=now)
        return answer(SilenceMade.model_validate(facts), 201 if made else 200)

    def change_silence(self, silence_id: str) -> ResponseReturnValue:
        given = query.object_of(request)
        try:
            changed, held = self.operations().change_silence(silence_id, given)
        except FieldFaults as error:
            raise faulty(fault_at(filter(None, [fault.key]), str(fault)) for fault in error.faults) from error
        return answer(Silence.model_validate(silence_facts(changed, held, now=self.parts.clock())))

    def end_silence(self, silence_id: str) -> ResponseReturnValue:
        query.nothing(request)
        ended, held = self.operations().end_silence(silence_id)
        return answer(Silence.model_validate(silence_facts(ended, held, now=self.parts.clock())))


def _made(batch: Batch, dry_run: bool) -> deliveries.BatchMade:
    is_there = batch.total and not dry_run
    return deliveries.BatchMade.model_validate(batch.facts() | ({} if is_there else {"id": None}))


def _accepted(new: Accepted) -> ResponseReturnValue:
    return answer(NewDelivery(delivery=new.delivery, waits=new.waits), 202, _location(new.delivery))


def _location(delivery_id: str) -> dict[str, str]:
    return {"Location": url_for("read_delivery", delivery_id=delivery_id)}
