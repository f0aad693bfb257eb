"""Where deliveries arrive: nginx that counts them, or a process of ours that notes when.

nginx has room for thousands of connections: Alertmanager opens as many, and refused ones would only slow it down.
"""

from __future__ import annotations

import http.client
import json
import time
from typing import Any

from benchmarks.machine import Bench, free_port, module, program

_NGINX = """
worker_processes 1;
worker_rlimit_nofile 20000;
daemon off;
pid {directory}/nginx.pid;
error_log stderr error;
events {{ worker_connections 16000; }}
http {{
  access_log off;
  client_body_temp_path {directory}/nginx-bodies;
  client_body_buffer_size 64k;
  keepalive_requests 100000000;
  keepalive_timeout 600s;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location = /counter {{ stub_status; }}
    location / {{ return 204; }}
  }}
}}
"""


class Counter:
    """A local nginx that answers 204 to everything and knows how often it did."""

    def __init__(self, bench: Bench) -> None:
        nginx, port = program("nginx", "nginx-light"), free_port()
        config = bench.directory / "nginx.conf"
        config.write_text(_NGINX.format(directory=bench.directory, port=port))
        bench.start([nginx, "-p", str(bench.directory), "-e", "stderr", "-c", str(config)], port=port)
        self.url = f"http://127.0.0.1:{port}/hook"
        self._asking = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        self._asked = 0

    def count(self) -> int:
        """Return how many requests came, these questions left out."""
        self._asking.request("GET", "/counter")
        numbers = self._asking.getresponse().read().split(b"\n")[2].split()
        self._asked += 1
        return int(numbers[2]) - self._asked

    def rate(self, before: int, count: int, *, at_most_s: float) -> float:
        """Return how many a second arrive of `count`, from the first twentieth to the last."""
        first, last = before + count // 20, before + count - count // 20
        until = time.monotonic() + at_most_s
        begun: tuple[float, int] | None = None
        while (seen := self.count()) < last:
            now = time.perf_counter()
            if begun is None and seen >= first:
                begun = (now, seen)
            if time.monotonic() > until:
                raise RuntimeError(f"{seen - before} of {count} arrived in {at_most_s:g} s")
            time.sleep(0.01)
        if begun is None:
            raise RuntimeError("all arrived at once: give it more to do")
        return (seen - begun[1]) / (time.perf_counter() - begun[0])


class Arrivals:
    """A process that answers 204 and notes when the `event=<number>;` of each body came."""

    def __init__(self, bench: Bench) -> None:
        port = free_port()
        bench.start(module("arrivals", str(port)), port=port)
        self.url = f"http://127.0.0.1:{port}/hook"
        self._port = port

    def take(self) -> dict[int, float]:
        """Return when each event came that did since the last time, in seconds since 1970."""
        asking = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        asking.request("GET", "/take")
        came: Any = json.loads(asking.getresponse().read())
        asking.close()
        return {int(number): float(at) for number, at in came.items()}
