"""Trying rules: every fault of a file, or what it would have told of what has happened lately."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from bridge.admin.pages.pasted import Pasted, Said
from bridge.admin.parts import Parts
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.errors import RulesRefused
from bridge.decide.whatif import rule_tests
from bridge.pipeline.backtest import Backtest, Report
from bridge.record.queries import history

SPANS: Mapping[str, timedelta] = {"24h": timedelta(days=1), "7d": timedelta(days=7)}
USUAL = "24h"

_DIFFERENCES = 50  # that are shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much is compared while somebody waits: the first of these numbers that `seconds` are enough for."""

    most: Sequence[int] = (20_000, 2_000, 200)
    seconds: float = 5.0


BOUNDS = Bounds()


class Overdue(Exception):
    """It takes longer than somebody who looks at a page waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of it; without `sha` it is refused."""

    span: str
    faults: Sequence[Said]
    sha: str | None = None
    tests: int = 0
    failed: Sequence[Said] = ()
    report: Mapping[str, Any] | None = None
    notes: Sequence[str] = ()

    @property
    def is_refused(self) -> bool:
        return self.sha is None


def run(parts: Parts, pasted: Pasted, *, span: str, clock: Callable[[], float], bounds: Bounds = BOUNDS) -> Result:
    """Check rules, and put what has happened through them. Nothing comes into force; nothing is stored or sent."""
    try:
        book = pasted.read(parts.environ)
    except RulesRefused as error:
        return Result(span=span, faults=pasted.faults(error.faults))
    report, notes = _Trial(parts, book, SPANS[span], clock, bounds).run()
    return Result(
        span=span, faults=pasted.faults(book.warnings), sha=book.sha, tests=len(book.tests),
        failed=[pasted.said(one.line, one.text) for one in rule_tests.run(book)],
        report=report.facts() if report else None, notes=notes,
    )  # fmt: skip


class _Trial:
    """A backtest that is bounded."""

    def __init__(
        self, parts: Parts, book: Rulebook, span: timedelta, clock: Callable[[], float], bounds: Bounds
    ) -> None:
        self._parts = parts
        self._book = book
        self._now = parts.clock()
        self._since = self._now - span
        self._clock = clock
        self._bounds = bounds

    def run(self) -> tuple[Report | None, list[str]]:
        """Return what came of it, and what must be known to read it."""
        for most in self._bounds.most:
            with suppress(Overdue):
                report, is_cut = self._newest(most)
                return report, list(_notes(report, is_cut=is_cut))
        return None, [f"It was stopped: it takes more than {self._bounds.seconds:g} seconds. {_NO_HASTE}"]

    def _newest(self, most: int) -> tuple[Report, bool]:
        """Compare the newest transitions; tell whether there were more. Raises Overdue."""
        in_force = self._parts.book()
        with self._parts.db.read() as tx:
            cut = history.after_newest(tx, most)
        since = max(cut, self._since) if cut else self._since
        with self._parts.db.read() as tx:
            test = Backtest(
                tx, self._book, in_force=in_force, keep=in_force.keep, now=self._now, first=_DIFFERENCES, since=since
            )
            return test.run(self._until(self._clock() + self._bounds.seconds, test.transitions)), since > self._since

    def _until(self, end: float, left: int) -> Callable[[int], None]:
        def look(done: int) -> None:
            nonlocal left
            left -= done
            if left > 0 and self._clock() > end:
                raise Overdue

        return look


_NO_HASTE = "ci-bridge rules backtest has the time."


def _notes(report: Report, *, is_cut: bool) -> Iterator[str]:
    tally = report.tally
    if is_cut:
        yield f"There were more: only the newest {report.transitions:,} transitions are compared. {_NO_HASTE}"
    if report.is_cut:
        yield "Less is kept than was asked for (keep, in rules.toml)."
    if report.has_throttle:
        yield "Throttles are not replayed: what one of these rules would hold counts as told."
    if tally.unknown:
        yield f"Not compared: {tally.unknown:,} transitions, as what was told of them is kept no longer."
    if tally.unknown_times:
        yield f"Not compared: {tally.unknown_times:,} stays in a state, as it is not known how long they lasted."
