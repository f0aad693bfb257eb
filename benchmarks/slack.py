"""Slack under load: real workers, a simulated CI, and a Slack look-alike that keeps Slack's limits.

living    100 jobs in one channel: how long until each message shows its job's last state, and at what price
shared    the same jobs, shared among three notifiers of the channel
storm     3,000 failures at once, and then an urgent message
kills     1,000 jobs while the worker is killed ten times; Slack answers in 0.7 s and takes 20 messages a second
"""

from __future__ import annotations

import heapq
import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from statistics import median

from sqlalchemy import func, select

from benchmarks.machine import Bench, Stores
from benchmarks.report import Line, at_least, at_most
from bridge.model import FAILED, RUNNING, SUCCESS, Rate
from bridge.record.database import Database
from bridge.record.schema import MERGED, SENT, deliveries, digests
from bridge.simulator.slack import Limits
from bridge.simulator.workspace import Post, Version
from tests.support.processes import Process
from tests.support.stage import BUCKET, Stage

_HEAD = """
[defaults]
every = "1s"
rate = "1000/s"

[[watch]]
name = "media"
bucket = "media-1250000000"
region = "ap-chongqing"
tags = ["Transcode", "Snapshot"]

[template.state]
title = "{{ job.input | basename }} is {{ to }}"
"""
_NOTIFIER = """
[notifier.{name}]
type = "slack"
channel = "C024BE91L"
token = {{ env = "SLACK_BOT_TOKEN" }}
{keys}

[[rule]]
name = "{name}"
template = "state"
notify = "{name}"
{match}
"""
_LIVING = 'thread = "job"\nupdate = true\nflood = false'
_FAST = f'{_LIVING}\nrate = "20/s"\nmax_in_flight = 32'
_SHOWN = re.compile(r"job-(\d+)\.mp4 is (\w+)")
_RUNS_AFTER_S, _ENDS_AFTER_S = 6.0, 15.0
_ALL_TRUE_S, _MEDIAN_LAG_S, _EDITS, _REFUSED = 125.0, 45.0, 120, 0.02
_STORM_S, _URGENT_S = 120.0, 5.0
_KILLS, _KILL_EVERY_S, _ANSWER_S, _SETTLED_S = 10, 6.0, 0.7, 600.0


@dataclass(slots=True)
class _Play:
    """Jobs that are created one after the other, run and end. Times are seconds since 1970."""

    stage: Stage
    jobs: int
    every_s: float
    queues: int = 1
    began_at: float = 0.0
    ended_at: dict[int, float] = field(default_factory=dict)
    ids: dict[int, str] = field(default_factory=dict)

    def run(self, beside: Callable[[float], None] = lambda _: None) -> None:
        """Play it; `beside` is called now and then, with the seconds since the begin."""
        steps = [
            (number * self.every_s + after_s, number, state)
            for number in range(self.jobs)
            for after_s, state in ((0.0, ""), (_RUNS_AFTER_S, RUNNING), (_ENDS_AFTER_S, SUCCESS))
        ]
        heapq.heapify(steps)
        self.began_at = time.time()
        while steps:
            now_s = time.time() - self.began_at
            beside(now_s)
            while steps and steps[0][0] <= now_s:
                _, number, state = heapq.heappop(steps)
                self._step(number, state)
            time.sleep(0.01)

    def _step(self, number: int, state: str) -> None:
        if not state:
            queue, file = f"q{number % self.queues}", f"in/job-{number}.mp4"
            self.ids[number] = self.stage.ci.create(BUCKET, "Transcode", queue, input=file)
            return
        self.stage.ci.move(self.ids[number], state)
        if state == SUCCESS:
            self.ended_at[number] = time.time()


def measure(
    bench: Bench, stores: Stores, _rounds: int, *, scenarios: Sequence[str], databases: Sequence[str]
) -> list[Line]:
    return [
        replace(line, what=f"{name}, {kind}: {line.what}")
        for name in scenarios
        for kind in databases
        for line in _measured(bench, stores, name, kind)
    ]


def _measured(bench: Bench, stores: Stores, name: str, kind: str) -> Iterator[Line]:
    rules, scenario = SCENARIOS[name]
    folder = bench.directory / f"{name}-{kind}"
    folder.mkdir()
    with stores.empty(kind) as url:
        db = Database(url)
        db.upgrade()
        db.close()
        with Stage(folder, url, rules=_HEAD + rules) as stage:
            worker = stage.start_worker()
            stage.await_first_poll()
            yield from scenario(stage, worker)


