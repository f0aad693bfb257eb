"""Bad days over real sockets: a clear message, nothing accepted lost, and the next good answer carries on."""

from __future__ import annotations

import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from sqlalchemy import event

from bridge import settings as environment
from bridge.decide.messages.build import delivery_to
from bridge.decide.messages.build import test_message as a_test_message
from bridge.decide.retries import BREAKER_THRESHOLD
from bridge.pipeline.poll import PollResult
from bridge.record import rulesets
from bridge.record.database import Database
from bridge.record.outbox import entries
from bridge.record.polling import leases
from bridge.record.queries import gauges, lists
from bridge.simulator.receiver import WebhookReceiver
from bridge.simulator.web import Answer, Fault, text_answer
from bridge.wiring import parts
from bridge.wiring.rules import Rules
from bridge.wiring.worker import Worker, poll_all
from tests.conftest import only_postgresql
from tests.support import hostile as fakes
from tests.support.stage import BUCKET, RULES, SECRET, Stage
from tests.support.waiting import wait_until


@pytest.fixture
def dialect(request: pytest.FixtureRequest) -> str:
    return getattr(request, "param", "sqlite")


@pytest.fixture
def stage(tmp_path: Path, db_url: str) -> Iterator[Stage]:
    with Stage(tmp_path, db_url) as stage:
        yield stage


def poll(stage: Stage, **environ: str) -> PollResult:
    """Poll the one watch once, in this process."""
    given = stage.environ | environ
    settings = environment.read(given)
    rules = Rules(settings, given)
    ((_, found),) = poll_all(settings, rules, stage.db)
    assert found is not None
    return found


@contextmanager
def working(stage: Stage, db: Database | None = None, **environ: str) -> Iterator[Worker]:
    """A worker in a thread of this process."""
    given = stage.environ | environ
    settings = environment.read(given)
    rules = Rules(settings, given)
    parts.sync(stage.db, rules.book)
    worker = Worker(settings, rules, db or stage.db)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(30)
        assert not thread.is_alive()


def put_test_message(stage: Stage, notifier: str, nonce: str = "1") -> str:
    """Put a test message for a notifier into the outbox; return the delivery's id."""
    settings = environment.read(stage.environ)
    book = Rules(settings, stage.environ).book
    parts.sync(stage.db, book)
    message = a_test_message(notifier, nonce=nonce, now=parts.utc_now())
    new = delivery_to(message, book.notifiers[notifier])
    with stage.db.write() as tx:
        entries.put(tx, [new], now=parts.utc_now())
    return new.id


def delivery(stage: Stage, delivery_id: str) -> lists.Facts:
    with stage.db.read() as tx:
        found = lists.delivery_details(tx, delivery_id)
    assert found
    return found


def await_attempt(stage: Stage, delivery_id: str) -> lists.Facts:
    wait_until(lambda: delivery(stage, delivery_id)["tries"], why=lambda: delivery(stage, delivery_id))
    return delivery(stage, delivery_id)


def notifier(stage: Stage, name: str) -> lists.Facts:
    with stage.db.read() as tx:
        return next(one for one in gauges.read_notifiers(tx) if one["name"] == name)


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """Return what was logged, with the reasons."""
    return "\n".join(f"{r.getMessage()} {r.__dict__.get('reason', '')}" for r in caplog.records)


# --- CI ---------------------------------------------------------------------------------------------------------


def test_missing_credentials_name_the_variable_and_fail_the_command(stage: Stage) -> None:
    done = stage.command("poll", TENCENTCLOUD_SECRET_ID="")
    assert done.exit_code == 1
    assert "TENCENTCLOUD_SECRET_ID is not set" in done.stderr


def test_wrong_credentials_are_an_auth_error_that_says_what_to_check(stage: Stage) -> None:
    error = str(poll(stage, TENCENTCLOUD_SECRET_KEY="wrong").error)
    assert "SignatureDoesNotMatch" in error
    assert "TENCENTCLOUD_SECRET_KEY" in error
    assert stage.watch()["error"] == error
    assert poll(stage).error is None
    assert stage.watch()["error"] is None


def test_a_bucket_that_does_not_exist_is_named_with_what_to_check(stage: Stage) -> None:
    stage.ci.buckets = {"other-1250000000"}
    error = str(poll(stage).error)
    assert "NoSuchBucket" in error
    assert "check that `bucket` has the APPID" in error


