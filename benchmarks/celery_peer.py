"""Celery with Redis as a peer: a prefork worker of two, which acknowledges late."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterable

from benchmarks.machine import Bench, Missing, free_port, program


class Celery:
    """A Redis of its own; tasks are put before the worker starts, so that only the draining is measured."""

    def __init__(self, bench: Bench) -> None:
        if not (importlib.util.find_spec("celery") and importlib.util.find_spec("redis")):
            raise Missing("Celery is not installed: pip install 'celery[redis]'")
        redis, port = program("redis-server", "redis-server"), free_port()
        self._bench = bench
        self._broker = f"redis://127.0.0.1:{port}/0"
        arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.redis = bench.start([redis, *arguments, "--dir", str(bench.directory)], port=port)
        self.worker: subprocess.Popen[bytes] | None = None

    def put(self, url: str, bodies: Iterable[str]) -> None:
        import celery

        app = celery.Celery("put", broker=self._broker)
        with app.producer_pool.acquire() as producer:
            for number, body in enumerate(bodies):
                app.send_task("deliver", (url, f"msg_{number:012}", body), producer=producer, ignore_result=True)
        app.close()

    def work(self) -> subprocess.Popen[bytes]:
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING"]
        command = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "benchmarks.celery_tasks",
            "worker",
            "-P",
            "prefork",
            "-c",
            "2",
        ]
        self.worker = self._bench.start([*command, *quiet], environ={"BENCH_BROKER": self._broker})
        return self.worker

    def stop(self) -> None:
        if self.worker:
            self._bench.stop(self.worker)
        self._bench.stop(self.redis)
