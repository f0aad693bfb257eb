"""What became of the messages: each fate is brought about by the parts that do it in earnest."""

from __future__ import annotations

import pytest
from sqlalchemy import delete

from bridge.decide.rulesfile.read import read
from bridge.model import FAILED, RUNNING, SUBMITTED, Outcome, Rejected, RetryLater, Sent
from bridge.pipeline.poll import Poller
from bridge.record.database import Database
from bridge.record.outbox import entries
from bridge.record.queries.lists import Filter
from bridge.record.schema import delivery
from bridge.wiring import parts
from tests.conftest import on_both
from tests.support.explained import EVERYTHING, HEAD, MUTE, World, after
from tests.support.fakes import FakeCi, FakeTransport
from tests.support.nouns import by_hand
from tests.support.records import NOW, Clock, a_listed_job, hours, minutes, rows, seconds


@pytest.fixture
def world(db: Database, ci: FakeCi, clock: Clock, poller: Poller, transport: FakeTransport) -> World:
    return World(db, ci, clock, poller, transport)


def test_a_mute_is_named_with_its_end(world: World) -> None:
    world.begin(EVERYTHING, MUTE.format("hold"))
    world.sees(SUBMITTED)
    assert (world.told()["answer"], world.told()["why"].partition(" (dlv")[0]) == (
        "muted",
        'held by the mute "mornings", until 2026-11-21T10:00:00Z',
    )
    assert (world.told()["gate"], world.told()["gate_name"], world.told()["until"]) == (
        "mute", "mornings", "2026-11-21T10:00:00Z",
    )  # fmt: skip
    world.clock.now = NOW + minutes(61)
    world.deliver()
    told = world.told()
    assert (told["answer"], told["why"]) == (
        "merged",
        f'held by the mute "mornings", sent in {told["told_by"]} at {after(minutes(61))}',
    )


def test_a_mute_that_drops_is_named_with_the_time(world: World) -> None:
    world.begin(EVERYTHING, MUTE.format("drop"))
    world.sees(SUBMITTED)
    assert (world.told()["answer"], world.told()["why"]) == (
        "dropped",
        f'dropped by the mute "mornings" at {after(seconds(30))}',
    )
    assert world.last()["headline"] == '"everything" notifies cms: dropped'


@on_both
@pytest.mark.parametrize("drop", [False, True])
def test_a_silence_is_named_with_who_made_it_and_why(world: World, drop: bool) -> None:
    world.begin(EVERYTHING)
    world.silence(drop=drop)
    world.sees(SUBMITTED)
    who = "the silence sil_1 by ann (a deploy)"
    expected = (
        ("dropped", f"dropped by {who} at {after(seconds(30))}")
        if drop
        else ("silenced", f"held by {who}, until {after(minutes(60.5))}")
    )
    assert (world.told()["answer"], world.told()["why"]) == expected


def test_what_is_over_a_throttle_is_told_when(world: World) -> None:
    world.begin(EVERYTHING.rstrip() + '\nthrottle = "1/5m"\n')
    for id_ in ("j1", "j2"):
        world.ci.has(a_listed_job(id_, SUBMITTED, created_at=world.clock()))
    world.poll()
    answers = sorted((world.told(id_)["answer"], world.told(id_)["why"]) for id_ in ("j1", "j2"))
    assert [answer for answer, _ in answers] == ["throttled", "waiting"]
    assert answers[0][1] == f'over the throttle of "everything" (1 in 5 min), until {after(minutes(5.5))}'


def test_what_waits_in_a_digest_says_of_which_rule_and_until_when(world: World) -> None:
    world.begin(EVERYTHING.rstrip() + '\ngroup = { wait = "10m" }\n')
    world.sees(SUBMITTED)
    assert (world.told()["answer"], world.told()["why"]) == (
        "digest",
        f'waits in the digest of "everything", until {after(minutes(10.5))}',
    )
    world.clock.advance(minutes(15))
    assert world.told()["why"].endswith(f"sent any moment now (due at {after(minutes(10.5))})")
    world.deliver(Rejected("no such channel"))
    assert world.told()["answer"] == "merged"
    assert world.told()["why"].endswith("which is dead: no such channel")


