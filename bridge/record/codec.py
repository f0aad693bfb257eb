"""Jobs as JSON text and back."""

from __future__ import annotations

import json
from datetime import datetime
from functools import lru_cache
from typing import Any

from bridge.model import Job
from bridge.record.database import at, ms

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
    facts: dict[str, Any] = json.loads(text)
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
