"""What rules would have told, had there not been an earlier one; and what is not on record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bridge.pipeline.explain.edges import Edge
from bridge.pipeline.explain.fates import no_delivery

Facts = dict[str, Any]
_Fates = Mapping[tuple[str, str], Facts]  # by rule and notifier


def untold(edges: Sequence[Edge], deliveries: Sequence[Facts], missing: str) -> Iterator[Facts]:
    """Yield what made no delivery; `missing` says why one may be that is not there."""
    # A fallback is told of the same message, and may itself be among those that the rule names.
    ordered = sorted(
        (one for one in deliveries if one["kind"] == "transition"), key=lambda one: not one["fallback_for"]
    )
    fates = {(one["rule"], one["notifier"]): one for one in ordered}
    first: dict[str, str] = {}
    for edge in edges:
        rule = edge.rule
        if edge.stopped and not edge.misses:
            yield from (no_delivery(rule, name, "stopped", edge.verdict.why_not or "") for name in rule.notify)
        for name in edge.verdict.already:
            yield no_delivery(rule, name, "already_told", _already(first[name], name, fates))
        for name in edge.verdict.notifiers:
            if (rule.name, name) not in fates:
                yield no_delivery(rule, name, "not_on_record", f"no delivery is on record: {missing}")
            if not rule.group:
                first.setdefault(name, rule.name)


def _already(rule: str, notifier: str, fates: _Fates) -> str:
    fate = fates.get((rule, notifier))
    return f'rule "{rule}" above is the one that tells {notifier} of this ({_briefly(fate)})'


def _briefly(fate: Facts | None) -> str:
    if fate is None:
        return "not on record"
    match fate["answer"]:
        case "sent":
            return f"sent at {fate['ended_at']}"
        case "digest" | "muted" | "silenced" | "throttled":
            return f"held until {fate['until']}"
        case "merged":
            return f"told in {fate['told_by']}" if fate["told_by"] else "told in a digest"
        case "waiting" | "retrying":
            return "waits to be sent"
        case "paused":
            return "waits, the notifier is paused"
        case "at_once":
            return "at once"
    return str(fate["answer"])  # dead, dropped
