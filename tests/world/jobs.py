"""The jobs of a world, at CI."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from bridge.simulator.ci import CiSimulator
from tests.world.events import Create, Event, Forget, Heal, Hide, Move, Pass, Spoil
from tests.world.oddities import DENIED, STRUCTURE, show
from tests.world.oracle import FINAL
from tests.world.scenery import Time

LISTED_LATE_S = 240  # less than the hour by which lists overlap now and then
_APART = timedelta(seconds=5)


@dataclass(frozen=True)
class Created:
    tag: str
    queue: str
    at: datetime  # by the bridge's clock


class Jobs:
    def __init__(self, ci: CiSimulator, time: Time, bucket: str, *, known: Callable[[str], bool]) -> None:
        self._ci, self._time, self._bucket, self._known = ci, time, bucket, known
        self.ids: list[str] = []
        self.created: dict[str, Created] = {}
        self.late: set[str] = set()  # listed some time after they were created
        self.unlisted: set[str] = set()  # hidden or forgotten
        self.forgotten: set[str] = set()
        self.odd: dict[str, str] = {}
        self.asked_for = False  # from then on a job is listed soon after it was created

    def happen(self, *happened: Event) -> None:
        for one in happened:
            match one:
                case Pass(seconds):
                    self._time.advance(seconds)
                case Create():
                    self._create(one)
                case Move(which) | Hide(which) | Forget(which) | Spoil(which) | Heal(which) if self.ids:
                    self._change(self.ids[which % len(self.ids)], one)

    def _create(self, one: Create) -> None:
        age = min(one.age_s, LISTED_LATE_S) if self.asked_for else one.age_s
        facts = {"workflow": one.workflow, "user_data": one.user_data}
        job = self._ci.create(self._bucket, one.tag, one.queue, created_at=self._ci.now() - age, **facts)
        if one.state != "Submitted":
            self._ci.move(job, one.state)
        self.ids.append(job)
        self.late.update([job] if age else [])
        self.created[job] = Created(one.tag, one.queue, self._time() - timedelta(seconds=age))

    def _change(self, job: str, how: Move | Hide | Forget | Spoil | Heal) -> None:
        match how:
            case Move(_, to):
                if self._ci.history(job)[-1] not in FINAL:
                    self._ci.move(job, to)
            case Spoil(_, oddity):
                self._spoil(job, oddity)
            case Heal():
                self.odd.pop(job, None)
            case Hide():
                self._ci.hide(job)
                self.unlisted.add(job)
            case Forget():
                self._ci.forget(job)
                self.unlisted.add(job)
                self.forgotten.add(job)

    def _spoil(self, job: str, oddity: str) -> None:
        """Between two jobs of one second that make their pages unreadable nobody could find a third."""
        near = [other for other in self.odd if abs(self.created[other].at - self.created[job].at) <= _APART]
        if oddity in STRUCTURE and any(self.odd[other] in STRUCTURE for other in near if other != job):
            return
        if oddity != DENIED or self._known(job):  # of a job that was never seen nothing is known later
            self.odd[job] = oddity

    def show(self, body: bytes, *, by_id: bool) -> bytes:
        """Return an answer with its odd jobs as they are shown."""
        for job, oddity in self.odd.items():
            body = show(body, job, oddity, by_id=by_id)
        return body
