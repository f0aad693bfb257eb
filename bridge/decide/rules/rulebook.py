"""The rules as data: what rules.toml says, checked. How the file is read is `rulesfile`'s."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

from bridge.decide.rules.gates import Mute
from bridge.decide.rules.matching import Matcher, Rule
from bridge.decide.rules.picks import Pick
from bridge.decide.templates.rendering import Template
from bridge.language import ENGLISH, Language
from bridge.model import KeySource, Rate, Watch
from bridge.notifiers import Notifier


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with rules.toml. A `warning` does not refuse the file."""

    line: int
    text: str
    warning: bool = False
    file: str = "rules.toml"
    more: int = 0  # this stands for so many that are not shown

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {'warning: ' if self.warning else ''}{self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleTest:
    """A [[test]]: what happens to jobs, and the "rule -> notifier" it should lead to.

    With a `job` there is one; with `jobs` each says when (`at`), and the test looks `after` the last of them.
    """

    number: int
    line: int
    job: Mapping[str, Any] | None
    expect: tuple[str, ...]
    jobs: tuple[Mapping[str, Any], ...] = ()
    after: timedelta = timedelta()


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageTemplate:
    """A [template.NAME] of rules.toml, compiled. What is None has the default text."""

    title: Template | None = None
    text: Template | None = None
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruleset:
    """What of rules.toml says who hears of a transition: enough to answer for it after the file has changed."""

    sha: str
    zone: ZoneInfo
    rules: tuple[Rule, ...]
    mutes: tuple[Mute, ...]
    matcher: Matcher
    queue_names: Mapping[str, str]  # id -> alias

    @property
    def picks(self) -> Mapping[str, Pick]:
        """The names that rules notify by and that stand for several notifiers."""
        return self.matcher.picks


@dataclass(frozen=True, slots=True, kw_only=True)
class Rulebook(Ruleset):
    """What rules.toml says, checked."""

    language: Language = ENGLISH  # of messages
    rate: Rate  # of calls to CI, per bucket
    keep: timedelta  # what has ended
    keep_dead: timedelta  # dead letters
    watches: tuple[Watch, ...]
    notifiers: Mapping[str, Notifier]
    tests: tuple[RuleTest, ...]
    templates: Mapping[str, MessageTemplate]
    ruleset_text: str = field(repr=False)  # its ruleset as text
    text: str = field(repr=False)  # what it was read from: it may hold secrets
    warnings: tuple[Fault, ...] = ()
    credentials: Mapping[str, KeySource] = field(default_factory=dict)  # those that watches name
    ci_queue_names: Mapping[str, str] = field(default_factory=dict)  # not of rules.toml: what CI calls queues, by id

    @property
    def shown_queue_names(self) -> Mapping[str, str]:
        """The names of queues in messages, by id: an alias comes before CI's name, and only an alias matches."""
        return {**self.ci_queue_names, **self.queue_names}

    @property
    def notified(self) -> tuple[str, ...]:
        """The names that rules may notify by: of notifiers and of picks."""
        return (*self.notifiers, *self.picks)

    @property
    def updating(self) -> dict[str, Notifier]:
        """The notifiers that edit the first messages of their threads, by name."""
        return {name: notifier for name, notifier in self.notifiers.items() if notifier.updates}

    @property
    def editing(self) -> dict[str, Notifier]:
        """The notifiers that edit the first messages of threads, were it only those of incidents, by name."""
        return {name: notifier for name, notifier in self.notifiers.items() if notifier.edit_limit}
