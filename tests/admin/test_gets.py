"""No GET writes: links are followed by whoever sees them, people and programs, signed in or not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import product
from urllib.parse import urlencode

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import Rule

from bridge.model import Rejected
from bridge.record.database import Database
from bridge.record.outbox import silences
from bridge.record.queries.lists import Filter
from bridge.record.schema import metadata
from tests.admin.pages.conftest import signed_in
from tests.support.admin_world import World, a_failed_job, a_silence
from tests.support.nouns import by_hand
from tests.support.records import rows

# What an address might ask to be done; the API refuses what it does not know, so it is asked without it too.
TEMPTATION = {
    "id": "j1", "job": "j1", "digest": "dlv_1", "rule": "all", "notifier": "cms", "state": "dead", "everything": "yes",
    "preview": "yes", "for": "2h", "reason": "why not", "key": "k1", "method": "POST", "_method": "DELETE",
    "all": "yes",
}  # fmt: skip
WAYS = ({}, {"HX-Request": "true"}, {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"})


def lived_in(world: World) -> dict[str, str]:
    """Let there be something of everything; return the ids that addresses need."""
    world.accepts(world.book)
    world.register()
    world.beat()
    world.polled()
    delivery = world.sees(a_failed_job(1))[0].deliveries[0].id
    world.attempt(Rejected("no"))
    other = world.delivery_of(2)
    world.attempt(Rejected("no"))
    batch = by_hand(world.db, now=world.now).redrive_batch(Filter(state="dead", job="j2"), interval=timedelta(hours=1))
    with world.db.write() as tx:
        silences.add(tx, a_silence())
    assert world.state_of(other) == "waiting"
    return {
        "job_id": "j1", "delivery_id": delivery, "batch_id": batch.id, "silence_id": "sil_1", "name": "vod",
        "filename": "app.js", "incident_id": world.incident("j1"), "sha": world.book.sha,
    }  # fmt: skip


def stored(db: Database) -> dict[str, list[str]]:
    return {table.name: sorted(map(repr, rows(db, table))) for table in metadata.sorted_tables}


def addresses(app: Flask, facts: dict[str, str]) -> Iterator[str]:
    """Yield the address of everything that answers a GET. One with a new argument is to be named in `lived_in`."""
    for rule in app.url_map.iter_rules():
        if "GET" in (rule.methods or ()):
            yield built(rule, facts)


def built(rule: Rule, facts: dict[str, str]) -> str:
    found = rule.build({name: facts[name] for name in rule.arguments})
    assert found is not None
    return found[1]


def ask_in_every_way(client: FlaskClient, path: str) -> set[int]:
    statuses = set()
    for address, headers, method in product((path, f"{path}?{urlencode(TEMPTATION)}"), WAYS, ("GET", "HEAD")):
        with client.open(address, headers=headers, method=method) as answer:
            statuses.add(answer.status_code)
    return statuses


def test_nothing_that_answers_a_get_writes(either_world: World) -> None:
    facts = lived_in(either_world)
    app = either_world.app()
    before, paths = stored(either_world.db), list(addresses(app, facts))
    clients = {"session": signed_in(either_world, app=app), "token": either_world.client(), "nobody": app.test_client()}
    answered = {(path, who): ask_in_every_way(client, path) for path in paths for who, client in clients.items()}
    assert stored(either_world.db) == before
    unseen = {path for path in paths if 200 not in answered[path, "session"] | answered[path, "token"]}
    assert unseen == {"/find"}  # which leads on
    assert not any(statuses & {500, 501, 502} for statuses in answered.values())
