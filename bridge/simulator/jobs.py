"""The jobs that the simulated CI has, and the director who plays made-up lives of them; any thread may do either."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
import uuid
import zlib
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Self

from bridge.model import CANCEL, DONE, FAILED, PAUSE, RUNNING, SUBMITTED, SUCCESS
from bridge.simulator.ci_requests import Query, invalid_argument

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
_Place = tuple[float, int]  # when it was created, and which it was


@dataclass(frozen=True, slots=True, kw_only=True)
class CiJob:
    """One job as it is now. Times are seconds since 1970; `input` None means no Input element."""

    id: str
    number: int
    bucket: str
    tag: str
    queue: str
    queue_type: str
    input: str | None
    output: str
    user_data: str | None
    template: str | None
    template_name: str | None
    workflow: str | None
    workflow_name: str | None
    workflow_run: str | None
    inventory_job: str | None
    level: int | None
    state: str
    created_at: float
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
    """Makes, moves and remembers jobs, and what was served of them."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._time = clock
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._jobs: dict[str, CiJob] = {}
        self._by_number: dict[int, CiJob] = {}
        self._order: dict[tuple[str, str], list[tuple[_Place, str]]] = {}
        self._history: dict[str, list[str]] = {}
        self._served: dict[str, list[str]] = {}
        self._hidden: set[str] = set()
        self._forgotten: set[str] = set()

    def create(
        self,
        bucket: str,
        tag: str,
        queue: str,
        *,
        input: str | None = "input/demo.mp4",  # noqa: A002 - CI's own word
        output: str | None = None,
        user_data: str | None = None,
        template: str | None = None,
        template_name: str | None = None,
        workflow: str | None = None,
        workflow_name: str | None = None,
        workflow_run: str | None = None,
        inventory_job: str | None = None,
        level: int | None = 0,
        queue_type: str | None = None,
        created_at: float | None = None,
    ) -> str:
        """Make a Submitted job and return its id."""
        number = next(self._numbers)
        created = self._time() if created_at is None else created_at
        job = CiJob(
            id=_job_id(created, number),
            number=number,
            bucket=bucket,
            tag=tag,
            queue=queue,
            queue_type=queue_type or QUEUE_TYPES.get(tag, "Transcoding"),
            input=input,
            output=output or f"out/{number}.mp4",
            user_data=user_data,
            template=template,
            template_name=template_name,
            workflow=workflow,
            workflow_name=workflow_name,
            workflow_run=workflow_run,
            inventory_job=inventory_job,
            level=level,
            state=SUBMITTED,
            created_at=created,
        )
        self._keep_new(job)
        return job.id

    def _keep_new(self, job: CiJob) -> None:
        with self._lock:
            self._jobs[job.id] = self._by_number[job.number] = job
            insort(self._order.setdefault((job.bucket, job.tag), []), (job.place, job.id))
            self._history[job.id] = [job.state]
            self._served[job.id] = []

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
            job = self._jobs[id]
            moved = replace(
                job,
                state=state,
                code=code,
                message=message,
                outputs=tuple(outputs),
                progress=_progress(job, state, progress),
                started_at=_started_at(job, state, self._time()),
                ended_at=_ended_at(job, state, self._time()),
            )
            self._jobs[id] = self._by_number[job.number] = moved
            _append_new(self._history[id], state)

    def hide(self, id: str) -> None:  # noqa: A002 - the noun
        """Leave the job out of lists; a question by id still finds it."""
        with self._lock:
            self._hidden.add(self._jobs[id].id)

    def forget(self, id: str) -> None:  # noqa: A002 - the noun
        """Know nothing of the job any more."""
        with self._lock:
            self._forgotten.add(self._jobs[id].id)

    def ids(self) -> list[str]:
        """Return every job ever made, oldest first."""
        with self._lock:
            return list(self._jobs)

    def history(self, id: str) -> list[str]:  # noqa: A002 - the noun
        """Return the states the job went through, in order."""
        with self._lock:
            return list(self._history[id])

    def served(self, id: str) -> list[str]:  # noqa: A002 - the noun
        """Return the states that answers told of the job, in order, each once in a row."""
        with self._lock:
            return list(self._served[id])

    def page(
        self, bucket: str, query: Query, *, size: int, token: str | None, record: bool
    ) -> tuple[list[CiJob], str | None]:
        """Return one page and the token of the next, if there is one."""
        with self._lock:
            after = self._place_of(token, query) if token else None
            found = list(itertools.islice(self._matching(bucket, query, after), size + 1))
            self._record(found[:size] if record else ())
        more = len(found) > size
        return found[:size], _token(found[size - 1], query) if more else None

    def describe(self, bucket: str, ids: Sequence[str], *, record: bool) -> tuple[list[CiJob], list[str]]:
        """Return the jobs that are known, and the ids that are not."""
        with self._lock:
            found = [self._jobs[i] for i in dict.fromkeys(ids) if self._knows(bucket, i)]
            self._record(found if record else ())
        known = {job.id for job in found}
        return found, [i for i in dict.fromkeys(ids) if i not in known]

    def queues(self, bucket: str) -> dict[str, str]:
        """Return the queues that jobs of the bucket were in, with their types."""
        with self._lock:
            return {job.queue: job.queue_type for job in self._jobs.values() if job.bucket == bucket}

    def _knows(self, bucket: str, id: str) -> bool:  # noqa: A002 - the noun
        return id in self._jobs and id not in self._forgotten and self._jobs[id].bucket == bucket

    def _record(self, jobs: Iterable[CiJob]) -> None:
        for job in jobs:
            _append_new(self._served[job.id], job.state)

    def _matching(self, bucket: str, query: Query, after: _Place | None) -> Iterator[CiJob]:
        order = self._order.get((bucket, query.tag), [])
        if query.newest_first:
            end = len(order) if after is None else bisect_left(order, after, key=_place)
            run: Iterable[int] = range(end - 1, -1, -1)
        else:
            run = range(0 if after is None else bisect_right(order, after, key=_place), len(order))
        absent = self._hidden | self._forgotten
        for job in (self._jobs[order[n][1]] for n in run):
            if job.id not in absent and _matches(job, query):
                yield job

    def _place_of(self, token: str, query: Query) -> _Place:
        digits = token.isascii() and token.isdecimal()
        job = self._by_number.get(int(token[:-10] or 0)) if digits else None
        if job is None or token != _token(job, query):
            raise invalid_argument("nextToken is invalid")
        return job.place


