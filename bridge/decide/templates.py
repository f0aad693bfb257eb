"""Texts that users write: the words and blocks of Jinja, rendered within bounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from jinja2 import nodes

from bridge.decide.conditions import job_seconds, user_data_keys
from bridge.decide.template_budget import Budget
from bridge.decide.template_language import parsed
from bridge.decide.template_run import ALONE, Round, Run
from bridge.decide.template_times import Names, When
from bridge.decide.template_words import TemplateFault, basename, human, kind, number, text_of
from bridge.decide.words import instead
from bridge.model import Transition

__all__ = [
    "LONGEST_RESULT", "NAMES", "Budget", "Json", "Names", "Template", "TemplateFault", "UserData", "When",
    "basename", "compiled", "human", "iso", "rendered", "value", "variables",
]  # fmt: skip

LONGEST_RESULT = 12_000  # characters; about what Slack takes in one message
NAMES = ("job", "was", "to", "rule", "watch", "seen_at")


Json = str | int | float | bool | list["Json"] | None


@dataclass(frozen=True, slots=True)
class Template:
    """A text that is allowed: see template_language."""

    body: tuple[nodes.Node, ...]

    @property
    def lone(self) -> nodes.Node | None:
        """The expression of a text that is one `{{ ... }}` and nothing else."""
        match self.body:
            case (nodes.Output(nodes=[one]),) if not isinstance(one, nodes.TemplateData):
                return one
        return None


class UserData:
    """A job's user data in a template: `{{ job.user_data }}` is its text, `{{ job.user_data.KEY }}` one of its keys.

    It is no dict, whose methods would hide keys such as `items`.
    """

    def __init__(self, text: str | None) -> None:
        self.text = text or ""
        self._keys = user_data_keys(text)

    def __getitem__(self, key: str) -> str:
        return self._keys[key]

    def __str__(self) -> str:
        return self.text

    def __bool__(self) -> bool:
        return bool(self.text)


def compiled(source: str) -> Template:
    """Return the template. Raises TemplateFault for what a template may not say, with its line."""
    return Template(tuple(parsed(source).body))


def rendered(template: Template, names: Names, *, strict: bool = False, budget: Budget | None = None) -> str:
    """Return the text, cut at LONGEST_RESULT; what is not there is nothing. Raises TemplateFault.

    In a `strict` rendering a name that is not there is a fault. What it took is taken from `budget`.
    """
    run = _run(names, strict, budget)
    with _told_as_faults():
        return _storable(_text(run, template, LONGEST_RESULT)[:LONGEST_RESULT]).strip()


def value(template: Template, names: Names, *, strict: bool = False, budget: Budget | None = None) -> Json:
    """Return what a text in a body stands for: a lone expression keeps its JSON type, anything else is a text.

    It is not cut: what is too long is a TemplateFault, as is what JSON does not have. See `rendered`.
    """
    run = _run(names, strict, budget)
    with _told_as_faults():
        if template.lone is not None:
            return _json(run, run.value(template.lone))
        text = _text(run, template, LONGEST_RESULT)
        if len(text) > LONGEST_RESULT:
            raise TemplateFault(f"its text has more than {LONGEST_RESULT:,} characters")
        return _json(run, text)


def _run(names: Names, strict: bool, budget: Budget | None) -> Run:
    return Run(names, budget or Budget(), keyed=(dict, UserData), strict=strict, missing=_why_missing)


@contextmanager
def _told_as_faults() -> Iterator[None]:
    try:
        yield
    except (ArithmeticError, TypeError, ValueError, LookupError, RecursionError) as error:
        raise TemplateFault(f"{type(error).__name__}: {error}"[:500]) from error


def _text(run: Run, template: Template, most: int) -> str:
    """Return the text, or as much of it as is more than `most` characters."""
    pieces: list[str] = []
    size = 0
    for piece in run.pieces(template.body):
        pieces.append(piece)
        size += len(piece)
        if size > most:
            break
    return "".join(pieces)


def _json(run: Run, found: object) -> Json:
    match found:
        case None | UserData(text=""):
            return None  # as in the event
        case int() | float():
            return number(found)
        case datetime():
            return iso(found)
        case list():
            return [_json(run, one) for one in found]
    text = text_of(found)
    run.spend(text)  # before it is copied: a list may hold one text a thousand times
    return _storable(text)


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


def variables(transition: Transition, rule: str | None, queue_names: Mapping[str, str], *, zone: tzinfo = UTC) -> Names:
    """Return what a template can name: NAMES. Times are said by the clock of `zone`, as of when it was seen."""
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
    return Names(
        When(transition.seen_at, zone),
        job=facts,
        was=transition.was,
        to=transition.to,
        rule=rule,
        watch=transition.watch,
        seen_at=iso(transition.seen_at),
    )


def iso(moment: datetime | None) -> str | None:
    """Return RFC 3339 in UTC to the second, as in 2026-11-21T09:00:00Z."""
    # Not strftime, which writes the year 1 as "1" on some systems.
    return f"{moment.replace(tzinfo=None).isoformat(timespec='seconds')}Z" if moment else None
