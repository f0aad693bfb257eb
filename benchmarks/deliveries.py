"""New deliveries of simulated jobs that ended, with real messages of about 1.5 kB."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from bridge.decide.routing import route
from bridge.decide.rules.gates import Gates
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.read import read
from bridge.model import RUNNING, SUCCESS, Job, NewDelivery, Transition

BUCKET, REGION, TAG = "bench-1250000000", "ap-chongqing", "Transcode"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
_RULES = """
[[watch]]
name = "bench"
bucket = "{bucket}"
region = "{region}"
tags = ["{tag}"]

[notifier.hook]
type = "webhook"
url = "{url}"
secret = {{ env = "SECRET" }}
max_in_flight = {in_flight}

[[rule]]
name = "all"
notify = "hook"
"""


def rules_text(url: str, *, in_flight: int = 16) -> str:
    return _RULES.format(bucket=BUCKET, region=REGION, tag=TAG, url=url, in_flight=in_flight)


def rulebook(url: str, *, in_flight: int = 16) -> Rulebook:
    """Return rules with one watch and one webhook that gets everything."""
    return read(rules_text(url, in_flight=in_flight), {"SECRET": SECRET})


def new_deliveries(book: Rulebook, numbers: range, *, note: str = "") -> Iterator[NewDelivery]:
    """Return one delivery for each number, each of a job of its own, with `note` in its body."""
    for number in numbers:
        step = _ended(number, note)
        (delivery,) = route(step, book, Gates(mutes=(), silences=(), zone=book.zone, now=step.seen_at)).deliveries
        yield delivery


def _ended(number: int, note: str) -> Transition:
    ended = datetime(2026, 6, 1, 12, tzinfo=UTC)
    job = Job(
        id=f"j{number:032x}",
        bucket=BUCKET,
        region=REGION,
        state=SUCCESS,
        tag=TAG,
        queue="p2242ab62c7c94486915508540933a2c6",
        progress=100,
        created_at=ended - timedelta(minutes=4),
        started_at=ended - timedelta(minutes=3),
        ended_at=ended,
        input=f"incoming/2026/06/01/lecture-{number:06}.mov",
        output=f"published/lecture-{number:06}.mp4",
        outputs=(f"published/lecture-{number:06}.mp4",),
        outputs_total=1,
        template="t1460606b9752148c4ab182f55163ba7cd",
        user_data=note + "course=media-101;" * 29,
    )
    return Transition(job=job, was=RUNNING, to=SUCCESS, sequence=2, seen_at=ended, watch="bench")
