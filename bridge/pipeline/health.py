"""The verdict on the bridge: one list of warnings, for the overview, `doctor`, /metrics and /readyz. Pure.

It contains no secret. Only `kind` and `note` are for everybody: the rest has names from rules.toml, and what receivers
answered.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum

from bridge.decide.changes.clocks import clock_warning
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.text.times import human
from bridge.model import Reason, Watch
from bridge.record.polling.queues import PausedQueue
from bridge.record.queries.gauges import State, Trouble
from bridge.record.queries.lists import Facts
from bridge.record.rulesets import ALIVE, RulesState

_SETTLED = timedelta(seconds=60)  # then every process has read a changed file
_POLL_GRACE = timedelta(seconds=60)
_LATE = timedelta(minutes=5)  # as messages say that they are late
_NOTHING = Trouble()
_NEVER_POLLED: Facts = {
    "paused": False, "ok_at": None, "polled_at": None, "failures": 0, "calls": 0, "error": None, "behind": (),
}  # fmt: skip


class Level(IntEnum):
    """The worst first."""

    DOWN = 0  # the bridge does not do its work: /readyz says 503
    BROKEN = 1  # something is not seen, or does not arrive
    ODD = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthWarning:
    """One thing that is wrong."""

    check: str  # the check of /readyz that it belongs to
    level: Level
    kind: str  # in the plural, without a name
    short: str  # a sentence's end in two or three words: "does not answer"
    more: str = ""  # and its rest: ", 3 messages wait"
    who: str | None = None  # "notifier cms"
    name: str | None = None  # "cms"
    since: datetime | None = None
    why: str | None = None  # the last error
    note: str | None = None  # more for everybody

    @property
    def text(self) -> str:
        """Who and what; neither since when nor why."""
        return f"{self.who} {self.what}" if self.who else self.what

    @property
    def what(self) -> str:
        return f"{self.short}{self.more}"

    @property
    def detail(self) -> str:
        """What, since when and why."""
        since = f", since {self.since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if self.since else ""
        return f"{self.what}{since}" + (f": {self.why}" if self.why else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """The process that asks, as far as it may be what is wrong."""

    sha: str  # of the rules that it serves
    since: datetime  # when it began to
    fault: bool = False  # its rules.toml has errors
    note: str | None = None  # what else is to be known of that file


@dataclass(frozen=True, slots=True)
class Health:
    """The verdict: all warnings, the worst first; none: all is well."""

    warnings: Sequence[HealthWarning]

    @property
    def works(self) -> bool:
        """Tell whether the bridge does its work: otherwise /readyz says 503."""
        return all(warning.level > Level.DOWN for warning in self.warnings)

    @property
    def headline(self) -> str:
        """The worst warning, and how many others there are."""
        if not self.warnings:
            return "All is well"
        worst, *others = self.warnings
        begins = "The bridge works, but" if self.works else "Something is wrong:"
        more = f", and {len(others)} more warning{'s' if len(others) != 1 else ''}" if others else ""
        return f"{begins} {worst.text}{more}"

    def of(self, check: str) -> Health:
        """Return the verdict on one check."""
        return Health([warning for warning in self.warnings if warning.check == check])

    def by_name(self) -> Mapping[str, Sequence[HealthWarning]]:
        """Return the warnings by the name that each is about."""
        named = defaultdict[str, list[HealthWarning]](list)
        for warning in self.warnings:
            if warning.name:
                named[warning.name].append(warning)
        return named


def assess(state: State, book: Rulebook, reader: Reader, now: datetime) -> Health:
    """Return the verdict on a state, as a reader sees it."""
    alive = [worker for worker in state.workers if now - _time(worker["beat_at"]) <= ALIVE]
    begun = max([reader.since, *sorted(_time(worker["started_at"]) for worker in alive)[:1]])
    found = [
        *_workers(state.workers, alive),
        *_watches(book, state.watches, begun, now),
        *_notifiers(book, state, now),
        *_clock(book, state.watches, alive),
        *_rules(state.rules, reader, now),
        *_jobs(state.unread),
    ]
    return Health(sorted(found, key=lambda warning: warning.level))  # of one level in the order of the checks


def _workers(workers: Sequence[Facts], alive: Sequence[Facts]) -> Iterator[HealthWarning]:
    if not workers:
        yield _for_everybody("worker", "no worker is running: start `ci-bridge worker`, or `run`", Level.DOWN)
    for worker in workers:
        if worker not in alive:
            yield HealthWarning(
                check="worker",
                level=Level.ODD if alive else Level.DOWN,
                kind="workers that do not respond",
                short="does not respond",
                more="" if alive else ", and no other is running, so nothing is polled or sent",
                who=f"worker {worker['id']}",
                name=worker["id"],
                since=_time(worker["beat_at"]),
                why="it was stopped, or cannot reach the database; start `ci-bridge worker`, or `run`",
            )


def _watches(book: Rulebook, rows: Sequence[Facts], begun: datetime, now: datetime) -> Iterator[HealthWarning]:
    by_name = {row["name"]: row for row in rows}
    found = (_watch(watch, by_name.get(watch.name, _NEVER_POLLED), begun, now) for watch in book.watches)
    yield from (warning for warning in found if warning)


def _watch(watch: Watch, row: Facts, begun: datetime, now: datetime) -> HealthWarning | None:
    ok_at = _time(row["ok_at"]) if row["ok_at"] else None
    # A poll that keeps to `rate` may take long, and its successor is not complete before as long again.
    passed, allowed = now - (ok_at or begun), max(3 * watch.every, _POLL_GRACE) + 2 * _waited(row)

    def found(level: Level, kind: str, short: str, more: str = "", **facts: str | None) -> HealthWarning:
        return HealthWarning(
            check="polls", level=level, kind=kind, short=short, more=more, who=f"watch {watch.name}",
            name=watch.name, since=ok_at, **facts,
        )  # fmt: skip

    if row["paused"]:
        return found(Level.ODD, "watches that are paused", "is paused", ", so nobody is notified of its jobs")
    # A poll that CI answered in part was made all the same: its errors are reported below.
    in_part = row["failures"] and row["calls"] and now - _time(row["polled_at"]) <= allowed
    if passed > allowed and not in_part:
        note = f"no complete poll for {passed.total_seconds():.0f} s, at most {allowed.total_seconds():.0f} s are usual"
        why = row["error"] or (f"it still reads the lists of {', '.join(row['behind'])}" if row["behind"] else None)
        return found(Level.DOWN, "watches that are overdue", "is overdue", why=_line(why), note=note)
    if row["failures"]:
        short = "was polled only in part" if row["calls"] else "could not be polled"
        return found(Level.BROKEN, "watches whose polls fail", short, why=_line(row["error"]))
    return None


def _notifiers(book: Rulebook, state: State, now: datetime) -> Iterator[HealthWarning]:
    for row in state.notifiers:
        trouble, in_rules = state.troubles.get(row["name"], _NOTHING), row["name"] in book.notified
        for level, kind, short, more, since, why in _of_notifier(row, trouble, in_rules=in_rules, now=now):
            yield HealthWarning(
                check="notifiers", level=level, kind=f"notifiers {kind}", short=short, more=more,
                who=f"notifier {row['name']}", name=row["name"], since=since, why=_line(why),
            )  # fmt: skip


def _of_notifier(
    row: Facts, trouble: Trouble, *, in_rules: bool, now: datetime
) -> Iterator[tuple[Level, str, str, str, datetime | None, str | None]]:
    """Yield of a notifier: how bad it is, kind, what in short and more of it, since when, and the last error."""
    count = row["waiting"] + row["sending"]
    waits = f", {_some(count)} wait{'' if count != 1 else 's'}" if count else ""
    oldest = _time(row["oldest_waiting_at"]) if row["oldest_waiting_at"] else None
    if not in_rules:
        if count:
            kind, short = "that rules.toml no longer defines", "is no longer defined in rules.toml"
            yield Level.ODD, kind, short, waits, oldest, "restore it, or its messages become dead letters"
    elif row["paused_at"]:
        why = f"{row['paused_why']}; it stays so until `ci-bridge notifier resume {row['name']}`"
        manual = row["paused_reason"] == Reason.MANUAL
        level, kind = (Level.ODD, "that people paused") if manual else (Level.BROKEN, "that are paused")
        by = f" {row['paused_why'].partition(': ')[0]}" if manual else ""
        yield level, kind, f"is paused{by}", waits, _time(row["paused_at"]), why
    elif row["failures"]:
        since = oldest or trouble.error_at
        yield Level.BROKEN, "that do not answer", "does not answer", waits, since, trouble.error
    elif trouble.failed:
        again = f", {_some(trouble.failed)} to be tried again"
        yield Level.BROKEN, "that answer with errors", "answers with errors", again, oldest, trouble.error
    elif oldest is not None and now - oldest > _LATE:
        yield Level.ODD, "that are late", "is late", waits, oldest, _why_late(row, now)
    if row["edits_failing"] and in_rules and not row["paused_at"]:
        messages = f"{row['edits_failing']:,} message{'s' if row['edits_failing'] != 1 else ''}"
        yield Level.ODD, "whose messages cannot be edited", f"cannot edit {messages}", "", None, row["edit_error"]
    if trouble.died:
        short = f"has {trouble.died:,} new dead letter{'s' if trouble.died != 1 else ''}"
        yield Level.ODD, "with dead letters of the last 24 h", short, " (last 24 h)", None, trouble.error


def _why_late(row: Facts, now: datetime) -> str:
    if row["not_before"] and _time(row["not_before"]) > now:
        return f"it asked to wait until {row['not_before']} (Retry-After)"
    return "more comes in than its `rate`, its `max_in_flight` or its channel's limit lets out, or no worker sends"


def _clock(book: Rulebook, watches: Sequence[Facts], alive: Sequence[Facts]) -> Iterator[HealthWarning]:
    names = {watch.name for watch in book.watches}
    ahead = [row["clock_ahead_seconds"] for row in watches if row["name"] in names]
    worst = max((seconds for seconds in ahead if seconds is not None), key=abs, default=None)
    texts = [
        f"pruning and dead-lettering are suspended: {worker['clock_fault']}"
        for worker in alive
        if worker["clock_fault"]
    ]
    if not texts and worst is not None and (differs := clock_warning(timedelta(seconds=worst))):
        texts.append(differs)
    yield from (_for_everybody("clock", text) for text in dict.fromkeys(texts))


def _rules(standing: RulesState, reader: Reader, now: datetime) -> Iterator[HealthWarning]:
    texts = of_rules(standing)
    if reader.note:
        texts.append(reader.note)
    settled, differs = now - reader.since >= _SETTLED, standing.sha not in (None, reader.sha)
    if settled and differs and all(worker.sha != reader.sha for worker in standing.alive):
        other = f"the process that serves this reads other rules ({reader.sha}) than those in force ({standing.sha})"
        texts.append(other)
    if reader.fault or any(worker.fault for worker in standing.alive):
        texts.insert(0, "rules.toml has errors; the old rules stay in force; the log says why")
    yield from (_for_everybody("rules", text) for text in dict.fromkeys(texts))


def of_rules(standing: RulesState) -> list[str]:
    """Say what is odd about the rules of live workers, for longer than a change takes; without what is in them."""
    alive, texts = standing.alive, []
    if alive and standing.sha != standing.last:
        texts.append(
            f"no live worker has the rules accepted last ({standing.last}): older ones ({standing.sha}) are in force"
        )
    if others := [worker for worker in alive if worker.other and worker.sha != standing.sha]:
        shas = ", ".join(dict.fromkeys(str(worker.sha) for worker in others))
        older = ", unless they are of a version before this one" if any(worker.older for worker in others) else ""
        texts.append(
            f"{len(others)} of {len(alive)} live workers have other rules ({shas}) than those in force"
            f" ({standing.sha}): they only send, and neither poll nor evaluate{older}"
        )
    return [*texts, *dict.fromkeys(worker.note for worker in alive if worker.note)]


def _jobs(unread: Mapping[str, int]) -> Iterator[HealthWarning]:
    if any(unread.values()):
        left_out, field = (f"{unread[kind]:,} job{'s' if unread[kind] != 1 else ''}" for kind in ("left_out", "field"))
        text = f"{left_out} left out, {field} with an unreadable field"
        yield _for_everybody("jobs", f"{text}; `ci-bridge jobs show ID` and the log say which")


def _for_everybody(check: str, what: str, level: Level = Level.ODD) -> HealthWarning:
    return HealthWarning(check=check, level=level, kind=what, short=what)


def rate_note(watch: Watch, row: Facts) -> str | None:
    """Say what keeping to `rate` costs a watch in freshness; None if that is next to nothing."""
    took, waited = timedelta(seconds=row.get("took_seconds") or 0), _waited(row)
    if waited < max(timedelta(seconds=1), watch.every / 10):
        return None
    took = max(took, waited)
    whose = "its" if watch.place.watch_rate else "its bucket's"
    took_s, waited_s, within_s = (human(span.total_seconds()) for span in (took, waited, took + watch.every))
    return f"polls take {took_s}, {waited_s} of it because of {whose} rate: states are seen within {within_s}"


def _waited(row: Facts) -> timedelta:
    return timedelta(seconds=row.get("waited_seconds") or 0)


def watched(paused: Iterable[PausedQueue], book: Rulebook) -> list[PausedQueue]:
    """Return those of the queues whose jobs a watch may have."""
    return [queue for queue in paused if any(has_queue(watch, queue) for watch in book.watches)]


def has_queue(watch: Watch, queue: PausedQueue) -> bool:
    """Tell whether a watch may have jobs of this queue: it polls all of its bucket's, or this one."""
    polled = {stream.queue for stream in watch.streams}
    return watch.place.bucket == queue.bucket and (None in polled or queue.id in polled)


def public(warnings: Iterable[HealthWarning]) -> str:
    """Say of the warnings of one check how many there are of each kind, and name nobody."""
    kinds: dict[str, list[HealthWarning]] = {}
    for warning in warnings:
        kinds.setdefault(warning.kind, []).append(warning)
    parts = []
    for kind, same in kinds.items():
        note = f" ({same[0].note})" if same[0].note else ""
        parts.append(f"{kind}: {len(same)}{note}" if same[0].name else f"{kind}{note}")
    return "; ".join(parts)


def _line(text: str | None) -> str | None:
    return " ".join(text.split()) if text else None


def _some(count: int) -> str:
    return f"{count:,} message{'s' if count != 1 else ''}"


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
