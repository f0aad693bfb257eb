"""CI's callbacks: hints that there may be news of the jobs that they name.

Their address is a secret: CI signs nothing. Whoever knows it can make the bridge ask CI about a job, and nothing else.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from math import ceil

from flask import Response, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import RequestEntityTooLarge

from bridge.admin.auth_throttle import Failures, counted
from bridge.admin.http.problems import HOOKS, Problem
from bridge.admin.http.routes import Endpoints, Route
from bridge.admin.parts import Parts
from bridge.collect.callbacks import CALLBACK_LIMIT, NamedJob, UnreadableCallback, read_callback
from bridge.model import Watch
from bridge.pipeline import callbacks

SHORTEST_SAFE = 20  # characters of a token, random ones: any number of guesses is hopeless


class HooksApi(Endpoints):
    """The endpoints. They need no login; a wrong token gets the answer of an address that does not exist.

    Where the token is right, the answer is 200, also to a body that cannot be read or names no job that is watched:
    whether CI tries again after another answer is not documented, and the same body would come again. It is counted.
    """

    def __init__(self, parts: Parts, tokens: Sequence[str], failures: Failures) -> None:
        """`failures` are of this endpoint alone: queues with an old token must not lock people out."""
        super().__init__(parts)
        self._keys = {_digest(token): len(token) >= SHORTEST_SAFE for token in tokens}
        self._failures = failures

    def routes(self) -> Iterator[Route]:
        for path, name in ((f"{HOOKS}<token>", "callback"), (f"{HOOKS}<token>/<watch>", "callback_of_watch")):
            yield Route(
                path=path, view=self.take, name=name, method="POST", public=True, done=200, json=False,
                takes=("application/xml", "application/json"), refuses=(404, 413, 429, 503),
                summary="takes a callback of CI, as a hint to ask about its jobs",
            )  # fmt: skip

    def take(self, token: str, watch: str | None = None) -> ResponseReturnValue:
        self._require(token)
        watches = self.parts.book().watches
        about = next((one for one in watches if one.name == watch), None)
        try:
            named = _body()
        except RequestEntityTooLarge:
            self._count("too_large")
            raise Problem(413, f"a callback is at most {CALLBACK_LIMIT} bytes") from None
        except UnreadableCallback:
            self._count("unreadable")
        else:
            if watch is not None and about is None:
                self._count("unknown_watch")
            else:
                self._store(named, about)
        return Response("ok\n", content_type="text/plain; charset=utf-8")

    def _require(self, token: str) -> None:
        """Raise Problem 404 unless this is one of the tokens, and 429 after too many wrong ones.

        Others who call from the same address, such as queues with an old token, do not lock out who has one that cannot
        be guessed.
        """
        if not self._keys:
            raise _nothing()
        digest = _digest(token)
        # All are compared, so that the time taken reveals nothing.
        found = [is_safe for key, is_safe in self._keys.items() if hmac.compare_digest(digest, key)]
        if any(found):
            return
        sources = counted(request.remote_addr, request.headers.get("X-Forwarded-For", ""))
        if wait_s := self._failures.wait_s(sources):
            raise Problem(429, "too many wrong addresses", headers={"Retry-After": str(ceil(wait_s))})
        if not found:
            self._failures.add(sources)
            raise _nothing()

    def _store(self, named: list[NamedJob], about: Watch | None) -> None:
        now = self.parts.clock()
        with self.parts.db.write() as tx:
            callbacks.take(tx, named, self.parts.book().watches, about=about, now=now)

    def _count(self, outcome: callbacks.Outcome) -> None:
        with self.parts.db.write() as tx:
            callbacks.count(tx, outcome, now=self.parts.clock())


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()


def _nothing() -> Problem:
    return Problem(404, "there is nothing here")


def _body() -> list[NamedJob]:
    """Return what the body names. Raises UnreadableCallback and RequestEntityTooLarge."""
    request.max_content_length = CALLBACK_LIMIT
    return read_callback(request.get_data(cache=False))
