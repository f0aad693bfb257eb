from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.decide.changes.diff import diff, gone_transitions, is_news, latest
from bridge.model import DONE, GONE, NEW, STATES, SeenJob, Transition
from tests.support.nouns import NOON, a_job


def seen(**states: str) -> dict[str, SeenJob]:
    return {name: SeenJob(job_id=name, state=state, sequence=1) for name, state in states.items()}


def changes(before: dict[str, SeenJob], *jobs, **more) -> list[tuple[str, str, str]]:
    steps = diff(before, jobs, watch="vod", now=NOON, **more)
    return [(step.job.id, step.was, step.to) for step in steps]


def test_a_job_seen_for_the_first_time_goes_from_new_to_its_state():
    assert changes({}, a_job(id="j1", state="Running")) == [("j1", NEW, "Running")]
    assert changes({}, a_job(id="j1", state="Failed")) == [("j1", NEW, "Failed")]


def test_the_first_transition_is_number_one_and_each_later_one_counts_on():
    (first,) = diff({}, [a_job(state="Submitted")], watch="vod", now=NOON)
    before = {"j1": SeenJob(job_id="j1", state="Submitted", sequence=first.sequence)}
    (second,) = diff(before, [a_job(state="Running")], watch="vod", now=NOON)
    assert (first.sequence, second.sequence) == (1, 2)


def test_silence_is_asked_about_first_sights_only():
    jobs = [a_job(id="old", state="Success"), a_job(id="fresh", state="Success")]
    steps = diff(seen(old="Running"), jobs, watch="vod", now=NOON, silence=lambda job: f"first look at {job.id}")
    assert [step.silent for step in steps] == [None, "first look at fresh"]


def test_a_job_in_the_state_it_was_in_is_not_a_change():
    assert changes(seen(j1="Running"), a_job(id="j1", state="Running", progress=80)) == []


def test_a_job_that_left_the_list_is_not_a_change():
    assert changes(seen(j1="Running", j2="Running"), a_job(id="j2", state="Running")) == []


def test_a_final_state_is_final():
    for end in DONE:
        assert not [state for state in (*STATES, GONE, "Reborn") if is_news(end, state)]


def test_a_state_that_ci_adds_one_day_is_carried_through():
    assert changes(seen(j1="Running"), a_job(id="j1", state="Reviewing")) == [("j1", "Running", "Reviewing")]


def test_a_job_that_stands_on_a_page_twice_changes_once_and_to_the_further_state():
    page = [a_job(id="j1", state="Success"), a_job(id="j2"), a_job(id="j1", state="Running")]
    assert changes(seen(j1="Submitted", j2="Running"), *page) == [("j1", "Submitted", "Success")]


def test_of_two_equally_far_states_the_first_on_the_page_counts():
    assert [job.state for job in latest([a_job(state="Success"), a_job(state="Failed")])] == ["Success"]


def test_changes_come_in_the_order_of_the_page():
    assert [job for job, _, _ in changes({}, a_job(id="b"), a_job(id="a"), a_job(id="c"))] == ["b", "a", "c"]


def lost(state: str) -> tuple[Transition, ...]:
    before = SeenJob(job_id="j1", state=state, sequence=4)
    return gone_transitions([(before, a_job(state=state))], watch="vod", now=NOON)


def test_an_unfinished_job_that_ci_no_longer_knows_is_gone_and_not_failed():
    (step,) = lost("Running")
    assert (step.was, step.to, step.sequence, step.watch, step.seen_at) == ("Running", GONE, 5, "vod", NOON)
    assert lost(GONE) == ()


def test_a_job_that_ended_does_not_become_gone_when_ci_forgets_it():
    assert not any(lost(end) for end in DONE)


