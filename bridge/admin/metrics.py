"""/metrics: read from the database at each scrape, so it is right for any number of processes.

Counters that would have to count all that ever happened are not here: a scrape stays cheap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flask import Response
from flask.typing import ResponseReturnValue
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from bridge.admin.parts import Parts
from bridge.admin.routes import Route
from bridge.record import reading, rulesets

Row = Mapping[str, Any]
Values = Iterable[tuple[tuple[str, ...], float]]


@dataclass(frozen=True, kw_only=True, eq=False)  # a registry wants collectors that hash
class Scrape(Collector):
    """What one scrape found."""

    version: str
    now: datetime
    sha: str
    reloaded: bool
    jobs: Mapping[tuple[str, str, str], int]
    watches: Iterable[Row]
    notifiers: Iterable[Row]
    workers: Iterable[Row]
    faults: Mapping[str, int]

    def collect(self) -> Iterator[Metric]:
        yield _gauge("build_info", "The version that answers.", ["version"], [((self.version,), 1)])
        yield _gauge("config_info", "The rules in force here.", ["sha"], [((self.sha,), 1)])
        yield _gauge(
            "config_last_reload_successful", "0: a rules.toml is wrong, old rules stay.", [], [((), self.reloaded)]
        )
        yield _gauge("jobs", "Unfinished jobs.", ["state", "queue", "tag"], self.jobs.items())
        faults = [((rule,), count) for rule, count in self.faults.items()]
        yield _gauge("template_faults", "Templates that fell back to the default text, so far.", ["rule"], faults)
        yield from self._of_watches()
        yield from self._of_notifiers()
        beats = [((row["id"],), _seconds(row["beat_at"])) for row in self.workers]
        yield _gauge("worker_last_heartbeat_timestamp_seconds", "When a worker was last heard of.", ["worker"], beats)

    def _of_watches(self) -> Iterator[Metric]:
        def each(name: str, text: str, values: Values) -> Metric:
            return _gauge(name, text, ["watch"], values)

        rows = list(self.watches)
        polls = [((row["name"],), _seconds(row["ok_at"])) for row in rows if row["ok_at"]]
        yield each("poll_last_success_timestamp_seconds", "When the last complete poll began.", polls)
        yield each("watch_failures", "Failed polls since then.", [((r["name"],), r["failures"]) for r in rows])
        yield each("watch_paused", "1: not polled, by hand.", [((r["name"],), r["paused"]) for r in rows])

    def _of_notifiers(self) -> Iterator[Metric]:
        def each(name: str, text: str, key: str) -> Metric:
            return _gauge(name, text, ["notifier"], [((row["name"],), row[key]) for row in rows])

        rows = [{**row, "age": self._age(row), "paused": row["paused_at"] is not None} for row in self.notifiers]
        yield each("deliveries_pending", "Deliveries that wait.", "waiting")
        yield each("delivery_oldest_pending_seconds", "The age of the oldest of those; 0: none waits.", "age")
        yield each("deliveries_sending", "Deliveries under way.", "sending")
        yield each("deliveries_dead", "Dead letters.", "dead")
        yield each("deliveries_held", "Messages that wait in digests.", "held")
        yield each("notifier_failures", "Attempts in a row without an answer; from 10 on it is left alone.", "failures")
        yield each("notifier_paused", "1: told nothing until it is resumed.", "paused")

    def _age(self, row: Row) -> float:
        oldest = row["oldest_waiting_at"]
        return max(0.0, self.now.timestamp() - _seconds(oldest)) if oldest else 0.0


def _gauge(name: str, text: str, labels: list[str], values: Values) -> Metric:
    family = GaugeMetricFamily(f"bridge_{name}", text, labels=labels)
    for label_values, value in values:
        family.add_metric(list(label_values), float(value))
    return family


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


class Metrics:
    """The endpoint. It asks for a token like the API: `authorization: {credentials: ...}` in Prometheus."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def routes(self) -> Iterator[Route]:
        yield Route(path="/metrics", view=self.metrics, name="metrics", says="figures for Prometheus", json=False)

    def metrics(self) -> ResponseReturnValue:
        registry = CollectorRegistry()
        registry.register(self._scrape())
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    def _scrape(self) -> Scrape:
        parts, book = self._parts, self._parts.book()
        with parts.db.read() as tx:
            jobs, workers, notifiers = reading.open_jobs(tx), reading.workers(tx), reading.notifiers(tx)
            watches, faults = reading.watches(tx), rulesets.faults(tx)
        names = {watch.name for watch in book.watches}
        return Scrape(
            version=parts.version,
            now=parts.clock(),
            sha=book.sha,
            reloaded=not (parts.rules_fault() or any(worker["rules_fault"] for worker in workers)),
            jobs=jobs,
            watches=[row for row in watches if row["name"] in names],  # one that was taken out is no alarm
            notifiers=notifiers,
            workers=workers,
            faults={rule: fault["count"] for rule, fault in faults.items()},
        )
