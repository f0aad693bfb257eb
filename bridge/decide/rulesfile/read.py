"""rules.toml, read whole or refused whole, each fault with its line."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from bridge.decide.rules.matching import Matcher
from bridge.decide.rules.rulebook import Fault, Rulebook, Ruleset
from bridge.decide.rulesfile.credentials import CredentialsReader
from bridge.decide.rulesfile.errors import Path, RulesRefused, TooLarge, check_depth, check_size
from bridge.decide.rulesfile.lint import Linter
from bridge.decide.rulesfile.notifiers import read_notifiers
from bridge.decide.rulesfile.picks import read_picks
from bridge.decide.rulesfile.rules import RuleReader, TemplateReader
from bridge.decide.rulesfile.rulesets import ruleset_to_text
from bridge.decide.rulesfile.tables import Defaults, Tables, WatchTable
from bridge.decide.text.times import human
from bridge.decide.text.values import MOST_LISTED, printable, shown
from bridge.language import language_of
from bridge.model import Place, Stream, Watch, WatchRate

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
        self._environ = environ
        self._tables = Tables(text, tables, file)
        self._linter = Linter(self._tables)
        self._defaults = Defaults()
        self._aliases: dict[str, str] = {}
        self._credentials = CredentialsReader(self._tables, environ)

    def read(self) -> Rulebook:
        tables = self._tables
        self._read_defaults()
        self._read_aliases()
        template_reader = TemplateReader(tables)
        templates = template_reader.templates()
        notifiers = read_notifiers(tables, self._environ, template_reader)
        picks = read_picks(tables, template_reader, self._defaults.timezone)
        watches = self._read_watches()
        reader = RuleReader(tables, self._aliases)
        placed_rules, placed_mutes, tests = reader.rules(), reader.mutes(), reader.tests()
        self._linter.of_rules(placed_rules, placed_mutes, watches, self._aliases, self._defaults.keep)
        self._linter.of_use(notifiers, picks)
        faults = tables.faults
        if any(not fault.warning for fault in faults):
            raise RulesRefused(faults)
        queue_names = {queue: name for name, queue in self._aliases.items()}
        rules = tuple(rule for _, rule in placed_rules)
        ruleset = Ruleset(
            sha=hashlib.sha256(self._text.encode()).hexdigest()[:12],
            zone=self._defaults.timezone,
            rules=rules,
            mutes=tuple(mute for _, mute in placed_mutes),
            matcher=Matcher(rules, queue_names, picks),
            queue_names=queue_names,
        )
        return Rulebook(
            **{name: getattr(ruleset, name) for name in Ruleset.__slots__},
            language=language_of(self._defaults.language),
            rate=self._defaults.rate,
            keep=self._defaults.keep,
            keep_dead=self._defaults.keep_dead,
            watches=watches,
            notifiers=notifiers,
            tests=tests,
            templates=templates,
            ruleset_text=ruleset_to_text(self._raw, ruleset),
            text=self._text,
            warnings=faults,
            credentials=self._credentials.sources,
        )

    def _read_defaults(self) -> None:
        table = self._tables.one("defaults")
        self._defaults = self._tables.shape(Defaults, table, ("defaults",)) or self._defaults
        keep, keep_dead = self._defaults.keep, self._defaults.keep_dead
        if keep_dead < keep:
            text = f"{_days(keep_dead)} is less than keep, {_days(keep)}: dead letters are kept as long at least"
            self._tables.note(("defaults", "keep_dead"), text)
        self._check_lookback(self._defaults.lookback, ("defaults", "lookback"))
        self._check_idle(self._defaults.idle, self._defaults.every, ("defaults", "idle"))

    def _check_lookback(self, lookback: timedelta, path: Path) -> None:
        keep = self._defaults.keep
        if lookback > keep:
            text = f"{_days(lookback)} is more than keep, {_days(keep)}: jobs that were pruned would look new"
            self._tables.note(path, text)

    def _check_idle(self, idle: timedelta | None, every: timedelta, path: Path) -> None:
        if idle is not None and idle < every:
            text = f"{human(idle.total_seconds())} is less than every ({human(every.total_seconds())})"
            self._tables.note(path, f"{text}: quiet tags are to be polled less often, not more")

    def _read_aliases(self) -> None:
        for kind, table in self._tables.named("alias"):
            if kind != "queue":
                self._tables.note(("alias", kind), 'only [alias.queue] is known, with lines such as vod = "p2242..."')
            elif len(table) > MOST_LISTED:
                text = f"there are {len(table):,} names; the limit is {MOST_LISTED:,}"
                self._tables.note(("alias", kind), text)
            else:
                for name, queue in table.items():
                    self._read_alias(name, queue)

    def _read_alias(self, name: str, queue: object) -> None:
        try:
            if not isinstance(queue, str) or not queue:
                raise ValueError(f"{shown(queue)} is not the id of a queue")  # noqa: TRY301  (noted like the others)
            self._aliases[printable(name)] = printable(queue)
        except ValueError as error:
            self._tables.note(("alias", "queue", name), str(error))

    def _read_watches(self) -> tuple[Watch, ...]:
        watches: list[Watch] = []
        streams = 0
        self._tables.check_unique("watch")
        for at, table in self._tables.each("watch"):
            shape = self._tables.shape(WatchTable, table, ("watch", at))
            if shape is None:
                continue
            self._linter.of_watch(shape, at, self._aliases)
            if shape.credentials:
                self._credentials.read(shape.credentials, ("watch", at, "credentials"))
            if shape.lookback:
                self._check_lookback(shape.lookback, ("watch", at, "lookback"))
            self._check_idle(shape.idle, shape.every or self._defaults.every, ("watch", at, "idle"))
            streams += len(shape.tags) * len(shape.queues or "1")
            if streams > _MOST_STREAMS:
                text = f"with this one there are {streams:,} pairs of tag and queue; the limit is {_MOST_STREAMS:,}"
                self._tables.note(("watch", at), text)
                break
            watches.append(self._watch(shape))
        return tuple(watches)

    def _watch(self, shape: WatchTable) -> Watch:
        place = Place(
            bucket=shape.bucket,
            region=shape.region,
            endpoint=shape.endpoint,
            credentials=shape.credentials,
            watch_rate=WatchRate(watch=shape.name, rate=shape.rate) if shape.rate else None,
        )
        queues = dict.fromkeys(self._aliases.get(queue, queue) for queue in shape.queues or ())
        narrowed = {"queue_type": shape.queue_type, "workflow": shape.workflow, "input": shape.input}
        streams = tuple(
            Stream(place=place, tag=tag, queue=queue, **narrowed)
            for tag in dict.fromkeys(shape.tags)
            for queue in (queues or [None])
        )
        every, idle = shape.every or self._defaults.every, shape.idle or self._defaults.idle
        return Watch(
            name=shape.name,
            place=place,
            streams=streams,
            every=every,
            idle=idle if idle and idle > every else None,
            lookback=shape.lookback or self._defaults.lookback,
            announce_first=self._defaults.on_first_run == "announce",
        )


def _days(kept: timedelta) -> str:
    return f"{kept / timedelta(days=1):g} days"
