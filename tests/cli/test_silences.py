"""`silence add`, `list` and `end` on the command line."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.stage import BUCKET, Stage
from tests.support.waiting import wait_until


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


def test_messages_that_a_silence_held_are_sent_in_one_digest_when_it_ends(stage: Stage) -> None:
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


def test_messages_that_a_silence_dropped_stay_on_record_and_can_be_resent(stage: Stage) -> None:
    stage.command("poll")
    made = silence_id(add(stage, "--for", "2h", "--to", "Submitted", "--mode", "drop"))
    stage.ci.create(BUCKET, "Transcode", "p9")
    stage.command("poll")
    assert [one["held_by"] for one in stage.deliveries(state="dropped")] == [f"silence:{made}"]
    assert "it dropped 1 message" in stage.command("silence", "end", made).stdout
    rows = json.loads(stage.command("deliveries", "list", "--state", "dropped", "--json").stdout)
    assert [row["state"] for row in rows] == ["dropped"]
    again = stage.command("deliveries", "redrive", rows[0]["id"])
    assert "1 delivery queued for resending" in again.stderr
    assert [one["held_by"] for one in stage.deliveries(state="waiting")] == [f"silence:{made}"]


def test_the_preview_counts_what_it_would_have_held_in_the_last_day(stage: Stage) -> None:
    stage.command("poll")
    job = stage.ci.create(BUCKET, "Transcode", "p1")
    stage.command("poll")
    words = ("silence", "add", "--for", "2h", "--reason", "new encoder", "--dry-run")
    seen = stage.command(*words, "--match", "tag=Trans*").stdout
    assert "it would have held 1 of the last day's 1 message" in seen
    assert "1  everything -> cms" in seen
    assert f"Transcode {job}: new -> Submitted" in seen
    assert "it would have held 0 of the last day's 1 message" in stage.command(*words, "--match", "tag=Snapshot").stdout
    assert "would have held 1" in stage.command(*words, "--everything").stdout
    assert listed(stage, "--all") == []


def test_a_silence_says_its_id_and_its_end(stage: Stage) -> None:
    seen = stage.command("silence", "add", "--for", "1h30m", "--rule", "failed", "--reason", "known")
    (found,) = listed(stage)
    assert seen.stdout.startswith(
        f"{found['id']} holds messages that match rule=failed until {found['ends_at']} (in 1 h "
    )
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
        (("--for", "2h", "--everything", "--to", "Failed"), "--everything cannot be combined with"),
        (("--to", "Failed"), "say when it ends"),
        (("--for", "2h", "--until", "2100-01-01T00:00:00Z", "--to", "Failed"), "either --for 2h or --until"),
        (("--for", "31d", "--to", "Failed"), "--for: 31d is too far in the future; a silence may last 30 days"),
        (("--until", "2h", "--to", "Failed"), '--until: "2h" is not a time such as'),
        (("--for", "2h", "--match", "tag"), '"tag" is not FIELD=VALUE'),
        (
            ("--for", "2h", "--match", "tag=true", "--match", "tag=Transcode"),
            "--match: tag=true means that it has any value, and cannot be combined with another value",
        ),
        (("--for", "2h", "--match", "code=E1", "--match", "code=false"), "code=false means that it has no value"),
        (("--for", "2h", "--match", "tgs=x"), 'a job has no "tgs" to match (did you mean "tag"?)'),
    ],
)
def test_an_invalid_silence_is_refused_with_what_would_be_valid(
    stage: Stage, words: tuple[str, ...], said: str
) -> None:
    seen = stage.command("silence", "add", "--reason", "new encoder", *words)
    assert seen.exit_code == 2
    assert said in seen.stderr
    assert listed(stage, "--all") == []


def test_every_fault_is_reported_at_once(stage: Stage) -> None:
    seen = stage.command("silence", "add", "--reason", "x" * 501, "--for", "99d", "--to", "Faild", "--match", "tgs=x")
    assert [word for word in ("reason:", "--for:", "Faild", "tgs") if word in seen.stderr] == [
        "reason:", "--for:", "Faild", "tgs",
    ]  # fmt: skip


def test_an_unknown_rule_is_a_warning_as_it_may_be_added_later(stage: Stage) -> None:
    seen = stage.command("silence", "add", "--for", "2h", "--rule", "faild", "--notifier", "ops", "--reason", "known")
    assert seen.exit_code == 0
    assert seen.stderr == 'warning: rules.toml has no rule "faild" (did you mean "failed"?)\n'
    assert len(listed(stage)) == 1


def test_an_argument_that_is_not_utf_8_is_refused_without_a_traceback(stage: Stage) -> None:
    for command in ("rules explain", "jobs show", "deliveries show"):
        assert stage.command(*command.split(), os.fsdecode(b"a\xff")).exit_code == 2
    seen = stage.process("silence", "end", os.fsdecode(b"a\xff"))
    assert seen.returncode == 2
    assert "an argument is not UTF-8: byte 0xff" in seen.stderr
    assert "Traceback" not in seen.stderr


def test_a_silence_can_be_added_while_the_rules_are_wrong(stage: Stage) -> None:
    stage.rules_file.write_text("[[rule]]\n")
    seen = stage.command("silence", "add", "--for", "2h", "--rule", "failed", "--reason", "known")
    assert seen.exit_code == 0
    assert "rules.toml cannot be read" in seen.stderr
    assert len(listed(stage)) == 1


def test_an_ended_or_unknown_silence_cannot_be_ended(stage: Stage) -> None:
    unknown = stage.command("silence", "end", "sil_404")
    assert unknown.exit_code == 1
    assert 'there is no silence "sil_404" (ci-bridge silence list --all)' in unknown.stderr
    made = silence_id(add(stage, "--for", "2h", "--to", "Failed"))
    assert "it held nothing" in stage.command("silence", "end", made).stdout
    again = stage.command("silence", "end", made)
    assert again.exit_code == 1
    assert f"silence {made} has been over since" in again.stderr


def test_one_that_begins_later_is_listed_so_and_extended(stage: Stage) -> None:
    made = silence_id(add(stage, "--start", "2h", "--for", "1h", "--everything"))
    assert "begins in" in stage.command("silence", "list").stdout
    (before,) = listed(stage)
    assert before["state"] == "pending"
    seen = stage.command("silence", "extend", made, "2h", "--by", "bob")
    assert seen.exit_code == 0, seen.stderr
    (after,) = listed(stage)
    ends = [datetime.fromisoformat(str(one["ends_at"])) for one in (before, after)]
    assert ends[1] - ends[0] == timedelta(hours=2)
    assert stage.command("silence", "extend", made, "soon", "--by", "bob").exit_code == 2
    assert stage.command("silence", "extend", "sil_0", "2h", "--by", "bob").exit_code == 1
    add(stage, "--start", str(before["begins_at"]), "--for", "1h", "--to", "Failed")
