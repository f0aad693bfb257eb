"""What receivers have accepted, held against the oracle."""

from __future__ import annotations

from collections import defaultdict

from bridge.simulator.receiver import Received
from tests.world.oracle import Oracle
from tests.world.scenery import Ears

Key = tuple[str, str, int]  # notifier, job, number of the transition


class Hearing:
    def __init__(self, ears: Ears, oracle: Oracle) -> None:
        self._ears, self._oracle = ears, oracle
        self._compared = 0
        self._may_repeat: dict[str, int] = defaultdict(int)
        self._heard: dict[Key, list[Received]] = defaultdict(list)
        self._last: dict[tuple[str, str], int] = defaultdict(int)

    def count(self) -> int:
        return len(self._ears.accepted)

    def may_repeat(self, since: int) -> None:
        """What was accepted since then was not recorded, and may be told once more."""
        for one in self._ears.accepted[since:]:
            self._may_repeat[one.id or ""] += 1

    def compare(self) -> None:
        """Each was to be told, in its turn, and once; or again under the same id, where nobody heard its acceptance."""
        must = self._oracle.must_hear()
        for one in self._ears.accepted[self._compared :]:
            assert one.verified, one.fault
            told = one.json
            key = one.path.removeprefix("/"), told["subject"], int(told["sequence"])
            assert key in must, f"nobody should hear {key}"
            assert (told["data"]["from"], told["data"]["to"]) == (must[key].was, must[key].to)
            assert one.id == told["id"]
            self._compare_repeated(one, self._heard[key])
            if not self._heard[key]:
                before = [n for who, job, n in must if (who, job) == key[:2] and n < key[2]]
                assert self._last[key[:2]] == max(before, default=0), f"{key} came out of turn"
                self._last[key[:2]] = key[2]
            self._heard[key].append(one)
        self._compared = self.count()

    def compare_the_end(self) -> None:
        never = set(self._oracle.must_hear()) - {key for key, found in self._heard.items() if found}
        assert not never, f"never told: {sorted(never)}"

    def _compare_repeated(self, one: Received, before: list[Received]) -> None:
        allowed = self._may_repeat[one.id or ""] + ((one.path, one.id) in self._ears.unheard)
        assert len(before) <= allowed, f"told {len(before) + 1} times: {one.json}"
        assert {(other.id, other.body) for other in before} <= {(one.id, one.body)}
