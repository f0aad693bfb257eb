"""A database with the bench's rules in it, and a dispatcher that delivers from it: the bridge without its clockwork."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_network

from benchmarks.deliveries import rulebook
from bridge.pipeline.dispatch import Dispatcher
from bridge.record.database import Database
from bridge.record.polling import leases
from bridge.send.client import HttpClient
from bridge.send.sender import Sender


def now() -> datetime:
    return datetime.now(UTC)


class BenchBridge:
    def __init__(self, database: str, sink: str) -> None:
        self.book = rulebook(sink)
        self.db = Database(database)
        self.db.upgrade()
        with self.db.write() as tx:
            leases.sync(tx, self.book.watches, [(self.book.notifiers["hook"], "webhook")])
        self._outbound = Sender(
            client=HttpClient(allow=(ip_network("127.0.0.0/8"),)),
            notifiers=self.book.notifiers,
            clock=now,
            slack_api_url="http://127.0.0.1:1/",
        )
        self.dispatcher = Dispatcher(
            db=self.db,
            transport=self._outbound,
            book=lambda: self.book,
            clock=now,
            chance=lambda: 0.5,
            worker="bench",
        )

    def close(self) -> None:
        self._outbound.close(0)
        self.db.close()