def test_a_job_that_was_gone_goes_on_from_the_state_that_ci_named_last():
    before = {"j1": SeenJob(job_id="j1", state=GONE, sequence=2, last_ci_state="Running")}
    (step,) = diff(before, [a_job(id="j1", state="Success")], watch="vod", now=NOON)
    assert (step.was, step.to, step.sequence) == ("Running", "Success", 3)


def test_a_job_that_was_gone_and_is_as_before_comes_from_gone():
    before = {"j1": SeenJob(job_id="j1", state=GONE, sequence=2, last_ci_state="Running")}
    assert changes(before, a_job(id="j1", state="Running")) == [("j1", GONE, "Running")]


# --- states that a job's times prove ---------------------------------------------------------------------------------

STARTED = {"created_at": NOON - timedelta(minutes=9), "started_at": NOON - timedelta(minutes=8)}
ENDED = STARTED | {"ended_at": NOON - timedelta(minutes=1)}


def proved(before: SeenJob | None, state: str, **facts) -> list[tuple[int, str, str, bool]]:
    known = {"j1": before} if before else {}
    steps = diff(known, [a_job(id="j1", state=state, **facts)], watch="vod", now=NOON)
    return [(step.sequence, step.was, step.to, step.inferred) for step in steps]


def test_a_job_first_seen_when_it_had_ended_was_submitted_and_ran_as_its_times_prove():
    assert proved(None, "Success", **ENDED) == [
        (1, NEW, "Submitted", True),
        (2, "Submitted", "Running", True),
        (3, NEW, "Success", False),  # from where it was seen
    ]


def test_an_inferred_state_happened_when_ci_says_and_was_seen_with_the_one_that_proves_it():
    still_at = NOON - timedelta(minutes=10)
    submitted, running, failed = diff(
        {}, [a_job(state="Failed", code="E", message="why", **ENDED)], watch="vod", now=NOON, still_at=still_at
    )
    assert [step.happened_at for step in (submitted, running, failed)] == [*STARTED.values(), ENDED["ended_at"]]
    assert {(step.seen_at, step.still_at) for step in (submitted, running, failed)} == {(NOON, still_at)}
    assert [(step.job.state, step.job.code, step.job.message) for step in (submitted, running, failed)] == [
        ("Submitted", None, None), ("Running", None, None), ("Failed", "E", "why"),
    ]  # fmt: skip


def test_a_job_that_runs_when_it_is_first_seen_was_submitted():
    assert proved(None, "Running", **STARTED) == [(1, NEW, "Submitted", True), (2, NEW, "Running", False)]


@pytest.mark.parametrize("end", sorted(DONE))
def test_a_job_that_had_only_waited_and_ended_did_run_if_it_has_a_time_of_start(end):
    for waiting in ("Submitted", "Pause"):
        before = SeenJob(job_id="j1", state=waiting, sequence=4)
        assert proved(before, end, **ENDED) == [(5, waiting, "Running", True), (6, waiting, end, False)]
        assert proved(before, end, created_at=NOON, ended_at=NOON) == [(5, waiting, end, False)]


def test_a_time_of_start_from_before_the_last_poll_is_not_when_a_paused_job_went_on():
    polled, started = NOON - timedelta(minutes=5), {"started_at": NOON - timedelta(hours=2)}
    for state in ("Pause", "Reviewing"):
        before = {"j1": SeenJob(job_id="j1", state=state, sequence=4, has_started=True)}
        for still_at in (polled, None):
            (step,) = diff(before, [a_job(id="j1", **started)], watch="vod", now=NOON, still_at=still_at)
            assert (step.happened_at, step.late_seconds) == (NOON, None)


def test_a_paused_job_that_starts_for_the_first_time_does_so_at_its_time_of_start():
    before, polled = {"j1": SeenJob(job_id="j1", state="Pause", sequence=1)}, NOON - timedelta(minutes=5)
    job = a_job(id="j1", started_at=NOON - timedelta(minutes=1))
    (step,) = diff(before, [job], watch="vod", now=NOON, still_at=polled)
    assert (step.happened_at, step.late_seconds) == (job.started_at, 60)


