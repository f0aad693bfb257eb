"""What a template can name and call: variables, filters, tests, operators.

None is what CI did not say, and what is not there.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from functools import cached_property
from typing import Any

from jinja2 import Environment

from bridge.decide.text.times import iso
from bridge.decide.text.values import basename, shown, user_data_keys
from bridge.language import ENGLISH, Language
from bridge.links import NO_LINKS, Links
from bridge.model import Job, Transition
from bridge.url import encoded

NAMES = ("job", "was", "to", "rule", "watch", "seen_at", "inferred")
FIELDS = (*Job.__slots__, "queue_name", "duration", "wait", "age", "late", "url")  # of `job`
NOW, ZONE = " now", " zone"  # for the filters of times: no template can write these names
LANGUAGE = " language"  # of the filters that write words
LINKS = " links"  # where the filter `link` notes (label, URL): a chat links them, nobody else has to
Names = Mapping[str, Any]

LONGEST_TEXT = 20_000  # characters of any text on the way to a result
LARGEST_NUMBER = 10**15
MOST_PARTS = 100  # that a text is split into
_LONGEST_WORD = 40  # characters of a number or a time that is read from a text
_JINJA: Any = Environment()  # noqa: S701  (only its functions are used)


class TemplateFault(Exception):
    """A template that is refused, or does not render for a job; the text says why."""


class UserData(str):
    """A job's user data: `{{ job.user_data }}` is its text, `{{ job.user_data.KEY }}` one of its keys."""

    @cached_property
    def keys(self) -> Mapping[str, str]:
        return user_data_keys(self)


def variables(
    transition: Transition,
    rule: str | None,
    queue_names: Mapping[str, str],
    *,
    zone: tzinfo = UTC,
    links: Links = NO_LINKS,
    in_state: bool = False,
    language: Language = ENGLISH,
) -> Names:
    """Return what a template can name. Times are relative to when the transition was seen, by the clock of `zone`.

    With `in_state` the transition stands for the time in state that it began, which is not late.
    """
    job = transition.job
    fields = {name: getattr(job, name) for name in job.__slots__} | {
        "state": transition.to,
        "outputs": list(job.outputs),
        "user_data": UserData(job.user_data or ""),
        "queue_name": queue_names.get(job.queue or ""),
        **job.seconds(transition.seen_at),
        "late": None if in_state else transition.late_seconds,
        "url": links.job(job.id),
    }
    return {
        "job": fields,
        "was": transition.was,
        "to": transition.to,
        "rule": rule,
        "watch": transition.watch,
        "seen_at": iso(transition.seen_at),
        "inferred": transition.inferred,
        NOW: transition.seen_at,
        ZONE: zone,
        LANGUAGE: language,
        LINKS: [],
    }


def text_of(value: object) -> str:
    """Return what a value reads as."""
    if value is None:
        return ""
    return join(value, ", ") if isinstance(value, list) else str(value)[:LONGEST_TEXT]


def number(value: object) -> int | float:
    """Return the number that a value is, or that a text says. Raises TemplateFault."""
    try:
        found = float(value[:_LONGEST_WORD]) if isinstance(value, str) else value
    except ValueError:
        found = None
    if not isinstance(found, int | float) or not abs(found) <= LARGEST_NUMBER:  # so NaN is refused too
        raise TemplateFault(f"{shown(value)} is not a number of at most {LARGEST_NUMBER:.0e}")
    return found


def ago(moment: datetime, names: Names) -> str:
    """Say how long ago a time was: "5 min ago"."""
    seconds = (names[NOW] - moment).total_seconds()
    language: Language = names[LANGUAGE]
    return language.say("{span} ago", span=language.span(seconds)) if round(seconds) > 0 else language.say("just now")


def span(seconds: object, language: Language = ENGLISH) -> str:
    """Say a number of seconds: "3 min 5 s"."""
    return language.span(None if seconds is None else number(seconds))


def local(moment: datetime, names: Names) -> str:
    """Say a time by the clock of the zone: "2026-11-21 17:00 CST"."""
    return f"{moment.astimezone(names[ZONE]):%Y-%m-%d %H:%M %Z}"


_LONGEST_LABEL = 200


def link(url: object, label: object, names: Names) -> str:
    """Return "label (URL)", and note that this is a link; of what is no http(s) URL only the label.

    The note is what makes it one: a job's own text may look the same, and links nothing.
    """
    text = " ".join(text_of(label).split())[:_LONGEST_LABEL] or "link"
    try:
        target = encoded(text_of(url))
    except ValueError:
        return text
    names[LINKS].append((text, target))
    return f"{text} ({target})"


