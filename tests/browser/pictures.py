"""The README's pictures, of a made-up day: `python -m tests.browser.pictures`."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, sync_playwright

from bridge.record.database import Database
from bridge.wiring.web import served
from tests.browser.conftest import CHROMIUM, QUIET
from tests.browser.day import NOW as LAST_POLL
from tests.browser.day import lived
from tests.support.admin_world import ADMIN, World

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"
WIDTH, HEIGHT = 1280, 900
NOW = LAST_POLL + timedelta(seconds=12)


def main() -> None:
    if not subprocess.check_output(["fc-list", ":lang=zh"]):
        sys.exit("there is no font with Chinese signs, so names would be boxes: install fonts-noto-cjk")
    logging.disable()
    FOLDER.mkdir(exist_ok=True)
    with _served() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which(CHROMIUM), args=list(QUIET))
        for scheme in ("light", "dark"):
            page = _overview(browser, url, scheme)
            path = FOLDER / f"overview-{scheme}.png"
            page.screenshot(path=path)
            print(f"{path}: {path.stat().st_size // 1000} kB")


@contextmanager
def _served() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        db = Database(f"sqlite:///{folder}/bridge.db")
        db.upgrade()
        house = lived(db)
        world = World(db, house.book, now=NOW)
        world.register()
        world.beat()
        with served(world.app(), host="127.0.0.1", port=0) as port:
            yield f"http://127.0.0.1:{port}"
        db.close()


def _overview(browser: Browser, url: str, scheme: Literal["light", "dark"]) -> Page:
    page = browser.new_page(
        viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme, reduced_motion="reduce", locale="en-GB",
        timezone_id="Asia/Shanghai",
    )  # fmt: skip
    page.clock.set_fixed_time(NOW)
    page.goto(f"{url}/sign-in")
    page.get_by_label("Token").fill(ADMIN)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("region", name="Job states").wait_for()
    return page


if __name__ == "__main__":
    main()