@on_both
def test_what_a_digest_passes_on_to_a_silence_says_what_held_it_first(world: World) -> None:
    world.begin(EVERYTHING.rstrip() + '\ngroup = { wait = "10m" }\n')
    world.sees(SUBMITTED)
    world.clock.advance(minutes(5))
    world.silence()
    world.clock.advance(minutes(6))
    world.deliver()
    assert world.told()["answer"] == "silenced"
    assert world.told()["why"] == (
        f"held by the silence sil_1 by ann (a deploy), until {after(minutes(66))}; "
        'first held by the digest of "everything"'
    )


def test_what_waits_for_a_retry_says_when_and_why(world: World) -> None:
    world.begin(EVERYTHING)
    world.sees(SUBMITTED)
    world.deliver(RetryLater("503\nService Unavailable"))
    told = world.told()
    assert (told["answer"], told["attempts"], told["error"]) == ("retrying", 1, "503 Service Unavailable")
    assert told["why"] == f"1 attempt failed, the next is due at {after(seconds(65))}: 503 Service Unavailable"
    assert told["next_at"] == after(seconds(65))
    assert world.last()["headline"] == '"everything" notifies cms: waits for a retry'


def test_what_is_dead_says_why_and_its_fallback_says_what_it_stands_in_for(world: World) -> None:
    text = HEAD.replace("[notifier.ops]", 'fallback = "ops"\n\n[notifier.ops]') + EVERYTHING
    world.book = read(text, {})
    parts.sync(world.db, world.book)
    world.poll()
    world.sees(SUBMITTED)
    world.deliver(lambda one: Rejected("404 Not Found") if one.notifier == "cms" else Sent())
    dead, instead = world.last()["deliveries"]
    assert (dead["answer"], dead["why"]) == ("dead", f"given up at {after(minutes(1))}: 404 Not Found")
    assert (instead["notifier"], instead["answer"], instead["fallback_for"]) == ("ops", "sent", "cms")
    assert instead["why"].endswith('in place of "cms", which could not be notified')
    assert world.last()["headline"] == '"everything" notifies cms: dead; "everything" notifies ops: sent'


def test_what_waits_for_a_paused_notifier_says_why_it_is_paused(world: World) -> None:
    world.begin(EVERYTHING)
    world.sees(SUBMITTED)
    with world.db.write() as tx:
        entries.pause(tx, "cms", "410 Gone", now=world.clock())
    assert (world.told()["answer"], world.told()["why"]) == (
        "paused",
        f"waits, as the notifier is paused since {after(minutes(1))}: 410 Gone (ci-bridge notifier resume cms)",
    )


@on_both
def test_what_waits_for_an_earlier_message_of_its_job_says_so(world: World) -> None:
    world.begin(EVERYTHING)
    world.sees(SUBMITTED)
    world.deliver(RetryLater("503"))
    world.sees(RUNNING)
    first, second = (one["deliveries"][0] for one in world.all())
    assert (first["answer"], second["answer"]) == ("retrying", "waiting")
    assert second["why"] == f"waits for {first['id']}, an earlier message about the same job"


def test_what_is_resent_later_is_in_the_way_of_nothing(world: World) -> None:
    world.begin(EVERYTHING)
    world.sees(SUBMITTED)
    world.deliver(Rejected("no"))
    later = NOW + hours(1)
    by_hand(world.db, now=later).redrive_batch(Filter(state="dead"), interval=hours(1))
    world.sees(RUNNING)
    first, second = (one["deliveries"][0] for one in world.all())
    assert first["why"] == f"waits for its first attempt, due at {after(hours(1))} (sent again by hand)"
    assert second["why"].startswith("waits for its first attempt, due at ")


def test_a_notifier_that_asked_for_time_is_not_tried_before(world: World) -> None:
    world.begin(EVERYTHING)
    world.sees(SUBMITTED)
    with world.db.write() as tx:
        entries.hold(tx, "cms", NOW + hours(2))
    assert world.told()["next_at"] == after(hours(2))


def test_the_message_is_the_one_that_was_stored(world: World) -> None:
    world.begin(EVERYTHING)
    world.sees(SUBMITTED, FAILED, message="no such object", input="in/a.mp4")
    assert world.last()["messages"] == [
        {"kind": "transition", "rule": "everything", "title": "Transcode Failed: a.mp4", "text": "no such object"}
    ]


