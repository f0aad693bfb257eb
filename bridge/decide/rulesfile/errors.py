"""What is wrong with rules.toml: every fault at once, each with its line and its owner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from bridge.decide.rules.rulebook import Fault
from bridge.decide.rulesfile.lines import Lines, Path
from bridge.decide.text.values import shown
from bridge.display import clamp, visible

_MOST_SHOWN = 100
_MOST_NOTED = 10_000
_LONGEST = 500  # characters


class RulesRefused(Exception):
    """The file is wrong; `faults` has every reason, warnings too."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))


class Faults:
    """Collects the faults of one file. A path, as in ("rule", 3, "to"), says where."""

    def __init__(self, text: str, tables: Mapping[str, Any], file: str) -> None:
        self._text = text
        self._file = file
        self._tables = tables
        self._found: dict[bool, dict[Fault, None]] = {False: {}, True: {}}  # faults, and warnings

    @cached_property
    def _lines(self) -> Lines:
        return Lines(self._text)

    @property
    def found(self) -> tuple[Fault, ...]:
        """Return what was found, by line; of very much the first, faults before warnings, and how many more."""
        ordered = [fault for found in self._found.values() for fault in sorted(found, key=lambda fault: fault.line)]
        first, left = ordered[:_MOST_SHOWN], ordered[_MOST_SHOWN:]
        shown = sorted(first, key=lambda fault: fault.line)
        if left:
            ended = ", and not all was looked at" if any(map(self.has_enough, (False, True))) else ""
            shown.append(Fault(left[0].line, f"and {len(left):,} more{ended}", left[0].warning, self._file, len(left)))
        return tuple(shown)

    def has_enough(self, warning: bool) -> bool:
        """Tell whether enough faults, or warnings, were found to stop looking."""
        return len(self._found[warning]) >= _MOST_NOTED

    def line(self, path: Path) -> int:
        return self._lines.of(path)

    def note(self, path: Path, text: str, *, warning: bool = False, key: str | None = None) -> None:
        """Note a fault of `path`; `key` is one of its keys, on whose line it is and which `text` names.

        Raises RulesRefused when there are too many to go on.
        """
        if self.has_enough(warning):
            if not warning:
                raise RulesRefused(self.found)
            return
        # What a file says is told on terminals: a line break would look like another fault, an escape could hide one.
        text = visible(clamp(text, _LONGEST))
        where = path if key is None else (*path, key)
        self._found[warning][Fault(self.line(where), f"{self._owner(path)}{text}", warning, self._file)] = None

    def _owner(self, path: Path) -> str:
        """Say whose fault it is: 'rule "x": ', with the key when the path goes that deep."""
        match path:
            case ["rule" | "watch" | "mute" | "test" as kind, int(at), *keys]:
                table = self._tables[kind][at]
                name = table.get("name") if isinstance(table, dict) else None
                owner = f"{kind} {shown(name)}" if isinstance(name, str) and name else f"{kind} number {at + 1}"
            case ["notifier" | "template" as kind, str(name), *keys]:
                owner = f"{kind} {shown(name)}"
            case [str(kind), *keys]:
                owner = f"[{kind}]" if isinstance(self._tables.get(kind), dict | list) else f'key "{kind}"'
            case _:
                return ""
        key = ".".join(str(k) for k in keys if isinstance(k, str))
        return f"{owner}, key {shown(key)}: " if key else f"{owner}: "
