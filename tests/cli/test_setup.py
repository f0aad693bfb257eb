"""Watches and notifiers by command: listed, polled, paused and resumed."""

from __future__ import annotations

import json

import pytest

from tests.support.stage import BUCKET, Stage
from tests.support.waiting import wait_until


def test_watches_are_listed_as_in_the_api_and_with_their_state(stage: Stage) -> None:
    stage.command("poll")
    (listed,) = json.loads(stage.command("watches", "list", "--json").stdout)
    assert (listed["name"], listed["bucket"], listed["paused"]) == ("media", BUCKET, False)
    head, row = stage.command("watches", "list").stdout.splitlines()
    assert head.split()[:2] == ["NAME", "STATE"]
    assert row.split()[:2] == ["media", "ok"]


def test_a_paused_watch_is_not_polled_until_it_is_resumed(stage: Stage) -> None:
    stage.command("poll")
    assert stage.command("watches", "pause", "media").stdout == "media is paused: it is not polled\n"
    assert "paused" in stage.command("watches", "list").stdout
    refused = stage.command("watches", "poll", "media")
    assert (refused.exit_code, refused.stderr) == (1, 'watch "media" is paused; resume it, and it is polled\n')
    assert stage.command("watches", "resume", "media").exit_code == 0
    assert stage.command("watches", "poll", "media").exit_code == 0
    assert stage.watch()["next_poll_at"] is None
    done = [action["what"] for action in json.loads(stage.command("actions", "list", "--json").stdout)]
    assert done == ["poll_watch", "resume_watch", "pause_watch"]


def test_deliveries_wait_while_their_notifier_is_paused(stage: Stage) -> None:
    assert stage.command("notifier", "pause", "cms", "--reason", "moving").exit_code == 0
    stage.start_worker()
    stage.await_first_poll()
    stage.ci.create(BUCKET, "Transcode", "p1")
    wait_until(lambda: stage.deliveries(notifier="cms"), why=lambda: stage.log)
    assert [row["state"] for row in stage.deliveries(notifier="cms")] == ["waiting"]
    (cms,) = [one for one in json.loads(stage.command("notifier", "list", "--json").stdout) if one["name"] == "cms"]
    assert (cms["waiting"], "moving" in cms["paused_why"]) == (1, True)
    assert "paused" in stage.command("notifier", "list").stdout
    assert stage.command("notifier", "resume", "cms").exit_code == 0
    wait_until(lambda: stage.accepted["/cms"], why=lambda: stage.log)


@pytest.mark.parametrize("command", ["watches poll", "watches pause", "watches resume", "notifier pause --reason x"])
def test_an_unknown_name_is_refused_with_the_names_there_are(stage: Stage, command: str) -> None:
    seen = stage.command(*command.split(), "medya")
    assert seen.exit_code == 1
    assert "rules.toml has no" in seen.stderr
    assert "medya" in seen.stderr


def test_a_notifiers_secrets_are_not_listed(stage: Stage) -> None:
    assert stage.environ["CMS_URL"] not in stage.command("notifier", "list", "--json").stdout
