"""A rules file as others may read it: what is behind the host of a URL, and the values of headers, are hidden.

The language allows one value many spellings, so each string is decoded before it is judged, and the result is read
again: a text in which anything is left that should be hidden is not shown at all.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

HIDDEN = "***"
NOT_SHOWN = "# This file cannot be shown: it is written in a way in which not every secret can be hidden.\n"

_TOKEN = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}' r"|'''.*?'{3,5}" r'|"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'" r"|\#[^\n]*", re.DOTALL
)
_URL = re.compile(r"(:\s{0,9}[/\\]\s{0,9}[/\\])([^\r\n]*)")  # from its colon on
_WHOLE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S*")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::\d{1,5})?")
# Of comments: what follows "=", is quoted, is named as a secret, or is behind a host without a scheme.
_VALUE = re.compile(r"(=\s*).+|(?<!\w)['\"].*")
_NAMED = re.compile(
    r"((?:(?:auth|token|secret|key|passw|cookie|\bx-)[\w-]{0,100}\s{0,9}:|bearer\s)\s{0,9}).+", re.IGNORECASE
)
_ADDRESS = re.compile(r"(\.[A-Za-z]{2,63}(?::\d{1,5})?/)\S+")


def masked(text: str) -> str:
    """Return an accepted rules file, with `***` in place of what may be secret."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    try:
        secrets = frozenset(_secrets(tomllib.loads(text)))
        shown = _TOKEN.sub(lambda token: _token(token[0], secrets), text)
        again = tomllib.loads(shown)
    except (tomllib.TOMLDecodeError, RecursionError):
        return NOT_SHOWN
    left = {text for text in _texts(again) if _URL.sub(_hidden, text) != text}
    left |= {text for text in _secrets(again) if _masked(text, secrets | {text}) != text}
    return NOT_SHOWN if left else shown


def _token(raw: str, secrets: frozenset[str]) -> str:
    if raw.startswith("#"):
        return _comment(raw, secrets)
    value = _decoded(raw)
    wanted = _masked(value, secrets)
    if wanted == value:
        return raw
    simple = _URL.sub(_hidden, raw[:-3]) + raw[-3:] if raw[:3] in ('"""', "'''") else ""
    try:  # keeps the lines of a long text, if that hides as much
        if simple and _decoded(simple) == wanted:
            return simple
    except tomllib.TOMLDecodeError:
        pass
    return json.dumps(wanted, ensure_ascii=False).replace("\x7f", "\\u007f")


def _decoded(raw: str) -> str:
    return str(tomllib.loads(f"value = {raw}")["value"])


def _masked(value: str, secrets: frozenset[str]) -> str:
    return _URL.sub(_hidden, value) if value not in secrets or _WHOLE.fullmatch(value) else HIDDEN


def _hidden(url: re.Match[str]) -> str:
    scheme, rest = url.groups()
    host = _HOST.match(rest)
    if host is None or "@" in rest or rest[host.end() : host.end() + 1] not in ("", "/", "\\", "?", "#"):
        return f"{scheme}{HIDDEN}"
    return url[0] if rest[host.end() :] in ("", "/") else f"{scheme}{host[0]}/{HIDDEN}"


def _comment(raw: str, secrets: frozenset[str]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) > 2:
            raw = raw.replace(secret, HIDDEN)
    raw = _URL.sub(_hidden, raw)
    raw = _VALUE.sub(lambda found: f"{found[1] or ''}{HIDDEN}", raw)
    return _ADDRESS.sub(rf"\1{HIDDEN}", _NAMED.sub(rf"\1{HIDDEN}", raw))


# --- what is secret of a file that was read -------------------------------------------------------------------------


def _secrets(tables: Mapping[str, Any]) -> Iterator[str]:
    """Yield the values of headers, and the addresses, of notifiers and watches; never the names of variables."""
    for key, value in tables.items():
        if key == "headers" and isinstance(value, Mapping):
            yield from (text for header in value.values() for text in _texts(header, names=False))
        elif key in ("headers", "url"):
            yield from _texts(value, names=False)
        elif isinstance(value, Mapping):
            yield from _secrets(value)
        elif isinstance(value, list):
            yield from (text for one in value if isinstance(one, Mapping) for text in _secrets(one))


def _texts(value: object, *, names: bool = True) -> Iterator[str]:
    """Yield every text; with `names` those of keys and variables too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if names:
                yield key
            if names or key != "env":
                yield from _texts(inner, names=names)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, names=names)
