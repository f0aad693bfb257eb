"""The examples of docs/receivers.md, as they stand there: they take what is signed, once, and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

from bridge.model import Delivery
from bridge.send.webhook import Webhook
from tests.support.commands import REPOSITORY
from tests.support.http import ask, free_port
from tests.support.nouns import SECRET
from tests.support.receivers import a_delivery, a_webhook
from tests.support.waiting import wait_until

PAGE = (REPOSITORY / "docs" / "receivers.md").read_text()
# Each block begins with a comment that names its file.
FILES = {found[1]: found[0] for found in re.findall(r"```\w+\n((?:#|//) ([\w.]+)[,:].*?)```", PAGE, re.DOTALL)}
MODULES = os.environ.get("TEST_NODE_MODULES", "")


class Example(NamedTuple):
    command: list[str]
    missing: str | None  # why it cannot be run here


def python(*command: str, needs: str) -> Example:
    return Example([sys.executable, "-m", *command], None if find_spec(needs) else f"{needs} is missing")


EXAMPLES = {
    "Flask": python("flask", "--app", "flask_receiver", "run", "--port", "PORT", needs="flask"),
    "FastAPI": python("uvicorn", "fastapi_receiver:app", "--port", "PORT", needs="uvicorn"),
    "Express": Example(
        ["node", "receiver.js"],
        None if Path(MODULES, "express").exists() else "express is missing: TEST_NODE_MODULES names a node_modules",
    ),
    "Go": Example(["./receiver"], None if shutil.which("go") else "go is missing: install Debian's golang-go"),
}


class Running(NamedTuple):
    port: int
    log: Path

    def post(
        self, delivery: Delivery, *, at: datetime, change: Callable[[bytes], bytes] = bytes, secret: str = SECRET
    ) -> int:
        """Send the delivery as the bridge does, and return the status of the answer."""
        request = Webhook(a_webhook(secrets=(secret,))).request(delivery, at)
        headers = dict(line.split(": ", 1) for line in request.headers)
        url = f"http://127.0.0.1:{self.port}/hooks/media"
        try:
            with urllib.request.urlopen(
                urllib.request.Request(url, change(request.body), headers), timeout=30
            ) as found:
                return int(found.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code


@pytest.fixture(params=EXAMPLES)
def receiver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    command, missing = EXAMPLES[request.param]
    if missing:
        pytest.skip(missing)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    port, log = free_port(), tmp_path / "log"
    environ = os.environ | {"WEBHOOK_SECRET": SECRET, "PORT": str(port), "NODE_PATH": MODULES}
    if request.param == "Go":
        subprocess.run(["go", "build", "-o", "receiver", "receiver.go"], cwd=tmp_path, check=True, env=environ)
    command = [str(port) if word == "PORT" else word for word in command]
    with log.open("wb") as out, subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=out, stderr=out) as process:
        wait_until(lambda: ask(port, "/").status, why=log.read_text)
        yield Running(port, log)
        process.send_signal(signal.SIGTERM)


def test_an_example_takes_what_is_signed_once_and_refuses_the_rest(receiver: Running) -> None:
    now, first = datetime.now(UTC), a_delivery(event='{"type":"ci.job.failed","note":"é"}')
    assert receiver.post(first, at=now) == 204
    assert receiver.post(first, at=now + timedelta(seconds=9)) == 204  # another attempt
    assert receiver.post(replace(first, id="d_2"), at=now) == 204
    for refused in (
        receiver.post(replace(first, id="d_3"), at=now, change=lambda body: body.replace(b"failed", b"passed")),
        receiver.post(replace(first, id="d_4"), at=now - timedelta(seconds=330)),
        receiver.post(replace(first, id="d_5"), at=now + timedelta(seconds=330)),
        receiver.post(replace(first, id="d_6"), at=now, secret="whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
    ):
        assert refused == 401
    wait_until(lambda: re.findall(r"^new (.*)$", receiver.log.read_text(), re.MULTILINE) == ["d_1", "d_2"])


def test_an_example_refuses_what_has_no_signature_at_all(receiver: Running) -> None:
    assert ask(receiver.port, "/hooks/media", method="POST").status == 401


def test_every_example_of_the_page_is_run() -> None:
    assert set(FILES) == {"inbox.py", "flask_receiver.py", "fastapi_receiver.py", "receiver.js", "receiver.go"}
