"""What all worlds of a test share: the servers, the clients, the database; and the receiver's temper."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

from sqlalchemy import event

from bridge.collect.client import TencentCi
from bridge.collect.credentials import Credentials
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.read import read
from bridge.model import Rate
from bridge.record.database import Database
from bridge.record.schema import metadata
from bridge.send.client import HttpClient
from bridge.send.sender import Sender
from bridge.simulator.ci import DEMO_SECRET_ID, DEMO_SECRET_KEY, CiSimulator
from bridge.simulator.receiver import Received, WebhookReceiver
from bridge.simulator.web import Answer, text_answer
from tests.support.nouns import SECRET

DAWN = datetime(2026, 11, 21, 12, tzinfo=UTC)
REGION = "ap-chongqing"
_FAST = Rate(count=1_000_000, per=timedelta(seconds=1))

# Every temper but "well" and "deaf" accepts nothing; "picky" nothing of an odd number.
TEMPERS: dict[str, Answer | None] = {
    "well": None,
    "picky": text_answer("not this one", status=503),
    "deaf": Answer(hang_up=True),  # it has accepted; but its answer is lost, the first time
    "busy": text_answer("busy", status=503),
    "wait": Answer(status=429, headers={"Retry-After": "600"}),
    "gone": text_answer("gone", status=410),
    "lost": text_answer("who are you?", status=404),
    "moved": Answer(status=301, headers={"Location": "http://10.0.0.1/"}),
    "silent": Answer(hang_up=True),
}


class Time:
    """The one clock of a world. It moves when it is told to."""

    now = DAWN

    def __call__(self) -> datetime:
        return self.now

    def seconds(self) -> float:
        return self.now.timestamp()

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class Inbox:
    """The receiver: what it has accepted, in order, and of what nobody knows that it accepted."""

    temper: dict[str, str] = field(default_factory=dict)
    accepted: list[Received] = field(default_factory=list)
    unconfirmed: set[tuple[str, str]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, received: Received) -> Answer | None:
        with self._lock:
            path, id_ = received.path, received.id or ""
            temper = self.temper.get(path, "well")
            if temper == "deaf" and (path, id_) not in self.unconfirmed:
                self.unconfirmed.add((path, id_))
                self.accepted.append(received)
                return TEMPERS[temper]
            if temper in ("well", "deaf") or (temper == "picky" and int(received.json["sequence"]) % 2 == 0):
                self.accepted.append(received)
                return None
            return TEMPERS[temper]


@dataclass
class Scenery:
    time: Time
    ci: CiSimulator
    receiver: WebhookReceiver
    clients: Sequence[TencentCi]
    db: Database
    worlds: int = 0

    def sender(self, book: Rulebook) -> Sender:
        client = HttpClient(allow=(ip_network("127.0.0.0/8"),))
        return Sender(client=client, notifiers=book.notifiers, clock=self.time, slack_api_url="http://127.0.0.1:9/")

    def book(self, text: str) -> Rulebook:
        urls = {f"{name.upper()}_URL": f"{self.receiver.url}/{name}" for name in ("cms", "next", GROUP, INCIDENTS)}
        return read(text, {**urls, "SECRET": SECRET})

    def new_world(self, inbox: Inbox) -> str:
        """Empty the database, set the clock back, and return a bucket that nobody has asked for yet."""
        with self.db.write() as tx:
            for table in reversed(metadata.sorted_tables):
                tx.execute(table.delete())
        self.time.now = DAWN
        self.ci.requests.clear()
        self.receiver.requests.clear()
        self.receiver.answer = inbox.answer
        self.worlds += 1
        return f"media-{1250000000 + self.worlds}"


@contextmanager
def scenery(db: Database) -> Iterator[Scenery]:
    if db.sqlite:  # nobody needs what a test has written after a power cut
        event.listen(db.engine, "connect", lambda made, _: made.execute("PRAGMA synchronous = OFF").close())
        db.close()
    time = Time()
    with CiSimulator(clock=time.seconds) as ci, WebhookReceiver(secrets=[SECRET], clock=time.seconds) as receiver:
        credentials = Credentials(secret_id=DEMO_SECRET_ID, secret_key=DEMO_SECRET_KEY)
        clients = [
            TencentCi(
                credentials=credentials,
                endpoint=ci.url,
                rate=_FAST,
                clock=time.seconds,
                sleep=time.advance,
                deadline_s=20,
            )
            for _ in range(2)
        ]
        try:
            yield Scenery(time, ci, receiver, clients, db)
        finally:
            for client in clients:
                client.close()


def rules(bucket: str, which: str, *, announce: bool) -> str:
    """Return rules.toml as it is in force: "all" at first, and others for a while."""
    watched = WATCHES[which].replace("BUCKET", bucket)
    return f'[defaults]\non_first_run = "{"announce" if announce else "silent"}"\n{watched}\n{_TELL}'


_VOD = '[[watch]]\nname = "vod"\nbucket = "BUCKET"\nregion = "ap-chongqing"\n'
_ONE = _VOD.replace('"vod"', '"one"')
WATCHES = {
    "all": _VOD + 'tags = ["Transcode", "Snapshot"]\n',
    "overlapping": _VOD + 'tags = ["Transcode", "Snapshot"]\n' + _ONE + 'tags = ["Transcode"]\nqueues = ["p1"]\n',
    "one queue": _VOD + 'tags = ["Transcode", "Snapshot"]\nqueues = ["p1"]\n',
    "one tag": _VOD + 'tags = ["Transcode"]\n',
    "two queues": _VOD + 'tags = ["Transcode"]\nqueues = ["p1", "p2"]\n' + _ONE + 'tags = ["Snapshot"]\n',
}

GROUP = "group"  # the notifier of the rule over several jobs: each job is one for itself
INCIDENTS = "incidents"  # the notifier of those that tests/world/incidents.py is about
_TELL = """
[notifier.incidents]
type = "webhook"
url = { env = "INCIDENTS_URL" }
secret = { env = "SECRET" }
retry = "999d"

[[rule]]
name = "busy"
to = "Success"
by = ["queue"]
count = ">= 2"
within = "10m"
recover = true
notify = "incidents"

[[rule]]
name = "storm"
to = "done"
count = ">= 3"
within = "1h"
recover = true
notify = "incidents"

[[rule]]
name = "silent"
absent = "Success"
for = "2h"
recover = true
notify = "incidents"

[[rule]]
name = "backlog"
in = "Submitted"
for = "10m"
by = ["queue"]
count = ">= 2"
recover = true
notify = "incidents"

[notifier.group]
type = "webhook"
url = { env = "GROUP_URL" }
secret = { env = "SECRET" }
retry = "999d"

[[rule]]
name = "group"
all = "done"
by = ["job"]
expect = 1
notify = "group"

[notifier.cms]
type = "webhook"
url = { env = "CMS_URL" }
secret = { env = "SECRET" }
retry = "999d"

[notifier.next]
type = "webhook"
url = { env = "NEXT_URL" }
secret = { env = "SECRET" }
retry = "999d"
max_in_flight = 1

[[rule]]
name = "everything"
notify = "cms"

[[rule]]
name = "over"
to = ["Running", "done"]
match.queue = "p1"
notify = "next"
"""
