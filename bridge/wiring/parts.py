"""Builds the parts that processes share, and puts rules on record."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from sqlalchemy import Connection

from bridge import logs
from bridge.collect.client import TencentCi
from bridge.collect.credentials import Credentials
from bridge.collect.http import Proxies
from bridge.decide.rules.rulebook import Fault, Rulebook
from bridge.decide.rulesfile.errors import RulesRefused
from bridge.decide.rulesfile.masked import masked
from bridge.decide.rulesfile.rulesets import emptied, names_in, names_of
from bridge.model import KeySource
from bridge.notifiers import Notifier
from bridge.pipeline.housekeeping import note_rules
from bridge.record import public_url, rulesets
from bridge.record.database import TROUBLES, Clock, Database, trouble
from bridge.record.polling import leases, snapshots
from bridge.record.schema import PICK
from bridge.send.client import HttpClient, ca_file
from bridge.settings import Settings

logger = logging.getLogger(__name__)

_CI_DEADLINE_S = 15  # of one call to CI: shorter than a worker's time to stop


def utc_now() -> datetime:
    return datetime.now(UTC)


def database(settings: Settings) -> Database:
    """Raise ValueError if the address is invalid, or if a new SQLite file would be lost at the next restart."""
    db = Database(settings.database_url)
    if settings.new_file_lost and db.is_missing:
        db.close()
        raise ValueError(settings.new_file_lost)
    return db


def source(
    settings: Settings,
    book: Rulebook,
    *,
    sources: Callable[[], Mapping[str, KeySource]] | None = None,
    sleep: Callable[[float], object] = time.sleep,
) -> TencentCi:
    """Return what asks CI; `sources` are those of `book` unless rules can change."""
    ci = TencentCi(
        credentials=Credentials(
            secret_id=settings.secret_id or "",
            secret_key=settings.secret_key.get_secret_value() if settings.secret_key else "",
            token=settings.security_token.get_secret_value() if settings.security_token else None,
        ),
        sources=sources or (lambda: book.credentials),
        endpoint=settings.ci_endpoint,
        rate=book.rate,
        sleep=sleep,
        deadline_s=_CI_DEADLINE_S,
        proxies=Proxies(http=settings.http_proxy, https=settings.https_proxy, without=settings.no_proxy),
        trusted=settings.ssl_cert_file or ca_file(),
    )
    ci.keys.on_new = lambda: logs.hide([*known_secrets(settings, book), *ci.keys.secrets])
    return ci


def http_client(settings: Settings) -> HttpClient:
    return HttpClient(allow=settings.allow_networks, proxy=settings.egress_proxy, trusted=settings.ssl_cert_file)


def sync(db: Database, book: Rulebook, *, clock: Clock = utc_now) -> None:
    """Put these rules in force."""
    with db.write() as tx:
        accept(tx, book, now=clock())


def accept(tx: Connection, book: Rulebook, *, now: datetime) -> bool:
    """Put the rules of a start or a reload in force; return False if they were already."""
    news = rulesets.accept(tx, book.sha, book.ruleset_text, source=masked(book.text), now=now)
    note_rules(tx, book.watches, now)
    _know(tx, book)
    snapshots.adopt(tx, [stream for watch in book.watches for stream in watch.streams])
    return news


def make_known(db: Database, book: Rulebook) -> None:
    """Record the rules with their watches and notifiers, without putting them in force."""
    with db.write() as tx:
        rulesets.store(tx, book.sha, book.ruleset_text, source=masked(book.text), now=utc_now())
        _know(tx, book)


def _know(tx: Connection, book: Rulebook) -> None:
    picks = [(Notifier(name=name, max_in_flight=0), PICK) for name in book.picks]
    leases.sync(tx, book.watches, [*((n, n.type) for n in book.notifiers.values()), *picks])


def share_public_url(db: Database, url: str | None) -> None:
    """Store where the pages are, for all processes; one that does not know leaves it as it is.

    Whoever starts last is right. Without links everything else works, so trouble is only logged.
    """
    if url is None:
        return
    try:
        with db.read() as tx:
            known = public_url.links(tx).base
        if known != url:
            with db.write() as tx:
                public_url.store(tx, url, now=utc_now())
            logger.info("messages link to these pages", extra={"url": url})
    except TROUBLES as error:
        logger.warning("where the pages are could not be stored", extra={"url": url, "reason": trouble(error)})


def refuse_emptied(tx: Connection, book: Rulebook, file: str) -> None:
    """Raise RulesRefused at start for blank rules, and for rules that lost all watches or rules of those in force."""
    sha = rulesets.in_force(tx)
    before = names_in(rulesets.text_of(tx, sha) or "{}") if sha else None
    after = names_of(book)
    lost = emptied(before, after) if before else None
    if (lost is None and not after.is_blank) or rulesets.may_be_empty(tx, book.sha):
        return
    raise RulesRefused([emptied_fault(lost, file)])


def may_be_empty(db: Database, sha: str) -> bool:
    """Return whether a person has allowed these rules to have no watch or no rule."""
    with db.read() as tx:
        return rulesets.may_be_empty(tx, sha)


def emptied_fault(lost: str | None, file: str) -> Fault:
    """Return the fault of rules that may have been emptied by mistake; without `lost` there were never any."""
    if lost is None:
        text = "there is no [[watch]] and no [[rule]], so nothing would be watched"
    else:
        text = f"there is {lost} any more, but the rules in force have some, so nobody would be notified"
    if file == "BRIDGE_RULES_TOML":
        return Fault(1, f"{text}; were its line ends lost, so that all of it is a comment?", file=file)
    return Fault(1, f"{text}; if this is intended, run `ci-bridge rules reload --allow-empty`", file=file)


def known_secrets(settings: Settings, book: Rulebook | None) -> list[str]:
    """Return every secret value of the environment, also where only the notifiers or watches in rules.toml name it."""
    notifiers = book.notifiers.values() if book else ()
    return [*unsent_secrets(settings, book), *(secret for notifier in notifiers for secret in notifier.hidden)]


def unsent_secrets(settings: Settings, book: Rulebook | None) -> tuple[str, ...]:
    """Return those of them that no notifier is meant to know."""
    sources = book.credentials.values() if book else ()
    return (*settings.secrets, *(secret for source in sources for secret in source.hidden))


def missing_key(settings: Settings, book: Rulebook) -> str | None:
    """Say which part of the usual key is not set, if a watch needs it."""
    needed = any(watch.place.credentials is None for watch in book.watches)
    return settings.missing_key if needed or not book.watches else None


def start_logging(settings: Settings, book: Rulebook | None) -> None:
    logs.configure(settings.log_level, known_secrets(settings, book))
