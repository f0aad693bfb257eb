"""/metrics: read from the database at each scrape, so it is right for any number of processes.

What stands now is counted when it is asked for; what happened was counted when it was stored (`record/counters.py`).
No query reads what has ended, so a scrape costs as much after a million jobs as after ten.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from flask import Response
from flask.typing import ResponseReturnValue
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from bridge.admin import counters
from bridge.admin.families import gauge, largest
from bridge.admin.health import checks, look
from bridge.admin.parts import Parts
from bridge.admin.routes import Route
from bridge.decide.rules.rulebook import Rulebook
from bridge.model import Reason
from bridge.record import rulesets
from bridge.record.counters import Labels, Total, totals
from bridge.record.queries import gauges

Row = Mapping[str, Any]

_CAUSES = (Reason.AUTH, Reason.CHANNEL, Reason.GONE, Reason.OTHER)  # of a notifier's pause


@dataclass(frozen=True, kw_only=True, eq=False)  # a registry wants collectors that hash
class Scrape(Collector):
    """What one scrape found."""

    version: str
    now: datetime
    book: Rulebook
    reloaded: bool
    jobs: Mapping[tuple[str, str, str], int]
    watches: Sequence[Row]
    notifiers: Sequence[Row]
    workers: Sequence[Row]
    other_rules: int
    warnings: Mapping[str, int]
    faults: Mapping[str, Row]
    holders: Mapping[str, str]
    digests: Mapping[tuple[str, str], int]
    totals: Sequence[Total]

    def collect(self) -> Iterator[Metric]:
        yield gauge("build_info", "The version that answers.", ["version"], {(self.version,): 1})
        yield gauge("config_info", "The rules in force here.", ["sha"], {(self.book.sha,): 1})
        reloaded = "0: a rules.toml is wrong, old rules stay."
        yield gauge("config_last_reload_successful", reloaded, [], {(): self.reloaded})
        others = "Live workers that have had other rules than those accepted last for a minute or longer."
        yield gauge("workers_other_rules", others, [], {(): self.other_rules})
        wrong = "What is not as it should be: the warnings of the overview, of doctor and of /readyz."
        yield gauge("warnings", wrong, ["check"], {(check,): count for check, count in self.warnings.items()})
        yield gauge("jobs", "Unfinished jobs that are watched.", ["state", "queue", "tag"], largest(self.jobs))
        fell = "Templates that fell back to the default text, of rules on record."
        faults = {(rule,): fault["count"] for rule, fault in self.faults.items()}
        yield gauge("template_faults", fell, ["rule"], faults)
        yield from self._of_watches()
        yield from self._of_notifiers()
        beats = {("worker", row["id"]): _seconds(row["beat_at"]) for row in self.workers}
        heard = "When a worker was last heard of."
        yield gauge("worker_last_heartbeat_timestamp_seconds", heard, ["role", "worker"], beats)
        doubts = {("worker", row["id"]): bool(row["clock_fault"]) for row in self.workers}
        said = "1: the worker doubts its clock, so it prunes and gives up nothing."
        yield gauge("worker_clock_doubted", said, ["role", "worker"], doubts)
        yield self._leases()
        yield self._digests()
        yield from counters.collect(self.totals, self.book)

    def _of_watches(self) -> Iterator[Metric]:
        watches, labels = {watch.name: watch for watch in self.book.watches}, ["watch", "region"]

        def each(name: str, text: str, values: Mapping[str, float]) -> Metric:
            return gauge(name, text, labels, {(one, watches[one].place.region): at for one, at in values.items()})

        rows = [row for row in self.watches if row["name"] in watches]  # one that was taken out is no alarm
        polls = {row["name"]: _seconds(row["ok_at"]) for row in rows if row["ok_at"]}
        yield each("poll_last_success_timestamp_seconds", "When the last complete poll began.", polls)
        every = {name: watch.every / timedelta(seconds=1) for name, watch in watches.items()}
        yield each("poll_interval_seconds", "How often it is to be polled.", every)
        yield each(
            "watch_failures", "Failed polls since the last complete one.", {r["name"]: r["failures"] for r in rows}
        )
        ahead = {row["name"]: row["clock_ahead_seconds"] for row in rows if row["clock_ahead_seconds"] is not None}
        yield each("watch_clock_ahead_seconds", "How far CI's clock was ahead of ours in the last poll.", ahead)
        yield each("watch_paused", "1: not polled, by hand.", {row["name"]: row["paused"] for row in rows})

    def _of_notifiers(self) -> Iterator[Metric]:
        def each(name: str, text: str, key: str) -> Metric:
            return gauge(name, text, ["notifier"], {(row["name"],): row[key] for row in rows})

        rows = [{**row, "age": self._age(row)} for row in self.notifiers]
        yield each("deliveries_pending", "Deliveries that wait.", "waiting")
        yield each("delivery_oldest_pending_seconds", "The age of the oldest of those; 0: none waits.", "age")
        yield each("deliveries_sending", "Deliveries under way.", "sending")
        yield each("deliveries_dead", "Dead letters.", "dead")
        yield each("deliveries_held", "Messages that wait in digests.", "held")
        yield each("notifier_failures", "Attempts in a row without an answer; from 10 on it is left alone.", "failures")
        paused = {(row["name"], cause.value): _cause(row) == cause for row in rows for cause in _CAUSES}
        yield gauge("notifier_paused", "1: told nothing until it is resumed.", ["notifier", "cause"], paused)

    def _age(self, row: Row) -> float:
        oldest = row["oldest_waiting_at"]
        return max(0.0, self.now.timestamp() - _seconds(oldest)) if oldest else 0.0

    def _leases(self) -> Metric:
        # There is no leader to be shown: a bucket is polled by whoever has its lease, and only as long as a poll takes.
        buckets = sorted({watch.place.bucket for watch in self.book.watches})
        held = {(bucket, self.holders.get(bucket, "")): bucket in self.holders for bucket in buckets}
        return gauge("lease_held", "1: this worker polls the bucket now.", ["bucket", "worker"], held)

    def _digests(self) -> Metric:
        waiting: dict[Labels, float] = {("mute", ""): 0, ("silence", ""): 0}
        waiting |= {("group", rule.name): 0 for rule in self.book.rules if rule.group}
        waiting |= {("throttle", rule.name): 0 for rule in self.book.rules if rule.throttle}
        for (gate, name), count in self.digests.items():
            # Silences come and go, and neither they nor mutes are rules.
            labels = (gate, name if gate in ("group", "throttle") else "")
            waiting[labels] = waiting.get(labels, 0) + count
        return gauge("digest_open", "Digests that wait to be told.", ["gate", "rule"], waiting)


def _cause(row: Row) -> Reason | None:
    """Return one of _CAUSES; None where the notifier is not paused."""
    if row["paused_at"] is None:
        return None
    return next((cause for cause in _CAUSES if cause == row["paused_reason"]), Reason.OTHER)


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
        parts, book, now = self._parts, self._parts.book(), self._parts.clock()
        with parts.db.read() as tx:
            state, found = look(parts, tx)
            return Scrape(
                version=parts.version,
                now=now,
                book=book,
                reloaded=not (parts.rules_fault() or any(worker["rules_fault"] for worker in state.workers)),
                jobs=gauges.open_jobs(tx),
                watches=state.watches,
                notifiers=state.notifiers,
                workers=state.workers,
                other_rules=sum(one.other for one in state.standing.workers),
                warnings={one.name: sum(w.check == one.name for w in found) for one in checks(state, found)},
                faults=rulesets.faults(tx),
                holders=gauges.holders(tx, now=now),
                digests=gauges.open_digests(tx),
                totals=totals(tx, counters.METRICS),
            )
