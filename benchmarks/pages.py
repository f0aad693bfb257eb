"""Every list, detail and page beside a month's million jobs, against a handful; and what the overview's refresh costs.

Both databases fill the pages that are asked for: a ratio is what the crowd costs, not what longer answers do.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Connection, func, select

from benchmarks.bench_bridge import now
from benchmarks.large_database import DatabaseSize, fill, log
from benchmarks.machine import Bench, Missing, Stores
from benchmarks.report import Line, at_most, noted
from benchmarks.stored_texts import BATCH, NOTIFIERS, QUEUES, RULES, STATES, TAGS, at_work, rulebook, tally
from bridge.admin import create_app
from bridge.record.database import Database, at
from bridge.record.schema import DELIVERY_STATES, deliveries, digests, jobs, workers
from bridge.send.integration import Egress

JOBS = 1_000_000
_MOST = 3.0
_REFRESH_MS = 20.0
_TURNS, _AT_MOST_S = 9, 3.0  # of each request, in each round
_REFRESHES, _REFRESHED_EVERY = 20, timedelta(seconds=5)
_WITHOUT_RECORD = ("healthz", "openapi", "pages.sign_in")
_TOKEN = "token-of-the-benchmark"

_OF_ALL = ({"since": "{recent}"}, {"since": "{old}"}, {"until": "{recent}"}, {"until": "{old}"}, {"cursor": "{cursor}"})
_OF_JOBS = (
    {}, *({"state": state} for state in (*STATES, "Pause")), {"tag": TAGS[0]}, {"tag": TAGS[-1]}, {"queue": QUEUES[0]},
    {"job": "{job_id}"}, *_OF_ALL,
)  # fmt: skip
_OF_DELIVERIES = (
    {}, *({"state": state} for state in DELIVERY_STATES), {"notifier": NOTIFIERS[0]}, {"notifier": NOTIFIERS[-1]},
    {"rule": RULES[0]}, {"rule": RULES[-1]}, {"job": "{job_id}"}, {"digest": "{digest}"}, *_OF_ALL,
)  # fmt: skip
_QUERIES: Mapping[str, Sequence[Mapping[str, str]]] = {
    "jobs": _OF_JOBS, "transitions": _OF_JOBS, "deliveries": _OF_DELIVERIES,
    "": ({}, {"span": "1h"}, {"span": "7d"}), "stats": ({}, {"span": "1h"}, {"span": "7d"}),
    "find": ({"id": "{job_id}"}, {"id": "{delivery_id}"}), "new": ({"state": "dead"}, {"rule": RULES[0]}),
}  # fmt: skip
_CURSOR = re.compile(r'(?:"cursor": ?"|[?&;]cursor=)([0-9.]+)')  # as JSON has it, and a link


def measure(
    _bench: Bench, stores: Stores, rounds: int, *, jobs: int = JOBS, sqlite: bool = False, keep: str | None = None
) -> list[Line]:
    if "PostgreSQL" not in stores.kinds and not sqlite:
        raise Missing("without PostgreSQL it measures with --sqlite only")
    kinds = [kind for kind in stores.kinds if sqlite or kind == "PostgreSQL"]
    return [line for kind in kinds for line in _measure(stores, kind, rounds, jobs, keep)]


def _measure(stores: Stores, kind: str, rounds: int, jobs: int, keep: str | None) -> list[Line]:
    costs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    refreshes: list[tuple[float, float]] = []
    with ExitStack() as closing:
        few = closing.enter_context(_bridge(stores, kind, DatabaseSize.handful()))
        many = closing.enter_context(
            _bridge(stores, kind, DatabaseSize.of(jobs), keep if kind == "PostgreSQL" else None)
        )
        asks = list(_asks(many.app))
        for context in range(rounds):
            for ask in asks:
                costs[str(ask)].append(_in_turn(ask, few, many))
            refreshes.append((_refresh_ms(few), _refresh_ms(many)))
            log(f"{kind}: round {context + 1} of {rounds}")
    lines = [at_most(_MOST, f"{what}, {kind}", "ms", **_pairs(found)) for what, found in costs.items()]
    line = noted(f"the processor in a refresh of the overview, {kind}", "ms", **_pairs(refreshes))
    return [*lines, replace(line, target=f"at most {_REFRESH_MS:g} ms", met=line.ours <= _REFRESH_MS)]


def _pairs(found: Sequence[tuple[float, float]]) -> dict[str, Any]:
    few, many = zip(*found, strict=True)
    return {"ours": many, "peer_name": "a handful", "peer": few}


# --- two bridges --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ask:
    """A question, before it is known which database is asked."""

    path: str  # as Flask writes it
    query: tuple[tuple[str, str], ...] = ()
    page: bool = False  # of the dashboard

    def __str__(self) -> str:
        return self.path + "".join(f" {name}={value}" for name, value in self.query)


def _asks(app: Flask) -> Iterator[Ask]:
    """Return whatever can be got, each list also with each filter alone."""
    for rule in app.url_map.iter_rules():
        if "GET" not in (rule.methods or ()) or "filename" in rule.arguments or rule.endpoint in _WITHOUT_RECORD:
            continue
        for query in _QUERIES.get(rule.rule.rpartition("/")[2], ({},)):
            yield Ask(rule.rule, tuple(query.items()), page=rule.endpoint.startswith("pages."))


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A bridge, who asks it, and what stands in the questions."""

    app: Flask
    api: FlaskClient
    browser: FlaskClient
    values: Mapping[str, str]
    later: list[timedelta]  # its clock is moved by

    def url(self, ask: Ask) -> str:
        values = dict(self.values)
        if ("cursor", "{cursor}") in ask.query:
            values["cursor"] = _CURSOR.findall(self.get(ask, ask.path))[-1]
        path = re.sub(r"<(?:\w+:)?(\w+)>", lambda found: quote(values[found[1]]), ask.path)
        query = urlencode({name: value.format(**values) for name, value in ask.query})
        return f"{path}?{query}" if query else path

    def get(self, ask: Ask, url: str, **headers: str) -> str:
        answer = (self.browser if ask.page else self.api).get(url, headers=headers)
        if answer.status_code not in (200, 303):  # /find leads on
            raise RuntimeError(f"{url} answered {answer.status_code}: {answer.text[:500]}")
        return answer.text


