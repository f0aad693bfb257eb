"""What a request asks for: filters, cursor and limit of a query, and bodies; every fault at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from flask import Request
from pydantic import BaseModel, PlainValidator, RootModel, TypeAdapter, ValidationError, WithJsonSchema
from pydantic_core import ErrorDetails
from werkzeug.exceptions import RequestEntityTooLarge

from bridge.admin.http.problems import LARGEST_BODY, Problem, fault_at, faulty
from bridge.admin.http.routes import PAGING
from bridge.admin.schemas import Fault, RequestMoment, RequestText
from bridge.admin.schemas.stats import Span
from bridge.decide.text.values import listing, shown, suggest
from bridge.pipeline.operations import What
from bridge.pipeline.stats import SPANS
from bridge.record.queries.lists import MOST, Cursor, Filter

_Model = TypeVar("_Model", bound=BaseModel)

_USUAL_LIMIT = 50
_MOST_PARAMETERS = 20  # more than any endpoint takes, so that each one can be answered for
_MOST_FAULTS = 20  # of a body, in one answer
_CURSOR = re.compile(r"[0-9]{1,18}([.][0-9]{1,18})?")  # a BIGINT holds that

# --- queries --------------------------------------------------------------------------------------------------------


def _limit(value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 10 and 1 <= int(value) <= MOST):
        raise ValueError(f'"{value[:100]}" is not a number from 1 to {MOST}')
    return int(value)


def _cursor(value: str) -> Cursor:
    if not _CURSOR.fullmatch(value):
        raise ValueError(f'"{value[:100]}" is none; send the "cursor" of the previous page')
    return Cursor(*map(int, value.split(".")))


_Limit = Annotated[
    int,
    PlainValidator(_limit),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MOST, "default": _USUAL_LIMIT}),
]
_Cursor = Annotated[
    Cursor, PlainValidator(_cursor), WithJsonSchema({"type": "string", "pattern": f"^{_CURSOR.pattern}$"})
]
_Span = Annotated[Span, WithJsonSchema({"enum": list(SPANS), "default": "24h"})]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a query: its type, which reads and describes it, and what it does."""

    type: TypeAdapter[Any]
    description: str


_TEXT = TypeAdapter[Any](RequestText)
_MOMENT = TypeAdapter[Any](RequestMoment)

