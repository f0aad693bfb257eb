"""Nothing of slack-sdk opens a socket, and nothing depends on what it calls private."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import slack_sdk
from slack_sdk import WebClient
from slack_sdk.errors import SlackRequestError

from bridge.send.slack.client import SlackTransport, SlackWebClient
from tests.support.slack_servers import API_URL, ScriptedSlack

REPOSITORY = Path(__file__).parents[2]
TESTS = ("-m", "pytest", "-q", "-n", "0", "-p", "tests.send.socketless", "tests/send/test_slack.py",
         "tests/send/test_slack_threads.py", "tests/send/test_slack_history.py")  # fmt: skip
THEIRS = "from tests.send import socketless; from slack_sdk import WebClient; WebClient(token='x').auth_test()"
_PRIVATE_METHOD = re.compile(r"^    def (_[a-z]\w*)\(", re.MULTILINE)


@pytest.mark.parametrize("sdk", ["installed", "renamed"])
def test_slack_is_called_by_our_client_alone_and_by_public_parts_of_its_sdk(sdk: str, tmp_path: Path) -> None:
    packages = _with_private_methods_renamed(tmp_path) if sdk == "renamed" else None
    done = _python(*TESTS, packages=packages)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    if packages:
        assert str(packages) in _python("-c", "print(__import__('slack_sdk').__file__)", packages=packages).stdout


def test_a_client_that_is_not_ours_does_not_go_unnoticed() -> None:
    assert "an escape: " in _python("-c", THEIRS).stderr


def test_past_our_override_the_client_goes_nowhere() -> None:
    slack = ScriptedSlack()
    ours = SlackWebClient(SlackTransport(slack.egress.client), token="xoxb-1", base_url=API_URL)
    with pytest.raises((SlackRequestError, ValueError)):  # at an address that is none
        WebClient.api_call(ours, "auth.test")
    assert slack.requests == []


def _python(*arguments: str, packages: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(str, filter(None, (packages, REPOSITORY))))
    environ = os.environ | {"PYTHONPATH": path}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environ, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)


def _with_private_methods_renamed(under: Path) -> Path:
    """Copy the SDK, rename each private method of its client wherever it is used, and return the folder."""
    copied = Path(shutil.copytree(Path(slack_sdk.__file__).parent, under / "slack_sdk"))
    names = set(_PRIVATE_METHOD.findall((copied / "web/base_client.py").read_text()))
    assert len(names) > 4
    private = re.compile(rf"\b({'|'.join(names)})\b")
    for file in copied.rglob("*.py"):
        file.write_text(private.sub(r"\1_renamed", file.read_text()))
    return under
