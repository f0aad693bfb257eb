"""Days of a pipeline with rules over several jobs: two workers in turn, and a restart every hour."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

from bridge.model import FAILED, RUNNING, SUBMITTED, SUCCESS
from bridge.pipeline.dispatch import Dispatcher
from bridge.pipeline.poller import Poller
from bridge.record.database import Database
from bridge.record.schema import deliveries, messages
from bridge.record.schema import incidents as table
from tests.conftest import on_both
from tests.support.nouns import by_hand, hours, minutes
from tests.support.records import rows
from tests.support.rig import Rig

RULES = """
[[rule]]
name = "sick"
to = "Failed"
by = ["queue"]
count = ">= 3"
within = "10m"
recover = true
notify = "ops"
escalate = { after = "30m", notify = "cms" }

[[rule]]
name = "row"
to = "Failed"
match.tag = "Snapshot"
count = ">= 2"
in_a_row = true
recover = true
notify = "ops"

[[rule]]
name = "share"
to = "Failed"
share = "> 40% of 5"
within = "2h"
recover = true
notify = "ops"

[[rule]]
name = "silent"
absent = "Success"
for = "3h"
between = "08:00-20:00"
recover = true
notify = "ops"

[[rule]]
name = "backlog"
in = "Submitted"
for = "10m"
by = ["queue"]
count = "> 2"
recover = true
unless = "sick"
notify = "ops"

[[rule]]
name = "asset"
all = "done"
by = ["user_data.asset"]
expect = "{{ job.user_data.parts }}"
notify = "cms"

[[rule]]
name = "batch"
all = "done"
by = ["user_data.batch"]
settle = "30m"
notify = "cms"

[[rule]]
name = "stuck"
in = "Running"
for = "1h"
recover = true
notify = "ops"
escalate = { after = "30m", notify = "cms" }
"""
STEP = minutes(5)


def open_incidents(db: Database) -> list[dict[str, Any]]:
    return [row for row in rows(db, table) if row["opened_at"] and not row["closed_at"]]


class Story(Rig):
    """Two workers that poll and deliver in turn; each is started anew every hour."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.workers: list[tuple[Poller, Dispatcher]] = []
        self.turn = 0
        self.restart()

    def restart(self) -> None:
        self.workers = [(self.new_poller(), self.new_dispatcher()) for _ in range(2)]

    def goes_on(self, time: timedelta) -> None:
        until = self.clock() + time
        while self.clock() < until:
            self.clock.advance(STEP)
            self.turn += 1
            if self.turn % 12 == 0:
                self.restart()
            self.poller, self.dispatcher = self.workers[self.turn % 2]
            self.poll()
            self.deliver()

    def told(self) -> list[str]:
        return [f"{one.at:%d %H:%M} {one.notifier}: {one.title}" for one in self.received()]

    def acknowledge(self, rule: str) -> None:
        (open_,) = [row for row in open_incidents(self.db) if row["rule"] == rule]
        by_hand(self.db, now=self.clock()).acknowledge(open_["id"], self.book)


@on_both
def test_what_happens_in_three_days_is_told_once_each(db: Database) -> None:
    rig = Story(db, RULES)
    rig.goes_on(minutes(30))  # it is half past nine
    for number in range(4):  # a storm that nobody sees to
        rig.has(f"storm{number}", FAILED, queue="p1")
    for number in range(4):  # many wait for the sick queue, of which nobody hears: the rule waits for the other
        rig.has(f"behind{number}", SUBMITTED, queue="p1")
    for number in range(8):
        rig.goes_on(STEP)
        rig.has(f"more{number}", FAILED, queue="p1")
    for number in range(4):
        rig.has(f"behind{number}", SUCCESS, queue="p2", user_data="batch=b1")
    rig.goes_on(minutes(30))
    rig.has("good", SUCCESS, queue="p1")
    rig.goes_on(hours(1))
    for number in range(3):  # one that is acknowledged
        rig.has(f"second{number}", FAILED, queue="p1")
    rig.goes_on(STEP)
    rig.acknowledge("sick")
    for number in range(8):
        rig.has(f"again{number}", FAILED, queue="p1")
        rig.goes_on(STEP)
    rig.goes_on(hours(1))
    for number in range(5):
        rig.has(f"fine{number}", SUCCESS, queue="p2")
    rig.goes_on(hours(20))  # over night: nothing succeeds, and from eight o'clock on that counts
    rig.has("morning", SUCCESS)
    rig.goes_on(minutes(30))
    for number in range(4):  # many wait
        rig.has(f"wait{number}", SUBMITTED, queue="p2")
    rig.has("hangs", RUNNING)
    for number in range(3):  # an asset, one part after the other
        rig.has(f"part{number}", SUBMITTED, user_data="asset=a1;parts=3")
    rig.goes_on(minutes(40))
    for number in range(4):
        rig.has(f"wait{number}", SUCCESS)
    for number in range(3):
        rig.has(f"part{number}", SUCCESS, user_data="asset=a1;parts=3")
        rig.goes_on(minutes(20))
    rig.has("hangs", SUCCESS)
    rig.goes_on(hours(1))
    for number in range(2):  # two bad snapshots, then a good one
        rig.has(f"shot{number}", FAILED, tag="Snapshot")
        rig.goes_on(STEP)
    rig.has("shot9", SUCCESS, tag="Snapshot")
    rig.goes_on(hours(2))

    kinds = Counter((one.event["data"].get("rule"), one.event["type"], one.notifier) for one in rig.received())
    assert kinds == {
        ("sick", "ci.incident.opened", "ops"): 2,
        ("sick", "ci.incident.escalated", "cms"): 1,
        ("sick", "ci.incident.closed", "ops"): 2,
        ("sick", "ci.incident.closed", "cms"): 1,
        ("share", "ci.incident.opened", "ops"): 1,
        ("share", "ci.incident.closed", "ops"): 1,
        ("silent", "ci.incident.opened", "ops"): 1,
        ("silent", "ci.incident.closed", "ops"): 1,
        ("backlog", "ci.incident.opened", "ops"): 1,
        ("backlog", "ci.incident.closed", "ops"): 1,
        ("asset", "ci.group.completed", "cms"): 1,
        ("batch", "ci.group.completed", "cms"): 1,
        ("stuck", "ci.job.overdue", "ops"): 1,
        ("stuck", "ci.incident.escalated", "cms"): 1,
        ("stuck", "ci.job.recovered", "ops"): 1,
        ("stuck", "ci.job.recovered", "cms"): 1,
        ("row", "ci.incident.opened", "ops"): 1,
        ("row", "ci.incident.closed", "ops"): 1,
    }, "\n".join(rig.told())
    assert {row["state"] for row in rows(db, deliveries)} == {2}  # all are sent
    assert len({row["id"] for row in rows(db, messages)}) == len(rows(db, messages))
    assert open_incidents(db) == []
