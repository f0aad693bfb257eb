"""The nouns of rules.toml: watches, notifiers and rules as they are, and a file to check. No secret gets in here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from bridge import model, notifiers
from bridge.admin.schemas import Cursor, JsonObject, Moment, Request
from bridge.admin.schemas.stats import Detection
from bridge.decide.rules import incidents, matching
from bridge.decide.rules.incidents import Absence, Backlog, FanIn, IncidentSpec, Threshold
from bridge.decide.rules.matching import Condition, PresenceCondition, TextCondition
from bridge.decide.rules.picks import Pick
from bridge.decide.rules.rulebook import Rulebook
from bridge.pipeline import stats
from bridge.pipeline.health import has_queue, rate_note
from bridge.record.codec import iso
from bridge.record.database import ms
from bridge.record.polling.queues import PausedQueue
from bridge.record.schema import PICK
from bridge.send.registry import integration_of


class Queue(BaseModel):
    id: str
    name: str | None = Field(description="its alias in rules.toml, else its name in CI, if that is known")


class ListProgress(BaseModel):
    tag: str
    queue: str | None
    pages: int = Field(description="that were read")
    jobs: int = Field(description="that they showed")
    created_to: Moment | None = Field(description="all jobs that were created earlier have been read; null: unknown")


class Watch(BaseModel):
    """A watch of rules.toml with its polls. Members have their defaults if only rules.toml or the record knows it."""

    name: str
    in_rules: bool
    bucket: str = ""
    region: str = ""
    tags: list[str] = []
    queues: list[Queue] = []
    credentials: str | None = Field(None, description="the name of the keys it is polled with; null: TENCENTCLOUD_*")
    every_seconds: float = 0
    idle_seconds: float | None = Field(None, description="how often quiet tags are polled; null: as all others")
    lookback_seconds: float = 0
    next_poll_at: Moment | None = Field(None, description="null: at once")
    paused: bool = False
    polled_at: Moment | None = None
    ok_at: Moment | None = Field(None, description="when the last complete poll began")
    failures: int = Field(0, description="failed polls since then")
    error: str | None = None
    calls: int = Field(0, description="of the last poll")
    jobs: int = Field(0, description="of the last poll")
    rate: str | None = Field(None, description="the limit of its own calls; null: it has none beside its bucket's")
    took_seconds: float | None = Field(None, description="how long the last complete poll took")
    waited_seconds: float | None = Field(None, description="how much of that it waited because of `rate`")
    rate_note: str | None = Field(None, description="how much later changes are seen because of `rate`; null: hardly")
    behind: list[str] = Field([], description="tags whose list is long and continues in the next poll")
    progress: list[ListProgress] = Field([], description="of the long lists that are being read")
    paused_queues: list[Queue] = Field([], description="queues that it may have jobs of, and that are paused in CI")
    callback_at: Moment | None = Field(None, description="when CI's last callback about a job of its bucket came")
    clock_ahead_seconds: float | None = Field(
        None, description="how far CI's clock was ahead of ours in the last poll; null: unknown"
    )
    detection: Detection | None = Field(None, description="in the last 24 h; null: it was not polled")

    @classmethod
    def all(
        cls,
        book: Rulebook,
        rows: Iterable[JsonObject],
        queue_names: Mapping[str, str],
        paused: Sequence[PausedQueue] = (),
        detection: Iterable[stats.Detection] = (),
    ) -> list[Self]:
        """Return the watches of the rules, then those that only the record still knows."""
        found = {line.watch: Detection.of(line) for line in detection}
        recorded = {row["name"]: {**row, "detection": found.get(row["name"])} for row in rows}
        named = [cls.of(watch, queue_names, paused, recorded.pop(watch.name, {})) for watch in book.watches]
        return named + [cls(**row, in_rules=False) for row in recorded.values()]

    @classmethod
    def of(
        cls, watch: model.Watch, queue_names: Mapping[str, str], paused: Sequence[PausedQueue], row: JsonObject
    ) -> Self:
        queues = dict.fromkeys(stream.queue for stream in watch.streams if stream.queue)
        facts = {
            "name": watch.name,
            "in_rules": True,
            "bucket": watch.place.bucket,
            "region": watch.place.region,
            "tags": list(dict.fromkeys(stream.tag for stream in watch.streams)),
            "queues": [{"id": queue, "name": queue_names.get(queue)} for queue in queues],
            "paused_queues": [
                {"id": queue.id, "name": queue_names.get(queue.id)} for queue in paused if has_queue(watch, queue)
            ],
            "credentials": watch.place.credentials,
            "rate": _rate(watch.place.watch_rate.rate if watch.place.watch_rate else None),
            "rate_note": rate_note(watch, row),
            "every_seconds": watch.every.total_seconds(),
            "idle_seconds": watch.idle.total_seconds() if watch.idle else None,
            "lookback_seconds": watch.lookback.total_seconds(),
        }
        return cls.model_validate(row | facts)


class Watches(BaseModel):
    items: list[Watch]
    cursor: Cursor


class WatchAccepted(BaseModel):
    watch: str
    paused: bool


class Notifier(BaseModel):
    """A notifier of rules.toml with its deliveries. Members have their defaults if only one of the two knows it."""

    name: str
    in_rules: bool
    type: str
    fallback: str | None = None
    retry_seconds: float = 0
    max_in_flight: int
    rate: str | None = None
    target: str | None = Field(
        None, description="scheme and host, the channel, or the mail server; the rest may be a secret"
    )
    signed: bool = False
    order: str = ""
    thread: str = ""
    update: bool = False
    flood: int | None = Field(
        None,
        description="with more messages waiting for a channel, those that would wait long become a digest; null: off",
    )
    actions: list[str] = Field(
        [], description="the ids of those who may use the buttons of its messages in Slack; empty: there are none"
    )
    edits_failing: int = Field(0, description="first messages of Slack threads that cannot be edited now")
    edit_error: str | None = None
    paused_at: Moment | None = None
    paused_why: str | None = None
    paused_reason: str | None = Field(None, description="why, for programs: a reason of an attempt")
    not_before: Moment | None = None
    failures: int = Field(
        0, description="attempts in a row without a response; from 10 on, one attempt a minute is made"
    )
    waiting: int = 0
    sending: int = Field(0, description="claimed by workers, to be sent now or next")
    dead: int = 0
    held: int = Field(0, description="messages that wait in digests")
    oldest_waiting_at: Moment | None = None
    pick: str | None = Field(None, description="the template that says which notifier a job picks, of type pick")
    to: list[str] = Field([], description="the names of the notifiers that it may pick")
    otherwise: str | None = Field(None, description="the notifier of jobs that pick none of them; null: they are dead")

    @classmethod
    def all(cls, book: Rulebook, rows: Iterable[JsonObject]) -> list[Self]:
        """Return the notifiers and picks of the rules, then those that only the record still knows."""
        recorded = {row["name"]: row for row in rows}
        named = [cls.of(notifier, recorded.pop(name, {})) for name, notifier in book.notifiers.items()]
        named += [cls.of_pick(pick, recorded.pop(name, {})) for name, pick in book.picks.items()]
        return named + [cls(**row, in_rules=False) for row in recorded.values()]

    @classmethod
    def of(cls, notifier: notifiers.Notifier, row: JsonObject) -> Self:
        facts = {
            "name": notifier.name,
            "type": notifier.type,
            "in_rules": True,
            "fallback": notifier.fallback,
            "retry_seconds": notifier.retry.total_seconds(),
            "max_in_flight": notifier.max_in_flight,
            "rate": _rate(notifier.rate),
        }
        return cls.model_validate(row | facts | integration_of(notifier).facts())

    @classmethod
    def of_pick(cls, pick: Pick, row: JsonObject) -> Self:
        facts = {"pick": pick.source, "to": list(pick.to.values()), "otherwise": pick.otherwise}
        return cls.model_validate(row | facts | {"name": pick.name, "type": PICK, "in_rules": True, "max_in_flight": 0})


class Notifiers(BaseModel):
    items: list[Notifier]
    cursor: Cursor


class NotifierAccepted(BaseModel):
    notifier: str
    paused: bool


class Escalation(BaseModel):
    after_seconds: float = Field(description="without an acknowledgement")
    notify: list[str]


class Rule(BaseModel):
    name: str
    line: int
    was: list[str] = Field(alias="from")
    to: list[str]
    match: JsonObject = Field(description="as in rules.toml")
    notify: list[str]
    template: str | None
    stop: bool
    in_: list[str] | None = Field(alias="in", description="of a level rule, or of a backlog")
    for_seconds: float | None
    repeat_seconds: float | None
    blind_seconds: float | None = Field(description="of a rule about watches that cannot see for so long")
    recover: bool
    by: list[str] = Field(description="of a rule over several jobs: one incident for each value of these fields")
    count: str | None = Field(description='how many jobs, as in ">= 5"')
    share: str | None = Field(description='how many of the last jobs, as in "> 20% of 50"')
    in_a_row: bool
    within_seconds: float | None
    absent: list[str] | None = Field(description="the states that no job came to for for_seconds")
    between: str | None = Field(description="when that time counts; null: always")
    all_: Literal["done", "Success"] | None = Field(alias="all", description="what all jobs of a key come to")
    expect: bool = Field(description="the jobs say how many they are")
    settle_seconds: float | None = Field(description="else they are all when no other came for so long")
    unless: str | None = Field(description="it waits while this rule has an open incident for the same key")
    escalate: Escalation | None
    throttle: str | None
    group: JsonObject | None = Field(description="by, wait_seconds or at, max")
    urgent: bool = Field(description="its messages go first, and are never folded into the digest of a flood")
    mention: list[str] = Field(description='whom its messages mention in chats: ids, "here", "channel"')
    template_faults: int = Field(description="how often one of its templates fell back to the default text")
    last_fault: str | None
    matches: int = Field(description="how often it fired")
    last_match_at: Moment | None

    @classmethod
    def of(cls, rule: matching.Rule, fault: Mapping[str, Any] | None, matches: tuple[int, datetime] | None) -> Self:
        """Return a rule; `fault` is what is on record of its templates, `matches` how often and when last it fired."""
        level = rule.level
        facts = {
            "name": rule.name,
            "line": rule.line,
            "from": sorted(rule.was.words),
            "to": sorted(rule.to.words),
            "match": {condition.field: _as_written(condition) for condition in rule.conditions},
            "notify": list(rule.notify),
            "template": rule.template,
            "stop": rule.stop,
            "in": sorted(level.states.words) if level else None,
            "for_seconds": level.after.total_seconds() if level else None,
            "repeat_seconds": level.repeat.total_seconds() if level and level.repeat else None,
            "blind_seconds": rule.blind.total_seconds() if rule.blind else None,
            "recover": rule.recover or bool(level and level.recover),
            "by": list(rule.by),
            "unless": rule.unless,
            "escalate": _escalation(rule.escalate) if rule.escalate else None,
            **_of_incident(rule.incident),
            "throttle": _rate(rule.throttle),
            "group": _grouping(rule.group) if rule.group else None,
            "urgent": rule.urgent,
            "mention": list(rule.mention),
            "template_faults": fault["count"] if fault else 0,
            "last_fault": fault["why"] if fault else None,
            "matches": matches[0] if matches else 0,
            "last_match_at": iso(ms(matches[1])) if matches else None,
        }
        return cls.model_validate(facts)


class Rules(BaseModel):
    items: list[Rule]
    cursor: Cursor
    sha: str
    fault: str | None = Field(description="why rules.toml as it is now is not in force")
    warnings: list[str]


_NO_INCIDENT: JsonObject = {
    **dict.fromkeys(("count", "share", "within_seconds", "absent", "between", "all", "settle_seconds")),
    "in_a_row": False,
    "expect": False,
}


def _of_incident(spec: IncidentSpec | None) -> JsonObject:
    """Return what makes a rule one over several jobs."""
    facts: JsonObject = {}
    match spec:
        case Threshold():
            limit = f"{spec.limit}% of {spec.last}" if spec.last else str(spec.limit)
            within = spec.within.total_seconds() if spec.within else None
            facts = {"share" if spec.last else "count": limit, "in_a_row": spec.in_a_row, "within_seconds": within}
        case Absence():
            between = str(spec.window) if spec.window else None
            after = spec.after.total_seconds()
            facts = {"absent": sorted(spec.wanted.words), "for_seconds": after, "between": between}
        case Backlog():
            after = spec.after.total_seconds()
            facts = {"in": sorted(spec.states.words), "for_seconds": after, "count": str(spec.limit)}
        case FanIn():
            settle = spec.settle.total_seconds() if spec.settle else None
            wanted = "Success" if spec.success else "done"
            facts = {"all": wanted, "expect": spec.expect is not None, "settle_seconds": settle}
    return _NO_INCIDENT | facts


def _escalation(escalation: incidents.Escalation) -> JsonObject:
    return {"after_seconds": escalation.after.total_seconds(), "notify": list(escalation.notify)}


def _rate(rate: model.Rate | None) -> str | None:
    return f"{rate.count}/{rate.per.total_seconds():g}s" if rate else None


def _grouping(group: model.Grouping) -> JsonObject:
    return {
        "by": list(group.by),
        "wait_seconds": group.wait.total_seconds() if group.wait else None,
        "at": f"{group.at:%H:%M}" if group.at else None,
        "max": group.most,
    }


def _as_written(condition: Condition) -> object:
    """Return the value as in rules.toml."""
    match condition:
        case TextCondition():
            return [text for text, _ in condition.wanted] + [f"!{text}" for text, _ in condition.unwanted]
        case PresenceCondition():
            return condition.present
    return f"{condition.sign} {condition.limit.total_seconds():g}s"


# --- checking a file ------------------------------------------------------------------------------------------------


class RulesText(Request):
    """A rules file to check."""

    model_config = ConfigDict(json_schema_extra={"example": {"toml": '[[rule]]\nname = "all"\n'}})

    toml: str = Field(description="the text of a rules.toml, of at most 1 MB")


class RuleFault(BaseModel):
    line: int
    level: Literal["error", "warning"]
    text: str


class FailedTest(BaseModel):
    number: int = Field(description="of the [[test]], from 1")
    line: int
    text: str = Field(description="what was expected and missing, and what was not expected")


class RuleTests(BaseModel):
    run: int = Field(description="how many; none of a file that is refused")
    failed: list[FailedTest]


class RulesVersion(BaseModel):
    """Rules that are, or were, in force."""

    sha: str
    in_force: bool
    accepted_at: Moment | None = Field(description="the last time; null: by an older version of the bridge")
    used_at: Moment = Field(description="when they were in force last, to the hour")
    kept: bool = Field(description="their file is on record")


class RulesVersions(BaseModel):
    items: list[RulesVersion]
    cursor: Cursor


class RulesFile(BaseModel):
    sha: str
    toml: str = Field(description="the file; addresses beyond their host and the values of headers are ***")


class RulesChecked(BaseModel):
    ok: bool = Field(description="the file is accepted, and none of its tests fails")
    sha: str | None = Field(description="its sha, if it is accepted")
    faults: list[RuleFault]
    tests: RuleTests
