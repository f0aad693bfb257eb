"""Telling by hand: a person sends what a transition would have said to a notifier that no rule told."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection

from bridge.decide.messages.build import address, test_message
from bridge.decide.messages.digest import delivery_id
from bridge.decide.routing import tell_by_hand as telling_of
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.text.values import listing, suggest
from bridge.model import Notifier, Transition
from bridge.record import rulesets
from bridge.record.outbox import entries
from bridge.record.polling import snapshots
from bridge.record.queries import explanations, lists

logger = logging.getLogger(__name__)

_NO_WORKER = "no worker runs, so it waits in the outbox: start one with `ci-bridge worker` or `ci-bridge run`"


class NotTold(Exception):
    """It cannot be told; the text says why, and `status` is that of HTTP."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The delivery that a worker sends, and why it waits, if it does."""

    delivery: str
    waits: str | None


def tell_by_hand(
    tx: Connection,
    book: Rulebook,
    *,
    job_id: str,
    notifier: str,
    author: str,
    now: datetime,
    bucket: str | None = None,
    sequence: int | None = None,
) -> Asked:
    """Store what a transition (None: the job's last) says to a notifier; asked twice it is the same delivery.

    Raises NotTold where there is no such job, transition or notifier, or where it waits already or was sent.
    """
    if notifier not in book.notifiers:
        near = suggest(notifier, book.notifiers)
        there_are = listing(book.notifiers)
        raise NotTold(404, f'rules.toml has no notifier "{notifier[:100]}"{near}; there are: {there_are}')
    step = _chosen(snapshots.transitions_of(tx, job_id), job_id, bucket, sequence)
    told, faults = telling_of(step, book, book.notifiers[notifier], author)
    if stored := entries.stored_id(tx, told.message):  # by an older version, which made other ids
        message = replace(told.message, id=stored)
        told = replace(told, message=message, id=delivery_id(stored, notifier))
    for fault in faults:
        logger.warning("template fell back to the usual form", extra={"notifier": notifier, "fault": fault})
    _refuse_twice(tx, told.id)
    entries.put(tx, [told], now=now)
    entries.redrive(tx, lists.numbers_of([told.id]), now=now)
    logger.info("told by hand", extra={"delivery": told.id, "author": author})
    return Asked(delivery=told.id, waits=_why_it_waits(tx, notifier))


def send_test(tx: Connection, notifier: Notifier, *, nonce: str, now: datetime) -> Asked:
    """Store a test message. A worker sends it now, even to a notifier that is left alone: who asks wants to know."""
    told = address(test_message(notifier.name, nonce=nonce, now=now), notifier)
    entries.put(tx, [told], now=now, at_once=True)
    nobody = None if rulesets.standing(tx, now=now).alive else _NO_WORKER
    return Asked(delivery=told.id, waits=_why_it_waits(tx, notifier.name) or nobody)


def _chosen(found: Sequence[snapshots.Judged], job_id: str, bucket: str | None, sequence: int | None) -> Transition:
    steps = [one.transition for one in found if bucket in (None, one.transition.job.bucket)]
    buckets = sorted({step.job.bucket for step in steps})
    if not steps:
        where = f" in bucket {bucket[:100]}" if bucket else ""
        raise NotTold(404, f'no transition of a job "{job_id[:100]}"{where} is on record')
    if len(buckets) > 1:
        raise NotTold(409, f'several buckets have a job "{job_id}"; name one of them: {listing(buckets)}')
    by_number = {step.sequence: step for step in steps}
    if sequence is None:
        return steps[-1]
    if sequence not in by_number:
        there_are = listing(f"{step.sequence} ({step.to})" for step in steps)
        raise NotTold(404, f'job "{job_id}" has no transition {sequence}; there are: {there_are}')
    return by_number[sequence]


def _refuse_twice(tx: Connection, delivery_id: str) -> None:
    found = lists.delivery(tx, delivery_id)
    if found and found["state"] not in ("dead", "dropped"):
        raise NotTold(409, f"it was told by hand before: delivery {delivery_id} is {found['state']}")


def _why_it_waits(tx: Connection, notifier: str) -> str | None:
    standing = explanations.standings(tx).get(notifier)
    if standing is None or standing.paused_at is None:
        return None
    why = " ".join((standing.paused_why or "").split())
    return f"notifier {notifier} is paused: {why}; it is told when it is resumed (ci-bridge notifier resume {notifier})"
