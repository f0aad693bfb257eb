"""The status of each delivery, brought about by the parts that do it in earnest; and of a sample job's."""

from __future__ import annotations

import pytest
from sqlalchemy import delete

from bridge.model import FAILED, RUNNING, SUBMITTED, Outcome, Rejected, RetryLater, Sent
from bridge.record.outbox import entries
from bridge.record.queries.lists import Filter
from bridge.record.schema import deliveries
from tests.conftest import on_both
from tests.support.explained import (
    EVERYTHING,
    GROUPED,
    MUTE,
    SILENCE,
    STUCK,
    WITH_FALLBACK,
    Explained,
    after,
    level,
)
from tests.support.nouns import NOW, by_hand, hours, minutes, seconds
from tests.support.records import rows

THROTTLED = f'{EVERYTHING}throttle = "1/5m"\n'
DROPPED = 'resent after it was dropped by the mute "mornings"'
FIRST_HELD = 'first held by the digest of "everything"'


def begin(explained: Explained, *rules: str, given: str | None = None) -> None:
    """Put rules in force, and see j1 as Submitted."""
    explained.begin(*rules or (EVERYTHING,), given=given or explained.given)
    explained.goes(SUBMITTED)


def sends_at(explained: Explained, at_minutes: float, outcome: Outcome = Sent()) -> None:  # noqa: B008  (it is frozen)
    explained.clock.now = NOW + minutes(at_minutes)
    explained.delivers(outcome)


# --- gates ----------------------------------------------------------------------------------------------------


def test_a_mute_is_named_with_its_end(explained: Explained) -> None:
    begin(explained, EVERYTHING, MUTE.format("hold"))
    assert explained.answer() == ("muted", 'held by the mute "mornings", until 2026-11-21T10:00:00Z')
    found = explained.only()
    assert (found["gate"], found["gate_name"], found["until"]) == ("mute", "mornings", "2026-11-21T10:00:00Z")
    sends_at(explained, 61)
    why = f'held by the mute "mornings", sent in {explained.only()["told_by"]} at {after(minutes(61))}'
    assert explained.answer() == ("merged", why)


@on_both
@pytest.mark.parametrize("drop", [False, True])
def test_a_silence_is_named_with_who_made_it_and_why(explained: Explained, drop: bool) -> None:
    explained.begin(EVERYTHING)
    explained.silence(drop=drop)
    explained.goes(SUBMITTED)
    dropped = ("dropped", f"dropped by {SILENCE} at {after(seconds(30))}")
    assert explained.answer() == (dropped if drop else ("silenced", f"held by {SILENCE}, until {after(minutes(60.5))}"))


def test_what_is_over_a_throttle_says_until_when(explained: Explained) -> None:
    explained.begin(THROTTLED)
    for id_ in ("j1", "j2"):
        explained.has(id_, SUBMITTED)
    explained.poll_on()
    (answer, why), (other, _) = sorted(explained.answer(id_) for id_ in ("j1", "j2"))
    assert (answer, other) == ("throttled", "waiting")
    assert why == f'held by the throttle of "everything" (1 in 5 min), until {after(minutes(5.5))}'


def test_what_waits_in_a_digest_says_of_which_rule_and_until_when(explained: Explained) -> None:
    begin(explained, GROUPED)
    assert explained.answer() == ("digest", f'waits in the digest of "everything", until {after(minutes(10.5))}')
    explained.clock.advance(minutes(15))
    assert explained.answer()[1].endswith(f"sent any moment now (due at {after(minutes(10.5))})")
    explained.delivers(Rejected("no such channel"))
    answer, why = explained.answer()
    assert (answer, why.rpartition(", ")[2]) == ("merged", "which is dead: no such channel")


@on_both
def test_what_a_digest_passes_on_to_a_silence_says_what_held_it_first(explained: Explained) -> None:
    begin(explained, GROUPED)
    explained.clock.advance(minutes(5))
    explained.silence()
    sends_at(explained, 12)
    assert explained.answer() == ("silenced", f"held by {SILENCE}, until {after(minutes(66))}; {FIRST_HELD}")


