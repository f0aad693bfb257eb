"""Edits of Slack roots: claim those that are due, record how they ended, and what shows only as an edit with them."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection

from bridge.decide.rules.rulebook import Rulebook
from bridge.model import Attempt, Content, Reason, Rejected, RetryLater, RootEdit, Sent, SharedLimit
from bridge.notifiers import Notifier
from bridge.pipeline.housekeeping import CLAIM_LEASE, notify_fallbacks, retry_of
from bridge.record.outbox import claims, entries, limits, results, roots
from bridge.record.outbox.results import Ended

logger = logging.getLogger(__name__)


# --- claims ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClaimedEdits:
    """What was claimed, and when an edit that waits for its limit may go on."""

    edits: Sequence[RootEdit] = ()
    again_at: datetime | None = None


def are_due(tx: Connection, book: Rulebook, now: datetime) -> bool:
    names = book.editing
    return bool(names) and bool(roots.due_notifiers(tx, names, updating=book.updating, now=now))


def claim(tx: Connection, book: Rulebook, *, free: int, lease: str, now: datetime, threshold: int) -> ClaimedEdits:
    """Claim an edit for each limit that is free, of the notifiers that share it in turn."""
    names = book.editing
    due = roots.due_notifiers(tx, names, updating=book.updating, now=now) if names and free > 0 else ()
    available = claims.available(tx, due, now=now, threshold=threshold) if due else ()
    by_limit: dict[str, list[str]] = defaultdict(list)
    shared: dict[str, SharedLimit] = {}
    for name in available:
        if limit := names[name].edit_limit:
            shared[limit.name] = limit
            by_limit[limit.name].append(name)
    claimed: list[RootEdit] = []
    again: list[datetime] = []
    for state in limits.read(tx, shared.values(), now=now).values() if shared else ():
        if state.free_at <= now and len(claimed) < free:
            users = sorted(by_limit[state.limit.name], key=lambda name: (name <= state.served, name))
            claimed += _claim_one(tx, state, [names[user] for user in users], lease, now)
            again.append(now + state.limit.interval)
        else:
            again.append(state.free_at)
    return ClaimedEdits(claimed, min(again) if again else None)


def _claim_one(
    tx: Connection, state: limits.LimitState, users: Iterable[Notifier], lease: str, now: datetime
) -> list[RootEdit]:
    for user in users:
        if not limits.take(tx, state, user.name, now=now):
            return []
        edits = roots.claim(
            tx, user.name, room=1, lease=lease, lease_for=CLAIM_LEASE, now=now, updating=user.updates
        )  # fmt: skip
        if edits:
            return edits
        limits.give_back(tx, state)
    return []


_SOON, _LATER = timedelta(minutes=1), timedelta(hours=1)


# --- results --------------------------------------------------------------------------------------------------------


def settle(
    tx: Connection, ended: Sequence[tuple[RootEdit, Ended]], book: Rulebook, *, lease: str, now: datetime
) -> None:
    """Record how edits ended: accepted, to be tried again, given up, or that their root is gone."""
    for edit, end in ended:
        match end.attempt.outcome:
            case Sent(receipt=receipt):
                _shown(tx, edit, receipt or edit.root or "", now)
            case RetryLater() as outcome:
                _later(tx, end, edit, outcome, book, lease, now)
            case Rejected(pause=True) as outcome:
                roots.hand_back(tx, edit)
                entries.pause(tx, edit.notifier, outcome.why, outcome.reason, now=now)
            case Rejected(reason=Reason.GONE, why=why):
                logger.info("the root of a slack thread is gone", extra=_facts(edit, why))
                roots.forget(tx, edit, why)
                roots.release_orphans(tx, book.updating, now=now)
            case Rejected(why=why):
                _give_up(tx, edit, end.attempt, book, lease=lease, before=None, why=why, now=now)


def catch_up(tx: Connection, attempts: Iterable[Attempt], book: Rulebook, now: datetime) -> None:
    """Let roots show what was sent under them, if that is newer: a worker of an older version put it there."""
    sent = [attempt.delivery for attempt in attempts if isinstance(attempt.outcome, Sent) and attempt.delivery.thread]
    for delivery in sent if book.updating else ():
        notifier, thread = delivery.notifier, delivery.thread or ""
        if notifier in book.updating and delivery.is_newer_than_wanted:
            roots.want(tx, {(notifier, thread): Content(delivery.says, delivery.event, delivery.happened_at)}, now=now)


def _shown(tx: Connection, edit: RootEdit, receipt: str, now: datetime) -> None:
    if roots.shown(tx, edit, receipt, now=now):
        roots.merge(tx, edit.notifier, edit.thread or "", up_to=edit.wanted_no, now=now)
    else:
        logger.warning("lease lost, the root of a slack thread is edited again", extra=_facts(edit))


def _later(
    tx: Connection, end: Ended, edit: RootEdit, outcome: RetryLater, book: Rulebook, lease: str, now: datetime
) -> None:
    due = end.again_at or now
    if outcome.limit:
        limits.hold(tx, outcome.limit, due)
        roots.hand_back(tx, edit)
        return
    if outcome.whole_notifier:
        entries.postpone_notifier(tx, edit.notifier, due, asked=end.retry_due)
    if end.again_at and end.retry_due is not None:
        roots.postpone(tx, edit, due, why=outcome.why, retry_from=end.retry_from, retry_due=end.retry_due)
    else:
        # What was put later has its own time, unless asking again is of no use.
        before = None if outcome.attempts else now - retry_of(edit.notifier, book)
        _give_up(tx, edit, end.attempt, book, lease=lease, before=before, why=outcome.why, now=now)


def _give_up(
    tx: Connection,
    edit: RootEdit,
    attempt: Attempt,
    book: Rulebook,
    *,
    lease: str,
    before: datetime | None,
    why: str,
    now: datetime,
) -> None:
    """Try the edit again in an hour; what shows only as this edit, and was put before then, is dead."""
    logger.warning("the root of a slack thread cannot be edited", extra=_facts(edit, why))
    thread = edit.thread or ""
    over = roots.held(tx, edit.notifier, thread, up_to=edit.wanted_no, before=before)
    waits = len(roots.held(tx, edit.notifier, thread, up_to=edit.wanted_no)) - len(over)
    roots.begin_anew(tx, edit, why, due=now + (_SOON if waits else _LATER))
    # One by one: of those that are kept in order only one can be claimed.
    for number in over:
        delivery = claims.claim_held(tx, number, lease=lease, lease_for=CLAIM_LEASE, now=now)
        if delivery is None:
            continue
        dead = replace(attempt, delivery=delivery, outcome=Rejected(f"the edit that shows it failed: {why}"), seconds=0)
        results.settle(tx, [Ended(dead)], now=now)
        notify_fallbacks(tx, [dead], book, now)


def _facts(edit: RootEdit, why: str = "") -> dict[str, str]:
    return {"notifier": edit.notifier, "root": edit.thread or "", **({"reason": why} if why else {})}
