"""What /metrics says: of the present, and of what happened."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import event, update

from bridge.admin.metrics import MOST
from bridge.decide.rulesfile.read import read
from bridge.model import Hold, Reason, Rejected, RetryLater, Sent
from bridge.record import counters, rulesets
from bridge.record.counters import BOUNDS, MOST_KEPT, Count, timed
from bridge.record.outbox import digests, entries
from bridge.record.polling import leases
from bridge.record.schema import notifiers
from bridge.wiring import parts
from tests.support.admin_world import ENVIRON, NOON, RULES, World, a_book, a_failed_job, job_number

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
    assert found["ci_bridge_build_info"] == {("9.9.9",): 1}
    assert found["ci_bridge_config_info"] == {(world.book.sha,): 1}
    assert found["ci_bridge_config_last_reload_successful"] == {(): 1}
    for name in (
        "deliveries_pending", "delivery_oldest_pending_seconds", "deliveries_sending", "deliveries_dead",
        "notifier_failures",
    ):  # fmt: skip
        assert found[f"ci_bridge_{name}"] == {("cms",): 0, ("ops/1",): 0}
    assert set(found["ci_bridge_notifier_paused"].values()) == {0}
    assert found["ci_bridge_watch_failures"] == found["ci_bridge_watch_paused"] == {("ap-chongqing", "vod"): 0}
    assert found["ci_bridge_poll_interval_seconds"] == {("ap-chongqing", "vod"): 30}
    assert found["ci_bridge_lease_held"] == {("media-1250000000", ""): 0}
    assert "ci_bridge_poll_last_success_timestamp_seconds" not in found


def test_the_process_that_answers_says_what_it_uses(world: World) -> None:
    found = scrape(world)
    assert found["process_resident_memory_bytes"][()] > 1e6
    assert found["process_cpu_seconds_total"][()] > 0
    assert {"process_open_fds", "process_max_fds", "process_start_time_seconds"} <= found.keys()


def test_each_name_begins_with_that_of_the_program_or_of_its_process(world: World) -> None:
    assert {re.sub(r"^(ci_bridge|process)_.*", r"\1", name) for name in scrape(world)} == {"ci_bridge", "process"}


def test_unfinished_jobs_are_counted_by_state_and_tag(either_world: World) -> None:
    either_world.sees(job_number(1), job_number(2), job_number(3, tag=None, state="Pause"), a_failed_job(4))
    assert scrape(either_world)["ci_bridge_jobs"] == {("p224", "Running", "Transcode"): 2, ("p224", "Pause", ""): 1}


def test_deliveries_are_counted_by_notifier(either_world: World) -> None:
    either_world.sees(job_number(1), job_number(2))
    either_world.attempt(Rejected("no"), free=1)
    either_world.now += timedelta(seconds=75)
    either_world.sees(job_number(3))
    found = scrape(either_world)
    assert found["ci_bridge_deliveries_dead"][("cms",)] == 1
    assert found["ci_bridge_deliveries_pending"][("cms",)] == 2
    assert found["ci_bridge_delivery_oldest_pending_seconds"] == {("cms",): 75, ("ops/1",): 0}


def test_pauses_polls_and_heartbeats_are_shown(either_world: World) -> None:
    either_world.register("w7")
    either_world.polled()
    with either_world.db.write() as tx:
        entries.pause(tx, "cms", "the receiver answered 410 Gone: it wants no more deliveries", Reason.GONE, now=NOON)
        leases.acquire(tx, "media-1250000000", "w7", now=NOON)
    found = scrape(either_world)
    assert [labels for labels, value in found["ci_bridge_notifier_paused"].items() if value] == [("gone", "cms")]
    assert found["ci_bridge_notifier_failures"] == {("cms",): 0, ("ops/1",): 0}
    assert found["ci_bridge_poll_last_success_timestamp_seconds"] == {("ap-chongqing", "vod"): NOON.timestamp()}
    assert found["ci_bridge_worker_last_heartbeat_timestamp_seconds"] == {("worker", "w7"): NOON.timestamp()}
    assert found["ci_bridge_lease_held"] == {("media-1250000000", "w7"): 1}
    either_world.now += 2 * leases.BUCKET_LEASE
    assert scrape(either_world)["ci_bridge_lease_held"] == {("media-1250000000", ""): 0}


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
    assert [labels for labels, value in scrape(world)["ci_bridge_notifier_paused"].items() if value] == [(cause, "cms")]


def test_a_pause_by_a_version_that_gave_no_reason_has_another_cause(world: World) -> None:
    with world.db.write() as tx:
        tx.execute(update(notifiers).where(notifiers.c.name == "cms").values(paused_at=1, paused_why="answered 410"))
    assert [labels for labels, value in scrape(world)["ci_bridge_notifier_paused"].items() if value] == [
        ("other", "cms")
    ]


def test_wrong_rules_are_reported_whichever_process_read_them(world: World) -> None:
    world.register()
    world.beat(fault="rules.toml:1: wrong")
    assert scrape(world)["ci_bridge_config_last_reload_successful"] == {(): 0}
    world.beat()
    world.fault = "rules.toml:1: wrong"
    assert scrape(world)["ci_bridge_config_last_reload_successful"] == {(): 0}


def test_live_workers_with_other_rules_are_counted(world: World) -> None:
    world.register("w1")
    world.beat("w1")
    world.accepts(world.book)
    assert scrape(world)["ci_bridge_workers_other_rules"] == {(): 0}
    world.accepts(a_book(RULES + "# another"))
    world.now += timedelta(minutes=2)
    world.beat("w1")
    assert scrape(world)["ci_bridge_workers_other_rules"] == {(): 1}


# --- counters and histograms -----------------------------------------------------------------------------------------


_GATED = (
    RULES
    + """
