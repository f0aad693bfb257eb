"""Silences and their previews."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from bridge.admin.schemas import Cursor, JsonObject, Moment
from bridge.decide.rulesfile.silences import LONGEST_AUTHOR, LONGEST_ID, LONGEST_REASON


class Silence(BaseModel):
    """A mute that a person added, with an end."""

    id: str
    state: Literal["pending", "active", "over"] = Field(description="pending: it begins later, and holds nothing yet")
    matches: JsonObject = Field(description="match, from, to, rule and notifier as given; {}: everything")
    mode: Literal["hold", "drop"]
    author: str
    reason: str
    begins_at: Moment
    ends_at: Moment
    ended_by: str | None = Field(description="who ended it early")
    held: int = Field(description="how many messages it has held or dropped")


class Silences(BaseModel):
    items: list[Silence]
    cursor: Cursor


class PreviewCount(BaseModel):
    rule: str
    notifier: str
    messages: int


class PreviewMessage(BaseModel):
    told_at: Moment = Field(description="when the message was created")
    job: str
    bucket: str
    tag: str | None
    was: str = Field(alias="from")
    to: str
    rule: str
    notifier: str


class Preview(BaseModel):
    """What it would have matched of the messages of the last day."""

    since: Moment
    looked_at: int = Field(description="the number of messages, the newest")
    cut: bool = Field(description="there were more messages")
    matched: int
    by: list[PreviewCount]
    newest: list[PreviewMessage]


class SilenceMade(BaseModel):
    silence: Silence | None = Field(description="null after a dry_run")
    preview: Preview
    warnings: list[str] = Field(description="what it names that rules.toml does not have, or that no watch polls")


_Names = str | list[str]


# Only describes, as NewSilence.
class SilenceEdit(BaseModel):
    """A later or earlier end, or another reason."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"extend_by": "2h"}})

    extend_by: str = Field("", description='how much longer than until now, for example "2h"')
    ends_at: str = Field("", description="instead of that: an RFC 3339 time, at most 30 days from now")
    reason: str = Field("", max_length=LONGEST_REASON)


# Only describes: `decide/rulesfile/silences.py` validates it, for the API, the form and the command alike.
class NewSilence(BaseModel):
    """What to silence (or everything), for or ends_at, and a reason."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "match": {"tag": "Transcode"}, "to": "Failed", "for": "2h", "author": "ann", "reason": "new encoder",
            },
        },
    )  # fmt: skip

    match: JsonObject = Field({}, description="as in a rule: {FIELD: text, texts, true, false, comparison}")
    was: _Names = Field([], alias="from", description="states, as in a rule")
    to: _Names = Field([], description="states, as in a rule")
    rule: _Names = Field([], description="only messages by these rules")
    notifier: _Names = Field([], description="only messages for these notifiers")
    everything: bool = Field(False, description="instead of all of these")
    mode: Literal["hold", "drop"] = Field(
        "hold", description="hold: send one digest for each notifier when it ends; drop: never send"
    )
    starts_in: str = Field("", description='when it begins, for example "2h"; default: now')
    begins_at: str = Field("", description="instead of that: an RFC 3339 time")
    for_: str = Field("", alias="for", description='how long, for example "2h"; at most 30 days')
    ends_at: str = Field("", description="instead of that: an RFC 3339 time")
    author: str = Field("", max_length=LONGEST_AUTHOR, description='default: "api"')
    reason: str = Field(min_length=1, max_length=LONGEST_REASON)
    dry_run: bool = Field(False, description="only show what it would have matched")
    id: str = Field(
        "",
        min_length=1,
        max_length=LONGEST_ID,
        description="chosen by the client: a repeated request adds nothing twice",
    )
