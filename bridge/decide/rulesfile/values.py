"""What the tables of several types of notifiers share: values of the environment, and the keys of what people read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator, field_validator

from bridge.decide.rulesfile.errors import Path
from bridge.decide.rulesfile.rules import TemplateReader
from bridge.decide.rulesfile.tables import Env, NotifierTable, Tables
from bridge.decide.text.values import shown
from bridge.environment import fault, lookup
from bridge.url import encoded

_USUAL_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class Values:
    """Reads what a notifier takes from the environment; what is wrong is noted in `tables`."""

    environ: Mapping[str, str]
    tables: Tables
    templates: TemplateReader

    def note(self, path: Path, text: str) -> None:
        self.tables.note(path, text)

    def url(self, value: str | Env, path: Path) -> str:
        """Return the URL as it goes onto the wire."""
        url = value if isinstance(value, str) else self.value(value, path)
        if url is None:
            return ""
        try:
            return encoded(url)
        except ValueError as error:
            # The value is not shown: user and password in it may be the very fault.
            what = "this" if isinstance(value, str) else f"the value of {value.env[0]}"
            right = "an http(s) address without user and password, such as https://cms.example.com/hooks/media"
            self.note(path, f"{what} is not {right}: {fault(url) or error}")
        return ""

    def value(self, env: Env | None, path: Path) -> str | None:
        """Return the value; a variable that is missing or empty is a fault."""
        if env is None:
            return None
        if len(env.env) > 1:
            self.note(path, "takes one environment variable; only a webhook's secret may have two")
        value = lookup(self.environ, env.env[0])
        if not value:
            self.note(path, self.missing(env.env[0]))
        return value

    def missing(self, variable: str) -> str:
        if variable in self.environ:
            return f"environment variable {variable} is empty"
        # A secret that stands where its name belongs must not be repeated.
        if not _USUAL_NAME.fullmatch(variable):
            return "no environment variable has this name; they are usually written LIKE_THIS"
        return f"environment variable {variable} is not set"


_MOST_FLOOD = 10_000


def _flood(value: object) -> object:
    if value is False or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST_FLOOD):
        return value
    raise ValueError(f"{shown(value)} is neither a number of messages from 1 to {_MOST_FLOOD:,}, such as 20, nor false")


Flood = Annotated[int | Literal[False], BeforeValidator(_flood)]


class ChatTable(NotifierTable):
    """The keys of all that people read in a chat."""

    flood: Flood
    body: None = None

    @field_validator("body", mode="before")
    @classmethod
    def _no_body(cls, _: object) -> None:
        raise ValueError("is for webhooks; what people are sent comes from a template")
