"""rules.toml, read whole or refused whole, each fault with its line; and what decided, kept as text and read later."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from bridge.decide.rules.gates import Mute
from bridge.decide.rules.matching import Matcher, Rule
from bridge.decide.rules.rulebook import Fault, Rulebook, Ruleset
from bridge.decide.rulesfile.errors import Faults, RulesRefused, TooLarge, check_depth, check_size
from bridge.decide.rulesfile.lint import Linter
from bridge.decide.rulesfile.notifiers import NotifierReader
from bridge.decide.rulesfile.schema import Defaults, WatchTable
from bridge.decide.rulesfile.tables import RuleReader, Tables, read_wordings
from bridge.decide.rulesfile.values import TemplateReader
from bridge.decide.text.values import MOST_LISTED, printable, shown
from bridge.model import Notifier, Place, Stream, Watch

# --- the rules as they were: what decided about a transition, kept as text and read again ---------------------------


@dataclass(frozen=True, slots=True)
class Names:
    """What the watches and rules of a file are called."""

    watches: frozenset[str]  # none of a ruleset that was kept by a version which did not keep them
    rules: frozenset[str]


def freeze(tables: Mapping[str, Any], ruleset: Ruleset) -> str:
    """Return a ruleset as text that `thaw` reads; of notifiers and templates it keeps the names only.

    Their addresses and texts decide nothing, and may be secret.
    """
    kept = {
        "tables": {
            **{kind: tables.get(kind, []) for kind in ("rule", "mute")},
            **{kind: {name: {} for name in tables.get(kind, ())} for kind in ("notifier", "template")},
        },
        "lines": {"rule": _lines(ruleset.rules), "mute": _lines(ruleset.mutes)},
        "watches": [table["name"] for table in tables.get("watch", ())],
        "aliases": tables.get("alias", {}).get("queue", {}),
        "queue_names": ruleset.queue_names,
        "timezone": ruleset.zone.key,
    }
    return json.dumps(kept, ensure_ascii=False, separators=(",", ":"), default=str)


def names_in(text: str) -> Names:
    """Return what the watches and rules of a frozen ruleset are called."""
    kept = json.loads(text)
    return Names(
        frozenset(kept.get("watches", ())), frozenset(one["name"] for one in kept.get("tables", {}).get("rule", ()))
    )


def _lines(found: Sequence[Rule | Mute]) -> list[int]:
    return [one.line for one in found]


@lru_cache(maxsize=8)
def thaw(sha: str, text: str) -> Ruleset:
    """Return the ruleset that was kept under this name."""
    kept = json.loads(text)
    faults = Faults("", kept["tables"], "rules.toml")
    reader = RuleReader(Tables(kept["tables"], faults), faults, kept["aliases"])
    rules, mutes = reader.rules(), reader.mutes()
    rules = tuple(replace(one, line=line) for one, line in zip(rules, kept["lines"]["rule"], strict=True))
    return Ruleset(
        sha=sha,
        zone=ZoneInfo(kept["timezone"]),
        rules=rules,
        mutes=tuple(replace(one, line=line) for one, line in zip(mutes, kept["lines"]["mute"], strict=True)),
        matcher=Matcher(rules, kept["queue_names"]),
        queue_names=kept["queue_names"],
    )


# --- reading rules.toml ---------------------------------------------------------------------------------------------

_MOST_STREAMS = 10_000


def read(text: str, environ: Mapping[str, str], *, file: str = "rules.toml") -> Rulebook:
    """Return the rulebook. Raises RulesRefused with every fault at once, each with the name of the file."""
    text = text.removeprefix("\ufeff")  # editors on Windows put it there, and TOML has no place for it
    try:
        check_size(len(text))
        check_size(len(text.encode()))
        check_depth(text)
        tables = tomllib.loads(text)
    except TooLarge as error:
        raise RulesRefused([Fault(error.line, str(error), file=file)]) from error
    except UnicodeEncodeError as error:  # from the environment, whose bytes may be any
        line = text.count("\n", 0, error.start) + 1
        raise RulesRefused([Fault(line, f"{text[error.start]!a} is not UTF-8", file=file)]) from error
    except (ValueError, RecursionError) as error:  # a number or a nesting without end is none of TOML's own errors
        raise RulesRefused([Fault(_toml_line(error, text), f"this is not TOML: {error}", file=file)]) from error
    return _Reader(text, tables, environ, file).read()


def _toml_line(error: Exception, text: str) -> int:
    # "... (at line 3, column 7)"; the attribute lineno is there from Python 3.14 on.
    _, _, place = str(error).rpartition("(at line ")
    number = place.partition(",")[0]
    return int(number) if number.isdigit() else max(1, len(text.splitlines()))


class _Reader:
    def __init__(self, text: str, tables: dict[str, Any], environ: Mapping[str, str], file: str) -> None:
        self._text = text
        self._raw = tables
        self._faults = Faults(text, tables, file)
        self._tables = Tables(tables, self._faults)
        self._templates = TemplateReader(self._faults.note)
        self._notifier_reader = NotifierReader(environ, self._faults.note, self._templates)
        self._linter = Linter(self._faults)
        self._defaults = Defaults()
        self._aliases: dict[str, str] = {}

    def read(self) -> Rulebook:
        self._read_defaults()
        self._read_aliases()
        wordings = read_wordings(self._tables, self._faults, self._templates)
        notifiers = self._read_notifiers()
        watches = self._read_watches()
        reader = RuleReader(self._tables, self._faults, self._aliases)
        rules, mutes, trials = reader.rules(), reader.mutes(), reader.trials()
        numbers = {name: at for at, table in self._tables.each("mute") if isinstance(name := table.get("name"), str)}
        placed_mutes = [(numbers[mute.name], mute.scope) for mute in mutes]
        self._linter.of_rules(reader.placed, placed_mutes, watches, self._aliases)
        self._linter.of_use(self._tables, notifiers)
        faults = self._faults.found
        if any(not fault.warning for fault in faults):
            raise RulesRefused(faults)
        queue_names = {queue: name for name, queue in self._aliases.items()}
        ruleset = Ruleset(
            sha=hashlib.sha256(self._text.encode()).hexdigest()[:12],
            zone=self._defaults.timezone,
            rules=rules,
            mutes=mutes,
            matcher=Matcher(rules, queue_names),
            queue_names=queue_names,
        )
        return Rulebook(
            **{name: getattr(ruleset, name) for name in Ruleset.__slots__},
            rate=self._defaults.rate,
            keep=self._defaults.keep,
            keep_dead=self._defaults.keep_dead,
            watches=watches,
            notifiers=notifiers,
            trials=trials,
            wordings=wordings,
            frozen=freeze(self._raw, ruleset),
            text=self._text,
            warnings=faults,
        )

    def _read_defaults(self) -> None:
        table = self._tables.one("defaults")
        self._defaults = self._tables.shape(Defaults, table, "defaults", ("defaults",)) or self._defaults
        keep, keep_dead = self._defaults.keep, self._defaults.keep_dead
        if keep_dead < keep:
            text = f"{_days(keep_dead)} is less than keep, {_days(keep)}: dead letters are kept as long at least"
            self._faults.note(("defaults", "keep_dead"), text)
        self._check_lookback(self._defaults.lookback, ("defaults", "lookback"))

    def _check_lookback(self, lookback: timedelta, path: Sequence[str | int]) -> None:
        keep = self._defaults.keep
        if lookback > keep:
            text = f"{_days(lookback)} is more than keep, {_days(keep)}: jobs that were pruned would look new"
            self._faults.note(path, text)

    def _read_aliases(self) -> None:
        for kind, table in self._tables.named("alias"):
            if kind != "queue":
                self._faults.note(("alias", kind), 'only [alias.queue] is known, with lines such as vod = "p2242..."')
                continue
            if len(table) > MOST_LISTED:
                text = f"there are {len(table):,} names, and {MOST_LISTED:,} are the most"
                self._faults.note(("alias", kind), text)
                continue
            for name, queue in table.items():
                try:
                    self._aliases[printable(name)] = _queue_id(queue)
                except ValueError as error:
                    self._faults.note(("alias", kind, name), str(error))

    def _read_notifiers(self) -> dict[str, Notifier]:
        notifiers: dict[str, Notifier] = {}
        for name, table in self._tables.named("notifier"):
            path = ("notifier", name)
            model = self._notifier_reader.shape_of(table, path)
            shape = self._tables.shape(model, table, table["type"], path) if model else None
            if shape and (notifier := self._notifier_reader.read(name, shape)):
                notifiers[name] = notifier
        self._check_fallbacks()
        return notifiers

    def _check_fallbacks(self) -> None:
        fallbacks = {name: table.get("fallback") for name, table in self._tables.named("notifier")}
        for name, fallback in fallbacks.items():
            path = ("notifier", name, "fallback")
            if isinstance(fallback, str) and fallback and fallback not in fallbacks:
                self._faults.note(path, self._tables.undefined("notifier", fallback))
            chain, at = {name: None}, fallback
            while isinstance(at, str) and at in fallbacks and at not in chain:
                chain[at] = None
                at = fallbacks[at]
            if at == name:
                self._faults.note(path, f"goes round in a circle: {' -> '.join([*chain, name])}")

    def _read_watches(self) -> tuple[Watch, ...]:
        watches: list[Watch] = []
        streams = 0
        self._tables.check_unique("watch")
        for at, table in self._tables.each("watch"):
            shape = self._tables.shape(WatchTable, table, "watch", ("watch", at))
            if shape is None:
                continue
            self._linter.of_tags(shape.tags, at)
            self._linter.of_queue_type(shape.queue_type, at)
            self._linter.of_queues(shape.queues or (), self._aliases, ("watch", at, "queues"))
            if shape.lookback:
                self._check_lookback(shape.lookback, ("watch", at, "lookback"))
            streams += len(shape.tags) * len(shape.queues or "1")
            if streams > _MOST_STREAMS:
                text = f"with this one there are {streams:,} pairs of tag and queue; {_MOST_STREAMS:,} are the most"
                self._faults.note(("watch", at), text)
                break
            watches.append(self._watch(shape))
        return tuple(watches)

    def _watch(self, shape: WatchTable) -> Watch:
        place = Place(bucket=shape.bucket, region=shape.region, endpoint=shape.endpoint)
        queues = dict.fromkeys(self._aliases.get(queue, queue) for queue in shape.queues or ())
        streams = tuple(
            Stream(
                place=place,
                tag=tag,
                queue=queue,
                queue_type=shape.queue_type,
                workflow=shape.workflow,
                input=shape.input,
            )
            for tag in dict.fromkeys(shape.tags)
            for queue in (queues or [None])
        )
        return Watch(
            name=shape.name,
            place=place,
            streams=streams,
            every=shape.every or self._defaults.every,
            lookback=shape.lookback or self._defaults.lookback,
            announce_first=self._defaults.on_first_run == "announce",
        )


def _days(kept: timedelta) -> str:
    return f"{kept / timedelta(days=1):g} days"


def _queue_id(queue: object) -> str:
    if not isinstance(queue, str) or not queue:
        raise ValueError(f"{shown(queue)} is not the id of a queue")
    return printable(queue)
