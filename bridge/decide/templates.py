"""Texts that users write: Jinja2 in a sandbox, with a bounded result."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jinja2 import ChainableUndefined, StrictUndefined, Template, TemplateError, Undefined
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing

from bridge.decide.conditions import job_seconds, user_data_keys
from bridge.decide.words import instead
from bridge.model import Transition

LONGEST_RESULT = 12_000  # characters; about what Slack takes in one message


class TemplateFault(Exception):
    """A template that does not render; the text says why."""


_WHAT_NOT = {"*": "texts or lists", "%": "texts", "**": "anything"}


class _Sandbox(ImmutableSandboxedEnvironment):
    # 'a' * 10**9 and '%999999999d' % 1 allocate a gigabyte before any cap on the output is asked.
    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or not all(isinstance(x, int | float) for x in (left, right)):
            raise SecurityError(f"{operator} is not for {_WHAT_NOT[operator]} here")
        return super().call_binop(context, operator, left, right)


def human(seconds: float | Undefined | None) -> str:
    """Say a number of seconds as a person would: "45 s", "3 min 5 s", "2 h 10 min", "3 d 4 h"."""
    if seconds is None or isinstance(seconds, Undefined):
        return "unknown time"
    left = round(float(seconds))
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def basename(path: str | Undefined | None) -> str:
    """Return what follows the last slash; of a URL without its query, which may be a signature."""
    text = str(path or "")
    if text.startswith(("http://", "https://")):
        text = text.partition("?")[0]
    return text.rstrip("/").rpartition("/")[2]


class UserData:
    """A job's user data in a template: `{{ job.user_data }}` is its text, `{{ job.user_data.KEY }}` one of its keys.

    It is no dict, whose methods would hide keys such as `items`.
    """

    def __init__(self, text: str | None) -> None:
        self._text = text or ""
        self._keys = user_data_keys(text)

    def __getitem__(self, key: str) -> str:
        return self._keys[key]

    def __str__(self) -> str:
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)


class _Unknown(StrictUndefined):
    """A name that no job has: the error says which, and what may have been meant."""

    @property
    def _undefined_message(self) -> str:
        name, owner = str(self._undefined_name), self._undefined_obj
        if owner is missing:
            return f'there is no "{name}"{instead(name, NAMES)}'
        if isinstance(owner, Mapping):
            return f'a job has no "{name}"{instead(name, owner)}'
        return super()._undefined_message


def _environment(undefined: type[Undefined]) -> _Sandbox:
    environment = _Sandbox(undefined=undefined, autoescape=False, finalize=_nothing_for_none)
    environment.filters.update(human=human, basename=basename)
    environment.globals.clear()  # no range(): a loop is as long as a list of the job
    return environment


def _nothing_for_none(value: object) -> object:
    return "" if value is None else value


NAMES = ("job", "was", "to", "rule", "watch", "seen_at")

_LENIENT = _environment(ChainableUndefined)
_STRICT = _environment(_Unknown)


def compiled(source: str) -> Template:
    """Return the template for sending; what is not there renders as nothing. Raises TemplateFault."""
    try:
        return _LENIENT.from_string(source)
    except TemplateError as error:
        raise TemplateFault(f"{error.message} (line {getattr(error, 'lineno', 1)} of the text)") from error


def check(source: str, variables: Mapping[str, Any]) -> None:
    """Render once with `variables`, where a name that is not there is a fault. Raises TemplateFault."""
    compiled(source)
    rendered(_STRICT.from_string(source), variables)


def rendered(template: Template, variables: Mapping[str, Any]) -> str:
    """Return the text, cut at LONGEST_RESULT. Raises TemplateFault for whatever goes wrong in it."""
    try:
        pieces: list[str] = []
        size = 0
        for piece in template.generate(variables):
            pieces.append(piece)
            size += len(piece)
            if size > LONGEST_RESULT:
                break
        return "".join(pieces)[:LONGEST_RESULT].strip()
    except TemplateError as error:
        raise TemplateFault(str(error)[:500]) from error
    except (ArithmeticError, AttributeError, TypeError, ValueError, LookupError, RecursionError, MemoryError) as error:
        raise TemplateFault(f"{type(error).__name__}: {error}"[:500]) from error


def variables(transition: Transition, rule: str, queue_names: Mapping[str, str]) -> dict[str, Any]:
    """Return what a template can name: NAMES."""
    job = transition.job
    seconds = job_seconds(job, transition.seen_at)
    facts = {name: getattr(job, name) for name in job.__slots__}
    facts |= {
        "outputs": list(job.outputs),
        "state": transition.to,
        "queue_name": queue_names.get(job.queue or ""),
    }
    facts |= {"duration": seconds["duration"], "wait": seconds["wait"], "age": seconds["age"]}
    facts["user_data"] = UserData(job.user_data)
    return {
        "job": facts,
        "was": transition.was,
        "to": transition.to,
        "rule": rule,
        "watch": transition.watch,
        "seen_at": iso(transition.seen_at),
    }


def iso(moment: datetime | None) -> str | None:
    """Return RFC 3339 in UTC to the second, as in 2026-11-21T09:00:00Z."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}" if moment else None