PARAMETERS = {
    "state": Parameter(_TEXT, "only those in this state"),
    "tag": Parameter(_TEXT, "only those of jobs with this tag"),
    "queue": Parameter(_TEXT, "only those of jobs in the queue with this id"),
    "job": Parameter(_TEXT, "only those of the job with this id"),
    "notifier": Parameter(_TEXT, "only those to the notifier with this name"),
    "rule": Parameter(_TEXT, "only those by the rule with this name"),
    "digest": Parameter(_TEXT, "only those sent in the digest that is the delivery with this id"),
    "batch": Parameter(_TEXT, "only those resent or discarded with this batch"),
    "who": Parameter(_TEXT, "only those of this author, or of who gave this name"),
    "what": Parameter(TypeAdapter(What), "only those of this kind"),
    "subject": Parameter(_TEXT, "only those done to what has this id or name"),
    "bucket": Parameter(_TEXT, "needed if several buckets have a job with this id"),
    "span": Parameter(TypeAdapter(_Span), "how much time, until now"),
    "since": Parameter(_MOMENT, "not before then; write a + as %2B"),
    "until": Parameter(_MOMENT, "before then; write a + as %2B"),
    "cursor": Parameter(TypeAdapter(_Cursor), "the cursor of the previous page"),
    "limit": Parameter(TypeAdapter(_Limit), "how many, at most"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A page of a list: which rows, after which one, how many."""

    which: Filter
    cursor: Cursor | None = None
    limit: int = _USUAL_LIMIT


def read(request: Request, fields: Sequence[str] = (), *, states: Sequence[str] = ()) -> Asked:
    """Return what the query asks for; `states` are the only ones there are, if given. Raises Problem 400."""
    given = parameters(request, (*fields, *PAGING), states=states)
    paging = {name: given.pop(name) for name in PAGING if name in given}
    return Asked(which=Filter(**given), **paging)


def parameters(request: Request, known: Sequence[str], *, states: Sequence[str] = ()) -> dict[str, Any]:
    """Return the parameters of the query by name. Raises Problem 400."""
    values, faults = {}, []
    if len(request.args) > _MOST_PARAMETERS:
        raise Problem(400, f"there are {len(request.args)} parameters; at most {_MOST_PARAMETERS} are read")
    for name, given in request.args.lists():
        value = given[0][:100]

        def note(text: str, name: str = name[:100]) -> None:
            faults.append(Fault(detail=text, parameter=name))

        if name not in known:
            note(f'unknown parameter "{name[:100]}"{suggest(name[:100], known)}; there are: {listing(known)}')
        elif len(given) > 1:
            note(f"{name}: given {len(given)} times; give it once")
        elif name == "state" and states and given[0] not in states:
            note(f'state: there is no "{value}"{suggest(value, states)}; use {listing(states)}')
        else:
            try:
                values[name] = PARAMETERS[name].type.validate_python(given[0])
            except ValidationError as error:
                note(f"{name}: {_message(error.errors()[0])}")
    if faults:
        raise faulty(faults)
    return values


# --- bodies ---------------------------------------------------------------------------------------------------------


def body(request: Request, largest: int = LARGEST_BODY) -> bytes:
    """Return the body. Raises Problem 413, and does not cut: werkzeug does, when no length was announced."""
    request.max_content_length = largest + 1  # so that a body that is too long differs from one that just fits
    with suppress(RequestEntityTooLarge):
        given = request.get_data()
        if len(given) <= largest:
            return given
    raise Problem(413, f"a body is at most {largest} bytes here")


def json_of(request: Request, model: type[_Model], largest: int = LARGEST_BODY) -> _Model:
    """Return the body, which must be JSON of a model, of a request without parameters. Raises Problem."""
    parameters(request, [])
    given = body(request, largest)
    if not request.is_json:
        raise Problem(415, f'a body of type "{request.mimetype[:100]}" is not supported; send application/json')
    try:
        return model.model_validate_json(given, strict=True)
    except ValidationError as error:
        faults = error.errors()[:_MOST_FAULTS]
        raise faulty(fault_at(fault["loc"], _fault(fault, model)) for fault in faults) from error


class _Object(RootModel[dict[str, Any]]):
    pass


def object_of(request: Request) -> dict[str, Any]:
    """Return the body, any JSON object. Raises Problem."""
    return json_of(request, _Object).root


def _fault(fault: ErrorDetails, model: type[BaseModel]) -> str:
    where = ".".join(str(part)[:100] for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = [field.alias or name for name, field in model.model_fields.items()]
        return f'unknown key "{where}"{suggest(where, known)}; there are: {listing(known)}'
    # Only a member is quoted: a whole body may contain a secret.
    is_plain = fault["loc"] and fault["type"] != "value_error" and isinstance(fault["input"], int | float | str)
    instead = f", not {shown(fault['input'])}" if is_plain else ""
    return f"{where or 'the body'}: {_message(fault)}{instead}"


def _message(fault: ErrorDetails) -> str:
    return fault["msg"].removeprefix("Value error, ")[:300]


def nothing(request: Request) -> None:
    """Check that there is neither a parameter nor a body (`{}` is none): none is silently ignored. Raises Problem."""
    parameters(request, [])
    given = body(request)
    if given and not request.is_json:
        raise Problem(415, f'a body of type "{request.mimetype[:100]}" is not supported; send none, or {{}} as JSON')
    if given.strip() not in (b"", b"{}"):
        raise Problem(400, "this takes no body; send none, or {}")
