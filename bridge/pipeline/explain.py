"""Why did I (not) get this? Every rule's answer to a transition, and what came of the messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from bridge.decide.matching import Verdict
from bridge.decide.rulebook import Rulebook
from bridge.decide.templates import iso
from bridge.decide.words import duration, listing, suggest
from bridge.model import NEW, SUCCESS, Job, Transition
from bridge.record import reading, snapshots

Facts = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """A transition, the verdict of every rule in force, and the deliveries it really caused."""

    transition: Transition
    verdicts: Sequence[Verdict]
    deliveries: Sequence[Facts] = ()

    @classmethod
    def of(cls, transition: Transition, book: Rulebook, deliveries: Sequence[Facts] = ()) -> Explained:
        return cls(transition=transition, verdicts=book.matcher.explain(transition), deliveries=deliveries)

    def facts(self) -> Facts:
        step = self.transition
        return {
            "job": step.job.id,
            "bucket": step.job.bucket,
            "tag": step.job.tag,
            "from": step.was,
            "to": step.to,
            "sequence": step.sequence,
            "seen_at": iso(step.seen_at),
            "watch": step.watch,
            "silent": step.silent,
            "rules": [_verdict(verdict) for verdict in self.verdicts],
            "deliveries": list(self.deliveries),
        }

    def text(self) -> str:
        step = self.transition
        head = f"{step.job.tag or 'job'} {step.job.id}: {step.was} -> {step.to}"
        lines = [f"{head} (number {step.sequence}, seen {iso(step.seen_at)}, watch {step.watch})"]
        if step.silent:
            lines.append(f"  told to nobody: {step.silent}")
        lines += [f"  {_said(verdict)}" for verdict in self.verdicts]
        lines += [f"  {_fate(delivery)}" for delivery in self.deliveries]
        return "\n".join(lines)


def _verdict(verdict: Verdict) -> Facts:
    rule = verdict.rule
    return {
        "rule": rule.name,
        "line": rule.line,
        "matches": verdict.why_not is None,
        "why_not": verdict.why_not,
        "notifiers": list(verdict.notifiers),
        "already_told_by_an_earlier_rule": list(verdict.already),
    }


def _said(verdict: Verdict) -> str:
    head = f'rule "{verdict.rule.name}" (line {verdict.rule.line})'
    if verdict.why_not is not None:
        return f"no   {head}: {verdict.why_not}"
    told = f" tells {listing(verdict.notifiers)}" if verdict.notifiers else ""
    already = f" (an earlier rule tells {listing(verdict.already)} already)" if verdict.already else ""
    return f"yes  {head}{told}{already}"


def _fate(delivery: Mapping[str, Any]) -> str:
    why = f": {' '.join(delivery['why'].split())}" if delivery["why"] else ""
    return f"     {delivery['id']} to {delivery['notifier']} is {delivery['state']}, {delivery['attempts']} tries{why}"


def explain_stored(tx: Connection, job_id: str, book: Rulebook) -> list[Explained]:
    """Return each transition of a job, oldest first, judged by the rules in force."""
    steps = [one.transition for one in snapshots.transitions_of(tx, job_id)]
    told = [delivery for job in reading.job(tx, job_id) for delivery in job["deliveries"]]
    return [
        Explained.of(
            step,
            book,
            [d for d in told if (d["bucket"], d["sequence"]) == (step.job.bucket, step.sequence)],
        )
        for step in steps
    ]


_TEXTS = tuple(name for name in Job.__slots__ if name not in ("created_at", "started_at", "ended_at", "outputs_total"))
_WORDS = (*_TEXTS, "from", "to", "age", "watch")


def sample_transition(said: Mapping[str, Any], book: Rulebook, now: datetime) -> Transition:
    """Return the transition that a JSON object tells of; what it leaves out is made up.

    Keys: those of a job, `from`, `to` (or `state`), `age` ("31m") and `watch`. Raises ValueError.
    """
    for key in said:
        if key not in _WORDS:
            raise ValueError(f'a job has no "{key}"{suggest(key, _WORDS)}; there are {listing(_WORDS)}')
    to = str(said.get("to") or said.get("state") or SUCCESS)
    watch = next((w for w in book.watches if w.name == said.get("watch")), next(iter(book.watches), None))
    facts: Facts = {name: said[name] for name in _TEXTS if name in said}
    facts["outputs"] = tuple(said.get("outputs", ()))
    facts["queue"] = _queue(said.get("queue"), book)
    age = duration(str(said["age"])) if "age" in said else None
    job = Job(
        **{
            "id": "sample",
            "bucket": watch.place.bucket if watch else "sample-1250000000",
            "region": watch.place.region if watch else "ap-chongqing",
            **facts,
            "state": to,
            "created_at": now - age if age else None,
            "started_at": now - age if age else None,
        }
    )
    return Transition(
        job=job,
        was=str(said.get("from", NEW)),
        to=to,
        sequence=1,
        seen_at=now,
        watch=str(said.get("watch") or (watch.name if watch else "sample")),
    )


def _queue(name: object, book: Rulebook) -> str | None:
    ids = {alias: queue for queue, alias in book.queue_names.items()}
    return ids.get(str(name), str(name)) if name else None
