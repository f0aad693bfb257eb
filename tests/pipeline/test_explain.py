"""Why did I (not) get this? Each case is brought about by the parts that do it in earnest."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, update

from bridge import wiring
from bridge.collect.errors import TemporaryError
from bridge.decide.rulebook import Rulebook, read
from bridge.decide.samples import sample_transition
from bridge.model import (
    CANCEL,
    FAILED,
    PAUSE,
    RUNNING,
    SUBMITTED,
    SUCCESS,
    Delivery,
    Outcome,
    Refused,
    Sent,
    Silence,
    TryLater,
)
from bridge.pipeline import Courier, Poller
from bridge.pipeline.explain import as_text, explain_sample, explain_stored
from bridge.record import outbox, silences
from bridge.record.database import Database
from bridge.record.schema import delivery, ruleset, transition
from tests.pipeline.fakes import FakeCi, FakeTransport
from tests.record.builders import NOW, Clock, a_job, hours, minutes, rows, seconds

Facts = dict[str, Any]

HEAD = """
[alias.queue]
one = "p1"

[[watch]]
name = "vod"
bucket = "clips-1250000000"
region = "ap-chongqing"
tags = ["Transcode"]

[notifier.cms]
type = "webhook"
url = "https://cms.example.com/hook"
retry = "1h"

