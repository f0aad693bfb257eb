"""The jobs of the simulated CI, and the director who makes up jobs and moves them. Any thread may use both."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
import uuid
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Self

from bridge.model import CANCEL, DONE, FAILED, PAUSE, RUNNING, SUBMITTED, SUCCESS

# --- jobs -----------------------------------------------------------------------------------------------------------

# Which queue type serves a tag, where it is not Transcoding.
QUEUE_TYPES = {
    **dict.fromkeys(("PicProcess",), "PicProcess"),
    **dict.fromkeys(("SpeechRecognition", "NoiseReduction", "VoiceSeparate", "Tts"), "Speeching"),
    **dict.fromkeys(
        ("Translation", "WordsGeneralize", "VideoTargetRec", "SegmentVideoBody", "SplitVideoParts"), "AIProcess"
    ),
}
_EPOCH_OF_UUID1 = 0x01B21DD213814000  # 1970 in 100 ns steps since 1582
_Place = tuple[float, int]  # creation time and number: the order of lists


@dataclass(frozen=True, slots=True, kw_only=True)
class CiJob:
    """One job as it is now. Times are seconds since 1970; `input` None means no Input element."""

    id: str
    number: int
    bucket: str
    tag: str
    queue: str
    queue_type: str
    created_at: float
    state: str = SUBMITTED
    input: str | None = "input/demo.mp4"
    output: str = "out/demo.mp4"
    user_data: str | None = None
    template: str | None = None
    template_name: str | None = None
    workflow: str | None = None
    workflow_name: str | None = None
    workflow_run: str | None = None
    level: int | None = 0
    started_at: float | None = None
    ended_at: float | None = None
    progress: int | None = 0
    code: str | None = None
    message: str | None = None
    outputs: tuple[str, ...] = ()

    @property
    def place(self) -> _Place:
        return (self.created_at, self.number)


class JobStore:
    """Creates, moves and remembers jobs, and what was served of them."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._time = clock
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._jobs: dict[str, CiJob] = {}
        self._places: dict[int, _Place] = {}  # by number
        self._order: dict[tuple[str, str], list[tuple[_Place, str]]] = {}  # by bucket and tag
        self._history: dict[str, list[tuple[str, float]]] = {}  # states, and when they began
        self._served: dict[str, list[str]] = {}
        self._hidden: set[str] = set()
        self._forgotten: set[str] = set()

    def create(self, bucket: str, tag: str, queue: str, *, created_at: float | None = None, **details: Any) -> str:
        """Create a Submitted job and return its id; `details` are further fields of CiJob."""
        number = next(self._numbers)
        created = self._time() if created_at is None else created_at
        details = {"queue_type": QUEUE_TYPES.get(tag, "Transcoding"), "output": f"out/{number}.mp4", **details}
        id_ = _job_id(created, number)
        job = CiJob(id=id_, number=number, bucket=bucket, tag=tag, queue=queue, created_at=created, **details)
        with self._lock:
            self._jobs[id_], self._places[number] = job, job.place
            insort(self._order.setdefault((bucket, tag), []), (job.place, id_))
            self._history[id_], self._served[id_] = [(job.state, created)], []
        return id_

    def move(
        self,
        id: str,  # noqa: A002 - the noun
        state: str,
        *,
        code: str | None = None,
        message: str | None = None,
        outputs: Sequence[str] = (),
        progress: int | None = None,
    ) -> None:
        """Put the job into `state`, any word, from any state, and set its times by the clock."""
        with self._lock:
            job, now = self._jobs[id], self._time()
            if progress is None:  # a cancelled job has no Progress element in samples
                progress = {SUCCESS: 100, SUBMITTED: 0, CANCEL: None}.get(state, job.progress)
            is_started = job.started_at is None and state in (RUNNING, SUCCESS, FAILED)
            has_end = state in DONE and state != CANCEL  # samples of cancelled jobs have no EndTime either
            self._jobs[id] = replace(
                job,
                state=state,
                code=code,
                message=message,
                outputs=tuple(outputs),
                progress=progress,
                started_at=now if is_started else job.started_at,
                ended_at=(job.ended_at or now) if has_end else None,
            )
            if self._history[id][-1][0] != state:
                self._history[id].append((state, now))

    def hide(self, id: str) -> None:  # noqa: A002 - the noun
        """Leave the job out of lists; a query by id still finds it."""
        self._hidden.add(id)

    def forget(self, id: str) -> None:  # noqa: A002 - the noun
        """Answer as if the job had never existed."""
        self._forgotten.add(id)

    def job(self, id: str) -> CiJob:  # noqa: A002 - the noun
        with self._lock:
            return self._jobs[id]

    def ids(self) -> list[str]:
        """Return every job ever created, oldest first."""
        with self._lock:
            return list(self._jobs)

    def history(self, id: str) -> list[str]:  # noqa: A002 - the noun
        """Return the states the job went through, in order."""
        with self._lock:
            return [state for state, _ in self._history[id]]

    def timeline(self, id: str) -> list[tuple[str, float]]:  # noqa: A002 - the noun
        """Return the states the job went through, each with when it began, in seconds since 1970."""
        with self._lock:
            return list(self._history[id])

    def served(self, id: str) -> list[str]:  # noqa: A002 - the noun
        """Return the states that answers showed of the job, in order, without repetitions."""
        with self._lock:
            return list(self._served[id])

    def place_of(self, number: int) -> _Place | None:
        with self._lock:
            return self._places.get(number)

    def page(
        self,
        bucket: str,
        tag: str,
        matches: Callable[[CiJob], bool],
        *,
        newest_first: bool,
        after: _Place | None,
        size: int,
        record: bool,
    ) -> tuple[list[CiJob], bool]:
        """Return the jobs that come next in the list, and whether there are more."""
        with self._lock:
            ordered = self._ordered(bucket, tag, newest_first=newest_first, after=after)
            jobs = list(itertools.islice(filter(matches, ordered), size + 1))
            self._record(jobs[:size] if record else ())
        return jobs[:size], len(jobs) > size

    def _ordered(self, bucket: str, tag: str, *, newest_first: bool, after: _Place | None) -> Iterator[CiJob]:
        order = self._order.get((bucket, tag), [])
        if newest_first:
            end = len(order) if after is None else bisect_left(order, after, key=lambda entry: entry[0])
            indexes: Iterable[int] = range(end - 1, -1, -1)
        else:
            begin = 0 if after is None else bisect_right(order, after, key=lambda entry: entry[0])
            indexes = range(begin, len(order))
        absent = self._hidden | self._forgotten
        return (self._jobs[id_] for _, id_ in map(order.__getitem__, indexes) if id_ not in absent)

    def describe(self, bucket: str, ids: Sequence[str], *, record: bool) -> tuple[list[CiJob], list[str]]:
        """Return the jobs that are known, and the ids that are not."""
        with self._lock:
            known = [id_ for id_ in dict.fromkeys(ids) if id_ in self._jobs and id_ not in self._forgotten]
            jobs = [self._jobs[id_] for id_ in known if self._jobs[id_].bucket == bucket]
            self._record(jobs if record else ())
        return jobs, [id_ for id_ in dict.fromkeys(ids) if id_ not in {job.id for job in jobs}]

    def _record(self, jobs: Iterable[CiJob]) -> None:
        for job in jobs:
            _append_new(self._served[job.id], job.state)


