"""`.env`: what is read, what wins, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.env_file import EnvFileRefused, load


def loaded(folder: Path, text: str | bytes, **environ: str) -> dict[str, str]:
    path = folder / ".env"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    load(environ, path)
    return environ


def test_variables_are_read_as_they_are_written(tmp_path: Path) -> None:
    text = "\ufeff# a comment\n\nA=1\r\nexport B='x y'  # why\nC = \"two\nlines\"\nD=$A${B}\nE=会议\nF=\n"
    assert loaded(tmp_path, text) == {"A": "1", "B": "x y", "C": "two\nlines", "D": "$A${B}", "E": "会议", "F": ""}


def test_what_the_environment_has_wins_even_if_it_is_empty(tmp_path: Path) -> None:
    assert loaded(tmp_path, "A=file\nB=file\nC=file\n", A="real", B="") == {"A": "real", "B": "", "C": "file"}
    assert load({"A": "real"}, tmp_path / ".env") == (
        f"{tmp_path}/.env: read 2 variables (1 more are set in the environment, which wins)"
    )


def test_without_a_file_or_with_a_folder_of_that_name_nothing_is_said(tmp_path: Path) -> None:
    assert load({}, tmp_path / ".env") is None
    assert load({}, tmp_path) is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("A=1\nB\n", ":2: 'B' has no value; write NAME=VALUE"),
        ("A=1\nB\x1b[2J\n", r":2: 'B\x1b[2J' has no value"),
        ("A=1\n\n= s3cret\n", ":3: is not NAME=VALUE"),
        ("A=1\nB='s3cret\nC=2\n", ":2: is not NAME=VALUE; a quote that is opened must be closed"),
        ("A=s3cret\0\n", ":1: has a NUL character"),
        (b"A=s3cret\xff\n", ": is not UTF-8"),
    ],
)
def test_a_broken_file_is_refused_whole_with_its_line_and_without_its_values(
    tmp_path: Path, text: str | bytes, fault: str
) -> None:
    environ: dict[str, str] = {}
    path = tmp_path / ".env"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(EnvFileRefused) as refused:
        load(environ, path)
    assert f"{path}{fault}" in str(refused.value)
    assert "s3cret" not in str(refused.value)
    assert environ == {}


def ran(folder: Path, module: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *words], cwd=folder, env=os.environ | {"LOG_LEVEL": "INFO"},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_commands_read_the_file_in_their_folder_and_say_so_once(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DATABASE_URL= sqlite:///kept-here.db \n")
    seen = ran(tmp_path, "bridge", "jobs", "list")
    assert seen.stderr.splitlines()[0] == ".env: read 1 variable"
    assert "kept-here.db" in seen.stderr
    assert ".env" not in ran(tmp_path, "bridge", "jobs", "list", "--help").stderr


@pytest.mark.parametrize("module", ["bridge", "bridge.web"])
def test_a_broken_file_stops_commands_and_the_web_process(tmp_path: Path, module: str) -> None:
    (tmp_path / ".env").write_text("PORT=1\nwhat is this\n")
    seen = ran(tmp_path, module, *(["worker"] if module == "bridge" else []))
    assert seen.returncode == 1
    assert ".env:2: is not NAME=VALUE" in seen.stderr
    assert "Traceback" not in seen.stderr


def test_the_web_process_reads_the_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=s3cret-port\n")
    seen = ran(tmp_path, "bridge.web")
    assert seen.stderr.startswith(".env: read 1 variable\n")
    assert "PORT: 's3cret-port' is not a whole number" in seen.stderr
