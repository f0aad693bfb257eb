"""Rulesets: kept as text and read again, compared with what a changed file has left, and which one is in force."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from bridge.decide.rules.gates import Mute
from bridge.decide.rules.matching import Matcher, Rule
from bridge.decide.rules.rulebook import Rulebook, Ruleset
from bridge.decide.rulesfile.picks import read_picks
from bridge.decide.rulesfile.rules import RuleReader, TemplateReader
from bridge.decide.rulesfile.tables import Tables

# --- the rules as they were: what decided about a transition, kept as text and read again ---------------------------


def ruleset_to_text(tables: Mapping[str, Any], ruleset: Ruleset) -> str:
    """Return a ruleset as text that `ruleset_from_text` reads; of notifiers and templates it keeps the names only.

    Their addresses and texts decide nothing, and may be secret. How picks choose is kept.
    """
    kept = {
        "tables": {
            **{kind: tables.get(kind, []) for kind in ("rule", "mute")},
            "notifier": {name: {} for name in tables.get("notifier", ())} | _picks(ruleset),
            "template": {name: {} for name in tables.get("template", ())},
        },
        "lines": {"rule": _lines(ruleset.rules), "mute": _lines(ruleset.mutes)},
        "watches": [table["name"] for table in tables.get("watch", ())],
        "aliases": tables.get("alias", {}).get("queue", {}),
        "queue_names": ruleset.queue_names,
        "timezone": ruleset.zone.key,
    }
    return json.dumps(kept, ensure_ascii=False, separators=(",", ":"), default=str)


def _picks(ruleset: Ruleset) -> dict[str, Any]:
    """Return the tables of picks without what their notifiers are."""
    return {
        name: {"pick": pick.source, "to": {text: {} for text in pick.to}}
        | ({"otherwise": pick.otherwise} if pick.otherwise else {})
        for name, pick in ruleset.picks.items()
    }


def _lines(rules: Sequence[Rule | Mute]) -> list[int]:
    return [rule.line for rule in rules]


@lru_cache(maxsize=8)
def ruleset_from_text(sha: str, text: str) -> Ruleset:
    """Return the ruleset that was kept under this name."""
    kept = json.loads(text)
    lines, queue_names = kept["lines"], kept["queue_names"]
    tables, zone = Tables("", kept["tables"]), ZoneInfo(kept["timezone"])
    reader = RuleReader(tables, kept["aliases"])
    rules = tuple(replace(rule, line=line) for (_, rule), line in zip(reader.rules(), lines["rule"], strict=True))
    return Ruleset(
        sha=sha,
        zone=zone,
        rules=rules,
        mutes=tuple(replace(mute, line=line) for (_, mute), line in zip(reader.mutes(), lines["mute"], strict=True)),
        matcher=Matcher(rules, queue_names, read_picks(tables, TemplateReader(tables), zone)),
        queue_names=queue_names,
    )


# --- files that lost much: somebody may be writing them just now ----------------------------------------------------

SETTLED_S = 2.0  # a changed file is read when it has stayed the same for so long
SHRUNK_S = 30.0  # and for so long, when half of its watches or rules have vanished


@dataclass(frozen=True, slots=True)
class Names:
    """What the watches and rules of a file are called."""

    watches: frozenset[str]  # none of a ruleset that was kept by a version which did not keep them
    rules: frozenset[str]

    @property
    def is_blank(self) -> bool:
        """Whether the file watches nothing and notifies nobody."""
        return not self.watches and not self.rules


def names_of(book: Rulebook) -> Names:
    return Names(frozenset(watch.name for watch in book.watches), frozenset(rule.name for rule in book.rules))


def names_in(text: str) -> Names:
    """Return what the watches and rules of a stored ruleset are called."""
    kept = json.loads(text)
    rules = kept.get("tables", {}).get("rule", ())
    return Names(frozenset(kept.get("watches", ())), frozenset(table["name"] for table in rules))


def emptied(before: Names, after: Names) -> str | None:
    """Say of which there are none any more: "no [[watch]] and no [[rule]]"."""
    gone = [
        f"no [[{kind}]]"
        for kind, old, new in (("watch", before.watches, after.watches), ("rule", before.rules, after.rules))
        if old and not new
    ]
    return " and ".join(gone) or None


def shrunk(before: Names, after: Names) -> str | None:
    """Say how many have vanished where that is half of the watches or rules, or more: "2 of 3 rules"."""
    lost = [
        f"{len(old - new)} of {len(old)} {kind}"
        for kind, old, new in (("watches", before.watches, after.watches), ("rules", before.rules, after.rules))
        if old - new and 2 * len(old - new) >= len(old)
    ]
    return " and ".join(lost) or None


# --- rules in force: those accepted last, if anybody has them -------------------------------------------------------

_ALIVE_S = 45.0  # a worker says every 15 s that it is there
_ALONE_S = 60.0  # so long nobody has the rules in force, before others stand in for them
_GAP_S = 10.0  # between two looks: whoever was not looked at meanwhile may have said something


class Precedence:
    """What one worker has seen of the others, by its monotonic clock: whose clock is wrong does not matter.

    Rules are known by the number of their acceptance, the highest of which is the latest.
    """

    def __init__(self) -> None:
        self._heard: dict[str, tuple[int, float]] = {}  # by worker: its last sign of life, and when it was seen
        self._in_force: int | None = None
        self._held_s = 0.0  # when a worker that has the rules in force was last heard of
        self._looked_s: float | None = None

    def look(self, mine: int, in_force: int, others: Mapping[str, tuple[int | None, int]], now_s: float) -> bool:
        """Tell whether the rules `mine` are to be put in force instead of `in_force`.

        `others` are by worker the number of its rules, if they were ever accepted, and its last sign of life.
        """
        self._hear(in_force, others, now_s)
        alive = [number for worker, (number, _) in others.items() if now_s - self._heard[worker][1] < _ALIVE_S]
        if mine == in_force or any(number is not None and number > mine for number in alive):
            return False
        # Only what stands in for others can have a lower number than they have.
        return mine > in_force or now_s - self._held_s >= _ALONE_S

    def _hear(self, in_force: int, others: Mapping[str, tuple[int | None, int]], now_s: float) -> None:
        if self._looked_s is None or now_s - self._looked_s > _GAP_S:
            self._heard, self._held_s = {}, now_s
        self._heard = {worker: heard for worker, heard in self._heard.items() if worker in others}
        for worker, (number, beat) in others.items():
            known = self._heard.get(worker)
            if known is None or known[0] != beat:
                self._heard[worker] = (beat, now_s)
            if number == in_force:
                self._held_s = max(self._held_s, self._heard[worker][1])
        if in_force != self._in_force:
            self._held_s = now_s
        self._in_force, self._looked_s = in_force, now_s
