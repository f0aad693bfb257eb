"""A process: a whole worker that watches a simulator, with nothing to tell: DATABASE CI_URL."""

from __future__ import annotations

import signal
import sys

from benchmarks.tellings import SECRET, rules_text
from bridge import settings, wiring
from bridge.simulator.ci import DEMO_SECRET_ID, DEMO_SECRET_KEY


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
    rules = wiring.Rules(read, environ)
    db = wiring.database(read)
    db.upgrade()
    wiring.sync(db, rules.book)
    worker = wiring.Worker(read, rules, db)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    worker.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
