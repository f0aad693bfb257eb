"""The alerts and the dashboard that come with the bridge: they load, and ask for metrics that there are."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from bridge.cli import main
from bridge.decide.rulesfile.read import read
from bridge.model import Sent
from bridge.record import rulesets
from bridge.record.polling import leases
from tests.support.admin_world import ENVIRON, NOON, RULES, World, a_failed_job, job_number

DOCS = Path(__file__).parents[2] / "docs"
ALERTS, DASHBOARD = DOCS / "prometheus-alerts.yml", DOCS / "grafana-dashboard.json"
RUNBOOK = DOCS / "runbook.md"
TESTS_OF_ALERTS = Path(__file__).parent / "prometheus-alerts.test.yml"
MISSING = "promtool is missing: install Debian's package prometheus"


@pytest.fixture(scope="session")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None and os.environ.get("CI"):
        pytest.fail(MISSING, pytrace=False)
    if found is None:
        pytest.skip(MISSING)
    return found


def run(*command: object, said: str = "") -> str:
    done = subprocess.run(list(map(str, command)), input=said, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def scraped(world: World) -> str:
    """A scrape in which there is something of everything."""
    world.book = read(RULES + '[[rule]]\nname = "all day"\nnotify = "cms"\ngroup.wait = "1h"\n', ENVIRON)
    world.register()
    world.polled()
    world.sees(job_number(1), a_failed_job(2), job_number(3, tag='an "odd" \\ one\n', queue=None))
    world.attempt(Sent())
    with world.db.write() as tx:
        rulesets.store(tx, world.book.sha, "{}", now=NOON)
        leases.acquire(tx, "media-1250000000", "w1", now=NOON)
    return world.client().get("/metrics").text


def names_of(scraped: str) -> set[str]:
    families = list(text_string_to_metric_families(scraped))
    samples = {sample.name for family in families for sample in family.samples}
    # Of a counter without any sample yet the family's name lacks what its samples end in.
    return samples | {f"{family.name}_total" if family.type == "counter" else family.name for family in families}


def asked_in(expression: str) -> set[str]:
    return set(re.findall(r"\bci_bridge_\w+", expression))


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return list(json.loads(DASHBOARD.read_text())["panels"])


def expressions() -> Iterator[str]:
    yield from (target["expr"] for panel in panels() for target in panel.get("targets", ()))


# --- the scrape ---------------------------------------------------------------------------------------------


def test_promtool_finds_nothing_to_complain_of_in_a_scrape(promtool: str, scraped: str) -> None:
    assert run(promtool, "check", "metrics", said=scraped) == ""


# --- alerts -------------------------------------------------------------------------------------------------


def test_promtool_takes_the_alerts(promtool: str) -> None:
    assert "SUCCESS" in run(promtool, "check", "rules", ALERTS)


def test_each_alert_fires_when_it_should_and_no_other(promtool: str) -> None:
    assert "SUCCESS" in run(promtool, "test", "rules", TESTS_OF_ALERTS)


def test_each_alert_has_such_a_test() -> None:
    tested = set(re.findall(r'alertname="(\w+)",alertstate="firing"', TESTS_OF_ALERTS.read_text()))
    assert tested == {alert["alert"] for alert in alerts()}


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_asks_for_what_there_is_and_says_what_to_do(alert: dict[str, Any], scraped: str) -> None:
    assert asked_in(alert["expr"])
    assert asked_in(alert["expr"]) <= names_of(scraped)
    assert alert["labels"]["severity"] in ("warning", "critical")
    assert alert["annotations"]["summary"]
    text = alert["annotations"]["description"]
    assert re.search(r"`ci-bridge |dashboard", text)
    for command in re.findall(r"`ci-bridge ([a-z ]+)", text):
        _find(command.split())


def _find(words: list[str]) -> click.Command:
    """Return the command; fail unless there is such a one."""
    command: click.Command = main
    for word in words:
        if isinstance(command, click.Group):
            found = command.get_command(click.Context(command), word)
            assert found is not None, f"there is no command {' '.join(words)}"
            command = found
    assert not isinstance(command, click.Group)
    return command


# --- the runbook --------------------------------------------------------------------------------------------


def sections() -> dict[str, str]:
    """Return the sections of the runbook by their headings."""
    parts = re.split(r"^## (.*)$", RUNBOOK.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_each_alert_links_to_its_section_of_the_runbook_which_has_no_other() -> None:
    assert {alert["annotations"]["runbook_url"].partition("#")[2] for alert in alerts()} == set(
        map(str.lower, sections())
    )
    for alert in alerts():
        assert alert["annotations"]["runbook_url"] == f"docs/{RUNBOOK.name}#{alert['alert'].lower()}"


@pytest.mark.parametrize("alert", sections())
def test_a_section_says_what_it_means_how_to_see_it_and_what_to_do(alert: str) -> None:
    text = sections()[alert]
    assert re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE) == ["Means", "See", "Do"]
    assert "ci-bridge " in text


def test_every_command_of_the_runbook_is_there_with_its_options() -> None:
    commands = re.findall(r"(?:^|`)ci-bridge ([a-z][^`#\n]*)", RUNBOOK.read_text(), re.MULTILINE)
    assert len(commands) > 30
    for line in commands:
        words = shlex.split(line)
        names = list(takewhile(re.compile("[a-z]+").fullmatch, words))
        with _find(names).make_context(" ".join(names), words[len(names) :]):
            pass


def test_every_metric_of_the_runbook_is_there(scraped: str) -> None:
    named = asked_in(RUNBOOK.read_text())
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in names_of(scraped)} >= named


# --- the dashboard ------------------------------------------------------------------------------------------


def test_the_dashboard_asks_for_what_there_is(scraped: str) -> None:
    asked = set().union(*map(asked_in, expressions()))
    assert asked
    assert asked <= names_of(scraped)


def test_the_dashboard_shows_all_there_is(scraped: str) -> None:
    shown = {re.sub(r"_bucket$", "", name) for expression in expressions() for name in asked_in(expression)}
    there = {re.sub(r"_(bucket|count|sum)$", "", name) for name in names_of(scraped) if not name.startswith("process_")}
    assert there == shown


def test_the_dashboards_panels_have_places_and_numbers_of_their_own() -> None:
    numbers = [panel["id"] for panel in panels()]
    assert len(set(numbers)) == len(numbers)
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken
        taken |= cells


def test_the_dashboard_leaves_the_data_source_to_who_imports_it() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    (variable,) = dashboard["templating"]["list"]
    assert (variable["name"], variable["type"], variable["query"]) == ("datasource", "datasource", "prometheus")
    used = [panel["datasource"] for panel in panels() if panel["type"] != "row"]
    used += [target["datasource"] for panel in panels() for target in panel.get("targets", ())]
    assert {json.dumps(one) for one in used} == {json.dumps({"type": "prometheus", "uid": "${datasource}"})}


def test_promtool_takes_what_the_dashboard_asks(promtool: str, tmp_path: Path) -> None:
    asked = [expression.replace("$__rate_interval", "5m") for expression in expressions()]
    rules = [{"record": f"panel:{number}", "expr": one} for number, one in enumerate(asked)]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(asked)} rules found" in run(promtool, "check", "rules", file)
