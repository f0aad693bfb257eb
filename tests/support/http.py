"""Plain HTTP requests to servers on this machine."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    status: int = 0  # 0: nobody listens
    headers: str = ""
    body: str = ""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(port: int, path: str, token: str = "", *, method: str = "GET") -> Answer:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310  (our own address)
            return Answer(answer.status, str(answer.headers), answer.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, str(error.headers), error.read().decode())
    except OSError:
        return Answer()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
