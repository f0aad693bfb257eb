"""`simulate --report`: how soon the bridge sees what happens in a simulated CI, and with how many calls.

The true times are those of the simulated CI, to the millisecond: its answers have whole seconds only.
"""

from __future__ import annotations

import json
import logging
import math
import random
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from bridge import settings as settings_module
from bridge.cli.common import Facts, count_of, echo_json
from bridge.model import DONE
from bridge.record.database import Database
from bridge.record.queries import gauges, lists
from bridge.record.queries.lists import MOST, Filter
from bridge.simulator.callbacks import CallbackSender, Format
from bridge.simulator.ci import DEMO_SECRET_ID, DEMO_SECRET_KEY, CiSimulator
from bridge.simulator.jobs import Director
from bridge.wiring import parts
from bridge.wiring.rules import Rules
from bridge.wiring.web import served, web_app
from bridge.wiring.worker import Worker

_TOKEN = "known-to-all-on-127.0.0.1"  # noqa: S105  (of callbacks on this machine)
_SAID_EVERY_S = 10.0
_LOOK_EVERY_S = 0.1
_PATIENCE_S = 60.0  # for a poll, beyond its interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is played: a new job every `every_s` seconds on average, whose states change `speed` times as fast."""

    bucket: str
    tags: Sequence[str]
    queues: Sequence[str]
    every_s: float
    speed: float
    seed: int | None
    lasts: timedelta
    poll_every: timedelta
    callbacks: Format | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What is reported. Delays are from when a state began until it was recorded as seen; None: none was."""

    seconds: float
    poll_every_seconds: float
    callbacks: Format | None
    complete: bool  # a poll has begun and ended after the last change
    jobs: int
    states: int  # that there were in truth
    seen: int  # of these
    inferred: int  # of these
    p50_seconds: float | None
    p99_seconds: float | None
    final_p50_seconds: float | None  # of Success, Failed and Cancel alone
    final_p99_seconds: float | None
    calls: int  # that CI was asked, for whatever
    calls_per_transition: float | None
    calls_per_10_seconds: float


def report(load: Load, stop: threading.Event, *, as_json: bool) -> None:
    """Play the load until its end, or `stop`, and print what was found. Progress goes to stderr."""
    logging.getLogger("bridge").setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ci-bridge-")))
        figures = _Run(load, folder, stack, stop).play()
    if as_json:
        echo_json(asdict(figures))
    else:
        click.echo("\n".join(_lines(figures)))


class _Run:
    """A simulated CI, and a worker with a database of its own that polls it."""

    def __init__(self, load: Load, folder: Path, stack: ExitStack, stop: threading.Event) -> None:
        self._load, self._stop = load, stop
        self._ci = stack.enter_context(CiSimulator(buckets={load.bucket}))
        environ = {
            "DATABASE_URL": f"sqlite:///{folder / 'bridge.db'}",
            "BRIDGE_RULES_TOML": _rules(load),
            "TENCENTCLOUD_SECRET_ID": DEMO_SECRET_ID,
            "TENCENTCLOUD_SECRET_KEY": DEMO_SECRET_KEY,
            "BRIDGE_CI_ENDPOINT": self._ci.url,
            "BRIDGE_CALLBACK_TOKEN": _TOKEN if load.callbacks else "",
        }
        settings = settings_module.read(environ)
        rules = Rules(settings, environ)
        self._db = parts.database(settings)
        stack.callback(self._db.close)
        self._db.require_schema()
        parts.sync(self._db, rules.book)
        if load.callbacks:
            port = stack.enter_context(served(web_app(settings, rules, self._db), host="127.0.0.1", port=0))
            sender = stack.enter_context(CallbackSender(f"http://127.0.0.1:{port}/hooks/ci/{_TOKEN}"))
            self._ci.callbacks, self._ci.callback_format = sender.put, load.callbacks
        stack.enter_context(_running(Worker(settings, rules, self._db)))

    def play(self) -> Figures:
        load = self._load
        self._await_poll(datetime.fromtimestamp(0, UTC))  # a first snapshot is no news
        calls, began_s, said_s = self._ci.calls, time.monotonic(), -_SAID_EVERY_S
        director = Director(
            self._ci,
            random=random.Random(load.seed),  # noqa: S311  (made-up jobs)
            bucket=load.bucket,
            tags=load.tags,
            queues=load.queues,
            every_s=load.every_s,
            speed=load.speed,
        )
        with director:
            while (passed_s := time.monotonic() - began_s) < load.lasts.total_seconds() and not self._stop.is_set():
                if passed_s >= said_s + _SAID_EVERY_S:
                    said_s = passed_s
                    jobs, asked = count_of(len(director.born), "job"), count_of(self._ci.calls - calls, "call")
                    click.echo(f"{passed_s:4.0f} s: {jobs}, {asked}", err=True)
                self._stop.wait(_LOOK_EVERY_S)
        complete = self._await_poll(datetime.now(UTC))
        return figures(
            load,
            {job: self._ci.timeline(job) for job in director.born},
            _recorded(self._db),
            complete=complete,
            seconds=time.monotonic() - began_s,
            calls=self._ci.calls - calls,
        )

    def _await_poll(self, since: datetime) -> bool:
        """Wait for the end of a complete poll that began after `since`; return False if that was too long."""
        until_s = time.monotonic() + self._load.poll_every.total_seconds() + _PATIENCE_S
        while time.monotonic() < until_s and not self._stop.is_set():
            with self._db.read() as tx:
                (watch,) = gauges.read_watches(tx)
            if watch["ok_at"] and datetime.fromisoformat(watch["ok_at"]) > since:
                return True
            self._stop.wait(_LOOK_EVERY_S)
        return False


def _rules(load: Load) -> str:
    """Return rules of one watch and no notifier: nothing is sent."""
    every = f"{load.poll_every // timedelta(seconds=1)}s"
    watch = {"name": "load", "bucket": load.bucket, "region": "ap-chongqing", "tags": list(load.tags), "every": every}
    return "[[watch]]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in watch.items())


@contextmanager
def _running(worker: Worker) -> Iterator[None]:
    thread = threading.Thread(target=worker.run, name="worker")
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join()


def _recorded(db: Database) -> list[Facts]:
    """Return all transitions on record, newest first."""
    with db.read() as tx:
        page = lists.find_transitions(tx, Filter(), limit=MOST)
        found = page.items
        while page.cursor:
            page = lists.find_transitions(tx, Filter(), cursor=page.cursor, limit=MOST)
            found += page.items
    return found


# --- figures --------------------------------------------------------------------------------------------------------

Timeline = Sequence[tuple[str, float]]  # the states of a job, each with when it began


def figures(
    load: Load,
    timelines: Mapping[str, Timeline],
    recorded: Iterable[Facts],
    *,
    complete: bool,
    seconds: float,
    calls: int,
) -> Figures:
    """Return the figures of what happened in truth, by job, and of the transitions that were recorded of it."""
    steps: dict[str, list[Facts]] = {job: [] for job in timelines}
    for step in sorted(recorded, key=lambda step: int(step["sequence"])):
        if step["job"] in steps:
            steps[step["job"]].append(step)
    found = [one for job, timeline in timelines.items() for one in _found(timeline, steps[job])]
    delays = sorted(delay for _, delay in found if delay is not None)
    final = sorted(delay for state, delay in found if delay is not None and state in DONE)
    return Figures(
        seconds=round(seconds, 1),
        poll_every_seconds=load.poll_every.total_seconds(),
        callbacks=load.callbacks,
        complete=complete,
        jobs=len(timelines),
        states=sum(map(len, timelines.values())),
        seen=len(delays),
        inferred=len(found) - len(delays),
        p50_seconds=_quantile(delays, 0.5),
        p99_seconds=_quantile(delays, 0.99),
        final_p50_seconds=_quantile(final, 0.5),
        final_p99_seconds=_quantile(final, 0.99),
        calls=calls,
        calls_per_transition=round(calls / len(delays), 3) if delays else None,
        calls_per_10_seconds=round(10 * calls / seconds, 2),
    )


def _found(timeline: Timeline, steps: Iterable[Facts]) -> Iterator[tuple[str, float | None]]:
    """Yield each true state that a transition records, in their order, and how late it was seen; None: inferred.

    What was seen is the last time that the job was in that state; what was inferred is the first since the one before.
    """
    first = 0
    for step in steps:
        seen_s = datetime.fromisoformat(step["seen_at"]).timestamp()
        there = [
            place for place in range(first, len(timeline))
            if timeline[place][0] == step["to"] and (step["inferred"] or timeline[place][1] <= seen_s)
        ]  # fmt: skip
        if there:
            place = there[0] if step["inferred"] else there[-1]
            first = place + 1
            yield step["to"], None if step["inferred"] else seen_s - timeline[place][1]


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    """Return what this share of these took at most, in seconds."""
    return round(ordered[math.ceil(share * len(ordered)) - 1], 3) if ordered else None


def _lines(found: Figures) -> Iterator[str]:
    polls = f"polled every {found.poll_every_seconds:g} s, callbacks: {found.callbacks or 'none'}"
    yield f"{count_of(found.jobs, 'job')} in {found.seconds:g} s, {polls}"
    if not found.complete:
        yield "stopped before a poll could show the last changes"
    known = f"{found.seen} seen, {found.inferred} inferred"
    yield f"states           {found.seen + found.inferred} recorded of {found.states}: {known}"
    yield f"delay            {_within(found.p50_seconds, found.p99_seconds)}"
    yield f"of final states  {_within(found.final_p50_seconds, found.final_p99_seconds)}"
    per = "-" if found.calls_per_transition is None else f"{found.calls_per_transition:.2f}"
    yield f"calls            {found.calls}: {per} per state seen, {found.calls_per_10_seconds:.1f} in 10 s"


def _within(half_s: float | None, most_s: float | None) -> str:
    return "-" if half_s is None or most_s is None else f"half within {half_s:.2f} s, 99 % within {most_s:.2f} s"
