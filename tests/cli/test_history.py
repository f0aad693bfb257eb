"""`rules show` and `rules history`; and the timeline of `jobs show`."""

from __future__ import annotations

import json
import re

from tests.support.stage import BUCKET, Stage

_HOOK = '\n[notifier.hook]\ntype = "webhook"\nurl = "https://hooks.example.com/s3cret/path"  # \u202ebackwards\n'


def polled(stage: Stage, more: str = "") -> str:
    """Put the rules in force, with something added to them; return their sha."""
    stage.rules_file.write_text(stage.rules_file.read_text() + more)
    assert stage.command("poll").exit_code == 0
    shown = json.loads(stage.command("rules", "show", "--json").stdout)
    return str(shown["sha"])


def test_the_rules_in_force_are_printed_without_what_may_be_secret(stage: Stage) -> None:
    polled(stage, _HOOK)
    text = stage.command("rules", "show").stdout
    assert "[notifier.hook]" in text
    assert "hooks.example.com" in text
    assert "s3cret" not in text
    assert "\u202e" not in text


def test_history_lists_the_last_first_and_shows_what_changed(stage: Stage) -> None:
    old = polled(stage)
    new = polled(stage, '\n[[rule]]\nname = "added"\nto = "Failed"\nnotify = "cms"\n')
    found = json.loads(stage.command("rules", "history", "--json").stdout)
    assert [(one["sha"], one["in_force"]) for one in found] == [(new, True), (old, False)]
    assert all(one["accepted_at"] for one in found)
    assert re.search(
        rf"^{new} +in force +\d+ s ago|^{new} +in force +now", stage.command("rules", "history").stdout, re.MULTILINE
    )
    changes = stage.command("rules", "history", "--diff", new).stdout.splitlines()
    assert changes[:2] == [f"--- {old}", f"+++ {new}"]
    assert '+name = "added"' in changes
    assert 'name = "added"' not in stage.command("rules", "show", old).stdout


def test_what_is_not_on_record_is_said(stage: Stage) -> None:
    none = stage.command("rules", "show")
    assert (none.exit_code, "no rules are in force yet" in none.stderr) == (1, True)
    first = polled(stage)
    alone = stage.command("rules", "history", "--diff", first)
    assert (alone.exit_code, "first on record" in alone.stderr) == (1, True)
    for words in (("show", "nope\x1b"), ("history", "--diff", "nope\x1b")):
        unknown = stage.command("rules", *words)
        assert (unknown.exit_code, unknown.stderr) == (
            1, 'no rules "nope\\x1b" are on record (ci-bridge rules history)\n'
        )  # fmt: skip


def test_a_job_is_shown_with_its_timeline(stage: Stage) -> None:
    stage.command("poll")
    job = stage.ci.create(BUCKET, "Transcode", "p1")
    stage.command("poll")
    (delivery,) = stage.deliveries(notifier="cms")
    shown = stage.command("jobs", "show", job).stdout
    lines = [line[line.index("Z ") :].strip("Z ") for line in shown.partition("timeline:\n")[2].splitlines()[1:]]
    assert lines[0] == "CI: created"
    assert any(re.fullmatch("new -> Submitted +everything -> cms", line) for line in lines)
    assert any(re.fullmatch(f"message for cms: waiting +{delivery['id']}", line) for line in lines)
