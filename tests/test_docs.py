"""What the documents say is so."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from bridge.cli import main
from bridge.decide.rules.matching import DURATIONS, TEXTS
from bridge.decide.rulesfile.notifiers import TYPES
from bridge.decide.rulesfile.read import read
from bridge.decide.rulesfile.tables import KEYS
from bridge.decide.templates.functions import FILTERS, NAMES, TESTS, TIME_FILTERS
from bridge.decide.text.values import STATE_WORDS
from bridge.model import Job
from bridge.settings import Settings
from tests.support.nouns import SECRET

REPOSITORY = Path(__file__).parent.parent
README = (REPOSITORY / "README.md").read_text()
OPERATIONS, TUTORIAL = ((REPOSITORY / "docs" / name).read_text() for name in ("operations.md", "tutorial.md"))


def test_every_variable_that_is_read_is_documented() -> None:
    variables = {field.alias or name.upper() for name, field in Settings.model_fields.items()}
    assert {name for name in variables if f"`{name}`" not in OPERATIONS} == set()


@pytest.mark.parametrize("text", [README, OPERATIONS, TUTORIAL], ids=["README", "operations", "tutorial"])
def test_every_command_that_is_shown_is_there(text: str) -> None:
    shown = set(re.findall(r"ci-bridge ([a-z]+)", text))
    assert shown
    assert shown <= set(main.list_commands(None))  # type: ignore[arg-type]  # it asks for no context


def test_the_rules_of_the_tutorial_are_right() -> None:
    first, second = re.findall(r"```toml\n(.*?)```", TUTORIAL, re.DOTALL)
    changed = first[: first.index("[[rule]]")] + second
    for text, names in ((first, ["failed"]), (changed, ["failed", "stuck"])):
        book = read(text, ENVIRON)
        assert [rule.name for rule in book.rules] == names
        assert list(map(str, book.warnings)) == []


def test_the_rule_in_the_readme_is_right() -> None:
    (rule,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    notifier = '[notifier.ops]\ntype = "slack"\nurl = { env = "SLACK_WEBHOOK_URL" }\n'
    book = read(rule + notifier, {"SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/T/B/x"})
    assert [found.name for found in book.rules] == ["failed"]


# What the blocks of docs/rules.md name and other blocks, or the environment, define.
ELSEWHERE = {
    "alias.queue": '[alias.queue]\nvod = "p1"\n',
    "notifier.ops": '[notifier.ops]\ntype = "slack"\nchannel = "C1"\ntoken = { env = "SLACK_BOT_TOKEN" }\n',
    "notifier.pager": '[notifier.pager]\ntype = "slack"\nurl = { env = "SLACK_WEBHOOK_URL" }\n',
    "notifier.cms": '[notifier.cms]\ntype = "webhook"\nurl = { env = "CMS_URL" }\nsecret = { env = "CMS_SECRET" }\n',
    "template.short": '[template.short]\ntitle = "x"\n',
    "[watch]": '[[watch]]\nname = "w"\nbucket = "media-1250000000"\nregion = "ap-chongqing"\n'
    'tags = ["Transcode", "Snapshot"]\n',
}
RULE = '[[rule]]\nname = "names all"\nnotify = {notifiers}\ntemplate = "short"\n'
STUCK = '[[rule]]\nname = "stuck"\nin = "Running"\nfor = "30m"\nnotify = "ops"\n'
BLOCKS = re.findall(r"```toml\n(.*?)```", (REPOSITORY / "docs" / "rules.md").read_text(), re.DOTALL)
ENVIRON = {
    name: "https://chat.example.com/hook?key=x&access_token=x&sig=x" if name.endswith("URL") else SECRET
    for name in re.findall(r'"([A-Z][A-Z_]+)"', "".join([*BLOCKS, *ELSEWHERE.values()]))
} | {"MEDIA_SECRET_ID": "AKIDx", "MEDIA_SECRET_KEY": "x"}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.partition("\n")[0])
def test_every_block_of_the_page_about_rules_is_right(block: str) -> None:
    rest = "".join(table for name, table in ELSEWHERE.items() if f"[{name}]" not in block)
    rest += STUCK if 'name    = "stuck"' not in block else ""
    notifiers = list(tomllib.loads(f"{block}\n{rest}")["notifier"])
    book = read(f"{block}\n{rest}{RULE.format(notifiers=notifiers)}", ENVIRON)
    assert list(map(str, book.warnings)) == []


@pytest.mark.parametrize("table", [kind for kind in KEYS if kind])
def test_the_page_about_rules_shows_every_key(table: str) -> None:
    owners = dict.fromkeys(TYPES, "notifier") | {"pick": "notifier", "group": "rule", "escalate": "rule"}
    name = owners.get(table, table)
    shown = "\n".join(block for block in BLOCKS if f"[{name}" in block)
    missing = [key for key in KEYS[table] if not re.search(rf"(^|[{{,.] ?){key}\b", shown, re.MULTILINE)]
    assert missing == []


def test_the_page_about_rules_names_every_field_there_is() -> None:
    page = (REPOSITORY / "docs" / "rules.md").read_text()
    fields = {*TEXTS, *DURATIONS, *Job.__slots__, *STATE_WORDS, *NAMES}
    assert [field for field in sorted(fields) if f"`{field}`" not in page] == []


def test_the_page_about_rules_names_every_word_of_templates() -> None:
    page = (REPOSITORY / "docs" / "rules.md").read_text().partition("## Templates")[2]
    assert [word for word in sorted({*FILTERS, *TIME_FILTERS, *TESTS}) if f"`{word}" not in page] == []


def test_the_webhook_in_the_readme_is_json() -> None:
    bodies = [body for body in re.findall(r"```json\n(.*?)```", README, re.DOTALL) if "specversion" in body]
    assert [json.loads(body)["type"] for body in bodies] == ["ci.job.failed"]


def test_every_link_in_the_documents_leads_to_a_file() -> None:
    for document in (*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")):
        for link in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            assert link.startswith("https://") or (document.parent / link).exists(), f"{document.name}: {link}"


@pytest.mark.parametrize("name", ["design.md", "guarantees.md"])
def test_every_module_and_function_that_a_document_names_is_there(name: str) -> None:
    page = (REPOSITORY / "docs" / name).read_text()
    page = re.sub(r"`\S*matrix\.py`", "", page)  # an example
    named = re.findall(r"`([\w/]+/\w+\.py)`((?:,? `(?!\w+\.py)\w+(?:\.\w+)?`)*)", page)
    assert named
    for path, names in named:
        file = next((at for at in (REPOSITORY / "bridge" / path, REPOSITORY / path) if at.exists()), None)
        assert file, path
        for word in re.findall(r"\w+", names):
            assert re.search(rf"^ *((def|class) {word}\b|{word}\b.*=)", file.read_text(), re.MULTILINE), (path, word)


@pytest.mark.parametrize("name", ["app.json", "slack/manifest.json"])
def test_the_deploy_files_are_json(name: str) -> None:
    assert json.loads((REPOSITORY / name).read_text())


def test_what_heroku_needs_is_there_and_what_it_refuses_is_not() -> None:
    assert (REPOSITORY / "uv.lock").exists()
    assert not (REPOSITORY / "requirements.txt").exists()
    asked = {name.partition("[")[0] for name in _names(tomllib.loads((REPOSITORY / "pyproject.toml").read_text()))}
    assert {"psycopg", "gunicorn"} <= asked  # extras are never installed there


def test_what_the_code_imports_is_declared() -> None:
    packages = packages_distributions()
    imported = {
        name
        for path in (REPOSITORY / "bridge").rglob("*.py")
        for name in re.findall(r"^ *(?:from|import) (\w+)", path.read_text(), re.MULTILINE)
        if name not in sys.stdlib_module_names and name in packages and name != "bridge"
    }
    declared = {name.partition("[")[0] for name in _names(tomllib.loads((REPOSITORY / "pyproject.toml").read_text()))}
    normal = {package: {re.sub(r"[-_.]+", "-", name).lower() for name in packages[package]} for package in imported}
    assert [package for package, names in normal.items() if not names & declared] == []
    assert len(imported) > 15


def _names(project: dict[str, dict[str, list[str]]]) -> list[str]:
    return [re.split(r"[<>=;]", line)[0] for line in project["project"]["dependencies"]]
