"""`jobs tell`: what no rule told, told by hand."""

from __future__ import annotations

import click

from bridge.cli.common import everything, json_option, operations, plainly, say, say_json
from bridge.cli.lists import jobs

__all__ = ["jobs"]


@jobs.command("tell")
@click.argument("job_id")
@click.option("--notifier", required=True, metavar="NAME", help="Whom to tell.")
@click.option("--sequence", type=click.IntRange(1), metavar="N", help="Which transition.  [default: the last]")
@click.option("--bucket", help="The job of this bucket: ids of two buckets may clash.")
@json_option
@plainly
def notify(job_id: str, notifier: str, sequence: int | None, bucket: str | None, as_json: bool) -> None:
    """Tell a notifier of a transition by hand, as when no rule matched or a mute dropped it.

    No mute, silence or throttle holds it. `rules explain JOB_ID` says who was told, and why nobody else.

    \b
    Examples:
      ci-bridge jobs tell j8d121820f5e411ec926ef19d53ba9c6f --notifier cms
      ci-bridge jobs tell j8d121820f5e411ec926ef19d53ba9c6f --notifier cms --sequence 2
    """
    _, rules, db = everything(polls=False)
    new = operations(db).notify(rules.book, job_id=job_id, notifier=notifier, bucket=bucket, sequence=sequence)
    if as_json:
        say_json({"delivery": new.delivery, "waits": new.waits})
    else:
        say(f"{new.delivery} is for {notifier}, and a worker sends it")
    if new.waits:
        say(new.waits, err=True)
