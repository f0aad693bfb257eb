"""Silences as people make them: the preview, the making, and how JSON shows them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from bridge.decide.rules.gates import scope_of
from bridge.decide.rulesfile.silences import MOST, Wanted, too_costly
from bridge.decide.text.times import iso
from bridge.decide.whatif.replay import Preview, RoutingResult
from bridge.model import Silence
from bridge.record.database import ms
from bridge.record.outbox import silences
from bridge.record.outbox.silences import Once

Facts = dict[str, Any]

LOOKED_AT = 50_000  # messages, at most: some seconds' work
_LAST = timedelta(days=1)


class TooMany(Exception):
    """There is no room for another silence; the text says what to do."""


class IdUsed(Exception):
    """Another silence was made under this id; the text says so."""


def preview(
    tx: Connection, wanted: Wanted, queue_names: Mapping[str, str], *, now: datetime, most: int = LOOKED_AT
) -> Preview:
    """Return what a silence would have matched of the messages of the last day."""
    found = Preview(scope=wanted.scope, queue_names=queue_names, since=now - _LAST)
    for told in silences.told_since(tx, found.since):
        room = most - found.looked_at
        found.add(_telling(one) for one in told[:room])
        if len(told) > room:
            found.cut = True
            break
    return found


def _telling(one: Once) -> RoutingResult:
    # A level rule asks how long the job has been there at the time, not when it came.
    step = replace(one.transition, seen_at=one.made_at) if one.kind == "level" else one.transition
    return RoutingResult(transition=step, rule=one.rule, notifier=one.notifier, told_at=one.made_at)


def make(tx: Connection, wanted: Wanted, id_: str, *, now: datetime) -> Silence:
    """Store a silence, or return the same one that has this id already. Raises TooMany, IdUsed."""
    made = wanted.silence(id_, now=now)
    there = silences.one(tx, id_)
    if there is None:
        _require_room(tx, wanted, now)
        there = None if silences.add(tx, made) else silences.one(tx, id_)
    if there is not None and not _is_same(there, made):
        raise IdUsed("another silence was made under this id; take a new id for each silence")
    return there or made


def _is_same(there: Silence, made: Silence) -> bool:
    """Tell whether two silences were asked for in the same words, at different times maybe."""
    if (there.spec, there.drop, there.author, there.reason) != (made.spec, made.drop, made.author, made.reason):
        return False
    lasts = ms(there.ends_at) - ms(there.begins_at) == ms(made.ends_at) - ms(made.begins_at)
    return there.ended_by is not None or lasts or ms(there.ends_at) == ms(made.ends_at)


def _require_room(tx: Connection, wanted: Wanted, now: datetime) -> None:
    standing = silences.standing(tx, now=now)
    if len(standing) >= MOST:
        raise TooMany(f"{len(standing)} silences have not ended, and {MOST} are the most; end some first")
    if said := too_costly([wanted.scope, *(scope_of(one.spec) for one in standing)]):
        raise TooMany(said)


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


def _newest(one: RoutingResult) -> Facts:
    step = one.transition
    return {
        "told_at": iso(one.told_at),
        "job": step.job.id,
        "bucket": step.job.bucket,
        "tag": step.job.tag,
        "from": step.was,
        "to": step.to,
        "rule": one.rule,
        "notifier": one.notifier,
    }
