"""What every part of the HTTP side works with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from bridge.decide.rulebook import Rulebook
from bridge.record.database import Database


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
