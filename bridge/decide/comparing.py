"""What rules told and what others would have: counted by rule and notifier, with the first differences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from bridge.model import Transition

FATES = ("told", "group", "throttle", "mute", "silence", "dropped")
FIRST = 20  # differences that are kept, usually

Line = tuple[str, str, str]  # kind of message ("transition", "level", "recovery"), rule, notifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Fired:
    """A level rule that told of a stay, from its first message to its repetition number `count`, and who heard."""

    count: int
    first_at: datetime
    last_at: datetime
    notifiers: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """A transition on record, what was told of it and of the stay that it began, and how long that was seen to last.

    `still_at` is the last poll that found the job so, None when none did. What was told may no longer be
    known in full (`is_known`), nor may that poll (`is_stay_known`): then nothing is compared.
    """

    transition: Transition
    told: Mapping[Line, str]
    fired: Mapping[str, Fired] = field(default_factory=dict)
    still_at: datetime | None = None
    has_ended: bool = False
    is_known: bool = True
    is_stay_known: bool = True


@dataclass(frozen=True, slots=True)
class Said:
    """What becomes of a message, and of a level rule's how often it comes again (None: cannot be told)."""

    fate: str
    repeats: int | None = 0

    def __str__(self) -> str:
        return f"{self.fate}, repeated {self.repeats}x" if self.repeats else self.fate


@dataclass(frozen=True, slots=True)
class Difference:
    transition: Transition
    line: Line
    before: Said | None
    after: Said | None


@dataclass(slots=True)
class Row:
    """The messages of one kind by one rule to one notifier; `after` are those of the rules that are tried."""

    before: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)
    added: int = 0
    removed: int = 0
    changed: int = 0


@dataclass(slots=True)
class Tally:
    """What a backtest comes to. `unknown` and `unknown_stays` could not be compared."""

    most: int = FIRST  # differences that are kept
    rows: dict[Line, Row] = field(default_factory=dict)
    first: list[Difference] = field(default_factory=list)
    unknown: int = 0
    unknown_stays: int = 0

    @property
    def differs(self) -> bool:
        return bool(self.first)

    def add(
        self, step: Transition, line: Line, before: Said | None, after: Said | None, *, loose: bool = False
    ) -> None:
        """Count a message. With `loose` it is the same whether it was told or over a throttle."""
        row = self.rows.get(line) or self.rows.setdefault(line, Row())
        if before:
            row.before[before.fate] += 1
        if after:
            row.after[after.fate] += 1
        if before and after and _alike(before, after, loose=loose):
            return
        row.added += before is None
        row.removed += after is None
        row.changed += bool(before and after)
        if len(self.first) < self.most:
            self.first.append(Difference(step, line, before, after))


def _alike(before: Said, after: Said, *, loose: bool) -> bool:
    same = before.fate == after.fate or (loose and {before.fate, after.fate} <= {"told", "throttle"})
    return same and (before.repeats == after.repeats or after.repeats is None)
