"""Backtest: the transitions on record, put through other rules. It sends and writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from bridge.decide.rules.rulebook import Ruleset
from bridge.decide.text.times import iso
from bridge.decide.whatif.replay import FIRST, STATUSES, Difference, PastTransition, Replay, Row, Status, Tally
from bridge.model import Alarm
from bridge.record.outbox import silences
from bridge.record.queries import history
from bridge.record.queries.history import Stored

Facts = dict[str, Any]
_SOON = timedelta(minutes=1)  # between asking and looking


class Backtest:
    """Tries `rules` on what was seen from `since` until `now`, in one transaction that sees nothing newer.

    `in_force` are the rules of today; what they keep no longer (`keep`) is left out. `run` fills `tally`, which keeps
    the `first` few differences.
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
        history.use_one_snapshot(tx)
        self._tx = tx
        self.rules = rules
        self.asked, self.until = since, now
        self.since = max(since, now - keep)
        self._extent = history.extent(tx, self.since)
        gates = silences.not_ended(tx, now=self.since)
        self._replay = Replay(rules, in_force=in_force, silences=gates, first=first)

    @property
    def transitions(self) -> int:
        return self._extent.count

    @property
    def tally(self) -> Tally:
        return self._replay.tally

    @property
    def is_cut(self) -> bool:
        """Tell whether less is kept than was asked for."""
        return self.since - self.asked > _SOON

    @property
    def has_throttle(self) -> bool:
        """Tell whether these rules may hold more than is counted."""
        return any(rule.throttle for rule in self.rules.rules)

    def run(self, on_page: Callable[[int], object] = lambda _: None) -> None:
        """Replay all transitions; `on_page` is given the number of transitions of each page."""
        for steps in history.pages(self._tx, self.since):
            messages, fired = history.statuses(self._tx, steps), history.fired(self._tx, steps)
            for stored in steps:
                self._replay.feed(_past(stored, messages.get(stored.key, {}), fired.get(stored.key, {})))
            on_page(len(steps))

    def facts(self) -> Facts:
        """Return the result as JSON has it; `rows` are by rule, notifier and kind."""
        tally, whats = self.tally, ("added", "removed", "changed")
        sums = {what: sum(getattr(row, what) for row in tally.rows.values()) for what in whats}
        return {
            "window": {"since": iso(self.since), "until": iso(self.until), "asked_since": iso(self.asked)},
            "rules": self.rules.sha,
            "judged_by": sorted(sha or "unknown" for sha in self._extent.rulesets),
            "transitions": self.transitions,
            "transitions_not_compared": tally.unknown,
            "stays_not_compared": tally.unknown_times,
            "rows": [_row(line, tally.rows[line]) for line in sorted(tally.rows, key=lambda line: (line[1:], line))],
            "differences": {**sums, "first": [_difference(difference) for difference in tally.first]},
        }


def _past(stored: Stored, messages: Mapping[history.MessageKey, str], fired: Mapping[str, Alarm]) -> PastTransition:
    step, still_at = stored.transition, stored.still_at
    if still_at and step.still_at and still_at <= step.still_at:
        still_at = None  # no poll saw it between this transition and what followed
    # Older versions did not say which poll it was, nor which rules they had.
    is_poll_known = still_at is not None or (stored.followed_under is not None if stored.followed else not fired)
    return PastTransition(
        transition=step,
        messages=messages,
        alarms=fired,
        still_at=still_at,
        has_ended=stored.followed,
        is_known=all(("transition", rule, name) in messages for rule, name in stored.verdicts),
        is_time_known=is_poll_known and fired.keys() <= {rule for kind, rule, _ in messages if kind == "level"},
    )


def _row(line: tuple[str, str, str], row: Row) -> Facts:
    kind, rule, notifier = line
    return {
        "rule": rule,
        "kind": kind,
        "notifier": notifier,
        **{status: row.after[status] for status in STATUSES},
        "before": {status: row.before[status] for status in STATUSES},
        "added": row.added,
        "removed": row.removed,
        "changed": row.changed,
    }


def _difference(difference: Difference) -> Facts:
    step, (kind, rule, notifier) = difference.transition, difference.line
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
        "before": _status(difference.before),
        "after": _status(difference.after),
    }


def _status(status: Status | None) -> Facts | None:
    return {"fate": status.status, "repeats": status.repeats} if status else None
