"""The rules of a bridge with much to do, and the texts that its workers would store of a job."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, select, update

from bridge.decide.routing import route
from bridge.decide.rules.gates import Gates
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.read import read
from bridge.model import CANCEL, FAILED, GONE, RUNNING, SUBMITTED, SUCCESS, Job, Transition
from bridge.record import counters
from bridge.record.codec import dump_job
from bridge.record.counters import Count
from bridge.record.database import Database, ms
from bridge.record.outbox import entries
from bridge.record.polling import leases
from bridge.record.schema import DEAD, deliveries, messages, state_is

BUCKET = "bench-1250000000"
TAGS = ("Transcode", "Snapshot", "MediaInfo", "SmartCover", "VideoTag")  # the last of each is rare
QUEUES = ("p2242ab62c7c94486915508540933a2c6", "p4a1c4f3a7c1b4a55a5c6e0d1d9ee1b0a", "p9e107d9d372bb6826bd81d3542a419d6")
NOTIFIERS = ("cms", "ops", "audit", "pager")
RULES = (*(f"rule {number}" for number in range(9)), "rare rule")
BATCH = "rdr_of_the_benchmark"
STATES = (SUBMITTED, RUNNING, SUCCESS, FAILED, CANCEL, GONE)

_MOVES = (("new", SUBMITTED), (SUBMITTED, RUNNING), *((RUNNING, end) for end in (SUCCESS, FAILED, CANCEL, GONE)))

# What stands in the texts for that of each job.
ID, TAG, QUEUE = "j-id", "Tag-of-it", "queue-of-it"
_CREATED = datetime(2026, 6, 1, 8, tzinfo=UTC)
_TIMES = (_CREATED, _CREATED + timedelta(minutes=1), _CREATED + timedelta(minutes=2))
DETAIL_TIMES = tuple(str(ms(moment)) for moment in _TIMES)

_NOTIFIER = '[notifier.{0}]\ntype = "webhook"\nurl = "https://{0}.example.com/"\n'
_RULE = '[[rule]]\nname = "{}"\nnotify = {}\n'
_WATCH = '[[watch]]\nname = "bench"\nbucket = "{}"\nregion = "ap-chongqing"\ntags = {}\n'


def rulebook() -> Rulebook:
    notifiers = "".join(map(_NOTIFIER.format, NOTIFIERS))
    rules = "".join(_RULE.format(name, json.dumps(NOTIFIERS)) for name in RULES)
    return read(_WATCH.format(BUCKET, json.dumps(TAGS)) + notifiers + rules, {})


def at_work(db: Database, book: Rulebook, now: datetime) -> None:
    """Note that a worker lives, knows the rules, and has just polled."""
    with db.write() as tx:
        leases.sync(tx, book.watches, [(one, "webhook") for one in book.notifiers.values()])
        leases.register(tx, "w1", machine="m", pid=1, now=now)
        leases.beat(tx, "w1", now=now, rules_sha=book.sha, rules_fault=None)
        later = now + timedelta(seconds=30)
        leases.polled(tx, "bench", began=now, next_poll=later, error=None, failures=0, calls=5, jobs=500)


def tally(db: Database, days: int, now: datetime) -> None:
    """Count what a bridge counts, and leave of it what there is after so many days."""
    counted = [
        *(Count("transition", (tag, queue, was, to), 0, 7) for tag in TAGS for queue in QUEUES for was, to in _MOVES),
        *(Count("delivery", (name, "delivered"), bucket, 20, 40_000) for name in NOTIFIERS for bucket in range(6)),
        *(Count("delivery", (name, end), 0, 1) for name in NOTIFIERS for end in ("dead", "merged", "dropped")),
        *(Count("detected", ("bench",), bucket, 9, 90_000) for bucket in range(5)),
        Count("call", ("bench",), 0, 20),
    ]
    for slot in _slots(now, days):
        with db.write() as tx:
            counters.add(tx, counted, now=slot)
    others = [
        *(Count("match", (rule,), 0, 9) for rule in RULES),
        *(Count("attempt", (name, "ok"), bucket, 50, 9_000) for name in NOTIFIERS for bucket in range(5)),
        *(Count("job_duration", (tag, queue, SUCCESS), 4, 9, 900_000) for tag in TAGS for queue in QUEUES),
        Count("poll", ("ap-chongqing", "ok"), 3, 99, 40_000),
    ]
    with db.write() as tx:
        counters.add(tx, others, now=now)
        resent = select(deliveries.c.n).where(state_is(DEAD)).limit(1_000)  # and died again
        tx.execute(update(deliveries).where(deliveries.c.n.in_(resent)).values(batch=BATCH))


def _slots(now: datetime, days: int) -> Iterator[datetime]:
    """Return the beginnings of the spans that are left: of five minutes, of an hour, of a quarter of a day."""
    hour = now.replace(minute=0, second=0, microsecond=0)
    midnight = hour.replace(hour=0)
    yield from (hour + timedelta(minutes=5 * place) for place in range(now.minute // 5 + 1))
    yield from (hour - timedelta(hours=back) for back in range(1, min(48, 24 * days)))
    yield from (midnight - timedelta(hours=6 * back) for back in range(8, 4 * days))


def texts(db: Database, now: datetime) -> dict[str, str]:
    """Return what would be stored of a job in each state, by the real functions: detail_Success, event_Success, ..."""
    book, found = rulebook(), dict[str, str]()
    for state in STATES:
        job = _job(state)
        step = Transition(job=job, was=RUNNING, to=state, sequence=3, seen_at=_TIMES[2], watch="bench")
        gates = Gates(mutes=(), silences=(), zone=book.zone, now=now)
        one = route(step, book, gates).deliveries[0]
        with db.write() as tx:
            entries.put(tx, [one], now=now)
            row = tx.execute(select(messages.c.event, messages.c.says)).one()
            tx.execute(delete(deliveries))
            tx.execute(delete(messages))
        found |= {f"detail_{state}": dump_job(job), f"event_{state}": row.event, f"says_{state}": row.says}
    return found


def _job(state: str) -> Job:
    ended = state in (SUCCESS, FAILED, CANCEL)
    return Job(
        id=ID,
        bucket=BUCKET,
        region="ap-chongqing",
        state=state,
        tag=TAG,
        queue=QUEUE,
        code="TranscodeFailed" if state == FAILED else None,
        message="the input cannot be decoded" if state == FAILED else None,
        progress=100 if state == SUCCESS else 0,
        created_at=_TIMES[0],
        started_at=_TIMES[1] if state != SUBMITTED else None,
        ended_at=_TIMES[2] if ended else None,
        input=f"incoming/2026/06/01/{ID}.mov",
        output=f"published/{ID}.mp4",
        outputs=(f"published/{ID}.mp4",) if state == SUCCESS else (),
        outputs_total=1 if state == SUCCESS else 0,
        template="t1460606b9752148c4ab182f55163ba7cd",
        user_data="course=media-101;asset_id=4711",
    )
