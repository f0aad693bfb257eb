"""The two servers as they really run, and raw requests to them."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support.admin_world import ENVIRON, RULES

TOKEN = "the-token-of-this-test"
ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "bridge.web")
DEADLINE_S = 30.0


def a_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def an_environ(tmp_path: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES)
    return kept | ENVIRON | {
        "DATABASE_URL": f"sqlite:///{tmp_path}/bridge.db", "BRIDGE_RULES": str(rules), "PORT": str(a_free_port()),
        "BRIDGE_ADMIN_TOKEN": TOKEN,
    }  # fmt: skip


@contextlib.contextmanager
def serving(environ: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    # On loopback alone: the port of a test is nobody else's business.
    command = (*COMMAND, "--bind", f"127.0.0.1:{environ['PORT']}")
    with subprocess.Popen(command, cwd=ROOT, env=dict(environ), stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def get(environ: Mapping[str, str], path: str) -> object:
    request = urllib.request.Request(
        f"http://127.0.0.1:{environ['PORT']}{path}", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310  (our own address)
        return json.load(answer)


def wait_until_it_answers(environ: Mapping[str, str], process: subprocess.Popen[str]) -> object:
    until = time.monotonic() + DEADLINE_S
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError):
            return get(environ, "/healthz")
        time.sleep(0.1)
    process.kill()
    raise AssertionError(process.communicate()[1])


def say(port: int, *pieces: bytes) -> bytes:
    """Send raw bytes; return all that comes until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as wire:
        with contextlib.suppress(ConnectionError):  # a refusal may come before the end
            for piece in pieces:
                wire.sendall(piece)
        heard = b""
        with contextlib.suppress(ConnectionError):
            while piece := wire.recv(65_536):
                heard += piece
        return heard
