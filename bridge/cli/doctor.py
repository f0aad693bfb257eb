"""`doctor`: does everything work that the bridge needs? One line per check, and what to do if it fails."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import timedelta
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import click

from bridge import settings as settings_module
from bridge.admin.hooks import SHORTEST_SAFE
from bridge.admin.http.problems import SLACK_CLICKS
from bridge.cli.common import Facts, contents_of, count_of, echo, echo_json, json_option, now_of
from bridge.collect.client import TencentCi
from bridge.collect.errors import CiError
from bridge.decide.changes.clocks import Clocks, clock_warning
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.errors import RulesRefused
from bridge.links import Links
from bridge.model import PAUSED, Place, Watch
from bridge.notifiers import SlackNotifier
from bridge.pipeline.health import Level, Reader, assess, rate_note
from bridge.record import public_url
from bridge.record.database import TROUBLES, SchemaOld, trouble
from bridge.record.queries import gauges
from bridge.send.integration import Egress
from bridge.send.registry import integration_of
from bridge.settings import Settings, SettingsRefused
from bridge.wiring import parts
from bridge.wiring.rules import Rules

_IDLE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check; `ok` None is a warning."""

    name: str
    ok: bool | None
    detail: str


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check settings, database, rules, CI and notifiers, and say what to do. Exits 1 if a check fails.

    Asks CI for one job of each tag (and queue) and for the names of queues, resolves each webhook's address, asks Slack
    about each token, its scopes and channels, logs in to each mail server. Sends no message; that does
    `ci-bridge notifier test NAME`.

    \b
    Examples:
      ci-bridge doctor
      ci-bridge doctor --json
    """
    checks = []
    for check in _checks():
        checks.append(check)
        if not as_json:
            mark = {True: "ok  ", None: "warn", False: "FAIL"}[check.ok]
            echo(f"{mark}  {check.name}: {' '.join(check.detail.split())}")
    failed, warned = (sum(check.ok is ok for check in checks) for ok in (False, None))
    if as_json:
        echo_json([asdict(check) for check in checks])
    elif failed:
        click.echo(f"\n{failed} of {len(checks)} checks failed", err=True)
    else:
        click.echo(f"\nall checks passed, {count_of(warned, 'warning')}: `ci-bridge run` should work")
    sys.exit(1 if failed else 0)


def _checks() -> Iterator[Check]:
    try:
        settings = settings_module.read(os.environ)
    except SettingsRefused as error:
        yield from (Check("environment", False, line) for line in str(error).splitlines())
        return
    yield Check("environment", True, "read")
    yield from (database := list(_guarded("database", _database, settings)))
    try:
        rules = Rules(settings, os.environ)
    except RulesRefused as error:
        yield from (Check("rules", None if fault.warning else False, str(fault)) for fault in error.faults)
        yield Check("CI and notifiers", None, "not checked while the rules have errors")
        return
    if all(check.ok for check in database):
        yield from _guarded("bridge", _record, settings, rules)
    yield Check("rules", True, contents_of(rules.book))
    yield from (Check("rules", None, str(warning)) for warning in rules.book.warnings)
    with closing(parts.source(settings, rules.book)) as ci:
        yield from (credentials := list(_credentials(settings, rules.book, ci)))
        usable = {check.name for check in credentials if check.ok}
        places: dict[str, Place] = {}  # where CI answers, by bucket
        for watch in rules.book.watches:
            if _name_of(watch.place.credentials) in usable:
                yield from (checks := list(_watch(ci, watch)))
                if all(check.ok is not False for check in checks):
                    places[watch.place.bucket] = watch.place
        for place in places.values():
            yield _queues(ci, place)
    yield from notifier_checks(settings, rules.book)
    if not settings.has_admin_token:
        advice = "set it if a proxy or router is in front"
        yield Check("admin", None, f"BRIDGE_ADMIN_TOKEN is not set, so the API answers this machine only: {advice}")
    else:
        named = [f"{token.name} ({token.role})" for token in settings.named_tokens]
        yield Check("admin", True, "token set" + (f"; named tokens: {', '.join(named)}" if named else ""))


def _guarded(name: str, check: Callable[..., Iterator[Check]], *args: Any) -> Iterator[Check]:
    try:
        yield from check(*args)
    except TROUBLES as error:
        yield Check(name, False, trouble(error))
    except (SchemaOld, ValueError) as error:
        yield Check(name, False, str(error))


def _database(settings: Settings) -> Iterator[Check]:
    with closing(parts.database(settings)) as db:
        db.require_schema()
        yield Check("database", True, f"{db.shown}, revision {db.revision()}")


def _record(settings: Settings, rules: Rules) -> Iterator[Check]:
    """Check that the rules are not emptied by mistake, and report what the overview and /readyz report."""
    with closing(parts.database(settings)) as db:
        now = now_of(db)
        emptied = None
        with db.read() as tx:
            state = gauges.state(tx, now=now)
            links = public_url.links(tx)
            try:
                parts.refuse_emptied(tx, rules.book, rules.file)
            except RulesRefused as error:
                emptied = Check("rules", False, str(error))
    if emptied:
        yield emptied
    yield _links(settings, links)
    if any(isinstance(notifier, SlackNotifier) and notifier.has_buttons for notifier in rules.book.notifiers.values()):
        yield _buttons(settings.public_url or links.base or settings.web_url)
    yield from _callbacks(settings, rules.book, state.watches)
    sha, alive = rules.book.sha, state.rules.alive
    if alive:
        yield Check("workers", True, count_of(len(alive), "is running", "are running"))
    # A worker that has these rules had the time since then to poll by them.
    since = state.rules.changed if any(worker.sha == sha for worker in alive) else now
    for warning in assess(state, rules.book, Reader(sha=sha, since=since), now).warnings:
        # Before the first poll, it is no failure that no worker is running.
        is_early = (warning.check, warning.who) == ("worker", None) and not any(w["polled_at"] for w in state.watches)
        failed = warning.level < Level.ODD and not is_early
        yield Check(warning.who or warning.check, False if failed else None, warning.detail)
    rows = {row["name"]: row for row in state.watches}
    for watch in rules.book.watches:
        if note := rate_note(watch, rows.get(watch.name, {})):
            yield Check(f"watch {watch.name}", None, note)
    for worker in alive:
        if worker.fault:
            yield Check(f"worker {worker.id}", None, f"keeps its old rules: {worker.fault}")


def _links(settings: Settings, stored: Links) -> Check:
    """Say where messages link to. A shell on a platform may know less than the web process, or more."""
    base = settings.public_url or stored.base or settings.web_url
    if base is None:
        advice = "set BRIDGE_PUBLIC_URL to where people open the dashboard, such as https://bridge.example.com"
        return Check("links", None, f"messages have no links to the dashboard: {advice}")
    when = "" if base == stored.base else ", once a web process has started"
    return Check("links", True, f"messages link to {base}{when}")


def _buttons(base: str | None) -> Check:
    """Say where Slack is to send clicks on buttons. Only Slack knows what the app's page says, and whether it works."""
    where = 'as Request URL on the app\'s page "Interactivity & Shortcuts"'
    if base is None:
        advice = f"set BRIDGE_PUBLIC_URL, and enter its address with {SLACK_CLICKS} behind it {where}"
        return Check("buttons in Slack", None, f"it is not known where Slack can reach the bridge: {advice}")
    enter = f"enter {base.rstrip('/')}{SLACK_CLICKS} {where}"
    host = urlsplit(base).hostname or ""
    if host == "localhost" or _is_private(host):
        return Check(
            "buttons in Slack", None, f"Slack cannot reach {host}, which is only known here: set another address"
        )
    if not base.startswith("https://"):
        return Check("buttons in Slack", None, f"{enter}; better use https: clicks name people and messages")
    unchecked = "whether that was done, and whether Slack gets through, cannot be checked: click on a button"
    return Check("buttons in Slack", True, f"{enter}; {unchecked}")


