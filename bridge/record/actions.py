"""Actions: what people did, and who did it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, insert

from bridge.record.codec import dump, storable
from bridge.record.database import ms
from bridge.record.schema import actions

Facts = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """An action (`what`, as in "pause_watch") on a thing (the id or name `subject`), and what it changed."""

    what: str
    subject: str
    before: Facts | None = None
    after: Facts | None = None


@dataclass(frozen=True, slots=True)
class Author:
    """Who does something: a token's name (`is_token`), a user, or the way it is done; and the name that they gave."""

    who: str
    claimed: str | None = None
    is_token: bool = False

    def __str__(self) -> str:
        if self.claimed and self.is_token:
            return f"{self.claimed} (token {self.who})"
        return self.claimed or self.who


def add(tx: Connection, done: Iterable[Action], *, who: Author, now: datetime) -> None:
    rows = [
        {
            "at": ms(now),
            "who": storable(who.who),
            "claimed": who.claimed and storable(who.claimed),
            "what": action.what,
            "subject": action.subject,
            "before": None if action.before is None else storable(dump(action.before)),
            "after": None if action.after is None else storable(dump(action.after)),
        }
        for action in done
    ]
    if rows:
        tx.execute(insert(actions), rows)


def prune(tx: Connection, *, before: datetime) -> int:
    return tx.execute(delete(actions).where(actions.c.at < ms(before))).rowcount