def test_a_start_that_was_known_before_a_pause_proves_no_other():
    before = SeenJob(job_id="j1", state="Pause", sequence=4, has_started=True)
    assert proved(before, "Success", **ENDED) == [(5, "Pause", "Success", False)]


def test_a_job_that_was_gone_ran_meanwhile_if_it_had_only_waited():
    before = SeenJob(job_id="j1", state=GONE, sequence=2, last_ci_state="Submitted")
    assert proved(before, "Success", **ENDED) == [(3, "Submitted", "Running", True), (4, "Submitted", "Success", False)]


def test_what_was_seen_is_not_inferred_again():
    assert proved(SeenJob(job_id="j1", state="Running", sequence=2), "Success", **ENDED) == [
        (3, "Running", "Success", False)
    ]
    assert proved(SeenJob(job_id="j1", state="Submitted", sequence=1), "Running", **STARTED) == [
        (2, "Submitted", "Running", False)
    ]
    assert proved(None, "Submitted", **ENDED) == [(1, NEW, "Submitted", False)]


@pytest.mark.parametrize(
    "times",
    [
        ENDED | {"started_at": NOON - timedelta(minutes=10)},  # it started before it was created
        ENDED | {"ended_at": NOON - timedelta(minutes=8, seconds=1)},  # it ended before it started
        {"created_at": NOON, "ended_at": NOON - timedelta(seconds=1)},
        ENDED | {"ended_at": NOON + timedelta(minutes=2)},  # in the future
        {},
    ],
)
def test_times_that_cannot_be_meant_prove_nothing(times):
    job = a_job(id="j1", state="Success", **times)
    steps = diff({}, [job], watch="vod", now=NOON, is_possible=lambda time: time <= NOON + timedelta(minutes=1))
    assert [(step.was, step.to, step.inferred) for step in steps] == [(NEW, "Success", False)]


def test_of_a_silent_job_nothing_is_inferred():
    (step,) = diff({}, [a_job(state="Success", **ENDED)], watch="vod", now=NOON, silence=lambda _: "first snapshot")
    assert (step.was, step.to, step.sequence, step.silent) == (NEW, "Success", 1, "first snapshot")


JOBS = st.builds(a_job, id=st.sampled_from(["j1", "j2", "j3"]), state=st.sampled_from([*STATES, "Reviewing"]))
POLLS = st.lists(st.lists(JOBS, max_size=6) | st.sampled_from(["j1", "j2", "j3"]), max_size=12)


@given(POLLS)
def test_no_order_or_repetition_of_stale_pages_repeats_a_state_or_reopens_an_end(polls):
    """A poll is a page of jobs, or the id of a job that CI says it does not know."""
    known: dict[str, SeenJob] = {}
    told: dict[str, list[Transition]] = {}
    for number, poll in enumerate(polls):
        now = NOON + timedelta(minutes=number)
        if isinstance(poll, str):
            steps = gone_transitions([(known[poll], a_job(id=poll))] if poll in known else [], watch="vod", now=now)
        else:
            steps = diff(known, poll, watch="vod", now=now)
        for step in steps:
            told.setdefault(step.job.id, []).append(step)
            named = step.was if step.to == GONE else None
            known[step.job.id] = SeenJob(job_id=step.job.id, state=step.to, sequence=step.sequence, last_ci_state=named)
    for steps in told.values():
        states = [step.to for step in steps]
        assert all(one != other for one, other in pairwise(states))
        assert DONE.isdisjoint(states[:-1])
        named = [NEW, *(state if state != GONE else step.was for state, step in zip(states, steps, strict=True))]
        back = [one if one != state else GONE for one, state in zip(named, states, strict=False)]
        assert [step.was for step in steps] == back
        assert [step.sequence for step in steps] == list(range(1, len(steps) + 1))
