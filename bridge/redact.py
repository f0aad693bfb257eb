"""Masks known secrets in what is logged or stored, in each form in which somebody may repeat them."""

from __future__ import annotations

import binascii
import html
import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

_MASK = "[secret]"
_SHORTEST = 6  # shorter ones are part of many words
_TOKEN_FROM, _LONG_FROM = 8, 20
_RECOGNISED = 4  # so many characters of a secret that was cut off are recognised


class Mask:
    """Replaces secrets: plain, URL-encoded, in JSON, HTML, base64, Python's repr, and in one case."""

    def __init__(self, secrets: Iterable[str]) -> None:
        parts = {part for secret in secrets for part in _parts(secret.strip()) if len(part) >= _SHORTEST}
        forms = {form for part in parts for form in _forms(part)}
        # Longest first: one may be part of another.
        self._forms = sorted((form for form in forms if len(form) >= _SHORTEST), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, _MASK)
        return text

    def of_cut(self, text: str) -> str:
        """The same for a text that was cut, perhaps inside of a secret: its first part goes too."""
        text = self(text)
        left = max((_begun(text, form) for form in self._forms), default=0)
        return text[:-left] + _MASK if left else text


def _begun(text: str, form: str) -> int:
    """Return how much of `form` the text ends with."""
    at = max(0, len(text) - len(form))
    while (at := text.find(form[:_RECOGNISED], at)) >= 0:
        if form.startswith(text[at:]):
            return len(text) - at
        at += 1
    return 0


def _parts(secret: str) -> Iterator[str]:
    """Yield the secret and its parts that are secrets themselves."""
    yield secret
    scheme, _, rest = secret.partition(" ")
    if "://" in secret:
        yield from _of_url(secret)
    elif scheme.lower() == "basic":
        yield from _of_basic(rest)
    elif secret.startswith("whsec_"):
        yield secret.removeprefix("whsec_")


def _of_url(url: str) -> Iterator[str]:
    # Scheme and host are no secret: where a message was to go is shown.
    try:
        parts = urlsplit(url)
    except ValueError:
        return
    target = parts.path + (parts.query and f"?{parts.query}")
    yield from (target, unquote(target), parts.query)
    for segment in filter(_is_token, parts.path.split("/")):
        yield from (segment, unquote(segment))
    for (_, value), written in zip(parse_qsl(parts.query), parts.query.split("&"), strict=False):
        yield from (value, written.partition("=")[2])


def _is_token(segment: str) -> bool:
    """Tell a token from a word of a path."""
    mixed = segment != segment.lower() or any(sign.isdigit() for sign in segment)
    return len(segment) >= (_TOKEN_FROM if mixed else _LONG_FROM)


def _of_basic(encoded: str) -> Iterator[str]:
    try:
        pair = b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return
    yield from (pair, pair.partition(":")[2])


def _forms(part: str) -> Iterator[str]:
    yield from (part, part.lower(), part.upper())  # a host is shown in lower case
    for quoted in (quote(part, safe=""), quote(part), quote_plus(part)):
        yield from (quoted, quoted.lower())
    for escaped in (json.dumps(part)[1:-1], json.dumps(part, ensure_ascii=False)[1:-1], html.escape(part)):
        yield from (escaped, escaped.replace("/", "\\/"))
    for write in (repr, ascii, lambda piece: repr(piece.encode(errors="replace"))[1:]):
        # Which quotes are escaped depends on what stands around the secret.
        pieces = [write(piece)[1:-1] for piece in part.split("'")]
        yield from ("'".join(pieces), "\\'".join(pieces))
    for encoded in _in_base64(part.encode(errors="replace")):
        yield from (encoded, encoded.replace("+", "-").replace("/", "_"))


def _in_base64(part: bytes) -> Iterator[str]:
    """Yield what the base64 of any text has in it that has `part` in it: one of three, by where it begins."""
    for ahead in range(3):
        encoded = b64encode(bytes(ahead) + part).decode()
        over = (ahead + len(part)) % 3
        # The signs at both ends depend on the neighbours too.
        yield encoded[(0, 2, 3)[ahead] : len(encoded) - (0, 3, 2)[over]]
