"""Object keys and URLs as text."""

from __future__ import annotations


def basename(path: str) -> str:
    """Return what follows the last slash; of a URL without its query, which may be a signature."""
    if path.startswith(("http://", "https://")):
        path = path.partition("?")[0]
    return path.rstrip("/").rpartition("/")[2]
