"""A silence as people ask for one: what it matches, its end, who wants it and why; every fault at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bridge.decide.rules.gates import SCOPE_KEYS, Scope, read_scope
from bridge.decide.rules.matching import GlobCost, flat
from bridge.decide.rulesfile.lint import Polled
from bridge.decide.text.times import duration
from bridge.decide.text.values import FieldFault, FieldFaults, FieldReader, printable, shown, suggest
from bridge.model import Silence, Watch

LONGEST = timedelta(days=30)
MOST = 500  # that have not ended: each transition is held against all of them
KEYS = (
    *SCOPE_KEYS,
    "everything",
    "mode",
    "starts_in",
    "begins_at",
    "for",
    "ends_at",
    "author",
    "reason",
    "dry_run",
    "id",
)
LONGEST_AUTHOR, LONGEST_REASON, LONGEST_ID = 100, 500, 255  # characters
_MOST_FIELDS = 50  # of one match
_LONGEST_SPEC = 10_000  # characters of JSON
_MOST_FAULTS = _MOST_WARNINGS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SilenceRequest:
    """A silence to be. `spec` is what it matches, as JSON, and `scope` the same, read.

    `id` is the one that the client gave: what is asked again under it is the same silence.
    """

    spec: str
    scope: Scope
    ends_at: datetime
    author: str
    reason: str
    drop: bool = False
    dry_run: bool = False
    id: str | None = None
    begins_at: datetime | None = None  # None: now

    def silence(self, id_: str, *, now: datetime) -> Silence:
        return Silence(
            id=id_,
            spec=self.spec,
            author=self.author,
            reason=self.reason,
            begins_at=self.begins_at or now,
            ends_at=self.ends_at,
            drop=self.drop,
        )


def read_silence(asked: Mapping[str, Any], *, now: datetime, author: str | None = None) -> SilenceRequest:
    """Read a silence; `author` is who asks, unless that is in it. Raises FieldFaults."""
    reader = FieldReader({"author": author, "reason": None} | dict(asked), KEYS)
    everything = reader.read("everything", _flag, False)
    spec = {key: asked[key] for key in SCOPE_KEYS if key in asked}
    author = reader.read("author", read_author, "")
    reason = reader.read("reason", read_reason, "")
    id_ = reader.read("id", lambda value: _line(value, LONGEST_ID), None)
    drop, dry_run = reader.read("mode", _mode, False), reader.read("dry_run", _flag, False)
    if ("for" in asked) == ("ends_at" in asked):
        reader.note(None, 'say when it ends: either for ("2h") or ends_at (2026-11-21T09:00:00Z)')
    if "starts_in" in asked and "begins_at" in asked:
        reader.note(None, 'say when it begins with either starts_in ("2h") or begins_at, or with neither: now')
    begins_at = reader.read("starts_in", lambda value: _begin(value, lambda text: now + duration(text), now), None)
    begins_at = reader.read("begins_at", lambda value: _begin(value, _moment, now), begins_at)
    first = begins_at or now
    ends_at = reader.read("for", lambda value: _end(value, lambda text: first + duration(text), first, now), now)
    ends_at = reader.read("ends_at", lambda value: _end(value, _moment, first, now), ends_at)
    try:
        scope = _scope(spec, everything=everything)
    except FieldFaults as error:
        reader.faults += error.faults
    if left := len(reader.faults[_MOST_FAULTS:]):
        reader.faults[_MOST_FAULTS:] = [FieldFault(None, f"and {left} more")]
    reader.check()
    return SilenceRequest(
        spec=_dump(spec),
        scope=scope,
        ends_at=ends_at,
        author=author,
        reason=reason,
        drop=drop,
        dry_run=dry_run,
        id=id_,
        begins_at=begins_at,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SilenceChange:
    """What is to be different about a silence; None: as it is."""

    ends_at: datetime | None = None
    reason: str | None = None


def read_change(asked: Mapping[str, Any], there: Silence, *, now: datetime) -> SilenceChange:
    """Read a change of a silence that has not ended. Raises FieldFaults."""
    reader = FieldReader(asked, ("extend_by", "ends_at", "reason"))
    if not asked or {"extend_by", "ends_at"} <= asked.keys():
        reader.note(None, 'say what changes: extend_by ("2h") or ends_at, or reason')
    first = max(there.begins_at, now)
    ends_at = reader.read(
        "extend_by", lambda value: _end(value, lambda text: there.ends_at + duration(text), first, now), None
    )
    ends_at = reader.read("ends_at", lambda value: _end(value, _moment, first, now), ends_at)
    reason = reader.read("reason", read_reason, None) if "reason" in asked else None
    reader.check()
    return SilenceChange(ends_at=ends_at, reason=reason)


def _line(value: object, longest: int) -> str:
    if not isinstance(value, str) or not value.strip():
        fault = "is missing" if value is None else f"{shown(value)} is not a string; write a few words"
        raise ValueError("is empty; write a few words" if isinstance(value, str) else fault)
    if len(value) > longest:
        raise ValueError(f"has {len(value):,} characters; at most {longest} are kept")
    return printable(value.strip())


def read_author(value: object) -> str:
    """Return the name of who does something. Raises ValueError."""
    return _line(value, LONGEST_AUTHOR)


def read_reason(value: object) -> str:
    """Return the reason of what a person does. Raises ValueError."""
    return _line(value, LONGEST_REASON)


def _mode(value: object) -> bool:
    if value not in ("hold", "drop"):
        raise ValueError(f'{shown(value)} is neither "hold" (send it in one digest when it ends) nor "drop"')
    return value == "drop"


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{shown(value)} is neither true nor false")  # noqa: TRY004  (one kind of error for all faults)
    return value


def _begin(value: object, reader: Callable[[str], datetime], now: datetime) -> datetime:
    text = value if isinstance(value, str) else shown(value)
    found = reader(text)
    if found < now:
        raise ValueError(f"{text} has passed; leave it out, and the silence begins now")
    if found > now + LONGEST:
        raise ValueError(f"{text} is too far in the future; a silence begins within {LONGEST.days} days")
    return found.astimezone(UTC)


def _end(value: object, reader: Callable[[str], datetime], first: datetime, now: datetime) -> datetime:
    """Return the end of a silence that holds from `first` on."""
    text = value if isinstance(value, str) else shown(value)
    found = reader(text)
    # Compared before it becomes UTC, which a time at the end of the calendar has no room for.
    if found <= now:
        raise ValueError(f"{text} has passed; a silence must end in the future")
    if found <= first:
        raise ValueError(f"{text} is not after the silence begins")
    if found > first + LONGEST:
        raise ValueError(f"{text} is too far in the future; a silence may last {LONGEST.days} days")
    return found.astimezone(UTC)


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None:
        raise ValueError(f"{shown(text)} is not a time such as 2026-11-21T09:00:00Z")
    if found.tzinfo is None:
        raise ValueError(f"the time zone is missing in {shown(text)}; write {found.isoformat()}Z if it is UTC")
    return found


def _scope(spec: Mapping[str, Any], *, everything: bool) -> Scope:
    match = spec.get("match", {})
    fields = len(list(flat(match))) if isinstance(match, Mapping) else 1
    named = fields or any(key != "match" for key in spec)
    if everything and named:
        text = "with it nothing else that it matches can be named; leave one of the two out"
        raise FieldFaults(FieldFault("everything", text))
    if not everything and not named:
        text = "it would match every message: say which with match, from, to, rule or notifier, or set everything"
        raise FieldFaults(FieldFault(None, text))
    if fields > _MOST_FIELDS:
        raise FieldFaults(FieldFault("match", f"{fields:,} fields are too many; the limit is {_MOST_FIELDS}"))
    if (size := len(_dump(spec))) > _LONGEST_SPEC:
        text = f"the match has {size:,} characters as JSON; the limit is {_LONGEST_SPEC:,}"
        raise FieldFaults(FieldFault(None, text))
    try:
        for text in _texts(spec):
            printable(text)
    except ValueError as error:
        raise FieldFaults(FieldFault(None, str(error))) from error
    return read_scope(spec)


def _dump(spec: Mapping[str, Any]) -> str:
    return json.dumps(spec, ensure_ascii=False, separators=(",", ":"))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield key
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def too_costly(scopes: Iterable[Scope]) -> str:
    """Say what is wrong with these silences together, or nothing: each transition may be held against all of them."""
    cost = GlobCost()
    for scope in scopes:
        cost.add(scope.conditions)
    return "with those that have not ended, its globs expand to too many patterns; write fewer" if cost.fault else ""


def silence_warnings(
    scope: Scope,
    *,
    rules: Collection[str],
    notifiers: Collection[str],
    unheld: Collection[str] = (),
    watches: Sequence[Watch] = (),
    queue_names: Mapping[str, str] | None = None,
) -> list[str]:
    """Return what may be a slip of the pen: names that there are none of, and what no watch polls.

    They may be to come. `unheld` are the rules whose messages no silence holds.
    """
    found = [
        f'rules.toml has no {kind} "{name}"{suggest(name, known)}'
        for kind, names, known in (("rule", scope.rules, rules), ("notifier", scope.notifiers, notifiers))
        for name in sorted(names)
        if name not in known
    ]
    held_never = sorted(scope.rules & {*unheld})
    found += [f'rule "{name}" is about watches that cannot see: no silence holds its messages' for name in held_never]
    polled = Polled(watches, {name: queue for queue, name in (queue_names or {}).items()})
    found += [f"{'.'.join(keys)}: {text}" for keys, text in polled.findings(scope.was, scope.to, scope.conditions)]
    return (
        found if len(found) <= _MOST_WARNINGS else [*found[:_MOST_WARNINGS], f"and {len(found) - _MOST_WARNINGS} more"]
    )


def described(spec: Mapping[str, Any]) -> str:
    """Say what a silence matches in one line: "tag=Transcode to=Failed"."""
    fields = {**dict(flat(spec.get("match", {}))), **{key: spec[key] for key in SCOPE_KEYS[1:] if key in spec}}
    return " ".join(f"{name}={_value(value)}" for name, value in fields.items()) or "everything"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
