"""Secrets to plant, one for each place that may hold one, and a search for what got out of them.

The search knows nothing of how the bridge masks: it undoes encodings and looks for pieces of the secrets.
"""

from __future__ import annotations

import html
import re
from base64 import b64decode, b64encode
from collections.abc import Iterator
from hashlib import sha256
from urllib.parse import unquote_plus


def planted(place: str) -> str:
    """Return the secret of this place: 44 signs of base64, so one that URLs and JSON may write differently."""
    return b64encode(sha256(place.encode()).digest()).decode()


PLACES = (
    "ci key", "ci token", "admin token", "read token", "named token", "callback token", "database password",
    "proxy password",
    "slack token", "slack url", "signing secret", "url path", "url query", "url in rules", "header in rules",
    "new secret", "old secret", "header", "bearer", "basic",
)  # fmt: skip
SECRETS = {place: planted(place) for place in PLACES}
SECRETS["callback token"] = re.sub(r"\W", "-", SECRETS["callback token"])  # part of an address, as it is

_PIECE, _STEP = 8, 4  # any eleven signs of a secret in a row have one of its pieces in them
_PIECES = {
    place: [secret[at : at + _PIECE].lower() for at in range(0, len(secret) - _PIECE + 1, _STEP)]
    for place, secret in SECRETS.items()
}


def leaked(text: str | bytes) -> set[str]:
    """Return the places whose secret, or a part of it, can be read in this text."""
    plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    readings = [one.lower() for one in _readings(plain)]
    return {place for place, pieces in _PIECES.items() if any(piece in r for piece in pieces for r in readings)}


def _readings(text: str) -> Iterator[str]:
    yield text
    yield unquote_plus(text)
    yield html.unescape(text.replace("\\", ""))
    for run in re.findall(r"[A-Za-z0-9+/_-]{12,}", text):
        for at in range(4):
            whole = run[at : at + (len(run) - at) // 4 * 4].replace("-", "+").replace("_", "/")
            yield b64decode(whole).decode("latin-1")
