"""`rules explain` on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.support.commands import call, run
from tests.support.stage import BUCKET, Stage

RULES = """
[[watch]]
name = "vod"
bucket = "media-1250000000"
region = "ap-chongqing"
tags = ["Transcode"]

[notifier.cms]
type = "webhook"
url = "https://cms.example.com/hook"

[[rule]]
name = "failed"
to = "Failed"
notify = "cms"

[[mute]]
name = "always"
match.input = "tests/**"
between = "00:00-24:00"
"""


def environ_of(folder: Path) -> dict[str, str]:
    return {"BRIDGE_RULES_TOML": RULES, "DATABASE_URL": f"sqlite:///{folder / 'none.db'}"}


def explain(folder: Path, *words: str, stdin: str | bytes = "{}", **environ: str) -> Result:
    """Call it with these rules, without a database unless `environ` names one."""
    return call("rules", "explain", *words, stdin=stdin, **(environ_of(folder) | environ))


def explained(folder: Path, job: dict[str, Any], **environ: str) -> dict[str, Any]:
    seen = explain(folder, "--job", "-", "--json", stdin=json.dumps(job), **environ)
    assert seen.exit_code == 0, seen.stderr
    (found,) = json.loads(seen.stdout)
    assert isinstance(found, dict)
    return found


def test_a_job_on_record_is_explained_transition_by_transition(stage: Stage) -> None:
    assert stage.command("poll").exit_code == 0
    job = stage.ci.create(BUCKET, "Transcode", "p1")
    assert stage.command("poll").exit_code == 0
    seen = stage.command("rules", "explain", job)
    assert seen.exit_code == 0, seen.stderr
    lines = seen.stdout.splitlines()
    assert lines[0].startswith(f"Transcode {job}: new -> Submitted (number 1, seen ")
    assert lines[1] == '  "everything" notifies cms: waits for its first attempt'
    (found,) = json.loads(stage.command("rules", "explain", job, "--json").stdout)
    assert [(rule["rule"], rule["answer"]) for rule in found["rules"]] == [
        ("everything", "fired"), ("over", "no"), ("failed", "no"),
    ]  # fmt: skip
    assert json.loads(stage.command("rules", "explain", job, "--bucket", BUCKET, "--json").stdout) == [found]


def test_an_unknown_job_is_reported_with_what_to_check(stage: Stage) -> None:
    seen = stage.command("rules", "explain", "j404")
    assert (seen.exit_code, seen.stdout) == (1, "")
    assert 'no job "j404" is on record: is the id right (ci-bridge jobs list), and does a [[watch]]' in seen.stderr
    elsewhere = stage.command("rules", "explain", "j404", "--bucket", "other")
    assert 'no job "j404" in bucket other is on record' in elsewhere.stderr


def test_without_a_database_a_job_on_record_cannot_be_explained(tmp_path: Path) -> None:
    seen = explain(tmp_path, "j1")
    assert seen.exit_code == 1
    assert "there is no database sqlite:///" in seen.stderr


def test_a_sample_job_is_explained_without_a_database(tmp_path: Path) -> None:
    found = explained(tmp_path, {"tag": "Transcode", "to": "Failed", "message": "no such object"})
    assert found["headline"] == '"failed" notifies cms: at once'
    assert found["messages"][0]["text"] == "no such object"
    (note,) = found["notes"]
    assert note.startswith("silences and paused notifiers are not known: there is no database sqlite:///")
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize("url", ["mysql://x", "postgresql://127.0.0.1:1/nobody?connect_timeout=1"])
def test_a_sample_job_is_explained_if_the_database_does_not_answer(tmp_path: Path, url: str) -> None:
    found = explained(tmp_path, {"to": "Failed"}, DATABASE_URL=url)
    assert found["notes"][0].startswith("silences and paused notifiers are not known: ")
    assert found["headline"] == '"failed" notifies cms: at once'


def test_a_sample_job_is_explained_with_the_record_if_there_is_one(stage: Stage) -> None:
    assert stage.command("poll").exit_code == 0
    found = explained(stage.folder, {"to": "Failed"}, DATABASE_URL=stage.database_url)
    assert found["notes"] == []


def test_a_sample_job_in_a_file_is_explained_as_text(tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    file.write_text('{"id": "j7", "to": "Failed", "input": "tests/a.mp4", "tag": "Snapshot"}')
    seen = explain(tmp_path, "--job", str(file))
    assert seen.exit_code == 0, seen.stderr
    lines = seen.stdout.splitlines()
    assert lines[0].startswith("Snapshot j7: new -> Failed (number 1, seen ")
    assert lines[1] == '  "failed" notifies cms: muted'
    assert 'would be held by the mute "always" until ' in seen.stdout
    assert "    says: Snapshot Failed: a.mp4" in lines


def test_a_sample_job_is_read_as_utf_8_whatever_the_locale_with_or_without_a_bom(tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    file.write_text('{"id": "j7", "to": "Failed", "message": "\u6587\u4ef6"}', encoding="utf-8-sig")
    latin = {"PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "LC_ALL": "C"}
    seen = run("rules", "explain", "--job", str(file), "--json", **environ_of(tmp_path), **latin)
    assert seen.returncode == 0, seen.stderr
    assert json.loads(seen.stdout)[0]["messages"][0]["text"] == "\u6587\u4ef6"


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ("{", "- is not a JSON file"),
        (b'{"message": "\xff"}', "- is not a JSON file"),
        ("[]", "- holds no JSON object such as"),
        ('{"id": "\\ud800"}', "- is not a JSON file"),
        ("[" * 100_000, "- is not a JSON file"),
        ('{"tag": ' + "[" * 101 + "]" * 101 + "}", "it nests too deeply; the limit is 100 levels"),
        ('{"tga": "Transcode"}', 'a job has no "tga" (did you mean "tag"?)'),
        ('{"age": "soon"}', '"soon" is not a duration'),
    ],
)
def test_an_invalid_sample_job_is_refused(tmp_path: Path, said: str | bytes, fault: str) -> None:
    seen = explain(tmp_path, "--job", "-", stdin=said)
    assert seen.exit_code == 2
    assert fault in seen.stderr


@pytest.mark.parametrize("words", [(), ("j1", "--job", "-"), ("--job", "-", "--bucket", "b")])
def test_ambiguous_arguments_are_a_usage_error(tmp_path: Path, words: tuple[str, ...]) -> None:
    seen = explain(tmp_path, *words)
    assert seen.exit_code == 2
    assert "Usage:" in seen.stderr
