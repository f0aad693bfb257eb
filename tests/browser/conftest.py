"""A bridge for each database, one browser, and a new window for each person: kept for all tests of a process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.browser.bridges import Bridge, running
from tests.browser.people import Complaints, Person
from tests.conftest import NO_CHROMIUM, PostgresServer
from tests.conftest import _upgraded as upgraded

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-software-rasterizer",
)  # fmt: skip
_LONGEST_MS = 30_000  # for what a condition waits for, on a machine that is busy

Visit = Callable[..., Person]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if shutil.which(CHROMIUM) is None:
        reason = f"{NO_CHROMIUM} at {CHROMIUM}; set CHROMIUM"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    expect.set_options(timeout=_LONGEST_MS)
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))


@pytest.fixture(scope="session")
def sqlite_bridge(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Bridge]:
    folder = tmp_path_factory.mktemp("sqlite-bridge")
    copy = shutil.copy(sqlite_template, folder / "bridge.db")
    with running(folder, f"sqlite:///{copy}", as_one=True) as bridge:
        yield bridge


@pytest.fixture(scope="session")
def postgresql_bridge(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[Bridge]:
    with postgres.new() as name:
        url = postgres.url_of(name)
        upgraded(url)
        with running(tmp_path_factory.mktemp("postgresql-bridge"), url, as_one=False) as bridge:
            yield bridge


@pytest.fixture
def bridge(dialect: str, request: pytest.FixtureRequest) -> Iterator[Bridge]:
    """A running bridge on SQLite or PostgreSQL, whose receiver is well again."""
    found: Bridge = request.getfixturevalue(f"{dialect}_bridge")
    found.broken.clear()
    yield found
    found.broken.clear()


@pytest.fixture
def visit(bridge: Bridge, browser: Browser) -> Iterator[Visit]:
    """Open windows; in the end, whatever a page did wrong fails the test."""
    heard = Complaints({bridge.url})
    with ExitStack() as stack:

        def open_(**options: Any) -> Person:
            context = stack.enter_context(browser.new_context(locale="en-GB", reduced_motion="reduce", **options))
            context.set_default_timeout(_LONGEST_MS)
            heard.listen(context)
            return Person(bridge, context.new_page(), heard)

        yield open_
    assert heard.meant or not heard.heard, "\n".join((*heard.heard, bridge.stage.log[-2000:]))


@pytest.fixture
def admin(visit: Visit) -> Person:
    """Somebody who has signed in with the admin token, and sees the overview."""
    person = visit()
    person.signs_in()
    return person
