"""The concrete parts: which class stands behind each word."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from bridge import logs
from bridge.collect.tencent import Credentials, TencentCi
from bridge.decide.rulebook import Rulebook
from bridge.model import Notifier, SlackNotifier
from bridge.pipeline.round import note_rules
from bridge.record import leases, rulesets, snapshots
from bridge.record.database import Clock, Database
from bridge.send.door import Door
from bridge.settings import Settings

_CI_DEADLINE_S = 15  # of one call to CI: shorter than a worker's time to stop, so that a poll never outstays it


def utc_now() -> datetime:
    return datetime.now(UTC)


def database(settings: Settings) -> Database:
    return Database(settings.database_url)


def source(settings: Settings, book: Rulebook, *, sleep: Callable[[float], object] = time.sleep) -> TencentCi:
    return TencentCi(
        credentials=Credentials(
            secret_id=settings.secret_id or "",
            secret_key=settings.secret_key.get_secret_value() if settings.secret_key else "",
            token=settings.security_token.get_secret_value() if settings.security_token else None,
        ),
        endpoint=settings.ci_endpoint,
        rate=book.rate,
        sleep=sleep,
        deadline_s=_CI_DEADLINE_S,
    )


def door(settings: Settings) -> Door:
    return Door(allow=settings.allow_networks, proxy=settings.egress_proxy)


def sync(db: Database, book: Rulebook, *, clock: Clock = utc_now) -> None:
    """Make the record know the watches and notifiers of the rules, and keep these for questions to come."""
    with db.write() as tx:
        note_rules(tx, book.watches, clock())
        leases.sync(tx, book.watches, [(n, _kind(n)) for n in book.notifiers.values()])
        snapshots.adopt(tx, [stream for watch in book.watches for stream in watch.streams])
        rulesets.keep(tx, book.sha, book.frozen, now=clock())


def _kind(notifier: Notifier) -> str:
    return "slack" if isinstance(notifier, SlackNotifier) else "webhook"


def known_secrets(settings: Settings, book: Rulebook | None) -> list[str]:
    """Return every secret value in use: those of the environment and those that rules.toml names."""
    found = list(settings.secrets)
    for notifier in book.notifiers.values() if book else ():
        found += notifier.hidden
    return found


def start_logging(settings: Settings, book: Rulebook | None) -> None:
    logs.configure(settings.log_level, known_secrets(settings, book))
