"""Next in line: deliveries claimed for a receiver that answers quickly, before it has a place free for them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable

from bridge.model import Attempt, Delivery, Sent

_QUICK_S = 1.0
# What an attempt may take, and a little: with less left of its lease a delivery is handed back, not begun.
_NEEDED_S = 17.0


class Prefetch:
    """Lets at most `max_in_flight` of a notifier be in the air; those after them wait here, under their lease.

    Only a receiver whose last answer was quick has a line: its next batch is claimed in the transaction that
    records the last one, which halves their number. Whoever waits has not been sent, so a crash repeats no more.
    """

    def __init__(self) -> None:
        self.quick: set[str] = set()
        self._in_air: Counter[str] = Counter()
        self._waiting: deque[tuple[Delivery, float]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, deliveries: Iterable[Delivery], *, lease_until_s: float) -> None:
        self._waiting.extend((delivery, lease_until_s) for delivery in deliveries)

    def ready(self, limits: dict[str, int], *, now_s: float) -> tuple[list[Delivery], list[Delivery]]:
        """Take out those that may begin now, and those whose lease has become too short. Times are monotonic."""
        begin: list[Delivery] = []
        stale: list[Delivery] = []
        keep: deque[tuple[Delivery, float]] = deque()
        for delivery, until_s in self._waiting:
            name = delivery.notifier
            if until_s - now_s < _NEEDED_S:
                stale.append(delivery)
            elif self._in_air[name] < limits.get(name, 1):
                self._in_air[name] += 1
                begin.append(delivery)
            else:
                keep.append((delivery, until_s))
        self._waiting = keep
        return begin, stale

    def ended(self, attempt: Attempt) -> list[Delivery]:
        """Free a place. Of a receiver that failed or was slow, take out all who wait: it may want to be left alone."""
        name = attempt.delivery.notifier
        self._in_air[name] -= 1
        if isinstance(attempt.outcome, Sent) and attempt.seconds < _QUICK_S:
            self.quick.add(name)
            return []
        self.quick.discard(name)
        return self._leave(lambda delivery: delivery.notifier == name)

    def leave(self) -> list[Delivery]:
        """Take out all who wait."""
        return self._leave(lambda _: True)

    def _leave(self, which: Callable[[Delivery], bool]) -> list[Delivery]:
        left = [delivery for delivery, _ in self._waiting if which(delivery)]
        self._waiting = deque(one for one in self._waiting if not which(one[0]))
        return left
