"""A job that failed, with all that CI says of one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from bridge.model import FAILED, RUNNING, Transition
from tests.support.nouns import NOON, a_job, a_transition

SECOND = timedelta(seconds=1)
QUEUE = "p2242ab62c7c94486915508540933a2c6"

FINISHED = {
    "id": "j8d1", "tag": "Transcode", "queue": QUEUE, "code": "InvalidArgument", "message": "no such codec",
    "progress": 30, "created_at": NOON - 81 * SECOND, "started_at": NOON - 80 * SECOND, "ended_at": NOON,
    "input": "input/demo.mp4", "output": "out/${ext}", "outputs": ("out/demo.ts",), "outputs_total": 1,
    "template": "t1", "template_name": "hls", "workflow_run": "i1", "user_data": "This is my data.",
}  # fmt: skip


def failed(**facts: Any) -> Transition:
    job = a_job(**{**FINISHED, "state": FAILED, **facts})
    return a_transition(job, was=RUNNING, sequence=3, seen_at=NOON + 5 * SECOND)
