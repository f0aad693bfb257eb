"""GET /api/v1/...: lists, newest first, and details."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from flask import g, request
from flask.typing import ResponseReturnValue
from pydantic import BaseModel
from sqlalchemy import Connection

from bridge.admin import answers, query, shown
from bridge.admin.auth import Scope
from bridge.admin.parts import Parts
from bridge.admin.problems import Problem
from bridge.admin.routes import PAGING, Route
from bridge.display import LINE
from bridge.record import counters, rulesets
from bridge.record.polling import problems
from bridge.record.queries import gauges, lists
from bridge.record.queries.lists import Cursor, Found
from bridge.record.schema import DELIVERY_STATES

_SHORT = f"of a long text one line of {LINE} characters"
_OF_JOBS = ("state", "tag", "queue", "job", "since", "until")
_OF_DELIVERIES = ("state", "notifier", "rule", "job", "digest", "batch", "since", "until")


class Reads:
    """The questions; none of them changes anything."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def routes(self) -> Iterator[Route]:
        def at(
            path: str, view: Callable[..., ResponseReturnValue], answer: type[BaseModel], says: str, **more: Any
        ) -> Route:
            return Route(
                path=f"/api/v1/{path}", view=view, name=f"read_{view.__name__}", answer=answer, says=says,
                **({"query": PAGING} | more),
            )  # fmt: skip

        of_jobs, of_deliveries = (*_OF_JOBS, *PAGING), (*_OF_DELIVERIES, *PAGING)
        yield at("watches", self.watches, answers.Watches, "what is polled, and how it goes")
        yield at("jobs", self.jobs, answers.Jobs, f"jobs, newest first; {_SHORT}", query=of_jobs)
        yield at("jobs/<job_id>", self.job, answers.JobDetail, "one job", query=("bucket",), refuses=(404, 409))
        yield at(
            "transitions", self.transitions, answers.Transitions, f"transitions, newest first; {_SHORT}", query=of_jobs
        )
        yield at(
            "deliveries", self.deliveries, answers.Deliveries, f"deliveries, newest first; {_SHORT}",
            query=of_deliveries, states=DELIVERY_STATES,
        )  # fmt: skip
        yield at(
            "deliveries/<delivery_id>", self.delivery, answers.DeliveryDetail, "one delivery", query=(), refuses=(404,)
        )
        yield at("rules", self.rules, answers.Rules, "the rules in force, in their order")
        yield at("notifiers", self.notifiers, answers.Notifiers, "who is told, and how much waits for them")

    def jobs(self) -> ResponseReturnValue:
        return self._recorded(lists.find_jobs, _OF_JOBS)

    def transitions(self) -> ResponseReturnValue:
        return self._recorded(lists.find_transitions, _OF_JOBS)

    def deliveries(self) -> ResponseReturnValue:
        return self._recorded(lists.find_deliveries, _OF_DELIVERIES, states=DELIVERY_STATES)

    def _recorded(
        self, ask: Callable[..., Found], fields: Sequence[str], *, states: Sequence[str] = ()
    ) -> ResponseReturnValue:
        asked = query.read(request, fields, states=states)
        with self._parts.db.read() as tx:
            found = ask(tx, asked.which, cursor=asked.cursor, limit=asked.limit)
        return _page(found.items, found.cursor)

    def job(self, job_id: str) -> ResponseReturnValue:
        bucket = query.parameters(request, ["bucket"]).get("bucket")
        with self._parts.db.read() as tx:
            found = [job for job in lists.job_details(tx, job_id) if bucket in (None, job["bucket"])]
            if not found:
                raise Problem(404, problems.no_job(tx, job_id, bucket))
            for job in found:
                job["problems"] = problems.of_job(tx, job["bucket"], job_id)
        if len(found) > 1:
            buckets = ", ".join(job["bucket"] for job in found)
            raise Problem(409, f'several buckets have a job "{job_id}"; add ?bucket= with one of: {buckets}')
        return found[0]

    def delivery(self, delivery_id: str) -> ResponseReturnValue:
        query.parameters(request, [])
        with self._parts.db.read() as tx:
            found = lists.delivery_details(tx, delivery_id)
        if found is None:
            raise Problem(404, f'there is no delivery "{delivery_id[:100]}"')
        if g.scope < Scope.ADMIN:
            # What a receiver says about an error may well repeat a secret of its own.
            found["tries"] = [one | {"answer": None} for one in found["tries"]]
        return found

    def rules(self) -> ResponseReturnValue:
        book = self._parts.book()
        with self._parts.db.read() as tx:
            found, faults, matches = self._parts.in_force(tx), rulesets.faults(tx), counters.matches(tx)
        fault = self._parts.why_not_in_force(found)
        page = self._short([shown.rule(one, faults.get(one.name), matches.get(one.name)) for one in found.rules])
        # A fault quotes the line it is about, which may be the one where a secret was written by mistake.
        return page | {
            "sha": found.sha,
            "fault": fault if g.scope == Scope.ADMIN else fault and "rules.toml is wrong; the admin token shows why",
            "warnings": [str(warning) for warning in book.warnings],
        }

    def watches(self) -> ResponseReturnValue:
        return self._short(shown.watches(self._parts.book(), self._rows(gauges.read_watches)))

    def notifiers(self) -> ResponseReturnValue:
        return self._short(shown.notifiers(self._parts.book(), self._rows(gauges.read_notifiers)))

    def _rows(self, ask: Callable[[Connection], list[dict[str, Any]]]) -> list[dict[str, Any]]:
        with self._parts.db.read() as tx:
            return ask(tx)

    @staticmethod
    def _short(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return a page of a list that is made anew each time: its cursor is a place in it."""
        asked = query.read(request)
        start = asked.cursor.when if asked.cursor else 0
        end = start + asked.limit
        return _page(list(items[start:end]), end if end < len(items) else None)


def _page(items: list[dict[str, Any]], cursor: Cursor | int | None) -> dict[str, Any]:
    return {"items": items, "cursor": None if cursor is None else str(cursor)}
