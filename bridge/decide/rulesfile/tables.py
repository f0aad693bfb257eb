"""The tables of rules.toml: which keys there are, what value each takes, and what is wrong with a file, by line."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import time, timedelta
from functools import cached_property
from typing import Annotated, Any, Literal, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from bridge.decide.rules.incidents import Comparison, read_count, read_share
from bridge.decide.rules.joining import MOST_EXPECTED
from bridge.decide.rules.picks import member
from bridge.decide.rules.rulebook import Fault
from bridge.decide.rulesfile.errors import Lines, Path, RulesRefused
from bridge.decide.text.times import Window, duration, human, rate, time_of_day, window
from bridge.decide.text.values import (
    LONGEST_NAME,
    States,
    instead,
    printable,
    read_ends,
    read_states,
    read_words,
    shown,
    states,
)
from bridge.display import clamp, visible
from bridge.model import DONE, Rate
from bridge.url import encoded

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)

# --- values ---------------------------------------------------------------------------------------------------------

_LONGEST_KEY = 850  # an object's
_ENV_NAME = re.compile(r"(?!whsec_|xox)[A-Za-z_][A-Za-z0-9_]*")


def _read(reader: Callable[[str], T], example: str) -> BeforeValidator:
    """Return the validator of a text."""

    def validate(value: object) -> T:
        if not isinstance(value, str):
            text, hint = (value, "; put it in quotes") if isinstance(value, time) else (shown(value), "")
            raise ValueError(f"{text} is not a string such as {example}{hint}")  # noqa: TRY004  (pydantic's)
        return reader(value)

    return BeforeValidator(validate)


def _at_least_a_day(kept: timedelta) -> timedelta:
    if kept < timedelta(days=1):
        raise ValueError(f'{human(kept.total_seconds())} is too short; the minimum is "1d"')
    return kept


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f'{shown(name)} is not a time zone; write for example "Asia/Shanghai" or "UTC"') from error


def _level_states(value: object) -> States:
    states = read_ends(value)
    if final := sorted(DONE.intersection(states.words)):
        text = f'a job that is {final[0]} remains so: write to = "{final[0]}" to be notified when it becomes that'
        raise ValueError(text)
    if "*" in states.words:
        raise ValueError('"*" holds final states too, which a job never leaves; write in = "active"')
    return states


def _expected(value: object) -> list[str]:
    return [] if value == [] else read_words(value, longest=2 * LONGEST_NAME + 10)


# Ids of Slack, of other chats with the type before them, and everybody. A chat calls those that are its own.
_MENTION = re.compile(r"[UWS][A-Z0-9]{2,30}|(?:wecom|dingtalk|feishu):[\w.@+-]{1,64}|here|channel", re.ASCII)
_MOST_MENTIONED = 20


def _mentions(value: object) -> list[str]:
    words = read_words(value)
    if wrong := next((word for word in words if not _MENTION.fullmatch(word)), None):
        raise ValueError(
            f'{shown(wrong)} mentions nobody: write the id of a person ("U024BE7LH": in Slack open the profile, "...",'
            ' "Copy member ID"; "wecom:zhangsan" elsewhere) or of a user group ("S0123ABC"), "here" or "channel"'
        )
    if len(words) > _MOST_MENTIONED:
        raise ValueError(f"mentions {len(words):,}; the limit is {_MOST_MENTIONED}: a user group calls them all")
    return words


def _expect(value: object) -> str:
    """Return a template of how many jobs a key has; a number is one too."""
    example = '3 or "{{ job.user_data.parts }}"'
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{shown(value)} is no number of jobs; write for example {example}")  # noqa: TRY004  (pydantic's)
    if isinstance(value, str) and "{" in value:
        return value
    try:
        number = int(value)
    except ValueError as error:
        raise ValueError(f"{shown(value)} is no number of jobs; write for example {example}") from error
    if not 1 <= number <= MOST_EXPECTED:
        raise ValueError(f"{shown(value)} is out of range; there can be 1 to {MOST_EXPECTED:,} jobs")
    return str(number)


def _endpoint(value: str) -> str:
    found = encoded(value)
    if not re.fullmatch(r"https?://[^/]+/", found):
        raise ValueError("expected an address without path and query, such as https://host:port")
    return found


def _of_a_watch(rate: Rate) -> Rate:
    if rate.per > timedelta(minutes=1):
        text = f"has a time of {human(rate.per.total_seconds())}; the limit is a minute"
        raise ValueError(f'{text}, as a poll that waits keeps others of the bucket waiting: write for example "20/1m"')
    return rate


def _env_names(value: object) -> list[str]:
    names = read_words(value)
    # A secret that stands where its name belongs must not be repeated as "not set".
    if not all(_ENV_NAME.fullmatch(name) for name in names):
        raise ValueError("is not the name of an environment variable")
    return names


Duration = Annotated[timedelta, _read(duration, '"30s" or "45m"')]
Keep = Annotated[Duration, AfterValidator(_at_least_a_day)]
RateText = Annotated[Rate, _read(rate, '"10/s" or "100/5m"')]
TimeOfDay = Annotated[time, _read(time_of_day, '"09:00"')]
Count = Annotated[Comparison, _read(read_count, '">= 5"')]
Share = Annotated[tuple[Comparison, int], _read(read_share, '"> 20% of 50"')]
Expect = Annotated[str, BeforeValidator(_expect)]
Between = Annotated[Window, _read(lambda text: window(text, None), '"22:00-08:00"')]
Zone = Annotated[ZoneInfo, _read(_zone, '"Asia/Shanghai"')]
Days = Annotated[frozenset[int], BeforeValidator(lambda value: window("00:00-24:00", read_words(value)).days)]
Words = Annotated[list[str], BeforeValidator(lambda value: read_words(value))]
StateSet = Annotated[States, BeforeValidator(read_states)]
LevelStates = Annotated[States, BeforeValidator(_level_states)]
Expected = Annotated[list[str], BeforeValidator(_expected)]
EndSet = Annotated[States, BeforeValidator(read_ends)]
EnvNames = Annotated[list[str], BeforeValidator(_env_names)]
Mentions = Annotated[list[str], BeforeValidator(_mentions)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(printable)]
Bucket = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,58}-\d{5,12}$")]
Region = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{2,30}$")]


# --- keys -----------------------------------------------------------------------------------------------------------


class Env(BaseModel):
    """A value that is read from the environment: `{ env = "NAME" }`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    env: EnvNames


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


