"""What every type of notifier reads off its table: addresses, and values of the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from bridge.decide.rulesfile.schema import Env
from bridge.decide.rulesfile.template_reader import Note, TemplateReader
from bridge.environment import fault, lookup
from bridge.url import encoded

_USUAL_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Values:
    """`note` takes what is wrong; `templates` compiles what may be a template."""

    environ: Mapping[str, str]
    note: Note
    templates: TemplateReader

    def url(self, value: str | Env, path: Path) -> str:
        """Return the URL as it goes onto the wire."""
        url = value if isinstance(value, str) else self.one(value, path)
        if url is None:
            return ""
        try:
            return encoded(url)
        except ValueError as error:
            self.note(path, _no_url(value, fault(url) or str(error)))
        return ""

    def one(self, env: Env | None, path: Path) -> str | None:
        """Return the value; a variable that is missing or empty is a fault."""
        if env is None:
            return None
        if len(env.env) > 1:
            self.note(path, "takes one environment variable; only a secret can have two")
        value = self.value(env.env[0])
        if not value:
            self.note(path, self.missing(env.env[0]))
        return value

    def value(self, variable: str) -> str | None:
        return lookup(self.environ, variable)

    def missing(self, variable: str) -> str:
        if variable in self.environ:
            return f"environment variable {variable} is empty"
        # A secret that stands where its name belongs must not be said back.
        if not _USUAL_NAME.fullmatch(variable):
            return "no environment variable has this name; they are usually written LIKE_THIS"
        return f"environment variable {variable} is not set"


def _no_url(value: str | Env, why: str) -> str:
    # Not shown: user and password in it may be the very fault.
    said = "this" if isinstance(value, str) else f"the value of {value.env[0]}"
    right = "https://cms.example.com/hooks/media"
    return f"{said} is not an http(s) address without user and password, such as {right}: {why}"
