"""rules.toml, read whole or refused whole: every fault at once, each with its line."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ValidationError

from bridge.decide.conditions import DURATIONS, TEXTS, Condition, TextCondition, condition
from bridge.decide.lines import Lines
from bridge.decide.matching import Matcher, Rule
from bridge.decide.messages import DEFAULT_FIELDS, Wording
from bridge.decide.notifiers import NotifierReader
from bridge.decide.shapes import KEYS, LATER, Defaults, RuleTable, TemplateTable, WatchTable
from bridge.decide.templates import TemplateFault, check, compiled, variables
from bridge.decide.words import listing, suggest
from bridge.model import (
    FAILED,
    KNOWN_QUEUE_TYPES,
    KNOWN_TAGS,
    RUNNING,
    Job,
    Notifier,
    Place,
    Rate,
    Stream,
    Transition,
    Watch,
)

_T = TypeVar("_T", bound=BaseModel)
_MOST_FAULTS = 100


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with rules.toml. A `warning` does not refuse the file."""

    line: int
    text: str
    warning: bool = False

    def __str__(self) -> str:
        return f"rules.toml:{self.line}: {'warning: ' if self.warning else ''}{self.text}"


class RulesRefused(Exception):
    """The file is wrong; `faults` has every reason, warnings too."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rulebook:
    """What rules.toml says, checked."""

    sha: str
    timezone: ZoneInfo
    rate: Rate  # of calls to CI, per bucket
    watches: tuple[Watch, ...]
    notifiers: Mapping[str, Notifier]
    rules: tuple[Rule, ...]
    wordings: Mapping[str, Wording]
    queue_names: Mapping[str, str]  # id -> alias
    matcher: Matcher = field(repr=False)
    warnings: tuple[Fault, ...] = ()


def read(text: str, environ: Mapping[str, str]) -> Rulebook:
    """Return the rulebook. Raises RulesRefused with every fault at once."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RulesRefused([Fault(_toml_line(error, text), f"this is not TOML: {error}")]) from error
    return _Reader(text, tables, environ).read()


def _toml_line(error: tomllib.TOMLDecodeError, text: str) -> int:
    # "... (at line 3, column 7)"; the attribute lineno is there from Python 3.14 on.
    _, _, place = str(error).rpartition("(at line ")
    number = place.partition(",")[0]
    return int(number) if number.isdigit() else max(1, len(text.splitlines()))


