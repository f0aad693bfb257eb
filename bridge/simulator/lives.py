"""Made-up lives of jobs, and the director who plays them against the simulated CI."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Self

from bridge.model import CANCEL, FAILED, PAUSE, RUNNING, SUBMITTED, SUCCESS
from bridge.simulator.jobs import JobStore

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
