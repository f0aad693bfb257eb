"""Why a notifier was (not) notified of a job: the question and the explanations."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from bridge.admin.schemas import JsonObject, Moment, Request, RequestText, stored_word
from bridge.admin.schemas.jobs import Fired
from bridge.decide.whatif.rule_tests import TEXT_FIELDS
from bridge.model import Gate


def _or_null(*kinds: str) -> dict[str, list[dict[str, str]]]:
    return {"anyOf": [{"type": kind} for kind in (*kinds, "null")]}


_WORD = _or_null("string")
_SPAN = {**_or_null("string"), "pattern": "^[1-9][0-9]{0,2}[smhd]$"}
_WORDS = ("from", "to", *TEXT_FIELDS)
_TWO_SPANS = [{"required": pair} for pair in (["age", "wait"], ["age", "duration"], ["wait", "duration"])]
_JOB = {  # what is always accepted; the description names the rest
    "type": "object",
    "description": "a job as in [[test]] of rules.toml. It may also name a `watch` of rules.toml, and several of age,"
    " wait and duration if they are consistent, each written as there",
    "example": {"tag": "Transcode", "from": "Running", "to": "Failed"},
    "additionalProperties": False,
    "properties": {
        **dict.fromkeys(_WORDS, _WORD),
        "user_data": _or_null("string", "object"),
        "progress": {**_or_null("integer"), "minimum": 0, "maximum": 100},
        "outputs": {**_or_null("array"), "items": {"type": "string"}},
        **dict.fromkeys(("age", "wait", "duration"), _SPAN),
    },
    "not": {"anyOf": _TWO_SPANS},
}


class Question(Request):
    """A job on record, by its id, or a sample job: one of the two."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["job_id"], "not": {"required": ["job"]}},
                {"required": ["job"], "not": {"anyOf": [{"required": ["job_id"]}, {"required": ["bucket"]}]}},
            ],
            "example": {"job_id": "j8d121820f5e411ec926ef19d53ba9c6f"},
        },
    )

    job_id: RequestText = None  # type: ignore[assignment]  # or left out
    bucket: RequestText = Field(None, description="needed if several buckets have a job with this id")  # type: ignore[assignment]  # so
    job: Annotated[JsonObject, WithJsonSchema(_JOB)] = None  # type: ignore[assignment]  # so

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        return {key: value for key, value in given.items() if value is not None} if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if self.model_fields_set.isdisjoint({"job_id", "job"}) or self.model_fields_set.issuperset({"job_id", "job"}):
            raise PydanticCustomError("one_of_two", "give either job_id or job")
        if self.model_fields_set.issuperset({"job", "bucket"}):
            raise PydanticCustomError("no_bucket", "bucket is for a job on record; a sample job has its own")
        return self


class RuleVerdict(BaseModel):
    """The verdict of an edge rule on a transition."""

    rule: str
    line: int
    matches: bool
    answer: Literal["fired", "stopped", "no"] = Field(
        description="stopped: not evaluated, an earlier rule has stop = true"
    )
    why_not: str | None = Field(description="the first condition that fails, with the value of the job")
    misses: int = Field(description="how many conditions fail")
    notifiers: list[str] = Field(description="the notifiers that no earlier rule notifies")
    already_told: list[str] = Field(description="the notifiers that an earlier rule notifies")


class LevelVerdict(BaseModel):
    """The verdict of a level rule on the time in state that the transition began."""

    rule: str
    line: int | None = Field(description="null: the rule does not exist any more")
    judged_by: str | None = Field(
        description="the sha of the rules evaluated: of this process, or in force when it ended; null: the rule is gone"
    )
    state: str = Field(alias="in")
    answer: Literal["fired", "waiting", "stopped", "no"] = Field(
        description="waiting: the job has not been in that state for long enough, or no poll has seen it since"
    )
    why: str
    since: Moment
    until: Moment | None = Field(description="null while it lasts")
    stayed_seconds: int
    for_seconds: int | None
    due_at: Moment | None
    notifiers: list[str]
    fired_at: Moment | None
    repeated: int | None
    ended_at: Moment | None = Field(description="when the job was seen in another state, after it fired")


