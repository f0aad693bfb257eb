"""Incidents as JSON: what they are about, how far they are, their jobs and their deliveries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from bridge.decide.messages.incidents import how_it_stands, key_text, message_ids
from bridge.decide.rules.incidents import FanIn, Threshold
from bridge.decide.rules.matching import Rule
from bridge.decide.rules.rulebook import Ruleset
from bridge.decide.rulesfile.rulesets import ruleset_from_text
from bridge.decide.text.times import iso
from bridge.model import Incident, IncidentJob
from bridge.record import rulesets
from bridge.record.incidents import counts
from bridge.record.polling import queues
from bridge.record.queries import explanations, incidents, lists
from bridge.record.queries.lists import Cursor, Filter, Found

Facts = dict[str, Any]


def find_incidents(
    tx: Connection,
    which: Filter,
    rules: Ruleset | None,
    *,
    now: datetime,
    cursor: Cursor | None = None,
    limit: int = 50,
) -> Found:
    """Return a page of incidents, newest first; `rules` say what they are about."""
    found, following = incidents.find(tx, which, cursor=cursor, limit=limit)
    return Found(list(map(lists.shortened, _facts(tx, found, rules, now=now))), following)


def incident_details(
    tx: Connection,
    id_: str,
    rules: Ruleset | None,
    *,
    now: datetime,
    cursor: Cursor | None = None,
    limit: int = 50,
) -> tuple[Facts, Cursor | None] | None:
    """Return an incident with its deliveries and a page of its jobs, and the cursor of the next page."""
    found = incidents.one(tx, id_)
    if found is None:
        return None
    members, following = incidents.find_jobs(tx, found.n, cursor=cursor, limit=limit)
    jobs = [_member_facts(job) for job in members]
    inputs = lists.inputs_of(tx, jobs)
    counted = counts(tx, [found.n]).get(found.n)
    facts = _facts(tx, [found], rules, now=now)[0] | {
        "states": counted.states if counted else {},
        "deliveries": lists.deliveries_of(tx, message_ids(found)),
        "jobs": [job | {"input": inputs.get((job["bucket"], job["job"])) or None} for job in jobs],
    }
    return facts, following


def incidents_of_job(tx: Connection, bucket: str, job_id: str, rules: Ruleset | None) -> list[Facts]:
    """Return the incidents that a job counts for, the newest first, each with how it does."""
    names = _queue_names(tx, rules)
    return [
        {"incident": incident.id, "rule": incident.rule, "key": key_text(incident, names), "is": incident.state}
        | {name: value for name, value in _member_facts(job).items() if name not in ("bucket", "job")}
        for incident, job in explanations.incidents_of_job(tx, bucket, job_id)
    ]


def rules_in_force(tx: Connection) -> Ruleset | None:
    """Return the rules in force as they are on record; None: there are none, or a newer version has stored them."""
    sha = rulesets.in_force(tx)
    text = rulesets.text_of(tx, sha) if sha else None
    try:
        return ruleset_from_text(sha, text) if sha and text else None
    except (ValueError, KeyError):
        return None


def _facts(tx: Connection, found: Sequence[Incident], rules: Ruleset | None, *, now: datetime) -> list[Facts]:
    """Return incidents as JSON; `what` is None where nothing is known of the rule any more."""
    names = _queue_names(tx, rules)
    if rules is None:
        return [_incident_facts(one, None, names) | {"what": None} for one in found]
    by_name = {rule.name: rule for rule in rules.rules}
    of = {one.n: by_name.get(one.rule) for one in found}
    jobs = incidents.jobs(tx, [one.n for one in found if one.state == "watched" and _is_of(of[one.n], Threshold)])
    # Of the others nothing is said that depends on their jobs' states.
    counted = counts(tx, [one.n for one in found if _is_of(of[one.n], FanIn | None)])

    def said(one: Incident) -> str | None:
        mine = counted[one.n].states if one.n in counted else {}, jobs.get(one.n, ())
        return how_it_stands(rule, one, *mine, now=now, zone=rules.zone) if (rule := of[one.n]) else None

    return [_incident_facts(one, of[one.n], names) | {"what": said(one)} for one in found]


def _queue_names(tx: Connection, rules: Ruleset | None) -> Mapping[str, str]:
    return {**queues.names(tx), **(rules.queue_names if rules else {})}


def _is_of(rule: Rule | None, kind: Any) -> bool:
    return rule is not None and isinstance(rule.incident, kind)


def _incident_facts(incident: Incident, rule: Rule | None, queue_names: Mapping[str, str]) -> Facts:
    is_fan_in = _is_of(rule, FanIn)
    times = ("since", "opened_at", "notified_at", "closed_at", "acknowledged_at", "escalated_at", "last_at")
    words = ("id", "rule", "state", "generation", "closed_why", "acknowledged_by", "expected")
    return {
        **{name: getattr(incident, name) for name in words},
        **{name: iso(getattr(incident, name)) for name in times},
        "key": key_text(incident, queue_names),
        "by": dict(incident.by),
        "group": is_fan_in,
        "count": incident.total if is_fan_in else incident.counted,
        "notifiers": list(incident.notifiers),
    }


def _member_facts(job: IncidentJob) -> Facts:
    return {
        "job": job.job_id,
        "bucket": job.bucket,
        "sequence": job.sequence,
        "state": job.state,
        "happened_at": iso(job.happened_at),
        "counts": job.counts,
        "silent": job.silent,
        "left_at": iso(job.left_at),
    }
