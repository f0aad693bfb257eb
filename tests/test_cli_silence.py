"""`ci-bridge silence`, as a person calls it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest

from bridge.cli.silence import silence
from bridge.record.queries import lists
from bridge.record.queries.lists import Filter
from tests.support.stage import BUCKET, Stage
from tests.support.waiting import wait_until


@pytest.fixture
def stage(tmp_path: Path, sqlite_url: str) -> Iterator[Stage]:
    with Stage(tmp_path, sqlite_url) as stage:
        yield stage


@pytest.fixture
def told(stage: Stage) -> str:
    """A job that has been told of; returns its id."""
    assert stage.command("poll").exit_code == 0
    job = stage.ci.create(BUCKET, "Transcode", "p1")
    assert stage.command("poll").exit_code == 0
    return job


def add(stage: Stage, *words: str) -> dict[str, object]:
    seen = stage.command("silence", "add", "--reason", "new encoder", *words, "--json")
    assert seen.exit_code == 0, seen.stderr
    found: dict[str, object] = json.loads(seen.stdout)
    return found


def silence_id(made: dict[str, object]) -> str:
    found = made["silence"]
    assert isinstance(found, dict)
    return str(found["id"])


def listed(stage: Stage, *words: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(stage.command("silence", "list", *words, "--json").stdout)
    return found


def test_what_a_silence_holds_is_told_in_one_digest_when_it_is_ended(stage: Stage) -> None:
    stage.command("poll")
    made = silence_id(add(stage, "--for", "2h", "--match", "tag=Transcode", "--notifier", "cms", "--author", "ann"))
    jobs = {stage.ci.create(BUCKET, "Transcode", "p9") for _ in range(3)}
    stage.command("poll")
    assert {one["job"] for one in stage.deliveries(state="held")} == jobs
    (found,) = listed(stage)
    assert (found["id"], found["state"], found["held"], found["author"]) == (made, "active", 3, "ann")
    ended = stage.command("silence", "end", made, "--by", "bob")
    assert ended.exit_code == 0, ended.stderr
    assert "3 messages" in ended.stdout
    stage.start_worker()
    wait_until(lambda: stage.deliveries(state="merged"), why=lambda: stage.log)
    (digest,) = [one for one in stage.deliveries() if one["kind"] == "digest"]
    rows = json.loads(stage.command("deliveries", "list", "--digest", digest["id"], "--json").stdout)
    assert {row["job"] for row in rows} == jobs
    assert {(row["held_by"], row["digest"]) for row in rows} == {(f"silence:{made}", digest["id"])}
    assert listed(stage) == []
    (over,) = listed(stage, "--all")
    assert (over["state"], over["ended_by"]) == ("over", "bob")


def test_what_a_silence_drops_is_never_told_and_stays_on_record(stage: Stage) -> None:
    stage.command("poll")
    made = silence_id(add(stage, "--for", "2h", "--to", "Submitted", "--mode", "drop"))
    stage.ci.create(BUCKET, "Transcode", "p9")
    stage.command("poll")
    assert [one["held_by"] for one in stage.deliveries(state="dropped")] == [f"silence:{made}"]
    assert "it dropped 1 message" in stage.command("silence", "end", made).stdout
    rows = json.loads(stage.command("deliveries", "list", "--state", "dropped", "--json").stdout)
    assert [row["state"] for row in rows] == ["dropped"]
    again = stage.command("deliveries", "redrive", rows[0]["id"])
    assert "1 delivery to be resent" in again.stderr
    assert [one["held_by"] for one in stage.deliveries(state="waiting")] == [f"silence:{made}"]


def test_the_preview_says_what_it_would_have_held_in_the_last_day(stage: Stage, told: str) -> None:
    words = ("silence", "add", "--for", "2h", "--reason", "new encoder", "--dry-run")
    seen = stage.command(*words, "--match", "tag=Trans*").stdout
    assert "it would have held 1 of 1 message of the last day" in seen
    assert "1  everything -> cms" in seen
    assert f"Transcode {told}: new -> Submitted" in seen
    assert "it would have held 0 of 1 message" in stage.command(*words, "--match", "tag=Snapshot").stdout
    assert "would have held 1" in stage.command(*words, "--everything").stdout
    assert listed(stage, "--all") == []


def test_a_silence_says_its_id_and_its_end(stage: Stage) -> None:
    seen = stage.command("silence", "add", "--for", "1h30m", "--rule", "failed", "--reason", "known")
    (found,) = listed(stage)
    assert seen.stdout.startswith(f"{found['id']} holds what matches rule=failed until {found['ends_at']} (in 1 h ")
    assert seen.stderr == ""
    table = stage.command("silence", "list").stdout
    assert "rule=failed" in table
    assert "known" in table


@pytest.mark.parametrize("until", ["{:%Y-%m-%dT%H:%M:%SZ}", "{:%Y-%m-%d %H:%M:%S}"])
def test_an_end_may_be_a_time_in_utc(stage: Stage, until: str) -> None:
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    add(stage, "--until", until.format(end), "--to", "done")
    assert [one["ends_at"] for one in listed(stage)] == [f"{end:%Y-%m-%dT%H:%M:%SZ}"]


def test_matchers_are_lists_presence_and_comparisons(stage: Stage) -> None:
    add(
        stage, "--for", "2h", "--match", "tag=Transcode", "--match", "tag=!Snapshot", "--match", "user_data.asset=true",
        "--match", "duration=> 45m", "--from", "Running", "--to", "Failed", "--to", "Cancel",
    )  # fmt: skip
    (found,) = listed(stage)
    assert found["matches"] == {
        "match": {"tag": ["Transcode", "!Snapshot"], "user_data.asset": True, "duration": "> 45m"},
        "from": ["Running"],
        "to": ["Failed", "Cancel"],
    }


def test_the_author_is_who_is_logged_in(stage: Stage) -> None:
    stage.environ["USER"] = "carol"
    add(stage, "--for", "2h", "--to", "Failed")
    assert [one["author"] for one in listed(stage)] == ["carol"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--for", "2h"), "say what it matches"),
        (("--for", "2h", "--everything", "--to", "Failed"), "with --everything nothing else can be named"),
        (("--to", "Failed"), "say when it ends"),
        (("--for", "2h", "--until", "2100-01-01T00:00:00Z", "--to", "Failed"), "one of the two"),
        (("--for", "31d", "--to", "Failed"), "--for: 31d is too far away; a silence lasts 30 days at most"),
        (("--until", "2h", "--to", "Failed"), '--until: "2h" is not a time such as'),
        (("--for", "2h", "--match", "tag"), '"tag" is not FIELD=VALUE'),
        (
            ("--for", "2h", "--match", "tag=true", "--match", "tag=Transcode"),
            "--match: tag=true says that it has a value at all, and goes with no other value",
        ),
        (("--for", "2h", "--match", "code=E1", "--match", "code=false"), "code=false says that it has none"),
        (("--for", "2h", "--match", "tgs=x"), 'a job has no "tgs" to match (did you mean "tag"?)'),
    ],
)
def test_what_cannot_be_a_silence_is_refused_with_what_would_be(
    stage: Stage, words: tuple[str, ...], said: str
) -> None:
    seen = stage.command("silence", "add", "--reason", "new encoder", *words)
    assert seen.exit_code == 2
    assert said in seen.stderr
    assert listed(stage, "--all") == []


def test_every_fault_is_said_at_once(stage: Stage) -> None:
    seen = stage.command("silence", "add", "--reason", "x" * 501, "--for", "99d", "--to", "Faild", "--match", "tgs=x")
    assert [word for word in ("reason:", "--for:", "Faild", "tgs") if word in seen.stderr] == [
        "reason:", "--for:", "Faild", "tgs",
    ]  # fmt: skip


def test_a_rule_that_there_is_not_is_a_warning_as_it_may_be_to_come(stage: Stage) -> None:
    seen = stage.command("silence", "add", "--for", "2h", "--rule", "faild", "--notifier", "ops", "--reason", "known")
    assert seen.exit_code == 0
    assert seen.stderr == 'warning: rules.toml has no rule "faild" (did you mean "failed"?)\n'
    assert len(listed(stage)) == 1


def test_what_no_watch_polls_is_a_warning(stage: Stage) -> None:
    seen = stage.command("silence", "add", "--for", "2h", "--match", "tag=Transcod", "--reason", "known")
    assert seen.exit_code == 0
    assert seen.stderr == 'warning: match.tag: no watch polls the tag "Transcod" (did you mean "Transcode"?)\n'


@pytest.mark.parametrize("words", [("silence", "end"), ("rules", "explain"), ("jobs", "show"), ("deliveries", "show")])
def test_bytes_that_are_not_utf_8_are_refused_in_words(stage: Stage, words: tuple[str, ...]) -> None:
    seen = stage.command(*words, os.fsdecode(b"a\xff"))
    assert seen.exit_code == 2
    assert "what is given on the command line is not UTF-8: byte 0xff" in seen.stderr


def test_bytes_that_are_not_utf_8_reach_a_process_and_are_refused_without_a_traceback(stage: Stage) -> None:
    seen = stage.process("silence", "end", os.fsdecode(b"a\xff"))
    assert seen.returncode == 2
    assert "what is given on the command line is not UTF-8: byte 0xff" in seen.stderr
    assert "Traceback" not in seen.stderr


def test_rules_that_are_wrong_are_no_hindrance(stage: Stage) -> None:
    stage.rules_file.write_text("[[rule]]\n")
    seen = stage.command("silence", "add", "--for", "2h", "--rule", "failed", "--reason", "known")
    assert seen.exit_code == 0
    assert "the rules cannot be read here" in seen.stderr
    assert len(listed(stage)) == 1


def test_what_is_over_or_unknown_cannot_be_ended(stage: Stage) -> None:
    unknown = stage.command("silence", "end", "sil_404")
    assert unknown.exit_code == 1
    assert 'there is no silence "sil_404" (ci-bridge silence list --all)' in unknown.stderr
    made = silence_id(add(stage, "--for", "2h", "--to", "Failed"))
    assert "it held nothing" in stage.command("silence", "end", made).stdout
    again = stage.command("silence", "end", made)
    assert again.exit_code == 1
    assert f"silence {made} is over since" in again.stderr


def test_the_deliveries_of_no_digest_are_none(stage: Stage, told: str) -> None:
    assert stage.command("deliveries", "list", "--digest", "dlv_404", "--json").stdout.strip() == "[]"
    with stage.db.read() as tx:
        assert [one["job"] for one in lists.find_deliveries(tx, Filter()).items] == [told]


def test_each_command_has_examples() -> None:
    for command in silence.commands.values():
        with click.Context(command) as context:
            assert f"ci-bridge silence {command.name}" in command.get_help(context)
