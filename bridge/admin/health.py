"""Is the process alive, and does the bridge do its work?"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from flask.typing import ResponseReturnValue

from bridge.admin.answers import Alive, Readiness
from bridge.admin.parts import Parts
from bridge.admin.routes import Route
from bridge.decide.mark import said_of_clocks
from bridge.model import Watch
from bridge.pipeline import rules_standing
from bridge.record import gauges, rulesets
from bridge.record.database import TROUBLES, trouble
from bridge.record.schema import HEAD

logger = logging.getLogger(__name__)

_SILENT_FOR = timedelta(seconds=60)  # a worker says every 15 s that it is there
_POLL_GRACE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Check:
    """One answer of /readyz. Everybody may read it: no reason anybody gave, no name out of rules.toml."""

    name: str
    ok: bool
    detail: str


class Health:
    """/healthz asks only this process; /readyz asks the database what the workers do."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._loaded = (parts.book().sha, parts.clock())

    def routes(self) -> Iterator[Route]:
        yield Route(
            path="/healthz", view=self.healthz, name="healthz", says="the process is alive", answer=Alive, public=True
        )
        yield Route(
            path="/readyz", view=self.readyz, name="readyz", says="the bridge does its work, or why not",
            answer=Readiness, also=(503,), public=True,
        )  # fmt: skip

    def healthz(self) -> ResponseReturnValue:
        return {"status": "ok", "version": self._parts.version}

    def readyz(self) -> ResponseReturnValue:
        checks = self.checks()
        ready = all(check.ok for check in checks)
        facts = {"status": "ready" if ready else "not ready", "checks": [asdict(check) for check in checks]}
        return facts, 200 if ready else 503

    def checks(self) -> list[Check]:
        try:
            revision = self._parts.db.revision()
            answers = [Check("database", True, "answers"), _schema(revision)]
            return [*answers, *self._work()] if answers[-1].ok else answers
        except TROUBLES as error:
            # Host, port and role of the database may be in it.
            logger.warning("the database does not answer /readyz", extra={"reason": trouble(error)})
            return [Check("database", False, self._parts.db.lost or "does not answer; the log says why")]

    def _work(self) -> Iterable[Check]:
        book, now = self._parts.book(), self._parts.clock()
        if self._loaded[0] != book.sha:
            self._loaded = (book.sha, now)
        with self._parts.db.read() as tx:
            watches, workers = gauges.watches(tx), gauges.workers(tx)
            paused = gauges.paused_notifiers(tx)
            standing = rulesets.standing(tx, now=now)
        alive = [worker for worker in workers if now - _time(worker["beat_at"]) <= _SILENT_FOR]
        begun = max([self._loaded[1], *sorted(_time(worker["started_at"]) for worker in alive)[:1]])
        yield _workers(workers, alive)
        yield _polls(book.watches, {row["name"]: row for row in watches}, begun, now)
        names = {watch.name for watch in book.watches}
        yield _clock(alive, [row["clock_ahead_seconds"] for row in watches if row["name"] in names])
        yield _notifiers(paused)
        yield self._rules(standing, settled=now - self._loaded[1] >= _SILENT_FOR)

    def _rules(self, standing: rulesets.Standing, *, settled: bool) -> Check:
        parts, sha = self._parts, self._loaded[0]
        said = rules_standing.warnings(standing)
        if (note := parts.rules_note()) and note not in said:
            said.append(note)
        if settled and standing.sha not in (None, sha) and all(one.sha != sha for one in standing.alive):
            said.append(f"the process that serves this reads other rules ({sha}) than those in force ({standing.sha})")
        if parts.rules_fault() or any(one.fault for one in standing.alive):
            said.append("rules.toml is wrong now, the old rules stay in force; the log says why")
        return Check("rules", True, f"warning: {'; '.join(reversed(said))}" if said else "in force")


def _schema(revision: str | None) -> Check:
    if revision == HEAD:
        return Check("schema", True, HEAD)
    return Check("schema", False, f"is {revision or 'not there'}, this version needs {HEAD}: `ci-bridge db upgrade`")


def _workers(workers: Sequence[Any], alive: Sequence[Any]) -> Check:
    if alive:
        return Check("worker", True, f"{len(alive)} at work")
    if workers:
        return Check("worker", False, f"none has been heard of for {_SILENT_FOR.seconds} s")
    return Check("worker", False, "there is none: start `ci-bridge worker`")


def _polls(watches: Iterable[Watch], rows: Mapping[str, Any], begun: datetime, now: datetime) -> Check:
    late = [why for watch in watches if (why := _overdue(watch, rows.get(watch.name), begun=begun, now=now))]
    if not late:
        return Check("polls", True, "none is overdue")
    return Check("polls", False, f"watches that are overdue: {len(late)} ({late[0]}); the list of watches names them")


def _overdue(watch: Watch, row: Mapping[str, Any] | None, *, begun: datetime, now: datetime) -> str | None:
    """Say how late a watch is; a watch that was never polled counts from `begun`."""
    if row and row["paused"]:
        return None
    polled = _time(row["ok_at"]) if row and row["ok_at"] else begun
    allowed = max(3 * watch.every, _POLL_GRACE)
    if now - polled <= allowed:
        return None
    seconds = (now - polled).total_seconds()
    return f"no good poll for {seconds:.0f} s, at most {allowed.total_seconds():.0f} s are well"


def _clock(alive: Sequence[Any], ahead: Iterable[float | None]) -> Check:
    if doubted := next((worker["clock_fault"] for worker in alive if worker["clock_fault"]), None):
        return Check("clock", True, f"warning: nothing is pruned or given up: {doubted}")
    worst = max((one for one in ahead if one is not None), key=abs, default=None)
    if worst is None:
        return Check("clock", True, "CI has not said what time it has")
    said = said_of_clocks(timedelta(seconds=worst))
    return Check("clock", True, f"warning: {said}" if said else "as CI's")


def _notifiers(paused: Sequence[str]) -> Check:
    if not paused:
        return Check("notifiers", True, "none is paused")
    said = f"warning: {len(paused)} paused, so what they should be told waits; the list of notifiers names them"
    return Check("notifiers", True, said)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
