"""`ci-bridge run` with nothing to do: what it costs, how often it wakes, and what it holds."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.celery_peer import Celery
from benchmarks.deliveries import SECRET, rules_text
from benchmarks.machine import Bench, Missing, Stores, free_port
from benchmarks.report import Line, at_most, noted
from bridge.record.database import Database
from bridge.simulator.ci import DEMO_SECRET_ID, DEMO_SECRET_KEY, CiSimulator

_SETTLED_S, _WINDOW_S = 10, 60
_MOST_CPU, _MOST_MB = 0.6, 100
_SLEPT = re.compile(r"^voluntary_ctxt_switches:\s*(\d+)", re.MULTILINE)  # each time a thread slept, and was woken


@dataclass(frozen=True, slots=True)
class _Use:
    cpu_s: float
    wakes: int
    resident_mb: float


def measure(bench: Bench, stores: Stores, _rounds: int) -> list[Line]:
    """Measure all of them in the same minute: what disturbs one disturbs the others."""
    if importlib.util.find_spec("psutil") is None:
        raise Missing("psutil is not installed: pip install psutil")
    with ExitStack() as stack:
        ci = stack.enter_context(CiSimulator())
        databases = {kind: stack.enter_context(stores.empty(kind)) for kind in stores.kinds}
        stack.callback(bench.stop_all)  # before the databases go
        celery = Celery(bench)
        children = {"Celery": celery.work()}
        for kind, database in databases.items():
            children[kind] = _run(bench, database, ci.url)
        time.sleep(_SETTLED_S)
        trees = {name: _tree(child.pid) for name, child in children.items()}
        trees["Celery"] += _tree(celery.redis.pid)
        before = {name: _use(tree) for name, tree in trees.items()}
        time.sleep(_WINDOW_S)
        after = {name: _use(tree) for name, tree in trees.items()}
    used = {name: _between(before[name], after[name]) for name in trees}
    return [line for kind in stores.kinds for line in _lines(kind, used)]


def _run(bench: Bench, database: str, ci_url: str) -> subprocess.Popen[bytes]:
    """Start the bridge as a user does, web and worker in one, with one watch where nothing happens."""
    db = Database(database)
    db.upgrade()
    db.close()
    environ = {
        "DATABASE_URL": database,
        "BRIDGE_RULES_TOML": rules_text("http://127.0.0.1:1/"),
        "TENCENTCLOUD_SECRET_ID": DEMO_SECRET_ID,
        "TENCENTCLOUD_SECRET_KEY": DEMO_SECRET_KEY,
        "BRIDGE_CI_ENDPOINT": ci_url,
        "SECRET": SECRET,
        "PORT": str(port := free_port()),
    }
    return bench.start([sys.executable, "-m", "bridge", "run"], port=port, environ=environ)


def _lines(kind: str, used: dict[str, _Use]) -> list[Line]:
    ours, peer = used[kind], used["Celery"]
    return [
        at_most(
            _MOST_CPU,
            f"CPU at rest, {kind}",
            "ms/s",
            ours=[1000 * ours.cpu_s / _WINDOW_S],
            peer_name="Celery and Redis",
            peer=[1000 * peer.cpu_s / _WINDOW_S],
        ),
        at_most(
            1,
            f"resident memory at rest, {kind}",
            "MB",
            ours=[ours.resident_mb],
            peer_name="the bound",
            peer=[_MOST_MB],
        ),
        noted(
            f"wake-ups at rest, {kind}",
            "1/s",
            ours=[ours.wakes / _WINDOW_S],
            peer_name="Celery and Redis",
            peer=[peer.wakes / _WINDOW_S],
        ),
    ]


def _tree(pid: int) -> list[Any]:
    root = importlib.import_module("psutil").Process(pid)
    return [root, *root.children(recursive=True)]


def _use(tree: list[Any]) -> _Use:
    return _Use(
        # In nanoseconds: the clock ticks of /proc/*/stat are too coarse for a minute of idling.
        cpu_s=sum(int(text.split()[0]) for text in _of_threads(tree, "schedstat")) / 1e9,
        wakes=sum(int(slept) for text in _of_threads(tree, "status") for slept in _SLEPT.findall(text)),
        resident_mb=sum(process.memory_info().rss for process in tree) / 1e6,
    )


def _of_threads(tree: list[Any], name: str) -> Iterator[str]:
    for process in tree:
        for file in Path(f"/proc/{process.pid}/task").glob(f"*/{name}"):
            with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
                yield file.read_text()


def _between(before: _Use, after: _Use) -> _Use:
    return _Use(cpu_s=after.cpu_s - before.cpu_s, wakes=after.wakes - before.wakes, resident_mb=after.resident_mb)