@on_both
def test_what_one_gate_passes_on_to_one_that_drops_says_what_held_it_first(explained: Explained) -> None:
    begin(explained, GROUPED)
    explained.rule(GROUPED, MUTE.format("drop"))
    sends_at(explained, 16)
    assert explained.answer() == ("dropped", f'dropped by the mute "mornings" at {after(minutes(16))}; {FIRST_HELD}')
    explained.resend_all()
    explained.delivers()
    assert explained.answer() == ("sent", f"sent at {after(minutes(16))}; {DROPPED}; {FIRST_HELD}")


def test_what_was_sent_in_the_digest_of_another_gate_says_what_held_it_first(explained: Explained) -> None:
    begin(explained, GROUPED)
    explained.rule(GROUPED, MUTE.format("hold"))
    for at_minutes in (16, 61):
        sends_at(explained, at_minutes)
    digest = explained.only()["told_by"]
    why = f'held by the mute "mornings", sent in {digest} at {after(minutes(61))}; {FIRST_HELD}'
    assert explained.answer() == ("merged", why)


@on_both
@pytest.mark.parametrize(
    ("outcome", "end"),
    [
        (Sent(), 'sent to "ops" in its place at 2026-11-21T09:16:00Z ({})'),
        (Rejected("gone too"), '{} to "ops", in its place, is dead too: gone too'),
        (RetryLater("503"), '{} to "ops", in its place, waits to be sent'),
    ],
)
def test_a_digest_that_is_dead_says_what_came_of_its_fallback(explained: Explained, outcome: Outcome, end: str) -> None:
    begin(explained, GROUPED, given=WITH_FALLBACK)
    explained.clock.advance(minutes(15))
    explained.delivers(lambda one: Rejected("404") if one.notifier == "cms" else outcome)
    (instead,) = [row["id"] for row in rows(explained.db, deliveries) if row["notifier"] == "ops"]
    dead = f'in the digest of "everything", part of {explained.only()["told_by"]}, which is dead: 404'
    assert explained.answer()[1] == f"{dead}; {end.format(instead)}"


def test_a_discarded_digest_says_who_discarded_it_and_what_came_of_its_fallback(explained: Explained) -> None:
    begin(explained, GROUPED, given=WITH_FALLBACK)
    explained.clock.advance(minutes(15))
    explained.delivers(lambda one: Rejected("404") if one.notifier == "cms" else Rejected("gone too"))
    digest, ops = explained.only()["told_by"], by_hand(explained.db, now=explained.clock.now)
    (instead,) = [row["id"] for row in rows(explained.db, deliveries) if row["notifier"] == "ops"]
    assert len(ops.discard_chosen([digest, instead], "not needed")) == 2
    note = "discarded by ann: not needed; it had died: "
    gone = f'in the digest of "everything", part of {digest}, which is discarded: {note}404'
    assert explained.answer()[1] == f'{gone}; {instead} to "ops", in its place, was dead too, and {note}gone too'


def test_a_discarded_delivery_says_who_discarded_it_and_why(explained: Explained) -> None:
    begin(explained)
    explained.delivers(Rejected("404"))
    by_hand(explained.db, now=explained.clock.now).discard(explained.only()["id"], "not needed")
    why = f"discarded by ann: not needed; it had died: 404, at {after(minutes(1))}"
    assert explained.answer() == ("discarded", why)


# --- attempts -------------------------------------------------------------------------------------------------


def test_what_waits_for_a_retry_says_when_and_why(explained: Explained) -> None:
    begin(explained)
    explained.delivers(RetryLater("503\nService Unavailable"))
    found = explained.only()
    assert (found["attempts"], found["error"], found["next_at"]) == (1, "503 Service Unavailable", after(seconds(65)))
    why = f"1 attempt failed, the next is due at {after(seconds(65))}: 503 Service Unavailable"
    assert explained.answer() == ("retrying", why)
    assert explained.headline() == '"everything" notifies cms: waits for a retry'


def test_what_is_dead_says_why_and_its_fallback_says_what_it_replaces(explained: Explained) -> None:
    begin(explained, given=WITH_FALLBACK)
    explained.delivers(lambda one: Rejected("404 Not Found") if one.notifier == "cms" else Sent())
    dead, instead = explained.last()["deliveries"]
    assert (dead["answer"], dead["why"]) == ("dead", f"given up at {after(minutes(1))}: 404 Not Found")
    assert (instead["notifier"], instead["answer"], instead["fallback_for"]) == ("ops", "sent", "cms")
    assert instead["why"].endswith('in place of "cms", which could not be notified')
    assert explained.headline() == '"everything" notifies cms: dead; "everything" notifies ops: sent'