def _append_new(states: list[str], state: str) -> None:
    if states[-1:] != [state]:
        states.append(state)


def _job_id(created_at: float, number: int) -> str:
    """Return 'j' and a UUIDv1 of the creation time, as CI's ids are."""
    ticks = int(created_at * 10_000_000) + _EPOCH_OF_UUID1
    node = 0x525400000000 | number & 0xFFFFFFFF
    fields = (ticks & 0xFFFFFFFF, ticks >> 32 & 0xFFFF, ticks >> 48 & 0x0FFF | 0x1000, 0x80, 0x01, node)
    return "j" + uuid.UUID(fields=fields).hex


# --- made-up jobs, and the director who plays them ------------------------------------------------------------------

# CI publishes no table of the codes that jobs fail with: these are invented.
_FAILURES = (
    ("InvalidArgument", "Input object cannot be decoded: moov atom not found"),
    ("ResourceNotFound", "The input object does not exist"),
    ("ResourceDownloadFailed", "Download of the input timed out after 60 s"),
    ("UnsupportedFormat", "Video codec av01 is not supported by the template"),
    ("InternalError", "We encountered an internal error. Please try again."),
)
_NAMES = ("intro", "trailer", "lecture 01", "keynote", "unboxing", "会议录像", "b-roll")
_SUFFIXES = {"Transcode": ".mp4", "Snapshot": "-0.jpg", "Concat": ".mp4", "SpeechRecognition": ".txt"}

