"""Names of things: ids that are made from what they name, and what an object is called without its path."""

from __future__ import annotations

import hashlib
from base64 import b32encode


def ident(kind: str, *parts: str) -> str:
    """Return an id made from what it names: the same thing seen again has the same id."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()[:16]
    return f"{kind}_{b32encode(digest).decode().rstrip('=').lower()}"


def basename(path: str) -> str:
    """Return what follows the last slash; of a URL without its query, which may be a signature."""
    if path.startswith(("http://", "https://")):
        path = path.partition("?")[0]
    return path.rstrip("/").rpartition("/")[2]
