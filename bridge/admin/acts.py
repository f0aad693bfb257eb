"""POST /api/v1/...: what a person does by hand. Workers carry it out, so the answer is 202."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from flask import request, url_for
from flask.typing import ResponseReturnValue

from bridge.admin import query
from bridge.admin.answers import DeliveryAccepted, NotifierAccepted, WatchAccepted
from bridge.admin.parts import Parts
from bridge.admin.problems import Problem
from bridge.admin.redrive_answers import NewDelivery, TestWanted
from bridge.admin.routes import Route
from bridge.decide.text.values import listing, suggest
from bridge.model import Watch
from bridge.pipeline import manual
from bridge.record.outbox import entries
from bridge.record.polling import leases
from bridge.record.queries import gauges, lists


class Acts:
    """The deeds; only the admin token may ask for them."""

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

    def redrive(self, delivery_id: str) -> ResponseReturnValue:
        _takes_nothing()
        with self._parts.db.write() as tx:
            done = entries.redrive(tx, lists.numbers_of([delivery_id]), now=self._parts.clock())
            found = None if done else lists.delivery(tx, delivery_id)
        if done:
            return _accepted_delivery(delivery_id)
        if found is None:
            raise Problem(404, f'there is no delivery "{delivery_id[:100]}"')
        raise Problem(409, f"delivery {delivery_id} is {found['state']}; only a dead or a dropped one can be resent")

    def test_notifier(self, name: str) -> ResponseReturnValue:
        query.parameters(request, [])
        id_ = query.maybe_json_of(request, TestWanted).id
        notifiers = self._parts.book().notifiers
        if name not in notifiers:
            raise _nobody("notifier", name, notifiers)
        # Under an id of the client's it is the same message, which is stored once.
        nonce, now = f"id {id_}" if id_ else self._parts.nonce(), self._parts.clock()
        with self._parts.db.write() as tx:
            asked = manual.send_test(tx, notifiers[name], nonce=nonce, now=now)
        return _accepted_delivery(asked.delivery, waits=asked.waits)

    def resume_notifier(self, name: str) -> ResponseReturnValue:
        _takes_nothing()
        notifiers = self._parts.book().notifiers
        with self._parts.db.write() as tx:
            known = entries.resume(tx, name)
        if not known and name not in notifiers:
            raise _nobody("notifier", name, notifiers)
        return {"notifier": name, "paused": False}, 202

    def poll_watch(self, name: str) -> ResponseReturnValue:
        watch = self._watch(name)
        with self._parts.db.write() as tx:
            leases.sync(tx, [watch], [])
            if any(row["paused"] for row in gauges.watches(tx) if row["name"] == name):
                raise Problem(409, f'watch "{name}" is paused; resume it, and it is polled')
            leases.set_watch(tx, name, poll_now=True)
        return {"watch": name, "paused": False}, 202

    def pause_watch(self, name: str) -> ResponseReturnValue:
        return self._set_paused(name, paused=True)

    def resume_watch(self, name: str) -> ResponseReturnValue:
        return self._set_paused(name, paused=False)

    def _set_paused(self, name: str, *, paused: bool) -> ResponseReturnValue:
        watch = self._watch(name)
        with self._parts.db.write() as tx:
            leases.sync(tx, [watch], [])  # no worker may have started yet
            leases.set_watch(tx, name, paused=paused)
        return {"watch": name, "paused": paused}, 202

    def _watch(self, name: str) -> Watch:
        _takes_nothing()
        watches = {watch.name: watch for watch in self._parts.book().watches}
        if name not in watches:
            raise _nobody("watch", name, watches)
        return watches[name]


def _takes_nothing() -> None:
    query.parameters(request, [])
    query.nothing(request)


def _nobody(kind: str, name: str, known: Iterable[str]) -> Problem:
    shown = name[:100]
    return Problem(404, f'rules.toml has no {kind} "{shown}"{suggest(shown, known)}; there are: {listing(known)}')


def _accepted_delivery(delivery_id: str, **more: str | None) -> ResponseReturnValue:
    return {"delivery": delivery_id, **more}, 202, {"Location": url_for("read_delivery", delivery_id=delivery_id)}
