"""`rules show` and `rules history`: the rules in force, and those of before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from difflib import unified_diff

import click

from bridge.cli.common import Facts, echo, echo_json, echo_table, fail, json_option, open_database
from bridge.cli.tables import times_options
from bridge.decide.text.times import iso
from bridge.record import rulesets
from bridge.record.rulesets import RulesVersion

_NOT_KEPT = "the file of {} is not on record: an older version of ci-bridge put it in force"


@click.command(short_help="Print the rules in force, or those of before.")
@click.argument("sha", required=False)
@json_option
def show(sha: str | None, as_json: bool) -> None:
    """Print the file of the rules in force, or of those with this SHA. What may be secret in it is ***.

    \b
    Examples:
      ci-bridge rules show
      ci-bridge rules show 3f2a9c51d04e > before.toml
    """
    with open_database().read() as tx:
        sha = sha or rulesets.in_force(tx)
        if sha is None:
            fail("no rules are in force yet: a worker puts rules.toml in force when it starts")
        _place(rulesets.versions(tx), sha)
        source = rulesets.source_of(tx, sha)
    if source is None:
        fail(_NOT_KEPT.format(sha))
    if as_json:
        echo_json({"sha": sha, "toml": source})
    else:
        echo(source.removesuffix("\n"))


@click.command(short_help="List the rules that were in force, and what changed.")
@click.option("--diff", "sha", metavar="SHA", help="Print what changed when these rules came into force.")
@times_options
@json_option
def history(sha: str | None, as_json: bool) -> None:
    """List the rules that are or were in force, the last first, with when they came into force.

    \b
    Examples:
      ci-bridge rules history
      ci-bridge rules history --diff 3f2a9c51d04e
    """
    with open_database().read() as tx:
        found = rulesets.versions(tx)
        pair = found[(place := _place(found, sha)) : place + 2] if sha else []
        sources = [rulesets.source_of(tx, one.sha) for one in pair]
    if sha:
        _echo_difference(pair, sources, as_json=as_json)
        return
    facts = [asdict(one) | {"accepted_at": iso(one.accepted_at), "used_at": iso(one.used_at)} for one in found]
    if as_json:
        echo_json(facts)
    else:
        rows = [one | {"state": "in force" if one["in_force"] else None} for one in facts]
        echo_table(rows, ("sha", "state", "accepted_at", "used_at"), empty="no rules have been in force yet")


def _place(found: Sequence[RulesVersion], sha: str) -> int:
    place = next((place for place, one in enumerate(found) if one.sha == sha), None)
    if place is None:
        fail(f'no rules "{sha[:100]}" are on record (ci-bridge rules history)')
    return place


def _echo_difference(pair: Sequence[RulesVersion], sources: Sequence[str | None], *, as_json: bool) -> None:
    """Print how the first of two versions differs from the second, which was in force before it."""
    if len(pair) < 2:
        fail(f"{pair[0].sha} is the first on record: there is nothing to compare it with (ci-bridge rules show)")
    for one, source in zip(pair, sources, strict=True):
        if source is None:
            fail(_NOT_KEPT.format(one.sha))
    new, old = ((source or "").splitlines() for source in sources)
    lines = list(unified_diff(old, new, pair[1].sha, pair[0].sha, lineterm=""))
    if as_json:
        facts: Facts = {"sha": pair[0].sha, "before": pair[1].sha, "diff": "\n".join(lines)}
        echo_json(facts)
    else:
        echo("\n".join(lines) or "no difference but in what is masked")
