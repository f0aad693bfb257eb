"""What every part of the HTTP side works with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection

from bridge.decide.rules.rulebook import Rulebook, Ruleset
from bridge.decide.rulesfile.rulesets import thaw
from bridge.pipeline.operations import Operations
from bridge.record import rulesets
from bridge.record.database import Database

BY_API = "api"  # who does what is asked of the API, where nobody else is named


class Loaded:
    """Since when this process serves the rules that it serves."""

    def __init__(self) -> None:
        self._known: tuple[str, datetime] | None = None

    def since(self, sha: str, now: datetime) -> datetime:
        if self._known is None or self._known[0] != sha:
            self._known = (sha, now)
        return self._known[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The record, the rules in force, and what tests hold still."""

    db: Database
    book: Callable[[], Rulebook]
    rules_fault: Callable[[], str | None]  # why the file of this process is not in force
    clock: Callable[[], datetime]
    nonce: Callable[[], str]
    version: str
    environ: Mapping[str, str] = field(repr=False)  # where rules that are tried find their secrets
    rules_note: Callable[[], str | None] = lambda: None  # what else is to be known about it
    loaded: Loaded = field(default_factory=Loaded, repr=False)

    def operations(self, who: str = BY_API) -> Operations:
        """Return what can be done by hand, now, in the name of `who`."""
        return Operations(db=self.db, who=who, now=self.clock(), nonce=self.nonce())

    def in_force(self, tx: Connection) -> Ruleset:
        """Return the rules in force, which may be others than this process has read; those, where nobody knows."""
        sha, book = rulesets.in_force(tx), self.book()
        text = rulesets.text_of(tx, sha) if sha and sha != book.sha else None
        try:
            return thaw(sha, text) if sha and text else book
        except (ValueError, KeyError):  # kept by a version that wrote them in another way
            return book

    def why_not_in_force(self, found: Ruleset) -> str | None:
        """Say why the rules of this process, or its file, are not in force."""
        book = self.book()
        other = f"this process has read other rules ({book.sha}) than those in force ({found.sha})"
        return self.rules_fault() or (other if book.sha != found.sha else None)
