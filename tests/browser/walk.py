"""Every page there is, by its address."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from bridge.record import rulesets
from bridge.record.queries.lists import Filter
from tests.browser.bridges import Bridge
from tests.support.admin_world import World
from tests.support.nouns import by_hand

_NO_PAGES = {"pages.static", "pages.download_rules", "pages.find"}  # files; an address that only leads to others
LONG = "上传/电影/" + "一个很长的文件名" * 12 + "-" + "without-any-space" * 8 + ".mp4"


@dataclass(frozen=True)
class LivedIn:
    """A bridge where something of everything has happened."""

    bridge: Bridge
    job: str
    delivery: str
    batch: str
    incident: str

    @property
    def paths(self) -> list[str]:
        """Return the address of every page. A page whose address has a new argument is to be named here."""
        facts = {"job_id": self.job, "delivery_id": self.delivery, "batch_id": self.batch, "incident_id": self.incident}
        with self.bridge.stage.db.read() as tx:
            facts["sha"] = rulesets.in_force(tx) or ""
        app = World(self.bridge.stage.db).app()
        found = []
        for rule in app.url_map.iter_rules():
            if rule.endpoint.startswith("pages.") and rule.endpoint not in _NO_PAGES and "GET" in (rule.methods or ()):
                built = rule.build({name: facts[name] for name in rule.arguments})
                assert built is not None
                found.append(built[1])
        return [*found, "/jobs?state=none&since=nonsense", "/deliveries?state=dead", "/?span=7d"]


def lived_in(bridge: Bridge) -> LivedIn:
    job, dead = bridge.dead(input=LONG)
    bridge.job("SpeechRecognition")
    other, _ = bridge.dead()
    operations = by_hand(bridge.stage.db, now=datetime.now(UTC))
    batch = operations.redrive_batch(Filter(state="dead", job=other), interval=timedelta(hours=1))
    incident = World(bridge.stage.db, now=datetime.now(UTC)).incident(job, other)
    return LivedIn(bridge, job, dead["id"], batch.id, incident)
