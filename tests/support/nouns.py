"""Nouns for tests: a test names only the facts that matter to it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.read import read
from bridge.decide.text.values import ident
from bridge.model import RUNNING, Job, Transition
from bridge.pipeline.operations import Operations
from bridge.record.database import Database

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def a_job(id: str = "j1", state: str = RUNNING, **facts: Any) -> Job:  # noqa: A002  (the noun's own word)
    return Job(**{"id": id, "bucket": "media-1250000000", "region": "ap-chongqing", "state": state, **facts})


def a_transition(job: Job | None = None, **facts: Any) -> Transition:
    """Return a transition to the job's state; `facts` are those of the transition."""
    job = job or a_job()
    given = {"was": "new", "to": job.state, "sequence": 1, "seen_at": NOON, "watch": "vod"}
    return Transition(job=job, **{**given, **facts})


def by_hand(db: Database, *, now: datetime = NOON, who: str = "ann", nonce: str = "1") -> Operations:
    """Return what a person does; a batch of hers has the id `batch_id(nonce)`."""
    return Operations(db=db, who=who, now=now, nonce=nonce)


def batch_id(nonce: str = "1") -> str:
    return ident("rdr", nonce)


def a_rulebook(text: str, env: Mapping[str, str] | None = None) -> Rulebook:
    """Return the rulebook. `text` may leave out the webhook "hook" that it notifies."""
    if "[notifier." not in text:
        text = f"{text}\n{_HOOK}"
    return read(text, {"HOOK_SECRET": SECRET, **(env or {})})


_HOOK = """\
[notifier.hook]
type = "webhook"
url = "https://cms.example.com/"
secret = { env = "HOOK_SECRET" }
"""