def _no_egress() -> AbstractContextManager[Egress]:
    raise RuntimeError("nobody clicks in Slack here")


def _side(db: Database) -> Side:
    book = rulebook()
    with db.read() as tx:
        # The time stands still at when it was filled: a database that was kept looks as it did then.
        moment = at(tx.execute(select(func.max(workers.c.beat_at))).scalar_one())
        values = _values(tx, moment)
    later = [timedelta()]
    app = create_app(
        db=db, book=lambda: book, admin_token=_TOKEN, read_token=None, clock=lambda: moment + later[0], version="0",
        nonce=lambda: "nonce", environ={}, egress=_no_egress,
    )  # fmt: skip
    api, browser = app.test_client(), app.test_client()
    api.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {_TOKEN}"
    browser.post("/sign-in", data={"token": _TOKEN}, headers={"Origin": "http://localhost"})
    return Side(app=app, api=api, browser=browser, values=values, later=later)


def _values(tx: Connection, moment: datetime) -> dict[str, str]:
    middle = tx.execute(select(func.max(jobs.c.n))).scalar_one() // 2
    sent_by = select(digests.c.delivery).where(digests.c.delivery.is_not(None)).limit(1)
    return {
        "job_id": tx.execute(select(jobs.c.id).where(jobs.c.n == middle)).scalar_one(),
        "delivery_id": tx.execute(select(deliveries.c.id).where(deliveries.c.n == 3 * middle)).scalar_one(),
        "digest": tx.execute(sent_by).scalar_one(),
        "batch_id": BATCH,
        "recent": (moment - timedelta(days=2)).isoformat(timespec="seconds"),
        "old": (moment - timedelta(days=20)).isoformat(timespec="seconds"),
    }


@contextmanager
def _bridge(stores: Stores, kind: str, crowd: DatabaseSize, keep: str | None = None) -> Iterator[Side]:
    with stores.empty(kind) as url, ExitStack() as closing:
        address, is_new = _kept(url, keep) if keep else (url, True)
        db = Database(address)
        closing.callback(db.close)
        if is_new:
            moment = now()
            db.upgrade()
            at_work(db, rulebook(), moment)
            log(f"{kind}: {crowd.jobs:,} jobs")
            fill(db, crowd, now=moment)
            tally(db, crowd.days, moment)
        yield _side(db)


def _kept(url: str, name: str) -> tuple[str, bool]:
    """Return the address of a database that stays, and whether it is made only now."""
    found = sa.make_url(url).set(database=name)
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with engine.connect() as here:
        is_new = not here.execute(sa.text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": name}).first()
        if is_new:
            here.exec_driver_sql(f'CREATE DATABASE "{name}"')
    engine.dispose()
    return found.render_as_string(hide_password=False), is_new


# --- time ---------------------------------------------------------------------------------------------------


def _in_turn(ask: Ask, few: Side, many: Side) -> tuple[float, float]:
    """Return how many milliseconds an answer takes of each; the best of some, as others only ever take away from it."""
    took: dict[str, list[float]] = {"few": [], "many": []}
    sides = {"few": (few, few.url(ask)), "many": (many, many.url(ask))}
    for side, url in sides.values():
        side.get(ask, url)  # what is asked for the first time is prepared, and read from the disk
    until_s = time.monotonic() + _AT_MOST_S
    while not took["many"] or (len(took["many"]) < _TURNS and time.monotonic() < until_s):
        for name, (side, url) in sides.items():
            from_s = time.perf_counter()
            side.get(ask, url)
            took[name].append(1000 * (time.perf_counter() - from_s))
    return min(took["few"]), min(took["many"])


def _refresh_ms(side: Side) -> float:
    """Return what of the processor the overview takes that htmx asks for again and again."""
    overview = Ask(
        "/", page=any(rule.rule == "/" and rule.endpoint.startswith("pages.") for rule in side.app.url_map.iter_rules())
    )
    side.get(overview, "/", **{"HX-Request": "true"})  # the first one reads the templates
    from_s = time.process_time()
    for _ in range(_REFRESHES):
        side.later[0] += _REFRESHED_EVERY  # charts are made anew with some of them
        side.get(overview, "/", **{"HX-Request": "true"})
    side.later[0] = timedelta()
    return 1000 * (time.process_time() - from_s) / _REFRESHES