def _is_private(host: str) -> bool:
    try:
        return not ip_address(host).is_global
    except ValueError:  # a name
        return False


def _name_of(credentials: str | None) -> str:
    return "credentials" if credentials is None else f"credentials {credentials}"


def _credentials(settings: Settings, book: Rulebook, ci: TencentCi) -> Iterator[Check]:
    """Say of each set of keys whether it can be used at all; whether CI knows it is found out by asking for jobs."""
    if missing := parts.missing_key(settings, book):
        yield Check(_name_of(None), False, missing)
    elif settings.missing_key is None:
        yield Check(_name_of(None), True, "the key of TENCENTCLOUD_SECRET_ID")
    for name in book.credentials:
        try:
            keys = ci.keys.of(name)
        except CiError as error:
            yield Check(_name_of(name), False, str(error))
        else:
            until = f", until {keys.expires_at:%Y-%m-%dT%H:%M:%SZ}" if keys.expires_at else ""
            yield Check(_name_of(name), True, f"the keys of {keys.where}{until}")


def _callbacks(settings: Settings, book: Rulebook, rows: Sequence[Facts]) -> Iterator[Check]:
    """Say when CI's last callback came, if the bridge takes any."""
    if not settings.callback_tokens:
        return
    shortest = min(map(len, settings.callback_tokens))
    if shortest < SHORTEST_SAFE:
        advice = f"it can be guessed: use {SHORTEST_SAFE} or more, such as of `openssl rand -hex 16`"
        yield Check(
            "callbacks", None, f"a token of BRIDGE_CALLBACK_TOKEN has {count_of(shortest, 'character')}; {advice}"
        )
    came = {row["name"]: row["callback_at"] for row in rows if row["callback_at"]}
    never = [watch.name for watch in book.watches if watch.name not in came]
    if came:
        name, at = max(came.items(), key=lambda one: one[1])
        yield Check("callbacks", True, f'the last one came at {at}, for the watch "{name}"')
    often = [watch.name for watch in book.watches if watch.name in came and watch.every < _IDLE and not watch.idle]
    if often:
        advice = f'with idle = "5m", quiet tags of {", ".join(often)} would take fewer calls'
        yield Check("callbacks", True, f"{advice}, and the ends of their jobs would still be seen at once")
    if never:
        advice = "switch them on for its queues, as docs/callbacks.md shows, or leave it to the polls"
        yield Check("callbacks", None, f"none has come for {', '.join(never)}: {advice}")