class _Reader:
    def __init__(self, text: str, tables: dict[str, Any], environ: Mapping[str, str]) -> None:
        self._text, self._tables = text, tables
        self._lines = Lines(text)
        self._faults: list[Fault] = []
        self._defaults = Defaults()
        self._aliases: dict[str, str] = {}
        self._notifier_reader = NotifierReader(environ, self._fault)

    def read(self) -> Rulebook:
        self._unknown_keys(self._tables, "", ())
        self._read_defaults()
        self._read_aliases()
        wordings = self._read_templates()
        notifiers = self._read_notifiers()
        watches = self._read_watches()
        rules = self._read_rules()
        self._unused(notifiers, rules)
        faults = sorted(self._faults, key=lambda f: f.line)
        if any(not f.warning for f in faults):
            raise RulesRefused(faults)
        queue_names = {queue: name for name, queue in self._aliases.items()}
        return Rulebook(
            sha=hashlib.sha256(self._text.encode()).hexdigest()[:12],
            timezone=self._defaults.timezone,
            rate=self._defaults.rate,
            watches=watches,
            notifiers=notifiers,
            rules=rules,
            wordings=wordings,
            queue_names=queue_names,
            matcher=Matcher(rules, queue_names),
            warnings=tuple(faults),
        )

    # --- faults -----------------------------------------------------------------------------------------

    def _fault(self, path: Sequence[str | int], text: str, *, warning: bool = False) -> None:
        if len(self._faults) < _MOST_FAULTS:
            self._faults.append(Fault(self._lines.of(path), f"{self._owner(path)}{text}", warning))

    def _owner(self, path: Sequence[str | int]) -> str:
        """Say whose fault it is: 'rule "x": ', with the key when the path goes that deep."""
        match path:
            case ["rule" | "watch" as kind, int(at), *keys]:
                named = self._tables[kind][at].get("name", f"number {at + 1}")
                owner = f'{kind} "{named}"'
            case ["notifier" | "template" as kind, str(name), *keys]:
                owner = f'{kind} "{name}"'
            case [str(kind), *keys]:
                owner = f"[{kind}]"
            case _:
                return ""
        key = ".".join(str(k) for k in keys if isinstance(k, str))
        return f'{owner}, key "{key}": ' if key else f"{owner}: "

    def _unknown_keys(self, table: Mapping[str, Any], kind: str, path: tuple[str | int, ...]) -> None:
        for key in table:
            if key in LATER.get(kind if kind not in ("slack", "webhook") else "notifier", ()):
                self._fault((*path, key), f'"{key}" is not run by this version yet; take it out')
            elif key not in KEYS[kind]:
                self._fault((*path, key), f'unknown key "{key}"{suggest(key, KEYS[kind])}')

    def _shape(self, model: type[_T], table: Any, kind: str, path: tuple[str | int, ...]) -> _T | None:
        """Return the table as its model, or None after every fault in it has been noted."""
        if not isinstance(table, dict):
            self._fault(path, f"{table!r} is not a table")
            return None
        self._unknown_keys(table, kind, path)
        known = {key: value for key, value in table.items() if key in KEYS[kind]}
        try:
            return model.model_validate(known)
        except ValidationError as error:
            for problem in error.errors():
                at = [k for k in problem["loc"] if k in table or not isinstance(k, str) or k in KEYS[kind]]
                self._fault((*path, *at), _say(problem))
            return None

    def _each(self, kind: str) -> Iterable[tuple[int, Any]]:
        tables = self._tables.get(kind, [])
        if not isinstance(tables, list):
            self._fault((kind,), f"write [[{kind}]] with double brackets: there can be many")
            return ()
        return enumerate(tables)

    def _named(self, kind: str) -> Iterable[tuple[str, Any]]:
        tables = self._tables.get(kind, {})
        if not isinstance(tables, dict):
            self._fault((kind,), f"write [{kind}.NAME] with single brackets and a name")
            return ()
        return tables.items()

    # --- tables -----------------------------------------------------------------------------------------

    def _read_defaults(self) -> None:
        defaults = self._shape(Defaults, self._tables.get("defaults", {}), "defaults", ("defaults",))
        self._defaults = defaults or self._defaults

    def _read_aliases(self) -> None:
        for kind, table in self._named("alias"):
            if kind != "queue" or not isinstance(table, dict):
                self._fault(("alias", kind), 'only [alias.queue] is known, with lines such as vod = "p2242..."')
                continue
            for name, queue in table.items():
                if not isinstance(queue, str) or not queue:
                    self._fault(("alias", kind, name), f"{queue!r} is not a queue id")
                else:
                    self._aliases[name] = queue

    def _read_notifiers(self) -> dict[str, Notifier]:
        notifiers: dict[str, Notifier] = {}
        for name, table in self._named("notifier"):
            path = ("notifier", name)
            model = self._notifier_reader.shape_of(table, path)
            shape = self._shape(model, table, table["type"], path) if model else None
            if shape and (notifier := self._notifier_reader.read(name, shape)):
                notifiers[name] = notifier
        self._check_fallbacks(notifiers)
        return notifiers

    def _check_fallbacks(self, notifiers: Mapping[str, Notifier]) -> None:
        for name, notifier in notifiers.items():
            path = ("notifier", name, "fallback")
            if notifier.fallback and notifier.fallback not in self._tables["notifier"]:
                self._fault(path, self._undefined("notifier", notifier.fallback))
            chain, at = [name], notifier.fallback
            while at and at in notifiers and at not in chain:
                chain.append(at)
                at = notifiers[at].fallback
            if at == name:
                self._fault(path, f"goes round in a circle: {' -> '.join([*chain, name])}")

    def _undefined(self, kind: str, name: str) -> str:
        known = self._tables.get(kind, {})
        return f'"{name}" is not defined (have: {listing(known)}){suggest(name, known)}'

    def _read_watches(self) -> tuple[Watch, ...]:
        watches: list[Watch] = []
        for at, table in self._each("watch"):
            shape = self._shape(WatchTable, table, "watch", ("watch", at))
            if shape is None:
                continue
            if any(watch.name == shape.name for watch in watches):
                self._fault(("watch", at, "name"), f'there is a watch "{shape.name}" already')
            self._suspect_words(shape, at)
            watches.append(self._watch(shape))
        if not self._tables.get("watch"):
            self._fault((), "there is no [[watch]], so nothing is polled", warning=True)
        return tuple(watches)

    def _suspect_words(self, shape: WatchTable, at: int) -> None:
        for tag in shape.tags:
            if tag not in KNOWN_TAGS and (near := suggest(tag, KNOWN_TAGS)):
                self._fault(("watch", at, "tags"), f'"{tag}" is not a documented tag{near}', warning=True)
        kind = shape.queue_type
        if kind and kind not in KNOWN_QUEUE_TYPES:
            near = suggest(kind, KNOWN_QUEUE_TYPES)
            self._fault(("watch", at, "queue_type"), f'"{kind}" is not a documented queue type{near}', warning=True)

    def _watch(self, shape: WatchTable) -> Watch:
        place = Place(bucket=shape.bucket, region=shape.region, endpoint=shape.endpoint)
        names = dict.fromkeys(shape.queues or ())
        queues: list[str | None] = [self._aliases.get(queue, queue) for queue in names]
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

    def _read_templates(self) -> dict[str, Wording]:
        wordings = {}
        for name, table in self._named("template"):
            path = ("template", name)
            shape = self._shape(TemplateTable, table, "template", path)
            if shape is None:
                continue
            parts: dict[str, Any] = {}
            for key in ("title", "text"):
                if source := getattr(shape, key):
                    parts[key] = self._compiled(source, (*path, key))
            wordings[name] = Wording(**parts, fields=self._field_names(shape.fields, (*path, "fields")))
        return wordings

    def _compiled(self, source: str, path: tuple[str, ...]) -> Any:
        try:
            check(source, _SAMPLE)
            return compiled(source)
        except TemplateFault as error:
            self._fault(path, f"the template does not render: {error}")
            return None

    def _field_names(self, names: Sequence[str] | None, path: tuple[str, ...]) -> tuple[str, ...]:
        known = tuple(_SAMPLE["job"])
        for name in names or ():
            if name not in known:
                self._fault(path, f'a job has no field "{name}"{suggest(name, known)}')
        return DEFAULT_FIELDS if names is None else tuple(names)

    def _read_rules(self) -> tuple[Rule, ...]:
        rules: list[Rule] = []
        seen: dict[str, int] = {}
        for at, table in self._each("rule"):
            shape = self._shape(RuleTable, table, "rule", ("rule", at))
            conditions = self._rule_parts(table, at) if isinstance(table, dict) else ()
            if shape is None:
                continue
            line = self._lines.of(("rule", at))
            if shape.name in seen:
                first = seen[shape.name]
                self._fault(("rule", at, "name"), f'there is a rule "{shape.name}" already, on line {first}')
            seen.setdefault(shape.name, line)
            rules.append(_rule(shape, line, conditions))
        return tuple(rules)

    def _rule_parts(self, table: Mapping[str, Any], at: int) -> tuple[Condition, ...]:
        """Check what a rule refers to even when its shape is wrong elsewhere; return its conditions."""
        for key, kind in (("notify", "notifier"), ("template", "template")):
            names = table.get(key, [])
            for name in [names] if isinstance(names, str) else names if isinstance(names, list) else ():
                if isinstance(name, str) and name not in self._tables.get(kind, {}):
                    self._fault(("rule", at, key), self._undefined(kind, name))
        match = table.get("match")
        found = (
            self._condition(name, value, ("rule", at, "match", *name.split(".", 1)))
            for name, value in _flat(match if isinstance(match, dict) else {})
        )
        return tuple(sorted(filter(None, found), key=_cheap_first))

    def _condition(self, name: str, value: object, path: tuple[str | int, ...]) -> Condition | None:
        try:
            return condition(name, value, self._aliases)
        except KeyError:
            known = (*TEXTS, *DURATIONS)
            self._fault(path, f'a job has no "{name}" to match{suggest(name, known)}; there are {listing(known)}')
        except ValueError as error:
            self._fault(path, str(error))
        return None

    def _unused(self, notifiers: Mapping[str, Notifier], rules: Iterable[Rule]) -> None:
        used = {name for rule in rules for name in rule.notify} | {n.fallback for n in notifiers.values()}
        for name in notifiers:
            if name not in used:
                self._fault(("notifier", name), "no rule notifies it", warning=True)


