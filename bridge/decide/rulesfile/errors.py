"""What is wrong with rules.toml, and on which line; and the bounds of a file that is looked at for that at all."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from bridge.decide.rules.rulebook import Fault
from bridge.decide.text.values import shown
from bridge.display import clamp, visible

# --- bounds, asked before parsing: the parser takes memory and time without end for a key of 100,000 parts ----------

LARGEST = 1_000_000  # bytes
_DEEPEST = 20  # arrays and inline tables inside of one another; parts of a key

# Strings that do not end match too: looking for their ends again and again would take forever.
_TOKEN = re.compile(
    r"""
      \"{3} (?: [^"\\]++ | \\. | "(?!"") )*+ (?: "{3,5} )?
    | '{3} (?: [^']++ | '(?!'') )*+ (?: '{3,5} )?
    | " (?: [^"\\\n]++ | \\[^\n] )*+ "?
    | ' [^'\n]*+ '?
    | \# [^\n]*+
    | [\[\]{}.,=\n]
    """,
    re.DOTALL | re.VERBOSE,
)


class TooLarge(Exception):
    """No rules file is like this; the text says why, `line` where."""

    def __init__(self, line: int, text: str) -> None:
        self.line = line
        super().__init__(text)


def check_size(size: int) -> None:
    if size > LARGEST:
        raise TooLarge(1, f"is too large: it has {size:,} bytes, and {LARGEST:,} are the most")


def check_depth(text: str) -> None:
    """Raise TooLarge where brackets or keys nest too deeply; `text` need not be right TOML."""
    line, depth, parts = 1, 0, 0
    for token in _TOKEN.finditer(text):
        sign = token[0]
        parts = parts + 1 if sign == "." else 0 if sign in "[]{},=\n" else parts
        depth = max(0, depth + (sign in "[{") - (sign in "]}"))
        if depth > _DEEPEST:
            raise TooLarge(line, f"brackets nest too deeply: {_DEEPEST} levels are the most")
        if parts >= _DEEPEST:
            raise TooLarge(line, f"a key has too many parts: {_DEEPEST} are the most")
        line += sign.count("\n")


def statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield every statement of a right TOML text with its first line."""
    # Not splitlines(): TOML knows no other line ends, such as U+2028.
    text = text.replace("\r\n", "\n") + "\n"
    line, first, begins, depth = 1, 1, 0, 0
    for token in _TOKEN.finditer(text):
        sign = token[0]
        depth += (sign in "[{") - (sign in "]}")
        line += sign.count("\n")
        if sign == "\n" and not depth:
            statement = text[begins : token.end()].strip()
            if statement and not statement.startswith("#"):
                yield first, statement
            first, begins = line, token.end()


# --- where a key stands: tomllib gives no line numbers --------------------------------------------------------------

Path = Sequence[str | int]


class Lines:
    """Knows the line of every table and key. `text` is right TOML.

    Each statement is parsed by itself, so the parser says what it defines and not a pattern of ours.
    """

    def __init__(self, text: str) -> None:
        self._lines: dict[tuple[str | int, ...], int] = {}
        self._last: dict[tuple[str | int, ...], int] = {}  # of an array of tables: its last index
        table: tuple[str | int, ...] = ()
        for line, statement in statements(text):
            if statement.startswith("["):
                table = self._header(tomllib.loads(statement), line)
            else:
                self._add(table, tomllib.loads(statement), line)

    def of(self, path: Path) -> int:
        """Return the line (from 1) of the longest part of `path` that the text has."""
        whole = tuple(path)
        return next((self._lines[part] for n in range(len(whole), 0, -1) if (part := whole[:n]) in self._lines), 1)

    def _header(self, found: dict[str, Any], line: int) -> tuple[str | int, ...]:
        """Note what [a.b] or [[a.b]] opens, and return it: inside of `a` it is about the last one."""
        at: tuple[str | int, ...] = ()
        inner: Any = found
        while inner:
            (key,) = inner
            at, inner = (*at, key), inner[key]
            self._lines.setdefault(at, line)
            if isinstance(inner, list):
                self._last[at] = self._last.get(at, -1) + 1
                inner = inner[0]
            if at in self._last:
                at = (*at, self._last[at])
                self._lines.setdefault(at, line)
        return at

    def _add(self, at: tuple[str | int, ...], found: Any, line: int) -> None:
        if at:
            self._lines.setdefault(at, line)
        inner = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
        for key, value in inner:
            self._add((*at, key), value, line)


# --- the faults, each with its line and its owner -------------------------------------------------------------------

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
