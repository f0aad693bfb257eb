"""What is said of an incident: that it opened, that more jobs joined, that nobody reacted, and that it is over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

from bridge.decide.messages.build import LARGEST_EVENT, envelope, file_of, numbered, size_of
from bridge.decide.rules.incidents import ALARM_FIELDS, Absence, Backlog, FanIn, Threshold, deadline, how_far
from bridge.decide.rules.matching import Rule
from bridge.decide.text.times import human, iso
from bridge.decide.text.values import States, cut, ident, listing
from bridge.language import ENGLISH, Language
from bridge.links import NO_LINKS, Links
from bridge.model import CLOSED, SUCCESS, Incident, IncidentJob, IncidentKey, Job, Message, worst_first

Event = Literal["opened", "joined", "escalated", "closed", "completed", "failed"]

MOST_NAMED = 20  # jobs in an event
_MOST_QUOTED = 5  # in a text
_LONGEST_LINE = 200
_SEQUENCES: Mapping[Event, int] = {"opened": 1, "joined": 2, "escalated": 3, "closed": 4, "completed": 4, "failed": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentNews:
    """What has become of an incident; `by` is the job that opened it.

    `jobs` are those of it that happened last, the oldest first, each as it is on record now; `states` counts all.
    """

    event: Event
    incident: Incident
    now: datetime
    by: IncidentJob | None = None
    jobs: Sequence[tuple[IncidentJob, Job | None]] = ()
    states: Mapping[str, int] = field(default_factory=dict)


def incident_message(
    news: IncidentNews,
    rule: Rule,
    queue_names: Mapping[str, str],
    *,
    links: Links = NO_LINKS,
    language: Language = ENGLISH,
) -> Message:
    """Return the message; the same news make the same one."""
    incident, event = news.incident, news.event
    # From one message to the next, the number of jobs doubles at least: it gets longer by a bit or more.
    number = (str(incident.said.bit_length()),) if event == "joined" else ()
    message = Message(
        id=message_id(incident.of, incident.generation, event, *number),
        kind="incident",
        title=cut(_title(news, rule, queue_names, language)),
        text="\n".join(_lines(news, rule, language)),
        fields=_fields(news, queue_names, language),
        event=_event(news, rule, queue_names, links, language),
        rule=rule.name,
        state=_state(news),
        public_url=links.base,
        mention=rule.mention if event in ("opened", "escalated") else (),
        incident=incident.id,
        jobs=_names(news),
        language=language.tag,
        happened_at=happened_at(news),
    )
    return _of_job(message, news) if rule.incident is None else message


def _of_job(message: Message, news: IncidentNews) -> Message:
    """Return what is said of an alarm of a level rule as a message about its job, to whose thread it belongs."""
    key, job = dict(news.incident.by), news.jobs[-1][1] if news.jobs else None
    return replace(
        message,
        bucket=key["bucket"],
        job_id=key["job"],
        sequence=int(key["sequence"]),
        workflow_run=job.workflow_run if job else None,
        file=file_of(job) if job else None,
        fields=(),
    )


def present_message(
    news: IncidentNews,
    rule: Rule | None,
    queue_names: Mapping[str, str],
    *,
    links: Links = NO_LINKS,
    language: Language = ENGLISH,
) -> Message:
    """Return what the first message of an incident's thread shows now; None: its rule is no longer in rules.toml."""
    incident = news.incident
    return Message(
        id="",
        kind="incident",
        title=cut(_present_title(news, rule, queue_names, language)),
        text="\n".join(_present_lines(news, rule, language)),
        fields=_fields(news, queue_names, language),
        event=_event(news, rule, queue_names, links, language),
        rule=incident.rule,
        state=_state(news),
        public_url=links.base,
        incident=incident.id,
        jobs=_names(news),
        language=language.tag,
        happened_at=news.now,
    )


_SHOWN = ("count", "states", "expected", "acknowledged_by", "acknowledged_at", "escalated_at", "closed_at")


