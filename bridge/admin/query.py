"""What a request asks for: filters, cursor and limit, every fault at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from flask import Request
from pydantic import BaseModel, RootModel, ValidationError
from werkzeug.exceptions import RequestEntityTooLarge

from bridge.admin.problems import LARGEST_BODY, Problem
from bridge.admin.routes import PAGING
from bridge.decide.text.values import listing, suggest
from bridge.pipeline.stats import SPANS
from bridge.record.queries.lists import MOST, Cursor, Filter

_Shape = TypeVar("_Shape", bound=BaseModel)

_USUAL_LIMIT = 50
_MOST_PARAMETERS = 20  # more than any endpoint takes, so that each one can be answered for
_LONGEST_TEXT = 1000
_MOST_FAULTS = 20  # of a body, in one answer
_CURSOR = re.compile(r"[0-9]{1,18}([.][0-9]{1,18})?")  # a BIGINT holds that
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A page of a list: which rows, after which one, how many."""

    which: Filter
    cursor: Cursor | None = None
    limit: int = _USUAL_LIMIT


def read(request: Request, fields: Sequence[str] = (), *, states: Sequence[str] = ()) -> Asked:
    """Return what the query asks for; `states` are the only ones there are, if given. Raises Problem 400."""
    found = parameters(request, (*fields, *PAGING), states=states)
    paging = {name: found.pop(name) for name in PAGING if name in found}
    return Asked(which=Filter(**found), **paging)


def parameters(request: Request, known: Sequence[str], *, states: Sequence[str] = ()) -> dict[str, Any]:
    """Return the parameters of the query by name. Raises Problem 400."""
    found, faults = {}, []
    if len(request.args) > _MOST_PARAMETERS:
        raise Problem(400, f"there are {len(request.args)} parameters; at most {_MOST_PARAMETERS} are read")
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
        shown = name[:100]
        raise ValueError(f'unknown parameter "{shown}"{suggest(shown, known)}; there are: {listing(known)}')
    if len(given) > 1:
        raise ValueError(f"{name} is there {len(given)} times; once would be right")
    if name == "state" and states and given[0] not in states:
        shown = given[0][:100]
        raise ValueError(f'state: there is no "{shown}"{suggest(shown, states)}; use {listing(states)}')
    return PARAMETERS[name].read(name, given[0])


def _text(name: str, value: str) -> str:
    if not value or "\0" in value:  # PostgreSQL has no NUL in a text
        raise ValueError(f'{name}: "{value[:100]}" is no value; leave the parameter out to get any')
    if len(value) > _LONGEST_TEXT:
        raise ValueError(f"{name} has {len(value)} characters; at most {_LONGEST_TEXT} are read")
    return value


def _limit(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 10 and 1 <= int(value) <= MOST):
        raise ValueError(f'{name}: "{value[:100]}" is not a number from 1 to {MOST}')
    return int(value)


def _cursor(name: str, value: str) -> Cursor:
    if not _CURSOR.fullmatch(value):
        raise ValueError(f'{name}: "{value[:100]}" is not one; send what the page before gave as "cursor"')
    return Cursor(*map(int, value.split(".")))


def _span(name: str, value: str) -> str:
    if value not in SPANS:
        raise ValueError(f'{name}: there is no "{value[:100]}"; use {listing(list(SPANS))}')
    return value


def _moment(name: str, value: str) -> datetime:
    try:
        if _RFC_3339.fullmatch(value):
            return datetime.fromisoformat(value.upper())
    except ValueError:  # the 31st of June, 25 o'clock
        pass
    plus = ' (in a query a "+" is written %2B)' if " " in value else ""
    raise ValueError(f'{name}: "{value[:100]}" is not a time such as 2026-11-21T09:00:00Z{plus}')


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a query: how it is read, and how /openapi.json tells of it."""

    read: Callable[[str, str], object]
    schema: Mapping[str, object]
    says: str


_A_TEXT = {"type": "string", "minLength": 1, "maxLength": _LONGEST_TEXT, "pattern": r"^[^\u0000]+$"}
_A_MOMENT = {"type": "string", "format": "date-time"}

PARAMETERS = {
    "state": Parameter(_text, _A_TEXT, "only those in this state"),
    "tag": Parameter(_text, _A_TEXT, "only those of jobs with this tag"),
    "queue": Parameter(_text, _A_TEXT, "only those of jobs in the queue of this id"),
    "job": Parameter(_text, _A_TEXT, "only those of the job of this id"),
    "notifier": Parameter(_text, _A_TEXT, "only those to the notifier of this name"),
    "rule": Parameter(_text, _A_TEXT, "only those by the rule of this name"),
    "digest": Parameter(_text, _A_TEXT, "only those that the delivery of this id told, as one"),
    "batch": Parameter(_text, _A_TEXT, "only those that were resent with this batch"),
    "bucket": Parameter(_text, _A_TEXT, "which one, where several know the id"),
    "span": Parameter(_span, {"enum": list(SPANS), "default": "24h"}, "how much time, until now"),
    "since": Parameter(_moment, _A_MOMENT, "not before then; a + is written %2B"),
    "until": Parameter(_moment, _A_MOMENT, "before then; a + is written %2B"),
    "cursor": Parameter(_cursor, {"type": "string", "pattern": f"^{_CURSOR.pattern}$"}, "what the page before gave"),
    "limit": Parameter(
        _limit, {"type": "integer", "minimum": 1, "maximum": MOST, "default": _USUAL_LIMIT}, "how many, at most"
    ),
}


def body(request: Request, largest: int = LARGEST_BODY) -> bytes:
    """Return the body. Raises Problem 413, and does not cut: werkzeug does, when no length was announced."""
    # One more, so that a body that is too long can be told from one that just fits.
    request.max_content_length = largest + 1
    try:
        found = request.get_data()
    except RequestEntityTooLarge as error:
        raise _too_large(largest) from error
    if len(found) > largest:
        raise _too_large(largest)
    return found


def _too_large(largest: int) -> Problem:
    return Problem(413, f"a body is at most {largest} bytes here")


def json_of(request: Request, shape: type[_Shape], largest: int = LARGEST_BODY) -> _Shape:
    """Return the body, which must be JSON of a shape. Raises Problem with every fault; it quotes none of the body."""
    given = body(request, largest)
    if not request.is_json:
        raise Problem(415, f'a body of type "{request.mimetype[:100]}" is not taken; send JSON as application/json')
    try:
        return shape.model_validate_json(given, strict=True)
    except ValidationError as error:
        raise Problem(400, "; ".join(map(_fault, error.errors()[:_MOST_FAULTS]))) from error


class _Object(RootModel[dict[str, Any]]):
    pass


def object_of(request: Request) -> dict[str, Any]:
    """Return the body, any JSON object. Raises Problem; what it says is read with all its faults at once."""
    return json_of(request, _Object).root


def maybe_json_of(request: Request, shape: type[_Shape]) -> _Shape:
    """Return the body as `json_of` does, or the shape's defaults where there is none. Raises Problem likewise."""
    return json_of(request, shape) if body(request) else shape()


def _fault(found: Any) -> str:
    where = ".".join(str(part)[:100] for part in found["loc"])
    return f"{where or 'the body'}: {found['msg'][:200]}"


def nothing(request: Request) -> None:
    """Raise Problem unless the body is empty or `{}`: a request without room for one must not seem to heed it."""
    given = body(request)
    if given and not request.is_json:
        raise Problem(415, f'a body of type "{request.mimetype[:100]}" is not taken; send none, or {{}} as JSON')
    if given.strip() not in (b"", b"{}"):
        raise Problem(400, "this takes no body; send none, or {}")
