"""Rules as people paste them: a whole rules.toml, or tables that are added to the rules in force."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, count

from bridge.decide.rules.rulebook import Fault, Rulebook
from bridge.decide.rulesfile.errors import RulesRefused
from bridge.decide.rulesfile.read import read

_LONGEST_LINE = 200  # characters of a line that is quoted
_LINE = re.compile(r"\bline (\d+)\b(?! of the text)")  # of a template's text: those count for themselves


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One thing that is said of what was pasted: where, what, and the line itself."""

    where: str
    text: str
    line: str = ""
    warning: bool = False


class Pasted:
    """A text, and the rules in force where it is added to them: of those nothing but line numbers is ever said."""

    def __init__(self, text: str, base: Rulebook | None = None) -> None:
        self._text = text
        self._lines = text.split("\n")
        self._before = f"{base.text.rstrip()}\n" if base else ""
        self._above = self._before.count("\n")
        self._known = {(one.line, one.text) for one in base.warnings} if base else set()

    def read(self, environ: Mapping[str, str]) -> Rulebook:
        """Return the rules that it makes. Raises RulesRefused."""
        if self._before and (number := _without_table(self._lines)):
            said = "begin with a table, such as [[rule]]: this would belong to the last one of the rules in force"
            raise RulesRefused([Fault(self._above + number, said)])
        return read(self._before + self._text, environ)

    def faults(self, found: Iterable[Fault]) -> list[Said]:
        """Return what is wrong, save what is so of the rules in force without it."""
        new = (one for one in found if (one.line, one.text) not in self._known)
        return [self.said(one.line, one.text, warning=one.warning) for one in new]

    def said(self, line: int, text: str, *, warning: bool = False) -> Said:
        """Return a text about a line, with its line numbers as who pasted it counts them."""
        told = _LINE.sub(lambda found: self._where(int(found[1])), text)
        return Said(where=self._where(line), text=told, line=self._quoted(line - self._above), warning=warning)

    def _where(self, line: int) -> str:
        inside = line - self._above
        return f"line {inside}" if inside > 0 else f"line {line} of the rules in force"

    def _quoted(self, number: int) -> str:
        return self._lines[number - 1].strip()[:_LONGEST_LINE] if 0 < number <= len(self._lines) else ""


def _without_table(lines: Iterable[str]) -> int | None:
    """Return the number of the first line that says something, unless a table begins there."""
    said = ((number, line.strip()) for number, line in enumerate(lines, 1))
    first = next(((number, line) for number, line in said if line and not line.startswith("#")), None)
    return first[0] if first and not first[1].startswith("[") else None


def example(book: Rulebook, *, tag: str = "", to: str = "") -> str:
    """Return one more rule: of this tag, or one that is watched, and somebody who can be told."""
    streams = (stream.tag for watch in book.watches for stream in watch.streams)
    facts = {
        "name": _unused("one more", [rule.name for rule in book.rules]),
        "to": to or "Failed",
        "match.tag": tag or next(streams, "Transcode"),
        "notify": next(iter(book.notifiers), "NAME"),
    }
    said = (f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in facts.items())
    return "\n".join(["[[rule]]", *said])


def _unused(name: str, known: Collection[str]) -> str:
    return next(one for one in chain([name], (f"{name} {number}" for number in count(2))) if one not in known)
