"""A day in the life of a bridge, made up and lived in a moment: the same for the same seed."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from bridge.model import RUNNING, SUBMITTED, Delivery, Job, Outcome, Rejected, RetryLater, Sent
from bridge.record.database import Database
from bridge.simulator.jobs import Life, a_life
from tests.support.nouns import BUCKET, Clock
from tests.support.rig import ENDS, Rig

NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
RULES = f"""
[alias.queue]
"点播" = "p2242ab62c7c94486915508540933a2c6"
"直播回放" = "p7d03c1e5b8f14f0a9f5d1f6a3c2b7e90"

[[watch]]
name = "media"
bucket = "{BUCKET}"
region = "ap-chongqing"
tags = ["Transcode", "Snapshot", "SpeechRecognition"]

[notifier.ops]
type = "slack"
channel = "C024BE91L"
token = {{ env = "SLACK_BOT_TOKEN" }}

[notifier.cms]
type = "webhook"
url = "https://cms.example.com/hooks/media"
retry = "1h"

[notifier.archive]
type = "webhook"
url = "https://archive.example.com/hooks"

[[rule]]
name = "failed"
to = "Failed"
notify = "ops"

[[rule]]
name = "progress"
match.tag = "Transcode"
notify = "cms"

[[rule]]
name = "thumbnails"
to = "done"
match.tag = "Snapshot"
notify = "cms"

[[rule]]
name = "filed"
to = "Success"
match.queue = "直播回放"
match.tag = "Transcode"
notify = "archive"

[[rule]]
name = "heard"
to = "done"
match.tag = "SpeechRecognition"
notify = "ops"
group = {{ by = ["tag"], wait = "30m" }}
"""
QUEUES = ("p2242ab62c7c94486915508540933a2c6", "p7d03c1e5b8f14f0a9f5d1f6a3c2b7e90")
TAGS = ("Transcode", "Transcode", "Transcode", "Snapshot", "Snapshot", "SpeechRecognition")
BY_HOUR = (9, 14, 12, 16, 18, 15, 17, 13, 10, 8, 6, 4, 3, 2, 2, 1, 2, 3, 5, 8, 12, 15, 17, 19)  # births, from NOW's on
_SLOWER = 40  # than lives of the demo, which somebody watches
_EVERY = timedelta(seconds=137)
_STATUS: Mapping[type[Outcome], int] = {Sent: 204, RetryLater: 500, Rejected: 410}
_CLOSED = timedelta(minutes=50)  # before the end the archive wants no more

Event = tuple[datetime, int, Job]


def lived(db: Database, seed: int = 8) -> Rig:
    """Let the day pass, and return the rig as it stands at NOW."""
    random = Random(seed)
    rig = Rig(db, "", Clock(NOW - timedelta(hours=24)))
    rig.start(RULES, given="", environ={"SLACK_BOT_TOKEN": "xoxb-none"})
    rig.transport.answer = lambda delivery: _answer(delivery, rig.clock())
    rig.transport.status = lambda delivery: _STATUS[type(_answer(delivery, rig.clock()))]
    events = list(_events(random))
    heapq.heapify(events)
    rig.poll()
    while rig.clock() < NOW:
        rig.clock.advance(min(_EVERY, NOW - rig.clock()))
        while events and events[0][0] <= rig.clock():
            rig.ci.has(heapq.heappop(events)[2])
        rig.poll()
        rig.deliver()
    return rig


def _answer(delivery: Delivery, now: datetime) -> Outcome:
    if delivery.notifier == "archive" and now > NOW - _CLOSED:
        return Rejected("the receiver answered 410 Gone: it wants no more deliveries", pause=True)
    if delivery.notifier == "cms" and "unboxing " in delivery.event and '"Success"' in delivery.event:
        return RetryLater("answered 500 Internal Server Error")
    return Sent()


def _events(random: Random) -> Iterator[Event]:
    numbers = itertools.count()
    for hour, births in enumerate(BY_HOUR):
        for _ in range(births):
            born = NOW - timedelta(hours=24 - hour - random.random(), seconds=7)
            yield from _of_life(random, born, numbers)


def _of_life(random: Random, born: datetime, numbers: Iterator[int]) -> Iterator[Event]:
    life = a_life(random, tags=TAGS, queues=QUEUES)
    job = _born(life, f"j{random.getrandbits(128):032x}", born)
    yield born, next(numbers), job
    at, facts = born, dict[str, Any]()
    for seconds, state, details in life.steps:
        at += timedelta(seconds=seconds * _SLOWER)
        facts |= {"started_at": at} if state == RUNNING and "started_at" not in facts else {}
        facts |= {"ended_at": at} if state in ENDS else {}
        total = len(details.get("outputs", ()))
        yield at, next(numbers), replace(job, state=state, outputs_total=total, **details, **facts)


def _born(life: Life, id_: str, at: datetime) -> Job:
    return Job(
        id=id_, bucket=BUCKET, region="ap-chongqing", state=SUBMITTED, tag=life.tag, queue=life.queue,
        created_at=at, **{name: life.details[name] for name in ("input", "output", "user_data")},
    )  # fmt: skip
