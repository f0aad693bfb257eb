"""Names and states of queues: asked for every hour, shown in messages, and never in the way of a poll."""

from __future__ import annotations

import logging

import pytest

from bridge.collect.errors import AuthError, TemporaryError
from bridge.model import PAUSED, Queue
from bridge.record.database import Database
from bridge.record.polling import leases, queues
from bridge.record.polling.queues import PausedQueue
from bridge.record.schema import leases as lease_table
from tests.conftest import on_both
from tests.support.nouns import by_hand, minutes
from tests.support.records import rows
from tests.support.rig import STUCK, Rig

NAMED = Queue(id="p9", name="queue-9", state="Active")
ALL = '[[rule]]\nname = "all"\nnotify = "ops"\n'
DENIED = AuthError("refused: Access Denied.", code="AccessDenied")


@pytest.fixture
def rig(db: Database) -> Rig:
    """A rig that has not polled yet."""
    return Rig(db)


def names(rig: Rig) -> dict[str, str]:
    with rig.db.read() as tx:
        return queues.names(tx)


def queue_names(rig: Rig) -> list[object]:
    return [message.event["data"]["job"]["queue_name"] for message in rig.received()]


@on_both
def test_queues_are_asked_for_after_a_poll_and_again_every_hour(rig: Rig) -> None:
    rig.ci.queues_known = (NAMED, Queue(id="p8", name="", state=PAUSED))
    rig.poll()
    assert names(rig) == {"p9": "queue-9"}
    with rig.db.read() as tx:
        assert queues.paused(tx, now=rig.clock()) == [PausedQueue("clips-1250000000", "p8", "")]
    for _ in range(11):
        rig.clock.advance(minutes(5))
        rig.poll()
    assert rig.ci.queues_asked == 1
    rig.ci.queues_known = (Queue(id="p7", name="queue-7", state="Active"),)
    rig.clock.advance(minutes(5))
    rig.poll()
    assert rig.ci.queues_asked == 2
    assert names(rig) == {"p7": "queue-7"}
    assert rows(rig.db, lease_table)[0]["token"] is None


@on_both
def test_messages_have_ci_s_name_of_a_queue_that_has_no_alias(rig: Rig) -> None:
    rig.ci.queues_known = (NAMED, Queue(id="p1", name="queue-1", state="Active"))
    rig.start(ALL + STUCK)
    rig.first_poll()
    rig.sees("j1", queue="p9", state="Running")
    rig.sees("j2", queue="p1")
    rig.sees("j3", queue="p0")
    rig.sees("j4", queue=None)
    rig.passes(minutes(35))
    # [alias.queue] has vod for p1; the last is of the level rule.
    assert queue_names(rig) == ["queue-9", "vod", None, None, "queue-9"]


def test_only_an_alias_matches_in_rules(rig: Rig) -> None:
    rig.ci.queues_known = (NAMED,)
    rig.start(ALL + 'match.queue = "queue-9"\n')
    rig.first_poll()
    rig.sees("j1", queue="p9")
    assert rig.received() == []


def test_a_message_that_a_person_sends_and_a_digest_have_the_name_too(rig: Rig) -> None:
    rig.ci.queues_known = (NAMED,)
    rig.start(ALL + 'group = { by = ["queue"], wait = "5m" }\n')
    rig.first_poll()
    rig.sees("j1", queue="p9")
    by_hand(rig.db, now=rig.clock()).notify(rig.book, job_id="j1", notifier="cms")
    rig.passes(minutes(6))
    manual, digest = sorted(rig.received(), key=lambda message: message.notifier)
    assert manual.event["data"]["job"]["queue_name"] == "queue-9"
    assert "queue-9" in f"{digest.title} {digest.text} {digest.event}"


@pytest.mark.parametrize("error", [DENIED, TemporaryError("no answer in time")])
def test_a_ci_that_does_not_tell_costs_the_names_only_and_is_asked_again_in_an_hour(
    rig: Rig, error: AuthError | TemporaryError, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rig.ci.queues_known = (NAMED,)
    rig.poll()
    rig.ci.refuses["queues"] = error
    for _ in range(36):
        rig.clock.advance(minutes(5))
        result = rig.poll()
        assert result.error is None
    assert rig.ci.queues_asked == 4
    assert names(rig) == {"p9": "queue-9"}  # as they were
    assert [record.reason for record in caplog.records if "names of queues" in record.message] == [str(error)]  # type: ignore[attr-defined]
    (lease,) = rows(rig.db, lease_table)
    assert (lease["queues_error"], lease["token"]) == (str(error), None)
    del rig.ci.refuses["queues"]
    rig.clock.advance(minutes(60))
    rig.poll()
    assert rows(rig.db, lease_table)[0]["queues_error"] is None


def test_while_polls_fail_no_queue_is_asked_for(rig: Rig) -> None:
    rig.ci.refuses["Transcode"] = TemporaryError("away")
    rig.poll()
    assert rig.ci.queues_asked == 0


def test_a_state_that_ci_has_not_confirmed_for_hours_is_not_shown(rig: Rig) -> None:
    rig.ci.queues_known = (Queue(id="p8", name="queue-8", state=PAUSED),)
    rig.poll()
    for hours, shown in ((2, 1), (1, 0)):
        rig.clock.advance(minutes(60 * hours))
        with rig.db.read() as tx:
            assert len(queues.paused(tx, now=rig.clock())) == shown


def test_a_worker_that_lost_the_bucket_meanwhile_stores_nothing(rig: Rig) -> None:
    rig.ci.queues_known = (NAMED,)

    class Slow(type(rig.ci)):  # type: ignore[misc]  # the fake of this rig
        def queues(self, place: object) -> tuple[Queue, ...]:
            rig.clock.advance(minutes(2))
            with rig.db.write() as tx:
                assert leases.acquire(tx, "clips-1250000000", "other", now=rig.clock())
            return (NAMED,)

    poller = rig.new_poller(source=Slow(rig.clock))
    result = poller.poll_once(rig.book.watches[0], rig.book)
    assert result is not None
    assert result.error is None
    assert names(rig) == {}


def test_names_are_stored_as_they_are_but_for_what_no_database_takes(rig: Rig) -> None:
    odd = "<b>\u202e'\"; DROP TABLE queue; --"
    rig.ci.queues_known = (Queue(id="p9", name=f"{odd}\0\ud800", state="Active"),)
    rig.poll()
    assert names(rig) == {"p9": f"{odd}?"}
