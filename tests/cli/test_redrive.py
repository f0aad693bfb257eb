"""`deliveries redrive` and `discard`, `jobs tell` and `actions`: what people do manually."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from click.testing import Result
from sqlalchemy import update

from bridge.decide.messages.build import delivery_to
from bridge.decide.messages.build import test_message as a_test_message
from bridge.notifiers import WebhookNotifier
from bridge.record.outbox import entries
from bridge.record.polling import leases
from bridge.record.queries import lists
from bridge.record.schema import DEAD, actions, deliveries
from tests.support.nouns import NOON
from tests.support.records import rows
from tests.support.stage import BUCKET, Stage
from tests.support.waiting import wait_until


def bury(stage: Stage, count: int) -> None:
    notifier = WebhookNotifier(name="cms", url="https://cms.example.com/")
    new = [delivery_to(a_test_message("cms", nonce=str(n), now=NOON), notifier) for n in range(count)]
    with stage.db.write() as tx:
        entries.put(tx, new, now=NOON)
        tx.execute(update(deliveries).values(state=DEAD, ended_at=0))


def redrive(stage: Stage, *words: str, code: int = 0) -> Result:
    seen = stage.command("deliveries", "redrive", *words, USER="ann")
    assert seen.exit_code == code, seen.stderr
    return seen


def test_a_batch_becomes_due_one_delivery_after_the_other(stage: Stage) -> None:
    bury(stage, 3)
    seen = redrive(stage, "--notifier", "cms", "--rate", "1/h")
    id_ = seen.stdout.strip()
    assert "3 deliveries queued for resending, the last at " in seen.stderr
    assert "they wait, as no worker is running" in seen.stderr
    shown: dict[str, Any] = json.loads(stage.command("deliveries", "show", id_, "--json").stdout)
    assert {"id": id_, "total": 3, "scheduled": 2, "waiting": 1, "dead": 0}.items() <= shown.items()
    assert len(json.loads(stage.command("deliveries", "list", "--batch", id_, "--json").stdout)) == 3


def test_a_dry_run_counts_and_shows_the_newest_of_many(stage: Stage) -> None:
    count = lists.MOST + 60
    bury(stage, count)
    preview = redrive(stage, "--notifier", "cms", "--dry-run")
    assert len(preview.stdout.splitlines()) == 1 + 50
    assert f"... and {count - 50} more\n{count} deliveries would be resent" in preview.stderr
    assert len(stage.deliveries(state="dead")) == count
    assert f"{count} deliveries queued for resending, the last at " in redrive(stage, "--notifier", "cms").stderr
    assert len(stage.deliveries(state="waiting")) == count


def test_a_dead_delivery_is_sent_again_under_its_id(stage: Stage) -> None:
    bury(stage, 1)
    (dead,) = stage.deliveries(state="dead")
    assert redrive(stage, dead["id"], "--dry-run").stderr == "1 delivery would be resent\n"
    redrive(stage, dead["id"])
    again = redrive(stage, dead["id"])
    assert f"{dead['id']} is waiting, not dead or dropped or discarded: skipped\n" in again.stderr
    assert again.stdout == "no dead or dropped or discarded delivery matches\n"
    assert 'no delivery "dlv_1" is on record' in redrive(stage, "dlv_1", code=1).stderr
    stage.start_worker()
    wait_until(lambda: [received.id for received in stage.accepted["/cms"]] == [dead["id"]], why=lambda: stage.log)


def test_the_hint_to_start_a_worker_is_not_shown_if_one_is_running(stage: Stage) -> None:
    bury(stage, 1)
    with stage.db.write() as tx:
        leases.register(tx, "w1", machine="m", pid=1, now=datetime.now(UTC))
    given = redrive(stage, "--notifier", "cms", "--json")
    assert given.stderr == "1 delivery queued for resending\n"
    assert {"total": 1, "waiting": 1, "last_due_at": None}.items() <= json.loads(given.stdout).items()


def test_cancelling_a_batch_makes_what_is_not_due_yet_dead_letters(stage: Stage) -> None:
    bury(stage, 3)
    id_ = redrive(stage, "--notifier", "cms", "--rate", "1/h").stdout.strip()
    assert redrive(stage, "--cancel", id_).stdout == "cancelled 2 of 3 deliveries\n"
    again: dict[str, Any] = json.loads(redrive(stage, "--cancel", id_, "--json").stdout)
    assert {"cancelled": 0, "dead": 2, "waiting": 1}.items() <= again.items()
    assert 'there is no batch "rdr_0"' in redrive(stage, "--cancel", "rdr_0", code=1).stderr


def test_a_filter_without_matches_says_so(stage: Stage) -> None:
    assert redrive(stage, "--notifier", "cms").stdout == "no dead delivery matches\n"
    assert redrive(stage, "--rule", "all", "--state", "dropped").stdout == "no dropped delivery matches\n"
    previewed = redrive(stage, "--rule", "all", "--state", "dropped", "--dry-run")
    assert previewed.stdout == "no dropped delivery matches\n"
    assert json.loads(redrive(stage, "--notifier", "cms", "--json").stdout)["id"] is None


@pytest.mark.parametrize(
    ("rate", "why"), [("soon", "is not a rate"), ("0/s", "is not a rate"), ("101/s", 'at most "100/s" is allowed')]
)
def test_an_invalid_rate_is_refused(stage: Stage, rate: str, why: str) -> None:
    assert why in redrive(stage, "--notifier", "cms", "--rate", rate, code=2).stderr


@pytest.mark.parametrize(
    "words", [(), ("--state", "dropped"), ("dlv_1", "--notifier", "cms"), ("dlv_1", "--cancel", "rdr_1")]
)
def test_ids_filters_and_cancel_exclude_each_other(stage: Stage, words: tuple[str, ...]) -> None:
    assert "give exactly one of: delivery ids, filters" in redrive(stage, *words, code=2).stderr


def a_silent_job(stage: Stage) -> str:
    job = stage.ci.create(BUCKET, "Transcode", "p1")
    assert stage.command("poll").exit_code == 0  # a first snapshot is silent
    return job


def tell(stage: Stage, job: str, *words: str, code: int = 0) -> Result:
    seen = stage.command("jobs", "tell", job, *words, USER="ann")
    assert seen.exit_code == code, seen.stderr
    return seen


def test_a_transition_is_sent_manually(stage: Stage) -> None:
    job = a_silent_job(stage)
    said: dict[str, Any] = json.loads(tell(stage, job, "--notifier", "cms", "--json").stdout)
    shown = json.loads(stage.command("deliveries", "show", said["delivery"], "--json").stdout)
    assert (shown["job"], shown["notifier"], shown["rule"], shown["state"]) == (job, "cms", None, "waiting")
    assert shown["note"] == "Sent manually by ann."
    explained = stage.command("rules", "explain", job).stdout
    assert "manually to cms: waits for its first attempt" in explained
    assert f"({said['delivery']})" in explained
    assert "is waiting" in tell(stage, job, "--notifier", "cms", code=1).stderr
    assert [(row["who"], row["what"], row["subject"]) for row in rows(stage.db, actions)] == [
        ("ann", "notify", said["delivery"])
    ]


def test_what_is_sent_manually_waits_for_a_worker(stage: Stage) -> None:
    job = a_silent_job(stage)
    assert "no worker is running, so it waits" in tell(stage, job, "--notifier", "cms").stderr
    with stage.db.write() as tx:
        leases.register(tx, "w1", machine="m", pid=1, now=datetime.now(UTC))
    queued = tell(stage, job, "--notifier", "next")
    assert queued.stdout.startswith("queued: dlv_")
    assert queued.stdout.endswith(" for next\n")
    assert "no worker" not in queued.stderr


def test_what_cannot_be_sent_manually_is_refused(stage: Stage) -> None:
    job = a_silent_job(stage)
    assert 'no notifier "cmss" (did you mean "cms"?)' in tell(stage, job, "--notifier", "cmss", code=1).stderr
    assert 'no transition of a job "j404"' in tell(stage, "j404", "--notifier", "cms", code=1).stderr
    assert (
        "has no transition 7; there are: 1 (Submitted)"
        in tell(stage, job, "--notifier", "cms", "--sequence", "7", code=1).stderr
    )
    with stage.db.write() as tx:
        entries.pause(tx, "cms", "the token was revoked", now=NOON)
    assert "notifier cms is paused: the token was revoked" in tell(stage, job, "--notifier", "cms").stderr


# --- discard --------------------------------------------------------------------------------------------------------


def discard(stage: Stage, *words: str, code: int = 0) -> Result:
    seen = stage.command("deliveries", "discard", *words, USER="ann")
    assert seen.exit_code == code, seen.stderr
    return seen


def test_named_dead_deliveries_are_discarded_and_resent(stage: Stage) -> None:
    bury(stage, 2)
    one, other = (row["id"] for row in stage.deliveries(state="dead"))
    assert discard(stage, one, "--reason", "x", "--dry-run").stderr == "1 delivery would be discarded\n"
    assert discard(stage, one, "--reason", "sent by hand").stderr == "1 delivery discarded\n"
    assert f"{one} is discarded, not dead: skipped\n" in discard(stage, one, "--reason", "x").stderr
    (shown,) = json.loads(stage.command("deliveries", "list", "--state", "discarded", "--json").stdout)
    assert (shown["id"], shown["why"]) == (one, "discarded by ann: sent by hand")
    redrive(stage, one)
    assert [row["id"] for row in stage.deliveries(state="dead")] == [other]


def test_all_that_match_are_discarded_as_a_batch(stage: Stage) -> None:
    bury(stage, 3)
    words = ("--notifier", "cms", "--reason", "cms was shut down")
    assert "3 deliveries would be discarded" in discard(stage, *words, "--dry-run").stderr
    batch = json.loads(discard(stage, *words, "--json").stdout)
    assert (batch["total"], batch["discarded"]) == (3, 3)
    assert discard(stage, *words).stdout == "no dead delivery matches\n"
    redrive(stage, "--state", "discarded", "--batch", batch["id"])
    assert len(stage.deliveries(state="waiting")) == 3


@pytest.mark.parametrize("words", [(), ("dlv_1", "--notifier", "cms")])
def test_either_ids_or_filters_say_what_to_discard(stage: Stage, words: tuple[str, ...]) -> None:
    assert "give either delivery ids or filters" in discard(stage, *words, "--reason", "x", code=2).stderr


# --- actions ---------------------------------------------------------------------------------------------------------


def test_who_did_what_is_listed(stage: Stage) -> None:
    bury(stage, 1)
    (dead,) = stage.deliveries(state="dead")
    discard(stage, dead["id"], "--reason", "not needed")
    redrive(stage, dead["id"])
    found = json.loads(stage.command("actions", "list", "--who", "ann", "--json").stdout)
    assert [(one["what"], one["subject"], one["before"]) for one in found] == [
        ("redrive", dead["id"], {"state": "discarded"}),
        ("discard", dead["id"], {"state": "dead"}),
    ]
    table = stage.command("actions", "list", "--what", "discard").stdout
    assert "not needed" in table
    assert len(table.splitlines()) == 2
    assert "none on record" in stage.command("actions", "list", "--subject", "vod").stdout
