"""Parses CI's XML of queues: https://www.tencentcloud.com/document/product/1045/72939, read 2026-11-30."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from contextlib import suppress
from dataclasses import dataclass

from bridge.collect.errors import BrokenReply, UnreadableReply
from bridge.collect.jobs_xml import BEGINNING, LONGEST_WORD, refuse_other_formats
from bridge.collect.xml_stream import Kept, XmlStream
from bridge.display import clamp
from bridge.model import Queue

_REPLY_LIMIT = 2**20  # bytes of one reply: a queue has some 600
_QUEUES: Kept = {"Response": {"TotalCount": None, "QueueList": dict.fromkeys(("QueueId", "Name", "State"))}}


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePage:
    """One answer with queues; `total` is how many there are in all, if CI says so."""

    queues: tuple[Queue, ...]
    total: int | None = None


class QueueReader:
    """Reads one reply of status 200 while it arrives. Raises UnreadableReply, BrokenReply among them."""

    def __init__(self) -> None:
        self._stream = XmlStream(_QUEUES)
        self._length = 0
        self.beginning: bytes | None = None

    def feed(self, piece: bytes) -> None:
        self._length += len(piece)
        if self._length > _REPLY_LIMIT:
            raise BrokenReply(f"the reply is longer than {_REPLY_LIMIT // 2**20} MB")
        if self.beginning is None:
            self.beginning = piece[:BEGINNING]
            refuse_other_formats(self.beginning)
        self._stream.feed(piece)

    def close(self) -> QueuePage:
        """Return the content of the whole reply."""
        if self.beginning is None:
            refuse_other_formats(b"")
        self._stream.feed(b"", last=True)
        elements = tuple(self._stream.root) if self._stream.root is not None else ()
        found = (_read(element) for element in elements if element.tag == "QueueList")
        total = next((element.text or "" for element in elements if element.tag == "TotalCount"), "").strip()
        is_number = len(total) <= 9 and total.isascii() and total.isdigit()
        return QueuePage(queues=tuple(queue for queue in found if queue), total=int(total) if is_number else None)

    def cut_off(self, what: str) -> BrokenReply | None:
        """Return the error for an incomplete reply; None if what arrived is not CI's XML."""
        with suppress(UnreadableReply):
            self._stream.feed(b"")
        return None if self._stream.root is None else BrokenReply(what)


def _read(element: ET.Element) -> Queue | None:
    """Return a queue; None if it has no usable id, or no name: there is nothing to show then."""
    texts = {child.tag: " ".join((child.text or "").split()) for child in element}
    queue_id, name, state = (texts.get(tag, "") for tag in ("QueueId", "Name", "State"))
    if not queue_id or len(queue_id) > LONGEST_WORD:
        return None
    return Queue(id=queue_id, name=clamp(name, LONGEST_WORD), state=clamp(state, LONGEST_WORD))