def time(value: object) -> datetime | None:
    """Return the time that a value is, or that a text such as seen_at says. Raises TemplateFault."""
    if value is None or isinstance(value, datetime):
        return value
    with suppress(ValueError):
        if (moment := datetime.fromisoformat(text_of(value)[:_LONGEST_WORD])).tzinfo:
            return moment
    raise TemplateFault(f'{shown(value)} is not a time, which job.created_at is, or "2026-11-21T09:00:00Z"')


def replace(s: str, old: object, new: object, count: object = None) -> str:
    before, after = text_of(old), text_of(new)
    times = -1 if count is None else int(number(count))
    if len(after) > len(before):  # what would be cut is not made
        most = LONGEST_TEXT // (len(after) - len(before)) + 1
        times = min(times, most) if times >= 0 else most
    return s.replace(before, after, times)


def split(s: str, sep: object = None, maxsplit: int = -1) -> list[str]:
    most = int(number(maxsplit))
    return s.split(text_of(sep) or None, min(most, MOST_PARTS - 1) if most >= 0 else MOST_PARTS - 1)


def join(value: object, d: object = "") -> str:
    between, pieces, size = text_of(d), [], 0
    for item in items(value):
        pieces.append(text_of(item))
        size += len(pieces[-1]) + len(between)
        if size > LONGEST_TEXT:
            break
    return between.join(pieces)[:LONGEST_TEXT]


def items(value: object) -> Sequence[object]:
    """Return what can be counted and looked through: a list, or the characters of a text."""
    return value if isinstance(value, list) else text_of(value)


def cut(value: object, *ends: object) -> Sequence[object]:
    """Return value[start:stop:step]."""
    return items(value)[slice(*(None if end is None else int(number(end)) for end in ends))]


def _truncate(s: str, length: int = 255, killwords: bool = False, end: str = "...", leeway: int = 5) -> object:
    return _JINJA.filters["truncate"](_JINJA, s, max(length, len(end)), killwords, end, leeway)


def _round(value: object, precision: int = 0, method: str = "common") -> object:
    return None if value is None else _JINJA.filters["round"](float(number(value)), min(precision, 9), method)


# Arguments have Jinja's names, since a template may write them: truncate(length=20).
OF_TEXTS: Mapping[str, Callable[..., object]] = {
    **{name: _JINJA.filters[name] for name in ("capitalize", "lower", "title", "trim", "upper", "urlencode")},
    **{name: getattr(str, name) for name in ("lstrip", "removeprefix", "removesuffix", "rstrip", "strip")},
    "startswith": lambda s, prefix: s.startswith(tuple(prefix) if isinstance(prefix, list) else prefix),
    "endswith": lambda s, suffix: s.endswith(tuple(suffix) if isinstance(suffix, list) else suffix),
    "truncate": _truncate,
    "basename": basename,
    "replace": replace,
    "split": split,
}
FILTERS: Mapping[str, Callable[..., object]] = {
    **OF_TEXTS,
    **dict.fromkeys(("default", "d"), _JINJA.filters["default"]),
    **dict.fromkeys(("escape", "e"), lambda s: _JINJA.filters["escape"](text_of(s))),
    **dict.fromkeys(("length", "count"), lambda value: len(items(value))),
    "human": lambda seconds: span(seconds),
    "join": join,
    "first": lambda seq: next(iter(items(seq)), None),
    "last": lambda seq: next(reversed(items(seq)), None),
    "round": _round,
    "int": _JINJA.filters["int"],
    "float": _JINJA.filters["float"],
    "string": text_of,
    "abs": lambda x: None if x is None else abs(number(x)),
}
TIME_FILTERS: Mapping[str, Callable[[datetime, Names], str]] = {"ago": ago, "local": local}
TESTS: Mapping[str, Callable[..., object]] = {
    name: _JINJA.tests[name] for name in ("defined", "undefined", "none", "string", "number", "even", "odd")
}
TAKE_UNDEFINED = frozenset({"default", "d", "defined", "undefined"})

_ARITHMETIC = {"+": operator.add, "-": operator.sub, "/": operator.truediv, "//": operator.floordiv}
_COMPARISONS = {"lt": operator.lt, "lteq": operator.le, "gt": operator.gt, "gteq": operator.ge}


def operate(left: Any, sign: str, right: Any) -> Any:
    """Return left + right, left < right and the like. With nothing, a sum is nothing, and no order holds."""
    match sign:
        case "eq" | "ne":
            return (left == right) == (sign == "eq")
        case "in" | "notin":
            found = left in right if isinstance(right, list) else text_of(left) in text_of(right)
            return found == (sign == "in")
        case _ if left is None or right is None:
            return False if sign in _COMPARISONS else None
        case "+" if isinstance(left, str) and isinstance(right, str):
            return join([left, right])
    if sign in _COMPARISONS:
        return _COMPARISONS[sign](left, right)
    return number(_ARITHMETIC[sign](number(left), number(right)))
