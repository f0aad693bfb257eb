"""What a request asks for: filters, cursor and limit, every fault at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flask import Request

from bridge.admin.problems import Problem
from bridge.decide.words import listing, suggest
from bridge.record.reading import MOST, Filter

_USUAL_LIMIT = 50
_LARGEST_CURSOR = 2**63 - 1  # of a BIGINT
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A page of a list: which rows, after which one, how many."""

    which: Filter
    cursor: int | None = None
    limit: int = _USUAL_LIMIT


def read(request: Request, fields: Sequence[str] = (), *, states: Sequence[str] = ()) -> Asked:
    """Return what the query asks for; `states` are the only ones there are, if given. Raises Problem 400."""
    found = parameters(request, (*fields, "cursor", "limit"), states=states)
    paging = {name: found.pop(name) for name in ("cursor", "limit") if name in found}
    return Asked(which=Filter(**found), **paging)


def parameters(request: Request, known: Sequence[str], *, states: Sequence[str] = ()) -> dict[str, Any]:
    """Return the parameters of the query by name. Raises Problem 400."""
    found, faults = {}, []
    for name, given in request.args.lists():
        try:
            found[name] = _value(name, given, known, states)
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise Problem(400, "; ".join(faults))
    return found


def _value(name: str, given: Sequence[str], known: Sequence[str], states: Sequence[str]) -> object:
    if name not in known:
        raise ValueError(f'unknown parameter "{name[:100]}"{suggest(name, known)}; there are: {listing(known)}')
    if len(given) > 1:
        raise ValueError(f"{name} is there {len(given)} times; once would be right")
    if name == "state" and states and given[0] not in states:
        raise ValueError(f'state: there is no "{given[0][:100]}"{suggest(given[0], states)}; use {listing(states)}')
    return _READERS.get(name, _text)(name, given[0])


def _text(name: str, value: str) -> str:
    if not value or "\0" in value:  # PostgreSQL has no NUL in a text
        raise ValueError(f'{name}: "{value[:100]}" is no value; leave the parameter out to get any')
    return value


def _limit(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 10 and 1 <= int(value) <= MOST):
        raise ValueError(f'{name}: "{value[:100]}" is not a number from 1 to {MOST}')
    return int(value)


def _cursor(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 20 and int(value) <= _LARGEST_CURSOR):
        raise ValueError(f'{name}: "{value[:100]}" is not one; send what the page before gave as "cursor"')
    return int(value)


def _moment(name: str, value: str) -> datetime:
    try:
        if _RFC_3339.fullmatch(value):
            return datetime.fromisoformat(value.upper())
    except ValueError:  # the 31st of June, 25 o'clock
        pass
    plus = ' (in a query a "+" is written %2B)' if " " in value else ""
    raise ValueError(f'{name}: "{value[:100]}" is not a time such as 2026-11-21T09:00:00Z{plus}')


_READERS: dict[str, Callable[[str, str], object]] = {
    "cursor": _cursor,
    "limit": _limit,
    "since": _moment,
    "until": _moment,
}


def nothing(request: Request) -> None:
    """Raise Problem unless the body is empty or `{}`: a request without room for one must not seem to heed it."""
    body = request.get_data()
    if body and not request.is_json:
        raise Problem(415, f'a body of type "{request.mimetype[:100]}" is not taken; send none, or {{}} as JSON')
    if body.strip() not in (b"", b"{}"):
        raise Problem(400, "this takes no body; send none, or {}")
