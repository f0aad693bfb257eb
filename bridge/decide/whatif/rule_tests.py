"""Sample jobs, and the [[test]]s of rules.toml: whom its rules notify of one, and whom they are expected to notify."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

from bridge.decide.rules.levels import TimeInState, evaluate_time_in_state, firing_levels
from bridge.decide.rules.matching import Rule, Verdict
from bridge.decide.rules.picks import led_to
from bridge.decide.rules.rulebook import Rulebook, RuleTest
from bridge.decide.text.times import duration
from bridge.decide.text.values import STATE_WORDS, FieldReader, instead, listing, shown, suggest
from bridge.decide.whatif.incidents import Incidents
from bridge.model import DONE, NEW, OUTPUTS_KEPT, RUNNING, STATES, SUBMITTED, SUCCESS, Job, Transition, Watch

# --- jobs that are made up: a table of a few facts becomes a transition ---------------------------------------------

Times = tuple[datetime | None, datetime | None, datetime | None]  # created, started, ended

_SETS = ("done", "active", "*")
_SPANS = ("age", "wait", "duration")
_OTHERS = ("progress", "outputs", "outputs_total", "created_at", "started_at", "ended_at")
TEXT_FIELDS = tuple(name for name in Job.__slots__ if name not in _OTHERS)
_WORDS = (*TEXT_FIELDS, "progress", "outputs", "from", "to", *_SPANS, "watch")


def sample_transition(given: Mapping[str, Any], book: Rulebook, now: datetime) -> Transition:
    """Return the transition, seen now, that a table describes; what it leaves out is made up.

    Keys: those of a job, `from` (else new), `to` or `state` (else Success), `watch`, and `age`, `wait` and `duration`
    as `match` has them. A queue may be an alias, and user data a table. Raises ValueError with every fault, one a line;
    whether the spans fit together is checked when all else is right.
    """
    given = {key: value for key, value in given.items() if value is not None or key not in _WORDS}
    reader = FieldReader(given, _WORDS, unknown="a job has no")
    readers = {"user_data": _user_data, "state": _state}
    texts: dict[str, Any] = {
        name: reader.read(name, readers.get(name, _text), None) for name in TEXT_FIELDS if name in given
    }
    was, to, state = reader.read("from", _state, NEW) or NEW, reader.read("to", _state, None), texts.get("state")
    if to and state and to != state:
        reader.note(None, f'to: "{to}" and state: "{state}" are the same thing; write one of them')
    to = to or state or SUCCESS
    if to == NEW:
        reader.note(None, f'no job becomes "{NEW}": write from = "{NEW}" for a job seen for the first time')
    if queue := texts.get("queue"):
        texts["queue"] = next((id_ for id_, alias in book.queue_names.items() if alias == queue), queue)
    watches = {watch.name: watch for watch in book.watches}
    watch = reader.read("watch", lambda name: _named(name, watches), None) or _fitting(texts, book.watches)
    age, wait, ran = (reader.read(name, lambda text: duration(_text(text)), None) for name in _SPANS)
    outputs, progress = reader.read("outputs", _outputs, ()), reader.read("progress", _progress, None)
    reader.check()
    created, started, ended = _times(age, wait, ran, to, now)
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


_NOWHERE = {"bucket": "sample-1250000000", "region": "ap-chongqing"}


def sample_time_in_state(transition: Transition) -> TimeInState:
    """Return the time in state that a sample transition began: the job's age, or, when it runs, since its start."""
    job = transition.job
    began = job.started_at if transition.to == RUNNING else job.created_at
    return TimeInState(began=replace(transition, seen_at=began or transition.seen_at))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not a string")  # noqa: TRY004  (one kind of error for all faults)
    return value


def _user_data(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, dict) else _text(value)


def _state(value: object) -> str:
    word = _text(value)
    if word in _SETS:
        raise ValueError(f'"{word}" is a set of states, and a job is in one; write one of {listing(STATES)}')
    near = suggest(word, STATE_WORDS) if word not in STATE_WORDS else ""
    if near:
        raise ValueError(f'there is no job state "{word}"{near}')
    return word


def _named(name: object, watches: Mapping[str, Watch]) -> Watch:
    if _text(name) not in watches:
        raise ValueError(f'there is no watch "{name}"{instead(_text(name), watches)}')
    return watches[_text(name)]


