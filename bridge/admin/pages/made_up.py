"""A made-up job as people paste it: JSON, or TOML as a [[test]] of rules.toml has it."""

from __future__ import annotations

import json
import tomllib
from typing import Any

from bridge import shallow_json
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.errors import TooLarge, check_depth

_LONGEST = 20_000  # characters


def example(book: Rulebook) -> str:
    """Return a job of a tag, and a queue, that is watched."""
    stream = next((stream for watch in book.watches for stream in watch.streams), None)
    job = {"tag": stream.tag if stream else "Transcode"}
    if stream and stream.queue:
        job["queue"] = book.queue_names.get(stream.queue, stream.queue)
    job |= {"from": "Running", "to": "Failed", "duration": "50m"}
    return f"{{ {', '.join(f'{key} = {json.dumps(value, ensure_ascii=False)}' for key, value in job.items())} }}"


def read(text: str) -> dict[str, Any]:
    """Return the job as a table. Raises ValueError saying what would be right."""
    text = text.strip().removeprefix("\ufeff")
    if not text:
        raise ValueError('there is no job; write for example {"tag": "Transcode", "to": "Failed"}')
    if len(text) > _LONGEST:
        raise ValueError(f"this has {len(text):,} characters; a job has {_LONGEST:,} at most")
    found = _parsed(text)
    try:
        json.dumps(found, ensure_ascii=False, default=str).encode()
    except ValueError as error:  # half of a surrogate pair; a number without end
        raise ValueError("this holds something that is neither a text nor a usual number") from error
    return _job(found)


def _parsed(text: str) -> dict[str, Any]:
    try:
        check_depth(text)
        if not text.startswith("{"):
            return tomllib.loads(text)
        return _object(text)
    except TooLarge as error:
        raise ValueError("brackets nest too deeply here") from error
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"this is neither JSON nor TOML: {error}") from error


def _object(text: str) -> dict[str, Any]:
    """Return what stands in braces: both languages have them."""
    try:
        found: dict[str, Any] = shallow_json.loads(text)
    except ValueError as error:
        if '":' in text.replace(" ", ""):
            raise ValueError(f"this is not JSON: {error}") from error
        return dict(tomllib.loads(f"job = {text}")["job"])
    return found


def _job(found: dict[str, Any]) -> dict[str, Any]:
    """Return the job itself, also of a whole [[test]]."""
    tests = found.get("test")
    if isinstance(tests, list) and len(tests) == 1 and isinstance(tests[0], dict):
        found = tests[0]
    job = found.get("job")
    return job if isinstance(job, dict) else found
