"""What receivers have accepted, held against the oracle."""

from __future__ import annotations

from collections import defaultdict

from bridge.simulator.receiver import Received
from tests.world.incidents import Incidents
from tests.world.oracle import FINAL, GONE, Oracle
from tests.world.scenery import GROUP, INCIDENTS, Inbox

Key = tuple[str, str, int]  # notifier, job, number of the transition


class ReceivedCheck:
    def __init__(self, inbox: Inbox, oracle: Oracle, incidents: Incidents) -> None:
        self._ears, self._oracle, self._incidents = inbox, oracle, incidents
        self._compared = 0
        self._may_repeat: dict[str, int] = defaultdict(int)
        self._heard: dict[Key, list[Received]] = defaultdict(list)
        self._groups: dict[str, list[Received]] = defaultdict(list)
        self._told: dict[str, list[Received]] = defaultdict(list)  # of incidents, by delivery
        self._last: dict[tuple[str, str], int] = defaultdict(int)

    def count(self) -> int:
        return len(self._ears.accepted)

    def may_repeat(self, since: int) -> None:
        """What was accepted since then was not recorded, and may be sent once more."""
        for one in self._ears.accepted[since:]:
            self._may_repeat[one.id or ""] += 1

    def compare(self) -> None:
        """Each was to be sent, in its turn, and once; or again under the same id, where its acceptance was lost."""
        must = self._oracle.must_receive()
        for one in self._ears.accepted[self._compared :]:
            assert one.verified, one.fault
            body = one.json
            if one.path == f"/{GROUP}":
                self._compare_group(one)
                continue
            if one.path == f"/{INCIDENTS}":
                self._compare_incident(one)
                continue
            key = one.path.removeprefix("/"), body["subject"], int(body["sequence"])
            assert key in must, f"nobody should receive {key}"
            assert (body["data"]["from"], body["data"]["to"]) == (must[key].was, must[key].to)
            assert one.id == body["id"]
            self._compare_repeated(one, self._heard[key])
            if not self._heard[key]:
                before = [n for who, job, n in must if (who, job) == key[:2] and n < key[2]]
                assert self._last[key[:2]] == max(before, default=0), f"{key} came out of turn"
                self._last[key[:2]] = key[2]
            self._heard[key].append(one)
        self._compared = self.count()

    def _compare_group(self, one: Received) -> None:
        """A group is told once, when its job is over, with the state in which it was."""
        job = one.json["data"]["by"]["job"]
        assert job in self._oracle.groups(), f"{job} is not over, or was before anybody looked"
        (state,) = one.json["data"]["states"]
        assert state in {step.to for step in self._oracle.steps[job] if step.to in (*FINAL, GONE)}
        assert (one.json["type"], one.json["data"]["generation"]) == ("ci.group.completed", 1)
        self._compare_repeated(one, self._groups[job])
        self._groups[job].append(one)

    def _compare_incident(self, one: Received) -> None:
        """What is stored is received as it is: that an incident opened before that it is over."""
        stored = self._incidents.deliveries
        told = stored[one.id or ""]
        assert (one.json["type"], one.json["data"]) == (told.type, told.data)
        opened = [id_ for id_, other in stored.items() if other.opens and other.of == told.of and other.key == told.key]
        assert told.opens or any(self._told[id_] for id_ in opened), f"not told that it opened: {told}"
        self._compare_repeated(one, self._told[told.delivery])
        self._told[told.delivery].append(one)

    def compare_the_end(self) -> None:
        assert self._groups.keys() == self._oracle.groups()
        self._incidents.compare_the_end({id_ for id_, found in self._told.items() if found})
        never = set(self._oracle.must_receive()) - {key for key, found in self._heard.items() if found}
        assert not never, f"never sent: {sorted(never)}"

    def _compare_repeated(self, one: Received, before: list[Received]) -> None:
        allowed = self._may_repeat[one.id or ""] + ((one.path, one.id) in self._ears.unconfirmed)
        assert len(before) <= allowed, f"sent {len(before) + 1} times: {one.json}"
        assert {(other.id, other.body) for other in before} <= {(one.id, one.body)}
