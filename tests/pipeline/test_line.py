from __future__ import annotations

from bridge.model import Attempt, Delivery, Outcome, RetryLater, Sent
from bridge.pipeline.dispatch import Prefetch
from tests.support.records import NOW

LATER_S = 30.0


def a_delivery(id_: str) -> Delivery:
    return Delivery(
        n=1,
        id=id_,
        notifier="cms",
        attempts=1,
        lease="w.1",
        happened_at=NOW,
        event="{}",
        says="{}",
    )


def prefetch(*ids: str) -> Prefetch:
    found = Prefetch()
    found.add([a_delivery(id_) for id_ in ids], lease_until_s=LATER_S)
    return found


def ids(found: Prefetch, *, limit: int = 2, after_s: float = 0) -> tuple[list[str], list[str]]:
    begin, stale = found.ready({"cms": limit}, now_s=after_s)
    return [one.id for one in begin], [one.id for one in stale]


def ended(found: Prefetch, outcome: Outcome, *, took_s: float = 0.1) -> None:
    found.ended(Attempt(delivery=a_delivery("d"), outcome=outcome, started_at=NOW, seconds=took_s))


def test_no_more_of_a_notifier_are_let_go_than_may_be_in_flight() -> None:
    found = prefetch("d1", "d2", "d3")
    assert ids(found) == (["d1", "d2"], [])
    assert ids(found) == ([], [])
    ended(found, Sent())
    assert ids(found) == (["d3"], [])
    assert len(found) == 0


def test_who_has_waited_too_long_for_an_attempt_under_its_lease_is_handed_back() -> None:
    found = prefetch("d1")
    assert ids(found, limit=0, after_s=12) == ([], [])
    assert ids(found, after_s=14) == ([], ["d1"])
    assert len(found) == 0


def test_a_receiver_that_accepted_quickly_has_a_line_until_it_is_slow_or_fails() -> None:
    found = prefetch()
    ended(found, Sent())
    assert found.quick == {"cms"}
    ended(found, Sent(), took_s=2)
    assert found.quick == set()
    ended(found, Sent())
    ended(found, RetryLater("503"))
    assert found.quick == set()


def test_of_a_receiver_that_fails_nobody_waits_on() -> None:
    found = prefetch("d1", "d2", "d3")
    assert ids(found) == (["d1", "d2"], [])
    failed = Attempt(
        delivery=a_delivery("d1"), outcome=RetryLater("429", whole_notifier=True), started_at=NOW, seconds=0.1
    )
    assert [one.id for one in found.ended(failed)] == ["d3"]
    assert ids(found) == ([], [])


def test_all_who_wait_can_leave() -> None:
    found = prefetch("d1", "d2")
    assert [one.id for one in found.leave()] == ["d1", "d2"]
    assert len(found) == 0
