"""The answer in one line, and the facts of one transition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bridge.decide.text.times import iso
from bridge.model import Transition
from bridge.pipeline.explain.edges import Edge

Facts = dict[str, Any]

_MOST_TOLD = 4  # in a headline
_SAID = {
    "sent": "sent",
    "waiting": "waits for its first try",
    "retrying": "waits for a retry",
    "dead": "dead",
    "digest": "waits in a digest",
    "merged": "told in a digest",
    "muted": "muted",
    "silenced": "silenced",
    "throttled": "throttled",
    "dropped": "dropped",
    "paused": "waits, the notifier is paused",
    "not_on_record": "not on record",
    "at_once": "at once",
}
_NOT_TOLD = ("already_told", "stopped")  # an earlier rule did, which is said
_PENDING = ("not_yet", "due", "no_poll")


def answer(
    step: Transition,
    edges: Sequence[Edge],
    levels: Sequence[Facts],
    deliveries: Sequence[Facts],
    messages: Sequence[Facts],
    *,
    rules: str | None,
    notes: Sequence[str] = (),
    none: str = "there are none",
    would_tell_now: Facts | None = None,
) -> Facts:
    """Return all that is known of a transition, the answer in one line first.

    `rules` judged it (their sha); `none` says that no rule was there to match it.
    """
    job = step.job
    return {
        "headline": _headline(step, edges, levels, deliveries, none),
        "job": job.id,
        "bucket": job.bucket,
        "tag": job.tag,
        "queue": job.queue,
        "from": step.was,
        "to": step.to,
        "sequence": step.sequence,
        "happened_at": iso(step.happened_at),
        "seen_at": iso(step.seen_at),
        "watch": step.watch,
        "silent": step.silent,
        "judged_by": rules,
        "notes": list(notes),
        "would_tell_now": would_tell_now,
        "rules": [edge.facts() for edge in edges],
        "levels": list(levels),
        "deliveries": list(deliveries),
        "messages": list(messages),
    }


def _headline(
    step: Transition, edges: Sequence[Edge], levels: Sequence[Facts], deliveries: Sequence[Facts], none: str
) -> str:
    parts = [f"told to nobody: {step.silent}"] if step.silent else []
    told = [one for one in deliveries if one["rule"] and one["answer"] not in _NOT_TOLD]
    if told:
        parts.append(_told(told))
    elif not step.silent:
        parts.append(_nobody(edges, levels) or f"no rule matched: {none}")
    parts += [f"by hand to {one['notifier']}: {_SAID[one['answer']]}" for one in deliveries if not one["rule"]]
    heard = {one["rule"] for one in told}
    waiting = [one for one in levels if one["answer"] in _PENDING and one["rule"] not in heard]
    if waiting and (edges or told or step.silent):
        parts.append(f"{_named(waiting[0])}: {waiting[0]['why']}")
    return "; ".join(parts)


def _told(deliveries: Sequence[Facts]) -> str:
    """Say what became of each: those of one rule with the same end together."""
    same: dict[tuple[str, str], list[str]] = {}
    for one in deliveries:
        same.setdefault((one["rule"], one["answer"]), []).append(one["notifier"])
    said = [
        f'"{rule}" tells {", ".join(dict.fromkeys(notifiers))}: {_SAID[word]}'
        for (rule, word), notifiers in same.items()
    ]
    more = [f"and {len(said) - _MOST_TOLD} more"] if len(said) > _MOST_TOLD else []
    return "; ".join(said[:_MOST_TOLD] + more)


def _nobody(edges: Sequence[Edge], levels: Sequence[Facts]) -> str | None:
    if edges:
        near, rule = edges[0], edges[0].rule
        more = f" (and {len(near.misses) - 1} more)" if len(near.misses) > 1 else ""
        return f'no rule matched; nearest: "{rule.name}" (line {rule.line}): {near.verdict.why_not}{more}'
    if levels:
        best = min(levels, key=lambda one: bool(one["answer"] == "no"))
        return f"no rule matched; nearest: {_named(best)}: {best['why']}"
    return None


def _named(level: Facts) -> str:
    return f'"{level["rule"]}" (line {level["line"]})'
