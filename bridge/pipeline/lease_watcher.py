"""How long a claim has been seen to be held: what tells a lost worker from a slow one."""

from __future__ import annotations

from collections.abc import Collection

from bridge.record.outbox.results import Held

_LONGEST_STEP_S = 10.0


class LeaseWatcher:
    """Tells which claims are older than a lease lasts, by how long this process has watched them.

    No clock is compared with another, so that setting one, or two that disagree, ends nobody's lease. A time in which
    this process was stopped itself counts for little: it has watched nothing.
    """

    def __init__(self, lasts_s: float) -> None:
        self._lasts_s = lasts_s
        self._watched_s: dict[Held, float] = {}
        self._looked_at_s: float | None = None

    def over(
        self, held: Collection[Held], now_s: float, *, sooner: Collection[Held] = (), sooner_s: float = 0.0
    ) -> list[Held]:
        """Return those of `held` that are over; what is not among them any more is forgotten.

        For those in `sooner` less is enough: there is other evidence. Without that, workers that never live as long
        as a lease would never free what the others held.
        """
        passed_s = 0.0 if self._looked_at_s is None else min(now_s - self._looked_at_s, _LONGEST_STEP_S)
        self._looked_at_s = now_s
        self._watched_s = {one: self._watched_s.get(one, -passed_s) + passed_s for one in held}
        lasts_s = dict.fromkeys(sooner, sooner_s)
        return [one for one, watched_s in self._watched_s.items() if watched_s > lasts_s.get(one, self._lasts_s)]

    def forget(self) -> None:
        """Begin anew: meanwhile nobody could say that he is alive."""
        self._watched_s.clear()
