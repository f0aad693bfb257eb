"""Actions: what people did."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from bridge.admin.schemas import Cursor, JsonObject, Moment, stored_word
from bridge.pipeline.operations import WHATS


class Action(BaseModel):
    n: int
    at: Moment
    who: str = Field(description="a token's name, a user of a command or of Slack; else api or dashboard")
    claimed: str | None = Field(description="the name that who did it gave; nobody has checked it")
    what: Annotated[str, stored_word(*WHATS)]
    subject: str = Field(description="the id or name of what it was done to")
    before: JsonObject | None = Field(description="what it changed, as it was")
    after: JsonObject | None = Field(description="the same, as it was afterwards; and what was asked for")


class Actions(BaseModel):
    items: list[Action]
    cursor: Cursor
