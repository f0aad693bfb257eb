"""One list of what is not as it should be, for overview, /readyz, /metrics and doctor alike."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from bridge.model import JobProblem, Rejected, RetryLater, Sent
from bridge.record.outbox import entries
from bridge.record.polling import leases
from bridge.record.schema import notifiers
from tests.admin.pages.conftest import signed_in
from tests.admin.pages.reading import text_of
from tests.support.admin_world import RULES, World, a_book, job_number
from tests.support.nouns import by_hand

DIED = timedelta(hours=24)


def healthy(world: World) -> None:
    world.accepts(world.book)
    world.register()
    world.beat()
    world.polled()


def is_dead(world: World) -> None:
    """Nobody listens at a receiver; the last attempt at it was the tenth in vain."""
    world.sees(job_number(1), job_number(2))
    world.attempt(RetryLater("could not connect to cms.example.com:8443: connection refused"))
    with world.db.write() as tx:
        tx.execute(update(notifiers).where(notifiers.c.name == "cms").values(failures=10))


def answers_with_errors(world: World) -> None:
    world.sees(job_number(1))
    world.attempt(RetryLater("answered 500 Internal Server Error"))


def is_paused(world: World) -> None:
    world.sees(job_number(1))
    with world.db.write() as tx:
        entries.pause(tx, "cms", "the receiver answered 410 Gone", now=world.now)


def is_paused_by_hand(world: World) -> None:
    world.sees(job_number(1))
    by_hand(world.db, now=world.now).pause_notifier(world.book, "cms", "moved")


def is_late(world: World) -> None:
    world.sees(job_number(1))
    world.now += timedelta(minutes=6)
    world.beat()
    world.polled()


def asks_for_time(world: World) -> None:
    is_late(world)
    with world.db.write() as tx:
        entries.postpone_notifier(tx, "cms", world.now + timedelta(hours=1))


def died(world: World) -> None:
    world.sees(job_number(1))
    world.attempt(Rejected("address 127.0.0.1 is forbidden"))


def fails(world: World) -> None:
    world.now += timedelta(seconds=30)
    world.polled(error="Snapshot: ci.example.com refused: no such tag (InvalidArgument, HTTP 400)")


def is_overdue(world: World) -> None:
    world.now += timedelta(minutes=3)
    world.beat()
    world.polled(error="could not connect to CI", answered=0)


def fails_in_part_for_long(world: World) -> None:
    world.now += timedelta(minutes=3)
    world.beat()
    fails(world)


def rests(world: World) -> None:
    with world.db.write() as tx:
        leases.set_watch(tx, "vod", paused=True)


def stops(world: World) -> None:
    world.now += timedelta(seconds=61)
    world.polled()


def ends(world: World) -> None:
    with world.db.write() as tx:
        leases.unregister(tx, "w1")


def leaves_others(world: World) -> None:
    world.register("w2")
    stops(world)
    world.beat("w2")


def doubts_its_clock(world: World) -> None:
    fault = "CI's Date is 2 h ahead of our clock"
    with world.db.write() as tx:
        leases.beat(tx, "w1", now=world.now, rules_sha=world.book.sha, rules_fault=None, clock_fault=fault)


def has_other_rules(world: World) -> None:
    world.accepts(a_book(RULES + "# another"))
    world.now += timedelta(minutes=2)
    healthy_again(world)


def healthy_again(world: World) -> None:
    world.beat()
    world.polled()


def has_wrong_rules(world: World) -> None:
    world.beat(fault='rules.toml:3: "xoxb-hush-hush" is not ...')


def cannot_read(world: World) -> None:
    world.cannot_read(JobProblem(job_id="j1", field="EndTime", value="yesterday"))


# What happens, whether the bridge is ready all the same, who it is about, what is said of it, and the last error.
CASES = [
    (is_dead, True, "notifier cms", "does not answer, 2 messages wait", "could not connect to cms.example.com:8443"),
    (answers_with_errors, True, "notifier cms", "answers with errors, 1 message to be tried again", "answered 500"),
    (is_paused_by_hand, True, "notifier cms", "is paused by ann, 1 message waits", "by ann: moved; it stays so until"),
    (is_paused, True, "notifier cms", "is paused, 1 message waits", "the receiver answered 410 Gone"),
    (is_late, True, "notifier cms", "is late, 1 message waits", "its channel's limit"),
    (asks_for_time, True, "notifier cms", "is late, 1 message waits", "wait until 2026-11-21 13:06:00 UTC"),
    (died, True, "notifier cms", "has 1 new dead letter (last 24 h)", "is forbidden"),
    (fails, True, "watch vod", "was polled only in part", "Snapshot: ci.example.com refused: no such tag"),
    (is_overdue, False, "watch vod", "is overdue", "could not connect to CI"),
    (fails_in_part_for_long, True, "watch vod", "was polled only in part", "Snapshot: ci.example.com refused"),
    (rests, True, "watch vod", "is paused, so nobody is notified of its jobs", None),
    (
        stops,
        False,
        "worker w1",
        "does not respond, and no other is running, so nothing is polled or sent",
        "it was stopped, or cannot",
    ),
    (ends, False, None, "no worker is running: start `ci-bridge worker`, or `run`", None),
    (leaves_others, True, "worker w1", "does not respond", "it was stopped, or cannot"),
    (
        doubts_its_clock,
        True,
        None,
        "pruning and dead-lettering are suspended: CI's Date is 2 h ahead of our clock",
        None,
    ),
    (has_other_rules, True, None, "1 of 1 live workers have other rules", None),
    (has_wrong_rules, True, None, "rules.toml has errors; the old rules stay in force; the log says why", None),
    (cannot_read, True, None, "0 jobs left out, 1 job with an unreadable field", None),
]


def readiness(world: World, token: str | None) -> tuple[int, Any]:
    answer = world.client(token).get("/readyz")
    return answer.status_code, answer.get_json()


def test_all_is_well_where_nothing_is_wrong(world: World) -> None:
    healthy(world)
    world.sees(job_number(1))
    world.attempt(Sent())
    assert "All is well" in signed_in(world).get("/").text
    assert readiness(world, "read-token-of-the-tests")[1]["reasons"] == []
    assert counted(world.client().get("/metrics").text) == 0


@pytest.mark.parametrize(("happens", "ready", "who", "what", "why"), CASES, ids=[case[0].__name__ for case in CASES])
def test_warnings_have_their_reason_and_strangers_see_only_their_kind(
    world: World, happens: Callable[[World], None], ready: bool, who: str | None, what: str, why: str | None
) -> None:
    healthy(world)
    app = world.app()  # which has served these rules since before
    happens(world)
    overview = signed_in(world, app=app).get("/").text
    heading = re.search("<h1>(.*)</h1>", overview)
    assert heading
    assert what.replace("'", "&#39;") in heading[1]
    assert (who or "") in heading[1]
    assert (why or "") in text_of(overview)
    assert not re.search(r"\bwell\b|everybody can be told", overview)

    token = {"Authorization": "Bearer read-token-of-the-tests"}
    answer = app.test_client().get("/readyz", headers=token)
    facts = answer.get_json()
    assert (answer.status_code, facts["status"]) == ((200, "ready") if ready else (503, "not ready"))
    worst = facts["reasons"][0]
    assert worst["who"] == who
    assert what in worst["what"]
    assert bool(worst["why"]) is bool(why)
    assert facts["warnings"] == len(facts["reasons"]) == counted(app.test_client().get("/metrics", headers=token).text)
    assert "hush" not in f"{overview} {facts}"

    told = app.test_client().get("/readyz").get_json()
    assert (told["status"], told["warnings"], told["reasons"]) == (facts["status"], facts["warnings"], None)
    assert any(not check["ok"] or check["detail"].startswith("warning: ") for check in told["checks"])
    assert not re.search(r"\b(cms|vod|w1)\b", str(told))
    assert not why or why not in str(told)


def counted(scraped: str) -> float:
    return sum(float(value) for value in re.findall(r"^ci_bridge_warnings{.*} (.*)$", scraped, re.MULTILINE))


@pytest.mark.parametrize("token", ["wrong", ""])
def test_a_wrong_token_makes_a_stranger(world: World, token: str) -> None:
    healthy(world)
    died(world)
    status, facts = readiness(world, token)
    assert (status, facts["warnings"], facts["reasons"]) == (200, 1, None)


def test_the_worst_is_named_first_and_the_others_are_counted(world: World) -> None:
    healthy(world)
    world.sees(job_number(9))
    world.attempt(Rejected("no"))
    is_dead(world)
    fails(world)
    assert "was polled only in part, and 2 more warnings" in signed_in(world).get("/").text
    stops(world)
    _, facts = readiness(world, "read-token-of-the-tests")
    assert [one["what"].partition(",")[0] for one in facts["reasons"]] == [
        "does not respond", "does not answer", "has 1 new dead letter (last 24 h)",
    ]  # fmt: skip


def test_dead_letters_are_a_warning_for_a_day_or_until_they_are_resent(either_world: World) -> None:
    healthy(either_world)
    died(either_world)
    either_world.now += DIED
    healthy_again(either_world)
    assert readiness(either_world, None)[1]["warnings"] == 1
    either_world.now += timedelta(seconds=1)
    healthy_again(either_world)
    assert readiness(either_world, None)[1]["warnings"] == 0


def test_a_resent_delivery_is_late_from_when_it_was_resent(world: World) -> None:
    healthy(world)
    lost = world.delivery_of(1)
    world.attempt(Rejected("no"))
    world.now += timedelta(hours=20)
    healthy_again(world)
    assert world.client().post(f"/api/v1/deliveries/{lost}/redrive").status_code == 202
    assert readiness(world, None)[1]["warnings"] == 0
    world.now += timedelta(minutes=6)
    healthy_again(world)
    (reason,) = readiness(world, "read-token-of-the-tests")[1]["reasons"]
    assert (reason["what"], reason["since"]) == ("is late, 1 message waits", "2026-11-22T08:00:00.000Z")


def test_the_error_of_what_was_given_up_is_that_of_the_last_attempt(world: World) -> None:
    healthy(world)
    world.sees(job_number(1))
    world.attempt(RetryLater("could not connect: connection refused"))
    (reason,) = readiness(world, "read-token-of-the-tests")[1]["reasons"]
    assert (reason["what"], reason["why"]) == (
        "answers with errors, 1 message to be tried again", "could not connect: connection refused"
    )  # fmt: skip
    world.now += timedelta(minutes=1)
    world.give_up("its retry time is over, and cms answers nobody")
    healthy_again(world)
    (reason,) = readiness(world, "read-token-of-the-tests")[1]["reasons"]
    assert reason["why"] == "could not connect: connection refused"


def test_what_waits_for_a_notifier_that_was_taken_out_of_the_rules_is_named(world: World) -> None:
    healthy(world)
    world.sees(job_number(1))
    world.book = a_book(
        RULES.replace("[notifier.cms]", "[notifier.other]").replace('notify = "cms"', 'notify = "other"')
    )
    reasons = readiness(world, "read-token-of-the-tests")[1]["reasons"]
    assert "notifier cms" in [one["who"] for one in reasons]
    assert "is no longer defined in rules.toml" in str(reasons)


def test_the_list_of_notifiers_and_that_of_watches_call_nothing_ok_that_is_not(world: World) -> None:
    healthy(world)
    answers_with_errors(world)
    stops(world)
    world.now += timedelta(minutes=5)
    admin = signed_in(world)
    assert "answers with errors" in admin.get("/notifiers").text
    watches = admin.get("/watches").text
    assert "is overdue" in watches
    assert ">ok<" not in watches
