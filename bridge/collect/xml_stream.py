"""Parses CI's XML while it arrives and repairs it. Only what the bridge reads is kept; each job is passed on at once.

What XML 1.0 forbids in a text is replaced; structure is left as it is. Memory is bounded by what is kept of one job.
"""

from __future__ import annotations

import codecs
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat

from bridge.collect.errors import BrokenReply, UnreadableReply

# --- repair: what XML 1.0 forbids in a text is replaced, structure is left as it is ---------------------------------

_UNREADABLE = "\N{REPLACEMENT CHARACTER}"
_FORBIDDEN = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_NUMBER = r"#(?:x[0-9A-Fa-f]{1,16}|[0-9]{1,16})"
# A reference by number, which may name such a character; then what a text holds and its writer did not escape:
# an "&" that begins no reference XML knows, a "<" that begins no tag, and "]]>".
_ODD = re.compile(rf"&(?P<number>{_NUMBER});|&(?!(?:amp|lt|gt|quot|apos);)|<(?![A-Za-z_/!?])|]]>")
_ESCAPED = {"&": "&amp;", "<": "&lt;", "]]>": "]]&gt;"}
# What may go on in the next piece.
_OPEN_END = re.compile(r"(?:&[#0-9A-Za-z]{0,18}|<(?:!(?:\[[CDAT]{0,5})?)?|]{1,2})\Z")
_LONGEST_OPEN_END = 20  # characters of these
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
        open_end = None if last else _OPEN_END.search(text, max(0, len(text) - _LONGEST_OPEN_END))
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


# --- reading --------------------------------------------------------------------------------------------------------

TEXT_KEPT = 8_192  # characters of one text: more than is kept of any field, white space around it included
JOB_LIMIT = 8 * 2**20  # of what is kept of one job: the names of some 60,000 files
_AN_ELEMENT = 64  # the size of one, beside its text
_MOST_BESIDES = 1_000  # elements of a reply that are not jobs
_LONGEST_TAG = 2**20  # bytes; expat keeps one until it is whole, and looks through it again with every piece

# What is read, by tag. None is a text.
Kept = Mapping[str, Any]
_FILES: Kept = {"ObjectName": None}
_OPERATION: Kept = {
    **dict.fromkeys(("Tag", "TemplateId", "TemplateName", "JobLevel", "UserData")),
    "Output": {"Object": None},
    "MediaResult": {"OutputFile": {**_FILES, "SpriteOutputFile": _FILES}},
    "PicProcessResult": _FILES,
}
_TIMES = ("CreationTime", "StartTime", "EndTime")
_JOB: Kept = {
    **dict.fromkeys(("JobId", "State", "Tag", "QueueId", "Code", "Message", "Progress", *_TIMES)),
    "Input": {"Object": None, "Url": None, "Vod": {"FileId": None}},
    "Operation": _OPERATION,
    "Workflow": dict.fromkeys(("WorkflowId", "WorkflowName", "RunId")),
}
RESPONSE: Kept = {"Response": {"JobsDetail": _JOB, "NextToken": None, "NonExistJobIds": None}}
ERROR: Kept = {"Error": dict.fromkeys(("Code", "Message", "RequestId"))}

OnJob = Callable[[ET.Element, bool], None]  # with whether it was over JOB_LIMIT: then only its id is there


@dataclass(slots=True)
class _Open:
    """An element that has not ended; `texts` are those of a leaf."""

    element: ET.Element
    kept: Kept | None
    texts: list[str] = field(default_factory=list)
    length: int = 0


class XmlStream:
    """One reply, fed in pieces; `root` has what is kept of it, less its jobs.

    Raises UnreadableReply, and once the reply began as it should, BrokenReply.
    """

    def __init__(self, kept: Kept, on_job: OnJob = lambda *_: None) -> None:
        self._kept, self._on_job = kept, on_job
        self.root: ET.Element | None = None
        self._open: list[_Open] = []
        self._skipping = 0  # how deep we are in what is not kept
        self._job_size, self._is_empty = 0, True  # of the job that is open
        self._repair, self._fed = Repair(), 0
        self._parser = expat.ParserCreate("utf-8")
        self._parser.buffer_text = True
        self._parser.StartDoctypeDeclHandler = _refuse_doctype
        self._keep()

    def _keep(self) -> None:
        parser = self._parser
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.CharacterDataHandler = self._text

    def _skip(self) -> None:
        """Go past an element; the text of a leaf goes on in it."""
        parser = self._parser
        parser.StartElementHandler, parser.EndElementHandler = self._skipped_start, self._skipped_end
        if self._open[-1].kept is not None:
            parser.CharacterDataHandler = None
        self._skipping = 1

    def _skipped_start(self, _name: str, _attributes: object) -> None:
        self._skipping += 1

    def _skipped_end(self, _name: str) -> None:
        self._skipping -= 1
        if not self._skipping:
            self._keep()

    @property
    def depth(self) -> int:
        return len(self._open) + self._skipping

    @property
    def open_job(self) -> ET.Element | None:
        """The job that has begun and not ended."""
        return self._open[1].element if len(self._open) > 1 else None

    def feed(self, piece: bytes, *, last: bool = False) -> None:
        text = self._repair.feed(piece, last=last)
        self._fed += len(text)
        try:
            self._parser.Parse(text, last)
        except expat.ExpatError as error:
            kind = UnreadableReply if self.root is None else BrokenReply
            raise kind(f"the reply is broken or cut off: {expat.ErrorString(error.code)}") from None
        if self._fed - self._parser.CurrentByteIndex > _LONGEST_TAG + len(text):
            raise BrokenReply(f"the reply is broken: it has a tag of more than {_LONGEST_TAG // 2**20} MB")

    def _start(self, name: str, _attributes: object) -> None:
        tag = name.rpartition(":")[2]
        if not self._is_kept(tag):
            self._skip()
            return
        element = ET.Element(tag)
        if not self._open:
            self.root, kept = element, self._kept
        else:
            parent = self._open[-1]
            kept = parent.kept or {}
            if tag != "JobsDetail":
                parent.element.append(element)
        self._open.append(_Open(element, kept[tag]))

    def _is_kept(self, tag: str) -> bool:
        match self._open:
            case []:
                if tag not in self._kept:
                    raise UnreadableReply(f"the reply is a <{tag}>, not a <{'> or <'.join(self._kept)}>")
                return True
            case [root]:
                self._job_size, self._is_empty = 0, True
                return tag in (root.kept or ()) and len(root.element) < _MOST_BESIDES
            case [_, job, *inner]:
                self._is_empty = False
                if tag not in (self._open[-1].kept or ()):
                    return False
                self._job_size += _AN_ELEMENT
                return self._job_size <= JOB_LIMIT or (tag == "JobId" and not inner and job.element.find(tag) is None)
        return False

    def _text(self, text: str) -> None:
        leaf = self._open[-1]
        if leaf.kept is None and leaf.length < TEXT_KEPT:
            leaf.texts.append(text[: TEXT_KEPT - leaf.length])
            leaf.length += len(leaf.texts[-1])
            self._job_size += len(leaf.texts[-1])

    def _end(self, _name: str) -> None:
        ended = self._open.pop()
        ended.element.text = "".join(ended.texts)
        if ended.element.tag == "JobsDetail" and not self._is_empty:
            self._on_job(ended.element, self._job_size > JOB_LIMIT)


def _refuse_doctype(*_declared: object) -> None:
    raise UnreadableReply("the reply has a document type declaration, which CI never sends")
