"""/metrics: read from the database at each scrape, so it is right for any number of processes.

Gauges are counted when they are scraped; counters and histograms were counted when something happened
(`record/counters.py`). No query reads what has ended, so a scrape costs as much after a million jobs as after ten.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import accumulate, product
from typing import Any, get_args

from flask import Response
from flask.typing import ResponseReturnValue
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from bridge.admin.health import checks, read_health
from bridge.admin.http.routes import Endpoints, Route
from bridge.collect.errors import Kind
from bridge.decide.routing import own_template
from bridge.decide.rules.rulebook import Rulebook
from bridge.model import Gate, Reason
from bridge.pipeline.callbacks import Answered, Named, Outcome
from bridge.record import rulesets
from bridge.record.counters import BOUNDS, MOST_KEPT, OTHER, Labels, Total, totals
from bridge.record.outbox.results import ATTEMPT_LABELS
from bridge.record.queries import gauges, incidents
from bridge.send.registry import integration_of

Row = Mapping[str, Any]

COUNTED = (
    "attempt", "call", "callback", "callback_job", "delivery", "detected", "hint", "job_duration", "job_problem",
    "job_wait", "match", "poll", "retry_after", "rules", "suppressed", "template_error", "transition", "unmatched",
)  # fmt: skip


class MetricsApi(Endpoints):
    """The endpoint. It needs a token like the API: `authorization: {credentials: ...}` in Prometheus."""

    def routes(self) -> Iterator[Route]:
        yield Route(path="/metrics", view=self.metrics, name="metrics", summary="metrics for Prometheus", json=False)

    def metrics(self) -> ResponseReturnValue:
        registry = CollectorRegistry()
        registry.register(self._scrape())
        ProcessCollector(registry=registry)  # of the process that answers: one of several, with WEB_CONCURRENCY
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    def _scrape(self) -> Scrape:
        parts, book, now = self.parts, self.parts.book(), self.parts.clock()
        with parts.db.read() as tx:
            state, health = read_health(parts, tx)
            return Scrape(
                version=parts.version,
                now=now,
                book=book,
                reloaded=not (parts.rules_fault() or any(worker["rules_fault"] for worker in state.workers)),
                jobs=gauges.open_jobs(tx),
                state=state,
                warnings={check.name: len(health.of(check.name).warnings) for check in checks(state, health)},
                faults=rulesets.faults(tx),
                holders=gauges.holders(tx, now=now),
                digests=gauges.open_digests(tx),
                incidents=incidents.open_by_rule(tx),
                totals=totals(tx, COUNTED),
            )


@dataclass(frozen=True, kw_only=True, eq=False)  # a registry wants collectors that hash
class Scrape(Collector):
    """What one scrape read."""

    version: str
    now: datetime
    book: Rulebook
    reloaded: bool
    jobs: Mapping[tuple[str, str, str], int]
    state: gauges.State
    warnings: Mapping[str, int]
    faults: Mapping[str, Row]
    holders: Mapping[str, str]
    digests: Mapping[tuple[str, str], int]
    incidents: Mapping[str, int]
    totals: Sequence[Total]

    def collect(self) -> Iterator[Metric]:
        yield gauge("build_info", "The version that answers.", ["version"], {(self.version,): 1})
        yield gauge("config_info", "The rules of the process that answers.", ["sha"], {(self.book.sha,): 1})
        reloaded = "0: a rules.toml has errors, old rules stay."
        yield gauge("config_last_reload_successful", reloaded, [], {(): self.reloaded})
        others = "Live workers that have had other rules than those accepted last for a minute or longer."
        yield gauge("workers_other_rules", others, [], {(): sum(one.other for one in self.state.rules.workers)})
        warnings = "Warnings, as on the overview, in doctor and in /readyz."
        yield gauge("warnings", warnings, ["check"], {(check,): count for check, count in self.warnings.items()})
        yield gauge("jobs", "Unfinished jobs that are watched.", ["state", "queue", "tag"], largest(self.jobs))
        fell_back = "Templates that fell back to the default text, of rules on record."
        faults = {(rule,): fault["count"] for rule, fault in self.faults.items()}
        yield gauge("template_faults", fell_back, ["rule"], faults)
        yield from self._of_watches()
        yield from self._of_notifiers()
        workers = self.state.workers
        beats = {("worker", row["id"]): _seconds(row["beat_at"]) for row in workers}
        heartbeat = "When a worker last sent a heartbeat."
        yield gauge("worker_last_heartbeat_timestamp_seconds", heartbeat, ["role", "worker"], beats)
        doubts = {("worker", row["id"]): bool(row["clock_fault"]) for row in workers}
        doubted = "1: the worker doubts its clock, so it prunes and gives up nothing."
        yield gauge("worker_clock_doubted", doubted, ["role", "worker"], doubts)
        yield self._leases()
        yield self._digests()
        yield self._incidents()
        yield from counted(self.totals, self.book)

    def _of_watches(self) -> Iterator[Metric]:
        watches, labels = {watch.name: watch for watch in self.book.watches}, ["watch", "region"]

        def each(name: str, text: str, values: Mapping[str, float]) -> Metric:
            return gauge(name, text, labels, {(watch, watches[watch].place.region): v for watch, v in values.items()})

        rows = [row for row in self.state.watches if row["name"] in watches]  # a removed one is no alarm
        polls = {row["name"]: _seconds(row["ok_at"]) for row in rows if row["ok_at"]}
        yield each("poll_last_success_timestamp_seconds", "When the last complete poll began.", polls)
        every = {name: watch.every / timedelta(seconds=1) for name, watch in watches.items()}
        yield each("poll_interval_seconds", "How often it is to be polled.", every)
        failures = {row["name"]: row["failures"] for row in rows}
        yield each("watch_failures", "Failed polls since the last complete one.", failures)
        callbacks = {row["name"]: _seconds(row["callback_at"]) for row in rows if row["callback_at"]}
        yield each("callback_last_timestamp_seconds", "When CI's last callback about its bucket came.", callbacks)
        ahead = {row["name"]: row["clock_ahead_seconds"] for row in rows if row["clock_ahead_seconds"] is not None}
        yield each("watch_clock_ahead_seconds", "How far CI's clock was ahead of ours in the last poll.", ahead)
        yield each("watch_paused", "1: paused manually.", {row["name"]: row["paused"] for row in rows})

    def _of_notifiers(self) -> Iterator[Metric]:
        def each(name: str, text: str, key: str) -> Metric:
            return gauge(name, text, ["notifier"], {(row["name"],): row[key] for row in rows})

        rows = [{**row, "age": self._age(row)} for row in self.state.notifiers]
        yield each("deliveries_pending", "Deliveries that wait.", "waiting")
        yield each("delivery_oldest_pending_seconds", "The age of the oldest of those; 0: none waits.", "age")
        yield each("deliveries_sending", "Deliveries that workers have claimed, to send them now or next.", "sending")
        yield each("deliveries_dead", "Dead letters.", "dead")
        yield each("deliveries_held", "Messages that wait in digests.", "held")
        failures = "Attempts in a row without a response; from 10 on, one attempt a minute is made."
        yield each("notifier_failures", failures, "failures")
        paused = {(row["name"], cause.value): _cause(row) == cause for row in rows for cause in _CAUSES}
        yield gauge("notifier_paused", "1: nothing is sent until it is resumed.", ["notifier", "cause"], paused)

    def _age(self, row: Row) -> float:
        oldest = row["oldest_waiting_at"]
        return max(0.0, self.now.timestamp() - _seconds(oldest)) if oldest else 0.0

    def _leases(self) -> Metric:
        # There is no leader to show: a bucket is polled by whoever has its lease, and only as long as a poll takes.
        buckets = sorted({watch.place.bucket for watch in self.book.watches})
        held = {(bucket, self.holders.get(bucket, "")): bucket in self.holders for bucket in buckets}
        return gauge("lease_held", "1: this worker polls the bucket now.", ["bucket", "worker"], held)

    def _digests(self) -> Metric:
        waiting: dict[Labels, float] = {(gate, ""): 0 for gate in ("mute", "silence", "flood", "fallback")}
        waiting |= {("group", rule.name): 0 for rule in self.book.rules if rule.group}
        waiting |= {("throttle", rule.name): 0 for rule in self.book.rules if rule.throttle}
        for (gate, name), count in self.digests.items():
            # Silences come and go, and neither they nor what the other gates are about are rules.
            labels = (gate, name if gate in ("group", "throttle") else "")
            waiting[labels] = waiting.get(labels, 0) + count
        return gauge("digests_open", "Digests that are not sent yet.", ["gate", "rule"], waiting)

    def _incidents(self) -> Metric:
        known = {(rule.name,): 0 for rule in self.book.rules if rule.incident or rule.escalate}
        found = {(rule,): count for rule, count in self.incidents.items()}
        return gauge("incidents_open", "Open incidents, acknowledged or not.", ["rule"], known | found)


_CAUSES = (Reason.AUTH, Reason.CHANNEL, Reason.GONE, Reason.MANUAL, Reason.OTHER)  # of a notifier's pause


def _cause(row: Row) -> Reason | None:
    """Return one of _CAUSES; None where the notifier is not paused."""
    if row["paused_at"] is None:
        return None
    return next((cause for cause in _CAUSES if cause == row["paused_reason"]), Reason.OTHER)


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


# --- counters and histograms: what was counted, and with 0 what may be counted later --------------------------------

_GATES = (*get_args(Gate), "first_wins")
_OUTCOMES = ("delivered", "dead", "merged", "dropped")
_ALL: tuple[Labels, ...] = ((),)  # the label sets of a metric without labels
_ByMetric = Mapping[str, Sequence[Total]]


def counted(totals: Iterable[Total], book: Rulebook) -> Iterator[Metric]:
    """Yield what was counted; `book` says what may be counted later."""
    by_metric: dict[str, list[Total]] = defaultdict(list)
    for total in totals:
        by_metric[total.metric].append(total)
    yield from _of_source(by_metric, book)
    yield from _of_rules(by_metric, book)
    yield from _of_deliveries(by_metric, book)
    loaded = {total.labels: total.last_at.timestamp() for total in by_metric["rules"]}
    text = "When a process last read a rules.toml and accepted it."
    yield gauge("config_last_reload_success_timestamp_seconds", text, (), loaded)


def _of_source(by_metric: _ByMetric, book: Rulebook) -> Iterator[Metric]:
    polls, transitions = by_metric["poll"], by_metric["transition"]
    regions = sorted({watch.place.region for watch in book.watches})
    known: Iterable[Labels] = product(regions, ("ok", *get_args(Kind)))
    yield counter("polls", "Polls, by how they ended.", ("region", "outcome"), polls, known)
    yield histogram("poll", "poll_duration_seconds", "How long polls took.", (), _by(polls), _ALL)
    changes = "Changes of jobs' states; from new: seen for the first time."
    yield counter("transitions", changes, ("tag", "queue", "from", "to"), transitions)
    ran, waited = "From start to end, of jobs that were seen to end.", "From creation to start, of these."
    labels = ("tag", "queue", "state")
    yield histogram("job_duration", "job_duration_seconds", ran, labels, by_metric["job_duration"])
    yield histogram("job_wait", "job_wait_seconds", waited, ("queue",), by_metric["job_wait"])
    unread = "What of jobs cannot be read, once for each value: a field, or the job, which is left out."
    fields = product(("field",), ("CreationTime", "EndTime", "Progress", "StartTime"))
    known = (*fields, *product(("left_out",), ("JobId", "JobsDetail", "State")))
    yield counter("job_problems", unread, ("kind", "field"), by_metric["job_problem"], known)
    yield from _of_detection(by_metric, book)
    yield from _of_callbacks(by_metric)


def _of_detection(by_metric: _ByMetric, book: Rulebook) -> Iterator[Metric]:
    by, known = ("watch",), list(product([watch.name for watch in book.watches]))
    delay = "From a change of a job, as CI dates it in whole seconds, until it was seen."
    yield histogram("detected", "detection_delay_seconds", delay, by, by_metric["detected"], known)
    news = "Changes that were seen, without those of first snapshots; CI does not date all of them."
    yield counter("watch_transitions", news, by, by_metric["detected"], known)
    yield counter("watch_calls", "Calls that CI answered, for lists and for jobs by id.", by, by_metric["call"], known)


def _of_callbacks(by_metric: _ByMetric) -> Iterator[Metric]:
    came = "Callbacks of CI, by what became of them."
    yield counter("callbacks", came, ("outcome",), by_metric["callback"], product(get_args(Outcome)))
    named = "Jobs that callbacks named: waiting to be asked for, or why not."
    yield counter("callback_jobs", named, ("outcome",), by_metric["callback_job"], product(get_args(Named)))
    asked = "Jobs that CI was asked for as callbacks named them, by its answer."
    yield counter("callback_answers", asked, ("outcome",), by_metric["hint"], product(get_args(Answered)))


def _of_rules(by_metric: _ByMetric, book: Rulebook) -> Iterator[Metric]:
    rules, matches = [rule.name for rule in book.rules], by_metric["match"]
    yield counter("rule_matches", "How often a rule fired.", ("rule",), matches, product(rules))
    last = {total.labels: total.last_at.timestamp() for total in matches}
    yield gauge("rule_last_match_timestamp_seconds", "When a rule fired last.", ("rule",), last)
    yield counter("events_unmatched", "Changes that no rule matched.", (), by_metric["unmatched"], _ALL)
    held = "Messages not sent at once; or (first_wins) not sent, as an earlier rule had notified the same notifier."
    yield counter("suppressed_messages", held, ("rule", "reason"), by_metric["suppressed"], product(rules, _GATES))
    fell_back = "Templates that fell back to the default text."
    errors = by_metric["template_error"]
    yield counter("template_errors", fell_back, ("rule", "template"), errors, _templates(book))


def _of_deliveries(by_metric: _ByMetric, book: Rulebook) -> Iterator[Metric]:
    deliveries, attempts, by = by_metric["delivery"], by_metric["attempt"], ("notifier",)
    names = sorted(book.notifiers)
    known = list(product(names))
    ends, reasons = product(names, _OUTCOMES), product(names, ATTEMPT_LABELS)
    dead = product(sorted(book.picks), ["dead"])
    yield counter("deliveries", "Deliveries, by their end.", (*by, "outcome"), deliveries, [*ends, *dead])
    yield counter("delivery_attempts", "Attempts, by their outcome.", (*by, "reason"), attempts, reasons)
    took = "How long attempts took."
    yield histogram("attempt", "delivery_attempt_duration_seconds", took, by, _by(attempts, 0), known)
    accepted = [total for total in deliveries if total.labels[1] == "delivered"]
    latency = "From the event until the receiver accepted it."
    yield histogram("delivery", "delivery_latency_seconds", latency, by, _by(accepted, 0), known)
    limited = sorted(name for name, notifier in book.notifiers.items() if integration_of(notifier).counts_retry_after)
    waits = dict.fromkeys(product(limited), 0.0)
    waits |= {total.labels: total.seconds for total in by_metric["retry_after"] if total.labels in waits}
    family = CounterMetricFamily(
        "ci_bridge_slack_retry_after_seconds", "How long Slack asked to wait, in all.", labels=by
    )
    yield _filled(family, waits)


def _by(totals: Iterable[Total], *places: int) -> list[Total]:
    """Return these by some of their labels alone."""
    return [replace(total, labels=tuple(total.labels[place] for place in places)) for total in totals]


def _templates(book: Rulebook) -> Iterator[Labels]:
    """Yield each rule with a template that may fail: its own, or one of a notifier."""
    own = {name for name, notifier in book.notifiers.items() if notifier.body or notifier.channel_template}
    own |= book.picks.keys()
    for rule in book.rules:
        yield from [(rule.name, rule.template)] if rule.template else []
        yield from ((rule.name, own_template(name)) for name in rule.notify if name in own)


# --- metrics in the form of Prometheus, from values by labels -------------------------------------------------------

# Label sets of one metric: tags and queues are whatever CI says. As many as the record keeps: what is "other" at one
# scrape and itself at the next makes a counter fall.
MOST = 2 * MOST_KEPT
Values = Mapping[Any, float]  # by label set: a mapping's keys would have to be of one length else


def gauge(name: str, text: str, labels: Sequence[str], values: Values) -> Metric:
    return _filled(GaugeMetricFamily(f"ci_bridge_{name}", text, labels=labels), values)


def counter(
    name: str, text: str, labels: Sequence[str], totals: Iterable[Total], known: Iterable[Labels] = ()
) -> Metric:
    family = CounterMetricFamily(f"ci_bridge_{name}", text, labels=labels)
    return _filled(family, largest(summed(totals), set(known)))


def _filled(family: GaugeMetricFamily | CounterMetricFamily, values: Values) -> Metric:
    for labels, value in values.items():
        family.add_metric(list(labels), float(value))
    return family


def histogram(
    metric: str, name: str, text: str, labels: Sequence[str], totals: Iterable[Total], known: Collection[Labels] = ()
) -> Metric:
    """Return the histogram of a metric of BOUNDS; what has no duration is not in it."""
    family = HistogramMetricFamily(f"ci_bridge_{name}", text, labels=labels)
    timed = [total for total in totals if total.bucket >= 0]
    kept, others = largest(summed(timed), known), (OTHER,) * len(labels)
    bounds = BOUNDS[metric]
    counts = {label_set: [0] * (len(bounds) + 1) for label_set in kept}
    seconds = dict.fromkeys(kept, 0.0)
    for total in timed:
        label_set = total.labels if total.labels in kept else others
        counts[label_set][total.bucket] += total.count
        seconds[label_set] += total.seconds
    edges = [*map(floatToGoString, bounds), "+Inf"]
    for label_set, by_bucket in counts.items():
        reached = [float(count) for count in accumulate(by_bucket)]
        family.add_metric(list(label_set), list(zip(edges, reached, strict=True)), seconds[label_set])
    return family


def summed(totals: Iterable[Total]) -> dict[Labels, float]:
    """Return how often each label set was counted."""
    sums: dict[Labels, float] = defaultdict(float)
    for total in totals:
        sums[total.labels] += total.count
    return sums


def largest(values: Values, known: Collection[Labels] = (), most: int = MOST) -> dict[Labels, float]:
    """Return these with all beyond the `most` largest summed as "other"; those that are known stay anyway."""
    kept: dict[Labels, float] = {labels: values.get(labels, 0) for labels in sorted(known)}
    unknown = sorted((labels for labels in values if labels not in kept), key=lambda labels: (-values[labels], labels))
    kept |= {labels: values[labels] for labels in unknown[:most]}
    for labels in unknown[most:]:
        others = (OTHER,) * len(labels)
        kept[others] = kept.get(others, 0) + values[labels]
    return kept