class IncidentVerdict(BaseModel):
    """Whether the transition counts for a rule over several jobs, and how the incident of its key stands."""

    rule: str
    line: int | None = Field(description="null: the rule does not exist any more")
    judged_by: str | None = Field(description="the sha of the rules evaluated; null: the rule is gone")
    answer: Literal["counts", "compared", "waiting", "no"] = Field(
        description="compared: it does not count, but a row or a share is of such jobs too; waiting: the job has not"
        " been in that state for long enough"
    )
    why: str
    by: dict[str, str] | None = Field(description="the key that it counts for; null: none")
    incident: str | None = Field(description="the id; null: nothing is on record for this key")
    generation: int | None
    state: Literal["watched", "open", "closed"] | None
    standing: str | None = Field(description="how it stands, in words")
    waits_for: str | None = Field(description="the rule whose open incident keeps it from opening (unless)")
    jobs: list[str] = Field(description="the ids of those that count, the last 20")
    jobs_total: int
    expected: int | None = Field(description="how many jobs a fan-in expects")
    notifiers: list[str] = Field(description="the notifiers that its messages are for")
    opened_at: Moment | None
    closed_at: Moment | None
    closed_why: str | None = Field(description="null: what it is about has ended")
    acknowledged_by: str | None
    escalated_at: Moment | None


class DeliveryStatus(BaseModel):
    """The status of a message for one notifier; of a sample job, the expected one."""

    id: str | None = Field(description="null: no delivery was created")
    rule: str | None = Field(description="null: sent manually")
    notifier: str
    kind: Annotated[str, stored_word("transition", "level", "recovery", "incident")]
    answer: Literal[
        "sent", "waiting", "retrying", "dead", "discarded", "digest", "merged", "muted", "silenced", "throttled",
        "dropped", "paused", "already_told", "stopped", "not_on_record", "at_once",
    ]  # fmt: skip
    why: str
    attempts: int
    error: str | None = Field(description="why the last attempt failed")
    next_at: Moment | None = Field(description="the next attempt")
    ended_at: Moment | None
    gate: Annotated[str, stored_word(*get_args(Gate))] | None = Field(description="what held or dropped it")
    gate_name: str | None = Field(description="the rule, mute, silence (its id), limit, or notifier that failed")
    until: Moment | None = Field(description="when its digest is due")
    told_by: str | None = Field(description="the delivery of its digest")
    fallback_for: str | None = Field(description="the notifier that could not be notified")


class RuleMessage(BaseModel):
    kind: str
    rule: str | None = Field(description="null: sent manually")
    title: str
    text: str


class WouldTell(BaseModel):
    rules: str
    tells: list[Fired]


class Explanation(BaseModel):
    """A transition, why each rule matches it or not, and the status of its messages."""

    headline: str = Field(description="the answer in one line")
    job: str
    bucket: str
    tag: str | None
    queue: str | None
    was: str = Field(alias="from")
    to: str
    sequence: int
    happened_at: Moment
    seen_at: Moment
    watch: str
    inferred: bool = Field(description="true: it was not seen, but the job's times prove it")
    silent: str | None = Field(description="why nobody was notified")
    judged_by: str | None = Field(description="the sha of the rules whose verdicts are in `rules`")
    notes: list[str]
    would_tell_now: WouldTell | None = Field(description="whom the rules of this process would notify; null: the same")
    rules: list[RuleVerdict] = Field(description="top to bottom; if none matches, the nearest miss first")
    levels: list[LevelVerdict]
    incidents: list[IncidentVerdict] = Field(description="rules over several jobs, top to bottom")
    deliveries: list[DeliveryStatus]
    messages: list[RuleMessage]


class Explanations(BaseModel):
    items: list[Explanation] = Field(description="oldest first; the newest, if there are very many")
    older: int = Field(description="how many older transitions are not explained")