class Defaults(_Table):
    timezone: Zone = ZoneInfo("UTC")
    language: Literal["en", "zh-CN"] = "en"
    every: Duration = timedelta(seconds=30)
    idle: Duration | None = None
    lookback: Duration = timedelta(hours=24)
    on_first_run: Literal["silent", "announce"] = "silent"
    keep: Keep = timedelta(days=30)
    keep_dead: Keep = timedelta(days=90)
    rate: RateText = Rate(count=5, per=timedelta(seconds=1))


class WatchTable(_Table):
    name: Name
    bucket: Bucket
    region: Region
    tags: Words
    queues: Words | None = None
    every: Duration | None = None
    idle: Duration | None = None
    lookback: Duration | None = None
    queue_type: Name | None = None
    workflow: Name | None = None
    input: (
        Annotated[str, StringConstraints(min_length=1, max_length=_LONGEST_KEY, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
        | None
    ) = None
    endpoint: Annotated[str, AfterValidator(_endpoint)] | None = None
    rate: Annotated[RateText, AfterValidator(_of_a_watch)] | None = None
    credentials: Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,39}$")] | None = None


class NotifierTable(_Table):
    retry: Duration = timedelta(hours=24)
    fallback: Name | None = None
    max_in_flight: Annotated[int, Field(strict=True, ge=1, le=32)] | None = None
    rate: RateText | None = None
    type: str  # which of the types it is


class PickTable(_Table):
    """A [notifier.NAME] that stands for several notifiers."""

    pick: Annotated[str, StringConstraints(min_length=1, max_length=1_000)]
    to: dict[str, Any]
    otherwise: Name | None = None


OF_PICKS = frozenset({"pick", "to"})


def is_pick(table: Mapping[str, Any]) -> bool:
    """Tell whether a table is a pick: `to` alone may also be that of a notifier, whose type says so."""
    return "pick" in table or ("to" in table and "type" not in table)


class GroupTable(_Table):
    by: Words = []
    wait: Duration | None = None
    at: TimeOfDay | None = None
    max: Annotated[int, Field(strict=True, ge=1, le=10_000)] | None = None


class EscalateTable(_Table):
    after: Duration
    notify: Words


class RuleTable(_Table):
    name: Name
    from_: StateSet = Field(default=states(["*"]), alias="from")
    to: EndSet = states(["*"])
    in_: LevelStates | None = Field(default=None, alias="in")
    for_: Duration | None = Field(default=None, alias="for")
    repeat: Duration | None = None
    blind: Duration | None = None
    by: Words = []
    count: Count | None = None
    share: Share | None = None
    in_a_row: Annotated[bool, Field(strict=True)] = False
    within: Duration | None = None
    absent: EndSet | None = None
    between: Between | None = None
    days: Days | None = None
    all: Literal["done", "Success"] | None = None
    expect: Expect | None = None
    settle: Duration | None = None
    unless: Name | None = None
    escalate: EscalateTable | None = None
    recover: Annotated[bool, Field(strict=True)] = False
    match: dict[str, Any] = {}
    notify: Words
    template: Name | None = None
    throttle: RateText | None = None
    mention: Mentions = []
    group: GroupTable | None = None
    urgent: Annotated[bool, Field(strict=True)] = False
    stop: Annotated[bool, Field(strict=True)] = False


class MuteTable(_Table):
    name: Name
    from_: StateSet = Field(default=states(["*"]), alias="from")
    to: EndSet = states(["*"])
    match: dict[str, Any] = {}
    between: Between
    days: Days | None = None
    mode: Literal["hold", "drop"] = "hold"


class TestTable(_Table):
    """A [[test]]."""

    job: dict[str, Any] | None = None
    jobs: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=1_000)] | None = None
    after: Duration | None = None
    expect: Expected


