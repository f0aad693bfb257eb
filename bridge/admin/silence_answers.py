"""What is asked and answered about silences, for /openapi.json. Nothing is parsed with it, as in `answers`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from bridge.admin.answers import Cursor, Open


class Silence(BaseModel):
    """A mute that a person made, with an end."""

    id: str
    state: Literal["active", "over"]
    matches: Annotated[
        Open, Field(description="match, from, to, rule and notifier, as they were given; {}: everything")
    ]
    mode: Literal["hold", "drop"]
    author: str
    reason: str
    begins_at: datetime
    ends_at: datetime
    ended_by: Annotated[str | None, Field(description="who ended it early")]
    held: Annotated[int, Field(description="how many messages it has held or dropped")]


class Silences(BaseModel):
    items: list[Silence]
    cursor: Cursor


class PreviewCount(BaseModel):
    rule: str
    notifier: str
    messages: int


class PreviewMessage(BaseModel):
    told_at: datetime
    job: str
    bucket: str
    tag: str | None
    was: Annotated[str, Field(alias="from")]
    to: str
    rule: str
    notifier: str


class Preview(BaseModel):
    """What it would have matched of the messages of the last day."""

    since: datetime
    looked_at: int
    cut: Annotated[bool, Field(description="there were more messages than were looked at, the newest")]
    matched: int
    by: list[PreviewCount]
    newest: list[PreviewMessage]


class SilenceMade(BaseModel):
    silence: Annotated[Silence | None, Field(description="null after a dry_run")]
    preview: Preview
    warnings: Annotated[
        list[str], Field(description="what it names that rules.toml does not have, or that no watch polls")
    ]


_Names = str | list[str]


class SilenceWanted(BaseModel):
    """A silence to be: something that it matches (or everything), for or ends_at, and a reason."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "match": {"tag": "Transcode"}, "to": "Failed", "for": "2h", "author": "ann", "reason": "new encoder",
            },
        },
    )  # fmt: skip

    match: Annotated[Open, Field(description="as in a rule: {FIELD: text, texts, true, false or a comparison}")] = {}
    was: Annotated[_Names, Field(alias="from", description="states, as in a rule")] = []
    to: Annotated[_Names, Field(description="states, as in a rule")] = []
    rule: Annotated[_Names, Field(description="only what these rules tell")] = []
    notifier: Annotated[_Names, Field(description="only what these notifiers are told")] = []
    everything: Annotated[bool, Field(description="instead of all of these")] = False
    mode: Annotated[
        Literal["hold", "drop"], Field(description="hold: told in one digest when it ends; drop: never told")
    ] = "hold"
    for_: Annotated[str, Field(alias="for", description='how long, as in "2h"; at most 30 days')] = ""
    ends_at: Annotated[str, Field(description="instead of that: an RFC 3339 time")] = ""
    author: Annotated[str, Field(max_length=100, description='who wants it; "api" if nobody is named')] = ""
    reason: Annotated[str, Field(min_length=1, max_length=500)]
    dry_run: Annotated[bool, Field(description="only say what it would have matched")] = False
    id: Annotated[
        str, Field(min_length=1, max_length=255, description="yours: asked again under it, nothing is made twice")
    ] = ""
