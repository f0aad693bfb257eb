"""What rules over several jobs owe: an incident for each job, so that CI's own history says how many there must be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from sqlalchemy import func, select

from bridge.model import DONE, FAILED
from bridge.record.schema import incidents, jobs
from tests.support.stage import Stage

NOTIFIERS = ("group", "sick", "grave", "pager")
RULES = """
[notifier.group]
type = "webhook"
url = { env = "GROUP_URL" }
secret = { env = "CMS_SECRET" }
max_in_flight = 32

[notifier.sick]
type = "webhook"
url = { env = "SICK_URL" }
secret = { env = "CMS_SECRET" }
max_in_flight = 32

[notifier.grave]
type = "webhook"
url = { env = "GRAVE_URL" }
secret = { env = "CMS_SECRET" }
max_in_flight = 32

[notifier.pager]
type = "webhook"
url = { env = "PAGER_URL" }
secret = { env = "CMS_SECRET" }
max_in_flight = 32

[[rule]]
name = "group"
all = "done"
by = ["job"]
expect = 1
notify = "group"

[[rule]]
name = "sick"
to = "Failed"
by = ["job"]
count = ">= 1"
within = "2s"
recover = true
notify = "sick"

[[rule]]
name = "grave"
to = "Failed"
by = ["job"]
count = ">= 1"
within = "1d"
notify = "grave"
escalate = { after = "1s", notify = "pager" }
"""


def to_come(stage: Stage) -> bool:
    """Tell whether an incident goes on although CI does nothing more."""
    current = select(incidents.c.rule).where(incidents.c.closed_at.is_(None), incidents.c.escalated_at.is_(None))
    with stage.db.read() as tx:
        left = Counter(tx.execute(current).scalars())
        unfinished = tx.execute(select(func.count()).select_from(jobs).where(jobs.c.open)).scalar_one()
    return left["sick"] + left["grave"] > 0 or left["group"] > unfinished


def sent(stage: Stage) -> int:
    """Return how many messages about incidents receivers accepted."""
    return sum(len(stage.accepted[f"/{name}"]) for name in NOTIFIERS)


def faults(stage: Stage, truth: Mapping[str, list[str]]) -> list[str]:
    """Compare what receivers accepted with the states of CI's jobs, by id."""
    told: dict[tuple[str, str, str], set[str]] = {}
    for name in NOTIFIERS:
        for one in stage.accepted[f"/{name}"]:
            body = one.json
            told.setdefault((name, body["type"], body["data"]["by"]["job"]), set()).add(one.id or "")
    late = {body["data"]["by"]["job"] for one in stage.accepted["/sick"] if (body := one.json)["data"]["closed_at"]}
    owed = {("group", "ci.group.completed", job) for job, states in truth.items() if states[-1] in DONE}
    failed = {job for job, states in truth.items() if states[-1] == FAILED}
    owed |= {(name, "ci.incident.opened", job) for name in ("sick", "grave") for job in failed}
    owed |= {("pager", "ci.incident.escalated", job) for job in failed}
    closed = {job for name, what, job in told if what == "ci.incident.closed"}
    return [
        *(f"{one} was not told" for one in sorted(owed - told.keys())),
        *(f"{one} was told" for one in sorted(told.keys() - owed) if one[:2] != ("sick", "ci.incident.closed")),
        *(f"{one} was told as {ids}" for one, ids in told.items() if len(ids) > 1),
        *(f"the end of {job} was not told" for job in sorted(failed - closed - late)),
        *(f"the end of {job} was told" for job in sorted(closed - failed)),
    ]
