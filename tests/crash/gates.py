"""What is told through digests, throttles and level rules: what was owed, beside what was told.

Every number is held against another source: what CI did, what is on record, and what receivers accepted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import and_, func, select

from bridge.model import DONE, NEW, RUNNING, SUBMITTED
from bridge.record import schema
from bridge.record.schema import MERGED, deliveries, jobs, messages, transitions, watches
from bridge.simulator.receiver import Received
from tests.support.stage import Stage

# Told at paths of their own, by the rules that are added to tests/support/stage.py's.
GATED = ("digest", "flood", "stuck")
RULES = """
[notifier.digest]
type = "webhook"
url = { env = "DIGEST_URL" }
secret = { env = "CMS_SECRET" }
max_in_flight = 32

[notifier.flood]
type = "webhook"
url = { env = "FLOOD_URL" }
secret = { env = "CMS_SECRET" }
max_in_flight = 32

[notifier.stuck]
type = "webhook"
url = { env = "STUCK_URL" }
secret = { env = "CMS_SECRET" }
max_in_flight = 32

[[rule]]
name = "summary"
to = "done"
group = { by = ["queue"], wait = "2s" }
notify = "digest"

[[rule]]
name = "flood"
to = "Running"
throttle = "3/2s"
notify = "flood"

[[rule]]
name = "stuck"
in = ["Submitted", "Running"]
for = "2s"
recover = true
notify = "stuck"
"""
_LONG = (SUBMITTED, RUNNING)
_FOR_MS = 2_000

Event = tuple[str, int]  # a job and the number of its state


@dataclass(slots=True)
class Owed:
    """What was owed through gates; the lists name what is wrong."""

    merged: Counter[str] = field(default_factory=Counter)  # messages told in digests, by notifier
    alarms: int = 0  # that level rules told of
    held_lost: list[str] = field(default_factory=list)
    held_doubled: list[str] = field(default_factory=list)  # told itself and in a digest, or in two
    digests_wrong: list[str] = field(default_factory=list)  # other than what is on record as told in them
    alarms_lost: list[str] = field(default_factory=list)
    alarms_invented: list[str] = field(default_factory=list)


def owed(stage: Stage, truth: Mapping[str, list[str]]) -> Owed:
    """Compare; `truth` are the states of CI's jobs by id."""
    found = Owed()
    ends = {(id_, n): to for id_, states in truth.items() for n, to in enumerate(states, 1) if to in DONE}
    runs = {(id_, n): to for id_, states in truth.items() for n, to in enumerate(states, 1) if to == RUNNING}
    _compare_digests(stage, "digest", ends, found)
    _compare_digests(stage, "flood", runs, found)
    told_itself = {one.id for one in stage.accepted["/digest"] if _json(one)["type"] != "ci.digest"}
    found.digests_wrong += [f"digest: {id_} was told itself" for id_ in told_itself]
    _compare_alarms(stage, found)
    return found


def alarms_to_come(stage: Stage) -> int:
    """Return of how many jobs the level rule has still to tell, when CI does nothing more."""
    told = and_(schema.alarms.c.job_id == jobs.c.id, schema.alarms.c.sequence == jobs.c.sequence)
    waiting = select(func.count()).select_from(jobs).outerjoin(schema.alarms, told)
    with stage.db.read() as tx:
        return tx.execute(waiting.where(jobs.c.state.in_(_LONG), schema.alarms.c.n.is_(None))).scalar_one()


# --- digests ----------------------------------------------------------------------------------------------


def _compare_digests(stage: Stage, notifier: str, expected: Mapping[Event, str], found: Owed) -> None:
    """Everything expected is on record once, and was accepted once: itself, or in one digest."""
    accepted = {one.id or "": one for one in stage.accepted[f"/{notifier}"]}
    rows = _deliveries(stage, notifier)
    found.digests_wrong += [f"{notifier}: {row} is on record" for row in rows if (row.job_id, row.n) not in expected]
    by_event: dict[Event, list[Any]] = defaultdict(list)
    members: dict[str, dict[Event, str]] = defaultdict(dict)
    for row in rows:
        by_event[row.job_id, row.n].append(row)
        if row.state == MERGED:
            members[row.told_in][row.job_id, row.n] = row.tells
    for event, state in expected.items():
        ways = [way for row in by_event[event] for way in _ways(row, accepted)]
        said = f"{notifier}: {event} {state}, told as {ways}, on record {list(map(str, by_event[event]))}"
        found.held_lost += [] if ways else [said]
        found.held_doubled += [said] if len(ways) > 1 or len(by_event[event]) > 1 else []
    digests = {id_: one for id_, one in accepted.items() if _json(one)["type"] == "ci.digest"}
    for id_ in digests.keys() | members.keys():
        found.digests_wrong += _differences(notifier, id_, digests.get(id_), members[id_])
    found.merged[notifier] = sum(map(len, members.values()))
    total = sum(_json(one)["data"]["total"] for one in digests.values())
    if total != found.merged[notifier]:
        found.digests_wrong.append(f"{notifier}: digests say {total}, on record are {found.merged[notifier]}")


