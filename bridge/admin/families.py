"""Metrics in the form of Prometheus, made of values by labels. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from bridge.record.counters import BOUNDS, MOST_KEPT, OTHER, Labels, Total

# Label sets of one metric: tags and queues are whatever CI says. As many as the record keeps: what is "other" at one
# scrape and itself at the next makes a counter fall.
MOST = 2 * MOST_KEPT
Values = Mapping[Any, float]  # by label set: a mapping's keys would have to be of one length else


def gauge(name: str, text: str, labels: Sequence[str], values: Values) -> Metric:
    family = GaugeMetricFamily(f"bridge_{name}", text, labels=labels)
    for label_values, value in values.items():
        family.add_metric(list(label_values), float(value))
    return family


def counter(name: str, text: str, labels: Sequence[str], values: Values) -> Metric:
    family = CounterMetricFamily(f"bridge_{name}", text, labels=labels)
    for label_values, value in values.items():
        family.add_metric(list(label_values), float(value))
    return family


def histogram(
    metric: str, name: str, text: str, labels: Sequence[str], totals: Iterable[Total], known: Collection[Labels] = ()
) -> Metric:
    """Return the histogram of a metric of BOUNDS; what has no duration is not in it."""
    family = HistogramMetricFamily(f"bridge_{name}", text, labels=labels)
    rows = [one for one in totals if one.bucket >= 0]
    kept, others = largest(summed(rows), known), (OTHER,) * len(labels)
    bounds = BOUNDS[metric]
    counts = {mine: [0] * (len(bounds) + 1) for mine in kept}
    seconds = dict.fromkeys(kept, 0.0)
    for one in rows:
        mine = one.labels if one.labels in kept else others
        counts[mine][one.bucket] += one.count
        seconds[mine] += one.seconds
    edges = [*map(floatToGoString, bounds), "+Inf"]
    for mine, found in counts.items():
        reached = [float(count) for count in accumulate(found)]
        family.add_metric(list(mine), list(zip(edges, reached, strict=True)), seconds[mine])
    return family


def summed(totals: Iterable[Total], known: Collection[Labels] = ()) -> dict[Labels, float]:
    """Return how often each label set was counted; those that are known are there, be it with 0."""
    sums: dict[Labels, float] = dict.fromkeys(known, 0)
    for one in totals:
        sums[one.labels] = sums.get(one.labels, 0) + one.count
    return sums


def largest(values: Values, known: Collection[Labels] = (), most: int = MOST) -> dict[Labels, float]:
    """Return these with what is over `most` of them summed as "other"; those that are known stay anyway."""
    kept: dict[Labels, float] = {labels: values.get(labels, 0) for labels in sorted(known)}
    strange = sorted((labels for labels in values if labels not in kept), key=lambda one: (-values[one], one))
    kept |= {labels: values[labels] for labels in strange[:most]}
    for labels in strange[most:]:
        others = (OTHER,) * len(labels)
        kept[others] = kept.get(others, 0) + values[labels]
    return kept
