"""/api/v1/stats: figures over time, as charts show them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from flask import request
from flask.typing import ResponseReturnValue

from bridge.admin import query, stats_answers
from bridge.admin.parts import Parts
from bridge.admin.routes import Route
from bridge.pipeline.stats import Stats, stats
from bridge.record.codec import iso
from bridge.record.database import ms


class Charts:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def routes(self) -> Iterator[Route]:
        yield Route(
            path="/api/v1/stats", view=self.stats, name="read_stats",
            says="how many jobs stood where, what became of them, and how quickly it was told",
            answer=stats_answers.Stats, query=("span", "tag", "queue"),
        )  # fmt: skip

    def stats(self) -> ResponseReturnValue:
        asked = {"span": "24h", **query.parameters(request, ("span", "tag", "queue"))}
        with self._parts.db.read() as tx:
            found = stats(tx, now=self._parts.clock(), **asked)
        return _shown(found, self._parts.book().queue_names)


def _shown(found: Stats, names: Mapping[str, str]) -> dict[str, Any]:
    def named(line: Any) -> dict[str, Any]:
        return {**asdict(line), "queue_name": names.get(line.queue)}

    latency = [
        {"notifier": one.notifier, "count": one.count, "p50_seconds": one.p50_s, "p95_seconds": one.p95_s}
        for one in found.latency
    ]
    return {
        "span": found.span,
        "since": iso(ms(found.since)),
        "until": iso(ms(found.until)),
        "step_seconds": found.step // timedelta(seconds=1),
        "slots": [iso(ms(slot)) for slot in found.slots],
        "jobs": [named(line) for line in found.jobs],
        "transitions": [named(line) for line in found.transitions],
        "deliveries": [asdict(line) for line in found.deliveries],
        "latency": latency,
    }
