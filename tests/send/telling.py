"""A program that tells what it is told to, for tests of its environment: python -m tests.send.telling.

Each line of its input is JSON: {"route", "url", "allow", "fresh", "proxy"}; each line of its output the attempt. The
door stays from line to line, with its connections and what it has looked up, until one is "fresh" or differs.
"""

from __future__ import annotations

import json
import socket
import sys
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from bridge.model import Attempt
from bridge.send.addresses import parse_networks
from bridge.send.client import HttpClient
from tests.send.probes import outbound
from tests.support.receivers import a_delivery


def main() -> None:
    client, opened = None, None
    for line in sys.stdin:
        asked = json.loads(line)
        wanted = (asked["allow"], asked.get("proxy"))
        if client is None or asked.get("fresh") or wanted != opened:
            client, opened = HttpClient(allow=parse_networks(wanted[0]), proxy=wanted[1]), wanted
        print(json.dumps(_said(_told(client, asked))), flush=True)


def _told(client: HttpClient, asked: dict[str, Any]) -> Attempt:
    with suppress(OSError):  # nss_wrapper reads its file again at the next look-up, and only one thread may make that
        socket.getaddrinfo(urlsplit(asked["url"]).hostname, None)
    out = outbound(asked["route"], asked["url"], client)
    out.begin(a_delivery(notifier="n"))
    while not (ended := out.wait(10)):
        pass
    return ended[0]


def _said(attempt: Attempt) -> dict[str, Any]:
    outcome = attempt.outcome
    return {"outcome": type(outcome).__name__, "why": getattr(outcome, "why", ""), "address": attempt.address}


if __name__ == "__main__":
    main()