def _watch(ci: TencentCi, watch: Watch) -> Iterator[Check]:
    is_empty = True
    for stream in watch.streams:
        name = f"watch {watch.name}, {stream.tag}" + (f", queue {stream.queue}" if stream.queue else "")
        asked = parts.utc_now()
        try:
            page = ci.list(stream, order="Desc", size=1)
        except CiError as error:
            is_empty = False
            yield Check(name, False, str(error))
            continue
        clocks = Clocks(asked=asked, answered=parts.utc_now(), date=page.served_at)
        for job in page.jobs[:1]:
            is_empty = False
            yield Check(name, True, f"newest job {job.id} is {job.state}")
        if not page.jobs:
            yield Check(name, True, "no job yet")
        if not clocks.agree:
            yield Check("clock", None, clock_warning(clocks.ahead) or "CI's answer has no Date to compare")
    if is_empty:
        yield Check(f"watch {watch.name}", None, "has no jobs at all: are bucket, region and tags right?")


def _queues(ci: TencentCi, place: Place) -> Check:
    """Say whether CI tells the names of a bucket's queues; without them ids are shown, and all else works."""
    try:
        found = ci.queues(place)
    except CiError as error:
        return Check(f"queues of {place.bucket}", None, f"their names are not known: {error}")
    paused = ", ".join(queue.name or queue.id for queue in found if queue.state == PAUSED)
    return Check(
        f"queues of {place.bucket}",
        None if paused else True,
        f"{count_of(len(found), 'queue')}" + (f"; paused in CI: {paused}" if paused else ""),
    )


def notifier_checks(settings: Settings, book: Rulebook) -> Iterator[Check]:
    """Check each notifier as far as possible without sending it a message."""
    with closing(parts.http_client(settings)) as client:
        egress = Egress(client, settings.slack_api_url)
        for notifier in book.notifiers.values():
            for check in integration_of(notifier).check(egress):
                yield Check(f"notifier {notifier.name}", *check)