def _fitting(texts: Mapping[str, str | None], watches: Sequence[Watch]) -> Watch | None:
    """Return the first watch that lists such a job, else the first."""
    for watch in watches:
        if texts.get("bucket", watch.place.bucket) == watch.place.bucket and any(
            texts.get("tag", stream.tag) == stream.tag and stream.queue in (None, texts.get("queue", stream.queue))
            for stream in watch.streams
        ):
            return watch
    return watches[0] if watches else None


def _outputs(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{shown(value)} is not a list of strings")
    return tuple(value)


def _progress(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 100:
        raise ValueError(f"{shown(value)} is not a whole number of per cent, from 0 to 100")
    return value


def _times(age: timedelta | None, wait: timedelta | None, ran: timedelta | None, to: str, now: datetime) -> Times:
    """Return when the job was created, started and ended, as far as something was given of it.

    created -- wait -- started -- duration (`ran`) -- ended, or now; age is from created until now.
    """
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


# --- the [[test]]s ---------------------------------------------------------------------------------------------------

# Only the rules are asked: no mute, silence, group or throttle, which say when somebody is notified and not who.
_NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)  # any: what rules ask of times are differences
_LONGEST_WHY = 300  # characters
_MOST_SHOWN = 20  # of each kind, of one test

Pair = tuple[str, str]  # rule, notifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A [[test]] that failed; `text` says which, and why."""

    number: int
    line: int
    text: str


def run(book: Rulebook) -> list[Failed]:
    """Return the tests that fail, in their order."""
    results = ((test, _why_failed(test, book)) for test in book.tests)
    return [
        Failed(number=test.number, line=test.line, text=f"test number {test.number}: {why}")
        for test, why in results
        if why
    ]


def _why_failed(test: RuleTest, book: Rulebook) -> str | None:
    try:
        steps = _steps(test, book)
    except ValueError as error:
        what = "its job is" if test.job is not None else "its jobs are"
        return f"{what} wrong: {'; '.join(str(error).splitlines())}"
    notified = list(dict.fromkeys(_notified(steps, book, steps[-1].seen_at + test.after)))
    expected = list(dict.fromkeys(map(_pair, test.expect)))
    missing = [pair for pair in expected if pair not in notified]
    surplus = [pair for pair in notified if pair not in expected]
    verdicts = _verdicts(steps[-1], book) if missing else {}
    faults = [f"not notified: {' -> '.join(pair)}: {_why_not(pair, verdicts, book)}" for pair in missing[:_MOST_SHOWN]]
    faults += [f"notified, but not expected: {' -> '.join(pair)}" for pair in surplus[:_MOST_SHOWN]]
    if left := len(missing[_MOST_SHOWN:]) + len(surplus[_MOST_SHOWN:]):
        faults.append(f"and {left:,} more")
    return "; ".join(faults) or None


def _notified(steps: Sequence[Transition], book: Rulebook, end: datetime) -> Iterator[Pair]:
    """Yield whom which rules notify: of transitions, of incidents, and of jobs that are in their states too long."""
    incidents = Incidents(book, since=steps[0].seen_at)
    last: dict[str, Transition] = {}
    for seen_at, together in groupby(steps, key=lambda step: step.seen_at):
        for looked in incidents.look(seen_at):
            yield from _pairs(looked.rule, looked.notifiers)
        for step in together:
            if before := last.get(step.job.id):
                yield from _too_long(before, incidents, book, seen_at)
            incidents.feed(step)
            last[step.job.id] = step
            for verdict in book.matcher.match(step):
                yield from _pairs(verdict.rule, verdict.notifiers)
        for looked in incidents.look(seen_at):
            yield from _pairs(looked.rule, looked.notifiers)
    for looked in incidents.look(end):
        yield from _pairs(looked.rule, looked.notifiers)
    for step in last.values():
        yield from _too_long(step, incidents, book, end)


def _too_long(step: Transition, incidents: Incidents, book: Rulebook, now: datetime) -> Iterator[Pair]:
    """Yield whom rules notify because a job has been in a state for too long until now."""
    for verdict in firing_levels(sample_time_in_state(step), book.matcher, now):
        waits = verdict.rule.unless and incidents.is_open_for(verdict.rule.unless, step)
        yield from () if waits else _pairs(verdict.rule, verdict.notifiers)


def _pairs(rule: Rule, notifiers: Iterable[str]) -> Iterator[Pair]:
    return ((rule.name, name) for name in notifiers)


_MOST_TRANSITIONS = 10_000  # of one test


def _steps(test: RuleTest, book: Rulebook) -> list[Transition]:
    """Return what happens in a test, in order. Raises ValueError with every fault, one a line."""
    if test.job is not None:
        return [sample_transition(test.job, book, _NOW)]
    made: list[Transition] = []
    faults: list[str] = []
    for number, given in enumerate(test.jobs, 1):
        try:
            made += _steps_of(given, number, book)
        except ValueError as error:
            faults += [f"job number {number}: {line}" for line in str(error).splitlines()]
        if len(made) > _MOST_TRANSITIONS:
            raise ValueError(f"these are more than {_MOST_TRANSITIONS:,} jobs")
    if faults:
        raise ValueError("\n".join(faults))
    return list(_numbered(sorted(made, key=lambda step: step.seen_at)))


def _steps_of(given: Mapping[str, Any], number: int, book: Rulebook) -> list[Transition]:
    reader = FieldReader(given, given)
    at = reader.read("at", _moment, timedelta())
    times = reader.read("times", _times_given, 1)
    reader.check()
    facts = {key: value for key, value in given.items() if key not in ("at", "times")}
    ids = [str(given["id"])] if "id" in given else [f"sample-{number}-{n}" for n in range(1, times + 1)]
    if "id" in given and times > 1:
        raise ValueError("times: a job with an id is one job; leave one of the two out")
    return [sample_transition(facts | {"id": id_}, book, _NOW + at) for id_ in ids]


def _moment(value: object) -> timedelta:
    return timedelta() if _text(value) in ("0", "0s", "0m", "0h") else duration(_text(value))


def _times_given(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST_TRANSITIONS:
        raise ValueError(f"{shown(value)} is not a whole number from 1 to {_MOST_TRANSITIONS:,}")
    return value


def _numbered(steps: Iterable[Transition]) -> Iterator[Transition]:
    """Yield transitions with their numbers; a job that came before goes on from the state in which it was."""
    last: dict[str, Transition] = {}
    for step in steps:
        before = last.get(step.job.id)
        if before:
            created_at = step.job.created_at or before.job.created_at
            job = replace(step.job, created_at=created_at)
            was = before.to if step.was == NEW else step.was
            step = replace(step, job=job, was=was, sequence=before.sequence + 1)
        last[step.job.id] = step
        yield step


def _pair(expected: str) -> Pair:
    rule, _, notifier = expected.rpartition("->")
    return rule.strip(), notifier.strip()


def _verdicts(step: Transition, book: Rulebook) -> dict[str, Verdict]:
    """Return the verdict of each rule by its name."""
    levels = evaluate_time_in_state(sample_time_in_state(step), book.matcher, _NOW, book.matcher.levels)
    return {verdict.rule.name: verdict for verdict in (*book.matcher.explain(step), *levels)}


def _why_not(pair: Pair, verdicts: Mapping[str, Verdict], book: Rulebook) -> str:
    name, notifier = pair
    verdict = verdicts.get(name)
    if verdict is None:
        rule = next(rule for rule in book.rules if rule.name == name)
        whom = (*rule.notify, *(rule.escalate.notify if rule.escalate else ()))
        known = notifier in (*whom, *led_to(whom, book.picks))
        return f"{'it has no such incident' if known else f'it notifies {listing(whom)}'} (rule on line {rule.line})"
    rule, earlier = verdict.rule, verdict.notified_earlier.get(notifier)
    if earlier:
        why = f'rule "{earlier.name}" (line {earlier.line}) notifies {notifier} already'
    elif verdict.fired:
        unpicked = [choice.why for choice in verdict.unpicked.values() if choice.why]
        notified = (*verdict.notified_earlier, *verdict.notifiers)
        why = f"it notifies {listing(notified)}" + (f": {'; '.join(unpicked)}" if unpicked else "")
    elif notifier not in (*rule.notify, *led_to(rule.notify, book.picks)):
        why = f"it notifies {listing(rule.notify)}"
    else:
        why = verdict.why_not or ""
    return f"{why if len(why) <= _LONGEST_WHY else why[: _LONGEST_WHY - 1] + '…'} (rule on line {rule.line})"
