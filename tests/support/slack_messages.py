"""Twelve typical messages, made by the parts that make them, for pictures of how Slack shows them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from bridge.decide.messages.build import build, delivery_to, gathered, test_message
from bridge.decide.messages.digest import Digest, Member, digest_delivery
from bridge.decide.routing import workflow_message
from bridge.decide.rules.matching import LevelEvent
from bridge.decide.rules.rulebook import MessageTemplate
from bridge.links import Links
from bridge.model import Delivery, Gate, Job, NewDelivery, Transition
from bridge.notifiers import SlackNotifier
from bridge.record.outbox.entries import content_of

NOW = datetime(2026, 11, 21, 19, 4, 30, tzinfo=UTC)  # 3:04 in Shanghai
LINKS = Links("https://bridge.example.com")
QUEUE = "p2242ab62c7c94486915508540933a2c6"
OPS = SlackNotifier(name="ops", channel="C024BE91L", token="xoxb-none")
_MINUTE = timedelta(minutes=1)
_JOB = Job(
    id="j8d121c2ec9fd4a5bb6b6f0c9a3e4d5f6", bucket="media-1250000000", region="ap-chongqing", state="Running",
    tag="Transcode", queue=QUEUE, input="uploads/2026/11/keynote-day-2_final.mov", created_at=NOW - 5 * _MINUTE,
    started_at=NOW - 4 * _MINUTE,
)  # fmt: skip
_FAILED = {
    "state": "Failed", "ended_at": NOW - timedelta(seconds=20), "code": "InvalidFile",
    "message": "moov atom not found: the file was probably cut off while it was uploaded",
}  # fmt: skip
_DONE = {"state": "Success", "ended_at": NOW - timedelta(seconds=20)}
_STUCK = LevelEvent(state="Running", since=NOW - 31 * _MINUTE, after=30 * _MINUTE)


def messages() -> Iterator[tuple[str, Delivery]]:
    """Yield twelve messages, each with its name."""
    yield "started", _of_job("encoding", was="Submitted")
    yield "done", _of_job("finished", **_DONE)
    yield "failed", _of_job("failed", **_FAILED)
    running = {"created_at": NOW - 33 * _MINUTE, "started_at": NOW - 31 * _MINUTE, "input": "uploads/interview.mp4"}
    yield "stuck", _of_job("stuck", **running, progress=40, level_event=_STUCK)
    recovered = replace(_STUCK, recovered=True)
    yield "recovered", _of_job("stuck", **running | _DONE, level_event=recovered)
    late = replace(_of_job("failed", **_FAILED), happened_at=NOW - timedelta(hours=3, minutes=12))
    yield "late", late
    yield "not delivered", _not_delivered()
    yield "digest of a rule", _digest("group", "snapshots", label=[["queue", "vod"]])
    yield "flood", _digest("flood", "slack channel C024BE91L", counts={"Failed": 812, "Success": 3})
    yield "root of a workflow", _workflow()
    yield "test", _delivery(delivery_to(test_message("ops", nonce="1", now=NOW, links=LINKS), OPS))
    mention = ("U024BE7LH", "S0123ABC", "here")
    yield "mention", _of_job("failed", **_FAILED | {"input": "live/预告片 <final>.mp4"}, mention=mention)


def _of_job(
    rule: str, *, was: str = "Running", level_event: LevelEvent | None = None, mention: Any = (), **facts: Any
) -> Delivery:
    job = replace(_JOB, **facts)
    step = Transition(job=job, was=was, to=job.state, sequence=3, seen_at=NOW, watch="vod")
    built = build(step, rule, MessageTemplate(), {QUEUE: "vod"}, level_event=level_event, links=LINKS, mention=mention)
    return _delivery(delivery_to(built.message, OPS))


def _delivery(new: NewDelivery) -> Delivery:
    content = content_of(new.message)
    return Delivery(
        n=1, id=new.id, notifier=new.notifier, attempts=1, lease="l", happened_at=content.happened_at,
        event=content.event, says=content.says, note=new.note,
    )  # fmt: skip


_REASONS = ["moov atom not found"] * 4 + ["no such codec (InvalidArgument)"]
_FILES = ("lecture-{:02}.mov", "intro-{}.mp4", "课程-{:02}.mp4", "seminar-{}.mov", "teaser-{}.avi")


def _members(counts: dict[str, int]) -> list[Member]:
    found = []
    for state, count in counts.items():
        for n in range(count):
            file, reason = (
                _FILES[n % 5].format(n + 1),
                _REASONS[n % 5] if state == "Failed" else "took 31 s after waiting 2 s",
            )
            at = NOW - (9 - n % 5) * _MINUTE
            facts = {"job_id": f"j{n}", "bucket": _JOB.bucket, "sequence": 3, "state": state, "happened_at": at}
            found.append(Member(**facts, title=f"Transcode {state}: {file}", text=reason, file=file))
    return found


def _digest(gate: Gate, name: str, *, label: Any = None, counts: dict[str, int] | None = None) -> Delivery:
    counts = counts or {"Failed": 5, "Success": 37}
    digest = Digest(
        n=1, gate=gate, name=name, notifier="ops", label=json.dumps(label) if label else None, channel=None,
        opened_at=NOW - 10 * _MINUTE, due_at=NOW, passed=0, counts=counts, first=_members(counts), origin="msg_1",
    )  # fmt: skip
    return _delivery(digest_delivery(digest, None, now=NOW, links=LINKS))


def _not_delivered() -> Delivery:
    hold = gathered("assets", "answered 500 Internal Server Error", status=500, now=NOW)
    return _digest(hold.gate, hold.name, label=json.loads(hold.label), counts={"Failed": 5, "Success": 9})


def _workflow() -> Delivery:
    job = replace(_JOB, **_FAILED, workflow_run="i1", workflow_name="HLS ladder")
    step = Transition(job=job, was="Running", to=job.state, sequence=3, seen_at=NOW, watch="vod")
    message = build(step, "ladder", MessageTemplate(), {QUEUE: "vod"}, links=LINKS).message
    states = {"j1": "Success", "j2": "Success", "j3": "Success", "j4": "Running", "j5": "Running", "j6": "Failed"}
    return _delivery(delivery_to(workflow_message(step, message, states), OPS))
