"""Trying rules: every fault of a pasted file or table, or what it would have sent of what has happened lately."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain, count
from time import monotonic as machine_clock
from typing import Any

from flask import request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import RequestEntityTooLarge

from bridge.admin.http.routes import Route
from bridge.admin.pages.routes import Pages, argument, may_act, show
from bridge.admin.parts import Parts
from bridge.decide.rules.rulebook import Fault, Rulebook
from bridge.decide.rulesfile.errors import LARGEST, RulesRefused
from bridge.decide.rulesfile.read import read
from bridge.decide.whatif import rule_tests
from bridge.pipeline.backtest import Backtest
from bridge.record import rulesets
from bridge.record.queries import history

SPANS: Mapping[str, timedelta] = {"24h": timedelta(days=1), "7d": timedelta(days=7)}
USUAL = "24h"
_LARGEST_FORM = 2 * LARGEST + 10_000  # bytes: a browser makes two of each line break


class TryRulesPages(Pages):
    def __init__(self, parts: Parts, monotonic: Callable[[], float] = machine_clock) -> None:
        super().__init__(parts)
        self._monotonic = monotonic

    def routes(self) -> Iterator[Route]:
        yield Route(path="/rules/try", view=self.ask, name="ask_rules")
        yield Route(path="/rules/try", view=self.try_out, name="try_rules", method="POST")

    def ask(self) -> ResponseReturnValue:
        """Show the form; an address may say of which `tag`, and `to` which state, one more rule is wanted."""
        if request.args.get("how") == "whole":
            return self._form(self._source(argument("sha")), added=False)
        tag, to = (request.args.get(name, "")[:200] for name in ("tag", "to"))
        return self._form(example_rule(self.parts.book(), tag=tag, to=to), added=True)

    def _source(self, sha: str) -> str:
        """Return the file of these rules, masked; without a sha, of those in force. Only who may try sees it."""
        if not may_act():
            return ""
        with self.parts.db.read() as tx:
            return rulesets.source_of(tx, sha or rulesets.in_force(tx) or "") or ""

    def try_out(self) -> ResponseReturnValue:
        """Show what is wrong with a file, or what it would have sent of what has happened."""
        request.max_content_length = request.max_form_memory_size = _LARGEST_FORM
        try:
            text, added = request.form.get("rules", ""), request.form.get("how") == "added"
        except RequestEntityTooLarge:
            refused = f"This is too large: a rules file has at most {LARGEST:,} bytes. Paste a shorter one."
            return self._form("", added=False, refused=refused, status=413)
        # Browsers send both line ends: the file on the disk, and so its sha, has one.
        text = text.replace("\r\n", "\n")
        if not text.strip():
            refused = f"There is nothing to try: paste a {'[[rule]]' if added else 'complete rules.toml'}."
            return self._form(text, added=added, refused=refused, status=400)
        span = request.form.get("span", "")
        pasted = Pasted(text, self.parts.book() if added else None)
        result = run(self.parts, pasted, span=span if span in SPANS else USUAL, clock=self._monotonic)
        return self._form(text, added=added, result=result)

    def _form(
        self, text: str, *, added: bool, result: Result | None = None, refused: str | None = None, status: int = 200
    ) -> ResponseReturnValue:
        own = self.parts.book().sha
        with self.parts.db.read() as tx:
            in_force = rulesets.in_force(tx) or own
        base = "the rules in force" if own == in_force else f"the rules of this process ({own}), which are not in force"
        return show(
            "try_rules.html", status=status, text=text, added=added, result=result, refused=refused, spans=SPANS,
            span=result.span if result else USUAL, in_force=in_force, base=base, allowed=may_act(),
        )  # fmt: skip


# --- what is pasted: a whole rules.toml, or tables that are added to the rules of this process ----------------------

_LONGEST_LINE = 200  # characters of a line that is quoted
_LINE = re.compile(r"\bline (\d+)\b(?! of the text)")  # of a template's text: those count for themselves


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A fault, a warning or a failed test of what was pasted: where, what, and the line itself."""

    where: str
    text: str
    line: str = ""
    warning: bool = False


class Pasted:
    """A text, and the rules that it is added to, if any; of those nothing but line numbers is ever shown."""

    def __init__(self, text: str, base: Rulebook | None = None) -> None:
        self._text = text
        self._lines = text.split("\n")
        self._before = f"{base.text.rstrip()}\n" if base else ""
        self._above = self._before.count("\n")
        self._known = {(fault.line, fault.text) for fault in base.warnings} if base else set()

    def read(self, environ: Mapping[str, str]) -> Rulebook:
        """Return the rules with it. Raises RulesRefused."""
        if self._before and (number := _without_table(self._lines)):
            text = "begin with a table, such as [[rule]]: this line would belong to the last table of the rules above"
            raise RulesRefused([Fault(self._above + number, text)])
        return read(self._before + self._text, environ)

    def findings(self, faults: Iterable[Fault]) -> list[Finding]:
        """Return the faults that the rules above do not have without it."""
        new = (fault for fault in faults if (fault.line, fault.text) not in self._known)
        return [self.finding(fault.line, fault.text, warning=fault.warning) for fault in new]

    def finding(self, line: int, text: str, *, warning: bool = False) -> Finding:
        """Return a text about a line, with line numbers counted from the first line that was pasted."""
        own = _LINE.sub(lambda match: self._where(int(match[1])), text)
        return Finding(where=self._where(line), text=own, line=self._quoted(line - self._above), warning=warning)

    def _where(self, line: int) -> str:
        inside = line - self._above
        return f"line {inside}" if inside > 0 else f"line {line} of the rules above"

    def _quoted(self, number: int) -> str:
        return self._lines[number - 1].strip()[:_LONGEST_LINE] if 0 < number <= len(self._lines) else ""


