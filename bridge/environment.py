"""One variable of the environment, as people write it. Pure: the environment is an argument."""

from __future__ import annotations

from collections.abc import Mapping
from unicodedata import category

_UNSEEN = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})  # control and format characters, white space
_QUOTES = ('""', "''", "“”", "‘’")


def lookup(environ: Mapping[str, str], name: str) -> str | None:
    """Return the value without what cannot be seen at its ends: white space, line ends, a BOM. None: nothing is left.

    Every variable that the bridge reads, it reads by this.
    """
    value = environ.get(name, "")
    first, last = 0, len(value)
    while first < last and category(value[first]) in _UNSEEN:
        first += 1
    while first < last and category(value[last - 1]) in _UNSEEN:
        last -= 1
    return value[first:last] or None


def fault(value: str) -> str | None:
    """Say what is surely a slip in a value of one line, or None; nothing of the value, which may be a secret."""
    if any("\ud800" <= sign <= "\udfff" for sign in value):  # a byte that could not be decoded (PEP 383)
        return "is not UTF-8"
    if unseen := next((sign for sign in value if not sign.isprintable()), None):
        code = ascii(unseen).strip("'")
        return f"has a character in it that cannot be seen ({code}): copy it again"
    if len(value) > 1 and value[0] + value[-1] in _QUOTES:
        return "is in quotes, which are part of it here: write it without"
    return None
