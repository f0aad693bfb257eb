"""Rules: what matching costs with a hundred times as many, and how fast stored transitions go through them again."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice

from benchmarks.machine import Bench, Stores, settle_statistics
from benchmarks.report import Line, at_most, noted
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.read import read
from bridge.model import NEW, RUNNING, SUBMITTED, SUCCESS, Job, Transition
from bridge.pipeline.backtest import Backtest
from bridge.pipeline.route import route_all
from bridge.record.database import Database

_BUCKET, _REGION = "bench-1250000000", "ap-chongqing"
_TAGS = 100
_MATCHES = 2_000
_TRANSITIONS = 10_002  # of jobs that have three each
_AT_LEAST = 5_000  # a second
_BEGAN = datetime(2026, 6, 1, tzinfo=UTC)
_KEEP = timedelta(days=30)

_HEAD = """
[notifier.hook]
type = "webhook"
url = "https://hook.example.com/"
[notifier.ops]
type = "webhook"
url = "https://ops.example.com/"
[[watch]]
name = "bench"
bucket = "bench-1250000000"
region = "ap-chongqing"
tags = ["Transcode"]
"""
_RULE = """
[[rule]]
name = "rule {number}"
to = ["Success", "Failed"]
match.tag = "{tag}"
match.input = ["incoming/**/*-{number:04}*.{{mp4,mov}}", "!tmp/**"]
notify = ["hook", "ops"]
"""
_ONE = '\n[[rule]]\nname = "all"\nnotify = "hook"\n'
_REST = """
[[rule]]
name = "over"
to = "done"
group = { by = ["queue"], wait = "10m" }
notify = "ops"
[[rule]]
name = "stuck"
in = "active"
for = "2m"
recover = true
notify = "ops"
[[rule]]
name = "all"
throttle = "10/5m"
notify = "hook"
[[mute]]
name = "quiet nights"
between = "22:00-08:00"
match.queue = "p1"
"""


def measure(_bench: Bench, stores: Stores, rounds: int) -> list[Line]:
    return [_matching(rounds), *(_backtests(stores, kind, rounds) for kind in stores.kinds)]


def _rules(count: int, *, tags: int) -> str:
    """Return so many rules, each about one of so many tags, the first of them Transcode."""
    names = ["Transcode", *(f"Tag{number}" for number in range(1, tags))]
    return "".join(_RULE.format(number=number, tag=names[number % tags]) for number in range(count))


def _book(rules: str) -> Rulebook:
    return read(_HEAD + rules, {})


def _matching(rounds: int) -> Line:
    """A thousand rules of which ten name the tag of the transition, beside those ten alone."""
    (step,) = list(_life(1))[-1:]
    many, few = _book(_rules(1_000, tags=_TAGS)), _book(_rules(10, tags=1))
    costs: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, book in (("many", many), ("few", few)):
            from_s = time.perf_counter()
            for _ in range(_MATCHES):
                book.matcher.match(step)
            costs[name].append((time.perf_counter() - from_s) / _MATCHES * 1e6)
    what = "matching, 1,000 rules of which 10 name the tag"
    return at_most(3, what, "us", ours=costs["many"], peer_name="those 10 alone", peer=costs["few"])


def _backtests(stores: Stores, kind: str, rounds: int) -> Line:
    """Everything the language has, beside one rule without a condition."""
    full, one = _book(_rules(30, tags=10) + _REST), _book(_ONE)
    rates: dict[str, list[float]] = defaultdict(list)
    with stores.empty(kind) as url:
        db = Database(url)
        db.upgrade()
        _fill(db, full)
        settle_statistics(url)
        for _ in range(rounds):
            rates["full"].append(_rate(db, full, full))
            rates["one"].append(_rate(db, one, full))
        db.close()
    line = noted(
        f"transitions put through 33 rules again, {kind}",
        "1/s",
        ours=rates["full"],
        peer_name="one rule",
        peer=rates["one"],
    )
    # The others of the machine only ever take away from it.
    return replace(line, target=f"{_AT_LEAST:,}/s at best", met=max(rates["full"]) >= _AT_LEAST)


def _fill(db: Database, book: Rulebook) -> None:
    """Store what a week of polls would have, with the messages that the rules had told."""
    lives = _lives(_TRANSITIONS // 3)
    while page := list(islice(lives, 300)):
        with db.write() as tx:
            for step in page:
                route_all(tx, book, [step], step.seen_at)


def _rate(db: Database, book: Rulebook, in_force: Rulebook) -> float:
    until = _BEGAN + timedelta(days=7, hours=1)
    from_s = time.perf_counter()
    with db.read() as tx:
        test = Backtest(tx, book, in_force=in_force, keep=_KEEP, since=_BEGAN, now=until)
        test.run()
    rate = test.transitions / (time.perf_counter() - from_s)
    assert test.transitions == _TRANSITIONS, test.transitions
    assert test.tally.differs == (book is not in_force), test.tally.first
    return rate


def _lives(count: int) -> Iterator[Transition]:
    pause = timedelta(days=7) / count
    for number in range(count):
        yield from _life(number, _BEGAN + number * pause)


def _life(number: int, created: datetime = _BEGAN) -> Sequence[Transition]:
    """Return the transitions of a job that waits and runs for less than a minute each."""
    waits, runs = timedelta(seconds=20 + number % 30), timedelta(seconds=30 + number % 25)
    started, ended = created + waits, created + waits + runs
    job = Job(
        id=f"j{number:032x}",
        bucket=_BUCKET,
        region=_REGION,
        state=SUBMITTED,
        tag="Transcode",
        queue=f"p{number % 3}",
        created_at=created,
        input=f"incoming/2026/06/01/lecture-{number:06}.mov",
        output=f"published/lecture-{number:06}.mp4",
        template="t1460606b9752148c4ab182f55163ba7cd",
        user_data="course=media-101;" * 20,
    )
    run = replace(job, state=RUNNING, started_at=started)
    done = replace(run, state=SUCCESS, ended_at=ended, outputs=(f"published/lecture-{number:06}.mp4",), outputs_total=1)
    return (
        _step(job, NEW, 1, created + timedelta(seconds=1)),
        _step(run, SUBMITTED, 2, started + timedelta(seconds=1)),
        _step(done, RUNNING, 3, ended + timedelta(seconds=1)),
    )


def _step(job: Job, was: str, sequence: int, seen_at: datetime) -> Transition:
    still_at = None if was == NEW else seen_at - timedelta(seconds=15)
    return Transition(
        job=job, was=was, to=job.state, sequence=sequence, seen_at=seen_at, watch="bench", still_at=still_at
    )
