"""The only file that chooses concrete parts, and puts them together."""

from __future__ import annotations

import logging
import os
import random
import secrets as randomness
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr
from sqlalchemy.exc import DBAPIError

from bridge import __version__, logs
from bridge.collect.tencent import Credentials, TencentCi
from bridge.decide.rulebook import Fault, Rulebook, RulesRefused
from bridge.decide.rulebook import read as read_rules
from bridge.model import Notifier, SlackNotifier, Watch, WebhookNotifier
from bridge.pipeline import Courier, Halted, Poll, Poller
from bridge.record import leases, settling
from bridge.record.database import Database, trouble
from bridge.scheduler import Ticker
from bridge.send.door import Door
from bridge.send.outbound import Outbound
from bridge.settings import Settings

if TYPE_CHECKING:
    from flask import Flask

logger = logging.getLogger(__name__)

STOP_WITHIN_S = 20  # platforms send SIGKILL 30 s after SIGTERM; Docker after 10 s, which the leases bear too
_POLLS_AT_ONCE = 4
_CI_DEADLINE_S = 15  # of one call to CI: shorter than STOP_WITHIN_S, so that a poll never outstays it
_SILENT_FOR = timedelta(days=1)


def utc_now() -> datetime:
    return datetime.now(UTC)


# --- rules --------------------------------------------------------------------------------------------------


class Rules:
    """The rulebook in force. A wrong file changes nothing and is told about once."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        *,
        adjust: Callable[[Rulebook], Rulebook] = lambda book: book,
    ) -> None:
        """Raises RulesRefused: at start there is nothing to fall back to."""
        self._settings = settings
        self._environ = environ
        self._adjust = adjust
        self._text = self._load()
        self.book = adjust(read_rules(self._text, environ))
        self.fault: str | None = None

    def _load(self) -> str:
        if self._settings.rules_toml is not None:
            return self._settings.rules_toml
        return load_rules(self._settings.rules)

    def reload(self) -> bool:
        """Read the file again; return whether other rules are in force now."""
        try:
            text = self._load()
            if text == self._text:
                return False
            self._text = text
            self.book = self._adjust(read_rules(text, self._environ))
        except (RulesRefused, OSError) as error:
            if self.fault != str(error):
                logger.error("rules.toml is wrong, the old rules stay in force", extra={"faults": str(error)})  # noqa: TRY400  (no traceback: the file is at fault)
            self.fault = str(error)
            return False
        self.fault = None
        logger.info("rules reloaded", extra={"sha": self.book.sha, "rules": len(self.book.rules)})
        return True


def load_rules(path: str) -> str:
    """Return the text of rules.toml. Raises RulesRefused when it is not there or not UTF-8."""
    try:
        return Path(path).read_bytes().decode()
    except FileNotFoundError as error:
        raise RulesRefused([Fault(1, f"there is no file {path}: set BRIDGE_RULES or BRIDGE_RULES_TOML")]) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise RulesRefused([Fault(line, f"byte {error.object[error.start]:#04x} is not UTF-8")]) from error


def known_secrets(settings: Settings, book: Rulebook | None) -> list[str]:
    """Return every secret value in use: those of the environment and those that rules.toml names."""
    found = list(settings.secrets)
    for notifier in book.notifiers.values() if book else ():
        if isinstance(notifier, WebhookNotifier):
            found += [*notifier.secrets, *(value for _, value in notifier.headers)]
        elif isinstance(notifier, SlackNotifier):
            found += [secret for secret in (notifier.token, notifier.url) if secret]
    return found


# --- parts --------------------------------------------------------------------------------------------------


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


def sync(db: Database, book: Rulebook) -> None:
    """Make the record know the watches and notifiers of the rules."""
    with db.write() as tx:
        leases.sync(tx, book.watches, [(n, _kind(n)) for n in book.notifiers.values()])


def _kind(notifier: Notifier) -> str:
    return "slack" if isinstance(notifier, SlackNotifier) else "webhook"


# --- the worker ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this process is: `machine` and `pid` tell a later one here that it has ended."""

    id: str
    machine: str
    pid: int


def identity() -> Identity:
    return Identity(id=randomness.token_hex(8), machine=_machine(), pid=os.getpid())


