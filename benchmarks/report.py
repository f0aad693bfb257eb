"""What was measured, as a table or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One comparison: medians over the rounds; `ratio` is the median of what each round's ratio was."""

    what: str
    unit: str
    ours: float
    peer_name: str
    peer: float
    ratio: float
    ratios: tuple[float, ...]  # of each round
    target: str | None = None  # "at least 4x" or "at most 1.2x"
    met: bool | None = None


def at_least(
    factor: float, what: str, unit: str, *, ours: Sequence[float], peer_name: str, peer: Sequence[float]
) -> Line:
    line = noted(what, unit, ours=ours, peer_name=peer_name, peer=peer)
    return replace(line, target=f"at least {factor:g}x", met=line.ratio >= factor)


def at_most(
    factor: float, what: str, unit: str, *, ours: Sequence[float], peer_name: str, peer: Sequence[float]
) -> Line:
    line = noted(what, unit, ours=ours, peer_name=peer_name, peer=peer)
    return replace(line, target=f"at most {factor:g}x", met=line.ratio <= factor)


def noted(what: str, unit: str, *, ours: Sequence[float], peer_name: str, peer: Sequence[float]) -> Line:
    """Return a comparison without a target; `ours` and `peer` have a value for each round."""
    # Round by round: the machine's speed changes between rounds far more than within one.
    ratios = tuple(one / other for one, other in zip(ours, peer, strict=True))
    return Line(
        what=what,
        unit=unit,
        ours=median(ours),
        peer_name=peer_name,
        peer=median(peer),
        ratio=median(ratios),
        ratios=ratios,
    )


def as_json(lines: Sequence[Line]) -> str:
    return json.dumps([asdict(line) for line in lines], indent=2)


def as_table(lines: Sequence[Line]) -> str:
    rows = [("what", "unit", "ours", "peer", "its", "ratio", "of rounds", "target", "")]
    rows += [
        (
            line.what,
            line.unit,
            _short(line.ours),
            line.peer_name,
            _short(line.peer),
            f"{line.ratio:.2f}",
            f"{min(line.ratios):.2f}-{max(line.ratios):.2f}",
            line.target or "",
            {True: "met", False: "NOT MET", None: ""}[line.met],
        )
        for line in lines
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    texts = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([texts[0], "-" * max(map(len, texts)), *texts[1:]])


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
