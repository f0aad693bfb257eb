"""For which rules over several jobs, and for which of their keys, a transition counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bridge.decide.rules.incidents import FanIn, counts, key_of
from bridge.decide.rules.matching import Matcher, Rule
from bridge.decide.templates.functions import TemplateFault, number, variables
from bridge.decide.templates.rendering import value
from bridge.model import IncidentJob, IncidentKey, Transition

MOST_EXPECTED = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """A job that counts for a key of a rule. `fault`: why the number of jobs that is expected cannot be read."""

    rule: Rule
    key: IncidentKey
    by: tuple[tuple[str, str], ...]
    job: IncidentJob
    expected: int | None = None
    fault: str | None = None


def joined(transition: Transition, matcher: Matcher) -> Iterator[Joined]:
    """Yield what a transition counts for; a job that has not all fields of a key counts for none."""
    facts = matcher.facts(transition)
    for rule in matcher.incidents_for(transition, facts):
        spec = rule.incident
        does_count = counts(spec, transition) if spec else None
        by = facts.key(rule.by)
        if does_count is None or isinstance(by, str):
            continue
        expected, fault = expected_jobs(spec, transition, rule) if isinstance(spec, FanIn) else (None, None)
        yield Joined(
            rule=rule,
            key=key_of(rule.name, by),
            by=by,
            job=incident_job(transition, counts=does_count),
            expected=expected,
            fault=fault,
        )


def incident_job(transition: Transition, *, counts: bool = True) -> IncidentJob:
    """Return a job as it counts for an incident by this transition; what CI says of the future has happened now."""
    return IncidentJob(
        bucket=transition.job.bucket,
        job_id=transition.job.id,
        sequence=transition.sequence,
        state=transition.to,
        happened_at=min(transition.happened_at, transition.seen_at),
        counts=counts,
        silent=transition.silent is not None,
    )


def expected_jobs(spec: FanIn, transition: Transition, rule: Rule) -> tuple[int | None, str | None]:
    """Return how many jobs a fan-in expects, by one of them; or why that cannot be read."""
    if spec.expect is None:
        return None, None
    try:
        found = value(spec.expect, variables(transition, rule.name, {}))
        wanted = number(found)
    except TemplateFault as error:
        return None, f"expect: {error}"
    if wanted != int(wanted) or not 1 <= wanted <= MOST_EXPECTED:
        return None, f"expect: {wanted:g} is not a whole number from 1 to {MOST_EXPECTED:,}"
    return int(wanted), None
