"""The files for platforms are well-formed, start commands that there are, and set variables that are read."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bridge.settings import Settings
from tests.support.commands import REPOSITORY

UNIT = REPOSITORY / "deploy" / "ci-bridge.service"


def text(name: str) -> str:
    return (REPOSITORY / name).read_text()


def render() -> Any:
    return yaml.safe_load(text("render.yaml"))


def compose() -> Any:
    return yaml.safe_load(text("compose.yaml"))


def fly() -> dict[str, Any]:
    return tomllib.loads(text("fly.toml"))


def commands() -> Iterator[str]:
    """Yield what each file starts."""
    for service in render()["services"]:
        yield from (service[key] for key in ("dockerCommand", "preDeployCommand") if key in service)
    yield from (service["command"] for service in compose()["services"].values() if "command" in service)
    yield from (fly()["deploy"]["release_command"], *fly()["processes"].values())
    railway = json.loads(text("railway.json"))["deploy"]
    yield from (railway["startCommand"], *railway["preDeployCommand"])
    yield from re.findall(r"^ExecStart=\S+/(.*)$", UNIT.read_text(), re.MULTILINE)
    yield from (line.partition(": ")[2] for line in text("Procfile").splitlines())


def variables() -> Iterator[str]:
    """Yield the names that each file sets or asks for."""
    yield from json.loads(text("app.json"))["env"]
    yield from (one["key"] for service in render()["services"] for one in service["envVars"])
    yield from (name for service in compose()["services"].values() for name in service.get("environment", ()))
    yield from fly()["env"]
    yield from re.findall(r"^# .*?([A-Z]+_[A-Z_]+)=", text("fly.toml"), re.MULTILINE)
    for line in re.findall(r"^Environment=(.*)$", UNIT.read_text(), re.MULTILINE):
        yield from re.findall(r"(\w+)=", line)


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_each_command_that_a_platform_starts_is_there(command: str) -> None:
    program, *words = command.removeprefix("python -m ").split()
    if program == "bridge.web":
        assert not words
    else:
        assert program in ("bridge", "ci-bridge")
        subprocess.run([sys.executable, "-m", "bridge", *words, "--help"], check=True, capture_output=True)


def test_each_variable_that_a_platform_sets_is_read() -> None:
    read = {field.alias or name.upper() for name, field in Settings.model_fields.items()}
    assert set(variables()) - {"POSTGRES_USER", "POSTGRES_PASSWORD"} <= read


def test_what_a_platform_asks_for_are_the_rules_and_the_keys_but_no_secret_of_the_example() -> None:
    asked = json.loads(text("app.json"))["env"]
    assert {name for name, facts in asked.items() if facts.get("required", True) and "value" not in facts} == {
        "BRIDGE_RULES_TOML", "TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY", "BRIDGE_ADMIN_TOKEN"
    }  # fmt: skip


def test_render_gives_the_worker_what_the_web_service_was_given() -> None:
    web, worker = render()["services"]
    given = {one["key"] for one in web["envVars"]}
    assert {one["key"] for one in worker["envVars"]} == given - {"BRIDGE_ADMIN_TOKEN"}
    assert {one["fromService"]["name"] for one in worker["envVars"] if "fromService" in one} == {web["name"]}


def test_compose_upgrades_the_database_before_anything_starts() -> None:
    services = compose()["services"]
    for name in ("web", "worker"):
        assert services[name]["depends_on"] == {"upgrade": {"condition": "service_completed_successfully"}}
    assert services["upgrade"]["depends_on"] == {"db": {"condition": "service_healthy"}}
    assert services["web"]["ports"] == ["127.0.0.1:8000:8000"]


def test_the_image_has_the_locked_dependencies_before_the_source() -> None:
    steps = re.findall(r"^(?:COPY|RUN) .*$", text("Dockerfile"), re.MULTILINE)
    assert steps[0] == "COPY pyproject.toml uv.lock ./"
    assert "uv sync --frozen --no-install-project" in steps[1]
    assert any(step.startswith("COPY bridge") for step in steps[2:])
    copied = [path for step in steps if step.startswith("COPY") for path in step.split()[1:-1]]
    assert all((REPOSITORY / path).exists() for path in copied)
    project = tomllib.loads(text("pyproject.toml"))
    for path in project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]:
        assert any(Path(path).is_relative_to(one) for one in copied), path


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing: install systemd")
def test_systemd_takes_the_unit_and_finds_little_that_it_may_do(tmp_path: Path) -> None:
    unit = tmp_path / "ci-bridge.service"
    unit.write_text(UNIT.read_text().replace("/opt/ci-bridge/bin", str(Path(sys.executable).parent)))
    for command in (["verify", "--man=no"], ["security", "--offline=true", "--threshold=15"]):
        done = subprocess.run(["systemd-analyze", *command, unit], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
