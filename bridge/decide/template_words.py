"""The filters, tests and methods that a template may use: everything else is refused when the rules are read.

Each is a plain function, so a filter is added by one line. What they are given is bounded (see MOST_CHARACTERS of
template_run), so only those that multiply what they are given ask first.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

LONGEST_TEXT = 100_000  # characters of any one text on the way to a result
LARGEST_NUMBER = 10**15
MOST_PARTS = 100  # that a text is split into, and that a loop goes through


class TemplateFault(Exception):
    """A template that does not render; the text says why."""


class Missing:
    """What a name stands for that is not there; `why`, asked when it is a fault, says which.

    Without a `why` it is the job that has less, as in job.outputs[1]: nothing is wrong with the template.
    """

    def __init__(self, why: Callable[[], str] | None = None) -> None:
        self.why = why

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return ""


def text_of(value: object) -> str:
    """Return what a value reads as; what CI did not say reads as nothing."""
    if value is None:
        return ""
    if isinstance(value, dict):
        raise TemplateFault("this is a table and no text; name one of its keys, as in job.id")
    return join(value, ", ") if isinstance(value, list | tuple) else str(value)


def sized(characters: int) -> None:
    """Refuse a text before it is made."""
    if characters > LONGEST_TEXT:
        raise TemplateFault(f"a text of {characters:,} characters is too long here; {LONGEST_TEXT:,} is the most")


def number(value: object) -> int | float:
    """Return the number. Raises TemplateFault for what is none, or too large to reckon with."""
    if not isinstance(value, int | float):
        raise TemplateFault(f"{kind(value)} is not a number")
    if not abs(value) <= LARGEST_NUMBER:  # so NaN is refused too
        raise TemplateFault(f"a number beyond {LARGEST_NUMBER:.0e} is too large here")
    return value


def kind(value: object) -> str:
    """Return the word for what a value is, in a fault."""
    return _KINDS.get(type(value), "a text")


_KINDS = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    tuple: "a list",
    dict: "a table",
    datetime: "a time",
    type(None): "nothing",
}


def human(seconds: object) -> str:
    """Say a number of seconds as a person would: "45 s", "3 min 5 s", "2 h 10 min", "3 d 4 h"."""
    if seconds is None or isinstance(seconds, Missing):
        return "unknown time"
    left = round(number(seconds if isinstance(seconds, int | float) else float(text_of(seconds)[:40])))
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def basename(path: object) -> str:
    """Return what follows the last slash; of a URL without its query, which may be a signature."""
    text = text_of(path)
    if text.startswith(("http://", "https://")):
        text = text.partition("?")[0]
    return text.rstrip("/").rpartition("/")[2]


# The names of arguments are Jinja's own, since a template may write them: truncate(length=20).


def default(value: object, default_value: object = "", boolean: object = False) -> object:
    return default_value if isinstance(value, Missing) or (boolean and not value) else value


def truncate(s: object, length: int = 255, killwords: object = False, end: str = "...", leeway: int = 5) -> str:
    text, end, length = text_of(s), text_of(end), int(number(length))
    if length < len(end):
        raise TemplateFault(f"truncate({length}) leaves no room for its end {end[:20]!r}")
    if len(text) <= length + int(number(leeway)):
        return text
    kept = text[: length - len(end)]
    return (kept if killwords else kept.rsplit(" ", 1)[0]) + end


def replace(s: object, old: object, new: object, count: int | None = None) -> str:
    text, before, after = text_of(s), text_of(old), text_of(new)
    times = -1 if count is None else int(number(count))
    found = text.count(before) if times < 0 else min(times, text.count(before))
    sized(len(text) + found * (len(after) - len(before)))
    return text.replace(before, after, times)


def split(s: object, sep: object = None, maxsplit: int = -1) -> list[str]:
    at = text_of(sep) or None
    wanted = int(number(maxsplit))
    return text_of(s).split(at, min(wanted, MOST_PARTS - 1) if wanted >= 0 else MOST_PARTS - 1)


def join(value: object, d: object = "") -> str:
    texts, between = [text_of(one) for one in items(value)], text_of(d)
    sized(sum(map(len, texts)) + len(between) * len(texts))
    return between.join(texts)


def items(value: object) -> list[Any] | tuple[Any, ...] | str:
    """Return what can be counted and looked through: a list, or the characters of a text."""
    if isinstance(value, list | tuple):
        return value
    return text_of(value)


def rounded(value: object, precision: int = 0, method: str = "common") -> float:
    digits, exact = int(number(precision)), float(number(value))
    if method not in ("common", "ceil", "floor") or not 0 <= digits <= 9:
        raise TemplateFault('write round, round(2) or round(2, "floor"), with at most 9 digits')
    if method == "common":
        return round(exact, digits)
    step = math.ceil if method == "ceil" else math.floor
    return float(step(exact * 10**digits) / 10**digits)


def whole(value: object, default: int = 0) -> int | float:
    return _as_number(value, lambda one: int(float(one)), default)


def decimal(value: object, default: float = 0.0) -> int | float:
    return _as_number(value, float, default)


def _as_number(value: object, read: Callable[[Any], int | float], default: int | float) -> int | float:
    one = value if isinstance(value, int | float) else text_of(value)[:40]  # no number that counts here is longer
    try:
        return number(read(one))
    except (ValueError, OverflowError):
        return number(default)


def _part(at: int) -> Callable[[object], object]:
    def part(seq: object) -> object:
        found = items(seq)
        return found[at] if found else Missing()

    return part


_WORD_ENDS = re.compile(r"([-\s({\[<]+)")  # as in Jinja


def _title(s: object) -> str:
    # Unlike str.title, letters after an apostrophe or a digit stay small.
    return "".join(word[:1].upper() + word[1:].lower() for word in _WORD_ENDS.split(text_of(s)))


def _escape(value: object) -> str:
    return html.escape(text_of(value), quote=False).replace('"', "&#34;").replace("'", "&#39;")  # as Jinja writes them


def _starts(s: str, prefix: object) -> bool:
    return s.startswith(_any_of(prefix))


def _ends(s: str, suffix: object) -> bool:
    return s.endswith(_any_of(suffix))


def _any_of(given: object) -> tuple[str, ...]:
    return tuple(map(text_of, given)) if isinstance(given, list) else (text_of(given),)


FILTERS: Mapping[str, Callable[..., object]] = {
    "human": human,
    "basename": basename,
    "default": default,
    "d": default,
    "upper": lambda s: text_of(s).upper(),
    "lower": lambda s: text_of(s).lower(),
    "title": _title,
    "capitalize": lambda s: text_of(s).capitalize(),
    "trim": lambda value, chars=None: text_of(value).strip(text_of(chars) or None),
    "truncate": truncate,
    "replace": replace,
    "split": split,
    "first": _part(0),
    "last": _part(-1),
    "length": lambda value: len(items(value)),
    "count": lambda value: len(items(value)),
    "join": join,
    "round": rounded,
    "int": whole,
    "float": decimal,
    "abs": lambda x: abs(number(x)),
    "string": text_of,
    "escape": _escape,
    "e": _escape,
    "urlencode": lambda value: quote(text_of(value), safe="/", errors="replace"),
}

TESTS: Mapping[str, Callable[[object], bool]] = {
    "defined": lambda value: not isinstance(value, Missing),
    "undefined": lambda value: isinstance(value, Missing),
    "none": lambda value: value is None,
    "string": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, int | float),
    "even": lambda value: number(value) % 2 == 0,
    "odd": lambda value: number(value) % 2 == 1,
}
TAKE_MISSING = frozenset({"default", "d", "human", "defined", "undefined"})

METHODS: Mapping[str, Callable[..., object]] = {
    "upper": str.upper,
    "lower": str.lower,
    "title": str.title,
    "capitalize": str.capitalize,
    "strip": lambda s, chars=None: s.strip(text_of(chars) or None),
    "lstrip": lambda s, chars=None: s.lstrip(text_of(chars) or None),
    "rstrip": lambda s, chars=None: s.rstrip(text_of(chars) or None),
    "removeprefix": lambda s, prefix: s.removeprefix(text_of(prefix)),
    "removesuffix": lambda s, suffix: s.removesuffix(text_of(suffix)),
    "startswith": _starts,
    "endswith": _ends,
    "replace": replace,
    "split": split,
}
