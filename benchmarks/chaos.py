"""Kill workers, hundreds of times, at every point there is, and count: python -m benchmarks.chaos --kills 500

Everything is real: worker processes, SIGKILL, SQLite or PostgreSQL, HTTP; all of it on this machine. The exit status is
1 when anything was lost, invented, out of order or renamed, or more was repeated after one kill than the window allows.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import Missing, Stores, bench, reachable
from bridge.pipeline.dispatch import WINDOW
from bridge.record.database import Database
from tests.crash.laboratory import WIDE_RULES, Laboratory
from tests.crash.ledger import Balance
from tests.crash.points import ALL
from tests.support.stage import Stage

_POSTGRES = "postgresql://postgres@127.0.0.1:5432/postgres"
_WITH_TWO = 4  # every fourth kill is of one of two workers
_BUSY = 0.01  # of the requests are answered 503 once
_SAY_EVERY_S = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    try:
        postgres = reachable(options.postgres) if "PostgreSQL" in options.databases else None
    except Missing as why:
        print(why, file=sys.stderr)
        return 2
    found: list[dict[str, Any]] = []
    with bench() as made:
        stores = Stores(made, postgres)
        for kind in options.databases:
            with stores.empty(kind) as url:
                folder = made.directory / kind
                folder.mkdir()
                found.append(_run(kind, folder, url, options))
    print(json.dumps(found, indent=2) if options.json else _tables(found))
    return 0 if all(one["passed"] for one in found) else 1


def _run(kind: str, folder: Path, url: str, options: argparse.Namespace) -> dict[str, Any]:
    began = time.monotonic()
    db = Database(url)
    db.upgrade()
    db.close()
    with Stage(folder, url, rules=WIDE_RULES) as stage:
        laboratory = Laboratory(stage, seed=options.seed, new_jobs=options.jobs, busy=_BUSY)
        first = stage.start_worker()
        stage.await_first_poll()
        stage.stop(first)
        say_at = time.monotonic() + _SAY_EVERY_S
        for number in range(options.kills):
            laboratory.kill(ALL[number % len(ALL)], beside=number % _WITH_TWO == _WITH_TWO - 1)
            if time.monotonic() > say_at:
                print(f"{kind}: {number + 1} of {options.kills} kills", file=sys.stderr)
                say_at = time.monotonic() + _SAY_EVERY_S
        balance = laboratory.settle(within_s=900)
        points = _by_point(laboratory, balance)
    return _facts(kind, balance, points, time.monotonic() - began)


def _by_point(laboratory: Laboratory, balance: Balance) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for number, kill in enumerate(laboratory.kills):
        repeated = balance.repeated_after[number]
        row = found[kill.point]
        row["kills"] += 1
        row["point reached"] += kill.as_planned
        row["repeated"] += repeated
        row["most after one"] = max(row["most after one"], repeated)
    return {point: dict(found[point]) for point in ALL if point in found}


def _facts(kind: str, balance: Balance, points: dict[str, dict[str, int]], seconds: float) -> dict[str, Any]:
    return {
        "database": kind,
        "kills": sum(row["kills"] for row in points.values()),
        "seconds": round(seconds),
        "transitions": balance.transitions,
        "deliveries": balance.deliveries,
        "transitions lost": len(balance.transitions_lost),
        "transitions invented": len(balance.transitions_invented),
        "deliveries lost": len(balance.deliveries_lost),
        "deliveries invented": len(balance.deliveries_invented),
        "sent in digests": balance.owed.merged.total(),
        "lost by digests and throttles": len(balance.owed.held_lost),
        "sent twice by them": len(balance.owed.held_doubled),
        "digests with wrong contents": len(balance.owed.digests_wrong),
        "overdue jobs notified": balance.owed.alarms,
        "overdue jobs lost": len(balance.owed.alarms_lost),
        "overdue jobs invented": len(balance.owed.alarms_invented),
        "out of order": len(balance.out_of_order),
        "repeated under another id or body": len(balance.renamed),
        "repeated under the same id": balance.repeated,
        "most repeated after one kill": balance.most_repeated,
        "window": WINDOW,
        "points": points,
        "passed": not balance.faults and balance.most_repeated <= WINDOW,
        "faults": {name: some[:10] for name, some in balance.faults.items()},
    }


def _tables(runs: Sequence[dict[str, Any]]) -> str:
    """Return the tables of docs/guarantees.md, and what was wrong."""
    names = [name for name, value in runs[0].items() if type(value) is int and name not in ("seconds", "window")]
    databases = [run["database"] for run in runs]
    said = [_row("", databases), _rule(1 + len(runs))]
    said += [_row(name, (run[name] for run in runs)) for name in names]
    columns = [(run, column) for run in runs for column in ("point reached", "repeated", "most after one")]
    heads = [f"{run['database']}: {name}" if name == "point reached" else name for run, name in columns]
    said += ["", _row("killed at", ["kills", *heads]), _rule(2 + len(columns))]
    for point, row in runs[0]["points"].items():
        said.append(_row(point, [row["kills"], *(run["points"][point][column] for run, column in columns)]))
    said += [f"\n{run['database']}, {name}: {some}" for run in runs for name, some in run["faults"].items()]
    return "\n".join(said)


def _row(name: str, cells: Iterable[object]) -> str:
    shown = (f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells)
    return f"| {' | '.join((name, *shown))} |".replace("|  |", "| |")


def _rule(columns: int) -> str:
    return f"|{' --- |' * columns}"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=500, help="on each database (default: 500)")
    parser.add_argument("--jobs", type=int, default=7, help="new ones before each kill (default: 7)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--database",
        dest="databases",
        action="append",
        choices=("SQLite", "PostgreSQL"),
        help="only this one; may be given again (default: both)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--postgres",
        metavar="URL",
        default=os.environ.get("BENCH_POSTGRES", _POSTGRES),
        help=f"a server where databases may be created and dropped (BENCH_POSTGRES; default: {_POSTGRES})",
    )
    options = parser.parse_args(arguments)
    options.databases = options.databases or ["SQLite", "PostgreSQL"]
    return options


if __name__ == "__main__":
    sys.exit(main())