def _place(entry: tuple[_Place, str]) -> _Place:
    return entry[0]


def _token(last: CiJob, query: Query) -> str:
    # Bound to the question: a caller that changes it between two pages is told so.
    return f"{last.number}{zlib.crc32(repr(_canonical(query)).encode()):010d}"


def _canonical(query: Query) -> tuple[object, ...]:
    states: object = sorted(query.states) if query.states is not None else None
    return (query.tag, query.queue, query.queue_type, query.workflow, query.inventory_job, query.input,
            query.newest_first, states, query.after, query.before)  # fmt: skip


def _matches(job: CiJob, query: Query) -> bool:
    created = int(job.created_at)
    wanted = (
        (query.queue, job.queue),
        (query.queue_type, job.queue_type),
        (query.workflow, job.workflow),
        (query.inventory_job, job.inventory_job),
        (query.input, job.input),
    )
    return (
        all(asked in (None, has) for asked, has in wanted)
        and (query.states is None or job.state in query.states)
        and (query.after is None or created > query.after)
        and (query.before is None or created < query.before)
    )


def _append_new(states: list[str], state: str) -> None:
    if states[-1:] != [state]:
        states.append(state)


def _progress(job: CiJob, state: str, said: int | None) -> int | None:
    if said is not None:
        return said
    # A cancelled job has no Progress element in samples.
    return {SUCCESS: 100, SUBMITTED: 0, CANCEL: None}.get(state, job.progress)


def _started_at(job: CiJob, state: str, now: float) -> float | None:
    if job.started_at is None and state in (RUNNING, SUCCESS, FAILED):
        return now
    return job.started_at


def _ended_at(job: CiJob, state: str, now: float) -> float | None:
    if state == CANCEL or state not in DONE:
        return None  # samples of cancelled jobs have no EndTime either
    return now if job.ended_at is None else job.ended_at


def _job_id(created_at: float, number: int) -> str:
    """Return 'j' and a UUIDv1 of the creation time, as CI's ids are."""
    ticks = int(created_at * 10_000_000) + _EPOCH_OF_UUID1
    node = 0x525400000000 | number & 0xFFFFFFFF
    fields = (ticks & 0xFFFFFFFF, ticks >> 32 & 0xFFFF, ticks >> 48 & 0x0FFF | 0x1000, 0x80, 0x01, node)
    return "j" + uuid.UUID(fields=fields).hex


# --- made-up lives of jobs, and the director who plays them ---------------------------------------------------------

