"""Measure the bridge beside its peers: python -m benchmarks [WHICH] [--json]; --help names them."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.machine import Missing, Stores, bench, reachable
from benchmarks.report import Line, as_json, as_table

_ALL = ("ingest", "deliver", "latency", "idle", "retention", "fairness", "rules")
_ALONE = ("pages", "slack", "freshness", "incidents")  # take long, so they are no part of "all"
_SCENARIOS = ("living", "shared", "storm", "kills")
_POSTGRES = "postgresql://postgres@127.0.0.1:5432/postgres"
_MORE = """
ingest    a page of CI's list to a stored snapshot, beside the official SDK's parsing of it
deliver   a filled outbox to a receiver, beside Alertmanager and Celery with Redis
latency   one event, from handing it over until the receiver has it, beside Alertmanager
idle      what a worker with nothing to do costs, beside Celery's
retention a claim beside a million deliveries that were sent, against one in an empty table; and pruning them
fairness  how old deliveries to live receivers get beside a dead one with 100,000 waiting, against none waiting
rules     matching with a thousand rules, against ten; and stored transitions put through them again
slack     messages that show each job's state, a storm, and kills, within Slack's limits; alone, as it takes minutes
freshness how soon states of a simulated day are known, with how many calls, beside a poller that lists all of it
incidents what rules over several jobs cost at the end of a poll, beside a million transitions and 10,000 open keys
pages     every list, detail and page beside a million jobs, against a handful; alone, as it takes minutes to fill

Peers come from `pip install --group bench` and from Debian: nginx-light, redis-server, prometheus-alertmanager.
All traffic stays on this machine. Only ratios of one run mean something: the same code differs by a factor of
two between minutes. The exit status is 1 when a target was not met, 2 when something was missing.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    names = _ALL if options.which == "all" else (options.which,)
    lines: list[Line] = []
    missing: list[str] = []
    postgres = _optional(options.postgres, missing)
    for name in names:
        found, why = _measure(name, postgres, options)
        lines += found
        missing += [f"{name}: {why}"] if why else []
        if found and not options.json:
            print(as_table(found), end="\n\n", flush=True)
    if options.json:
        print(as_json(lines))
    for why in missing:
        print(f"left out: {why}", file=sys.stderr)
    if missing:
        return 2
    return 0 if all(line.met is not False for line in lines) else 1


def _measure(name: str, postgres: str | None, options: argparse.Namespace) -> tuple[list[Line], str | None]:
    measure = importlib.import_module(f"benchmarks.{name}").measure
    try:
        with bench() as made:
            return measure(made, Stores(made, postgres), options.rounds, **_more(name, options)), None
    except Missing as why:
        return [], str(why)


def _more(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return what else a benchmark takes."""
    if name == "slack":
        return {"scenarios": options.scenarios or _SCENARIOS, "databases": options.databases or ["SQLite"]}
    return {"jobs": options.jobs, "sqlite": options.sqlite, "keep": options.keep} if name == "pages" else {}


def _optional(postgres: str, missing: list[str]) -> str | None:
    try:
        return reachable(postgres)
    except Missing as why:
        missing.append(str(why))
        return None


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the bridge beside its peers, in the same minutes on the same machine.",
        epilog=_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("which", nargs="?", choices=(*_ALL, *_ALONE, "all"), default="all", help="default: all")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--rounds", type=int, default=3, help="ours and the peers take turns so often (default: 3)")
    parser.add_argument(
        "--postgres",
        metavar="URL",
        default=os.environ.get("BENCH_POSTGRES", _POSTGRES),
        help=f"a server where databases may be created and dropped (BENCH_POSTGRES; default: {_POSTGRES})",
    )
    pages = parser.add_argument_group("for pages")
    pages.add_argument("--sqlite", action="store_true", help="measure on SQLite too")
    pages.add_argument("--jobs", type=int, default=1_000_000, help="how many (default: 1,000,000; at least 20,000)")
    pages.add_argument("--keep", metavar="NAME", help="leave the filled PostgreSQL database under this name, or use it")
    slack = parser.add_argument_group("for slack, which makes one round")
    slack.add_argument(
        "--scenario",
        dest="scenarios",
        action="append",
        choices=_SCENARIOS,
        help="only this one; may be given again (default: all)",
    )
    slack.add_argument(
        "--database",
        dest="databases",
        action="append",
        choices=("SQLite", "PostgreSQL"),
        help="on this one; may be given again (default: SQLite)",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
