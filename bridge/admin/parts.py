"""What every part of the HTTP side works with: the record, the rules in force, the clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection

from bridge.decide.rules.rulebook import Rulebook, Ruleset
from bridge.decide.rulesfile.rulesets import ruleset_from_text
from bridge.pipeline.operations import Operations
from bridge.record import rulesets
from bridge.record.actions import Author
from bridge.record.database import Database
from bridge.record.polling import queues


class Loaded:
    """Since when this process serves its rules."""

    def __init__(self) -> None:
        self._known: tuple[str, datetime] | None = None

    def since(self, sha: str, now: datetime) -> datetime:
        if self._known is None or self._known[0] != sha:
            self._known = (sha, now)
        return self._known[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What an application is made of; tests replace the clock and the randomness."""

    db: Database
    book: Callable[[], Rulebook]
    rules_fault: Callable[[], str | None]  # why this process's file is not in force
    clock: Callable[[], datetime]
    nonce: Callable[[], str]
    version: str
    environ: Mapping[str, str] = field(repr=False)  # where rules that are tried find their secrets
    rules_note: Callable[[], str | None] = lambda: None  # what else is to be known about it
    loaded: Loaded = field(default_factory=Loaded, repr=False)

    def operations(self, who: Author) -> Operations:
        """Return what can be done manually, now, in the name of `who`."""
        return Operations(db=self.db, who=who, now=self.clock(), nonce=self.nonce())

    def in_force(self, tx: Connection) -> Ruleset:
        """Return the rules in force, which this process may not have read yet; its own, if those are unknown."""
        sha, book = rulesets.in_force(tx), self.book()
        text = rulesets.text_of(tx, sha) if sha and sha != book.sha else None
        try:
            return ruleset_from_text(sha, text) if sha and text else book
        except (ValueError, KeyError):  # stored by a version with another format
            return book

    def queue_names(self, tx: Connection) -> Mapping[str, str]:
        """Return the names of queues by id: an alias of rules.toml comes before CI's own name."""
        return {**queues.names(tx), **self.book().queue_names}

    def why_not_in_force(self, rules: Ruleset) -> str | None:
        """Return why the rules of this process, or its file, are not in force."""
        book = self.book()
        other = f"this process has read other rules ({book.sha}) than those in force ({rules.sha})"
        return self.rules_fault() or (other if book.sha != rules.sha else None)


class Reloading:
    """The rules in a process that only serves requests: a request reloads the file, at most every `every_s` seconds.

    Not for a process with a worker: that one reloads by itself, and must be the one to see the change.
    """

    def __init__(
        self,
        book: Callable[[], Rulebook],
        check_file: Callable[[float], object],
        *,
        every_s: float = 5.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`check_file` is called with the time; a wrong file changes nothing."""
        self._book = book
        self._check_file = check_file
        self._every_s = every_s
        self._monotonic = monotonic
        self._next = monotonic() + every_s
        self._lock = threading.Lock()

    def book(self) -> Rulebook:
        # While another request reads the file, the old rules are used.
        if self._monotonic() >= self._next and self._lock.acquire(blocking=False):
            try:
                now_s = self._monotonic()
                self._next = now_s + self._every_s
                self._check_file(now_s)
            finally:
                self._lock.release()
        return self._book()
