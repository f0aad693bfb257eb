"""Is the process alive, and does the bridge do its work?"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flask import g
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from bridge.admin.answers import Alive, Readiness
from bridge.admin.parts import Parts
from bridge.admin.routes import Route
from bridge.pipeline.health import HealthWarning, Level, Reader, public, warnings
from bridge.record.codec import iso
from bridge.record.database import TROUBLES, ms, trouble
from bridge.record.queries import gauges
from bridge.record.queries.gauges import State
from bridge.record.schema import HEAD

logger = logging.getLogger(__name__)

_LISTS = {"polls": "; the list of watches names them", "notifiers": "; the list of notifiers names them"}


@dataclass(frozen=True, slots=True)
class Check:
    """One answer of /readyz. Everybody may read it: no reason anybody gave, no name out of rules.toml."""

    name: str
    ok: bool
    detail: str


def look(parts: Parts, tx: Connection) -> tuple[State, list[HealthWarning]]:
    """Return what stands now, and what of it is not as it should be."""
    book, now = parts.book(), parts.clock()
    state = gauges.state(tx, now=now)
    reader = Reader(
        sha=book.sha, since=parts.loaded.since(book.sha, now), fault=bool(parts.rules_fault()), note=parts.rules_note()
    )
    return state, warnings(state, book, reader, now)


def by_name(found: Iterable[HealthWarning], check: str) -> Mapping[str, Sequence[HealthWarning]]:
    """Return the warnings of a check for each that it is about; none for all others."""
    named = defaultdict[str, list[HealthWarning]](list)
    for one in found:
        if one.check == check and one.name:
            named[one.name].append(one)
    return named


def checks(state: State, found: Sequence[HealthWarning]) -> list[Check]:
    """Return the checks of a database that answers, by what was found."""
    fine = {
        "database": "answers",
        "schema": HEAD,
        "worker": f"{len(state.standing.alive)} at work",
        "polls": "none is overdue, and none has failed",
        "clock": "as CI's" if _says_time(state) else "CI has not said what time it has",
        "notifiers": "none is in trouble",
        "rules": "in force",
        "jobs": "all could be read",
    }
    return [_check(name, [one for one in found if one.check == name], text) for name, text in fine.items()]


def _says_time(state: State) -> bool:
    return any(row["clock_ahead_seconds"] is not None for row in state.watches)


def _check(name: str, found: Sequence[HealthWarning], fine: str) -> Check:
    if not found:
        return Check(name, True, fine)
    ok = all(one.level > Level.DOWN for one in found)
    return Check(name, ok, f"{'warning: ' if ok else ''}{public(found)}{_LISTS.get(name, '')}")


class Health:
    """/healthz asks only this process; /readyz asks the database what the workers do."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def routes(self) -> Iterator[Route]:
        yield Route(
            path="/healthz", view=self.healthz, name="healthz", says="the process is alive", answer=Alive, public=True
        )
        yield Route(
            path="/readyz", view=self.readyz, name="readyz", answer=Readiness, also=(503,), public=True,
            says="the bridge does its work, or why not; with a token, each reason",
        )  # fmt: skip

    def healthz(self) -> ResponseReturnValue:
        return {"status": "ok", "version": self._parts.version}

    def readyz(self) -> ResponseReturnValue:
        answers, found = self._answers()
        ready = all(check.ok for check in answers)
        facts = {
            "status": "ready" if ready else "not ready",
            "warnings": len(found),
            "checks": [asdict(check) for check in answers],
            "reasons": [_reason(one) for one in found] if "scope" in g else None,
        }
        return facts, 200 if ready else 503

    def _answers(self) -> tuple[list[Check], list[HealthWarning]]:
        try:
            revision = self._parts.db.revision()
            if revision != HEAD:
                said = f"is {revision or 'not there'}, this version needs {HEAD}: `ci-bridge db upgrade`"
                return [Check("database", True, "answers"), Check("schema", False, said)], [_down("schema", said)]
            with self._parts.db.read() as tx:
                state, found = look(self._parts, tx)
        except TROUBLES as error:
            # Host, port and role of the database may be in it.
            logger.warning("the database does not answer /readyz", extra={"reason": trouble(error)})
            said = self._parts.db.lost or "does not answer; the log says why"
            return [Check("database", False, said)], [_down("database", said)]
        return checks(state, found), found


def _down(check: str, what: str) -> HealthWarning:
    return HealthWarning(check=check, level=Level.DOWN, kind=what, short=what)


def _reason(one: HealthWarning) -> dict[str, Any]:
    since = iso(ms(one.since)) if one.since else None
    return {"check": one.check, "who": one.who, "what": one.what, "since": since, "why": one.why}
