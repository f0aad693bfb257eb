"""Values as the database has them: jobs as JSON text, texts from outside, and rows as dataclasses."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy import Row

from bridge.model import Job
from bridge.record.database import at, maybe_at, ms

Facts = dict[str, Any]
_T = TypeVar("_T")
_NAMES = tuple(Job.__slots__)
_TIMES = ("created_at", "started_at", "ended_at")


@lru_cache(maxsize=4_000)  # a poll sees mostly the jobs of the last one; about 4 MB
def dump_job(job: Job) -> str:
    """Return the job as compact JSON without what is not there: equal jobs have equal texts."""
    facts = {name: value for name in _NAMES if (value := getattr(job, name)) is not None and value != ()}
    return _encode(facts)


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return ms(value)
    raise TypeError(f"{type(value)} in a job")


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_plain).encode


def load_job(text: str) -> Job:
    facts: Facts = json.loads(text)
    for name in _TIMES:
        if name in facts:
            facts[name] = at(facts[name])
    if "outputs" in facts:
        facts["outputs"] = tuple(facts["outputs"])
    return Job(**{name: value for name, value in facts.items() if name in _NAMES})


def storable(text: str) -> str:
    """Return a text from outside as a database takes it: PostgreSQL has no NUL, neither has lone surrogates."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def from_row(kind: type[_T], row: Row[Any], **values: Any) -> _T:
    """Make a dataclass of these values, and of the columns that are named like its other fields.

    A column whose name ends in `_at` is a time.
    """
    columns = row._mapping
    for name in _names_of(kind, row._fields):  # type: ignore[arg-type]  # mypy does not see that a type is hashable
        if name not in values:
            value = columns[name]
            values[name] = maybe_at(value) if name.endswith("_at") else value
    return kind(**values)


@lru_cache
def _names_of(kind: Any, columns: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind) if field.name in columns)


def iso(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    return f"{at(milliseconds).astimezone(UTC).isoformat(timespec='milliseconds').removesuffix('+00:00')}Z"