def test_a_delivery_that_is_no_longer_kept_is_not_made_up(world: World) -> None:
    world.begin(EVERYTHING)
    world.sees(SUBMITTED)
    with world.db.write() as tx:
        tx.execute(delete(delivery))
    assert (world.told()["id"], world.told()["answer"]) == (None, "not_on_record")


def test_what_was_dropped_and_is_sent_again_by_hand_says_both(world: World) -> None:
    world.begin(EVERYTHING, MUTE.format("drop"))
    world.sees(SUBMITTED)
    world.send_again()
    was = 'resent after it was dropped by the mute "mornings"'
    assert world.told()["why"] == f"waits for its first attempt, due at {after(minutes(1))}; {was}"
    world.deliver()
    assert (world.told()["answer"], world.told()["why"]) == ("sent", f"sent at {after(minutes(1))}; {was}")


def test_what_was_dropped_sent_again_by_hand_and_refused_says_all_of_it(world: World) -> None:
    world.begin(EVERYTHING)
    world.silence(drop=True)
    world.sees(SUBMITTED)
    world.send_again()
    world.deliver(Rejected("404"))
    assert world.told()["answer"] == "dead"
    assert world.told()["why"] == (
        f"given up at {after(minutes(1))}: 404; resent after it was dropped by the silence sil_1 by ann (a deploy)"
    )


@on_both
def test_what_one_gate_passes_on_to_one_that_drops_says_what_held_it_first(world: World) -> None:
    grouped = EVERYTHING.rstrip() + '\ngroup = { wait = "10m" }\n'
    world.begin(grouped)
    world.sees(SUBMITTED)
    world.rule(grouped, MUTE.format("drop"))
    world.clock.advance(minutes(15))
    world.deliver()
    first = 'first held by the digest of "everything"'
    assert world.told()["answer"] == "dropped"
    assert world.told()["why"] == f'dropped by the mute "mornings" at {after(minutes(16))}; {first}'
    world.send_again()
    world.deliver()
    again = 'resent after it was dropped by the mute "mornings"'
    assert world.told()["why"] == f"sent at {after(minutes(16))}; {again}; {first}"


def test_what_was_told_in_the_digest_of_another_gate_says_what_held_it_first(world: World) -> None:
    grouped = EVERYTHING.rstrip() + '\ngroup = { wait = "10m" }\n'
    world.begin(grouped)
    world.sees(SUBMITTED)
    world.rule(grouped, MUTE.format("hold"))
    world.clock.advance(minutes(15))
    world.deliver()
    world.clock.now = NOW + minutes(61)
    world.deliver()
    told = world.told()
    assert told["answer"] == "merged"
    assert told["why"] == (
        f'held by the mute "mornings", sent in {told["told_by"]} at {after(minutes(61))}; '
        'first held by the digest of "everything"'
    )


@on_both
@pytest.mark.parametrize(
    ("outcome", "end"),
    [
        (Sent(), 'sent to "ops" in its place at 2026-11-21T09:16:00Z ({})'),
        (Rejected("gone too"), '{} to "ops", in its place, is dead too: gone too'),
        (RetryLater("503"), '{} to "ops", in its place, waits to be sent'),
    ],
)
def test_a_digest_that_is_dead_says_what_came_of_its_fallback(world: World, outcome: Outcome, end: str) -> None:
    grouped = EVERYTHING.rstrip() + '\ngroup = { wait = "10m" }\n'
    world.book = read(HEAD.replace("[notifier.ops]", 'fallback = "ops"\n\n[notifier.ops]') + grouped, {})
    parts.sync(world.db, world.book)
    world.poll()
    world.sees(SUBMITTED)
    world.clock.advance(minutes(15))
    world.deliver(lambda one: Rejected("404") if one.notifier == "cms" else outcome)
    (instead,) = [row["id"] for row in rows(world.db, delivery) if row["notifier"] == "ops"]
    told = world.told()
    assert told["why"] == (
        f'in the digest of "everything", part of {told["told_by"]}, which is dead: 404; {end.format(instead)}'
    )
