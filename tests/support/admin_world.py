"""A record with jobs, transitions and deliveries, made through the functions that workers use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count

from flask import Flask
from flask.testing import FlaskClient
from jinja2.bccache import Bucket, BytecodeCache

from bridge.admin import create_app
from bridge.decide.routing import RoutingResult
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.masked import masked
from bridge.decide.rulesfile.read import read
from bridge.model import (
    FAILED,
    NEW,
    Attempt,
    IncidentJob,
    IncidentKey,
    Job,
    JobProblem,
    Outcome,
    Queue,
    Rejected,
    Sent,
    Silence,
    Transition,
)
from bridge.pipeline.route import route_all
from bridge.record import incidents, rulesets
from bridge.record.database import Database
from bridge.record.incidents import NewKey
from bridge.record.outbox import claims, results
from bridge.record.outbox.results import Ended
from bridge.record.polling import leases, problems, queues, snapshots
from bridge.record.queries import gauges, lists
from bridge.record.queries.lists import Facts, Filter
from bridge.send.integration import Egress
from tests.support.nouns import NOON, SECRET, a_job


def _no_egress() -> AbstractContextManager[Egress]:
    raise AssertionError("nothing is sent in this test")


class Pages(BytecodeCache):
    """The compiled templates of pages, for one application after the other."""

    def __init__(self) -> None:
        self._code: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if bucket.key in self._code:
            bucket.bytecode_from_string(self._code[bucket.key])

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._code[bucket.key] = bucket.bytecode_to_string()


_PAGES = Pages()
BUCKET = "media-1250000000"
ADMIN, READ, CALLBACK = "admin-token-of-the-tests", "read-token-of-the-tests", "callback-token-of-the-tests"
SECRETS = (
    SECRET.removeprefix("whsec_"), "xoxb-hush-hush", "path-is-secret", "key=in-the-query", "header-is-secret",
    ADMIN, READ, CALLBACK,
)  # fmt: skip
RULES = """
[alias.queue]
vod = "p224"

[[watch]]
name = "vod"
bucket = "media-1250000000"
region = "ap-chongqing"
tags = ["Transcode", "Snapshot"]
queues = ["vod"]

[notifier.cms]
type = "webhook"
url = "https://cms.example.com:8443/path-is-secret?key=in-the-query"
secret = { env = "CMS_SECRET" }
headers = { "X-Key" = { env = "CMS_HEADER" } }

[notifier."ops/1"]
type = "slack"
channel = "C024BE91L"
token = { env = "SLACK_BOT_TOKEN" }
thread = "job"

[[rule]]
name = "failed"
to = "Failed"
match.tag = ["Transcode", "!Snapshot"]
match.duration = "> 45m"
match.user_data.asset_id = true
notify = "ops/1"
stop = true