def _machine() -> str:
    """Name this boot of this kernel and this process namespace: only there does a pid mean the same process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116  (a magic link: Path would resolve it)
    except OSError:
        return f"unknown/{randomness.token_hex(8)}"  # not Linux: leases run out by themselves


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        # A killed child that nobody has waited for is no process any more.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True


class Worker:
    """Polls and delivers until told to stop. Any number may run on one database."""

    def __init__(self, settings: Settings, rules: Rules, db: Database) -> None:
        self._db = db
        self._rules = rules
        self._me = identity()
        self._stop = threading.Event()
        self._source = source(settings, rules.book, sleep=self._nap)
        self._outbound = Outbound(
            door=door(settings), notifiers=rules.book.notifiers, clock=utc_now, slack_api_url=settings.slack_api_url
        )
        self._courier = Courier(
            db=db,
            transport=self._outbound,
            book=lambda: rules.book,
            clock=utc_now,
            chance=random.SystemRandom().random,
            worker=self._me.id,
        )
        self._poller = Poller(
            db=db,
            source=self._source,
            clock=utc_now,
            worker=self._me.id,
            on_told=self._courier.wake,
            halted=self._stop.is_set,
        )
        self._polls = ThreadPoolExecutor(_POLLS_AT_ONCE, thread_name_prefix="poll")
        self._busy: set[str] = set()  # buckets that are being polled
        self._ticker = Ticker()
        self.on_poll: Callable[[Poll], None] = _log_poll

    def _nap(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Halted

    def stop(self) -> None:
        """Stop claiming and polling; `run` returns when what is in flight has ended. Any thread may call it."""
        self._stop.set()
        self._courier.wake()

    def run(self) -> None:
        """Work until `stop`; then finish within STOP_WITHIN_S what was begun."""
        with self._enlisted():
            self._ticker.every(1, self._poll_due)
            self._ticker.every(5, self._reload)
            self._ticker.every(15, self._beat)
            self._ticker.start()
            logger.info("worker started", extra={"worker": self._me.id, "database": self._db.shown})
            try:
                while not self._stop.is_set():
                    self._courier.turn()
            finally:
                self._wind_up()
        logger.info("worker stopped", extra={"worker": self._me.id})

    def _wind_up(self) -> None:
        deadline = time.monotonic() + STOP_WITHIN_S
        self._ticker.stop(wait=False)
        self._courier.finish(until=lambda: time.monotonic() > deadline)
        # A poll ends with the call to CI that it is in: the pause before the next one is cut short.
        self._polls.shutdown(cancel_futures=True)
        self._outbound.close(0)
        self._source.close()

    @contextmanager
    def _enlisted(self) -> Iterator[None]:
        """Be known as a worker meanwhile, and free what workers held that ended on this machine."""
        now = utc_now()
        with self._db.write() as tx:
            for worker, pid in leases.workers_on(tx, self._me.machine):
                if not _is_alive(pid) or pid == self._me.pid:
                    freed = settling.bury(tx, worker, now=now)
                    leases.bury(tx, worker)
                    logger.warning("a worker that died is replaced", extra={"worker": worker, "deliveries": freed})
            leases.strike_silent(tx, before=now - _SILENT_FOR)
            leases.enlist(tx, self._me.id, machine=self._me.machine, pid=self._me.pid, now=now)
        try:
            yield
        finally:
            with self._db.write() as tx:
                leases.bury(tx, self._me.id)

    def _poll_due(self) -> None:
        try:
            due = self._poller.due(self._rules.book.watches)
        except DBAPIError as error:
            logger.warning("polling waits for the database", extra={"reason": trouble(error)})
            return
        for watch in due:
            bucket = watch.place.bucket
            if bucket not in self._busy and not self._stop.is_set():
                self._busy.add(bucket)
                self._polls.submit(self._poll, watch)

    def _poll(self, watch: Watch) -> None:
        try:
            poll = self._poller.poll_once(watch, self._rules.book)
            if poll:
                self.on_poll(poll)
        except DBAPIError as error:
            logger.warning("poll waits for the database", extra={"watch": watch.name, "reason": trouble(error)})
        except Exception:  # the edge of a thread: the watch is polled again at the next tick
            logger.exception("poll failed", extra={"watch": watch.name})
        finally:
            self._busy.discard(watch.place.bucket)

    def _reload(self) -> None:
        if self._rules.reload():
            sync(self._db, self._rules.book)
            self._outbound.replace(self._rules.book.notifiers)

    def _beat(self) -> None:
        with self._db.write() as tx:
            leases.beat(tx, self._me.id, now=utc_now(), rules_sha=self._rules.book.sha, rules_fault=self._rules.fault)


def _log_poll(poll: Poll) -> None:
    facts = {"watch": poll.watch, "calls": poll.calls, "jobs": poll.jobs}
    if poll.error:
        logger.warning("poll failed", extra={**facts, "reason": str(poll.error)})
    elif poll.transitions:
        logger.info("poll", extra={**facts, "transitions": poll.transitions, "deliveries": poll.deliveries})


def poll_all(settings: Settings, rules: Rules, db: Database, names: list[str]) -> Iterator[Poll | None]:
    """Poll each watch of these names once, whatever its time; None for one that another worker polls."""
    ci = source(settings, rules.book)
    poller = Poller(db=db, source=ci, clock=utc_now, worker=f"poll-{randomness.token_hex(6)}")
    try:
        for watch in rules.book.watches:
            if not names or watch.name in names:
                yield poller.poll_once(watch, rules.book)
    finally:
        ci.close()


def start_logging(settings: Settings, book: Rulebook | None) -> None:
    logs.configure(settings.log_level, known_secrets(settings, book))


# --- the web ------------------------------------------------------------------------------------------------


def web_app(settings: Settings, rules: Rules, db: Database) -> Flask:
    """Return the WSGI application. Making it starts nothing."""
    from bridge.admin.api import create_app  # a worker alone needs no Flask

    def token(found: SecretStr | None) -> str | None:
        return found.get_secret_value() if found else None

    return create_app(
        db=db,
        book=lambda: rules.book,
        admin_token=token(settings.admin_token),
        read_token=token(settings.read_token),
        clock=utc_now,
        version=__version__,
        nonce=lambda: randomness.token_hex(8),
    )


@contextmanager
def served(app: Flask, *, host: str, port: int) -> Iterator[int]:
    """Serve the application from a thread meanwhile; yield the port (0 asks for a free one)."""
    from waitress.server import create_server  # only `run` needs it

    server = create_server(
        app, host=host, port=port, threads=4, ident="ci-bridge", max_request_body_size=1 << 20, asyncore_loop_timeout=30
    )
    thread = threading.Thread(target=server.run, name="web", daemon=True)
    thread.start()
    try:
        yield server.effective_port
    finally:
        server.close()
        server.task_dispatcher.shutdown()
