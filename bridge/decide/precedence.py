"""Which rules are in force when live workers have different ones: those accepted last, if anybody has them."""

from __future__ import annotations

from collections.abc import Mapping

_ALIVE_S = 45.0  # a worker says every 15 s that it is there
_ALONE_S = 60.0  # so long nobody has the rules in force, before others stand in for them
_GAP_S = 10.0  # between two looks: whoever was not looked at meanwhile may have said something


class Precedence:
    """What one worker has seen of the others, by its monotonic clock: whose clock is wrong does not matter.

    Rules are known by the number of their acceptance, the highest of which is the latest.
    """

    def __init__(self) -> None:
        self._heard: dict[str, tuple[int, float]] = {}  # by worker: its last sign of life, and when it was seen
        self._in_force: int | None = None
        self._held_s = 0.0  # when a worker that has the rules in force was last heard of
        self._looked_s: float | None = None

    def look(self, mine: int, in_force: int, others: Mapping[str, tuple[int | None, int]], now_s: float) -> bool:
        """Tell whether the rules `mine` are to be put in force instead of `in_force`.

        `others` are by worker the number of its rules, if they were ever accepted, and its last sign of life.
        """
        self._hear(in_force, others, now_s)
        alive = [number for worker, (number, _) in others.items() if now_s - self._heard[worker][1] < _ALIVE_S]
        if mine == in_force or any(number is not None and number > mine for number in alive):
            return False
        # Only what stands in for others can have a lower number than they have.
        return mine > in_force or now_s - self._held_s >= _ALONE_S

    def _hear(self, in_force: int, others: Mapping[str, tuple[int | None, int]], now_s: float) -> None:
        if self._looked_s is None or now_s - self._looked_s > _GAP_S:
            self._heard, self._held_s = {}, now_s
        self._heard = {worker: heard for worker, heard in self._heard.items() if worker in others}
        for worker, (number, beat) in others.items():
            known = self._heard.get(worker)
            if known is None or known[0] != beat:
                self._heard[worker] = (beat, now_s)
            if number == in_force:
                self._held_s = max(self._held_s, self._heard[worker][1])
        if in_force != self._in_force:
            self._held_s = now_s
        self._in_force, self._looked_s = in_force, now_s