def shows_same(event: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether two messages (by their events) show an incident in the same state."""
    mine, its = event.get("data") or {}, other.get("data") or {}
    return all(mine.get(name) == its.get(name) for name in _SHOWN)


def message_id(key: IncidentKey, generation: int, event: Event, *number: str) -> str:
    return ident("msg", "incident", *key, str(generation), event, *number)


_MOST_JOINED = 31  # messages: how long in bits a count may be


def message_ids(incident: Incident) -> list[str]:
    """Return the ids of all messages that there may be of an incident."""
    of, generation = incident.of, incident.generation
    once = [message_id(of, generation, event) for event in _SEQUENCES if event != "joined"]
    return once + [message_id(of, generation, "joined", str(bits)) for bits in range(1, _MOST_JOINED + 1)]


def happened_at(news: IncidentNews) -> datetime:
    """Return when it happened: by the times of the jobs, not when it was seen."""
    incident = news.incident
    match news.event:
        case "opened":
            return incident.opened_at or news.now
        case "closed" | "completed" | "failed":
            return incident.closed_at or news.now
        case "escalated":
            return incident.escalated_at or news.now
    return incident.last_at or news.now


def _state(news: IncidentNews) -> str | None:
    """Return the worst state of the jobs of a group that has ended; of other incidents, whether they are over."""
    if news.event in ("completed", "failed"):
        return next(iter(worst_first(news.states)), None)
    return "closed" if news.incident.closed_at else "open"


# --- title and text -------------------------------------------------------------------------------------------------


def key_text(incident: Incident, queue_names: Mapping[str, str]) -> str:
    """Say for which key an incident is: "queue vod, tag Transcode"; nothing if there is one for all.

    Of an alarm of a level rule, the id of its job.
    """
    if tuple(name for name, _ in incident.by) == ALARM_FIELDS:
        return dict(incident.by)["job"]
    return ", ".join(f"{name} {shown_value(name, value, queue_names)}" for name, value in incident.by)


def shown_value(field: str, value: str, queue_names: Mapping[str, str]) -> str:
    return queue_names.get(value, value) if field == "queue" else value


def _title(news: IncidentNews, rule: Rule, queue_names: Mapping[str, str], language: Language) -> str:
    say = language.say
    incident, key = news.incident, key_text(news.incident, queue_names)
    if rule.incident is None and news.jobs and news.jobs[-1][1]:
        key = file_of(news.jobs[-1][1])
    name = f"{rule.name} ({key})" if key else rule.name
    match news.event:
        case "opened":
            about = f"{name}: {what(rule, incident, news.states, opens=True, language=language)}"
            if incident.closed_at is None:
                return about
            return say("{about}, over since {since}", about=about, since=iso(incident.closed_at))
        case "joined":
            return say("{name}: {n:,} by now", name=name, n=incident.counted)
        case "escalated":
            after = language.span(rule.escalate.after.total_seconds()) if rule.escalate else say("some time")
            about = f"{name}: {what(rule, incident, news.states, language=language)}"
            return say("Nobody has acknowledged for {after}: {about}", after=after, about=about)
        case "closed":
            return say("{name} is over after {lasted}", name=name, lasted=_lasted(incident, language))
    ended = say("{name} is complete", name=name) if news.event == "completed" else say("{name} has failed", name=name)
    if incident.generation > 1:
        ended = say("{ended}, again (number {n})", ended=ended, n=incident.generation)
    return f"{ended}: {_counts(news.states, language)}"


def what(
    rule: Rule,
    incident: Incident,
    states: Mapping[str, int],
    *,
    opens: bool = False,
    language: Language = ENGLISH,
) -> str:
    """Say what an incident of a rule is about: "5 Failed within 10 min" when it opens, later "9 Failed".

    `states` are those of its jobs.
    """
    say = language.say
    match rule.incident:
        case Threshold() as spec:
            return _what_came(spec, incident.counted, language, opens=opens)
        case Absence() as spec:
            absent = {"states": _listed(spec.wanted, language), "after": language.span(spec.after.total_seconds())}
            if spec.window:
                return say("no {states} for {after} of {window}", **absent, window=spec.window)
            return say("no {states} for {after}", **absent)
        case Backlog() as spec:
            waiting = {"states": _listed(spec.states, language), "after": language.span(spec.after.total_seconds())}
            return say("{n:,} jobs are {states} for more than {after}", **waiting, n=incident.counted)
        case FanIn():
            done = sum(number for state, number in states.items() if state in CLOSED)
            facts = {"n": incident.total, "expected": incident.expected, "done": done}
            if incident.expected:
                return say("{n:,} of {expected:,} jobs are there, {done:,} of them done", **facts)
            return say("{n:,} jobs are there, {done:,} of them done", **facts)
    after = language.span(rule.level.after.total_seconds()) if rule.level else say("as long as its rule allows")
    state = language.state(next(iter(states), "")) or say("in its state")
    return say("{state} for more than {after}", state=state, after=after)


def _listed(states: States, language: Language) -> str:
    return listing([language.state(word) for word in sorted(states.words)])


def _what_came(spec: Threshold, counted: int, language: Language, *, opens: bool) -> str:
    say = language.say
    if spec.last is not None:
        facts = {"limit": spec.limit, "last": spec.last, "states": _listed(spec.wanted, language)}
        return say("{limit} % of the last {last} jobs are {states}", **facts)
    came = say("{n:,} {states}", n=counted, states=_listed(spec.wanted, language))
    if not opens:
        return came
    if counted > spec.limit.least:
        came = say("{came}, {n:,} of them", came=came, n=spec.limit.least)
    if spec.in_a_row:
        came = say("{came} in a row", came=came)
    if spec.within:
        came = say("{came} within {time}", came=came, time=language.span(spec.within.total_seconds()))
    return came


def _present_title(news: IncidentNews, rule: Rule | None, queue_names: Mapping[str, str], language: Language) -> str:
    say = language.say
    incident, key = news.incident, key_text(news.incident, queue_names)
    if rule and news.event in ("completed", "failed"):
        return _title(news, rule, queue_names, language)
    name = f"{incident.rule} ({key})" if key else incident.rule
    about = say("{n:,} jobs", n=incident.total)
    if rule:
        about = what(rule, incident, news.states, language=language)
    about = f"{name}: {about}"
    if incident.closed_at:
        return say("{about}, over after {lasted}", about=about, lasted=_lasted(incident, language))
    if rule and isinstance(rule.incident, Threshold):
        return say("{about} since {since}", about=about, since=iso(incident.opened_at))
    return about


def _present_lines(news: IncidentNews, rule: Rule | None, language: Language) -> Iterator[str]:
    say, incident = language.say, news.incident
    if news.states and news.event not in ("completed", "failed"):
        yield _counts(news.states, language)
    if incident.acknowledged_at:
        facts = {"who": incident.acknowledged_by, "time": iso(incident.acknowledged_at)}
        yield say("Acknowledged by {who} at {time}.", **facts)
    if incident.escalated_at:
        to = ", ".join(rule.escalate.notify) if rule and rule.escalate else None
        facts = {"time": iso(incident.escalated_at), "to": to}
        yield say("Escalated to {to} at {time}.", **facts) if to else say("Escalated at {time}.", **facts)
    if incident.closed_at:
        facts = {"time": iso(incident.closed_at), "why": incident.closed_why}
        yield say("Closed at {time}: {why}.", **facts) if facts["why"] else say("Closed at {time}.", **facts)
    yield from _job_lines(news, language)


def _fields(news: IncidentNews, queue_names: Mapping[str, str], language: Language) -> tuple[tuple[str, str], ...]:
    """Return whether an incident is open, and what its key is made of; nothing for what is said after the first."""
    incident = news.incident
    if news.event == "joined":
        return ()
    state = language.say("open")
    if incident.acknowledged_at:
        state = language.say("acknowledged by {who}", who=incident.acknowledged_by)
    if incident.closed_at:
        state = language.say("closed")
    by = ((name, shown_value(name, value, queue_names)) for name, value in incident.by)
    return ((language.say("incident"), state), *by)


def how_it_stands(
    rule: Rule,
    incident: Incident,
    states: Mapping[str, int],
    jobs: Sequence[IncidentJob] = (),
    *,
    now: datetime,
    zone: ZoneInfo,
) -> str:
    """Say what an incident is about or, of a key that is only watched, how far it is: "3 of 5 in the last 10 min".

    `states` are those of its jobs; `jobs`, which only a threshold needs, are in the order in which they ended.
    """
    if incident.state == "watched":
        match rule.incident:
            case Threshold() as spec:
                return _so_far(spec, jobs, now)
            case Absence() as spec:
                since = incident.last_at or incident.since
                came = incident.generation > 1 or since > incident.since
                last = f"the last {spec.wanted} was at" if came else "watched since"
                return f"{last} {iso(since)}; opens at {iso(deadline(spec, since, zone))}, unless one comes"
            case Backlog() as spec:
                after = human(spec.after.total_seconds())
                return f"{incident.counted:,} of {spec.limit.least:,} jobs are {spec.states} for more than {after}"
    return what(rule, incident, states)


def _so_far(spec: Threshold, jobs: Sequence[IncidentJob], now: datetime) -> str:
    number = len(how_far(spec, jobs, now))
    within = f" in the last {human(spec.within.total_seconds())}" if spec.within else ""
    if spec.last is not None:
        seen = min(len(jobs), spec.last)
        return f"{number:,} of {seen:,} jobs are {spec.wanted}{within}; the limit is {spec.limit} % of {spec.last:,}"
    return f"{number:,} of {spec.limit.least:,}{' in a row' if spec.in_a_row else ''}{within}"


def _lasted(incident: Incident, language: Language) -> str:
    began, ended = incident.opened_at, incident.closed_at
    if began is None or ended is None:
        return language.say("some time")
    return language.span(max(0.0, (ended - began).total_seconds()))


def _counts(states: Mapping[str, int], language: Language) -> str:
    counts = [f"{states[state]:,} {language.state(state)}" for state in worst_first(states)]
    return ", ".join(counts) or language.say("no jobs")


def _lines(news: IncidentNews, rule: Rule, language: Language) -> Iterator[str]:
    """Yield the lines of the text: how many are in which state, then the last ones, what went wrong before the rest."""
    incident = news.incident
    if news.states and news.event not in ("completed", "failed"):
        yield _counts(news.states, language)
    if news.event == "opened" and isinstance(rule.incident, Absence):
        last = language.say("The last one was at {time}.", time=iso(incident.last_at))
        yield last if incident.last_at else language.say("None was seen since the start.")
    if news.event != "closed":
        yield from _job_lines(news, language)


def _job_lines(news: IncidentNews, language: Language) -> Iterator[str]:
    quoted = _quoted(news)
    for member, job in quoted:
        why = " ".join((job.message or job.code or "").split()) if job else ""
        said = f"{_name(member, job)}{f' - {why}' if why else ''}"
        yield cut(f"• {iso(member.happened_at)} {language.state(member.state)}: {said}", _LONGEST_LINE)
    if news.incident.total > len(quoted) > 0:
        yield language.say("... of {n:,} jobs", n=news.incident.total)


def _quoted(news: IncidentNews) -> Sequence[tuple[IncidentJob, Job | None]]:
    bad = [one for one in news.jobs if not (one[0].state in CLOSED and one[0].state == SUCCESS)]
    return (bad or list(news.jobs))[-_MOST_QUOTED:]


def _name(member: IncidentJob, job: Job | None) -> str:
    return " ".join(file_of(job).split()) if job else member.job_id


def _names(news: IncidentNews) -> tuple[tuple[str, str], ...]:
    """Return the names and ids of the jobs that the text names, each in a line of its own, in their order."""
    return tuple((_name(member, job), member.job_id) for member, job in _quoted(news)) if news.event != "closed" else ()


# --- the event ------------------------------------------------------------------------------------------------------


def _event(
    news: IncidentNews, rule: Rule | None, queue_names: Mapping[str, str], links: Links, language: Language
) -> dict[str, Any]:
    incident, when = news.incident, happened_at(news)
    is_fan_in = rule is not None and isinstance(rule.incident, FanIn)
    late = max(0.0, (news.now - when).total_seconds())
    jobs = [_job_facts(member, job) for member, job in news.jobs[-MOST_NAMED:]]
    data = {
        "incident": incident.id,
        "rule": incident.rule,
        "by": dict(incident.by),
        "queue_name": queue_names.get(dict(incident.by).get("queue", "")),
        "generation": incident.generation,
        "what": what(rule, incident, news.states, language=language) if rule else None,
        "opened_at": iso(incident.opened_at),
        "closed_at": iso(incident.closed_at),
        "late_seconds": round(late),
        "acknowledged_by": incident.acknowledged_by,
        "acknowledged_at": iso(incident.acknowledged_at),
        "escalated_at": iso(incident.escalated_at),
        "count": incident.total if is_fan_in else incident.counted,
        "expected": incident.expected,
        "states": dict(news.states),
        "jobs": jobs,
        "jobs_total": incident.total,
        "url": links.incident(incident.id),
    }
    group = is_fan_in and news.event in ("completed", "failed")
    body = envelope(
        f"{'group' if group else 'incident'}.{news.event}",
        source="//ci-bridge/incidents",
        subject=incident.id,
        time=when,
        sequence=_SEQUENCES[news.event],
        data=data,
    )
    while jobs and size_of(body) > LARGEST_EVENT:
        jobs.pop(0)
    return body


def _job_facts(member: IncidentJob, job: Job | None) -> dict[str, Any]:
    return {
        "id": member.job_id,
        "bucket": member.bucket,
        "state": member.state,
        "sequence": numbered(member.sequence),
        "time": iso(member.happened_at),
        "input": cut(job.input, _LONGEST_LINE) if job and job.input else None,
        "href": f"/api/v1/jobs/{member.job_id}",
    }
