"""Jobs that are made up: what a person says of one becomes a transition."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, ParamSpec, TypeVar

from bridge.decide.rules.levels import Staying
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.text.times import duration
from bridge.decide.text.values import STATE_WORDS, instead, listing, shown, suggest
from bridge.model import DONE, NEW, OUTPUTS_KEPT, RUNNING, STATES, SUBMITTED, SUCCESS, Job, Transition, Watch

P = ParamSpec("P")
T = TypeVar("T")

_SETS = ("done", "active", "*")
_SPANS = ("age", "wait", "duration")
_OTHERS = ("progress", "outputs", "outputs_total", "created_at", "started_at", "ended_at")
_TEXTS = tuple(name for name in Job.__slots__ if name not in _OTHERS)
_WORDS = (*_TEXTS, "progress", "outputs", "from", "to", *_SPANS, "watch")


def sample_transition(said: Mapping[str, Any], book: Rulebook, now: datetime) -> Transition:
    """Return the transition, seen now, that a table tells of; what it leaves out is made up.

    Keys: those of a job, `from` (else new), `to` or `state` (else Success), `watch`, and `age`, `wait` and `duration`
    as `match` has them. A queue may be an alias, and user data a table. Raises ValueError with every fault, one a line.
    """
    faults = _Faults()
    for key in said:
        if key not in _WORDS:
            faults.found.append(f'a job has no "{key}"{suggest(key, _WORDS)}; there are {listing(_WORDS)}')
    texts = {name: text for name in _TEXTS if (text := faults.heed(_text, said, name)) is not None}
    to = faults.heed(_to, said) or SUCCESS
    was = faults.heed(_state, said, "from") or NEW
    if "queue" in texts:
        texts["queue"] = _queue_id(texts["queue"], book)
    watch = faults.heed(_watch, said, texts, book.watches)
    created, started, ended = faults.heed(_times, said, to, now) or (None, None, None)
    outputs = faults.heed(_outputs, said.get("outputs")) or ()
    progress = faults.heed(_progress, said.get("progress"))
    if faults.found:
        raise ValueError("\n".join(dict.fromkeys(faults.found)))
    place = {"bucket": watch.place.bucket, "region": watch.place.region} if watch else _NOWHERE
    job = Job(
        **{"id": "sample", **place, **texts, "state": to},
        progress=progress,
        outputs=outputs[:OUTPUTS_KEPT],
        outputs_total=len(outputs),
        created_at=created,
        started_at=started,
        ended_at=ended,
    )
    return Transition(job=job, was=was, to=to, sequence=1, seen_at=now, watch=watch.name if watch else "sample")


class _Faults:
    def __init__(self) -> None:
        self.found: list[str] = []

    def heed(self, read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Return what was read, or note what is wrong with it."""
        try:
            return read(*args, **kwargs)
        except ValueError as error:
            self.found.append(str(error))
            return None


def _to(said: Mapping[str, Any]) -> str | None:
    to, state = _state(said, "to"), _state(said, "state")
    if to and state and to != state:
        raise ValueError(f'to: "{to}" and state: "{state}" are the same thing; write one of them')
    to = to or state
    if to == NEW:
        raise ValueError(f'no job becomes "{NEW}": write from = "{NEW}" for a job seen for the first time')
    return to


_NOWHERE = {"bucket": "sample-1250000000", "region": "ap-chongqing"}


def sample_stay(transition: Transition) -> Staying:
    """Return the stay that a sample transition began: of the job's age, or, when it runs, since it was started."""
    job = transition.job
    began = job.started_at if transition.to == RUNNING else job.created_at
    return Staying(began=replace(transition, seen_at=began or transition.seen_at))


def _text(said: Mapping[str, Any], name: str) -> str | None:
    value = said.get(name)
    if name == "user_data" and isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    if value is None or isinstance(value, str):
        return value
    raise ValueError(f"{name}: {shown(value)} is not a text")


def _state(said: Mapping[str, Any], name: str) -> str | None:
    word = _text(said, name)
    if word in _SETS:
        raise ValueError(f'{name}: "{word}" is a set of states, and a job is in one; write one of {listing(STATES)}')
    near = suggest(word, STATE_WORDS) if word and word not in STATE_WORDS else ""
    if near:
        raise ValueError(f'{name}: no job state is called "{word}"{near}')
    return word


def _queue_id(name: str, book: Rulebook) -> str:
    return next((queue for queue, alias in book.queue_names.items() if alias == name), name)


def _watch(said: Mapping[str, Any], texts: Mapping[str, str], watches: Iterable[Watch]) -> Watch | None:
    """Return the watch that is named, else the first that lists such a job, else the first."""
    name, known = _text(said, "watch"), {watch.name: watch for watch in watches}
    if name is not None:
        if name not in known:
            raise ValueError(f'watch: there is no watch "{name}"{instead(name, known)}')
        return known[name]
    fitting = (watch for watch in known.values() if _lists(watch, texts))
    return next(fitting, next(iter(known.values()), None))


def _lists(watch: Watch, texts: Mapping[str, str]) -> bool:
    return texts.get("bucket", watch.place.bucket) == watch.place.bucket and any(
        texts.get("tag", stream.tag) == stream.tag and stream.queue in (None, texts.get("queue", stream.queue))
        for stream in watch.streams
    )


def _outputs(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"outputs: {shown(value)} is not a list of texts")
    return tuple(value)


def _progress(value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 100):
        return value
    raise ValueError(f"progress: {shown(value)} is not a whole number of per cent, from 0 to 100")


def _times(said: Mapping[str, Any], to: str, now: datetime) -> tuple[datetime | None, datetime | None, datetime | None]:
    """Return when the job was created, started and ended, as far as something was said of it.

    created -- wait -- started -- duration -- ended, or now; age is from created until now.
    """
    age, wait, ran = (_span(said, name) for name in _SPANS)
    if age is wait is ran is None:
        return None, None, None
    nothing = timedelta()
    if to == SUBMITTED:
        if ran is not None:
            raise ValueError(f'duration: a job that is "{SUBMITTED}" has not begun; write wait or age')
        if age is not None and wait is not None and age != wait:
            raise ValueError(f'a job that is "{SUBMITTED}" waits still: its age and its wait are the same; write one')
        return now - (age or wait or nothing), None, None
    if age is None:
        age = (wait or nothing) + (ran or nothing)
    if wait is None:
        wait = age - ran if ran is not None else nothing
    if ran is None:
        ran = age - wait
    rest = age - wait - ran
    if wait < nothing or ran < nothing or rest < nothing:
        raise ValueError("age: a job is at least as old as its wait and its duration together")
    if rest and to not in DONE:
        raise ValueError(f'age: of a job that is "{to}" it is wait and duration together; write two of the three')
    created = now - age
    started = created + wait
    return created, started, started + ran if to in DONE else None


def _span(said: Mapping[str, Any], name: str) -> timedelta | None:
    text = _text(said, name)
    try:
        return duration(text) if text is not None else None
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
