"""`list --follow`: prints rows as they come, until Ctrl-C or until nobody reads them."""

from __future__ import annotations

import select
import sys
from collections.abc import Callable
from contextlib import suppress

from sqlalchemy import Connection

from bridge.cli.common import Facts, echo, echo_json_line
from bridge.record.database import TROUBLES, Database, trouble
from bridge.record.queries.lists import MOST, Filter, Found

_EVERY_MS = 1000

Query = Callable[..., Found]
Mark = tuple[object, ...]


class NewRows:
    """The rows of a list that were not there before; each time it is read from the newest back to what is known.

    A job whose state has changed is a new row, if it is among the newest 500 of its list.
    """

    def __init__(self, query: Query, which: Filter) -> None:
        self._query, self._which = query, which
        self._known: set[Mark] | None = None
        self._floor = ""  # what is older than this was there before

    def read(self, tx: Connection) -> list[Facts]:
        """Return the new rows, oldest first; the first time, a page of them."""
        known, found, read = self._known or set(), [], set()
        cursor = None
        while True:
            page = self._query(tx, self._which, cursor=cursor, limit=MOST)
            new = [row for row in page.items if _mark(row) not in known and _when(row) >= self._floor]
            found += new
            read |= set(map(_mark, page.items))
            cursor = page.cursor
            if cursor is None or self._known is None or len(new) < len(page.items):
                break
        self._known = read
        self._floor = _when(page.items[-1]) if cursor else self._floor
        return found[::-1]


def _mark(row: Facts) -> Mark:
    return row["bucket"], row.get("id") or row["n"], row.get("sequence")


def _when(row: Facts) -> str:
    return str(row.get("seen_at") or row["created_at"])


def follow(db: Database, rows: NewRows, show: Callable[[list[Facts]], object], *, limit: int) -> None:
    """Show the newest `limit` rows, and others as they come; a database that is away is asked again."""
    away, is_first = False, True
    with suppress(KeyboardInterrupt):
        while True:
            try:
                with db.read() as tx:
                    found = rows.read(tx)
            except TROUBLES as error:
                if not away:
                    echo(f"{trouble(error)}; trying again", err=True)
                away = True
            else:
                if away:
                    echo("the database answers again", err=True)
                show(found[-limit:] if is_first else found)
                away = is_first = False
            if _reader_is_gone(_EVERY_MS):
                return


def _reader_is_gone(wait_ms: int) -> bool:
    """Wait; return whether the other end of the pipe that stdout is was closed."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # errors are always reported
    return bool(poll.poll(wait_ms))


def show_json(rows: list[Facts]) -> None:
    for row in rows:
        echo_json_line(row)
