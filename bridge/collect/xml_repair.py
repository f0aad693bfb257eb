"""CI's XML as it should have been: what XML 1.0 forbids in a text is replaced, structure is left as it is."""

from __future__ import annotations

import codecs
import re

_UNREADABLE = "\N{REPLACEMENT CHARACTER}"
_FORBIDDEN = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_NUMBER = r"#(?:x[0-9A-Fa-f]{1,16}|[0-9]{1,16})"
# A reference by number, which may name such a character; then what a text holds and its writer did not escape:
# an "&" that begins no reference XML knows, a "<" that begins no tag, and "]]>".
_ODD = re.compile(rf"&(?P<number>{_NUMBER});|&(?!(?:amp|lt|gt|quot|apos);)|<(?![A-Za-z_/!?])|]]>")
_ESCAPED = {"&": "&amp;", "<": "&lt;", "]]>": "]]&gt;"}
# What may go on in the next piece.
_OPEN_END = re.compile(r"(?:&[#0-9A-Za-z]{0,18}|<(?:!(?:\[[CDAT]{0,5})?)?|]{1,2})\Z")
_LONGEST = 20  # characters of these
_CDATA = ("<![CDATA[", "]]>")


class Repair:
    """Repairs one reply that comes in pieces."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._undecided = ""
        self._in_cdata = False

    def feed(self, piece: bytes, *, last: bool = False) -> bytes:
        """Return what is decided by now, in UTF-8."""
        text = self._undecided + _FORBIDDEN.sub(_UNREADABLE, self._decoder.decode(piece, last))
        done = []
        while (at := text.find(mark := _CDATA[self._in_cdata])) >= 0:
            at += len(mark)
            done.append(self._escaped(text[:at]))
            text, self._in_cdata = text[at:], not self._in_cdata
        open_end = None if last else _OPEN_END.search(text, max(0, len(text) - _LONGEST))
        decided = open_end.start() if open_end else len(text)
        self._undecided = text[decided:]
        return "".join((*done, self._escaped(text[:decided]))).encode()

    def _escaped(self, text: str) -> str:
        return text if self._in_cdata else _ODD.sub(_sane, text)


def _sane(odd: re.Match[str]) -> str:
    if (number := odd["number"]) is None:
        return _ESCAPED[odd[0]]
    code = int(number[1:].replace("x", "0x"), 16 if "x" in number else 10)
    allowed = code < 0x110000 and not _FORBIDDEN.match(chr(code))  # the last code point is 10FFFF
    return odd[0] if allowed else _UNREADABLE
