"""How much of TOML a rules file may be, asked before it is parsed; and where its statements end.

The parser takes memory and time without end for a key of 100,000 parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

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
