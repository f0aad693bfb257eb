"""The rules as they were: what of rules.toml decided about a transition, kept as text and read again later."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from bridge.decide.rules.gates import Mute
from bridge.decide.rules.matching import Matcher, Rule
from bridge.decide.rules.rulebook import Ruleset
from bridge.decide.rulesfile.errors import Faults
from bridge.decide.rulesfile.tables import RuleReader, Tables


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


def names(text: str) -> Names:
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
