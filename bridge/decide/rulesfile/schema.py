"""The shape of rules.toml: which keys there are, and what kind of value each takes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import time, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from bridge.decide.text.calendar import Window, time_of_day, window
from bridge.decide.text.times import duration
from bridge.decide.text.values import (
    LONGEST_NAME,
    States,
    printable,
    rate,
    read_ends,
    read_states,
    read_words,
    shown,
    states,
)
from bridge.model import DONE, Rate
from bridge.url import encoded

_LONGEST_KEY = 850  # an object's
_ENV_NAME = re.compile(r"(?!whsec_|xox)[A-Za-z_][A-Za-z0-9_]*")


def _duration(value: object) -> timedelta:
    return duration(_text(value, '"30s" or "45m"'))


def _keep(value: object) -> timedelta:
    kept = _duration(value)
    if kept < timedelta(days=1):
        raise ValueError(f'"{value}" is too short: "1d" is the least')
    return kept


def _rate(value: object) -> Rate:
    return rate(_text(value, '"10/s" or "100/5m"'))


def _time(value: object) -> time:
    return time_of_day(_clock_text(value, '"09:00"'))


def _between(value: object) -> Window:
    return window(_clock_text(value, '"22:00-08:00"'), None)


def _clock_text(value: object, example: str) -> str:
    if not isinstance(value, time):
        return _text(value, example)
    raise ValueError(f"{value} is not a text: write it in quotes, without seconds, as in {example}")


def _days(value: object) -> frozenset[int]:
    return window("00:00-24:00", read_words(value)).days


def _text(value: object, example: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not a text such as {example}")  # noqa: TRY004  (pydantic wants ValueError)
    return value


def _stays(value: object) -> States:
    found = read_ends(value)
    if final := sorted(DONE.intersection(found.words)):
        raise ValueError(
            f'a job that is {final[0]} stays so: write to = "{final[0]}" to be notified when it becomes that'
        )
    if "*" in found.words:
        raise ValueError('"*" holds final states too, which a job never leaves; write in = "active"')
    return found


def _expected(value: object) -> list[str]:
    return [] if value == [] else read_words(value, longest=2 * LONGEST_NAME + 10)


def _zone(value: object) -> ZoneInfo:
    try:
        return ZoneInfo(_text(value, '"Asia/Shanghai"'))
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f'{shown(value)} is not a time zone; write for example "Asia/Shanghai" or "UTC"') from error


def _endpoint(value: str) -> str:
    found = encoded(value)
    if not re.fullmatch(r"https?://[^/]+/", found):
        raise ValueError("an address without path and query is wanted, such as https://host:port")
    return found


def _env_names(value: object) -> list[str]:
    names = read_words(value)
    # A secret that stands where its name belongs must not be said back as "not set".
    if not all(_ENV_NAME.fullmatch(name) for name in names):
        raise ValueError("is not the name of an environment variable")
    return names


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Keep = Annotated[timedelta, BeforeValidator(_keep)]
RateText = Annotated[Rate, BeforeValidator(_rate)]
TimeOfDay = Annotated[time, BeforeValidator(_time)]
Between = Annotated[Window, BeforeValidator(_between)]
Days = Annotated[frozenset[int], BeforeValidator(_days)]
Words = Annotated[list[str], BeforeValidator(lambda value: read_words(value))]
StateSet = Annotated[States, BeforeValidator(read_states)]
StaySet = Annotated[States, BeforeValidator(_stays)]
Expected = Annotated[list[str], BeforeValidator(_expected)]
EndSet = Annotated[States, BeforeValidator(read_ends)]
Zone = Annotated[ZoneInfo, BeforeValidator(_zone)]
EnvNames = Annotated[list[str], BeforeValidator(_env_names)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(printable)]
Bucket = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,58}-\d{5,12}$")]
Region = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{2,30}$")]


class Env(BaseModel):
    """A value that is read from the environment: `{ env = "NAME" }`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    env: EnvNames


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


class Defaults(_Table):
    timezone: Zone = ZoneInfo("UTC")
    every: Duration = timedelta(seconds=30)
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
    lookback: Duration | None = None
    queue_type: Name | None = None
    workflow: Name | None = None
    input: (
        Annotated[str, StringConstraints(min_length=1, max_length=_LONGEST_KEY, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
        | None
    ) = None
    endpoint: Annotated[str, AfterValidator(_endpoint)] | None = None


class NotifierTable(_Table):
    retry: Duration = timedelta(hours=24)
    fallback: Name | None = None
    max_in_flight: Annotated[int, Field(strict=True, ge=1, le=32)] | None = None
    rate: RateText | None = None
    type: str  # which of the types it is


class GroupTable(_Table):
    by: Words = []
    wait: Duration | None = None
    at: TimeOfDay | None = None
    max: Annotated[int, Field(strict=True, ge=1, le=10_000)] | None = None


class RuleTable(_Table):
    name: Name
    from_: StateSet = Field(default=states(["*"]), alias="from")
    to: EndSet = states(["*"])
    in_: StaySet | None = Field(default=None, alias="in")
    for_: Duration | None = Field(default=None, alias="for")
    repeat: Duration | None = None
    recover: Annotated[bool, Field(strict=True)] = False
    match: dict[str, Any] = {}
    notify: Words
    template: Name | None = None
    throttle: RateText | None = None
    group: GroupTable | None = None
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

    job: dict[str, Any]
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
    "group": keys_of(GroupTable),
    "mute": keys_of(MuteTable),
    "test": keys_of(TestTable),
    "template": keys_of(TemplateTable),
}
