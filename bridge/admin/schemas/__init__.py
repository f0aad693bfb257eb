"""The shapes of requests and responses, one module per resource.

A model is the only description of its resource: it validates what is sent, builds the response, and /openapi.json
shows it. So a response cannot differ from the description.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, WithJsonSchema

JsonObject = dict[str, Any]
Moment = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]  # as the record writes it
Cursor = Annotated[str | None, Field(description="requests the next page; null on the last one")]
QueueName = Annotated[str | None, Field(description="the queue's alias in rules.toml")]


def stored_word(*words: str) -> WithJsonSchema:
    """Describe a stored word: these are known, and one that a newer version has stored is shown as it is."""
    return WithJsonSchema({"type": "string", "enum": list(words)})


# --- values of requests: of a body and of a query alike -------------------------------------------------------------

_LONGEST_TEXT = 1000
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a string is needed")  # noqa: TRY004  (pydantic collects ValueErrors)
    if not value:
        raise ValueError("is empty; leave it out, or give a value")
    if "\0" in value:  # PostgreSQL has no NUL in a text
        raise ValueError("contains a NUL (\\u0000)")
    if len(value) > _LONGEST_TEXT:
        raise ValueError(f"has {len(value)} characters; at most {_LONGEST_TEXT} are read")
    return value


def _moment(value: Any) -> datetime:
    text = _text(value)
    try:
        if _RFC_3339.fullmatch(text):
            return datetime.fromisoformat(text.upper())
    except ValueError:  # the 31st of June, 25 o'clock
        pass
    plus = ' (in a query, write "+" as %2B)' if " " in text else ""
    raise ValueError(f'"{text[:100]}" is not a time such as 2026-11-21T09:00:00Z{plus}')


def _whole(value: Any) -> Any:
    """JSON does not distinguish 600 and 600.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


RequestText = Annotated[
    str,
    PlainValidator(_text),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": _LONGEST_TEXT, "pattern": r"^[^\u0000]+$"}),
]
RequestMoment = Annotated[datetime, PlainValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})]
WholeNumber = Annotated[int, BeforeValidator(_whole)]


class Request(BaseModel):
    """A body. Members that may be left out have a default that is no value of theirs; null is refused."""

    model_config = ConfigDict(extra="forbid")


# --- what belongs to no resource ------------------------------------------------------------------------------------


class Fault(BaseModel):
    """One thing that is wrong with a request: with a parameter of the query, or with its body."""

    detail: str
    parameter: str | None = Field(default=None, description="its name")
    pointer: str | None = Field(
        default=None, description="to the member of the body (RFC 6901, as a fragment); #: the body as a whole"
    )


class Problem(BaseModel):
    """RFC 9457."""

    type: Literal["about:blank"] = "about:blank"
    title: str
    status: int
    detail: str = Field(description="what is wrong, and what would be right")
    errors: list[Fault] | None = Field(default=None, description="each fault of the parameters or the body")


class Alive(BaseModel):
    status: Literal["ok"] = "ok"
    version: str


class Check(BaseModel):
    """One check of /readyz. Everybody may read it: it has no reason that anybody gave, and no name from rules.toml."""

    name: str
    ok: bool
    detail: str


class Reason(BaseModel):
    check: str = Field(description="the check that it belongs to")
    who: str | None = Field(description="the watch, notifier or worker that it is about")
    what: str
    since: Moment | None
    why: str | None = Field(description="the last error")


class Readiness(BaseModel):
    status: Literal["ready", "not ready"]
    warnings: int = Field(description="the number of warnings")
    checks: list[Check]
    reasons: list[Reason] | None = Field(description="the worst first; null without a token")
