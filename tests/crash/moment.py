"""A worker that lives for one moment of a simulated time: it polls once, sends what is due, and ends or is killed."""

from __future__ import annotations

import os
import time
from contextlib import closing
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path

from bridge.collect.client import TencentCi
from bridge.collect.credentials import Credentials
from bridge.decide.rulesfile.read import read
from bridge.pipeline.dispatch import Dispatcher
from bridge.pipeline.poller import Poller
from bridge.record.database import Database
from bridge.send.client import HttpClient
from bridge.send.sender import Sender
from bridge.simulator.ci import DEMO_SECRET_ID, DEMO_SECRET_KEY
from bridge.wiring import parts
from tests.crash.victim import Bomb
from tests.world.workers import Transport


def live() -> None:
    """Live at NOW, in seconds since 1970; CRASH_AT is as for victim.py, or empty."""
    environ, now_s = os.environ, float(os.environ["NOW"])
    if environ["CRASH_AT"]:
        Bomb(environ["CRASH_AT"], 1).listen()
    book = read(Path(environ["BRIDGE_RULES"]).read_text(), environ)
    worker = f"w{os.getpid()}"

    def clock() -> datetime:
        return datetime.fromtimestamp(now_s, UTC)

    ci = TencentCi(
        credentials=Credentials(secret_id=DEMO_SECRET_ID, secret_key=DEMO_SECRET_KEY),
        endpoint=environ["BRIDGE_CI_ENDPOINT"],
        clock=lambda: now_s,
    )
    client = HttpClient(allow=(ip_network("127.0.0.0/8"),))
    sender = Sender(client=client, notifiers=book.notifiers, clock=clock, slack_api_url="http://127.0.0.1:9/")
    with closing(Database(environ["DATABASE_URL"])) as db, closing(ci):
        parts.sync(db, book, clock=clock)
        Poller(db=db, source=ci, clock=clock, worker=worker).poll_once(book.watches[0], book)
        dispatcher = Dispatcher(
            db=db,
            transport=Transport(sender),
            book=lambda: book,
            clock=clock,
            monotonic=time.monotonic,
            chance=lambda: 0.0,
            worker=worker,
        )
        while dispatcher.run_once() or dispatcher.unfinished:
            pass
        sender.close(5)
