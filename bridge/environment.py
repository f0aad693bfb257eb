"""Reads one environment variable. Pure: the environment is an argument."""

from __future__ import annotations

from collections.abc import Mapping
from unicodedata import category

_UNSEEN = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})  # control and format characters, white space
_QUOTES = ('""', "''", "“”", "‘’")


def lookup(environ: Mapping[str, str], name: str) -> str | None:
    """Return the value without invisible characters at its ends: white space, line ends, a BOM. None: nothing is left.

    All variables of the bridge are read by this function.
    """
    value = environ.get(name, "")
    first, last = 0, len(value)
    while first < last and category(value[first]) in _UNSEEN:
        first += 1
    while first < last and category(value[last - 1]) in _UNSEEN:
        last -= 1
    return value[first:last] or None


def fault(value: str) -> str | None:
    """Return what must be a mistake in a one-line value, or None; without the value, which may be a secret."""
    if any("\ud800" <= character <= "\udfff" for character in value):  # a byte that could not be decoded (PEP 383)
        return "is not UTF-8"
    if unseen := next((character for character in value if not character.isprintable()), None):
        code = ascii(unseen).strip("'")
        return f"has an invisible character in it ({code}): copy it again"
    if len(value) > 1 and value[0] + value[-1] in _QUOTES:
        return "is in quotes, which would be part of the value: remove them"
    return None
