"""Tables: on a terminal they fit its width, have colours and ages; in a pipe nothing is cut or coloured."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wcwidth import wcswidth

from bridge.cli.tables import fitting, moment
from bridge.record.polling import snapshots
from tests.support.commands import REPOSITORY
from tests.support.nouns import NOON, a_job
from tests.support.stage import Stage

_ANSI = re.compile(r"\x1b\[[\d;]*m")
_LONG = "j" + "8d121820f5e411ec926ef19d53ba9c6f"


@pytest.fixture
def jobs(stage: Stage) -> Stage:
    with stage.db.write() as tx:
        made = [
            a_job(id=_LONG, state="Failed", input="电影/预告片 第一集.mp4" * 9),
            a_job(id="j2", state="Success", input="a.mp4"),
        ]
        snapshots.save(tx, made, [], {}, stream="s", streams=["s"], now=NOON)
    return stage


def on_terminal(stage: Stage, *words: str, width: int, **environ: str) -> str:
    """Return what a command prints on a terminal of this width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    environ = {name: value for name, value in stage.environ.items() if name not in ("COLUMNS", "NO_COLOR")} | environ
    process = subprocess.Popen(
        [sys.executable, "-m", "bridge", *words], cwd=REPOSITORY, env=environ, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    text = b"".join(_read(ours)).decode()
    os.close(ours)
    assert process.wait(60) == 0, text
    return text.replace("\r\n", "\n")


def _read(terminal: int) -> Iterator[bytes]:
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # Linux says so when the other side is closed
            return
        if not part:
            return
        yield part


@pytest.mark.parametrize("width", [50, 80, 120, 200])
def test_a_table_fits_the_terminal_and_keeps_ids_whole(jobs: Stage, width: int) -> None:
    lines = _ANSI.sub("", on_terminal(jobs, "jobs", "list", width=width)).splitlines()
    assert all(wcswidth(line) <= width for line in lines[:3])
    assert any(_LONG in line for line in lines)
    left_out = [line for line in lines if line.startswith("no room for")]
    assert bool(left_out) == (width == 50)


def test_states_have_colours_on_a_terminal_unless_no_color_is_set(jobs: Stage) -> None:
    seen = on_terminal(jobs, "jobs", "list", width=120)
    assert re.search(r"\x1b\[31mFailed *\x1b\[0m", seen)
    assert re.search(r"\x1b\[32mSuccess *\x1b\[0m", seen)
    assert "\x1b" not in on_terminal(jobs, "jobs", "list", width=120, NO_COLOR="1")


def test_a_pipe_has_no_colours_and_is_not_cut_for_a_terminal(jobs: Stage) -> None:
    seen = jobs.command("jobs", "list", COLUMNS="40")
    assert "\x1b" not in seen.stdout
    assert "INPUT" in seen.stdout
    assert seen.stderr == ""


def test_times_are_ages_or_in_utc_or_in_the_local_zone(jobs: Stage) -> None:
    listed = json.loads(jobs.command("jobs", "list", "--json").stdout)
    created = datetime.fromisoformat(listed[0]["created_at"])
    assert re.search(r"\d+ d( \d+ h)? ago", jobs.command("jobs", "list").stdout)
    assert f"{created:%Y-%m-%dT%H:%M:%SZ}" in jobs.command("jobs", "list", "--utc").stdout
    local = jobs.process("jobs", "list", "--local", TZ="Asia/Shanghai").stdout
    assert f"{created + timedelta(hours=8):%Y-%m-%d %H:%M:%S}+08:00" in local


def test_only_a_whole_time_becomes_an_age() -> None:
    now = datetime(2026, 11, 21, 9, tzinfo=UTC)
    assert moment("2026-11-21T08:57:00.000Z", "ago", now) == "3 min ago"
    assert moment("2026-11-21T09:00:05Z", "ago", now) == "in 5 s"
    for other in ("since 2026-11-21T08:57:00Z", None, 3, "-"):
        assert moment(other, "ago", now) == other


@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(1, 300))
def test_columns_fit_whatever_their_widths_and_the_first_is_whole(widths: list[int], room: int) -> None:
    names = ["id", *map(str, range(len(widths) - 1))]
    shown = fitting(names, widths, room)
    assert shown["id"] == widths[0]
    assert all(1 <= shown[name] <= wide for name, wide in zip(names, widths, strict=True) if name in shown)
    assert len(shown) == 1 or sum(shown.values()) + 2 * (len(shown) - 1) <= room
    if sum(widths) + 2 * (len(widths) - 1) <= room:
        assert list(shown.values()) == widths
