"""`demo`: the real bridge against a simulated CI, a webhook receiver and a Slack look-alike, all on this machine."""

from __future__ import annotations

import logging
import random
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

import bridge
from bridge import settings as environment
from bridge.cli.common import plainly, some
from bridge.decide.rules.rulebook import Rulebook
from bridge.record.database import Database
from bridge.record.queries import gauges, lists
from bridge.record.queries.lists import Facts, Filter
from bridge.simulator.ci import DEMO_SECRET_ID, DEMO_SECRET_KEY, CiSimulator
from bridge.simulator.jobs import Director
from bridge.simulator.receiver import Received, WebhookReceiver
from bridge.simulator.slack import DEMO_TOKEN, SlackLookAlike
from bridge.simulator.web import Answer, text_answer
from bridge.wiring import parts
from bridge.wiring.rules import Rules
from bridge.wiring.web import served, web_app
from bridge.wiring.worker import Worker

_SECRET = f"whsec_{b64encode(b'known to all, on 127.0.0.1 only').decode()}"
_ADMIN_TOKEN = "demo"  # noqa: S105  (likewise)
_JOBS = 12
_LONGEST_S = 26.0  # the whole demo ends within half a minute
_SEED = 8


@click.command()
@click.option("--serve", is_flag=True, help="Keep running, with the dashboard and the admin API, until Ctrl-C.")
@plainly
def demo(serve: bool) -> None:
    """See it work: jobs move in a simulated CI, and Slack and a webhook hear of it.

    No account, no set-up; everything is on this machine and gone afterwards. Ends within 30 s, unless --serve.

    \b
    Examples:
      ci-bridge demo
      ci-bridge demo --serve
    """
    logging.getLogger("bridge").setLevel(logging.CRITICAL)  # the demo tells the story itself
    with ExitStack() as stack:
        stage = _Stage(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ci-bridge-"))), stack)
        stage.open()
        try:
            stage.play(_LONGEST_S if not serve else None)
        except KeyboardInterrupt:
            click.echo()
        failed = stage.summary()
    sys.exit(1 if failed else 0)


class _Stage:
    """The stand-ins, the bridge between them, and what is printed."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._stack = stack
        self._ci = stack.enter_context(CiSimulator())
        self._slack = stack.enter_context(SlackLookAlike())
        self._busy = _BusyOnce()
        self._receiver = stack.enter_context(WebhookReceiver(secrets=[_SECRET], answer=self._busy))
        environ = {
            "DATABASE_URL": f"sqlite:///{folder / 'bridge.db'}",
            "TENCENTCLOUD_SECRET_ID": DEMO_SECRET_ID,
            "TENCENTCLOUD_SECRET_KEY": DEMO_SECRET_KEY,
            "BRIDGE_CI_ENDPOINT": self._ci.url,
            "BRIDGE_ALLOW_NETWORKS": "127.0.0.0/8",
            "BRIDGE_RULES": str(_example()),
            "BRIDGE_ADMIN_TOKEN": _ADMIN_TOKEN,
            "SLACK_API_URL": self._slack.api_url,
            "SLACK_BOT_TOKEN": DEMO_TOKEN,
            "CMS_URL": f"{self._receiver.url}/hooks/media",
            "CMS_SECRET": _SECRET,
        }
        self._settings = environment.read(environ)
        self._rules = Rules(self._settings, environ, adjust=_every_second)
        self._db: Database = parts.database(self._settings)
        self._seen = 0
        self._posts = 0
        self._hooks = 0

    def open(self) -> None:
        stack, db = self._stack, self._db
        stack.callback(db.close)
        db.require_schema()
        parts.sync(db, self._rules.book)
        click.echo(f"A simulated CI on {self._ci.url}, a webhook receiver and a Slack look-alike beside it.")
        click.echo(f"The rules are those of {_example().name}; SQLite is in a temporary folder.\n")
        stack.enter_context(_working(Worker(self._settings, self._rules, db)))

    def play(self, seconds: float | None) -> None:
        """Let jobs live and print what happens, until all is told, or for ever without `seconds`."""
        until = time.monotonic() + seconds if seconds else float("inf")
        self._await_first_poll(until)
        if seconds is None:
            self._serve()
        place = self._rules.book.watches[0]
        tags = [stream.tag for stream in place.streams]
        lives = Director(
            self._ci,
            random=random.Random(_SEED),  # noqa: S311  (a story, not a secret)
            bucket=place.place.bucket,
            tags=tags,
            queues=[*self._rules.book.queue_names, "p11223344556677889900aabbccddeeff"],
            every_s=0.5 if seconds else 8.0,
            speed=4 if seconds else 1,
            limit=_JOBS if seconds else None,
        )
        with lives:
            while time.monotonic() < until and not (lives.idle and self._is_all_told(lives.born)):
                self._print_news()
                time.sleep(0.1)
        self._print_news()

    def _await_first_poll(self, until: float) -> None:
        while time.monotonic() < until:
            with self._db.read() as tx:
                if all(watch["ok_at"] for watch in gauges.read_watches(tx)):
                    return
            time.sleep(0.05)

    def _serve(self) -> None:
        app = web_app(self._settings, self._rules, self._db)
        port = self._stack.enter_context(served(app, host="127.0.0.1", port=0))
        click.echo(f'Dashboard: http://127.0.0.1:{port}/ (the token is "{_ADMIN_TOKEN}")')
        click.echo(f"Admin API: curl -H 'Authorization: Bearer {_ADMIN_TOKEN}' http://127.0.0.1:{port}/api/v1/jobs")
        click.echo("Ctrl-C ends it.\n")

    def _is_all_told(self, born: list[str]) -> bool:
        with self._db.read() as tx:
            jobs = {job["id"]: job["state"] for job in lists.find_jobs(tx, Filter(), limit=500).items}
            waiting = sum(n["waiting"] + n["sending"] for n in gauges.read_notifiers(tx))
        return not waiting and all(jobs.get(job) == self._ci.history(job)[-1] for job in born)

    def _print_news(self) -> None:
        with self._db.read() as tx:
            steps = lists.find_transitions(tx, Filter(), limit=500).items
        for step in reversed([step for step in steps if step["n"] > self._seen]):
            self._seen = step["n"]
            _say("job", f"{step['tag']} {step['job'][:9]}… {step['from']} -> {step['to']}")
        posts, hooks = self._slack.posts, self._receiver.received
        for post in posts[self._posts :]:
            _say("slack", " — ".join(self._slack.render(post).splitlines()[:2]))
        for hook in hooks[self._hooks :]:
            again = "; answered 503 on purpose, so it comes again" if hook.at == self._busy.refused else ""
            _say("webhook", _hook_line(hook) + again)
        self._posts, self._hooks = len(posts), len(hooks)

    def summary(self) -> int:
        """Print what came of every delivery; return how many have not arrived."""
        with self._db.read() as tx:
            jobs = lists.find_jobs(tx, Filter(), limit=500).items
            steps = lists.find_transitions(tx, Filter(), limit=500).items
            told = lists.find_deliveries(tx, Filter(), limit=500).items
        late = [one for one in told if one["state"] != "sent"]
        click.echo(f"\n{len(jobs)} jobs, {len(steps)} transitions, {len(told)} deliveries, {len(late)} not arrived:")
        for one in reversed(told):
            click.echo(f"  {_outcome(one)}")
        return len(late)


def _outcome(one: Facts) -> str:
    tries = some(one["attempts"], "try", "tries")
    why = f": {one['why']}" if one["why"] else ""
    what = f"{one['id']}  {one['notifier']:<4} {one['rule']:<9} {(one['job'] or '')[:9]}… {one['tells']:<8}"
    return f"{what} {one['state']}, {tries}{why}"


def _hook_line(hook: Received) -> str:
    said = hook.json or {}
    signed = "signature verified" if hook.verified else f"REFUSED: {hook.fault}"
    return f"{said.get('type')} {str(said.get('subject'))[:9]}… {signed} ({(hook.id or '')[:12]}…)"


def _say(who: str, what: str) -> None:
    click.echo(f"{datetime.now(UTC):%H:%M:%S}  {who:<8} {what}")


class _BusyOnce:
    """Answers the second request with 503: the bridge tries again, under the same id."""

    def __init__(self) -> None:
        self._asked = 0
        self.refused: float | None = None  # when

    def __call__(self, received: Received) -> Answer | None:
        self._asked += 1
        if self._asked != 2:
            return None
        self.refused = received.at
        return text_answer("busy, try again", status=503)


def _every_second(book: Rulebook) -> Rulebook:
    return replace(book, watches=tuple(replace(watch, every=timedelta(seconds=1)) for watch in book.watches))


def _example() -> Path:
    """Return the commented example: beside the package in a checkout, inside it when installed."""
    package = Path(bridge.__file__).parent
    inside = package / "rules.toml"
    return inside if inside.exists() else package.parent / "rules.toml"


@contextmanager
def _working(worker: Worker) -> Iterator[None]:
    thread = threading.Thread(target=worker.run, name="worker")
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join()