def _rule(shape: RuleTable, line: int, conditions: tuple[Condition, ...]) -> Rule:
    return Rule(
        name=shape.name,
        line=line,
        was=shape.from_,
        to=shape.to,
        conditions=conditions,
        notify=tuple(dict.fromkeys(shape.notify)),
        template=shape.template,
        stop=shape.stop,
    )


def _flat(match: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for name, value in match.items():
        if name == "user_data" and isinstance(value, dict):
            yield from ((f"user_data.{key}", inner) for key, inner in value.items())
        else:
            yield name, value


def _cheap_first(found: Condition) -> int:
    return 0 if isinstance(found, TextCondition) and found.exact is not None else 1


def _say(problem: Mapping[str, Any]) -> str:
    """Say a pydantic problem in our words."""
    value = problem["input"]
    match problem["type"]:
        case "missing":
            return f'"{problem["loc"][-1]}" is missing'
        case "value_error":
            return str(problem["ctx"]["error"])
        case "literal_error":
            return f"{value!r} is not one of {problem['ctx']['expected']}"
        case "string_pattern_mismatch":
            return f"{value!r} {_PATTERN_HINTS.get(str(problem['loc'][0]), 'is not well formed')}"
        case "model_type" | "model_attributes_type" if problem["loc"][-1:] != ():
            return f'a secret comes from the environment: write {problem["loc"][0]} = {{ env = "NAME" }}'
    return f"{value!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


_PATTERN_HINTS = {
    "bucket": "is not a bucket name with its APPID, such as media-1250000000",
    "region": "is not a region, such as ap-chongqing",
    "endpoint": "is not the address of a host, such as http://127.0.0.1:8080",
}


def _sample() -> dict[str, Any]:
    """Return the names a template can use, from a job that has everything."""
    at = datetime(2026, 11, 21, 9, tzinfo=UTC)
    job = Job(
        id="j1", bucket="media-1250000000", region="ap-chongqing", state=FAILED, tag="Transcode", queue="p1",
        code="InvalidArgument", message="sample", progress=30, created_at=at, started_at=at,
        ended_at=at + timedelta(minutes=3), input="uploads/a.mp4", output="out/a.mp4", outputs=("out/a.mp4",),
        outputs_total=1, template="t1", template_name="hls", workflow="w1", workflow_name="nightly",
        workflow_run="i1", level="0", user_data="",
    )  # fmt: skip
    transition = Transition(job=job, was=RUNNING, to=FAILED, sequence=3, seen_at=at, watch="vod")
    names = variables(transition, "sample", {"p1": "vod"})
    names["job"]["user_data"] = _AnyKey()
    return names


class _AnyKey(dict[str, str]):
    """User data whose keys nobody can know beforehand."""

    def __missing__(self, key: str) -> str:
        return key


_SAMPLE = _sample()