class TemplateTable(_Table):
    title: str | None = None
    text: str | None = None
    fields: Annotated[list[str], Field(max_length=10)] | None = None


def keys_of(model: type[BaseModel]) -> tuple[str, ...]:
    return tuple(field.alias or name for name, field in model.model_fields.items())


KEYS: Mapping[str, tuple[str, ...]] = {
    "": ("defaults", "alias", "watch", "notifier", "rule", "mute", "template", "test"),
    "defaults": keys_of(Defaults),
    "watch": keys_of(WatchTable),
    "rule": keys_of(RuleTable),
    "pick": keys_of(PickTable),
    "group": keys_of(GroupTable),
    "escalate": keys_of(EscalateTable),
    "mute": keys_of(MuteTable),
    "test": keys_of(TestTable),
    "template": keys_of(TemplateTable),
}


# --- a file's tables ------------------------------------------------------------------------------------------------

_MOST_TABLES = {"rule": 10_000, "watch": 1_000, "notifier": 1_000, "template": 200, "mute": 1_000, "test": 1_000}
_MOST_PICKED = 1_000  # notifiers of all picks
_MOST_SHOWN = 100  # faults
_MOST_NOTED = 10_000
_LONGEST_FAULT = 500  # characters of a fault


class Tables:
    """The parsed file, and the faults found in it. A path, as in ("rule", 3, "to"), says where."""

    def __init__(self, text: str, tables: Mapping[str, Any], file: str = "rules.toml") -> None:
        self._text = text
        self._tables = tables
        self._file = file
        self._found: dict[bool, dict[Fault, None]] = {False: {}, True: {}}  # faults, and warnings
        for kind, most in _MOST_TABLES.items():
            found = tables.get(kind)
            if isinstance(found, dict | list) and len(found) > most:
                self.note((kind,), f"there are {len(found):,} of these; the limit is {most:,}")
                raise RulesRefused(self.faults)
        self._check_picked()
        self._note_unknown(tables, KEYS[""], ())

    def _check_picked(self) -> None:
        found = 0
        for name, to in self._picked():
            found += len(to)
            if found > _MOST_PICKED:
                text = f"with these there are {found:,} notifiers that a job may pick; the limit is {_MOST_PICKED:,}"
                self.note(("notifier", name, "to"), text)
                raise RulesRefused(self.faults)

    # --- faults ---------------------------------------------------------------------------------------------

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What was found, by line; of very much the first, faults before warnings, and how many more."""
        ordered = [fault for found in self._found.values() for fault in sorted(found, key=lambda fault: fault.line)]
        first, left = ordered[:_MOST_SHOWN], ordered[_MOST_SHOWN:]
        faults = sorted(first, key=lambda fault: fault.line)
        if left:
            ended = ", and not all was looked at" if any(map(self.has_enough, (False, True))) else ""
            faults.append(Fault(left[0].line, f"and {len(left):,} more{ended}", left[0].warning, self._file, len(left)))
        return tuple(faults)

    def has_enough(self, warning: bool) -> bool:
        """Tell whether enough faults, or warnings, were found to stop looking."""
        return len(self._found[warning]) >= _MOST_NOTED

    def note(self, path: Path, text: str, *, warning: bool = False, key: str | None = None) -> None:
        """Note a fault of `path`; `key` is one of its keys, on whose line it is and which `text` names.

        Raises RulesRefused when there are too many to go on.
        """
        if self.has_enough(warning):
            if not warning:
                raise RulesRefused(self.faults)
            return
        # What a file says is shown on terminals: a line break would look like another fault, an escape could hide one.
        text = visible(clamp(text, _LONGEST_FAULT))
        line = self.line(path if key is None else (*path, key))
        self._found[warning][Fault(line, f"{self._owner(path)}{text}", warning, self._file)] = None

    def line(self, path: Path) -> int:
        return self._lines.of(path)

    @cached_property
    def _lines(self) -> Lines:
        return Lines(self._text)

    def _owner(self, path: Path) -> str:
        """Say whose fault it is: 'rule "x": ', with the key when the path goes that deep."""
        match path:
            case ["rule" | "watch" | "mute" | "test" as kind, int(at), *keys]:
                table = self._tables[kind][at]
                name = table.get("name") if isinstance(table, dict) else None
                owner = f"{kind} {shown(name)}" if isinstance(name, str) and name else f"{kind} number {at + 1}"
            case ["notifier", str(name), "to", str(text), *keys]:
                owner = f"notifier {shown(member(name, text))}"
            case ["notifier" | "template" as kind, str(name), *keys]:
                owner = f"{kind} {shown(name)}"
            case [str(kind), *keys]:
                owner = f"[{kind}]" if isinstance(self._tables.get(kind), dict | list) else f'key "{kind}"'
            case _:
                return ""
        key = ".".join(str(k) for k in keys if isinstance(k, str))
        return f"{owner}, key {shown(key)}: " if key else f"{owner}: "

    def _note_unknown(self, table: Mapping[str, Any], keys: tuple[str, ...], path: Path) -> None:
        for key in table:
            if key not in keys:
                self.note(path, f'unknown key "{key}"{instead(key, keys)}', key=key)

    # --- tables ---------------------------------------------------------------------------------------------

    def one(self, kind: str) -> dict[str, Any]:
        """Return the table [kind], empty when there is none."""
        table = self._tables.get(kind, {})
        if isinstance(table, dict):
            return table
        self.note((kind,), f"write [{kind}] with single brackets")
        return {}

    def each(self, kind: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the tables [[kind]] with their numbers."""
        tables = self._tables.get(kind, [])
        if not isinstance(tables, list):
            self.note((kind,), f"write [[{kind}]] with double brackets: there can be many")
            return
        for at, table in enumerate(tables):
            if isinstance(table, dict):
                yield at, table
            else:
                self.note((kind, at), f"{shown(table)} is not a table; write [[{kind}]]")

    def named(self, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the tables [kind.NAME] with their names."""
        tables = self._tables.get(kind, {})
        if not isinstance(tables, dict):
            self.note((kind,), f"write [{kind}.NAME] with single brackets and a name")
            return
        for name, table in tables.items():
            try:
                printable(name)
            except ValueError as error:
                self.note((kind, name), str(error))
            if isinstance(table, dict):
                yield name, table
            else:
                self.note((kind, name), f"is not a table; write [{kind}.NAME] with a name, and the keys below it")

    def check_unique(self, kind: str) -> None:
        """Note each [[kind]] that has the name of an earlier one."""
        lines: dict[str, int] = {}
        for at, table in self.each(kind):
            name = table.get("name")
            if isinstance(name, str) and name in lines:
                self.note((kind, at, "name"), f"there is a {kind} of this name already, on line {lines[name]}")
            elif isinstance(name, str):
                lines[name] = self.line((kind, at))

    def names(self, kind: str) -> Collection[str]:
        """Return the names of the tables [kind.NAME], whether they are right or not; also of the notifiers of picks."""
        if kind == "notifier":
            return self._notifier_names
        tables = self._tables.get(kind)
        return tables if isinstance(tables, dict) else ()

    @cached_property
    def _notifier_names(self) -> Mapping[str, None]:
        tables = self._tables.get("notifier")
        found = dict.fromkeys(tables if isinstance(tables, dict) else ())
        return found | dict.fromkeys(self.entries)

    @cached_property
    def entries(self) -> Collection[str]:
        """The names of the notifiers that jobs may pick."""
        return {member(name, text): None for name, to in self._picked() for text in to}.keys()

    def _picked(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each pick with its table `to`."""
        tables = self._tables.get("notifier")
        for name, table in tables.items() if isinstance(tables, dict) else ():
            if isinstance(table, dict) and isinstance(table.get("to"), dict):
                yield name, table["to"]

    def is_pick(self, name: str) -> bool:
        """Tell whether a name is that of a [notifier.NAME] with `pick`."""
        tables = self._tables.get("notifier")
        table = tables.get(name) if isinstance(tables, dict) else None
        return isinstance(table, dict) and is_pick(table)

    def undefined(self, kind: str, name: str) -> str:
        return f'there is no {kind} "{name}"{instead(name, self.names(kind))}'

    def shape(self, model: type[Model], table: Mapping[str, Any], path: Path) -> Model | None:
        """Return the table as its model after noting every fault in it.

        What is wrong is left out, so that the rest can be checked further; None where that leaves too little.
        """
        keys = keys_of(model)
        self._note_unknown(table, keys, path)  # not by pydantic, whose errors take a kilobyte each
        known = {key: value for key, value in table.items() if key in keys}
        try:
            return model.model_validate(known)
        except ValidationError as error:
            problems = error.errors(include_url=False)
        for problem in problems:
            self.note((*path, *_inside(table, problem["loc"])), _described(problem))
        wrong = {str(problem["loc"][0]) for problem in problems}
        if not wrong.isdisjoint(_NEEDED):
            return None  # without it the rest would look wrong too
        try:
            return model.model_validate({key: value for key, value in known.items() if key not in wrong})
        except ValidationError:
            return None


# --- pydantic's problems in our words -------------------------------------------------------------------------------

_NEEDED = frozenset({"url", "token", "secret", "signing_secret", "team", "actions"})
# What may be secret is never shown, nor is what was written in its place.
_UNSEEN = {
    "token": 'a secret comes from the environment: write token = { env = "NAME" }',
    "secret": 'a secret comes from the environment: write secret = { env = "NAME" }',
    "signing_secret": 'a secret comes from the environment: write signing_secret = { env = "NAME" }',
    "url": 'write url = { env = "NAME" }, with the name of an environment variable',
    "headers": 'write headers = { "X-Team" = "media", "X-Key" = { env = "NAME" } }',
    "endpoint": "is not the address of a host, such as http://127.0.0.1:8080",
}
_PATTERN_HINTS = {
    "bucket": "is not a bucket name with its APPID, such as media-1250000000",
    "region": "is not a region, such as ap-chongqing",
    "input": "contains a control character, such as a line break",
    "credentials": 'is not a name such as "media": letters, digits, "_" and "-"',
}
_KINDS = {
    "string_type": "a string",
    "model_type": 'a table such as { wait = "10m" }',
    "bool_type": "true or false",
    "int_type": "a whole number",
    "dict_type": "a table",
    "list_type": "a list",
}


def _inside(table: Any, loc: tuple[str | int, ...]) -> Path:
    """Return as much of a problem's place as the file has: pydantic adds words of its own to it."""
    found: list[str | int] = []
    for key in loc:
        try:
            table = table[key]
        except (KeyError, IndexError, TypeError):
            break
        found.append(key)
    return tuple(found)


def _described(problem: Mapping[str, Any]) -> str:
    kind, loc, context = problem["type"], problem["loc"], problem.get("ctx", {})
    if unseen := _UNSEEN.get(str(loc[0])) if kind != "missing" or len(loc) > 1 else None:
        return unseen
    value = shown(problem["input"])
    match kind:
        case "extra_forbidden":
            return f"unknown key{instead(str(loc[-1]), KEYS.get(str(loc[0]), ()))}"
        case "missing":
            return f'"{loc[-1]}" is missing'
        case "value_error":
            return str(context["error"])
        case "literal_error":
            return f"{value} is not one of {context['expected']}".replace("'", '"')
        case "string_pattern_mismatch":
            return f"{value} {_PATTERN_HINTS[str(loc[0])]}"
        case "string_too_short":
            return "is empty"
        case "too_short":
            return f"is too short; it has at least {context['min_length']}"
        case "string_too_long" | "too_long":
            return f"is too long; the limit is {context['max_length']}"
        case "greater_than_equal":
            return f"{value} is too small; the minimum is {context['ge']}"
        case "less_than_equal":
            return f"{value} is too large; the limit is {context['le']}"
    return f"{value} is not {_KINDS[kind]}" if kind in _KINDS else f"{value}: {problem['msg']}"
