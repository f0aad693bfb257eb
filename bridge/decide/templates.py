"""Texts that users write: the words and blocks of Jinja, rendered within bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jinja2 import nodes

from bridge.decide.conditions import job_seconds, user_data_keys
from bridge.decide.template_language import parsed
from bridge.decide.template_run import ALONE, Round, Run
from bridge.decide.template_words import TemplateFault, basename, human, kind
from bridge.decide.words import instead
from bridge.model import Transition

__all__ = [
    "LONGEST_RESULT", "NAMES", "Template", "TemplateFault", "UserData", "Work",
    "basename", "compiled", "human", "iso", "rendered", "variables",
]  # fmt: skip

LONGEST_RESULT = 12_000  # characters; about what Slack takes in one message
NAMES = ("job", "was", "to", "rule", "watch", "seen_at")


@dataclass(frozen=True, slots=True)
class Template:
    """A text that is allowed: see template_language."""

    body: tuple[nodes.Node, ...]


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


def compiled(source: str) -> Template:
    """Return the template. Raises TemplateFault for what a template may not say, with its line."""
    return Template(tuple(parsed(source).body))


@dataclass(slots=True)
class Work:
    """What rendering took, in steps: a count that many may share."""

    steps: int = 0


def rendered(template: Template, names: Mapping[str, Any], *, strict: bool = False, work: Work | None = None) -> str:
    """Return the text, cut at LONGEST_RESULT; what is not there is nothing. Raises TemplateFault.

    In a `strict` rendering a name that is not there is a fault. What it took is added to `work`.
    """
    run = Run(names, keyed=(dict, UserData), strict=strict, missing=_why_missing)
    try:
        return _said(run, template)
    finally:
        if work is not None:
            work.steps += run.work


def _said(run: Run, template: Template) -> str:
    pieces: list[str] = []
    size = 0
    try:
        for piece in run.pieces(template.body):
            pieces.append(piece)
            size += len(piece)
            if size > LONGEST_RESULT:
                break
    except (ArithmeticError, TypeError, ValueError, LookupError, RecursionError) as error:
        raise TemplateFault(f"{type(error).__name__}: {error}"[:500]) from error
    return _storable("".join(pieces)[:LONGEST_RESULT]).strip()


def _storable(text: str) -> str:
    # '\0' and half of a surrogate pair can be spelled in a template and in user data; no database takes them.
    return text.replace("\0", "").encode(errors="replace").decode()


def _why_missing(name: str, owner: object) -> str:
    if owner is ALONE:
        return f'there is no "{name}"{instead(name, NAMES)}'
    if isinstance(owner, Round):
        return f'loop has no "{name}"{instead(name, owner)}'
    if isinstance(owner, Mapping):
        return f'a job has no "{name}"{instead(name, owner)}'
    return f'{kind(owner)} has no "{name}"'


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
