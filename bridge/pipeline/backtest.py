"""Backtest: the transitions on record, put through other rules. It sends and writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from bridge.decide.rules.rulebook import Ruleset
from bridge.decide.text.times import iso
from bridge.decide.whatif.replay import FIRST, STATUSES, Difference, Fired, PastTransition, Replay, Row, Status, Tally
from bridge.record.outbox import silences
from bridge.record.polling import time_in_state
from bridge.record.queries import history
from bridge.record.queries.history import Stored

Facts = dict[str, Any]
_SOON = timedelta(minutes=1)  # between asking and looking


class Backtest:
    """Tries `rules` on what was seen from `since` until `now`, in one transaction that sees nothing newer.

    `in_force` are the rules of today; what they keep no longer (`keep`) is left out. The report has the `first` few
    differences.
    """

    def __init__(
        self,
        tx: Connection,
        rules: Ruleset,
        *,
        in_force: Ruleset,
        keep: timedelta,
        since: datetime,
        now: datetime,
        first: int = FIRST,
    ) -> None:
        history.hold_still(tx)
        self._tx = tx
        self._rules = rules
        self._in_force = in_force
        self._first = first
        self._asked, self._now = since, now
        self._since = max(since, now - keep)
        self._extent = history.extent(tx, self._since)

    @property
    def transitions(self) -> int:
        return self._extent.count

    def run(self, on_page: Callable[[int], object] = lambda _: None) -> Report:
        """Return what came of it; `on_page` is given the number of transitions of each page."""
        replay = Replay(
            self._rules,
            in_force=self._in_force,
            silences=silences.standing(self._tx, now=self._since),
            first=self._first,
        )
        for steps in history.pages(self._tx, self._since):
            told, fired = history.told(self._tx, steps), history.fired(self._tx, steps)
            for one in steps:
                replay.feed(_happened(one, told.get(one.key, {}), fired.get(one.key, {})))
            on_page(len(steps))
        return Report(
            since=self._since,
            until=self._now,
            asked=self._asked,
            transitions=self._extent.count,
            rules=self._rules,
            rulesets=self._extent.rulesets,
            tally=replay.tally,
        )


def _happened(
    one: Stored, told: Mapping[history.Line, str], fired: Mapping[str, time_in_state.Fired]
) -> PastTransition:
    step, still_at = one.transition, one.still_at
    if still_at and step.still_at and still_at <= step.still_at:
        still_at = None  # no poll saw it between this transition and what followed
    # Older versions did not say which poll it was, nor which rules they had.
    is_poll_known = still_at is not None or (one.followed_under is not None if one.followed else not fired)
    return PastTransition(
        transition=step,
        messages=told,
        fired={rule: _fired(alarm) for rule, alarm in fired.items()},
        still_at=still_at,
        has_ended=one.followed,
        is_known=all(("transition", rule, name) in told for rule, name in one.verdicts),
        is_time_known=is_poll_known and fired.keys() <= {rule for kind, rule, _ in told if kind == "level"},
    )


def _fired(alarm: time_in_state.Fired) -> Fired:
    return Fired(count=alarm.count, first_at=alarm.fired_at, last_at=alarm.told_at, notifiers=alarm.notifiers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a backtest came to, in the words of the command line and of JSON."""

    since: datetime
    until: datetime
    asked: datetime
    transitions: int
    rules: Ruleset
    rulesets: Sequence[str | None]
    tally: Tally

    @property
    def is_cut(self) -> bool:
        """Tell whether less is kept than was asked for."""
        return self.since - self.asked > _SOON

    @property
    def has_throttle(self) -> bool:
        """Tell whether these rules may hold more than is counted."""
        return any(rule.throttle for rule in self.rules.rules)

    def facts(self) -> Facts:
        tally = self.tally
        return {
            "window": {"since": iso(self.since), "until": iso(self.until), "asked_since": iso(self.asked)},
            "rules": self.rules.sha,
            "judged_by": sorted(sha or "unknown" for sha in self.rulesets),
            "transitions": self.transitions,
            "transitions_not_compared": tally.unknown,
            "stays_not_compared": tally.unknown_times,
            "rows": self.rows(),
            "differences": {
                **{
                    what: sum(getattr(row, what) for row in tally.rows.values())
                    for what in ("added", "removed", "changed")
                },
                "first": [_difference(one) for one in tally.first],
            },
        }

    def rows(self) -> list[Facts]:
        """Return a row for each kind, rule and notifier, those of a rule one after the other."""
        return [_row(line, row) for line, row in sorted(self.tally.rows.items(), key=lambda one: (one[0][1:], one[0]))]


def _row(line: tuple[str, str, str], row: Row) -> Facts:
    kind, rule, notifier = line
    return {
        "rule": rule,
        "kind": kind,
        "notifier": notifier,
        **{fate: row.after[fate] for fate in STATUSES},
        "before": {fate: row.before[fate] for fate in STATUSES},
        "added": row.added,
        "removed": row.removed,
        "changed": row.changed,
    }


def _difference(one: Difference) -> Facts:
    step, (kind, rule, notifier) = one.transition, one.line
    return {
        "job": step.job.id,
        "bucket": step.job.bucket,
        "from": step.was,
        "to": step.to,
        "sequence": step.sequence,
        "seen_at": iso(step.seen_at),
        "kind": kind,
        "rule": rule,
        "notifier": notifier,
        "before": _status(one.before),
        "after": _status(one.after),
    }


def _status(status: Status | None) -> Facts | None:
    return {"fate": status.status, "repeats": status.repeats} if status else None