[template.odd]
text = "{{ 1 / (1 if job.queue else 0) }}"
[[rule]]
name = "digest"
to = "Success"
notify = "cms"
template = "odd"
group.wait = "1h"
[[rule]]
name = "few"
to = "Cancel"
notify = "cms"
throttle = "1/h"
"""
)


def count(world: World, *counted: Count) -> None:
    with world.db.write() as tx:
        counters.add(tx, counted, now=world.now)


def test_all_that_the_rules_may_count_is_there_at_0(world: World) -> None:
    world.book = read(_GATED, ENVIRON)
    found = scrape(world)
    assert found["ci_bridge_rule_matches_total"] == {("all",): 0, ("digest",): 0, ("failed",): 0, ("few",): 0}
    reasons = {"silence", "mute", "group", "throttle", "flood", "fallback", "first_wins"}
    assert {reason for reason, rule in found["ci_bridge_suppressed_messages_total"] if rule == "all"} == reasons
    assert found["ci_bridge_template_errors_total"] == {("digest", "odd"): 0}
    assert found["ci_bridge_events_unmatched_total"] == {(): 0}
    outcomes = {"delivered", "dead", "merged", "dropped"}
    assert {outcome for name, outcome in found["ci_bridge_deliveries_total"] if name == "cms"} == outcomes
    assert len(found["ci_bridge_delivery_attempts_total"]) == 2 * 11
    assert found["ci_bridge_slack_retry_after_seconds_total"] == {("ops/1",): 0}
    kinds = {"ok", "auth", "clock", "throttled", "config", "temporary"}
    assert set(found["ci_bridge_polls_total"]) == {(kind, "ap-chongqing") for kind in kinds}
    assert found["ci_bridge_digests_open"] == {
        ("group", "digest"): 0, ("mute", ""): 0, ("silence", ""): 0, ("throttle", "few"): 0, ("flood", ""): 0,
        ("fallback", ""): 0,
    }  # fmt: skip
    assert found["ci_bridge_poll_duration_seconds_count"] == {(): 0}
    for name in ("detection_delay_seconds_count", "watch_transitions_total", "watch_calls_total"):
        assert found[f"ci_bridge_{name}"] == {("vod",): 0}
    assert found["ci_bridge_delivery_latency_seconds_count"] == {("cms",): 0, ("ops/1",): 0}


def test_what_happened_is_counted(either_world: World) -> None:
    either_world.sees(job_number(1), a_failed_job(2))
    either_world.attempt(Sent(), free=1)
    either_world.now += timedelta(minutes=1)
    either_world.attempt(RetryLater("answered 500"), free=1)
    either_world.now += timedelta(minutes=1)
    either_world.attempt(Rejected("no"))
    found = scrape(either_world)
    assert found["ci_bridge_rule_matches_total"] == {("all",): 1, ("failed",): 1}
    assert found["ci_bridge_rule_last_match_timestamp_seconds"][("all",)] == NOON.timestamp()
    changes = found["ci_bridge_transitions_total"]
    assert changes == {("new", "p224", "Transcode", "Failed"): 1, ("new", "p224", "Transcode", "Running"): 1}
    ended = {labels: value for labels, value in found["ci_bridge_deliveries_total"].items() if value}
    assert sum(ended.values()) == 2
    tried = found["ci_bridge_delivery_attempts_total"]
    assert sum(tried.values()) == 3
    assert sum(value for (_, reason), value in tried.items() if reason == "ok") == 1


def test_how_soon_each_watch_sees_changes_is_a_histogram_beside_its_calls(either_world: World) -> None:
    either_world.now += timedelta(seconds=2)
    either_world.sees(job_number(1, state="Submitted"), job_number(2, state="Cancel"))  # CI does not say when
    count(either_world, Count("call", ("vod",), times=6))
    found = scrape(either_world)
    assert found["ci_bridge_detection_delay_seconds_count"] == {("vod",): 1}
    assert found["ci_bridge_detection_delay_seconds_sum"] == {("vod",): 2}
    buckets = {le: value for (le, _), value in found["ci_bridge_detection_delay_seconds_bucket"].items()}
    assert (buckets["1.5"], buckets["2.0"], buckets["+Inf"]) == (0, 1, 1)
    assert found["ci_bridge_watch_transitions_total"] == {("vod",): 2}
    assert found["ci_bridge_watch_calls_total"] == {("vod",): 6}


def test_a_histogram_is_cumulative_and_has_its_sum(world: World) -> None:
    count(
        world,
        *(timed("delivery", ("cms", "delivered"), took) for took in (0.5, 0.6, 4.0, 100_000.0)),
        Count("delivery", ("cms", "dead")),
    )
    found = scrape(world)
    buckets = {
        le: value for (le, name), value in found["ci_bridge_delivery_latency_seconds_bucket"].items() if name == "cms"
    }
    assert len(buckets) == len(BOUNDS["delivery"]) + 1
    assert (buckets["0.5"], buckets["1.0"], buckets["2.5"], buckets["5.0"]) == (1, 2, 2, 3)
    assert (buckets["86400.0"], buckets["+Inf"]) == (3, 4)
    assert found["ci_bridge_delivery_latency_seconds_count"][("cms",)] == 4
    assert found["ci_bridge_delivery_latency_seconds_sum"][("cms",)] == pytest.approx(100_005.1)
    assert found["ci_bridge_deliveries_total"][("cms", "delivered")] == 4
    assert found["ci_bridge_deliveries_total"][("cms", "dead")] == 1


def test_what_was_not_timed_is_an_attempt_and_in_no_histogram(world: World) -> None:
    count(world, Count("attempt", ("cms", "lost"), counters.UNTIMED), timed("attempt", ("cms", "ok"), 0.2))
    found = scrape(world)
    assert found["ci_bridge_delivery_attempts_total"][("cms", "lost")] == 1
    assert found["ci_bridge_delivery_attempt_duration_seconds_count"][("cms",)] == 1


def test_of_very_many_queues_the_rest_is_other_and_nothing_is_lost(world: World) -> None:
    names = [("Transcode", f"p{k}", "new", "Running") for k in range(2_000)]
    count(world, *(Count("transition", labels, times=1 + (k < 100)) for k, labels in enumerate(names)))
    count(world, *(timed("job_wait", (f"p{k}",), 10.0) for k in range(2_000)))
    world.sees(*(job_number(k, queue=f"p{k}", state="Pause") for k in range(1_100)))
    found = scrape(world)
    changes = found["ci_bridge_transitions_total"]
    assert len(changes) == MOST + 1
    assert sum(changes.values()) == 2_100 + 1_100
    assert changes["other", "other", "other", "other"] > 1_000
    assert changes["new", "p7", "Transcode", "Running"] == 2  # the largest stay
    assert len(found["ci_bridge_job_wait_seconds_count"]) == MOST + 1
    assert sum(found["ci_bridge_job_wait_seconds_count"].values()) == 2_000
    assert found["ci_bridge_job_wait_seconds_sum"][("other",)] == 10 * (2_000 - MOST)
    assert len(found["ci_bridge_jobs"]) == MOST + 1
    assert sum(found["ci_bridge_jobs"].values()) == 1_100


def test_no_counter_falls_when_what_was_rare_is_so_no_more(world: World) -> None:
    names = [("Transcode", f"p{k}", "new", "Running") for k in range(2 * MOST_KEPT)]
    count(world, *(Count("transition", labels, times=10) for labels in names))
    before = scrape(world)["ci_bridge_transitions_total"]
    count(world, *(Count("transition", labels, times=2) for labels in names[-5:]))
    after = scrape(world)["ci_bridge_transitions_total"]
    assert [labels for labels, value in before.items() if after.get(labels, 0) < value] == []
    assert sum(after.values()) == sum(before.values()) + 10


def test_a_thousand_rules_are_all_there(world: World) -> None:
    rules = "".join(f'[[rule]]\nname = "r{k}"\nto = "Failed"\nnotify = "cms"\n' for k in range(MOST + 100))
    world.book = read(RULES + rules, ENVIRON)
    count(world, Count("match", ("of old",)))
    matches = scrape(world)["ci_bridge_rule_matches_total"]
    assert len(matches) == MOST + 100 + 2 + 1
    assert matches[("of old",)] == 1


def test_open_incidents_are_counted_by_rule(either_world: World) -> None:
    sick = '[[rule]]\nname = "sick"\nto = "Failed"\ncount = ">= 3"\nwithin = "10m"\nnotify = "cms"\n'
    either_world.book = a_book(RULES + sick)
    assert scrape(either_world)["ci_bridge_incidents_open"] == {("sick",): 0}
    for key in ("k1", "k2"):
        either_world.incident("j1", rule="sick", key=key)
    assert scrape(either_world)["ci_bridge_incidents_open"] == {("sick",): 2}


def test_digests_that_wait_are_counted_by_rule_and_of_silences_in_all(either_world: World) -> None:
    def hold(gate: str, name: str) -> Hold:
        return Hold(gate=gate, name=name, until=NOON + timedelta(hours=1))  # type: ignore[arg-type]  # one of them

    with either_world.db.write() as tx:
        for gate, name, notifiers in (
            ("group", "all", "cms"), ("group", "all", "ops/1"), ("silence", "sil_1", "cms"),
            ("silence", "sil_2", "cms"), ("mute", "night", "cms"), ("flood", "C1", "ops/1"),
            ("fallback", "cms", "ops/1"),
        ):  # fmt: skip
            digests.add_members(tx, hold(gate, name), notifiers, 3, now=NOON)
    found = scrape(either_world)["ci_bridge_digests_open"]
    assert found == {
        ("group", "all"): 2, ("silence", ""): 2, ("mute", ""): 1, ("flood", ""): 1, ("fallback", ""): 1
    }  # fmt: skip
    either_world.now += timedelta(hours=1)
    with either_world.db.write() as tx:
        for n in digests.due(tx, now=either_world.now):
            digests.end(tx, n, now=either_world.now)
    assert set(scrape(either_world)["ci_bridge_digests_open"].values()) == {0}


def test_no_label_names_a_job_an_object_or_an_address(world: World) -> None:
    world.sees(job_number(1), a_failed_job(2))
    world.attempt(Rejected("no"))
    text = world.client().get("/metrics").text
    for hidden in ("j1", "j2", "uploads/a.mp4", "cms.example.com", "path-is-secret"):
        assert hidden not in text


def test_when_rules_were_last_taken_is_known_to_every_process(world: World) -> None:
    assert "ci_bridge_config_last_reload_success_timestamp_seconds" not in scrape(world)
    with world.db.write() as tx:
        rulesets.store(tx, world.book.sha, "{}", now=NOON)
    assert scrape(world)["ci_bridge_config_last_reload_success_timestamp_seconds"] == {(): NOON.timestamp()}


def test_a_scrape_reads_no_job_and_no_delivery_that_has_ended(world: World) -> None:
    asked: list[tuple[str, object]] = []
    event.listen(world.db.engine, "before_cursor_execute", lambda *one: asked.append((one[2], one[3])))
    scrape(world)
    selects = [said for said in asked if said[0].startswith("SELECT")]
    with world.db.read() as tx:
        plans = [row[3] for said in selects for row in tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {said[0]}", said[1])]
    # An index of these has only rows that are not over: unfinished, waiting, being sent, dead letters.
    few = ("job_open", "delivery_due", "delivery_sending", "delivery_dead", "delivery_digest")
    reads = [plan for plan in plans if re.search(r"\b(job|transition|delivery|message|attempt|alarm)\b", plan)]
    assert len(reads) >= 5
    assert [plan for plan in reads if not any(f" {index}" in plan for index in few)] == []
    assert not [plan for plan in plans if "SCAN tally" in plan]


def test_a_pick_that_leads_to_nobody_counts_dead_letters(world: World) -> None:
    pick = '[notifier.customer]\npick = "{{ job.user_data.customer }}"\n[notifier.customer.to.acme]\ntype = "webhook"\n'
    rule = 'url = "https://acme.example.com"\n[[rule]]\nname = "customers"\nnotify = "customer"\n'
    world.book = a_book(RULES + pick + rule)
    parts.sync(world.db, world.book, clock=lambda: world.now)
    assert scrape(world)["ci_bridge_deliveries_total"]["customer", "dead"] == 0
    world.sees(job_number(1, user_data="customer=foo"), job_number(2, user_data="customer=acme"))
    found = scrape(world)
    assert found["ci_bridge_deliveries_total"]["customer", "dead"] == 1
    assert found["ci_bridge_deliveries_dead"]["customer",] == 1
    assert found["ci_bridge_deliveries_pending"]["customer.acme",] == 1
    assert ("customer.foo",) not in found["ci_bridge_deliveries_dead"]
