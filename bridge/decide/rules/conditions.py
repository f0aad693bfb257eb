"""The conditions of a rule's `match`: each says why not, or nothing when it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

from bridge.decide.text.facts import job_seconds, user_data_keys
from bridge.decide.text.globs import Glob, glob, is_glob
from bridge.decide.text.times import duration
from bridge.decide.text.values import MOST_LISTED, instead, shown
from bridge.model import Transition

DURATIONS = ("duration", "wait", "age")
TEXTS = (
    "tag", "queue", "bucket", "region", "input", "output", "workflow", "template", "code", "message", "level",
    "job", "watch", "user_data",
)  # fmt: skip
_PATHS = frozenset({"input", "output"})  # here `*` stops at a slash
_MOST_PATTERNS = 10_000  # of all globs of a file together
_MOST_SIGNS = 100_000  # of these, from the first star or question mark of each to its last


class Facts:
    """A transition as conditions see it: field name -> the texts any of which may match."""

    def __init__(self, transition: Transition, queue_names: Mapping[str, str]) -> None:
        self.transition = transition
        self._queue_names = queue_names

    def texts(self, field: str) -> tuple[str, ...]:
        if field.startswith("user_data."):
            return _present(self.user_data.get(field.removeprefix("user_data.")))
        return _present(*self._candidates(field))

    def _candidates(self, field: str) -> tuple[str | None, ...]:
        job = self.transition.job
        match field:
            case "queue":
                return job.queue, self._queue_names.get(job.queue or "")
            case "workflow":
                return job.workflow, job.workflow_name
            case "template":
                return job.template, job.template_name
            case "output":
                return job.outputs or (job.output,)
            case "job":
                return (job.id,)
            case "watch":
                return (self.transition.watch,)
        value: str | None = getattr(job, field)
        return (value,)

    @cached_property
    def user_data(self) -> Mapping[str, str]:
        return user_data_keys(self.transition.job.user_data)

    def seconds(self, field: str) -> float | None:
        return job_seconds(self.transition.job, self.transition.seen_at)[field]


def _present(*values: str | None) -> tuple[str, ...]:
    return tuple(value for value in values if value)


@dataclass(frozen=True, slots=True)
class TextCondition:
    """Any of `wanted` (or none is asked for) and none of `unwanted`."""

    field: str
    wanted: tuple[tuple[str, Callable[[str], bool]], ...]
    unwanted: tuple[tuple[str, Callable[[str], bool]], ...]
    patterns: int = 0  # that its globs stand for
    signs: int = 0  # of these, that are walked over

    @property
    def exact(self) -> frozenset[str] | None:
        """The only values that can match, or None when there is no such list."""
        texts = [text for text, _ in self.wanted]
        return frozenset(texts) if texts and not any(map(is_glob, texts)) else None

    def why_not(self, facts: Facts) -> str | None:
        values = facts.texts(self.field)
        for text, test in self.unwanted:
            if any(map(test, values)):
                return f'match.{self.field}: {_shown(values)} is excluded by "!{text}"'
        if not self.wanted or any(test(value) for _, test in self.wanted for value in values):
            return None
        hint = _STOPS if self.field in _PATHS and any("*" in text for text, _ in self.wanted) else ""
        return f"match.{self.field}: {_shown(values)} is not {_either([text for text, _ in self.wanted])}{hint}"


_STOPS = " (* stops at a slash, ** does not)"


@dataclass(frozen=True, slots=True)
class PresenceCondition:
    field: str
    present: bool

    def why_not(self, facts: Facts) -> str | None:
        values = facts.texts(self.field)
        if bool(values) == self.present:
            return None
        return f"match.{self.field}: the job has {'none' if self.present else _shown(values)}"


@dataclass(frozen=True, slots=True)
class DurationCondition:
    field: str
    sign: str  # one of < <= > >=
    limit: timedelta

    def why_not(self, facts: Facts) -> str | None:
        seconds = facts.seconds(self.field)
        if seconds is None:
            return f"match.{self.field}: CI gave no times to count it from"
        if _COMPARE[self.sign](seconds, self.limit.total_seconds()):
            return None
        return f"match.{self.field}: {seconds:.0f} s is not {self.sign} {self.limit.total_seconds():.0f} s"


_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}

Condition = TextCondition | PresenceCondition | DurationCondition


class Globs:
    """What the globs of a file cost together: they may all be asked of one job, and of each of its outputs."""

    def __init__(self) -> None:
        self._patterns = self._signs = 0

    def add(self, conditions: Iterable[Condition]) -> None:
        for one in conditions:
            if isinstance(one, TextCondition):
                self._patterns += one.patterns
                self._signs += one.signs

    @property
    def too_many(self) -> str:
        """What is wrong with that, or nothing."""
        if self._patterns > _MOST_PATTERNS:
            return f"up to here the globs stand for more than {_MOST_PATTERNS:,} patterns; write fewer braces"
        if self._signs > _MOST_SIGNS:
            return f"up to here the globs' patterns are too long: {_MOST_SIGNS:,} characters together are the most"
        return ""


def condition(field: str, value: object, aliases: Mapping[str, str]) -> Condition:
    """Read one `match.FIELD = value`. Raises ValueError saying what is wrong and what would be right."""
    if not (field in TEXTS or field in DURATIONS or is_user_data(field)):
        raise ValueError(no_field(field))
    if field in DURATIONS:
        return _duration_condition(field, value)
    if isinstance(value, bool):
        return PresenceCondition(field, value)
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not values or not all(isinstance(v, str) and v.strip("!") for v in values):
        raise ValueError(f"{shown(value)} is not a text, a list of texts, true or false")
    if len(values) > MOST_LISTED:
        raise ValueError(f"a list of {len(values):,} texts is too long: {MOST_LISTED:,} are the most")
    tests = [(value.startswith("!"), *_test(field, value.removeprefix("!"), aliases)) for value in values]
    return TextCondition(
        field,
        wanted=tuple((text, one.test) for no, text, one in tests if not no),
        unwanted=tuple((text, one.test) for no, text, one in tests if no),
        patterns=sum(one.patterns for *_, one in tests),
        signs=sum(one.signs for *_, one in tests),
    )


def is_user_data(field: str) -> bool:
    return field.startswith("user_data.") and field != "user_data."


def no_field(name: str) -> str:
    if name in ("state", "to", "from"):
        return 'states stand outside of match: write to = "Failed" or from = "Running"'
    return f'a job has no "{name}" to match{instead(name, (*TEXTS, *DURATIONS))}'


def flat(match: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Yield each field of a `match` table with its value; those of user_data one by one."""
    for name, value in match.items():
        if name == "user_data" and isinstance(value, dict) and value:
            yield from ((f"user_data.{key}", inner) for key, inner in value.items())
        else:
            yield name, value


def _test(field: str, text: str, aliases: Mapping[str, str]) -> tuple[str, Glob]:
    """Return the text, and its test for one value."""
    text = aliases.get(text, text) if field == "queue" else text
    if not is_glob(text):
        return text, Glob(text.__eq__, 0, 0)
    return text, glob(text, path=field in _PATHS)


def _duration_condition(field: str, value: object) -> DurationCondition:
    text = value.strip() if isinstance(value, str) else ""
    sign = next((s for s in ("<=", ">=", "<", ">") if text.startswith(s)), None)
    if sign is None:
        raise ValueError(f'{shown(value)} does not compare; write for example "> 45m" or "<= 10s"')
    return DurationCondition(field, sign, duration(text.removeprefix(sign).strip()))


def _shown(values: Sequence[str]) -> str:
    return " / ".join(f'"{value[:80]}"' for value in values[:3]) or "nothing"


def _either(texts: Sequence[str]) -> str:
    return " or ".join(f'"{text}"' for text in texts[:5]) + (" or ..." if len(texts) > 5 else "")