def test_what_waits_for_a_paused_notifier_says_why_it_is_paused(explained: Explained) -> None:
    begin(explained)
    with explained.db.write() as tx:
        entries.pause(tx, "cms", "410 Gone", now=explained.clock())
    assert explained.answer() == (
        "paused",
        f"waits, as the notifier is paused since {after(minutes(1))}: 410 Gone (ci-bridge notifier resume cms)",
    )


def whys(explained: Explained) -> list[str]:
    return [step["deliveries"][0]["why"] for step in explained.all()]


@on_both
def test_what_waits_for_an_earlier_message_of_its_job_says_so(explained: Explained) -> None:
    begin(explained)
    explained.delivers(RetryLater("503"))
    explained.goes(RUNNING)
    first = explained.all()[0]["deliveries"][0]
    assert first["answer"] == "retrying"
    assert whys(explained)[1] == f"waits for {first['id']}, an earlier message about the same job"


def test_what_is_resent_later_is_in_the_way_of_nothing(explained: Explained) -> None:
    begin(explained)
    explained.delivers(Rejected("no"))
    by_hand(explained.db, now=NOW + hours(1)).redrive_batch(Filter(state="dead"), interval=hours(1))
    explained.goes(RUNNING)
    first, second = whys(explained)
    assert first.startswith(f"waits for its first attempt, due at {after(hours(1))} (")
    assert second.startswith("waits for its first attempt, due at ")


def test_a_notifier_that_asked_for_time_is_not_tried_before(explained: Explained) -> None:
    begin(explained)
    with explained.db.write() as tx:
        entries.postpone_notifier(tx, "cms", NOW + hours(2))
    assert explained.only()["next_at"] == after(hours(2))


def test_the_message_is_the_one_that_was_stored_and_a_delivery_that_is_no_longer_kept_is_not_made_up(
    explained: Explained,
) -> None:
    explained.begin(EVERYTHING)
    explained.goes(SUBMITTED, FAILED, message="no such object", input="in/a.mp4")
    assert explained.last()["messages"] == [
        {"kind": "transition", "rule": "everything", "title": "Transcode Failed: a.mp4", "text": "no such object"}
    ]
    with explained.db.write() as tx:
        tx.execute(delete(deliveries))
    assert (explained.only()["id"], explained.only()["answer"]) == (None, "not_on_record")


def test_what_was_dropped_and_resent_says_both(explained: Explained) -> None:
    begin(explained, EVERYTHING, MUTE.format("drop"))
    assert explained.answer() == ("dropped", f'dropped by the mute "mornings" at {after(seconds(30))}')
    assert explained.headline() == '"everything" notifies cms: dropped'
    explained.resend_all()
    assert explained.answer()[1] == f"waits for its first attempt, due at {after(minutes(1))}; {DROPPED}"
    explained.delivers(Rejected("404"))
    assert explained.answer() == ("dead", f"given up at {after(minutes(1))}: 404; {DROPPED}")


# --- a sample job ---------------------------------------------------------------------------------------------


def sample(explained: Explained, **facts: object) -> tuple[str, str]:
    """Return the status of the one delivery of a sample job that failed."""
    (found,) = explained.sample(to="Failed", **facts)["deliveries"]
    return found["answer"], found["why"]


def test_a_sample_job_says_who_would_be_notified_and_with_what(explained: Explained) -> None:
    explained.rule(EVERYTHING, STUCK)
    assert sample(explained) == ("at_once", "would be sent at once")
    facts = explained.sample(tag="Transcode", to="Failed", message="no such object", input="in/a.mp4")
    assert facts["deliveries"][0]["id"] is None
    assert facts["headline"] == '"everything" notifies cms: at once'
    assert [(one["title"], one["text"]) for one in facts["messages"]] == [("Transcode Failed: a.mp4", "no such object")]
    assert (facts["notes"], rows(explained.db, deliveries)) == ([], [])


