"""How a table looks on a terminal: its columns fit the width, times are ages, states have colours."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any, Literal

import click

from bridge.decide.text.times import ago
from bridge.display import fit, pad
from bridge.model import CANCEL, FAILED, GONE, PAUSE, RUNNING, SUBMITTED, SUCCESS

Times = Literal["ago", "utc", "local"]

_TIMES = f"{__name__}.times"  # in the context of a command
_KEYS = ("id", "job", "name", "sha")  # columns that are copied into the next command: never cut
_LEAST = 8  # columns of the terminal that any other has
_GAP = 2
_STATES = ("state", "from", "to")  # columns with colours
_COLOURS = {
    **dict.fromkeys((SUCCESS, "sent", "ok", "active", "closed"), "green"),
    **dict.fromkeys((FAILED, "dead", "failing", "open"), "red"),
    **dict.fromkeys((RUNNING, SUBMITTED, "sending"), "cyan"),
    **dict.fromkeys((PAUSE, "paused", "pending", "waiting", "held"), "yellow"),
    **dict.fromkeys((CANCEL, GONE, "dropped", "merged", "discarded", "ended"), "bright_black"),
}
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


# --- times ----------------------------------------------------------------------------------------------------------


def times_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --utc and --local to a list, whose tables have ages without them."""
    for times, text in (("local", "in this machine's time zone"), ("utc", "in UTC")):
        command = click.option(
            f"--{times}", "times", flag_value=times, expose_value=False, callback=_remember,
            help=f"Show times {text}, not how long ago they are.",
        )(command)  # fmt: skip
    return command


def _remember(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    ctx.meta[_TIMES] = value or ctx.meta.get(_TIMES, "ago")


def times_of(ctx: click.Context) -> Times:
    """Return how the tables of a command show times; as they are, in UTC, if it does not let people choose."""
    times: Times = ctx.meta.get(_TIMES, "utc")
    return times


def moment(value: object, times: Times, now: datetime) -> object:
    """Return a time of the record as people are to see it; any other value unchanged."""
    if times == "utc" or not isinstance(value, str) or not _MOMENT.fullmatch(value):
        return value
    at = datetime.fromisoformat(value)
    return ago(at, now) if times == "ago" else at.astimezone().isoformat(sep=" ", timespec="seconds")


# --- columns --------------------------------------------------------------------------------------------------------


def fitting(
    names: Sequence[str], widths: Sequence[int], room: int | None, empties: Collection[str] = ()
) -> dict[str, int]:
    """Return the columns that have room beside each other, with their widths; without `room`, all.

    Empty ones are left out first, then the last. The column that names the row is whole, whatever the room.
    """
    key = next((name for name in _KEYS if name in names), names[0])
    wide = dict(zip(names, widths, strict=True))
    if room is None or _total(wide) <= room:
        return wide
    wide = {name: width for name, width in wide.items() if name == key or name not in empties}
    least = {name: width if name == key else min(width, _LEAST) for name, width in wide.items()}
    while len(least) > 1 and _total(least) > room:
        del least[[name for name in least if name != key][-1]]
    shown = {name: wide[name] for name in least}
    while _total(shown) > room and (longer := [name for name in shown if shown[name] > least[name]]):
        shown[max(longer, key=lambda name: shown[name])] -= 1
    return shown


def _total(widths: dict[str, int]) -> int:
    return sum(widths.values()) + _GAP * (len(widths) - 1)


def coloured(name: str, cell: str, width: int) -> str:
    """Return a cell of this width, in the colour of its state. click strips the colour when it writes to a pipe."""
    colour = _COLOURS.get(re.split("[, ]", cell, maxsplit=1)[0]) if name in _STATES else None
    text = pad(fit(cell, width), width)
    return click.style(text, fg=colour) if colour else text
