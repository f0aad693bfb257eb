"""Callbacks of the simulated CI: a job that has finished is posted to a URL, in the XML or JSON of CI's documents."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import urllib.error
import urllib.request
from typing import Any, Literal, Self
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

MOST_WAITING = 10_000
_TIMEOUT_S = 5.0
_REPEATED = frozenset(("CosHeaders", "ObjectName", "Md5Info"))  # an array in JSON, however many there are

Format = Literal["xml", "json"]


def callback_body(details: ET.Element, kind: Format = "xml") -> bytes:
    """Return the body of TaskFinish for the JobsDetail of a job."""
    if kind == "json":
        return json.dumps({"EventName": "TaskFinish", "JobsDetail": [_tree(details)]}).encode()
    response, event = ET.Element("Response"), ET.Element("EventName")
    event.text = "TaskFinish"
    response.extend((event, details))
    return ET.tostring(response, encoding="unicode").encode()


def _tree(element: ET.Element) -> Any:
    if not len(element):
        return int(element.text or 0) if element.tag == "JobLevel" else element.text or ""
    tree: dict[str, Any] = {}
    for child in element:
        if child.tag in _REPEATED:
            tree.setdefault(child.tag, []).append(_tree(child))
        else:
            tree[child.tag] = _tree(child)
    return tree


class CallbackSender:
    """Posts bodies to one URL of this machine, from `with` to its end, one after the other and each once.

    CI documents no repetition, so there is none: what is refused is lost, and so is what comes while MOST_WAITING wait.
    """

    def __init__(self, url: str) -> None:
        if urlsplit(url).hostname not in ("127.0.0.1", "localhost", "::1"):
            raise ValueError(f"{url} is not on this machine")
        self.url = url
        self.sent: list[int] = []  # the statuses of the answers; 0: there was none
        self._waiting: queue.Queue[bytes | None] = queue.Queue(MOST_WAITING)
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._thread = threading.Thread(target=self._send, name="callbacks", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
            self._thread.join(_TIMEOUT_S)

    def put(self, body: bytes) -> None:
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(body)

    def _send(self) -> None:
        while (body := self._waiting.get()) is not None:
            request = urllib.request.Request(self.url, data=body, method="POST")  # noqa: S310  (our own machine)
            request.add_header("Content-Type", "application/xml")  # it is not documented what CI sends
            try:
                with self._opener.open(request, timeout=_TIMEOUT_S) as answer:
                    self.sent.append(answer.status)
            except urllib.error.HTTPError as error:
                self.sent.append(error.code)
            except OSError:
                self.sent.append(0)
