"""Foreign text on the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta

from click.testing import Result
from wcwidth import wcswidth

from bridge.record.polling import snapshots
from bridge.simulator.web import text_answer
from tests.support.nouns import NOON, a_job, a_transition
from tests.support.stage import BUCKET, Stage
from tests.support.waiting import wait_until

# Clears the screen, names the window, rings, colours by C1, writes backwards; and a text that is to stay as it is.
_HOSTILE = "\x1b[2J\x1b]0;owned\x07 \x9b31m \u202e\x7f 会议"


def _is_harmless(seen: Result) -> bool:
    return (seen.stdout + seen.stderr).replace("\n", "").isprintable()


def _texts(value: object) -> Iterator[object]:
    """Yield every value in JSON."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)
    else:
        yield value


def test_text_of_an_uploader_does_not_control_the_terminal(stage: Stage) -> None:
    job = a_job(id=f"j1{_HOSTILE}", state="Failed", message=_HOSTILE, input=_HOSTILE, user_data=_HOSTILE)
    with stage.db.write() as tx:
        step = a_transition(job)
        snapshots.save(tx, [job], [step], {}, stream="s", streams=["s"], now=NOON)
        snapshots.add_transitions(tx, [(step, [])])
    for words in (
        ("jobs", "list"),
        ("jobs", "show", job.id),
        ("transitions", "list"),
        ("rules", "explain", job.id),
    ):
        table, as_json = stage.command(*words), stage.command(*words, "--json")
        assert (table.exit_code, as_json.exit_code) == (0, 0)
        assert _is_harmless(table)
        assert _is_harmless(as_json)
        assert r"\x1b[2J" in table.stdout
        assert "会议" in table.stdout
        assert "会议" in as_json.stdout
        assert job.id in _texts(json.loads(as_json.stdout))
    missing = stage.command("jobs", "show", _HOSTILE)
    assert missing.exit_code == 1
    assert _is_harmless(missing)


def test_a_line_break_in_a_name_is_escaped(stage: Stage) -> None:
    job = a_job(id="j1", state="Failed", queue='p9\n  fired  rule "forged"', input="a\r\n\x85b.mp4")
    with stage.db.write() as tx:
        step = a_transition(job)
        snapshots.save(tx, [job], [step], {}, stream="s", streams=["s"], now=NOON)
        snapshots.add_transitions(tx, [(step, [])])
    seen = stage.command("rules", "explain", "j1")
    assert r'queue: "p9\n  fired  rule' in seen.stdout
    assert not any(line.startswith('  fired  rule "forged') for line in seen.stdout.splitlines())
    assert _is_harmless(seen)


def test_columns_of_a_table_align_in_every_script(stage: Stage) -> None:
    names = ["trailer.mp4", "电影/预告片 第一集.mp4", "ｶﾀｶﾅ.mp4", "e\u0301te\u0301.mp4", "👩\u200d👧.mp4", "长" * 90]
    jobs = [a_job(id=f"j{number}", input=name, tag=name[:4]) for number, name in enumerate(names)]
    with stage.db.write() as tx:
        snapshots.save(tx, jobs, [], {}, stream="s", streams=["s"], now=NOON)
    head, *rows = stage.command("jobs", "list").stdout.splitlines()
    at = head.index("STATE")
    assert len(rows) == len(names)
    for row in rows:
        (place,) = {wcswidth(row[:end]) for end in range(len(row)) if row[end:].startswith(" Running  ")}
        assert place + 1 == at
        assert wcswidth(row) <= head.index("INPUT") + 60


def test_lists_cut_long_text_and_details_show_more(stage: Stage) -> None:
    long = "m\n" * 100_000
    with stage.db.write() as tx:
        job = a_job(id="j1", state="Failed", message=long, user_data=long, input="x" * 200_000)
        snapshots.save(tx, [job], [], {}, stream="s", streams=["s"], now=NOON)
        snapshots.save(tx, [a_job(id="j2")], [], {}, stream="out", streams=["s"], now=NOON)
        snapshots.meet(tx, "out", NOON)
        snapshots.leave(tx, ["s"], now=NOON + timedelta(days=1))
    assert "Running, unwatched" in stage.command("jobs", "list").stdout
    table, listed = stage.command("jobs", "list"), stage.command("jobs", "list", "--json", "--state", "Failed")
    detail, whole = stage.command("jobs", "show", "j1"), stage.command("jobs", "show", "j1", "--json")
    assert max(map(len, table.stdout.splitlines())) < 300
    assert len(listed.stdout) < 1_500
    assert json.loads(listed.stdout)[0]["input"] == "x" * 199 + "…"
    assert 30_000 < len(detail.stdout) < 31_000
    assert f"input         {'x' * 9_999}… (--json has all of it)\n" in detail.stdout
    assert json.loads(whole.stdout)["message"] == long


def test_text_of_a_receiver_does_not_control_the_terminal(stage: Stage) -> None:
    stage.refuse = lambda _: text_answer(_HOSTILE, status=500)
    stage.start_worker()
    stage.await_first_poll()
    stage.ci.create(BUCKET, "Transcode", "p1")
    wait_until(lambda: any(row["why"] for row in stage.deliveries(notifier="cms")), why=lambda: stage.log)
    (delivery,) = stage.deliveries(notifier="cms")
    table, as_json = (stage.command("deliveries", "show", delivery["id"], *more) for more in ((), ("--json",)))
    assert _is_harmless(table)
    assert r"\x1b[2J" in table.stdout
    assert _is_harmless(as_json)
    assert json.loads(as_json.stdout)["tries"][0]["answer"] == _HOSTILE
    assert "会议" in as_json.stdout
