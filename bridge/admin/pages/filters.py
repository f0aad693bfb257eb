"""Filters in a page's address: as in the API, and times also as people write them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flask import request

from bridge.decide.text.times import duration
from bridge.record.queries.lists import Cursor, Filter

ROWS = 25  # of a list on a page
_CURSOR = re.compile(r"[0-9]{1,18}\.[0-9]{1,18}")
_LONGEST = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a list shows: `texts` as they stand in the address, `which` as the record is asked, and what was wrong."""

    texts: Mapping[str, str]
    which: Filter
    cursor: Cursor | None
    faults: Sequence[str]

    @property
    def given(self) -> dict[str, str]:
        """Return the filters that are set, for the address of the next page."""
        return {name: text for name, text in self.texts.items() if text}


def read(fields: Sequence[str], now: datetime) -> Asked:
    """Return what the address of this request asks for; a filter that cannot be read is left out, and named."""
    texts = {name: request.args.get(name, "").replace("\0", "").strip()[:_LONGEST] for name in fields}
    values: dict[str, Any] = {}
    faults = []
    for name, text in texts.items():
        try:
            if text:
                values[name] = _TIMES.get(name, _as_it_is)(text, now)
        except ValueError as error:
            faults.append(f'{name}: "{text[:100]}": {error}')
    return Asked(texts=texts, which=Filter(**values), cursor=cursor(), faults=faults)


def cursor() -> Cursor | None:
    given = request.args.get("cursor", "")
    return Cursor(*map(int, given.split("."))) if _CURSOR.fullmatch(given) else None


def _as_it_is(text: str, _: datetime) -> str:
    return text


def moment(text: str, now: datetime) -> datetime:
    """Return the time of "2h" (ago) or of "2026-11-21 09:00" (UTC unless it says its zone). Raises ValueError."""
    try:
        return now - duration(text)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError('neither a time such as "2026-11-21 09:00" (UTC) nor how long ago, such as "2h"') from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


_TIMES: Mapping[str, Callable[[str, datetime], Any]] = {"since": moment, "until": moment}
