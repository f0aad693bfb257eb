"""A process: a whole worker that watches a simulator where nothing happens: DATABASE CI_URL."""

from __future__ import annotations

import signal
import sys

from benchmarks.tellings import SECRET, rules_text
from bridge import settings
from bridge.record.database import Database
from bridge.simulator.ci import DEMO_SECRET_ID, DEMO_SECRET_KEY
from bridge.wiring.parts import sync
from bridge.wiring.rules import Rules
from bridge.wiring.worker import Worker


def main(database: str, ci_url: str) -> None:
    environ = {
        "DATABASE_URL": database,
        "BRIDGE_RULES_TOML": rules_text("http://127.0.0.1:1/"),
        "TENCENTCLOUD_SECRET_ID": DEMO_SECRET_ID,
        "TENCENTCLOUD_SECRET_KEY": DEMO_SECRET_KEY,
        "BRIDGE_CI_ENDPOINT": ci_url,
        "SECRET": SECRET,
    }
    read = settings.read(environ)
    rules, db = Rules(read, environ), Database(database)
    db.upgrade()
    sync(db, rules.book)
    worker = Worker(read, rules, db)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    worker.run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
