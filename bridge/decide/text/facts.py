"""What follows from plain facts: ids made of what they name, an object's name, how long a job took, its user data."""

from __future__ import annotations

import hashlib
import json
from base64 import b32encode
from datetime import datetime

from bridge import shallow_json
from bridge.model import Job


def ident(kind: str, *parts: str) -> str:
    """Return an id made from what it names: the same thing seen again has the same id."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()[:16]
    return f"{kind}_{b32encode(digest).decode().rstrip('=').lower()}"


def basename(path: str) -> str:
    """Return what follows the last slash; of a URL without its query, which may be a signature."""
    if path.startswith(("http://", "https://")):
        path = path.partition("?")[0]
    return path.rstrip("/").rpartition("/")[2]


_LONGEST_USER_DATA = 20_000  # characters that are looked through for keys; CI takes a thousand from an uploader


def user_data_keys(text: str | None) -> dict[str, str]:
    """Return the keys of a job's user data when it is a JSON object or `k=v;k=v`, else nothing."""
    if not text or len(text) > _LONGEST_USER_DATA:
        return {}
    if text.lstrip().startswith("{"):
        try:
            found = shallow_json.loads(text).items()
        except ValueError:  # an uploader's text: it may nest without end
            return {}
        return {_clean(key): _plain(value) for key, value in found if value is not None}
    pairs = [part.partition("=") for part in text.split(";") if part.strip()]
    return {key.strip(): value.strip() for key, _, value in pairs} if all(sep for _, sep, _ in pairs) else {}


def _plain(value: object) -> str:
    return _clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _clean(text: str) -> str:
    # JSON can spell half of a surrogate pair, which no database takes.
    return text.encode(errors="replace").decode()


def job_seconds(job: Job, now: datetime) -> dict[str, float | None]:
    """Return how long the job ran (or runs), waited (or waits), and lives, in seconds."""
    ended = job.ended_at or now
    return {
        "duration": _between(job.started_at, ended),
        "wait": _between(job.created_at, job.started_at or ended),
        "age": _between(job.created_at, now),
    }


def _between(start: datetime | None, end: datetime | None) -> float | None:
    return max(0.0, (end - start).total_seconds()) if start and end else None