def _deliveries(stage: Stage, notifier: str) -> list[Any]:
    """Return what is to be told of jobs, with the digest that told it."""
    found = (
        select(deliveries.c.id, deliveries.c.state, schema.digests.c.delivery.label("told_in"))
        .add_columns(messages.c.job_id, messages.c.sequence.label("n"), messages.c.state.label("tells"))
        .join(messages, messages.c.id == deliveries.c.message)
        .outerjoin(schema.digests, schema.digests.c.n == deliveries.c.digest)
        .where(deliveries.c.notifier == notifier, messages.c.kind != "digest")
    )
    with stage.db.read() as tx:
        return list(tx.execute(found))


def _ways(row: Any, accepted: Mapping[str, Received]) -> list[str]:
    """Return the ids under which a message was accepted."""
    told_in = [row.told_in] if row.state == MERGED else []
    return [id_ for id_ in (row.id, *told_in) if id_ in accepted]


def _differences(notifier: str, id_: str, told: Received | None, members: Mapping[Event, str]) -> list[str]:
    """Say in what a digest that was accepted differs from what is on record as told in it."""
    if told is None:
        return [f"{notifier}: nobody accepted {id_}, on record as telling {len(members)}"]
    said, found = _json(told)["data"], []
    if said["total"] != len(members) or said["states"] != Counter(members.values()):
        found.append(f"{notifier}: {id_} says {said['total']} {said['states']}, on record are {len(members)}")
    quoted = {(one["job"], int(one["sequence"])): one["state"] for one in said["members"]}
    if not quoted or not quoted.items() <= members.items():
        found.append(f"{notifier}: {id_} quotes {quoted.items() - members.items()}, which are not its members")
    return found


# --- level rules ------------------------------------------------------------------------------------------------


def _compare_alarms(stage: Stage, found: Owed) -> None:
    """A level rule fires once for each state that a poll of all jobs saw last too long; then its end is sent once."""
    long_enough, since_ms, last = _times_in_state(stage)
    with stage.db.read() as tx:
        alarms = tx.execute(select(schema.alarms)).all()
    fired = Counter((row.job_id, row.sequence) for row in alarms)
    found.alarms = len(fired)
    found.alarms_lost += [f"{event} did not fire" for event in long_enough - fired.keys()]
    found.alarms_invented += [f"{event} fired {count} times" for event, count in fired.items() if count > 1]
    again = [row for row in alarms if row.repeats or row.told_at != row.fired_at]
    found.alarms_invented += [f"{row.job_id}, {row.sequence} fired again" for row in again]
    early = [(row, since_ms.get((row.job_id, row.sequence), row.fired_at) + _FOR_MS) for row in alarms]
    too_soon = [row for row, over_ms in early if row.fired_at < over_ms]
    found.alarms_invented += [f"{row.job_id}, {row.sequence} fired too soon" for row in too_soon]
    ids: dict[tuple[str, Event], set[str]] = defaultdict(set)
    for one in stage.accepted["/stuck"]:
        body = _json(one)
        ids[body["type"], (body["subject"], int(body["sequence"]))].add(one.id or "")
    owed_ = {("ci.job.overdue", event) for event in fired}
    # The state that ended it has the next number.
    owed_ |= {("ci.job.recovered", (id_, number + 1)) for id_, number in fired if (id_, number) not in last}
    found.alarms_lost += [f"{one} was not told" for one in owed_ - ids.keys()]
    found.alarms_invented += [f"{one} was told" for one in ids.keys() - owed_]
    found.alarms_invented += [f"{one} was told as {names}" for one, names in ids.items() if len(names) > 1]


def _times_in_state(stage: Stage) -> tuple[set[Event], dict[Event, int], set[Event]]:
    """Return the states that are known to have lasted too long, when each began, and those that last.

    A state lasted at least until the last poll that saw all jobs before its end was seen.
    """
    with stage.db.read() as tx:
        steps = tx.execute(select(transitions).order_by(transitions.c.job_id, transitions.c.sequence)).all()
        polled_at = tx.execute(select(func.max(watches.c.ok_at))).scalar_one()
    after = {(step.job_id, step.sequence - 1): step for step in steps}
    since_ms = {(step.job_id, step.sequence): _since_ms(step) for step in steps if step.state in _LONG}
    ended_ms = {event: after[event].still_at if event in after else polled_at for event in since_ms}
    # At exactly so long it depends on what the record rounds away.
    long_enough = {event for event, since in since_ms.items() if (ended_ms[event] or 0) - since > _FOR_MS}
    return long_enough, since_ms, {event for event in since_ms if event not in after}


def _since_ms(step: Any) -> int:
    # Of a job that was paused CI's own times are those of its first start.
    return int(step.happened_at if step.was in (NEW, SUBMITTED) else step.seen_at)


def _json(one: Received) -> Any:
    return one.json
