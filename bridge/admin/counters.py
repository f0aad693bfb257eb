"""The counters and histograms of /metrics: what the record has counted, and at 0 what it may count yet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import get_args

from prometheus_client.core import Metric

from bridge.admin.families import counter, gauge, histogram, largest, summed
from bridge.collect.errors import Kind
from bridge.decide.routing import own_template
from bridge.decide.rules.rulebook import Rulebook
from bridge.record.counters import Labels, Total
from bridge.record.outbox.results import ATTEMPT_LABELS

METRICS = (
    "attempt", "delivery", "detection", "job_duration", "job_problem", "job_wait", "match", "poll", "retry_after",
    "rules", "suppressed", "template_error", "transition", "unmatched",
)  # fmt: skip
_GATES = ("silence", "mute", "group", "throttle", "first_wins")
_OUTCOMES = ("delivered", "dead", "merged", "dropped")
_ALL: tuple[Labels, ...] = ((),)  # the label sets of a metric without labels


def collect(totals: Iterable[Total], book: Rulebook) -> Iterator[Metric]:
    """Yield what was counted; `book` says what may be counted yet."""
    found: dict[str, list[Total]] = defaultdict(list)
    for one in totals:
        found[one.metric].append(one)
    yield from _of_source(found, book)
    yield from _of_rules(found, book)
    yield from _of_deliveries(found, book)
    loaded = {one.labels: one.last_at.timestamp() for one in found["rules"]}
    yield gauge(
        "config_last_reload_success_timestamp_seconds", "When a process last read a rules.toml and took it.", (), loaded
    )


_Found = Mapping[str, Sequence[Total]]


def _of_source(found: _Found, book: Rulebook) -> Iterator[Metric]:
    regions = sorted({watch.place.region for watch in book.watches})
    polls = product(regions, ("ok", *get_args(Kind)))
    yield _counter("poll", "Polls, by how they ended.", ("region", "outcome"), found["poll"], polls)
    yield histogram("poll", "poll_duration_seconds", "How long polls took.", (), _by(found["poll"]), _ALL)
    changes = "Changes of jobs' states; from new: seen for the first time."
    yield _counter("transitions", changes, ("tag", "queue", "from", "to"), found["transition"])
    ran = "From start to end, of jobs that were seen to end."
    yield histogram("job_duration", "job_duration_seconds", ran, ("tag", "queue", "state"), found["job_duration"])
    yield histogram("job_wait", "job_wait_seconds", "From creation to start, of these.", ("queue",), found["job_wait"])
    unread = "What of jobs cannot be read, once for each value: a field, or the job, which is left out."
    fields = product(("field",), ("CreationTime", "EndTime", "Progress", "StartTime"))
    known = (*fields, *product(("left_out",), ("JobId", "JobsDetail", "State")))
    yield _counter("job_problems", unread, ("kind", "field"), found["job_problem"], known)
    delay = "From when CI says that a job changed until that was seen."
    yield histogram("detection", "detection_delay_seconds", delay, (), found["detection"], _ALL)


def _of_rules(found: _Found, book: Rulebook) -> Iterator[Metric]:
    rules = [rule.name for rule in book.rules]
    yield _counter("rule_matches", "How often a rule fired.", ("rule",), found["match"], product(rules))
    last = {one.labels: one.last_at.timestamp() for one in found["match"]}
    yield gauge("rule_last_match_timestamp_seconds", "When a rule fired last.", ("rule",), last)
    yield _counter("events_unmatched", "Changes that no rule heard of.", (), found["unmatched"], _ALL)
    held = "Messages that were not told at once; or (first_wins) not again, as an earlier rule had told them."
    yield _counter("suppressed", held, ("rule", "reason"), found["suppressed"], product(rules, _GATES))
    fell = "Templates that fell back to the default text."
    yield _counter("template_errors", fell, ("rule", "template"), found["template_error"], _templates(book))


def _of_deliveries(found: _Found, book: Rulebook) -> Iterator[Metric]:
    names = sorted(book.notifiers)
    mine, by = list(product(names)), ("notifier",)
    ends, tries = product(names, _OUTCOMES), product(names, ATTEMPT_LABELS)
    yield _counter("deliveries", "Deliveries, by their end.", (*by, "outcome"), found["delivery"], ends)
    yield _counter("delivery_attempts", "Attempts, by what came of them.", (*by, "reason"), found["attempt"], tries)
    took = "How long attempts took."
    yield histogram("attempt", "delivery_attempt_duration_seconds", took, by, _by(found["attempt"], 0), mine)
    accepted = [one for one in found["delivery"] if one.labels[1] == "delivered"]
    latency = "From what happened to the receiver's yes."
    yield histogram("delivery", "delivery_latency_seconds", latency, by, _by(accepted, 0), mine)
    slack = sorted(name for name, one in book.notifiers.items() if one.type == "slack")
    waits = dict.fromkeys(product(slack), 0.0)
    waits |= {one.labels: one.seconds for one in found["retry_after"] if one.labels in waits}
    yield counter("slack_retry_after_seconds", "How long Slack asked to be left alone, in all.", by, waits)


def _counter(
    name: str, text: str, labels: Sequence[str], totals: Iterable[Total], known: Iterable[Labels] = ()
) -> Metric:
    return counter(name, text, labels, largest(summed(totals), set(known)))


def _by(totals: Iterable[Total], *places: int) -> list[Total]:
    """Return these by some of their labels alone."""
    return [replace(one, labels=tuple(one.labels[place] for place in places)) for one in totals]


def _templates(book: Rulebook) -> Iterator[Labels]:
    """Yield each rule with a template that may fail it: its own, or one of a notifier."""
    own = {name for name, notifier in book.notifiers.items() if notifier.body or notifier.channel_template}
    for rule in book.rules:
        yield from [(rule.name, rule.template)] if rule.template else []
        yield from ((rule.name, own_template(name)) for name in rule.notify if name in own)