# --- one living message per job -------------------------------------------------------------------------------------


def _living(stage: Stage, worker: Process, *, notifiers: int = 1) -> Iterator[Line]:
    stage.slack.limits = Limits()
    play = _Play(stage, jobs=100, every_s=0.15, queues=notifiers)
    play.run()
    _await(lambda: len(_true_at(stage, play)) == play.jobs, within_s=400)
    true_at = _true_at(stage, play)
    answers = stage.slack.answered.copy()
    stage.stop(worker)
    yield _reached("messages that show the last state", "", len(true_at), play.jobs)
    if not true_at:
        return
    yield _allowed("the last one shows it after", "s", max(true_at.values()) - play.began_at, _ALL_TRUE_S)
    for name in range(notifiers):
        lags = [at - play.ended_at[number] for number, at in true_at.items() if number % notifiers == name]
        who = f", notifier {name}" if notifiers > 1 else ""
        yield _allowed(f"median lag behind the end{who}", "s", max(median(lags), 0.0), _MEDIAN_LAG_S)
    yield _allowed("edits", "", answers["chat.update", "ok"], _EDITS)
    yield _refused(answers)


def _true_at(stage: Stage, play: _Play) -> dict[int, float]:
    """Return since when each job's root shows its last state, of those that do; a job with two roots is left out."""
    return {
        number: since
        for number, roots in _roots(stage.slack.posts).items()
        if number in play.ended_at and len(roots) == 1 and (since := _since(roots[0], SUCCESS)) is not None
    }


def _roots(posts: Sequence[Post]) -> dict[int, list[Post]]:
    """Return the messages outside of threads by the number of the job that they show."""
    found: dict[int, list[Post]] = defaultdict(list)
    for post in posts:
        if not post.thread_ts and (shown := _shown(post.versions[-1])):
            found[shown[0]].append(post)
    return found


def _since(post: Post, state: str) -> float | None:
    since = None
    for version in reversed(post.versions):
        shown = _shown(version)
        if shown is None or shown[1] != state:
            break
        since = version.at
    return since


def _shown(version: Version) -> tuple[int, str] | None:
    """Return the job and the state that a message shows; None: not those of exactly one job."""
    found = set(_SHOWN.findall(f"{version.text} {json.dumps(version.blocks)}"))
    (number, state), *more = found or {("", "")}
    return (int(number), state) if number and not more else None


# --- a storm --------------------------------------------------------------------------------------------------------


def _storm(stage: Stage, worker: Process, *, failures: int = 3_000) -> Iterator[Line]:
    stage.slack.limits = Limits()
    began_at = time.time()
    for number in range(failures):
        stage.ci.move(stage.ci.create(BUCKET, "Transcode", "q0", input=f"in/job-{number}.mp4"), FAILED)
    _await(lambda: _told(stage)[1] >= failures, within_s=60)
    urgent_at = time.time()
    stage.ci.move(stage.ci.create(BUCKET, "Snapshot", "q0", input="in/job-99999.mp4"), FAILED)
    _await(lambda: 99_999 in _roots(stage.slack.posts), within_s=300)
    urgent = _roots(stage.slack.posts)[99_999]
    _await(lambda: _told(stage)[0] > failures, within_s=600)
    told, _ = _told(stage)
    took_s = time.time() - began_at
    answers = stage.slack.answered.copy()
    stage.stop(worker)
    yield _allowed("the urgent message after", "s", (urgent[0].at if urgent else time.time()) - urgent_at, _URGENT_S)
    yield _reached("failures posted or counted in a digest", "", told, failures + 1)
    yield _allowed("all of them after", "s", took_s, _STORM_S)
    yield _refused(answers)


def _told(stage: Stage) -> tuple[int, int]:
    """Return how many deliveries of jobs were sent, by themselves or in a digest that was, and how many there are."""
    digest = deliveries.alias()
    sent_with = (
        select(func.count())
        .select_from(deliveries.join(digests, digests.c.n == deliveries.c.digest))
        .join(digest, digest.c.id == digests.c.delivery)
        .where(deliveries.c.state == MERGED, digest.c.state == SENT)
    )
    of_jobs = select(func.count()).where(
        deliveries.c.id.not_in(select(digests.c.delivery).where(digests.c.delivery.is_not(None)))
    )
    with stage.db.read() as tx:
        merged = tx.execute(sent_with).scalar_one()
        sent = tx.execute(of_jobs.where(deliveries.c.state == SENT)).scalar_one()
        return merged + sent, tx.execute(of_jobs).scalar_one()


