"""Is the process alive, and does the bridge do its work?"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from flask import g
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from bridge.admin.http.routes import Endpoints, Route, answer
from bridge.admin.parts import Parts
from bridge.admin.schemas import Alive, Check, Readiness, Reason
from bridge.pipeline.health import Health, HealthWarning, Level, Reader, assess, public
from bridge.record.codec import iso
from bridge.record.database import TROUBLES, ms, trouble
from bridge.record.queries import gauges
from bridge.record.queries.gauges import State
from bridge.record.schema import HEAD

logger = logging.getLogger(__name__)

_LISTS = {"polls": "; the list of watches names them", "notifiers": "; the list of notifiers names them"}


def read_health(parts: Parts, tx: Connection) -> tuple[State, Health]:
    """Return the current state, and the verdict on it."""
    book, now = parts.book(), parts.clock()
    state = gauges.state(tx, now=now)
    reader = Reader(
        sha=book.sha, since=parts.loaded.since(book.sha, now), fault=bool(parts.rules_fault()), note=parts.rules_note()
    )
    return state, assess(state, book, reader, now)


def checks(state: State, health: Health) -> list[Check]:
    """Return the checks of a database that answers."""
    fine = {
        "database": "answers",
        "schema": HEAD,
        "worker": f"{len(state.rules.alive)} running",
        "polls": "all complete and on time",
        "clock": "in sync with CI" if _says_time(state) else "CI's time is not known yet",
        "notifiers": "all healthy",
        "rules": "in force",
        "jobs": "all could be read",
    }
    return [_check(name, health.of(name), text) for name, text in fine.items()]


def _says_time(state: State) -> bool:
    return any(row["clock_ahead_seconds"] is not None for row in state.watches)


def _check(name: str, health: Health, fine: str) -> Check:
    if not health.warnings:
        return Check(name=name, ok=True, detail=fine)
    text = f"{public(health.warnings)}{_LISTS.get(name, '')}"
    return Check(name=name, ok=health.works, detail=f"warning: {text}" if health.works else text)


class HealthApi(Endpoints):
    """/healthz asks only this process; /readyz asks the database what the workers do."""

    def routes(self) -> Iterator[Route]:
        yield Route(
            path="/healthz", view=self.healthz, name="healthz", summary="the process is alive", answer=Alive,
            public=True,
        )  # fmt: skip
        yield Route(
            path="/readyz", view=self.readyz, name="readyz", answer=Readiness, also=(503,), public=True,
            summary="the bridge works, or why not; with a token, each reason",
        )  # fmt: skip

    def healthz(self) -> ResponseReturnValue:
        return answer(Alive(version=self.parts.version))

    def readyz(self) -> ResponseReturnValue:
        found, health = self._checks()
        readiness = Readiness(
            status="ready" if health.works else "not ready",
            warnings=len(health.warnings),
            checks=found,
            reasons=[_reason(warning) for warning in health.warnings] if "scope" in g else None,
        )
        return answer(readiness, 200 if health.works else 503)

    def _checks(self) -> tuple[list[Check], Health]:
        try:
            revision = self.parts.db.revision()
            if revision != HEAD:
                detail = f"is {revision or 'missing'}, this version needs {HEAD}: `ci-bridge db upgrade`"
                fine = Check(name="database", ok=True, detail="answers")
                return [fine, Check(name="schema", ok=False, detail=detail)], _down("schema", detail)
            with self.parts.db.read() as tx:
                state, health = read_health(self.parts, tx)
        except TROUBLES as error:
            # Host, port and role of the database may be in it.
            logger.warning("the database does not answer /readyz", extra={"reason": trouble(error)})
            detail = self.parts.db.lost or "does not answer; the log says why"
            return [Check(name="database", ok=False, detail=detail)], _down("database", detail)
        return checks(state, health), health


def _down(check: str, what: str) -> Health:
    return Health([HealthWarning(check=check, level=Level.DOWN, kind=what, short=what)])


def _reason(warning: HealthWarning) -> Reason:
    since = iso(ms(warning.since)) if warning.since else None
    return Reason(check=warning.check, who=warning.who, what=warning.what, since=since, why=warning.why)
