"""What each spelling of a forbidden address comes to in the HTTP client: python -m benchmarks.egress [--json].

libcurl and the system turn the spelling into an address, the door judges it, and nothing is ever connected to.
The exit status is 1 when any was let through, 2 when libcurl made no address of any: then nothing was judged.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict

from tests.send.probes import ROUTES, Finding, findings
from tests.send.spellings import SPELLINGS, Spelling

PORT = 80


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.egress", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    found = [(spelling, tuple(findings(spelling.at(PORT)))) for spelling in SPELLINGS]
    every = [finding for _, each in found for finding in each]
    if options.json:
        print(json.dumps([asdict(f) | {"kind": s.kind, "held": f.held} for s, each in found for f in each], indent=2))
    else:
        print(_table(found))
        print(f"\n{len(found)} spellings on {len(ROUTES)} ways out ({', '.join(ROUTES)}): {_counts(found)}")
    if not all(finding.held for finding in every):
        return 1
    return 0 if any(finding.addresses for finding in every) else 2


def _table(found: Sequence[tuple[Spelling, tuple[Finding, ...]]]) -> str:
    rows: list[tuple[str, ...]] = [("kind", "spelling", "libcurl made of it", *ROUTES, "why")]
    for spelling, each in found:
        addresses = dict.fromkeys(address for finding in each for address in finding.addresses)
        whys = dict.fromkeys(finding.why for finding in each)
        made = ", ".join(addresses) or "-"
        rows.append((spelling.kind, _visible(spelling.at(PORT)), made, *map(_verdict, each), " / ".join(whys)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([cell.ljust(n) for cell, n in zip(row, widths, strict=False)] + [row[-1]]) for row in rows
    )


def _verdict(finding: Finding) -> str:
    if not finding.held:
        return "LET THROUGH"
    return "refused" if finding.addresses else "no address"


def _counts(found: Sequence[tuple[Spelling, tuple[Finding, ...]]]) -> str:
    verdicts = [_verdict(finding) for _, each in found for finding in each]
    return ", ".join(f"{verdicts.count(one)} {one}" for one in ("refused", "no address", "LET THROUGH"))


def _visible(url: str) -> str:
    return json.dumps(url)[1:-1]


if __name__ == "__main__":
    logging.disable()  # what slack-sdk cannot use is logged with its traceback
    sys.exit(main())
