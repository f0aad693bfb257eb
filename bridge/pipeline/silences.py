"""Silences: what one would have matched, and how JSON shows them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.silences import SilenceRequest, silence_warnings
from bridge.decide.text.times import iso
from bridge.decide.whatif.replay import PastMessage, Preview
from bridge.model import Silence
from bridge.record.outbox import silences
from bridge.record.outbox.silences import RuleMessage

Facts = dict[str, Any]

LOOKED_AT = 50_000  # messages of a preview, at most: some seconds' work
LOOKED_AT_IN_WEB = 10_000  # a second's work, in a process that may also deliver
_LAST = timedelta(days=1)
_NO_RULES = "the rules cannot be read here, so no name was checked, and aliases of queues are unknown in the preview"


def foresee(
    tx: Connection, wanted: SilenceRequest, book: Rulebook | None, *, now: datetime, most: int = LOOKED_AT
) -> Facts:
    """Return what a silence would have matched of the last day, and what of it may be a slip of the pen."""
    if book is None:
        found, warnings = preview(tx, wanted, {}, now=now, most=most), [_NO_RULES]
    else:
        found = preview(tx, wanted, book.queue_names, now=now, most=most)
        warnings = silence_warnings(
            wanted.scope, rules=[rule.name for rule in book.rules], notifiers=book.notifiers, watches=book.watches,
            queue_names=book.queue_names,
        )  # fmt: skip
    return {"preview": preview_facts(found), "warnings": warnings}


def preview(
    tx: Connection, wanted: SilenceRequest, queue_names: Mapping[str, str], *, now: datetime, most: int = LOOKED_AT
) -> Preview:
    """Return what a silence would have matched of the messages of the last day."""
    found = Preview(scope=wanted.scope, queue_names=queue_names, since=now - _LAST)
    for told in silences.messages_since(tx, found.since):
        room = most - found.looked_at
        found.add(_past_message(one) for one in told[:room])
        if len(told) > room:
            found.cut = True
            break
    return found


def _past_message(one: RuleMessage) -> PastMessage:
    # A level rule asks how long the job has been there at the time, not when it came.
    step = replace(one.transition, seen_at=one.created_at) if one.kind == "level" else one.transition
    return PastMessage(transition=step, rule=one.rule, notifier=one.notifier, sent_at=one.created_at)


def silence_facts(silence: Silence, held: int, *, now: datetime) -> Facts:
    return {
        "id": silence.id,
        "state": "active" if silence.ends_at > now else "over",
        "matches": json.loads(silence.spec),
        "mode": "drop" if silence.drop else "hold",
        "author": silence.author,
        "reason": silence.reason,
        "begins_at": iso(silence.begins_at),
        "ends_at": iso(silence.ends_at),
        "ended_by": silence.ended_by,
        "held": held,
    }


def preview_facts(found: Preview) -> Facts:
    return {
        "since": iso(found.since),
        "looked_at": found.looked_at,
        "cut": found.cut,
        "matched": found.matched,
        "by": [
            {"rule": rule, "notifier": notifier, "messages": count}
            for (rule, notifier), count in found.counts.most_common()
        ],
        "newest": [_newest(one) for one in found.newest],
    }


def _newest(one: PastMessage) -> Facts:
    step = one.transition
    return {
        "told_at": iso(one.sent_at),
        "job": step.job.id,
        "bucket": step.job.bucket,
        "tag": step.job.tag,
        "from": step.was,
        "to": step.to,
        "rule": one.rule,
        "notifier": one.notifier,
    }