Step = tuple[float, str, dict[str, Any]]  # seconds after the step before, the new state, its details


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """A made-up job, and what happens to it."""

    tag: str
    queue: str
    details: dict[str, Any]
    steps: tuple[Step, ...]


def a_life(random: Random, *, tags: Sequence[str], queues: Sequence[str]) -> Life:
    """Return the next job that `random` makes up. It always ends in Success, Failed or Cancel."""
    tag = random.choice(tags)
    number = random.randrange(1000, 10_000)
    stem = f"{random.choice(_NAMES)} {number}" if random.random() < 0.2 else random.choice(_NAMES)
    output = f"out/{number}/{stem}{_SUFFIXES.get(tag, '.out')}"
    details: dict[str, Any] = {
        "input": f"uploads/2026/{random.randint(1, 12):02d}/{number}/{stem}.mp4",
        "output": output,
        "user_data": random.choice((f'{{"asset_id": "a-{number}"}}', f"asset=a-{number};owner=media-team", None)),
    }
    if random.random() < 0.15:
        run = f"i{random.getrandbits(128):032x}"
        details |= {"workflow": "w1f2e3d4c5b6a47980a1b2c3d4e5f6071", "workflow_name": "nightly", "workflow_run": run}
    return Life(tag=tag, queue=random.choice(queues), details=details, steps=tuple(_steps(random, output)))


def _steps(random: Random, output: str) -> Iterator[Step]:
    kind = random.random()
    if kind < 0.15:  # over before anybody looks twice
        yield random.uniform(0.05, 0.4), RUNNING, {}
        yield random.uniform(0.05, 0.4), *_end(random, output)
        return
    if kind < 0.25:
        yield random.uniform(0.5, 8), PAUSE, {}
        yield random.uniform(2, 20), SUBMITTED, {}
    if kind > 0.94:
        yield random.uniform(1, 10), CANCEL, {}
        return
    yield random.uniform(0.5, 8), RUNNING, {}
    for progress in sorted(random.sample(range(1, 100), random.randint(1, 5))):
        yield random.uniform(1, 12), RUNNING, {"progress": progress}
    yield 2.0, *_end(random, output)


def _end(random: Random, output: str) -> tuple[str, dict[str, Any]]:
    if random.random() < 0.8:
        return SUCCESS, {"outputs": (output,)}
    code, message = random.choice(_FAILURES)
    return FAILED, {"code": code, "message": message}


class Director:
    """Plays made-up jobs in a thread of its own, from `with` to its end: a new one every `every_s` seconds on average,
    all of them `speed` times as fast as they are written; no new ones after `limit`.
    """

    def __init__(
        self,
        ci: JobStore,
        *,
        random: Random,
        bucket: str,
        tags: Sequence[str],
        queues: Sequence[str],
        every_s: float = 4.0,
        speed: float = 1.0,
        limit: int | None = None,
    ) -> None:
        self._ci, self._random, self._every_s, self._speed = ci, random, every_s, speed
        self._bucket, self._tags, self._queues, self._limit = bucket, tuple(tags), tuple(queues), limit
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._play, daemon=True)
        self.idle = False  # every job has ended and no more are to come
        self.born: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _play(self) -> None:
        began = time.monotonic()
        birth_s, ties = 0.0, itertools.count()
        steps: list[tuple[float, int, str, str, dict[str, Any]]] = []
        while steps or len(self.born) != self._limit:
            is_birth = len(self.born) != self._limit and (not steps or birth_s <= steps[0][0])
            at_s = birth_s if is_birth else steps[0][0]
            if self._stop.wait(max(0.0, began + at_s / self._speed - time.monotonic())):
                return
            if not is_birth:
                _, _, id_, state, details = heapq.heappop(steps)
                self._ci.move(id_, state, **details)
                continue
            life = a_life(self._random, tags=self._tags, queues=self._queues)
            self.born.append(self._ci.create(self._bucket, life.tag, life.queue, **life.details))
            for delay_s, state, details in life.steps:
                at_s += delay_s
                heapq.heappush(steps, (at_s, next(ties), self.born[-1], state, details))
            birth_s += self._random.expovariate(1 / self._every_s)
        self.idle = True
