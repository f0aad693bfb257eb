"""Ids that are made from what they name."""

from __future__ import annotations

import hashlib
from base64 import b32encode


def ident(kind: str, *parts: str) -> str:
    """Return an id made from what it names: the same thing seen again has the same id."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()[:16]
    return f"{kind}_{b32encode(digest).decode().rstrip('=').lower()}"