def test_a_clock_20_minutes_off_is_corrected_from_the_answer_and_the_poll_succeeds(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.ci.skew_s = 20 * 60
    stage.ci.create(BUCKET, "Transcode", "p1")
    found = poll(stage)
    assert found.error is None
    assert found.jobs == 1
    assert any("clock" in record.getMessage() for record in caplog.records)


CI_FAULTS: dict[str, tuple[Callable[[Stage], Fault], str]] = {
    "503": (lambda _: lambda _: fakes.slow_down(60), "SlowDown"),
    "HTML": (lambda _: lambda _: fakes.html_page(200), "HTML"),
    "half a page": (lambda stage: fakes.half_a_page(stage.ci, announced=False), ""),
    "hanging up": (lambda _: lambda _: fakes.hang_up(), ""),
}


@pytest.mark.parametrize("how", CI_FAULTS)
def test_a_failing_ci_is_a_failed_poll_that_stores_nothing_and_the_next_good_one_carries_on(
    stage: Stage, how: str
) -> None:
    assert poll(stage).error is None  # the first snapshot
    job = stage.ci.create(BUCKET, "Transcode", "p1")
    make, says = CI_FAULTS[how]
    stage.ci.fault = make(stage)
    failed = poll(stage)
    assert failed.error is not None
    assert says in str(failed.error)
    assert stage.watch()["failures"] == 1
    assert stage.transitions() == {}
    stage.ci.fault = None
    assert poll(stage).error is None
    assert [step["to"] for step in stage.transitions()[job]] == ["Submitted"]
    assert stage.watch()["failures"] == 0


@pytest.mark.parametrize(("asked_s", "given_s"), [("300", 300), ("86400", 600)])
def test_ci_asking_to_wait_is_waited_for_up_to_ten_minutes(stage: Stage, asked_s: str, given_s: int) -> None:
    stage.ci.fault = lambda _: fakes.ci_error(429, "RequestLimitExceeded", headers={"Retry-After": asked_s})
    poll(stage)
    watch = stage.watch()
    waits = datetime.fromisoformat(watch["next_poll_at"]) - datetime.fromisoformat(watch["polled_at"])
    assert waits == timedelta(seconds=given_s)
    assert "RequestLimitExceeded" in watch["error"]


def test_a_page_token_that_comes_again_for_ever_ends_the_poll_with_what_was_read_kept(stage: Stage) -> None:
    assert poll(stage).error is None
    job = stage.ci.create(BUCKET, "Transcode", "p1")
    stage.ci.fault = fakes.same_token_for_ever(stage.ci)
    failed = poll(stage)
    assert "does not end" in str(failed.error)
    stage.ci.fault = None
    assert poll(stage).error is None
    assert [step["to"] for step in stage.transitions()[job]] == ["Submitted"]


def test_the_same_job_on_two_pages_is_one_transition(stage: Stage) -> None:
    assert poll(stage).error is None
    jobs = [stage.ci.create(BUCKET, "Transcode", "p1") for _ in range(7)]
    stage.ci.page_size_cap = 2
    asked = 0

    def another_while_paging(request: object) -> None:
        nonlocal asked
        asked += 1
        if asked == 2:
            stage.ci.create(BUCKET, "Transcode", "p1", created_at=stage.ci.now() - 60)  # shifts what follows
        return

    stage.ci.fault = another_while_paging
    assert poll(stage).error is None
    assert all(len(stage.transitions()[job]) == 1 for job in jobs)


def test_news_of_another_tag_comes_through_while_many_jobs_are_caught_up(stage: Stage) -> None:
    stage.rules_file.write_text(RULES.replace('rate = "1000/s"', 'rate = "20/s"', 1))
    stage.ci.page_size_cap = 10
    with working(stage):
        stage.await_first_poll()
        many = [stage.ci.create(BUCKET, "Transcode", "p1") for _ in range(1_000)]
        wait_until(lambda: stage.transitions())
        fresh = stage.ci.create(BUCKET, "Snapshot", "p2")
        wait_until(lambda: any(one.json["subject"] == fresh for one in stage.accepted["/cms"]))
        assert len(stage.transitions()) < len(many), "the long list had come to its end before"
        wait_until(lambda: set(stage.transitions()) == {*many, fresh}, within_s=180)
    assert all(len(steps) == 1 for steps in stage.transitions().values())


# --- receivers --------------------------------------------------------------------------------------------------


def test_a_receiver_that_is_down_is_tried_again_and_told_when_it_is_up(stage: Stage) -> None:
    with fakes.refuses_connection() as down:
        port = urlsplit(down.url).port or 0
    stage.environ["CMS_URL"] = f"http://127.0.0.1:{port}/cms"
    delivery_id = put_test_message(stage, "cms")
    with working(stage):
        failed = await_attempt(stage, delivery_id)
        assert failed["state"] == "waiting"
        assert "could not connect to 127.0.0.1" in failed["why"]
        with WebhookReceiver(secrets=[SECRET], port=port) as receiver:
            wait_until(
                lambda: delivery(stage, delivery_id)["state"] == "sent", why=lambda: delivery(stage, delivery_id)
            )
            assert [one.id for one in receiver.received] == [delivery_id]


def test_a_slow_receiver_is_cut_at_the_deadline_and_delays_nobody_else(stage: Stage) -> None:
    with fakes.never_answers() as server:
        stage.environ["CMS_URL"] = server.url
        slow = put_test_message(stage, "cms")
        quick = put_test_message(stage, "next")
        with working(stage):
            wait_until(lambda: delivery(stage, quick)["state"] == "sent")
            assert delivery(stage, slow)["tries"] == []
            failed = await_attempt(stage, slow)
        assert failed["state"] == "waiting"
        assert "15 s" in failed["why"]


def test_410_pauses_the_notifier_says_so_and_keeps_what_waits_until_it_is_resumed(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.refuse = lambda _: text_answer("gone", status=410)
    first, second = put_test_message(stage, "cms", "1"), put_test_message(stage, "cms", "2")
    with working(stage):
        wait_until(lambda: notifier(stage, "cms")["paused_at"])
        assert "410" in notifier(stage, "cms")["paused_why"]
        assert "notifier paused" in logged(caplog)
        stage.refuse = lambda _: None
        assert stage.process("notifier", "resume", "cms").returncode == 0
        wait_until(lambda: all(delivery(stage, one)["state"] == "sent" for one in (first, second)))


def test_a_test_of_a_receiver_that_is_left_alone_says_at_once_what_the_attempt_came_to(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        stage.environ["CMS_URL"] = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    for n in range(12):
        put_test_message(stage, "cms", str(n))
    with working(stage):
        wait_until(lambda: notifier(stage, "cms")["failures"] >= BREAKER_THRESHOLD)
        for _ in range(2):
            seen = stage.command("notifier", "test", "cms", "--wait", "60")
            assert seen.exit_code == 1
            assert "not accepted: could not connect" in seen.stderr
        doctor = stage.command("doctor")
    assert doctor.exit_code == 1
    assert re.search(
        r"FAIL  notifier cms: does not answer, 14 messages wait, since .* UTC: could not connect", doctor.stdout
    )


def test_doctor_names_a_watch_that_a_live_worker_never_polls_as_the_overview_does(stage: Stage) -> None:
    found = environment.read(stage.environ)
    book = Rules(found, stage.environ).book
    now = parts.utc_now()
    began = now - timedelta(minutes=10)
    parts.sync(stage.db, book, clock=lambda: began)
    with stage.db.write() as tx:
        leases.register(tx, "w1", machine="m", pid=1, now=began, rules_sha=book.sha)
        leases.beat(tx, "w1", now=now, rules_sha=book.sha, rules_fault=None)
    seen = stage.command("doctor")
    assert "FAIL  watch media: is overdue" in seen.stdout
    assert seen.exit_code == 1
    with stage.db.write() as tx:  # as a reload does that brings the watch
        rulesets.accept(tx, "other", "", now=began)
        rulesets.accept(tx, book.sha, book.ruleset_text, now=now)
    assert "overdue" not in stage.command("doctor").stdout


def test_a_test_of_a_receiver_that_asked_for_time_is_sent_all_the_same(stage: Stage) -> None:
    stage.refuse = lambda _: Answer(status=429, headers={"Retry-After": "120"})
    with working(stage):
        await_attempt(stage, put_test_message(stage, "cms"))
        seen = stage.command("notifier", "test", "cms", "--wait", "60")
    assert seen.exit_code == 1
    assert "not accepted: answered 429" in seen.stderr


def test_a_test_of_a_paused_notifier_says_at_once_why_it_is_paused(stage: Stage) -> None:
    stage.refuse = lambda _: text_answer("gone", status=410)
    with working(stage):
        put_test_message(stage, "cms")
        wait_until(lambda: notifier(stage, "cms")["paused_at"])
        seen = stage.command("notifier", "test", "cms", "--wait", "60")
    assert seen.exit_code == 1
    doctor = stage.command("doctor")
    assert "FAIL  notifier cms: is paused, 2 messages wait, since" in doctor.stdout
    assert "notifier cms is paused: the receiver answered 410" in seen.stderr
    assert "ci-bridge notifier resume cms" in seen.stderr


def test_a_webhook_to_this_machine_is_refused_at_the_socket_and_says_how_to_allow_it(stage: Stage) -> None:
    stage.environ["CMS_URL"] = f"http://localhost:{stage.receiver.port}/cms"
    stage.environ["BRIDGE_ALLOW_NETWORKS"] = "192.0.2.0/24"
    delivery_id = put_test_message(stage, "cms")
    with working(stage):
        wait_until(lambda: delivery(stage, delivery_id)["state"] == "dead")
    assert "BRIDGE_ALLOW_NETWORKS" in delivery(stage, delivery_id)["why"]
    assert stage.receiver.received == []


# --- rules.toml -------------------------------------------------------------------------------------------------


def test_a_wrong_rules_file_while_running_keeps_the_old_rules_and_says_so_until_it_is_right(stage: Stage) -> None:
    worker = stage.start_worker()
    stage.await_first_poll()
    stage.rules_file.write_text(RULES.replace('to = "Failed"', 'to = "Fialed"'))
    wait_until(lambda: "the old rules stay in force" in stage.log, why=lambda: stage.log)
    job = stage.ci.create(BUCKET, "Transcode", "p1")
    wait_until(lambda: any(one.json["subject"] == job for one in stage.accepted["/cms"]), why=lambda: stage.log)
    stage.rules_file.write_text(RULES.replace('name = "everything"', 'name = "all of it"'))
    wait_until(lambda: "rules reloaded" in stage.log, why=lambda: stage.log)
    stage.ci.move(job, "Running")
    wait_until(lambda: any(one.json["data"]["rule"] == "all of it" for one in stage.accepted["/cms"]))
    assert stage.stop(worker) == 0


# --- databases --------------------------------------------------------------------------------------------------


def test_a_full_disk_is_said_and_what_was_not_stored_is_seen_again_when_there_is_room(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    assert poll(stage).error is None
    db = Database(stage.database_url)
    full = True

    @event.listens_for(db.engine, "begin")
    def limit(connection: object) -> None:
        pages = "1" if full else "1000000"  # as many pages as the file has, at least
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")  # type: ignore[attr-defined]

    jobs = [stage.ci.create(BUCKET, "Transcode", "p1", input="x" * 800) for _ in range(100)]
    with working(stage, db):
        wait_until(lambda: "make room" in logged(caplog), why=lambda: logged(caplog))
        full = False
        wait_until(lambda: set(stage.transitions()) == set(jobs), why=lambda: logged(caplog))
        wait_until(lambda: len(stage.accepted["/cms"]) == len(jobs))
    db.close()
    assert len({one.id for one in stage.accepted["/cms"]}) == len(jobs)


@only_postgresql
def test_a_postgresql_that_goes_away_and_comes_back_costs_nothing(stage: Stage) -> None:
    name = stage.db.url.database
    worker = stage.start_worker()
    stage.await_first_poll()
    url = stage.db.url.set(drivername="postgresql", database="postgres").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        jobs = [stage.ci.create(BUCKET, "Transcode", "p1") for _ in range(5)]
        try:
            wait_until(lambda: "database unavailable" in stage.log, why=lambda: stage.log)
        finally:
            admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    wait_until(lambda: len(stage.accepted["/cms"]) == len(jobs), why=lambda: stage.log)
    assert stage.stop(worker) == 0
    assert {one.json["subject"] for one in stage.accepted["/cms"]} == set(jobs)


# --- stopping ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_told_to_stop_finishes_what_it_sends_and_exits_0(stage: Stage, how: signal.Signals) -> None:
    stage.refuse = lambda _: Answer(status=204, delay_s=1.0)
    delivery_id = put_test_message(stage, "cms")
    worker = stage.start_worker()
    wait_until(lambda: stage.receiver.requests, why=lambda: stage.log)
    assert stage.stop(worker, how) == 0
    assert delivery(stage, delivery_id)["state"] == "sent"
