"""When a changed rules file is taken, and which rules are in force when live workers have different ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.read import Names

# --- files that lost much: somebody may be writing them just now ----------------------------------------------------

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