# CI publishes no table of the codes that jobs fail with: these are invented.
FAILURES = (
    ("InvalidArgument", "Input object cannot be decoded: moov atom not found"),
    ("ResourceNotFound", "The input object does not exist"),
    ("ResourceDownloadFailed", "Download of the input timed out after 60 s"),
    ("UnsupportedFormat", "Video codec av01 is not supported by the template"),
    ("InternalError", "We encountered an internal error. Please try again."),
)
NAMES = ("intro", "trailer", "lecture 01", "keynote", "unboxing", "会议录像", "b-roll")
SUFFIXES = {"Transcode": ".mp4", "Snapshot": "-0.jpg", "Concat": ".mp4", "SpeechRecognition": ".txt"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """What happens to a job next."""

    state: str
    code: str | None = None
    message: str | None = None
    outputs: tuple[str, ...] = ()
    progress: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """A job from its birth on; each step waits its seconds after the one before."""

    bucket: str
    tag: str
    queue: str
    input: str
    output: str
    user_data: str | None
    workflow: bool
    steps: tuple[tuple[float, Move], ...]


def a_life(random: Random, *, bucket: str, tags: Sequence[str], queues: Sequence[str]) -> Life:
    """Return the next life that `random` thinks of. It always ends in Success, Failed or Cancel."""
    tag = random.choice(tags)
    number = random.randrange(1000, 10_000)
    stem = f"{random.choice(NAMES)} {number}" if random.random() < 0.2 else random.choice(NAMES)
    output = f"out/{number}/{stem}{SUFFIXES.get(tag, '.out')}"
    return Life(
        bucket=bucket,
        tag=tag,
        queue=random.choice(queues),
        input=f"uploads/2026/{random.randint(1, 12):02d}/{number}/{stem}.mp4",
        output=output,
        user_data=_user_data(random, number),
        workflow=random.random() < 0.15,
        steps=_steps(random, output),
    )


def _user_data(random: Random, number: int) -> str | None:
    return random.choice((f'{{"asset_id": "a-{number}"}}', f"asset=a-{number};owner=media-team", None))


def _steps(random: Random, output: str) -> tuple[tuple[float, Move], ...]:
    luck = random.random()
    if luck < 0.15:  # over before anybody looks twice
        return ((random.uniform(0.05, 0.4), Move(state=RUNNING)), (random.uniform(0.05, 0.4), _end(random, output)))
    before = [(random.uniform(0.5, 8), _paused()), (random.uniform(2, 20), Move(state=SUBMITTED))] * (luck < 0.25)
    if luck > 0.94:
        return (*before, (random.uniform(1, 10), Move(state=CANCEL)))
    return (*before, (random.uniform(0.5, 8), Move(state=RUNNING)), *_work(random), (2.0, _end(random, output)))


def _paused() -> Move:
    return Move(state=PAUSE)


def _work(random: Random) -> tuple[tuple[float, Move], ...]:
    marks = sorted(random.sample(range(1, 100), random.randint(1, 5)))
    return tuple((random.uniform(1, 12), Move(state=RUNNING, progress=mark)) for mark in marks)


def _end(random: Random, output: str) -> Move:
    if random.random() < 0.8:
        return Move(state=SUCCESS, outputs=(output,))
    code, message = random.choice(FAILURES)
    return Move(state=FAILED, code=code, message=message)


class Director:
    """Plays random lives: a birth every `every_s` seconds on average, `speed` times as fast as they are written.

    `limit` ends the births. In a `with` it plays in a thread of its own.
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
        self._births = 0
        self._next_birth = 0.0
        self._due: list[tuple[float, int, str, tuple[tuple[float, Move], ...]]] = []
        self._tie = itertools.count()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.born: list[str] = []

    @property
    def idle(self) -> bool:
        """True once every life is over and no more are to come."""
        return not self._due and self._births == self._limit

    def step(self, now: float) -> float | None:
        """Play all that is due `now` seconds after the start; return when the next is, None if nothing is left."""
        # Divided here as in the answer, so that rounding never makes "next" later than itself.
        while (when := self._next()) is not None and when / self._speed <= now:
            if self._due and self._due[0][0] == when:
                self._move(*heapq.heappop(self._due))
            else:
                self._bear(when)
        return None if when is None else when / self._speed

    def run(self, seconds: float | None = None) -> None:
        """Play in real time, from the start, until `seconds` have passed, all is over, or `stop`."""
        started = time.monotonic()
        while not self._stop.is_set():
            now = time.monotonic() - started
            when = self.step(now if seconds is None else min(now, seconds))
            if when is None or (seconds is not None and now >= seconds):
                return
            self._stop.wait(max(0.0, (when if seconds is None else min(when, seconds)) - now))

    def join(self, timeout: float | None = None) -> None:
        """Wait for the thread of the `with` to have played all."""
        if self._thread:
            self._thread.join(timeout)

    def stop(self) -> None:
        self._stop.set()
        self.join()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _next(self) -> float | None:
        births = [self._next_birth] if self._births != self._limit else []
        return min((*births, *(due[0] for due in self._due[:1])), default=None)

    def _bear(self, when: float) -> None:
        life = a_life(self._random, bucket=self._bucket, tags=self._tags, queues=self._queues)
        run = f"i{self._random.getrandbits(128):032x}" if life.workflow else None
        id_ = self._ci.create(
            life.bucket,
            life.tag,
            life.queue,
            input=life.input,
            output=life.output,
            user_data=life.user_data,
            workflow="w1f2e3d4c5b6a47980a1b2c3d4e5f6071" if run else None,
            workflow_name="nightly" if run else None,
            workflow_run=run,
        )
        self.born.append(id_)
        self._births += 1
        self._next_birth = when + self._random.expovariate(1 / self._every_s)
        self._plan(when, id_, life.steps)

    def _move(self, when: float, _: int, id_: str, steps: tuple[tuple[float, Move], ...]) -> None:
        move = steps[0][1]
        self._ci.move(
            id_, move.state, code=move.code, message=move.message, outputs=move.outputs, progress=move.progress
        )
        self._plan(when, id_, steps[1:])

    def _plan(self, when: float, id_: str, steps: tuple[tuple[float, Move], ...]) -> None:
        if steps:
            heapq.heappush(self._due, (when + steps[0][0], next(self._tie), id_, steps))
