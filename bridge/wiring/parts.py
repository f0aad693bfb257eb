"""The concrete parts: which class stands behind each word."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import TypeVar

from sqlalchemy import Connection

from bridge import logs
from bridge.collect.client import Credentials, TencentCi
from bridge.collect.http import Proxies
from bridge.decide.rules.rulebook import Fault, Rulebook
from bridge.decide.rulesfile.errors import RulesRefused
from bridge.decide.rulesfile.rulesets import emptied, names_in, names_of
from bridge.pipeline.poll_context import note_rules
from bridge.record import rulesets
from bridge.record.database import Clock, Database
from bridge.record.polling import leases, snapshots
from bridge.send.client import HttpClient, ca_file
from bridge.send.integration import Egress
from bridge.send.registry import integration_of
from bridge.settings import Settings

_CI_DEADLINE_S = 15  # of one call to CI: shorter than a worker's time to stop, so that a poll never outstays it


def utc_now() -> datetime:
    return datetime.now(UTC)


def database(settings: Settings) -> Database:
    """Raises ValueError where the address cannot be one, or its file would be made where it is lost again."""
    db = Database(settings.database_url)
    if settings.new_file_lost and db.is_missing:
        db.close()
        raise ValueError(settings.new_file_lost)
    return db


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
        proxies=Proxies(http=settings.http_proxy, https=settings.https_proxy, without=settings.no_proxy),
        trusted=settings.ssl_cert_file or ca_file(),
    )


def http_client(settings: Settings) -> HttpClient:
    return HttpClient(allow=settings.allow_networks, proxy=settings.egress_proxy, trusted=settings.ssl_cert_file)


def sync(db: Database, book: Rulebook, *, clock: Clock = utc_now) -> None:
    """Put these rules in force."""
    with db.write() as tx:
        accept(tx, book, now=clock())


def accept(tx: Connection, book: Rulebook, *, now: datetime) -> bool:
    """Put the rules in force that a start or a reload brings; return False when they were already."""
    news = rulesets.accept(tx, book.sha, book.frozen, now=now)
    note_rules(tx, book.watches, now)
    _know(tx, book)
    snapshots.adopt(tx, [stream for watch in book.watches for stream in watch.streams])
    return news


def make_known(db: Database, book: Rulebook) -> None:
    """Make the record know the watches and notifiers of these rules, and keep the rules, in force or not."""
    with db.write() as tx:
        rulesets.keep(tx, book.sha, book.frozen, now=utc_now())
        _know(tx, book)


def _know(tx: Connection, book: Rulebook) -> None:
    leases.sync(tx, book.watches, [(n, n.type) for n in book.notifiers.values()])


def refuse_emptied(tx: Connection, book: Rulebook, file: str) -> None:
    """Raise RulesRefused at start for rules that say nothing, or no longer have what those in force have."""
    sha = rulesets.in_force(tx)
    before = names_in(rulesets.text_of(tx, sha) or "{}") if sha else None
    after = names_of(book)
    lost = emptied(before, after) if before else None
    if (lost is None and not after.is_blank) or rulesets.may_be_empty(tx, book.sha):
        return
    raise RulesRefused([emptied_fault(lost, file)])


def may_be_empty(db: Database, sha: str) -> bool:
    """Tell whether a person has said that these rules may have no watch or no rule."""
    with db.read() as tx:
        return rulesets.may_be_empty(tx, sha)


def emptied_fault(lost: str | None, file: str) -> Fault:
    """Say that rules may have been emptied by mistake; without `lost` there were never any."""
    if lost is None:
        said = "there is no [[watch]] and no [[rule]], so nothing would be watched"
    else:
        said = f"there is {lost} any more, and the rules in force have some, so nobody would be told"
    if file == "BRIDGE_RULES_TOML":
        return Fault(1, f"{said}; were its line ends lost, so that all of it is a comment?", file=file)
    return Fault(1, f"{said}; if this is meant, say so: `ci-bridge rules reload --allow-empty`", file=file)


def known_secrets(settings: Settings, book: Rulebook | None) -> list[str]:
    """Return every secret value in use: those of the environment and those that rules.toml names."""
    found = list(settings.secrets)
    for notifier in book.notifiers.values() if book else ():
        found += notifier.hidden
    return found


def start_logging(settings: Settings, book: Rulebook | None) -> None:
    logs.configure(settings.log_level, known_secrets(settings, book))


# --- what `doctor` can know of notifiers ----------------------------------------------------------------------------

_Check = TypeVar("_Check")


def notifier_checks(
    settings: Settings, book: Rulebook, check: Callable[[str, bool | None, str], _Check]
) -> Iterator[_Check]:
    """Yield what can be known of each notifier without sending it a message."""
    with closing(http_client(settings)) as out:
        egress = Egress(out, settings.slack_api_url)
        for notifier in book.notifiers.values():
            yield check(f"notifier {notifier.name}", *integration_of(notifier).check(egress))
