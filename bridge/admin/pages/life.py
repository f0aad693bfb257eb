"""A job's life in the order it was lived: created, started, each transition, each message and its attempts. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Facts = Mapping[str, Any]
Moment = dict[str, Any]

_LOOKS = {"sent": "sent", "dead": "bad", "held": "held", "dropped": "held", "merged": "held"}


def life(job: Facts, tries: Mapping[str, Sequence[Facts]]) -> list[Moment]:
    """Return what happened to a job, oldest first; `tries` are the attempts of its deliveries by their ids.

    Each has `at`, `kind` (what it is of), `look` (how it went) and the facts of it.
    """
    found = [*_by_ci(job), *_transitions(job), *_deliveries(job, tries)]
    return sorted(found, key=lambda one: one["at"])


def _by_ci(job: Facts) -> Iterator[Moment]:
    for name, word in (("created_at", "created"), ("started_at", "started"), ("ended_at", "ended")):
        if job.get(name):
            yield {"at": job[name], "kind": "ci", "look": "ci", "word": word}


def _transitions(job: Facts) -> Iterator[Moment]:
    for one in job["transitions"]:
        yield {"at": one["seen_at"], "kind": "transition", "look": "transition", "facts": one}


def _deliveries(job: Facts, tries: Mapping[str, Sequence[Facts]]) -> Iterator[Moment]:
    for one in job["deliveries"]:
        look = _LOOKS.get(one["state"], "waiting")
        yield {
            "at": one["created_at"],
            "kind": "delivery",
            "look": look,
            "facts": one,
            "tries": tries.get(one["id"], ()),
        }
        for tried in tries.get(one["id"], ()):
            look = "sent" if tried["outcome"] == "sent" else "bad"
            yield {"at": tried["started_at"], "kind": "try", "look": look, "facts": tried, "delivery": one}
