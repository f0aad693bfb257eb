from datetime import timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update

from bridge.model import Reason, Rejected
from bridge.record.outbox import entries
from bridge.record.polling import leases
from bridge.record.queries.gauges import OPEN_JOBS
from bridge.record.schema import notifier
from tests.support.admin_world import NOON, RULES, World, a_book, a_failed_job, job_number

Samples = dict[tuple[str, ...], float]


def scrape(world: World) -> dict[str, Samples]:
    answer = world.client("read-token-of-the-tests").get("/metrics")
    assert answer.status_code == 200
    assert answer.content_type.startswith("text/plain")
    found: dict[str, Samples] = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.documentation
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_every_name_is_there_before_anything_happened(world: World) -> None:
    found = scrape(world)
    assert found["bridge_build_info"] == {("9.9.9",): 1}
    assert found["bridge_config_info"] == {(world.book.sha,): 1}
    assert found["bridge_config_last_reload_successful"] == {(): 1}
    for name in (
        "deliveries_pending", "delivery_oldest_pending_seconds", "deliveries_sending", "deliveries_dead",
        "notifier_failures",
    ):  # fmt: skip
        assert found[f"bridge_{name}"] == {("cms",): 0, ("ops/1",): 0}
    assert set(found["bridge_notifier_paused"].values()) == {0}
    assert found["bridge_watch_failures"] == found["bridge_watch_paused"] == {("ap-chongqing", "vod"): 0}
    assert found["bridge_poll_interval_seconds"] == {("ap-chongqing", "vod"): 30}
    assert found["bridge_lease_held"] == {("media-1250000000", ""): 0}
    assert "bridge_poll_last_success_timestamp_seconds" not in found


def test_unfinished_jobs_are_counted_by_state_and_tag(either_world: World) -> None:
    either_world.sees(job_number(1), job_number(2), job_number(3, tag=None, state="Pause"), a_failed_job(4))
    assert scrape(either_world)["bridge_jobs"] == {("p224", "Running", "Transcode"): 2, ("p224", "Pause", ""): 1}


def test_deliveries_are_counted_by_notifier(either_world: World) -> None:
    either_world.sees(job_number(1), job_number(2))
    either_world.attempt(Rejected("no"), free=1)
    either_world.now += timedelta(seconds=75)
    either_world.sees(job_number(3))
    found = scrape(either_world)
    assert found["bridge_deliveries_dead"][("cms",)] == 1
    assert found["bridge_deliveries_pending"][("cms",)] == 2
    assert found["bridge_delivery_oldest_pending_seconds"] == {("cms",): 75, ("ops/1",): 0}


def test_pauses_polls_and_heartbeats_are_shown(either_world: World) -> None:
    either_world.enlist("w7")
    either_world.polled()
    with either_world.db.write() as tx:
        entries.pause(tx, "cms", "the receiver answered 410 Gone: it wants no more deliveries", Reason.GONE, now=NOON)
        leases.acquire(tx, "media-1250000000", "w7", now=NOON)
    found = scrape(either_world)
    assert [labels for labels, value in found["bridge_notifier_paused"].items() if value] == [("gone", "cms")]
    assert found["bridge_notifier_failures"] == {("cms",): 0, ("ops/1",): 0}
    assert found["bridge_poll_last_success_timestamp_seconds"] == {("ap-chongqing", "vod"): NOON.timestamp()}
    assert found["bridge_worker_last_heartbeat_timestamp_seconds"] == {("worker", "w7"): NOON.timestamp()}
    assert found["bridge_lease_held"] == {("media-1250000000", "w7"): 1}
    either_world.now += 2 * leases.LEASE
    assert scrape(either_world)["bridge_lease_held"] == {("media-1250000000", ""): 0}


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        (Reason.AUTH, "auth"), (Reason.CHANNEL, "channel"), (Reason.GONE, "gone"), (Reason.CLIENT_ERROR, "other"),
        (Reason.OTHER, "other"),
    ],
)  # fmt: skip
def test_a_pause_has_a_cause(world: World, reason: Reason, cause: str) -> None:
    with world.db.write() as tx:
        entries.pause(tx, "cms", "a sentence that nothing is read off", reason, now=NOON)
    assert [labels for labels, value in scrape(world)["bridge_notifier_paused"].items() if value] == [(cause, "cms")]


def test_a_pause_by_a_version_that_gave_no_reason_has_another_cause(world: World) -> None:
    with world.db.write() as tx:
        tx.execute(update(notifier).where(notifier.c.name == "cms").values(paused_at=1, paused_why="answered 410"))
    assert [labels for labels, value in scrape(world)["bridge_notifier_paused"].items() if value] == [("other", "cms")]


def test_wrong_rules_are_told_whichever_process_saw_them(world: World) -> None:
    world.enlist()
    world.beat(fault="rules.toml:1: wrong")
    assert scrape(world)["bridge_config_last_reload_successful"] == {(): 0}
    world.beat()
    world.fault = "rules.toml:1: wrong"
    assert scrape(world)["bridge_config_last_reload_successful"] == {(): 0}


def test_counting_unfinished_jobs_does_not_read_the_finished_ones(world: World) -> None:
    with world.db.read() as tx:
        asked = str(OPEN_JOBS.compile(dialect=tx.dialect))
        plan = str(tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {asked}").all())
    assert "job_open" in plan


def test_live_workers_with_other_rules_are_counted(world: World) -> None:
    world.enlist("w1")
    world.beat("w1")
    world.accepts(world.book)
    assert scrape(world)["bridge_workers_other_rules"] == {(): 0}
    world.accepts(a_book(RULES + "# another"))
    world.now += timedelta(minutes=2)
    world.beat("w1")
    assert scrape(world)["bridge_workers_other_rules"] == {(): 1}
