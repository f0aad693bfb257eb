"""`init`: the files to start from, written into the current folder."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from bridge.cli.init import FILES
from tests.support.commands import REPOSITORY, call


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_file_is_written_as_the_repository_has_it(folder: Path) -> None:
    seen = call("init")
    assert seen.exit_code == 0
    for name, source in FILES.items():
        assert (folder / name).read_bytes() == (REPOSITORY / source).read_bytes()
        assert f"written      {name}\n" in seen.stdout
    assert "ci-bridge rules check" in seen.stdout
    assert sorted(path.name for path in folder.iterdir()) == sorted(name.partition("/")[0] for name in FILES)


def test_a_second_time_nothing_changes() -> None:
    call("init")
    again = call("init")
    assert again.exit_code == 0
    assert again.stdout.count("unchanged ") == len(FILES)


def test_a_file_that_differs_is_kept_and_named_unless_forced(folder: Path) -> None:
    (folder / "rules.toml").write_text("mine")
    seen = call("init")
    assert seen.exit_code == 1
    assert "kept         rules.toml" in seen.stdout
    assert seen.stderr == "rules.toml: --force overwrites\n"
    assert (folder / "rules.toml").read_text() == "mine"
    assert (folder / "Procfile").exists()
    assert "overwritten  rules.toml" in call("init", "--force").stdout
    assert (folder / "rules.toml").read_bytes() == (REPOSITORY / "rules.toml").read_bytes()


def test_a_link_to_nowhere_is_not_written_through(folder: Path) -> None:
    (folder / "rules.toml").symlink_to(folder / "elsewhere.toml")
    assert call("init").exit_code == 1
    assert not (folder / "elsewhere.toml").exists()


def test_a_folder_that_cannot_be_written_is_a_plain_error(folder: Path) -> None:
    (folder / "slack").write_text("a file where a folder is to be")
    seen = call("init")
    assert seen.exit_code == 1
    assert seen.stderr.startswith("ci-bridge: slack")
    assert "Traceback" not in seen.stderr


def test_the_wheel_has_every_file() -> None:
    build = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert build["force-include"] == {source: f"bridge/files/{name}" for name, source in FILES.items()}
