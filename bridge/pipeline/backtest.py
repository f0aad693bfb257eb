"""Backtest: the transitions on record, put through other rules. It sends and writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from bridge.decide.messages.incidents import Event, message_id
from bridge.decide.rules.rulebook import Ruleset
from bridge.decide.text.times import iso
from bridge.decide.whatif.replay import FIRST, STATUSES, Difference, PastTransition, Replay, Row, Status, Tally
from bridge.decide.whatif.replay_incidents import IncidentChange, IncidentReplay, PastNews
from bridge.model import Alarm, Transition
from bridge.record.outbox import silences
from bridge.record.polling import snapshots
from bridge.record.queries import history
from bridge.record.queries.history import Stored

Facts = dict[str, Any]
_SOON = timedelta(minutes=1)  # between asking and looking


class Backtest:
    """Tries `rules` on what was seen from `since` until `now`, in one transaction that sees nothing newer.

    `in_force` are the rules of today; transitions older than their `keep` are left out. `run` fills `tally`, which
    keeps the `first` few differences.
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
        self.kept_since = now - keep
        self.since = max(since, self.kept_since)
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
        incidents = self._before(on_page)
        for page in history.pages(self._tx, self.since):
            messages, fired = history.statuses(self._tx, page), history.fired(self._tx, page)
            for stored in page:
                self._replay.feed(_past(stored, messages.get(stored.key, {}), fired.get(stored.key, {})))
                if incidents:
                    incidents.feed(stored.transition)
            on_page(len(page))
        if incidents:
            news = _past_news(self._tx, self.kept_since)
            incidents.end(max(snapshots.seen(self._tx).values(), default=None))
            self._replay.compare_incidents(incidents, news, since=self.since)

    def _before(self, on_page: Callable[[int], object]) -> IncidentReplay | None:
        """Return the incidents as all that is on record from before the window leaves them."""
        if not (self.rules.matcher.incidents or history.has_incidents(self._tx)):
            return None
        began = history.watched_since(self._tx)
        incidents = self._replay.incidents(since=self.kept_since, began=began)
        for page in history.pages(self._tx, self.kept_since) if self.rules.matcher.incidents else ():
            for stored in page:
                if stored.transition.seen_at >= self.since:
                    return incidents
                incidents.feed(stored.transition)
            on_page(0)
        return incidents

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
            "incidents_not_compared": tally.unknown_incidents,
            "rows": [_row(line, tally.rows[line]) for line in sorted(tally.rows, key=lambda line: (line[1:], line))],
            "differences": {**sums, "first": [_difference(difference) for difference in tally.first]},
        }


def _past(stored: Stored, messages: Mapping[history.MessageKey, str], fired: Mapping[str, Alarm]) -> PastTransition:
    transition, still_at = stored.transition, stored.still_at
    if still_at and transition.still_at and still_at <= transition.still_at:
        still_at = None  # no poll saw it between this transition and what followed
    # Older versions did not say which poll it was, nor which rules they had.
    is_poll_known = still_at is not None or (stored.followed_under is not None if stored.followed else not fired)
    return PastTransition(
        transition=transition,
        messages=messages,
        alarms=fired,
        still_at=still_at,
        has_ended=stored.followed,
        is_known=all(("transition", rule, name) in messages for rule, name in stored.verdicts),
        is_time_known=is_poll_known and fired.keys() <= {rule for kind, rule, _ in messages if kind == "level"},
    )


_TOLD: Sequence[Event] = ("opened", "escalated", "completed", "failed")  # the others go to whom these went


def _past_news(tx: Connection, since: datetime) -> list[PastNews]:
    """Return what was sent about incidents from then on."""
    ids = {
        message_id(one.of, one.generation, event): (one, event)
        for one in history.past_incidents(tx, since)
        for event in _TOLD
    }
    return [
        PastNews(
            key=ids[id_][0].of,
            by=ids[id_][0].by,
            event=ids[id_][1],
            happened_at=message.happened_at,
            made_at=message.made_at,
            since=ids[id_][0].since,
            is_acknowledged=ids[id_][0].acknowledged_at is not None,
            notified=message.notified,
        )
        for id_, message in history.incident_messages(tx, list(ids)).items()
    ]


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
    kind, rule, notifier = difference.line
    return {
        **_about(difference.about),
        "kind": kind,
        "rule": rule,
        "notifier": notifier,
        "before": _status(difference.before),
        "after": _status(difference.after),
    }


def _about(about: Transition | IncidentChange) -> Facts:
    """Return the transition that a difference is about; or of an incident what became of it, and when."""
    if isinstance(about, IncidentChange):
        none = dict.fromkeys(("job", "bucket", "from", "to", "sequence"))
        return none | {"event": about.event, "seen_at": iso(about.at)}
    return {
        "job": about.job.id,
        "bucket": about.job.bucket,
        "from": about.was,
        "to": about.to,
        "sequence": about.sequence,
        "event": None,
        "seen_at": iso(about.seen_at),
    }


def _status(status: Status | None) -> Facts | None:
    return {"fate": status.status, "repeats": status.repeats} if status else None
