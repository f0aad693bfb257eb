"""What is asked and answered about why somebody was (not) notified, for /openapi.json."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from bridge.admin.answers import Fired, Open

_LONGEST = 1000


def _text(value: str | None) -> str | None:
    if value == "":
        raise PydanticCustomError("empty", "it is empty; leave it out, or write one")
    if value and len(value) > _LONGEST:
        raise PydanticCustomError("too_long", f"it has {len(value)} characters; at most {_LONGEST} are read")
    if value and "\0" in value:  # PostgreSQL has no NUL in a text
        raise PydanticCustomError("nul", "it has a NUL (\\u0000) in it, which no id or bucket has")
    return value


_Text = Annotated[
    str | None,
    AfterValidator(_text),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": _LONGEST, "pattern": r"^[^\x00]+$"}),
]


def _or_null(*kinds: str) -> dict[str, list[dict[str, str]]]:
    return {"anyOf": [{"type": kind} for kind in (*kinds, "null")]}


_WORD = _or_null("string")
_SPAN = {**_or_null("string"), "pattern": "^[1-9][0-9]{0,2}[smhd]$"}
_WORDS = (
    "from", "to", "state", "id", "bucket", "region", "tag", "queue", "code", "message", "input", "output", "template",
    "template_name", "workflow", "workflow_name", "workflow_run", "level",
)  # fmt: skip
_TWO_SPANS = [{"required": pair} for pair in (["age", "wait"], ["age", "duration"], ["wait", "duration"])]
_JOB = {  # what is always taken; what else is, the description says
    "type": "object",
    "description": "a job as [[test]] of rules.toml has it. It may also name a `watch` of rules.toml; and several of"
    " age, wait and duration where they fit together, each written as there",
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


class Question(BaseModel):
    """A job on record, by its id, or one that is made up: one of the two."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "oneOf": [
                {"required": ["job_id"], "not": {"required": ["job"]}},
                {"required": ["job"], "not": {"anyOf": [{"required": ["job_id"]}, {"required": ["bucket"]}]}},
            ],
            "example": {"job_id": "j8d121820f5e411ec926ef19d53ba9c6f"},
        },
    )

    job_id: _Text = None
    bucket: Annotated[_Text, Field(description="of the job on record: two buckets may each have one")] = None
    job: Annotated[Open | None, WithJsonSchema(_JOB)] = None

    @model_validator(mode="after")
    def _is_one(self) -> Question:
        if (self.job_id is None) == (self.job is None):
            raise PydanticCustomError("one_of_two", "give job_id, or job: one of the two")
        if self.job is not None and self.bucket is not None:
            raise PydanticCustomError("no_bucket", "bucket is for a job on record; a job that is made up names its own")
        return self


class RuleSaid(BaseModel):
    """What an edge rule says to a transition."""

    rule: str
    line: int
    matches: bool
    answer: Annotated[
        Literal["fired", "stopped", "no"], Field(description="stopped: it is not asked, as an earlier rule stops")
    ]
    why_not: Annotated[str | None, Field(description="the first condition that fails, with the value it saw")]
    misses: Annotated[int, Field(description="how many conditions fail")]
    notifiers: Annotated[list[str], Field(description="whom it is the first to notify")]
    already_told: Annotated[list[str], Field(description="whom a rule above notifies")]


class LevelSaid(BaseModel):
    """What a level rule says to the time in state that the transition began."""

    rule: str
    line: Annotated[int | None, Field(description="null: it is no longer among the rules")]
    judged_by: Annotated[
        str | None,
        Field(description="the sha of the rules asked: the present ones, or those when it ended; null: it is gone"),
    ]
    state: Annotated[str, Field(alias="in")]
    answer: Annotated[
        Literal["fired", "waiting", "stopped", "no"],
        Field(description="waiting: the job has not been in that state for long enough, or no poll has seen it since"),
    ]
    why: str
    since: datetime
    until: Annotated[datetime | None, Field(description="null while it goes on")]
    stayed_seconds: int
    for_seconds: int | None
    due_at: datetime | None
    notifiers: list[str]
    fired_at: datetime | None
    repeated: int | None
    ended_at: Annotated[datetime | None, Field(description="when the job was seen to have moved on, after it fired")]


class DeliveryFate(BaseModel):
    """What became of a message for one notifier, or would."""

    id: Annotated[str | None, Field(description="null where no delivery was made")]
    rule: Annotated[str | None, Field(description="null: a person sent it")]
    notifier: str
    kind: Literal["transition", "level", "recovery"]
    answer: Literal[
        "sent", "waiting", "retrying", "dead", "discarded", "digest", "merged", "muted", "silenced", "throttled",
        "dropped", "paused", "already_told", "stopped", "not_on_record", "at_once",
    ]  # fmt: skip
    why: str
    attempts: int
    error: Annotated[str | None, Field(description="why the last attempt failed")]
    next_at: Annotated[datetime | None, Field(description="the next attempt")]
    ended_at: datetime | None
    gate: Annotated[
        Literal["group", "throttle", "mute", "silence"] | None, Field(description="what holds, held or dropped it")
    ]
    gate_name: Annotated[str | None, Field(description="the rule, the mute, or the silence's id")]
    until: Annotated[datetime | None, Field(description="when the digest is due that it waits in")]
    told_by: Annotated[str | None, Field(description="the delivery of the digest that it is part of")]
    fallback_for: Annotated[str | None, Field(description="the notifier that could not be notified")]


class MessageSaid(BaseModel):
    kind: str
    rule: Annotated[str | None, Field(description="null: a person sent it")]
    title: str
    text: str


class WouldTell(BaseModel):
    rules: str
    tells: list[Fired]


class Explanation(BaseModel):
    """A transition, why each rule does or does not match it, and what became of the messages."""

    headline: Annotated[str, Field(description="the answer in one line")]
    job: str
    bucket: str
    tag: str | None
    queue: str | None
    was: Annotated[str, Field(alias="from")]
    to: str
    sequence: int
    happened_at: datetime
    seen_at: datetime
    watch: str
    silent: Annotated[str | None, Field(description="why nobody was notified")]
    judged_by: Annotated[str | None, Field(description="the sha of the rules whose answers are in `rules`")]
    notes: list[str]
    would_tell_now: Annotated[WouldTell | None, Field(description="null: the present rules would notify the same")]
    rules: Annotated[list[RuleSaid], Field(description="top to bottom; when all say no, the nearest miss first")]
    levels: list[LevelSaid]
    deliveries: list[DeliveryFate]
    messages: list[MessageSaid]


class Explanations(BaseModel):
    items: Annotated[list[Explanation], Field(description="oldest first; of very many the newest")]
    older: Annotated[int, Field(description="transitions that are older than those, and are not explained")]
