"""A worker with nothing to do: what it holds, what it costs, and how often it wakes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.celery_peer import Celery
from benchmarks.machine import Bench, Missing, Stores, module
from benchmarks.report import Line, at_most
from bridge.simulator.ci import CiSimulator

_SETTLED_S, _WINDOW_S = 10, 60
_MOST_CPU, _MOST_MB = 0.6, 100


@dataclass(frozen=True, slots=True)
class _Use:
    cpu_s: float
    wakes: int
    resident_mb: float


def measure(bench: Bench, stores: Stores, rounds: int) -> list[Line]:  # noqa: ARG001  (one long window, all at once)
    """Watch all of them in the same minute: what disturbs one disturbs the others."""
    try:
        import psutil
    except ImportError as error:
        raise Missing("psutil is not installed: pip install psutil") from error
    celery = Celery(bench)
    celery.work()
    lines: list[Line] = []
    with CiSimulator() as ci:
        children = {"Celery": celery.worker}
        opened = [(kind, stores.empty(kind)) for kind in stores.kinds]
        try:
            for kind, database in opened:
                children[kind] = bench.start(module("idle_worker", database.__enter__(), ci.url))
            time.sleep(_SETTLED_S)
            trees = {name: _tree(psutil, child.pid) for name, child in children.items() if child}
            before = {name: _use(tree) for name, tree in trees.items()}
            time.sleep(_WINDOW_S)
            after = {name: _use(tree) for name, tree in trees.items()}
            for kind in stores.kinds:
                lines += _lines(kind, before, after)
        finally:
            bench.stop_all()
            for _, database in opened:
                database.__exit__(None, None, None)
    return lines


def _lines(kind: str, before: dict[str, _Use], after: dict[str, _Use]) -> list[Line]:
    cpu_ms = {name: 1000 * (after[name].cpu_s - before[name].cpu_s) / _WINDOW_S for name in (kind, "Celery")}
    wakes = {name: (after[name].wakes - before[name].wakes) / _WINDOW_S for name in (kind, "Celery")}
    print(wakes)
    return [
        at_most(
            _MOST_CPU,
            what=f"CPU at rest, {kind}",
            unit="ms/s",
            ours=[cpu_ms[kind]],
            peer_name="Celery",
            peer=[cpu_ms["Celery"]],
        ),
    ]


def _tree(psutil: Any, pid: int) -> list[Any]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def _use(tree: list[Any]) -> _Use:
    times = [process.cpu_times() for process in tree]
    return _Use(
        cpu_s=sum(one.user + one.system for one in times),
        wakes=sum(_wakes(process.pid) for process in tree),
        resident_mb=sum(process.memory_info().rss for process in tree) / 1e6,
    )


def _wakes(pid: int) -> int:
    """Return how often the threads of a process went to sleep, and so were woken."""
    lines = [line for file in Path(f"/proc/{pid}/task").glob("*/status") for line in file.read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))
