"""Texts that users write: Jinja2 in a sandbox, with a bounded result."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jinja2 import ChainableUndefined, StrictUndefined, Template, TemplateError, Undefined
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bridge.decide.conditions import Facts, job_seconds
from bridge.model import Transition

LONGEST_RESULT = 12_000  # characters; about what Slack takes in one message


class TemplateFault(Exception):
    """A template that does not render; the text says why."""


class _Sandbox(ImmutableSandboxedEnvironment):
    # 'a' * 10**9 allocates a gigabyte before any cap on the output is asked.
    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or not all(isinstance(x, int | float) for x in (left, right)):
            raise SecurityError(f"{operator} works on no texts or lists here")
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


def basename(path: str | None) -> str:
    return (path or "").rstrip("/").rpartition("/")[2]


def _environment(undefined: type[Undefined]) -> _Sandbox:
    environment = _Sandbox(undefined=undefined, autoescape=False)
    environment.filters.update(human=human, basename=basename)
    environment.globals.clear()  # no range(): a loop is as long as a list of the job
    return environment


_LENIENT = _environment(ChainableUndefined)
_STRICT = _environment(StrictUndefined)


def compiled(source: str) -> Template:
    """Return the template for sending; what is not there renders as nothing. Raises TemplateFault."""
    try:
        return _LENIENT.from_string(source)
    except TemplateError as error:
        raise TemplateFault(f"{error.message} (line {getattr(error, 'lineno', 1)} of the text)") from error


def check(source: str, variables: Mapping[str, Any]) -> None:
    """Render once with `variables`, where a name that is not there is a fault. Raises TemplateFault."""
    compiled(source)
    try:
        rendered(_STRICT.from_string(source), variables)
    except TemplateError as error:
        raise TemplateFault(str(error.message)) from error


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
    except (TemplateError, ArithmeticError, TypeError, ValueError, LookupError, RecursionError) as error:
        raise TemplateFault(f"{type(error).__name__}: {error}"[:300]) from error


def variables(transition: Transition, rule: str, queue_names: Mapping[str, str]) -> dict[str, Any]:
    """Return what a template can name: job, was, to, rule, watch, seen_at."""
    job = transition.job
    seconds = job_seconds(job, transition.seen_at)
    facts = {name: getattr(job, name) for name in job.__slots__}
    facts |= {
        "outputs": list(job.outputs),
        "state": transition.to,
        "queue_name": queue_names.get(job.queue or ""),
    }
    facts |= {"duration": seconds["duration"], "wait": seconds["wait"], "age": seconds["age"]}
    facts["user_data"] = Facts(transition, queue_names).user_data or job.user_data or ""
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
