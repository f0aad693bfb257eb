"""Whatever CI, the network, the receivers and the workers do: every state that was seen is sent once, in order.

WORLD_EXAMPLES sets how many worlds are tried, and makes them new ones each time.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from bridge.record.database import Database
from tests.world.events import (
    REFUSALS,
    Arrival,
    Away,
    Create,
    Cut,
    Dated,
    Denied,
    Endless,
    Event,
    Forget,
    Halting,
    Heal,
    Hide,
    Late,
    Mixed,
    Move,
    Pass,
    Refused,
    Reversed,
    Rival,
    Spoil,
    Stale,
    Truly,
)
from tests.world.oddities import DENIED, FIELDS, STATES, STRUCTURE
from tests.world.scenery import TEMPERS, WATCHES, Scenery, scenery
from tests.world.world import DATES, STUCK, World

WORDS = ("Submitted", "Running", "Pause", "Success", "Failed", "Cancel", "Mending")
HOUR = 3600
SKEWS = (1200, 1200, -1200, -1200, 8 * HOUR, -8 * HOUR)
CLOCKS = [(0, dates) for dates in (*DATES, STUCK)]
_ASKED = os.environ.get("WORLD_EXAMPLES")

whichs = st.integers(-2, 3)
states = st.sampled_from([*WORDS, "Running", "Success"])
tags = st.sampled_from(["Transcode", "Snapshot"])
queues = st.sampled_from(["p1", "p2"])
creates = st.builds(
    Create,
    tag=tags,
    queue=queues,
    state=st.sampled_from(["Submitted", "Running", "Success"]),
    age_s=st.sampled_from([0, 1, 60, 240]),
    workflow=st.sampled_from([None, "w1"]),
    user_data=st.sampled_from([None, "This is <my> data & more."]),
)
ended = st.builds(Create, queue=queues, state=st.just("Success"))
old = st.builds(Create, tag=tags, queue=queues, state=st.sampled_from(WORDS), age_s=st.integers(10, 30 * HOUR))
moves = st.builds(Move, whichs, states)
leaves: st.SearchStrategy[Event] = st.one_of(st.builds(Forget, whichs), st.builds(Hide, whichs))
oddities = st.sampled_from([*FIELDS, *STATES, *STATES, *STRUCTURE, *STRUCTURE, *[DENIED] * 3])
spoils: st.SearchStrategy[Event] = st.one_of(st.builds(Spoil, whichs, oddities), st.builds(Heal, whichs))
happenings: st.SearchStrategy[Event] = st.one_of(moves, moves, moves, creates, creates, leaves, spoils)
soon: st.SearchStrategy[Event] = st.one_of(happenings, st.builds(Pass, st.integers(1, 10)))
meanwhile = st.lists(soon, min_size=1, max_size=2).map(tuple)
late = st.builds(Late, meanwhile)
back = st.integers(1, 4)
off = st.sampled_from([-36_000, -600, -90, -45, 45, 90, 600, 36_000, None])
broken: st.SearchStrategy[Arrival] = st.one_of(
    st.builds(Cut, st.integers(0, 9), st.booleans(), st.booleans()),
    st.builds(Refused, st.sampled_from(sorted(REFUSALS))),
)
arrivals: st.SearchStrategy[Arrival] = st.one_of(
    st.just(Truly()),
    late,
    late,
    st.builds(Stale, back),
    st.builds(Mixed, back, st.booleans()),
    broken,
    broken,
    st.builds(Dated, off),
    st.builds(Away, meanwhile),
    st.sampled_from([Reversed(), Endless(), Rival(), Halting()]),
)
denials = st.builds(Denied, st.sampled_from([0, 0, 1, None]))
by_ids = st.lists(st.one_of(arrivals, denials, denials), max_size=4)
cached: st.SearchStrategy[Arrival] = st.one_of(st.builds(Stale, back), st.builds(Mixed, back, st.booleans()))
lists_of_arrivals = st.lists(arrivals, max_size=4)
workers = watches = st.integers(0, 1)
named = st.lists(st.integers(-4, 3), min_size=1, max_size=4)
some_events = st.lists(happenings, min_size=1, max_size=4)
pauses = st.sampled_from([1, 7, 31, 95, 400, HOUR, 26 * HOUR])
paths = st.sampled_from(["/cms", "/next"])
tempers = st.sampled_from(sorted(TEMPERS))


def machine(scene: Scenery) -> type[RuleBasedStateMachine]:
    """Return the machine of this scenery; hypothesis makes one for each world."""

    class HostileWorld(RuleBasedStateMachine):
        world: World | None = None

        @initialize(
            past=st.lists(st.one_of(old, old, old, spoils), max_size=6),
            clocks=st.sampled_from([*[(0, "right")] * 9, *[(skew_s, "right") for skew_s in SKEWS], *CLOCKS]),
            page_size=st.sampled_from([1, 1, 2, 3, 100]),
            announce=st.sampled_from([False, False, False, True]),
            which=st.sampled_from(["all", "all", "one queue", "one tag"]),
            ignores=st.sampled_from([(), (), (), ("states",), ("orderByTime",), ("states", "orderByTime")]),
        )
        def begin(
            self,
            past: Sequence[Event],
            clocks: tuple[int, str],
            page_size: int,
            announce: bool,
            which: str,
            ignores: tuple[str, ...],
        ) -> None:
            skew_s, dates = clocks
            facts = {"page_size": page_size, "announce": announce, "ignores": ignores}
            self.world = World(scene, skew_s=skew_s, dates=dates, **facts)
            self.world.put_in_force(which)
            self.world.happen(*past)

        @rule(what=some_events)
        def happen(self, what: Sequence[Event]) -> None:
            self.world.happen(*what)

        @rule(seconds=pauses)
        def time_passes(self, seconds: int) -> None:
            self.world.happen(Pass(seconds))

        @rule(what=some_events, seconds=pauses, worker=workers, watch=watches, lists=lists_of_arrivals, by_id=by_ids)
        def poll_later(
            self,
            what: Sequence[Event],
            seconds: int,
            worker: int,
            watch: int,
            lists: Sequence[Arrival],
            by_id: Sequence[Arrival],
        ) -> None:
            self.world.happen(*what, Pass(seconds))
            self.world.poll(worker, watch, lists, by_id)

        @rule(worker=workers, watch=watches, lists=lists_of_arrivals, by_id=by_ids)
        def poll(self, worker: int, watch: int, lists: Sequence[Arrival], by_id: Sequence[Arrival]) -> None:
            self.world.poll(worker, watch, lists, by_id)

        @rule(worker=workers, which=whichs, to=states, old=cached)
        def a_cache_answers_after_the_truth(self, worker: int, which: int, to: str, old: Arrival) -> None:
            self.world.poll(worker, 0)
            self.world.happen(Move(which, to))
            self.world.poll(worker, 0, [old, old])
            self.world.poll(worker, 0, [old, old], [old])

        @rule(worker=workers, leaves=leaves, by_id=st.lists(arrivals, max_size=2), lists=st.lists(arrivals, max_size=2))
        def a_job_leaves_the_lists(
            self, worker: int, leaves: Event, by_id: Sequence[Arrival], lists: Sequence[Arrival]
        ) -> None:
            self.world.happen(leaves, Pass(31))
            self.world.poll(worker, 0, [], by_id)
            self.world.poll(worker, 0, lists)

        @rule(
            worker=workers, jobs=st.lists(creates, max_size=2), odd=creates, how=oddities, goes=states, seconds=pauses
        )
        def a_job_cannot_be_read_for_a_while(
            self, worker: int, jobs: Sequence[Create], odd: Create, how: str, goes: str, seconds: int
        ) -> None:
            self.world.happen(*jobs, odd, Spoil(-1, how), Pass(7))
            self.world.poll(worker, 0)
            self.world.happen(Move(-1, goes), Move(-2, goes), Pass(seconds))
            self.world.poll(worker, 0)
            self.world.happen(Heal(-1), Pass(31))
            self.world.poll(worker, 0)

        @rule(worker=workers, job=creates, hides=st.booleans(), times=st.integers(1, 5), seconds=pauses, goes=states)
        def ci_denies_a_job(self, worker: int, job: Create, hides: bool, times: int, seconds: int, goes: str) -> None:
            self.world.happen(job)
            self.world.poll(worker, 0)
            self.world.happen(*[Hide(-1)] * hides, *[Spoil(-1, DENIED)] * (not hides))
            for _ in range(times):
                self.world.happen(Pass(31))
                self.world.poll(worker, 0, [], [Denied(None)] * hides)
            self.world.happen(Move(-1, goes), Heal(-1), Pass(seconds))
            self.world.poll(worker, 0)

        @rule(worker=workers, watch=watches, what=some_events, which=st.sampled_from(sorted(WATCHES)))
        def rules_change_while_jobs_go_on(self, worker: int, watch: int, what: Sequence[Event], which: str) -> None:
            self.world.poll(worker, 0)
            self.world.happen(Pass(31), *what, Pass(31))
            self.world.put_in_force(which)
            self.world.poll(worker, watch)

        @rule(worker=workers, jobs=st.lists(ended, min_size=2, max_size=4), pages=st.integers(1, 2), arrival=broken)
        def a_list_breaks_off(self, worker: int, jobs: Sequence[Create], pages: int, arrival: Arrival) -> None:
            self.world.happen(*jobs, Pass(400))
            self.world.poll(
                worker, 0, [*[Truly()] * pages, arrival, arrival, arrival]
            )  # some are asked for again at once

        @rule(worker=workers, job=creates, goes=st.lists(states, min_size=1, max_size=3), temper=tempers)
        def a_job_moves_on_while_the_receiver_is(
            self, worker: int, job: Create, goes: Sequence[str], temper: str
        ) -> None:
            self.world.inbox.temper.update({"/cms": temper, "/next": temper})
            self.world.happen(job)
            self.world.poll(worker, 0)
            for to in goes:
                self.world.happen(Move(-1, to), Pass(7))
                self.world.poll(worker, 0)
            self.world.deliver(worker)

        @rule(
            worker=workers,
            which=named,
            strangers=st.integers(0, 12),
            by_id=by_ids,
            job=creates,
            goes=states,
            seconds=pauses,
        )
        def callbacks_come(
            self, worker: int, which: Sequence[int], strangers: int, by_id: Sequence[Arrival], job: Create, goes: str,
            seconds: int,
        ) -> None:  # fmt: skip
            self.world.happen(job)
            self.world.call_back([*which, -1], strangers)
            self.world.ask_hinted(worker, by_id)
            self.world.happen(Move(-1, goes), Pass(seconds))
            self.world.call_back([-1, *which])
            self.world.ask_hinted(1 - worker)

        @rule(worker=workers, watch=watches, which=named, goes=states, lists=lists_of_arrivals, by_id=by_ids)
        def callbacks_come_before_a_poll(
            self, worker: int, watch: int, which: Sequence[int], goes: str, lists: Sequence[Arrival],
            by_id: Sequence[Arrival],
        ) -> None:  # fmt: skip
            self.world.happen(Move(-1, goes), Pass(7))
            self.world.call_back(which)
            self.world.poll(worker, watch, lists, by_id)

        @rule(worker=workers)
        def poll_what_is_due(self, worker: int) -> None:
            self.world.poll_what_is_due(worker)

        @rule(worker=workers)
        def deliver(self, worker: int) -> None:
            self.world.deliver(worker)

        @rule(path=paths, temper=tempers)
        def receiver_becomes(self, path: str, temper: str) -> None:
            self.world.inbox.temper[path] = temper

        @rule(
            worker=workers,
            job=creates,
            temper=tempers,
            then=st.sampled_from(["well", *TEMPERS]),
            suffers=st.sampled_from(["dies", "stalls", "stalls long", "is replaced"]),
        )
        def a_worker_suffers_with_news_to_tell(
            self, worker: int, job: Create, temper: str, then: str, suffers: str
        ) -> None:
            self.world.happen(job)
            self.world.poll(worker, 0)
            self.world.inbox.temper.update({"/cms": temper, "/next": temper})
            if suffers == "dies":
                self.world.dispatcher_dies(worker)
            elif suffers.startswith("stalls"):
                self.world.dispatcher_stalls(worker, then, long=suffers == "stalls long")
            else:
                self.world.replace(worker)

        @rule(which=st.sampled_from(sorted(WATCHES)))
        def rules_change(self, which: str) -> None:
            self.world.put_in_force(which)

        @rule(watch=watches, does=st.sampled_from(["pause", "go on", "resume cms", "resume next", "be dead"]))
        def somebody_interferes(self, watch: int, does: str) -> None:
            if does in ("pause", "go on"):
                self.world.pause_watch(watch, paused=does == "pause")
            elif does == "be dead":
                self.world.a_dead_worker_holds_the_bucket()
            else:
                self.world.resume(does.removeprefix("resume "))

        def teardown(self) -> None:
            if self.world is None:
                return
            try:
                if sys.exc_info()[0] is None:  # else the failure of a step would be hidden by that of the end
                    self.world.calm_down()
            finally:
                self.world.close()

    return HostileWorld


def run(db: Database, examples: int) -> int:
    with scenery(db) as scene:
        run_state_machine_as_test(
            machine(scene),
            settings=settings(
                max_examples=examples,
                stateful_step_count=40,
                derandomize=_ASKED is None,
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate, Phase.shrink],
                print_blob=False,
                report_multiple_bugs=False,
            ),
        )
        return scene.worlds


def test_in_a_hostile_world_every_state_that_was_seen_is_sent_once_and_in_order(db: Database) -> None:
    examples = int(_ASKED or (10 if db.sqlite else 5))
    assert run(db, examples) >= examples