# --- kills ----------------------------------------------------------------------------------------------------------


def _kills(stage: Stage, worker: Process, *, jobs: int = 1_000) -> Iterator[Line]:
    rate = Rate(count=20, per=timedelta(seconds=1))
    stage.slack.limits = Limits(posts=rate, burst=20, tier3=rate)
    stage.slack.spoil = lambda _, answer: replace(answer, delay_s=_ANSWER_S)
    killer = _Killer(stage, worker)
    play = _Play(stage, jobs=jobs, every_s=0.05)
    play.run(killer)
    _await(stage.is_quiet, within_s=_SETTLED_S)
    _await(lambda: len(_true_at(stage, play)) == jobs, within_s=60)  # no delivery waits for an edit
    took_s = time.time() - play.began_at
    answers, roots = stage.slack.answered.copy(), _roots(stage.slack.posts)
    stage.stop(killer.worker)
    seen = {id_: [step["to"] for step in steps] for id_, steps in stage.transitions().items()}
    yield _reached("kills", "", killer.kills, _KILLS)
    yield _reached("jobs all of whose states are on record", "", _complete(stage, seen), jobs)
    yield _reached("messages that show the last state, one a job", "", len(_true_at(stage, play)), jobs)
    yield _reached("jobs without a second message", "", sum(len(found) == 1 for found in roots.values()), jobs)
    undelivered = len([one for one in stage.deliveries() if one["state"] not in ("sent", "merged")])
    yield _reached(
        "deliveries that were sent or merged", "", len(stage.deliveries()) - undelivered, len(stage.deliveries())
    )
    yield _allowed("all of it after", "s", took_s, _SETTLED_S)
    for method in sorted({method for method, _ in answers}):
        asked = sum(count for (name, _), count in answers.items() if name == method)
        yield _reached(f"{method} within its limit", "", asked - answers[method, "ratelimited"], asked)


def _complete(stage: Stage, seen: Mapping[str, list[str]]) -> int:
    return sum(seen.get(id_) == stage.ci.history(id_) for id_ in stage.ci.ids())


@dataclass(slots=True)
class _Killer:
    """Kills the worker now and then, and starts another."""

    stage: Stage
    worker: Process
    kills: int = 0

    def __call__(self, now_s: float) -> None:
        if self.kills < _KILLS and now_s >= (self.kills + 1) * _KILL_EVERY_S:
            self.worker.kill()
            self.worker.wait(10)
            self.worker = self.stage.start_worker()
            self.kills += 1


# --- what was found -------------------------------------------------------------------------------------------------


def _await(true: Callable[[], bool], *, within_s: float) -> None:
    """Return when it is true, or the time is over: what is missing then shows in the figures."""
    until = time.monotonic() + within_s
    while not true() and time.monotonic() < until:
        time.sleep(0.5)


def _allowed(what: str, unit: str, found: float, most: float) -> Line:
    return at_most(1, what, unit, ours=[found], peer_name="allowed", peer=[most])


def _reached(what: str, unit: str, found: float, all_: float) -> Line:
    return at_least(1, what, unit, ours=[found], peer_name="of", peer=[max(all_, 1)])


def _refused(answers: Counter[tuple[str, str]]) -> Line:
    refused = sum(count for (_, outcome), count in answers.items() if outcome == "ratelimited")
    return _allowed("share of requests refused with 429", "", refused / max(answers.total(), 1), _REFUSED)


def _notifier(name: str, keys: str, match: str = "") -> str:
    return _NOTIFIER.format(name=name, keys=keys, match=match)


SCENARIOS: Mapping[str, tuple[str, Callable[[Stage, Process], Iterator[Line]]]] = {
    "living": (_notifier("ops", _LIVING), _living),
    "shared": (
        "".join(_notifier(f"ops{n}", _LIVING, f'match.queue = "q{n}"') for n in range(3)),
        lambda stage, worker: _living(stage, worker, notifiers=3),
    ),
    "storm": (
        _notifier("ops", 'thread = "job"', 'to = "Failed"\nmatch.tag = "Transcode"')
        + '[[rule]]\nname = "urgent"\ntemplate = "state"\nnotify = "ops"\nurgent = true\nmatch.tag = "Snapshot"\n',
        _storm,
    ),
    "kills": (_notifier("ops", _FAST), _kills),
}
