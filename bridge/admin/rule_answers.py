"""What is asked and answered about rules, for /openapi.json."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class RulesText(BaseModel):
    """A rules file to try."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"toml": '[[rule]]\nname = "all"\n'}})

    toml: Annotated[str, Field(description="the text of a rules.toml, of at most 1 MB")]


class RuleFault(BaseModel):
    line: int
    level: Literal["error", "warning"]
    text: str


class FailedTest(BaseModel):
    number: Annotated[int, Field(description="of the [[test]], from 1")]
    line: int
    text: Annotated[str, Field(description="what was expected and not told, and what was told and not expected")]


class RuleTests(BaseModel):
    run: Annotated[int, Field(description="how many; none of a file that is refused")]
    failed: list[FailedTest]


class RulesChecked(BaseModel):
    ok: Annotated[bool, Field(description="it is accepted, and none of its tests fails")]
    sha: Annotated[str | None, Field(description="by which it would be known; null when it is refused")]
    faults: list[RuleFault]
    tests: RuleTests
