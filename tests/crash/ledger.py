"""What was true, beside what was told."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bridge.model import DONE
from bridge.simulator.receiver import Received
from tests.crash import gates, incidents
from tests.crash.gates import GATED, Event, Owed
from tests.support.stage import Stage


@dataclass(frozen=True, kw_only=True)
class Balance:
    """What a run came to. The lists name what is wrong, so that a failing test shows it."""

    transitions: int
    deliveries: int
    transitions_lost: list[str]
    transitions_invented: list[str]
    deliveries_lost: list[str]
    deliveries_invented: list[str]
    out_of_order: list[str]
    renamed: list[str]  # told twice under two ids, or with another body
    unsigned: list[str]
    owed: Owed  # through digests, throttles and level rules
    incidents: int  # messages about these
    incidents_wrong: list[str]
    repeated: int  # under the same id
    repeated_after: Counter[int] = field(default_factory=Counter)  # by the kill, the first is 0

    @property
    def most_repeated(self) -> int:
        return max(self.repeated_after.values(), default=0)

    @property
    def faults(self) -> dict[str, list[str]]:
        names = (
            "transitions_lost", "transitions_invented", "deliveries_lost", "deliveries_invented", "out_of_order",
            "renamed", "unsigned", "incidents_wrong",
        )  # fmt: skip
        gated = ("held_lost", "held_doubled", "digests_wrong", "alarms_lost", "alarms_invented")
        lists = {name: getattr(self, name) for name in names} | {name: getattr(self.owed, name) for name in gated}
        return {name: found for name, found in lists.items() if found}


@dataclass(frozen=True, slots=True)
class _Told:
    """One acceptance by a receiver."""

    notifier: str
    event: Event
    to: str
    id: str
    body: bytes
    at: float


def balance(stage: Stage, queues: Mapping[str, str], kills: Sequence[float] = ()) -> Balance:
    """Compare CI's history with the record and with what receivers accepted.

    `queues` are those of CI's jobs by id; `kills` are times, ascending.
    """
    truth = {job: stage.ci.history(job) for job in stage.ci.ids()}
    recorded = {job: [step["to"] for step in steps] for job, steps in stage.transitions().items()}
    expected = _expected(truth, queues)
    told = sorted(_told(stage), key=lambda one: one.at)
    latest: dict[tuple[str, Event], _Told] = {}
    last: dict[tuple[str, str], int] = {}
    out_of_order, renamed, repeated_after = [], [], Counter[int]()
    for one in told:
        key, lane = (one.notifier, one.event), (one.notifier, one.event[0])
        if last.get(lane, 0) > one.event[1]:
            out_of_order.append(f"{one.notifier}: {one.event} after {last[lane]}")
        last[lane] = max(last.get(lane, 0), one.event[1])
        earlier = latest.get(key)
        latest[key] = one
        if earlier:
            # Whoever sent it the first time died of the first kill after that.
            repeated_after[bisect_left(kills, earlier.at)] += 1
            if (earlier.id, earlier.body) != (one.id, one.body):
                renamed.append(f"{key}: {earlier.id} and {one.id}")
    return Balance(
        transitions=sum(map(len, truth.values())),
        deliveries=len(expected),
        transitions_lost=_differences(truth, recorded),
        transitions_invented=_differences(recorded, truth),
        deliveries_lost=sorted(map(str, expected.keys() - latest.keys())),
        deliveries_invented=sorted(
            str(key)
            for key, one in latest.items()
            if expected.get(key) != one.to and one.notifier not in (*GATED, *incidents.NOTIFIERS)
        ),
        out_of_order=out_of_order,
        renamed=renamed,
        unsigned=[one.fault or "" for one in stage.receiver.received if not one.verified],
        owed=gates.owed(stage, truth),
        incidents=incidents.sent(stage),
        incidents_wrong=incidents.faults(stage, truth),
        repeated=sum(repeated_after.values()),
        repeated_after=repeated_after,
    )


def _expected(truth: dict[str, list[str]], queues: Mapping[str, str]) -> dict[tuple[str, Event], str]:
    """Return what tests/support/stage.py's rules tell, and to whom."""
    found = {}
    for job, states in truth.items():
        for number, to in enumerate(states, start=1):
            found["cms", (job, number)] = to
            if to in DONE and queues[job] == "p1":
                found["next", (job, number)] = to
            if to == "Failed":
                found["ops", (job, number)] = to
    return found


def _told(stage: Stage) -> list[_Told]:
    told = [
        _Told(notifier, _event(notifier, one), one.json["data"].get("to", ""), one.id or "", one.body, one.at)
        for path, accepted in stage.accepted.items()
        for one in accepted
        if (notifier := path.strip("/"))
    ]
    by_id = {one["id"]: one for one in stage.deliveries(notifier="ops")}
    for post in stage.slack.posts:
        delivery = by_id[post.metadata["event_payload"]["delivery"]]
        event = (delivery["job"], delivery["sequence"])
        told.append(_Told("ops", event, delivery["tells"], delivery["id"], b"", post.at))
    return told


def _event(notifier: str, one: Received) -> Event:
    """Return what a body tells of. Those of one job are told in the order of their numbers."""
    if one.json["type"] == "ci.digest":
        return one.id or "", 1  # a digest is of no job
    number = int(one.json["sequence"])
    if notifier == "stuck":  # that a state has ended has the number with which the next begins
        number = 2 * number + (one.json["type"] == "ci.job.overdue")
    return one.json["subject"], number


def _differences(one: dict[str, list[str]], other: dict[str, list[str]]) -> list[str]:
    missing = defaultdict(list)
    for job, states in one.items():
        for number, state in enumerate(states):
            if other.get(job, [])[number : number + 1] != [state]:
                missing[job].append(f"{number + 1} {state}")
    return [f"{job}: {', '.join(found)}" for job, found in missing.items()]