def _without_table(lines: Iterable[str]) -> int | None:
    """Return the number of the first line with content, unless a table begins there."""
    stripped = ((number, line.strip()) for number, line in enumerate(lines, 1))
    first = next(((number, line) for number, line in stripped if line and not line.startswith("#")), None)
    return first[0] if first and not first[1].startswith("[") else None


def example_rule(book: Rulebook, *, tag: str = "", to: str = "") -> str:
    """Return one more rule: of this tag, or one that is watched, and a notifier that exists."""
    tags = (stream.tag for watch in book.watches for stream in watch.streams)
    facts = {
        "name": _unused("one more", [rule.name for rule in book.rules]),
        "to": to or "Failed",
        "match.tag": tag or next(tags, "Transcode"),
        "notify": next(iter(book.notifiers), "NAME"),
    }
    return "\n".join(
        ["[[rule]]", *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in facts.items())]
    )


def _unused(name: str, known: Collection[str]) -> str:
    return next(new for new in chain([name], (f"{name} {number}" for number in count(2))) if new not in known)


# --- the trial: a bounded backtest ----------------------------------------------------------------------------------

_DIFFERENCES = 50  # that are shown
_UNBOUNDED = "ci-bridge rules backtest has no such limit."


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much is compared while somebody waits: the first of these numbers that `seconds` are enough for."""

    most: Sequence[int] = (20_000, 2_000, 200)
    seconds: float = 5.0


BOUNDS = Bounds()


class TrialTimeout(Exception):
    """It takes longer than somebody waits for a page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of a trial; without `sha` the rules are refused."""

    span: str
    faults: Sequence[Finding]
    sha: str | None = None
    tests: int = 0
    failed: Sequence[Finding] = ()
    report: Mapping[str, Any] | None = None
    notes: Sequence[str] = ()


def run(parts: Parts, pasted: Pasted, *, span: str, clock: Callable[[], float], bounds: Bounds = BOUNDS) -> Result:
    """Check rules, and replay what has happened with them. Nothing comes into force; nothing is stored or sent."""
    try:
        book = pasted.read(parts.environ)
    except RulesRefused as error:
        return Result(span=span, faults=pasted.findings(error.faults))
    report, notes = _backtest(parts, book, SPANS[span], clock, bounds)
    return Result(
        span=span, faults=pasted.findings(book.warnings), sha=book.sha, tests=len(book.tests),
        failed=[pasted.finding(test.line, test.text) for test in rule_tests.run(book)],
        report=report.facts() if report else None, notes=notes,
    )  # fmt: skip


def _backtest(
    parts: Parts, book: Rulebook, span: timedelta, clock: Callable[[], float], bounds: Bounds
) -> tuple[Backtest | None, list[str]]:
    """Return the report, and what must be known to read it."""
    for most in bounds.most:
        with suppress(TrialTimeout):
            report, is_cut = _of_newest(parts, book, span, most, clock, bounds.seconds)
            return report, list(_notes(report, is_cut=is_cut))
    return None, [f"Stopped: it takes more than {bounds.seconds:g} seconds. {_UNBOUNDED}"]


def _of_newest(
    parts: Parts, book: Rulebook, span: timedelta, most: int, clock: Callable[[], float], seconds: float
) -> tuple[Backtest, bool]:
    """Compare the newest transitions; return also whether there were more. Raises TrialTimeout."""
    now = parts.clock()
    with parts.db.read() as tx:
        in_force, cut = parts.in_force(tx), history.after_newest(tx, most)
    since = max(cut, now - span) if cut else now - span
    with parts.db.read() as tx:
        test = Backtest(tx, book, in_force=in_force, keep=parts.book().keep, now=now, first=_DIFFERENCES, since=since)
        test.run(_until(clock, clock() + seconds, test.transitions))
        return test, since > now - span


def _until(clock: Callable[[], float], end: float, left: int) -> Callable[[int], None]:
    def check_time(done: int) -> None:
        nonlocal left
        left -= done
        if left > 0 and clock() > end:
            raise TrialTimeout

    return check_time


def _notes(report: Backtest, *, is_cut: bool) -> Iterator[str]:
    tally = report.tally
    if is_cut:
        yield f"There were more: only the newest {report.transitions:,} transitions are compared. {_UNBOUNDED}"
    if report.is_cut:
        yield "The record does not go back that far (keep, in rules.toml)."
    if report.has_throttle:
        yield "Throttles are not replayed: what one of these rules would hold counts as sent."
    if tally.unknown:
        yield f"Not compared: {tally.unknown:,} transitions whose messages are no longer on record."
    if tally.unknown_times:
        yield f"Not compared: {tally.unknown_times:,} times in state of unknown length, or of rules with unless."
    if tally.unknown_incidents:
        yield (
            f"Not compared: {tally.unknown_incidents:,} messages about incidents that depend on polls, people or jobs"
            " not on record."
        )