[[rule]]
name = "all"
notify = "cms"
"""
ENVIRON = {"CMS_SECRET": SECRET, "CMS_HEADER": "header-is-secret", "SLACK_BOT_TOKEN": "xoxb-hush-hush"}


def a_book(rules: str = RULES) -> Rulebook:
    return read(rules, ENVIRON)


def job_number(number: int, **facts: object) -> Job:
    return a_job(**{"id": f"j{number}", "tag": "Transcode", "queue": "p224", "created_at": NOON, **facts})


@dataclass
class World:
    """One database, one rulebook, one clock that tests move by hand."""

    db: Database
    book: Rulebook = field(default_factory=a_book)
    now: datetime = NOON
    fault: str | None = None
    ticks: float = 0.0  # of the monotonic clock
    egress: Callable[[], AbstractContextManager[Egress]] = field(default=_no_egress)
    _nonces: count[int] = field(default_factory=count)
    _app: Flask | None = None

    def __post_init__(self) -> None:
        self.nonce: Callable[[], str] = lambda: f"nonce-{next(self._nonces)}"

    def cannot_read(self, *found: JobProblem, read: Sequence[str] = ()) -> None:
        with self.db.write() as tx:
            problems.record(tx, BUCKET, "s1", read, found, now=self.now)

    def has_queues(self, *found: Queue) -> None:
        with self.db.write() as tx:
            queues.save(tx, BUCKET, found, now=self.now)

    def app(
        self,
        admin: str | None = ADMIN,
        read: str | None = READ,
        *,
        callbacks: Sequence[str] = (CALLBACK,),
        tokens: Sequence[tuple[str, str, str]] = (),
    ) -> Flask:
        app = create_app(
            db=self.db,
            book=lambda: self.book,
            rules_fault=lambda: self.fault,
            admin_token=admin,
            read_token=read,
            tokens=tokens,
            callback_tokens=callbacks,
            clock=lambda: self.now,
            version="9.9.9",
            nonce=lambda: self.nonce(),
            environ=ENVIRON,
            egress=lambda: self.egress(),
            monotonic=lambda: self.ticks,
        )
        app.jinja_env.bytecode_cache = _PAGES
        return app

    def client(self, token: str | None = ADMIN) -> FlaskClient:
        """Return a client of an application that all clients of this kind share, as setting one up takes long."""
        self._app = self._app or self.app()
        client = self._app.test_client()
        if token:
            client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
        return client

    def sync(self) -> None:
        with self.db.write() as tx:
            kinds = [(one, type(one).__name__.removesuffix("Notifier").lower()) for one in self.book.notifiers.values()]
            leases.sync(tx, self.book.watches, kinds)

    def register(self, worker: str = "w1") -> None:
        with self.db.write() as tx:
            leases.register(tx, worker, machine="m", pid=1, now=self.now)

    def accepts(self, book: Rulebook) -> None:
        """Put these rules in force, as the start of a worker does."""
        with self.db.write() as tx:
            rulesets.accept(tx, book.sha, book.ruleset_text, source=masked(book.text), now=self.now)

    def beat(self, worker: str = "w1", *, fault: str | None = None) -> None:
        with self.db.write() as tx:
            leases.beat(tx, worker, now=self.now, rules_sha=self.book.sha, rules_fault=fault)

    def polled(self, *, error: str | None = None, answered: int = 2) -> None:
        with self.db.write() as tx:
            leases.polled(
                tx, "vod", began=self.now, next_poll=self.now + timedelta(seconds=30), error=error,
                failures=1 if error else 0, calls=answered, jobs=3,
            )  # fmt: skip

    def sees(self, *jobs: Job, was: str = NEW) -> list[RoutingResult]:
        """Record each job's first transition, and what is told of it."""
        steps = [Transition(job=job, was=was, to=job.state, sequence=1, seen_at=self.now, watch="vod") for job in jobs]
        with self.db.write() as tx:
            snapshots.save(tx, jobs, steps, {}, stream="s", streams=["s"], now=self.now)
            return list(route_all(tx, self.book, steps, self.now))

    def incident(self, *jobs: str, rule: str = "all", key: str = "k1", by: str = "p224") -> str:
        """Record an open incident that these jobs count for; return its id."""
        of = IncidentKey(rule, key)
        new = NewKey(key=of, id=f"inc_{key}", kind="threshold", by=[("queue", by)], generation=1, since=self.now)
        with self.db.write() as tx:
            number = incidents.begin(tx, [new])[of].n
            members = [
                IncidentJob(bucket=BUCKET, job_id=id_, sequence=1, state=FAILED, happened_at=self.now) for id_ in jobs
            ]
            incidents.add_jobs(tx, [(number, job) for job in members])
            incidents.change(tx, number, opened_at=self.now, notified_at=self.now)
        return new.id

    def delivery_of(self, number: int) -> str:
        """Record a job that the notifier cms is told of; return the delivery's id."""
        return self.sees(job_number(number))[0].deliveries[0].id

    def deliveries(self, **which: str) -> list[Facts]:
        with self.db.read() as tx:
            return lists.find_deliveries(tx, Filter(**which)).items

    def state_of(self, delivery: str) -> str:
        return next(str(row["state"]) for row in self.deliveries() if row["id"] == delivery)

    def watch(self, name: str = "vod") -> Facts:
        with self.db.read() as tx:
            return next(row for row in gauges.read_watches(tx) if row["name"] == name)

    def notifier(self, name: str) -> Facts:
        with self.db.read() as tx:
            return next(row for row in gauges.read_notifiers(tx) if row["name"] == name)

    def give_up(self, why: str) -> None:
        """Bury what waits without another attempt, as while a notifier is left alone."""
        with self.db.write() as tx:
            lease = f"w1.{next(self._nonces)}"
            claimed = claims.claim(tx, free=64, lease=lease, lease_for=timedelta(seconds=60), now=self.now).deliveries
            tried = [Attempt(delivery=one, outcome=Rejected(why), started_at=self.now, seconds=0) for one in claimed]
            results.settle(tx, [Ended(one) for one in tried], now=self.now)

    def attempt(self, outcome: Outcome, *, answer: str = "", free: int = 64) -> Sequence[str]:
        """Claim what is due and end each attempt with `outcome`; return the ids."""
        lease, again = f"w1.{next(self._nonces)}", self.now + timedelta(minutes=1)
        with self.db.write() as tx:
            claimed = claims.claim(tx, free=free, lease=lease, lease_for=timedelta(seconds=60), now=self.now).deliveries
            ended = [
                Ended(
                    Attempt(delivery=one, outcome=outcome, started_at=self.now, seconds=0.2, status=500, answer=answer),
                    None if isinstance(outcome, Sent | Rejected) else again,
                )
                for one in claimed
            ]
            results.settle(tx, ended, now=self.now)
        return [one.id for one in claimed]


def a_failed_job(number: int) -> Job:
    return job_number(
        number, state=FAILED, code="E1", message="broken", user_data="asset_id=7", started_at=NOON,
        ended_at=NOON + timedelta(hours=1), input="uploads/a.mp4",
    )  # fmt: skip


def a_silence(id_: str = "sil_1", **facts: object) -> Silence:
    base: dict[str, object] = {
        "id": id_, "spec": '{"to":"Failed"}', "author": "ann", "reason": "new encoder", "begins_at": NOON,
        "ends_at": NOON + timedelta(hours=2),
    }  # fmt: skip
    return Silence(**(base | facts))  # type: ignore[arg-type]  # a builder takes any field
