"""The shape of rules.toml: which keys there are, and what kind of value each takes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from bridge.decide.words import MOST_LISTED, STATE_WORDS, States, duration, rate, shown, states, suggest
from bridge.model import NEW, Rate

# Keys of the language that this version reads about but does not run: refused, never ignored in silence.
LATER = {
    "rule": ("in", "for", "repeat", "recover", "throttle", "group"),
    "slack": ("body",),
    "webhook": ("body",),
    "": ("mute", "test"),
}

_LONGEST_NAME = 200  # characters of a tag, a queue, a state: the keys of indexes are made of them
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


def _text(value: object, example: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not a text such as {example}")  # noqa: TRY004  (pydantic wants ValueError)
    return value


def _one_or_many(value: object) -> list[str]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not values or not all(isinstance(v, str) and v for v in values):
        raise ValueError(f"{shown(value)} is neither a text nor a list of texts, none of them empty")
    if len(values) > MOST_LISTED:
        raise ValueError(f"a list of {len(values):,} is too long: {MOST_LISTED:,} are the most")
    if long := [value for value in values if len(value) > _LONGEST_NAME]:
        raise ValueError(f"{shown(long[0])} is too long: {_LONGEST_NAME} characters are the most")
    return [printable(value) for value in values]


def printable(value: str) -> str:
    """Return the name. Raises ValueError for what no database or terminal takes, such as NUL or a line break."""
    if value.isprintable():
        return value
    wrong = ascii(next(sign for sign in value if not sign.isprintable())).strip("'")
    raise ValueError(f"{shown(value)} holds a sign that cannot be seen ({wrong}); write it without")


def _states(value: object) -> States:
    words = _one_or_many(value)
    # A state that CI adds one day is accepted; what looks like a slip of the pen is not.
    near = {word: suggest(word, STATE_WORDS) for word in words if word not in STATE_WORDS}
    if any(near.values()):
        raise ValueError("; ".join(f'no job state is called "{word}"{said}' for word, said in near.items() if said))
    return states(words)


def _ends(value: object) -> States:
    found = _states(value)
    if NEW in found.words:
        raise ValueError(f'no job becomes "{NEW}": write from = "{NEW}" for a job seen for the first time')
    return found


def _zone(value: object) -> ZoneInfo:
    try:
        return ZoneInfo(_text(value, '"Asia/Shanghai"'))
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f'{shown(value)} is not a time zone; write for example "Asia/Shanghai" or "UTC"') from error


def _env_names(value: object) -> list[str]:
    names = _one_or_many(value)
    # A secret that stands where its name belongs must not be said back as "not set".
    if not all(_ENV_NAME.fullmatch(name) for name in names):
        raise ValueError("is not the name of an environment variable")
    return names


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Keep = Annotated[timedelta, BeforeValidator(_keep)]
RateText = Annotated[Rate, BeforeValidator(_rate)]
Words = Annotated[list[str], BeforeValidator(_one_or_many)]
StateSet = Annotated[States, BeforeValidator(_states)]
EndSet = Annotated[States, BeforeValidator(_ends)]
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
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, populate_by_name=True)


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
    endpoint: Annotated[str, StringConstraints(pattern=r"^https?://[^/?#@]+/?$")] | None = None


class NotifierTable(_Table):
    retry: Duration = timedelta(hours=24)
    fallback: Name | None = None
    max_in_flight: Annotated[int, Field(strict=True, ge=1, le=32)] | None = None
    rate: RateText | None = None


class SlackTable(NotifierTable):
    type: Literal["slack"]
    channel: Name | None = None
    token: Env | None = None
    url: Env | None = None
    thread: Literal["job", "workflow", "none"] = "none"
    update: Annotated[bool, Field(strict=True)] = False


class WebhookTable(NotifierTable):
    type: Literal["webhook"]
    url: str | Env
    secret: Env | None = None
    order: Literal["job", "none"] = "job"
    headers: dict[str, str | Env] = {}
    format: Literal["json", "cloudevents"] = "json"


class RuleTable(_Table):
    name: Name
    from_: StateSet = Field(default=states(["*"]), alias="from")
    to: EndSet = states(["*"])
    match: dict[str, Any] = {}
    notify: Words
    template: Name | None = None
    stop: Annotated[bool, Field(strict=True)] = False


class TemplateTable(_Table):
    title: str | None = None
    text: str | None = None
    fields: Annotated[list[str], Field(max_length=10)] | None = None


KEYS: Mapping[str, tuple[str, ...]] = {
    "": ("defaults", "alias", "watch", "notifier", "rule", "template"),
    "defaults": tuple(Defaults.model_fields),
    "watch": tuple(WatchTable.model_fields),
    "slack": tuple(SlackTable.model_fields),
    "webhook": tuple(WebhookTable.model_fields),
    "rule": tuple(f.alias or name for name, f in RuleTable.model_fields.items()),
    "template": tuple(TemplateTable.model_fields),
}
