"""Whether rules.toml lost so much that somebody may be writing it just now, or has emptied it by mistake."""

from __future__ import annotations

from collections.abc import Iterator

from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.archive import Names

SETTLED_S = 2.0  # a changed file is read when it has stayed the same for so long
SHRUNK_S = 30.0  # and for so long, when half of its watches or rules have vanished
_MANY = {"watch": "watches", "rule": "rules"}


def names_of(book: Rulebook) -> Names:
    return Names(frozenset(one.name for one in book.watches), frozenset(one.name for one in book.rules))


def is_blank(names: Names) -> bool:
    """Tell whether a file watches nothing and tells nobody."""
    return not names.watches and not names.rules


def emptied(before: Names, after: Names) -> str | None:
    """Say of which there are none any more: "no [[watch]] and no [[rule]]"."""
    gone = [f"no [[{kind}]]" for kind, old, new in _each(before, after) if old and not new]
    return " and ".join(gone) or None


def shrunk(before: Names, after: Names) -> str | None:
    """Say how many have vanished where that is half of the watches or rules, or more: "2 of 3 rules"."""
    lost = [(kind, len(old - new), len(old)) for kind, old, new in _each(before, after)]
    found = [f"{gone} of {total} {_MANY[kind]}" for kind, gone, total in lost if gone and 2 * gone >= total]
    return " and ".join(found) or None


def _each(before: Names, after: Names) -> Iterator[tuple[str, frozenset[str], frozenset[str]]]:
    yield "watch", before.watches, after.watches
    yield "rule", before.rules, after.rules