def test_level_rules_are_asked_about_a_sample_job_too(explained: Explained) -> None:
    explained.rule(STUCK)
    facts = explained.sample(to="Running", age="31m")
    assert level(facts)["answer"] == "waiting"
    assert [(one["kind"], one["notifier"], one["answer"]) for one in facts["deliveries"]] == [
        ("level", "ops", "at_once")
    ]
    assert level(explained.sample(to="Running", age="29m"))["answer"] == "waiting"


@pytest.mark.parametrize(
    ("mode", "answer", "why"),
    [
        ("hold", "muted", 'would be held by the mute "mornings" until 2026-11-21T10:00:00Z'),
        ("drop", "dropped", 'would be dropped by the mute "mornings", which ends at 2026-11-21T10:00:00Z'),
    ],
)
def test_a_sample_job_meets_the_mutes_of_now(explained: Explained, mode: str, answer: str, why: str) -> None:
    explained.rule(EVERYTHING, MUTE.format(mode))
    assert sample(explained) == (answer, why)


def test_a_sample_job_meets_the_silences_of_now_where_they_are_known(explained: Explained) -> None:
    explained.rule(EVERYTHING)
    explained.silence()
    assert sample(explained) == ("silenced", f"would be held by {SILENCE} until {after(hours(1))}")
    assert sample(explained, known=False)[0] == "at_once"
    notes = explained.sample(known=False)["notes"]
    assert notes == ["silences and paused notifiers are not known: there is no database"]


def test_a_sample_job_says_what_its_rule_does_with_the_message(explained: Explained) -> None:
    grouped = f'{EVERYTHING}group = {{ wait = "10m", max = 50 }}\n'
    explained.rule(grouped, EVERYTHING.replace('"everything"', '"throttled"') + 'throttle = "10/5m"\n')
    assert [(one["answer"], one["why"]) for one in explained.sample(to="Failed")["deliveries"]] == [
        ("digest", f'would wait in the digest of "everything", sent at {after(minutes(10))}, or as soon as it has 50'),
        ("at_once", "would be sent at once: its throttle is not used up (10 in 5 min)"),
    ]


def test_a_sample_job_meets_the_throttle_of_now_where_it_is_known(explained: Explained) -> None:
    begin(explained, THROTTLED)
    until = after(minutes(5.5))
    why = f'would be held by the throttle of "everything" (1 in 5 min) until {until}'
    assert sample(explained) == ("throttled", why)
    (found,) = explained.sample(to="Failed")["deliveries"]
    assert (found["gate"], found["gate_name"], found["until"]) == ("throttle", "everything", until)
    unknown = "would be sent at once, as long as its throttle is not used up (1 in 5 min)"
    assert sample(explained, known=False) == ("at_once", unknown)
    explained.clock.now = NOW + minutes(5.5)
    assert sample(explained)[0] == "at_once"


def test_a_sample_job_says_that_the_notifier_is_paused(explained: Explained) -> None:
    explained.rule(EVERYTHING)
    with explained.db.write() as tx:
        entries.pause(tx, "cms", "410 Gone", now=NOW)
    assert sample(explained) == ("paused", f"would wait, as the notifier is paused since {after(minutes(0))}: 410 Gone")


def test_a_sample_job_is_stopped_by_the_same_rules_as_any_other(explained: Explained) -> None:
    first, later = (EVERYTHING.replace('"everything"', f'"{name}"') for name in ("first", "later"))
    explained.rule(first, f"{EVERYTHING}stop = true\n", later)
    found = {one["rule"]: one for one in explained.sample(to="Failed")["deliveries"]}
    assert found["everything"]["why"] == 'rule "first" above notifies cms of this (at once)'
    answers = {rule: one["answer"] for rule, one in found.items()}
    assert answers == {"first": "at_once", "everything": "already_told", "later": "stopped"}


def test_a_template_that_does_not_render_for_a_sample_job_is_noted(explained: Explained) -> None:
    template = '[template.short]\ntitle = "{{ job.outputs[0] | upper }} {{ 7 // job.outputs_total }}"\n'
    explained.rule(f'{EVERYTHING}template = "short"\n', template)
    notes = explained.sample(to="Failed")["notes"]
    assert any('rule "everything": template "short"' in note for note in notes)
