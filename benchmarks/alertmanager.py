"""Prometheus Alertmanager as a peer: every alert a notification of its own, sent at once."""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence

from benchmarks.machine import Bench, free_port, program

# No grouping and no waiting; the rest of it is as it comes.
_CONFIG = """
route:
  receiver: hook
  group_by: ['...']
  group_wait: 0s
receivers:
- name: hook
  webhook_configs:
  - url: {url}
    send_resolved: false
"""
_PER_POST = 100


class Alertmanager:
    def __init__(self, bench: Bench, sink: str) -> None:
        command, port = program("prometheus-alertmanager", "prometheus-alertmanager"), free_port()
        config = bench.directory / f"alertmanager-{port}.yml"
        config.write_text(_CONFIG.format(url=sink))
        self._bench = bench
        self._process = bench.start(
            [
                command,
                f"--config.file={config}",
                f"--storage.path={bench.directory}/alertmanager-{port}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
                "--log.level=error",
            ],
            port=port,
        )
        self._posting = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def post(self, body: bytes) -> None:
        self._posting.request("POST", "/api/v2/alerts", body, {"Content-Type": "application/json"})
        answer = self._posting.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"Alertmanager answered {answer.status}")

    def stop(self) -> None:
        self._posting.close()
        self._bench.stop(self._process)


def posts(numbers: Sequence[int]) -> list[bytes]:
    """Return bodies for `post`, ready-made: what making them costs is not the peer's."""
    alerts = [_alert(number) for number in numbers]
    return [json.dumps(alerts[start : start + _PER_POST]).encode() for start in range(0, len(alerts), _PER_POST)]


def _alert(number: int) -> dict[str, object]:
    # The notification names annotations twice, so that it comes to about the 1.5 kB of ours.
    return {
        "labels": {"alertname": "job", "job": f"j{number:032x}"},
        "annotations": {"note": f"event={number};", "filler": "course=media-101;" * 24},
    }
