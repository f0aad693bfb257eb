"""Nouns for tests: a test names only the facts that matter to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.read import read
from bridge.decide.text.values import ident
from bridge.model import (
    RUNNING,
    SUBMITTED,
    Job,
    Message,
    NewDelivery,
    Place,
    Stream,
    Transition,
    Watch,
)
from bridge.pipeline.operations import Operations
from bridge.record.actions import Author
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
    return Operations(db=db, who=Author(who), now=now, nonce=nonce)


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


NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)

BUCKET = "clips-1250000000"

PLACE = Place(bucket=BUCKET, region="ap-chongqing")

LEASE = timedelta(seconds=30)


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def hours(count: float) -> timedelta:
    return timedelta(hours=count)


@dataclass
class Clock:
    """Time that passes only when a test advances it."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now

    def advance(self, by: timedelta) -> None:
        self.now += by


def a_stream(tag: str = "Transcode", **facts: Any) -> Stream:
    return Stream(**{"place": PLACE, "tag": tag, **facts})


def a_watch(*tags: str, name: str = "vod", place: Place = PLACE, **facts: Any) -> Watch:
    streams = tuple(a_stream(tag, place=place) for tag in tags or ("Transcode",))
    return Watch(
        **{"name": name, "place": place, "streams": streams, "every": seconds(30), "lookback": hours(24), **facts}
    )


def a_listed_job(id: str = "j1", state: str = SUBMITTED, **facts: Any) -> Job:  # noqa: A002  (the noun's own word)
    """Return a job of the watch "vod", as a list has it."""
    return a_job(id, state, **{"bucket": BUCKET, "tag": "Transcode", "created_at": NOW, **facts})


def a_step(job: Job, was: str = "new", sequence: int = 1, **facts: Any) -> Transition:
    return Transition(
        **{"job": job, "was": was, "to": job.state, "sequence": sequence, "seen_at": NOW, "watch": "vod", **facts}
    )


def a_message(id: str = "m1", **facts: Any) -> Message:  # noqa: A002  (the noun's own word)
    return Message(
        **{
            "id": id,
            "kind": "transition",
            "title": f"title of {id}",
            "text": "",
            "fields": (),
            "event": {"type": "ci.job.running"},
            "happened_at": NOW,
            **facts,
        }
    )


def new_delivery(id: str, to: str = "cms", key: str | None = None, **facts: Any) -> NewDelivery:  # noqa: A002  (likewise)
    """A delivery to be, by default with a message of its own."""
    return NewDelivery(**{"id": id, "message": a_message(f"m-{id}"), "notifier": to, "ordering_key": key, **facts})
