"""Nothing of slack-sdk opens a socket, and nothing depends on what it calls private."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import slack_sdk

from bridge import __version__
from tests.send.audited import ANSWERS, PATHS
from tests.support.receivers import Receiver
from tests.support.slack_servers import answering_slack

REPOSITORY = Path(__file__).parents[2]
_PRIVATE_METHOD = re.compile(r"^    def (_[a-z]\w*)\(", re.MULTILINE)


@pytest.mark.parametrize("sdk", ["installed", "renamed"])
def test_slack_is_told_through_our_door_alone_and_by_the_public_parts_of_its_sdk(sdk: str, tmp_path: Path) -> None:
    at = _with_private_methods_renamed(tmp_path) if sdk == "renamed" else Path(slack_sdk.__file__)
    with answering_slack(*ANSWERS) as receiver:
        said = _audited(receiver, at.parent.parent)
    assert said["sdk"] == str(at)
    assert {what: found["escapes"] for what, found in said["found"].items() if found["escapes"]} == {}
    came = {what: found["came"] for what, found in said["found"].items()}
    assert all("Rejected" in came[what] for what in ("refused", "forbidden post", "forbidden webhook"))
    assert all("Sent(" in came[what] for what in PATHS if what != "refused")
    assert came["auth.test"] == "True"
    assert "could not connect" in came["nobody there"]
    # Each request that came was the client's.
    assert len(receiver.requests) == len(ANSWERS) + 1
    assert {seen.headers["user-agent"] for seen in receiver.requests} == {f"ci-bridge/{__version__}"}


def test_what_goes_past_our_overrides_goes_nowhere_and_the_audit_hears_of_a_client_that_is_not_ours() -> None:
    with answering_slack(*ANSWERS) as receiver:
        said = _audited(receiver, Path(slack_sdk.__file__).parents[1])
    past = said["found"]["past our api_call"]
    assert (past["came"] in ("SlackRequestError", "ValueError"), past["escapes"]) == (True, [])  # no such address
    assert "socket.connect" in said["theirs"]["escapes"]


def _audited(receiver: Receiver, packages: Path) -> Any:
    environ = os.environ | {"PYTHONPATH": f"{packages}{os.pathsep}{REPOSITORY}", "HTTP_PROXY": "http://127.0.0.1:1"}
    command = [sys.executable, "-m", "tests.send.audited", f"http://127.0.0.1:{receiver.port}"]
    done = subprocess.run(command, env=environ, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _with_private_methods_renamed(under: Path) -> Path:
    """Copy the SDK, rename each private method of its two clients wherever it is used, and return its `__init__`."""
    copied = Path(shutil.copytree(Path(slack_sdk.__file__).parent, under / "slack_sdk"))
    clients = [(copied / name).read_text() for name in ("web/base_client.py", "webhook/client.py")]
    names = {name for text in clients for name in _PRIVATE_METHOD.findall(text)}
    assert len(names) > 4
    private = re.compile(rf"\b({'|'.join(names)})\b")
    for file in copied.rglob("*.py"):
        file.write_text(private.sub(r"\1_renamed", file.read_text()))
    return copied / "__init__.py"
