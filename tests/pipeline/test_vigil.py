from __future__ import annotations

from bridge.pipeline.housekeeping import LeaseWatcher

CLAIM, OTHER = (1, "w1.1"), (2, "w1.2")


def watched(lease_watcher: LeaseWatcher, from_s: int, to_s: int, *held: tuple[int, str]) -> list[tuple[int, str]]:
    """Look every five seconds; return what was over at the last look."""
    over: list[tuple[int, str]] = []
    for now_s in range(from_s, to_s + 1, 5):
        over = lease_watcher.over(held, now_s)
    return over


def test_a_claim_is_over_when_it_was_seen_for_longer_than_a_lease() -> None:
    lease_watcher = LeaseWatcher(30)
    assert watched(lease_watcher, 1000, 1030, CLAIM) == []
    assert lease_watcher.over([CLAIM], 1035) == [CLAIM]


def test_the_same_delivery_under_another_lease_is_another_claim() -> None:
    lease_watcher = LeaseWatcher(30)
    watched(lease_watcher, 0, 30, CLAIM)
    assert lease_watcher.over([(1, "w2.1")], 35) == []


def test_a_claim_that_was_gone_meanwhile_counts_anew() -> None:
    lease_watcher = LeaseWatcher(30)
    watched(lease_watcher, 0, 30, CLAIM)
    lease_watcher.over([OTHER], 35)
    assert watched(lease_watcher, 40, 65, CLAIM) == []


def test_a_process_that_was_stopped_itself_does_not_take_that_for_watching() -> None:
    lease_watcher = LeaseWatcher(30)
    watched(lease_watcher, 0, 10, CLAIM)
    assert lease_watcher.over([CLAIM], 3600) == []


def test_forgetting_begins_anew() -> None:
    lease_watcher = LeaseWatcher(30)
    watched(lease_watcher, 0, 30, CLAIM)
    lease_watcher.forget()
    assert lease_watcher.over([CLAIM], 35) == []
    assert watched(lease_watcher, 40, 65, CLAIM) == []
    assert lease_watcher.over([CLAIM], 70) == [CLAIM]


def test_a_claim_that_other_evidence_speaks_against_is_over_sooner() -> None:
    lease_watcher = LeaseWatcher(30)
    for now_s in range(0, 16, 5):
        assert lease_watcher.over([CLAIM, OTHER], now_s, sooner={CLAIM}, sooner_s=16) == []
    assert lease_watcher.over([CLAIM, OTHER], 20, sooner={CLAIM}, sooner_s=16) == [CLAIM]
