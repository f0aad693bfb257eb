"""`simulate`: the stand-in for the CI API by itself, with jobs that live."""

from __future__ import annotations

import random
import signal
import threading
from contextlib import ExitStack

import click

from bridge.cli.common import fail, plainly
from bridge.simulator.ci import DEMO_SECRET_ID, DEMO_SECRET_KEY, CiSimulator
from bridge.simulator.jobs import Director


@click.command()
@click.option("--port", default=8900, show_default=True, help="Where to listen on 127.0.0.1; 0 takes a free port.")
@click.option("--bucket", default="media-1250000000", show_default=True, help="Where the jobs are.")
@click.option(
    "--tag",
    "tags",
    multiple=True,
    help="Tags of the jobs; may be given again.  [default: Transcode, Snapshot, SpeechRecognition]",
)
@click.option("--every", "every_s", default=4.0, show_default=True, help="Seconds between new jobs, on average.")
@click.option("--speed", default=1.0, show_default=True, help="How many times as fast the jobs live.")
@click.option("--seed", default=None, type=int, help="The same lives again.")
@plainly
def simulate(port: int, bucket: str, tags: tuple[str, ...], every_s: float, speed: float, seed: int | None) -> None:
    """Run a stand-in for the CI API, to try rules.toml against. It checks signatures and pages like CI.

    \b
    Example, in two terminals:
      ci-bridge simulate --speed 5
      TENCENTCLOUD_SECRET_ID=... TENCENTCLOUD_SECRET_KEY=... BRIDGE_CI_ENDPOINT=... ci-bridge run
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with ExitStack() as stack:
        try:
            ci = stack.enter_context(CiSimulator(port=port, buckets={bucket}))
        except OSError as error:
            fail(f"ci-bridge: cannot listen on 127.0.0.1:{port}: {error.strerror}; give a free --port, or 0")
        click.echo("The bridge finds it with:")
        click.echo(f"  export BRIDGE_CI_ENDPOINT={ci.url}")
        click.echo(f"  export TENCENTCLOUD_SECRET_ID={DEMO_SECRET_ID} TENCENTCLOUD_SECRET_KEY={DEMO_SECRET_KEY}")
        click.echo(f"Jobs appear in {bucket}. Ctrl-C ends it.")
        lives = Director(
            ci,
            random=random.Random(seed),  # noqa: S311  (lives of made-up jobs)
            bucket=bucket,
            tags=tags or ("Transcode", "Snapshot", "SpeechRecognition"),
            queues=("p2242ab62c7c94486915508540933a2c6", "p11223344556677889900aabbccddeeff"),
            every_s=every_s,
            speed=speed,
        )
        with lives:
            stop.wait()
