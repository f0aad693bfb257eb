"""A program that sends what it is asked to, for tests of its environment: python -m tests.send.sending_program.

Each line of its input is JSON: {"route", "url", "allow", "fresh", "proxy"}; each line of its output the attempt. The
client stays from line to line, with its connections and what it has looked up, until one is "fresh" or differs.
"""

from __future__ import annotations

import json
import socket
import sys
from contextlib import suppress
from urllib.parse import urlsplit

from bridge.send.addresses import parse_networks
from bridge.send.client import HttpClient
from tests.send.probes import sender_by
from tests.support.receivers import attempt


def main() -> None:
    client, opened = None, None
    for line in sys.stdin:
        asked = json.loads(line)
        wanted = (asked["allow"], asked.get("proxy"))
        if client is None or asked.get("fresh") or wanted != opened:
            client, opened = HttpClient(allow=parse_networks(wanted[0]), proxy=wanted[1]), wanted
        with suppress(OSError):  # nss_wrapper reads its file again at the next look-up, and only one thread may make it
            socket.getaddrinfo(urlsplit(asked["url"]).hostname, None)
        made = attempt(sender_by(asked["route"], asked["url"], client), notifier="n")
        why = getattr(made.outcome, "why", "")
        print(json.dumps({"outcome": type(made.outcome).__name__, "why": why, "address": made.address}), flush=True)


if __name__ == "__main__":
    main()
