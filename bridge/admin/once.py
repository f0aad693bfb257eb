"""Idempotency-Key: a deed that is asked for again under the same key is not done again, and answered as before.

The answer is stored in the transaction of the deed, so there are both or neither, whenever the process dies and
however many ask at once. What was refused is not stored: it may be asked again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from flask import Request, Response, abort, g, make_response, request
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from bridge.admin import asking
from bridge.admin.parts import Parts
from bridge.admin.problems import Problem
from bridge.record import answered
from bridge.record.answered import Answer, Asked, KeyReused

HEADER = "Idempotency-Key"
LONGEST_KEY = 255
KEY = "[!-~]([ -~]*[!-~])?"  # HTTP takes spaces at its ends away

View = Callable[..., ResponseReturnValue]


def once(parts: Parts, view: View) -> View:
    """Return a view that does nothing again that was done under the key of its request, if it has one."""

    def answer(**places: str) -> ResponseReturnValue:
        asked = _asked(request)
        if asked is None:
            return view(**places)
        return _earlier(parts, asked) or _first(parts, asked, partial(view, **places))

    return answer


class _Deed:
    """What is done under a key: its transaction begins with the first thing that is written."""

    def __init__(self, parts: Parts, asked: Asked, stack: ExitStack) -> None:
        self.tx: Connection | None = None
        self._parts, self._asked, self._stack = parts, asked, stack

    def begin(self) -> Connection:
        if self.tx is None:
            tx = self._stack.enter_context(self._parts.db.write())
            if not answered.take(tx, self._asked, now=self._parts.clock()):
                raise Problem(409, "the same was asked at the same time; ask again")
            self.tx = tx
        return self.tx

    def answered(self, response: Response) -> Response:
        if response.status_code >= 400:
            abort(response)
        if self.tx is not None:  # else it was only asked what would be done
            found = Answer(response.status_code, response.get_data(as_text=True), response.headers.get("Location"))
            answered.keep(self.tx, self._asked, found)
        return response


def _first(parts: Parts, asked: Asked, view: View) -> Response:
    try:
        with ExitStack() as stack:
            g.deed = deed = _Deed(parts, asked, stack)
            return deed.answered(make_response(view()))
    except Problem:
        # Maybe it is refused because another request under this key has done it meanwhile.
        if found := _earlier(parts, asked):
            return found
        raise


def _earlier(parts: Parts, asked: Asked) -> Response | None:
    try:
        with parts.db.read() as tx:
            found = answered.find(tx, asked, now=parts.clock())
    except KeyReused as error:
        raise Problem(422, f"this {HEADER} was used for another request; take a new one for each deed") from error
    if found is None:
        return None
    headers = {"Idempotent-Replayed": "true"} | ({"Location": found.location} if found.location else {})
    return Response(found.body, found.status, headers, content_type="application/json")


def _asked(request: Request) -> Asked | None:
    key = request.headers.get(HEADER)
    if key is None:
        return None
    if len(key) > LONGEST_KEY or not re.fullmatch(KEY, key):
        raise Problem(400, f"{HEADER} is not 1 to {LONGEST_KEY} printable ASCII characters, such as a UUID")
    what = json.dumps([request.method, request.path, request.query_string.decode("latin-1")]).encode()
    return Asked(_digest(f"{g.scope.name}\n{key}".encode()), _digest(what + b"\n" + asking.body(request)))


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()
