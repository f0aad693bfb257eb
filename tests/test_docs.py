"""What the documents say is so."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from bridge.cli import main
from bridge.decide.rulebook import read
from bridge.settings import Settings

REPOSITORY = Path(__file__).parent.parent
README = (REPOSITORY / "README.md").read_text()


def test_the_readme_names_every_variable_that_is_read() -> None:
    variables = {field.alias or name.upper() for name, field in Settings.model_fields.items()}
    short = {name for name in variables if name in README or f"`_{name.removeprefix('TENCENTCLOUD_')}`" in README}
    assert variables - short - {"BRIDGE_CALLBACK_TOKEN"} == set()  # nothing listens for callbacks yet


def test_every_command_the_readme_shows_is_there() -> None:
    shown = set(re.findall(r"ci-bridge ([a-z]+)", README))
    assert shown
    assert shown <= set(main.list_commands(None))  # type: ignore[arg-type]  # it asks for no context


def test_the_rule_in_the_readme_is_right() -> None:
    (rule,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    notifier = '[notifier.ops]\ntype = "slack"\nurl = { env = "SLACK_WEBHOOK_URL" }\n'
    book = read(rule + notifier, {"SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/T/B/x"})
    assert [found.name for found in book.rules] == ["failed"]


def test_the_webhook_in_the_readme_is_json() -> None:
    bodies = [body for body in re.findall(r"```json\n(.*?)```", README, re.DOTALL) if "specversion" in body]
    assert [json.loads(body)["type"] for body in bodies] == ["ci.job.failed"]


def test_every_link_in_the_documents_leads_to_a_file() -> None:
    for document in (*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")):
        for link in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            assert link.startswith("https://") or (document.parent / link).exists(), f"{document.name}: {link}"


@pytest.mark.parametrize("name", ["app.json", "slack/manifest.json"])
def test_the_deploy_files_are_json(name: str) -> None:
    assert json.loads((REPOSITORY / name).read_text())


def test_what_heroku_needs_is_there_and_what_it_refuses_is_not() -> None:
    assert (REPOSITORY / "uv.lock").exists()
    assert not (REPOSITORY / "requirements.txt").exists()
    asked = {name.partition("[")[0] for name in _names(tomllib.loads((REPOSITORY / "pyproject.toml").read_text()))}
    assert {"psycopg", "gunicorn"} <= asked  # extras are never installed there


def _names(project: dict[str, dict[str, list[str]]]) -> list[str]:
    return [re.split(r"[<>=;]", line)[0] for line in project["project"]["dependencies"]]