[notifier.ops]
type = "webhook"
url = "https://ops.example.com/hook"
retry = "1h"
"""
EVERYTHING = """
[[rule]]
name = "everything"
notify = "cms"
"""
ONLY_FAILED = """
[[rule]]
name = "failed"
to = "Failed"
match.queue = "one"
notify = "cms"
"""
STUCK = """
[[rule]]
name = "stuck"
in = "Running"
for = "30m"
notify = "ops"
"""


def a_book(*rules: str) -> Rulebook:
    return read(HEAD + "".join(rules), {})


@dataclass
class World:
    """A bridge whose CI, receivers and time do as they are told."""

    db: Database
    ci: FakeCi
    clock: Clock
    poller: Poller
    transport: FakeTransport
    book: Rulebook = field(default_factory=lambda: a_book(EVERYTHING))
    lease: Iterator[int] = field(default_factory=itertools.count)

    def begin(self, *rules: str) -> None:
        """Put rules in force, poll once, and let half a minute go by."""
        self.rule(*rules)
        self.poll()

    def rule(self, *rules: str) -> None:
        self.book = a_book(*rules)
        wiring.sync(self.db, self.book)

    def poll(self) -> None:
        assert self.poller.poll_once(self.book.watches[0], self.book) is not None
        self.clock.advance(seconds(30))

    def sees(self, *states: str, id: str = "j1", **facts: Any) -> None:  # noqa: A002  (the noun's own word)
        """Let a job be in these states one after the other, with a poll for each."""
        created = self.ci.jobs[id].created_at if id in self.ci.jobs else self.clock()
        for state in states:
            times = {"started_at": self.clock()} if state == RUNNING else {}
            self.ci.has(a_job(id, state, **{"created_at": created, **times, **facts}))
            self.poll()

    def deliver(self, outcome: Outcome | Callable[[Delivery], Outcome] = Sent()) -> None:  # noqa: B008  (it is frozen)
        """Tell what is due, digests too."""
        self.transport.answer = outcome if callable(outcome) else lambda _: outcome
        worker = f"w{next(self.lease)}"
        courier = Courier(
            db=self.db, transport=self.transport, book=lambda: self.book, clock=self.clock, chance=lambda: 0.0,
            worker=worker, monotonic=lambda: self.clock().timestamp(),
        )  # fmt: skip
        while courier.turn() or courier.unfinished:
            pass

    def all(self, id: str = "j1", **which: Any) -> list[Facts]:  # noqa: A002  (the noun's own word)
        with self.db.read() as tx:
            return explain_stored(tx, id, self.book, now=self.clock(), **which)

    def last(self, id: str = "j1") -> Facts:  # noqa: A002  (the noun's own word)
        return self.all(id)[-1]

    def told(self, id: str = "j1") -> Facts:  # noqa: A002  (the noun's own word)
        """The one delivery of the last transition."""
        (one,) = self.last(id)["deliveries"]
        found: Facts = one
        return found

    def try_out(self, *, known: bool = True, **said: Any) -> Facts:
        step = sample_transition(said, self.book, self.clock())
        if not known:
            return explain_sample(step, self.book, now=self.clock(), tx=None)
        with self.db.read() as tx:
            return explain_sample(step, self.book, now=self.clock(), tx=tx)

    def silence(self, *, drop: bool = False) -> None:
        one = Silence(
            id="sil_1", spec='{"match": {"tag": "Transcode"}}', author="ann", reason="a deploy",
            begins_at=self.clock(), ends_at=self.clock() + hours(1), drop=drop,
        )  # fmt: skip
        with self.db.write() as tx:
            silences.add(tx, one)


@pytest.fixture
def world(db: Database, ci: FakeCi, clock: Clock, poller: Poller, transport: FakeTransport) -> World:
    return World(db, ci, clock, poller, transport)


def level(facts: Facts, rule: str = "stuck") -> Facts:
    (found,) = [one for one in facts["levels"] if one["rule"] == rule]
    return found  # type: ignore[no-any-return]  # plain values


def rule_of(facts: Facts, name: str) -> Facts:
    (found,) = [one for one in facts["rules"] if one["rule"] == name]
    return found  # type: ignore[no-any-return]  # plain values


def after(time: timedelta) -> str:
    return f"{NOW + time:%Y-%m-%dT%H:%M:%SZ}"


# --- the rules ----------------------------------------------------------------------------------------------


def test_a_job_that_a_rule_matched_says_when_it_was_told(world: World) -> None:
    world.begin(EVERYTHING)
    world.sees(SUBMITTED)
    world.deliver()
    facts = world.last()
    assert facts["headline"] == '"everything" tells cms: sent'
    assert [(one["rule"], one["answer"], one["notifiers"]) for one in facts["rules"]] == [
        ("everything", "fired", ["cms"])
    ]
    assert (world.told()["answer"], world.told()["why"]) == ("sent", f"sent at {after(minutes(1))}")
    assert (facts["from"], facts["to"], facts["judged_by"], facts["notes"]) == ("new", SUBMITTED, world.book.sha, [])


def test_of_a_job_that_no_rule_matched_the_nearest_miss_is_named_first(world: World) -> None:
    far = '[[rule]]\nname = "far"\nto = "Cancel"\nmatch.queue = "p9"\nmatch.code = true\nnotify = "ops"\n'
    other = '[[rule]]\nname = "other"\nto = "Success"\nnotify = "ops"\n'
    world.begin(far, other, ONLY_FAILED)
    world.sees(RUNNING, FAILED, queue="p2")
    facts = world.last()
    line = rule_of(facts, "failed")["line"]
    assert [(one["rule"], one["misses"]) for one in facts["rules"]] == [("failed", 1), ("other", 1), ("far", 3)]
    assert facts["headline"] == (f'no rule matched; nearest: "failed" (line {line}): match.queue: "p2" is not "p1"')
    assert facts["deliveries"] == []


def test_a_miss_by_several_conditions_says_by_how_many(world: World) -> None:
    world.begin(ONLY_FAILED)
    world.sees(RUNNING, queue="p2")
    assert world.last()["headline"].endswith('(line 21): to: "Running" is not among Failed (and 1 more)')


def test_a_rule_after_one_that_stops_says_which_one_that_was(world: World) -> None:
    stops = '[[rule]]\nname = "first"\nstop = true\nnotify = "ops"\n'
    world.begin(stops, EVERYTHING, ONLY_FAILED)
    world.sees(SUBMITTED, queue="p1")
    facts = world.last()
    stopped = [one for one in facts["deliveries"] if one["answer"] == "stopped"]
    assert [(one["rule"], one["notifier"]) for one in stopped] == [("everything", "cms")]
    assert 'rule "first" (line ' in stopped[0]["why"]
    assert stopped[0]["why"].endswith("matched and stops")
    assert [rule_of(facts, name)["answer"] for name in ("first", "everything", "failed")] == [
        "fired",
        "stopped",
        "stopped",
    ]
    assert facts["headline"] == '"first" tells ops: waits for its first try'


def test_a_notifier_that_an_earlier_rule_told_is_not_told_twice(world: World) -> None:
    world.begin('[[rule]]\nname = "special"\nnotify = "cms"\n', EVERYTHING.replace('"cms"', '["cms", "ops"]'))
    world.sees(SUBMITTED)
    answers = {(one["rule"], one["notifier"]): one for one in world.last()["deliveries"]}
    assert {pair: one["answer"] for pair, one in answers.items()} == {
        ("special", "cms"): "waiting",
        ("everything", "ops"): "waiting",
        ("everything", "cms"): "already_told",
    }
    assert answers["everything", "cms"]["why"] == 'an earlier rule, "special", tells cms of this'


def test_a_first_snapshot_says_that_it_was_silent(world: World) -> None:
    world.ci.has(a_job("j1", RUNNING, created_at=NOW - hours(1)))
    world.begin(EVERYTHING)
    assert world.last()["headline"] == 'told to nobody: first snapshot of Transcode in watch "vod"'
    assert world.last()["deliveries"] == []


def test_a_rulebook_without_rules_says_so(world: World) -> None:
    world.begin()
    world.sees(SUBMITTED)
    assert world.last()["headline"] == "no rule matched: there are none"


def test_a_transition_is_judged_by_the_rules_of_then_and_told_what_those_of_now_would_do(world: World) -> None:
    world.begin(ONLY_FAILED)
    old = world.book.sha
    world.sees(SUBMITTED)
    world.rule(EVERYTHING)
    world.sees(RUNNING)
    first, second = world.all()
    assert (first["judged_by"], [one["rule"] for one in first["rules"]]) == (old, ["failed"])
    assert first["headline"].startswith("no rule matched; nearest")
    assert first["would_tell_now"] == {"rules": world.book.sha, "tells": [{"rule": "everything", "notifiers": ["cms"]}]}
    assert 'the rules of now would tell: cms by "everything"' in as_text(first)
    assert first["notes"] == [f"judged by the rules that were in force then ({old}), and others are in force now"]
    assert (second["judged_by"], second["would_tell_now"]) == (world.book.sha, None)


def test_rules_of_now_that_would_tell_the_same_are_not_mentioned(world: World) -> None:
    world.begin(EVERYTHING)
    world.sees(SUBMITTED)
    world.rule(EVERYTHING, ONLY_FAILED)
    assert world.last()["would_tell_now"] is None


@pytest.mark.parametrize("known", [False, True])
def test_where_the_rules_of_then_are_not_on_record_it_says_so_and_asks_those_of_now(world: World, known: bool) -> None:
    world.begin(ONLY_FAILED)
    old = world.book.sha
    world.sees(SUBMITTED)
    world.rule(EVERYTHING)
    with world.db.write() as tx:
        tx.execute(delete(ruleset).where(ruleset.c.sha == old))
        if not known:  # as a version wrote it that kept none
            tx.execute(update(transition).values(rules=None))
    facts = world.last()
    assert facts["judged_by"] == world.book.sha
    (note,) = facts["notes"]
    assert "are not on record; these are the answers of the rules of now" in note
    assert (old in note) is known
    assert (world.told()["answer"], world.told()["why"]) == (
        "not_on_record",
        "no delivery is on record: other rules were in force then",
    )


def test_rules_that_this_version_cannot_read_are_as_if_they_were_not_kept(world: World) -> None:
    world.begin(EVERYTHING)
    world.sees(SUBMITTED)
    world.rule(EVERYTHING, ONLY_FAILED)
    with world.db.write() as tx:
        tx.execute(update(ruleset).values(text='{"of": "another version"}'))
    assert "cannot be read any more" in world.last()["notes"][0]


def test_a_job_that_nobody_saw_has_no_answer(world: World) -> None:
    assert world.all("j404") == []


def test_the_bucket_says_which_of_two_jobs_is_meant(world: World) -> None:
    world.begin(EVERYTHING)
    world.sees(SUBMITTED)
    assert [one["bucket"] for one in world.all(bucket="clips-1250000000")] == ["clips-1250000000"]
    assert world.all(bucket="other-1250000000") == []


# --- what became of the messages ----------------------------------------------------------------------------

MUTE = '[[mute]]\nname = "mornings"\nbetween = "08:00-10:00"\nmode = "{}"\n'


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
        f'held by the mute "mornings", told in {told["told_by"]}, sent at {after(minutes(61))}',
    )


def test_a_mute_that_drops_is_named_with_the_time(world: World) -> None:
    world.begin(EVERYTHING, MUTE.format("drop"))
    world.sees(SUBMITTED)
    assert (world.told()["answer"], world.told()["why"]) == (
        "dropped",
        f'dropped by the mute "mornings" at {after(seconds(30))}',
    )
    assert world.last()["headline"] == '"everything" tells cms: dropped'


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
        world.ci.has(a_job(id_, SUBMITTED, created_at=world.clock()))
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
    assert world.told()["why"].endswith(f"told any moment (due at {after(minutes(10.5))})")
    world.deliver(Refused("no such channel"))
    assert world.told()["answer"] == "merged"
    assert world.told()["why"].endswith("which is dead: no such channel")


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
    world.deliver(TryLater("503\nService Unavailable"))
    told = world.told()
    assert (told["answer"], told["attempts"], told["error"]) == ("retrying", 1, "503 Service Unavailable")
    assert told["why"] == f"1 try in vain, the next is due at {after(seconds(65))}: 503 Service Unavailable"
    assert told["next_at"] == after(seconds(65))
    assert world.last()["headline"] == '"everything" tells cms: waits for a retry'


def test_what_is_dead_says_why_and_its_fallback_says_what_it_stands_in_for(world: World) -> None:
    text = HEAD.replace("[notifier.ops]", 'fallback = "ops"\n\n[notifier.ops]') + EVERYTHING
    world.book = read(text, {})
    wiring.sync(world.db, world.book)
    world.poll()
    world.sees(SUBMITTED)
    world.deliver(lambda one: Refused("404 Not Found") if one.notifier == "cms" else Sent())
    dead, instead = world.last()["deliveries"]
    assert (dead["answer"], dead["why"]) == ("dead", f"given up at {after(minutes(1))}: 404 Not Found")
    assert (instead["notifier"], instead["answer"], instead["fallback_for"]) == ("ops", "sent", "cms")
    assert instead["why"].endswith('in place of "cms", which could not be told')
    assert world.last()["headline"] == '"everything" tells cms: dead; "everything" tells ops: sent'


def test_what_waits_for_a_paused_notifier_says_why_it_is_paused(world: World) -> None:
    world.begin(EVERYTHING)
    world.sees(SUBMITTED)
    with world.db.write() as tx:
        outbox.pause(tx, "cms", "410 Gone", now=world.clock())
    assert (world.told()["answer"], world.told()["why"]) == (
        "paused",
        f"waits, as the notifier is paused since {after(minutes(1))}: 410 Gone (ci-bridge notifier resume cms)",
    )


def test_what_waits_for_an_earlier_message_of_its_job_says_so(world: World) -> None:
    world.begin(EVERYTHING)
    world.sees(SUBMITTED)
    world.deliver(TryLater("503"))
    world.sees(RUNNING)
    first, second = (one["deliveries"][0] for one in world.all())
    assert (first["answer"], second["answer"]) == ("retrying", "waiting")
    assert second["why"] == f"waits for {first['id']}, which tells of the same job and comes first"


def test_a_notifier_that_asked_for_time_is_not_tried_before(world: World) -> None:
    world.begin(EVERYTHING)
    world.sees(SUBMITTED)
    with world.db.write() as tx:
        outbox.hold(tx, "cms", NOW + hours(2))
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


# --- level rules --------------------------------------------------------------------------------------------


def test_a_stay_that_is_not_yet_too_long_says_when_it_will_be(world: World) -> None:
    world.begin(STUCK)
    world.sees(RUNNING)
    facts = world.last()
    assert (level(facts)["answer"], level(facts)["due_at"]) == ("not_yet", after(minutes(30.5)))
    assert facts["headline"] == (
        f'no rule matched; nearest: "stuck" (line {level(facts)["line"]}): '
        f"Running since {after(seconds(30))}, not yet for 30 min: due at {after(minutes(30.5))}"
    )


def test_a_stay_that_was_told_of_says_when_how_often_and_when_it_was_over(world: World) -> None:
    world.begin(STUCK.rstrip() + '\nrepeat = "10m"\nrecover = true\n')
    world.sees(RUNNING)
    world.clock.now = NOW + minutes(31)
    world.poll()
    world.deliver()
    assert level(world.last())["why"] == f"fired at {after(minutes(31))}"
    assert world.last()["headline"] == '"stuck" tells ops: sent'
    world.clock.now = NOW + minutes(41)
    world.poll()
    world.sees(SUCCESS)
    stay, end = world.all()
    assert level(stay)["answer"] == "fired"
    assert level(stay)["why"] == (
        f"fired at {after(minutes(31))}, told once more until {after(minutes(41))}, "
        f"it moved on at {after(minutes(41.5))}"
    )
    assert (level(stay)["repeated"], level(stay)["notifiers"]) == (1, ["ops"])
    assert [one["kind"] for one in stay["deliveries"]] == ["level", "level"]
    assert [(one["kind"], one["rule"], one["answer"]) for one in end["deliveries"]] == [
        ("recovery", "stuck", "waiting")
    ]
    assert level(end)["why"] == 'in: "Success" is not among Running'


def test_an_alarm_that_nobody_hears_the_end_of_says_why(world: World) -> None:
    world.begin(STUCK)
    world.sees(RUNNING)
    world.clock.now = NOW + minutes(31)
    world.poll()
    world.sees(SUCCESS)
    assert level(world.all()[0])["why"].endswith("(recover is not set, so nobody is told of that)")


def test_a_stay_that_ended_in_time_says_how_long_it_was(world: World) -> None:
    world.begin(STUCK)
    world.sees(RUNNING)
    world.clock.advance(minutes(11.5))
    world.sees(SUCCESS, ended_at=NOW + minutes(12.5), started_at=NOW + seconds(30))
    facts = world.all()[0]
    assert (level(facts)["answer"], level(facts)["why"]) == ("left", "left Running after 12 min, before 30 min")
    assert (level(facts)["until"], level(facts)["stayed_seconds"]) == (after(minutes(12.5)), 720)


def test_a_stay_that_no_complete_poll_saw_for_long_enough_says_so(world: World) -> None:
    world.begin(STUCK)
    world.sees(RUNNING)
    world.clock.now = NOW + minutes(40)
    world.sees(SUCCESS, ended_at=NOW + minutes(39), started_at=NOW + seconds(30))
    facts = level(world.all()[0])
    assert facts["answer"] == "unseen"
    assert facts["why"] == (
        "left Running after 38 min 30 s, but no complete poll saw it for 30 min: "
        f"the last complete poll before that began at {after(seconds(30))}"
    )


def test_a_stay_without_a_complete_poll_since_says_since_when_and_how_the_watch_is(world: World) -> None:
    world.begin(STUCK)
    world.sees(RUNNING)
    world.clock.now = NOW + minutes(35)
    world.ci.refuses["Transcode"] = TemporaryError("503", advice="wait")
    world.poll()
    facts = level(world.last())
    assert facts["answer"] == "no_poll"
    assert facts["why"] == (
        f"no complete poll since it became too long at {after(minutes(30.5))}: the last one began at "
        f'{after(seconds(30))}, and 1 have failed since; watch "vod" is late: does a worker run?'
    )


def test_a_stay_that_is_too_long_is_told_with_the_next_complete_poll(world: World) -> None:
    world.begin(STUCK)
    world.sees(RUNNING)
    world.clock.now = NOW + minutes(30)
    world.poll()
    world.clock.now = NOW + minutes(30.75)
    assert level(world.last())["answer"] == "due"


def test_a_job_that_no_watch_looks_after_any_more_says_so(world: World) -> None:
    world.begin(STUCK)
    world.sees(RUNNING)
    world.clock.now = NOW + minutes(35)
    world.book = read((HEAD + STUCK).replace('tags = ["Transcode"]', 'tags = ["Snapshot"]'), {})
    assert level(world.last())["why"].endswith("no watch of the rules of now looks after this job")


def test_what_a_first_snapshot_found_too_long_already_says_so(world: World) -> None:
    started = NOW - hours(1)
    world.ci.has(a_job("j1", RUNNING, created_at=started, started_at=started))
    world.begin(STUCK)
    assert level(world.last())["answer"] == "first_snapshot"
    assert level(world.last())["why"] == f"the first snapshot found it so: Running since {after(-hours(1))}"


def test_a_level_rule_after_one_that_stops_says_which_one_that_was(world: World) -> None:
    world.begin(STUCK.rstrip() + "\nstop = true\n", STUCK.replace('"stuck"', '"later"').replace("30m", "20m"))
    world.sees(RUNNING)
    world.clock.now = NOW + minutes(35)
    world.poll()
    facts = world.last()
    assert (level(facts)["answer"], level(facts, "later")["answer"]) == ("fired", "stopped")


def test_a_level_rule_whose_conditions_do_not_hold_says_which(world: World) -> None:
    world.begin(STUCK.rstrip() + '\nmatch.queue = "p9"\n')
    world.sees(RUNNING, queue="p1")
    assert (level(world.last())["answer"], level(world.last())["why"]) == (
        "no",
        'match.queue: "p1" / "one" is not "p9"',
    )


def test_an_alarm_of_a_rule_that_is_gone_is_still_told_of(world: World) -> None:
    world.begin(STUCK)
    world.sees(RUNNING)
    world.clock.now = NOW + minutes(31)
    world.poll()
    world.rule(EVERYTHING)
    assert (level(world.last())["answer"], level(world.last())["line"]) == ("fired", None)
    assert '"stuck" (no longer among the rules)' in as_text(world.last())


# --- a job that is made up ----------------------------------------------------------------------------------


def test_a_made_up_job_says_who_would_be_told_and_what(world: World) -> None:
    world.rule(EVERYTHING, STUCK)
    facts = world.try_out(tag="Transcode", to="Failed", message="no such object", input="in/a.mp4")
    (told,) = facts["deliveries"]
    assert (told["answer"], told["why"], told["id"]) == ("at_once", "would be told at once", None)
    assert facts["headline"] == '"everything" tells cms: at once'
    assert [(one["title"], one["text"]) for one in facts["messages"]] == [("Transcode Failed: a.mp4", "no such object")]
    assert facts["notes"] == []
    assert rows(world.db, delivery) == []


def test_a_made_up_job_is_asked_about_by_level_rules_too(world: World) -> None:
    world.rule(STUCK)
    facts = world.try_out(to="Running", age="31m")
    assert level(facts)["answer"] == "due"
    assert [(one["kind"], one["notifier"], one["answer"]) for one in facts["deliveries"]] == [
        ("level", "ops", "at_once")
    ]
    assert level(world.try_out(to="Running", age="29m"))["answer"] == "not_yet"


@pytest.mark.parametrize(
    ("rules", "answer", "why"),
    [
        (MUTE.format("hold"), "muted", 'would be held by the mute "mornings" until 2026-11-21T10:00:00Z'),
        (MUTE.format("drop"), "dropped", 'would be dropped by the mute "mornings", which ends at 2026-11-21T10:00:00Z'),
        ("", "at_once", "would be told at once"),
    ],
)
def test_a_made_up_job_meets_the_mutes_of_now(world: World, rules: str, answer: str, why: str) -> None:
    world.rule(EVERYTHING, rules)
    (told,) = world.try_out(to="Failed")["deliveries"]
    assert (told["answer"], told["why"]) == (answer, why)


def test_a_made_up_job_meets_the_silences_of_now_where_they_are_known(world: World) -> None:
    world.rule(EVERYTHING)
    world.silence()
    (told,) = world.try_out(tag="Transcode")["deliveries"]
    assert told["answer"] == "silenced"
    assert told["why"] == f"would be held by the silence sil_1 by ann (a deploy) until {after(hours(1))}"
    unknown = world.try_out(tag="Transcode", known=False)
    assert unknown["deliveries"][0]["answer"] == "at_once"
    assert unknown["notes"] == ["silences and paused notifiers are not known: there is no database"]


def test_a_made_up_job_says_what_its_rule_does_with_the_message(world: World) -> None:
    grouped = EVERYTHING.rstrip() + '\ngroup = { wait = "10m", max = 50 }\n'
    world.rule(grouped, EVERYTHING.replace('"everything"', '"throttled"').rstrip() + '\nthrottle = "10/5m"\n')
    assert [(one["answer"], one["why"]) for one in world.try_out(to="Failed")["deliveries"]] == [
        ("digest", f'would wait in the digest of "everything", told at {after(minutes(10))}, or as soon as it has 50'),
        ("at_once", "would be told at once, as long as its throttle is not used up (10 in 5 min)"),
    ]


def test_a_made_up_job_says_that_the_notifier_is_paused(world: World) -> None:
    world.rule(EVERYTHING)
    with world.db.write() as tx:
        outbox.pause(tx, "cms", "410 Gone", now=NOW)
    (told,) = world.try_out(to="Failed")["deliveries"]
    assert (told["answer"], told["why"]) == (
        "paused",
        f"would wait, as the notifier is paused since {after(minutes(0))}: 410 Gone",
    )


def test_a_made_up_job_is_stopped_by_the_same_rules_as_any_other(world: World) -> None:
    first = '[[rule]]\nname = "first"\nnotify = "cms"\n'
    world.rule(first, EVERYTHING.rstrip() + "\nstop = true\n", EVERYTHING.replace('"everything"', '"later"'))
    answers = {one["rule"]: one["answer"] for one in world.try_out(to="Failed")["deliveries"]}
    assert answers == {"first": "at_once", "everything": "already_told", "later": "stopped"}


def test_a_template_that_does_not_render_for_a_made_up_job_is_noted(world: World) -> None:
    template = '[template.short]\ntitle = "{{ job.outputs[0] | upper }} {{ 7 // job.outputs_total }}"\n'
    world.rule(EVERYTHING.rstrip() + '\ntemplate = "short"\n', template)
    facts = world.try_out(to="Failed")
    assert any('rule "everything": template "short"' in note for note in facts["notes"])


# --- for people ---------------------------------------------------------------------------------------------


def test_the_text_says_the_answer_first_and_lines_up_what_it_is_made_of(world: World) -> None:
    world.begin(EVERYTHING, ONLY_FAILED)
    world.sees(SUBMITTED, queue="p2", input="in/a.mp4")
    world.deliver()
    one = world.told()["id"]
    lines = {one["rule"]: one["line"] for one in world.last()["rules"]}
    assert as_text(world.last()).splitlines() == [
        f"Transcode j1: new -> Submitted (number 1, seen {after(seconds(30))}, watch vod)",
        '  "everything" tells cms: sent',
        f'    cms  "everything"  sent at {after(minutes(1))} ({one})',
        "    says: Transcode Submitted: a.mp4",
        "          seen for the first time",
        f'    yes  rule "everything" (line {lines["everything"]})  tells cms',
        f'    no   rule "failed" (line {lines["failed"]})      to: "Submitted" is not among Failed',
    ]


def test_the_text_leaves_most_rules_that_say_no_to_json(world: World) -> None:
    many = [ONLY_FAILED.replace('"failed"', f'"r{n}"') for n in range(30)]
    world.begin(*many, EVERYTHING)
    world.sees(SUBMITTED)
    text = as_text(world.last())
    assert '"r19"' in text
    assert '"r20"' not in text
    assert "... and 10 more that say no (--json has them all)" in text
    assert 'yes  rule "everything"' in text
    assert len(world.last()["rules"]) == 31


def test_a_long_message_is_cut_for_people(world: World) -> None:
    world.begin(EVERYTHING)
    world.sees(SUBMITTED, FAILED, message="\n".join(f"line {n}" for n in range(50)))
    assert "... and 40 lines more" in as_text(world.last())
    assert "line 10" not in as_text(world.last())


def test_many_transitions_and_many_rules_are_explained(world: World) -> None:
    many = [ONLY_FAILED.replace('"failed"', f'"r{n}"') for n in range(1_000)]
    world.begin(*many, EVERYTHING)
    world.sees(SUBMITTED, *([RUNNING, PAUSE] * 24), CANCEL)
    world.deliver()
    found = world.all()
    assert [len(one["rules"]) for one in found] == [1_001] * 50
    assert {one["headline"] for one in found} == {'"everything" tells cms: sent'}
