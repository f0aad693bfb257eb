"""GET /api/v1/...: lists, newest first, details, and figures over time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from flask import g, request
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from bridge.admin.auth import Scope, require_admin
from bridge.admin.http import query
from bridge.admin.http.problems import Problem
from bridge.admin.http.routes import PAGING, Endpoints, Route, answer
from bridge.admin.schemas import actions, deliveries, incidents, jobs, rulebook, stats
from bridge.admin.schemas.silences import Silences
from bridge.decide.text.times import iso
from bridge.display import LINE
from bridge.pipeline.incident_facts import find_incidents, incident_details, incidents_of_job
from bridge.pipeline.operations import silence_facts
from bridge.pipeline.stats import detection
from bridge.pipeline.stats import stats as read_stats
from bridge.record import counters, rulesets
from bridge.record.outbox import silences
from bridge.record.polling import problems, queues
from bridge.record.queries import gauges, lists
from bridge.record.queries.incidents import STATES
from bridge.record.queries.lists import Cursor, Facts
from bridge.record.schema import DELIVERY_STATES

_SHORT = f"long texts are cut to one line of {LINE} characters"
_OF_JOBS = ("state", "tag", "queue", "job", "since", "until")
_OF_DELIVERIES = ("state", "notifier", "rule", "job", "digest", "batch", "since", "until")
_OF_INCIDENTS = ("state", "rule")
_OF_ACTIONS = ("who", "what", "subject", "since", "until")
_OF_STATS = ("span", "tag", "queue")


class ReadApi(Endpoints):
    """What changes nothing."""

    def routes(self) -> Iterator[Route]:
        def get(path: str, view: Callable[..., ResponseReturnValue], model: Any, summary: str, **more: Any) -> Route:
            return Route(
                path=f"/api/v1/{path}", view=view, name=f"read_{view.__name__}", answer=model, summary=summary,
                **({"query": PAGING} | more),
            )  # fmt: skip

        of_jobs, of_deliveries = (*_OF_JOBS, *PAGING), (*_OF_DELIVERIES, *PAGING)
        yield get("watches", self.watches, rulebook.Watches, "watches, and the state of their polls")
        yield get("jobs", self.jobs, jobs.Jobs, f"jobs, newest first; {_SHORT}", query=of_jobs)
        yield get("jobs/<job_id>", self.job, jobs.JobDetail, "one job", query=("bucket",), refuses=(404, 409))
        summary = f"transitions, newest first; {_SHORT}"
        yield get("transitions", self.transitions, jobs.Transitions, summary, query=of_jobs)
        summary = f"deliveries, newest first; {_SHORT}"
        yield get(
            "deliveries", self.deliveries, deliveries.Deliveries, summary, query=of_deliveries, states=DELIVERY_STATES
        )
        path, model = "deliveries/<delivery_id>", deliveries.DeliveryDetail
        yield get(path, self.delivery, model, "one delivery", query=(), refuses=(404,))
        summary = f"incidents, those that opened last first; keys that are only watched with that state; {_SHORT}"
        of_incidents = (*_OF_INCIDENTS, *PAGING)
        yield get("incidents", self.incidents, incidents.Incidents, summary, query=of_incidents, states=STATES)
        summary = "one incident, with a page of its jobs"
        yield get("incidents/<incident_id>", self.incident, incidents.IncidentDetail, summary, refuses=(404,))
        yield get("rules", self.rules, rulebook.Rules, "the rules in force, in their order")
        summary = "the rules that are or were in force, those accepted last first; admin only"
        yield get("rules/versions", self.rules_versions, rulebook.RulesVersions, summary)
        summary = "a rules file, in which what may be secret is masked; admin only"
        yield get("rules/versions/<sha>", self.rules_file, rulebook.RulesFile, summary, query=(), refuses=(404,))
        yield get("notifiers", self.notifiers, rulebook.Notifiers, "notifiers, and the number of their deliveries")
        summary = "jobs in each state, how soon changes were seen, the ends of deliveries, and their latency"
        yield get("stats", self.stats, stats.Stats, summary, query=_OF_STATS)
        yield get("silences", self.silences, Silences, "silences, newest first")
        summary, of_actions = f"what people did, newest first; {_SHORT}", (*_OF_ACTIONS, *PAGING)
        yield get("actions", self.actions, actions.Actions, summary, query=of_actions)

    # --- from the record ---------------------------------------------------------------------------------------

    def jobs(self) -> ResponseReturnValue:
        found, cursor = self._page(lists.find_jobs, _OF_JOBS)
        names = self._queue_names()
        return answer(jobs.Jobs(items=[jobs.Job.of(job, names) for job in found], cursor=cursor))

    def transitions(self) -> ResponseReturnValue:
        found, cursor = self._page(lists.find_transitions, _OF_JOBS)
        return answer(jobs.Transitions.model_validate({"items": found, "cursor": cursor}))

    def deliveries(self) -> ResponseReturnValue:
        found, cursor = self._page(lists.find_deliveries, _OF_DELIVERIES, states=DELIVERY_STATES)
        return answer(deliveries.Deliveries.model_validate({"items": found, "cursor": cursor}))

    def actions(self) -> ResponseReturnValue:
        found, cursor = self._page(lists.find_actions, _OF_ACTIONS)
        return answer(actions.Actions.model_validate({"items": found, "cursor": cursor}))

    def _page(
        self, ask: Callable[..., lists.Found], fields: Sequence[str], *, states: Sequence[str] = ()
    ) -> tuple[list[Facts], str | None]:
        asked = query.read(request, fields, states=states)
        with self.parts.db.read() as tx:
            page = ask(tx, asked.which, cursor=asked.cursor, limit=asked.limit)
        return page.items, _text(page.cursor)

    def job(self, job_id: str) -> ResponseReturnValue:
        bucket = query.parameters(request, ["bucket"]).get("bucket")
        with self.parts.db.read() as tx:
            found = [job for job in lists.job_details(tx, job_id) if bucket in (None, job["bucket"])]
            if not found:
                raise Problem(404, problems.no_job(tx, job_id, bucket))
            rules = self.parts.in_force(tx)
            for job in found:
                job["problems"] = problems.of_job(tx, job["bucket"], job_id)
                job["incidents"] = incidents_of_job(tx, job["bucket"], job_id, rules)
        if len(found) > 1:
            buckets = ", ".join(job["bucket"] for job in found)
            raise Problem(409, f'several buckets have a job "{job_id}"; add ?bucket= with one of: {buckets}')
        return answer(jobs.JobDetail.of(found[0], self._queue_names()))

    def delivery(self, delivery_id: str) -> ResponseReturnValue:
        query.parameters(request, [])
        with self.parts.db.read() as tx:
            found = lists.delivery_details(tx, delivery_id)
        if found is None:
            raise Problem(404, f'there is no delivery "{delivery_id[:100]}"')
        if g.scope < Scope.ADMIN:
            # A receiver's response to an error may contain a secret of its own.
            found["tries"] = [attempt | {"answer": None} for attempt in found["tries"]]
        return answer(deliveries.DeliveryDetail.model_validate(found))

    def incidents(self) -> ResponseReturnValue:
        asked, now = query.read(request, _OF_INCIDENTS, states=STATES), self.parts.clock()
        with self.parts.db.read() as tx:
            rules = self.parts.in_force(tx)
            page = find_incidents(tx, asked.which, rules, now=now, cursor=asked.cursor, limit=asked.limit)
        return answer(incidents.Incidents.model_validate({"items": page.items, "cursor": _text(page.cursor)}))

    def incident(self, incident_id: str) -> ResponseReturnValue:
        asked, now = query.read(request), self.parts.clock()
        with self.parts.db.read() as tx:
            rules = self.parts.in_force(tx)
            found = incident_details(tx, incident_id, rules, now=now, cursor=asked.cursor, limit=asked.limit)
        if found is None:
            raise Problem(404, f'there is no incident "{incident_id[:100]}"')
        facts, cursor = found
        return answer(incidents.IncidentDetail.model_validate(facts | {"cursor": _text(cursor)}))

    def silences(self) -> ResponseReturnValue:
        asked, now = query.read(request), self.parts.clock()
        with self.parts.db.read() as tx:
            found, cursor = silences.page(tx, cursor=asked.cursor.when if asked.cursor else None, limit=asked.limit)
        items = [silence_facts(silence, held, now=now) for silence, held in found]
        return answer(Silences.model_validate({"items": items, "cursor": _text(cursor)}))

    def stats(self) -> ResponseReturnValue:
        asked = {"span": "24h", **query.parameters(request, _OF_STATS)}
        with self.parts.db.read() as tx:
            figures = read_stats(tx, now=self.parts.clock(), **asked)
        return answer(stats.Stats.of(figures, self._queue_names()))

    # --- from the rules ----------------------------------------------------------------------------------------

    def rules(self) -> ResponseReturnValue:
        with self.parts.db.read() as tx:
            rules, faults, matches = self.parts.in_force(tx), rulesets.faults(tx), counters.matches(tx)
        fault = self.parts.why_not_in_force(rules)
        if fault and g.scope < Scope.ADMIN:
            # A fault quotes its line, where a secret may have been written by mistake.
            fault = "rules.toml has errors; the admin token shows why"
        items, cursor = _slice(rules.rules)
        found = [rulebook.Rule.of(rule, faults.get(rule.name), matches.get(rule.name)) for rule in items]
        warnings = [str(warning) for warning in self.parts.book().warnings]
        return answer(rulebook.Rules(items=found, cursor=cursor, sha=rules.sha, fault=fault, warnings=warnings))

    def rules_versions(self) -> ResponseReturnValue:
        require_admin(g.scope)
        with self.parts.db.read() as tx:
            found = rulesets.versions(tx)
        items, cursor = _slice(found)
        shown = [
            rulebook.RulesVersion.model_validate(
                asdict(one) | {"accepted_at": iso(one.accepted_at), "used_at": iso(one.used_at)}
            )
            for one in items
        ]
        return answer(rulebook.RulesVersions(items=shown, cursor=cursor))

    def rules_file(self, sha: str) -> ResponseReturnValue:
        require_admin(g.scope)
        query.parameters(request, [])
        with self.parts.db.read() as tx:
            source = rulesets.source_of(tx, sha)
        if source is None:
            raise Problem(404, f'no file of rules "{sha[:100]}" is on record')
        return answer(rulebook.RulesFile(sha=sha, toml=source))

    def watches(self) -> ResponseReturnValue:
        with self.parts.db.read() as tx:
            rows, names = gauges.read_watches(tx), self.parts.queue_names(tx)
            now = self.parts.clock()
            paused, seen = queues.paused(tx, now=now), detection(tx, "24h", now)
        items, cursor = _slice(rulebook.Watch.all(self.parts.book(), rows, names, paused, seen))
        return answer(rulebook.Watches(items=items, cursor=cursor))

    def notifiers(self) -> ResponseReturnValue:
        items, cursor = _slice(rulebook.Notifier.all(self.parts.book(), self._rows(gauges.read_notifiers)))
        return answer(rulebook.Notifiers(items=items, cursor=cursor))

    def _queue_names(self) -> Mapping[str, str]:
        with self.parts.db.read() as tx:
            return self.parts.queue_names(tx)

    def _rows(self, ask: Callable[[Connection], list[Facts]]) -> list[Facts]:
        with self.parts.db.read() as tx:
            return ask(tx)


_Any = TypeVar("_Any")


def _slice(items: Sequence[_Any]) -> tuple[list[_Any], str | None]:
    """Return a page of a list that is made anew each time: its cursor is a place in it."""
    asked = query.read(request)
    start = asked.cursor.when if asked.cursor else 0
    end = start + asked.limit
    return list(items[start:end]), str(end) if end < len(items) else None


def _text(cursor: Cursor | int | None) -> str | None:
    return None if cursor is None else str(cursor)
