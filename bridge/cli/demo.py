"""The bridge without an account, with stand-ins for CI, a receiver and a chat: `demo` whole, `simulate` these alone."""

from __future__ import annotations

import logging
import random
import shlex
import signal
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from bridge import settings as settings_module
from bridge.cli.common import Facts, count_of, fail, json_option
from bridge.cli.init import shipped
from bridge.cli.report import Load
from bridge.cli.report import report as report_figures
from bridge.decide.text.times import duration
from bridge.record.queries import gauges, lists
from bridge.record.queries.lists import Filter
from bridge.send.slack.blocks import read
from bridge.simulator.callbacks import CallbackSender, Format
from bridge.simulator.ci import DEMO_SECRET_ID, DEMO_SECRET_KEY, CiSimulator
from bridge.simulator.jobs import Director
from bridge.simulator.receiver import Received, WebhookReceiver
from bridge.simulator.robots import CHATS
from bridge.simulator.slack import DEMO_TOKEN, Limits, SlackLookAlike
from bridge.simulator.web import Answer, WebServer, text_answer
from bridge.wiring import parts
from bridge.wiring.rules import Rules
from bridge.wiring.web import served, web_app
from bridge.wiring.worker import Worker

_SECRET = f"whsec_{b64encode(b'known to all, on 127.0.0.1 only').decode()}"
_ADMIN_TOKEN = "demo"  # noqa: S105  (likewise)
_CALLBACK_TOKEN = "known-to-all-on-127.0.0.1"  # noqa: S105  (likewise)
_RUN_AT = "http://127.0.0.1:8000"  # where `run` serves the dashboard
_JOBS = 12
_LIMIT_S = 26.0  # the whole demo ends within half a minute
_SEED = 8
_ROBOT_URL = "ROBOT_URL"  # the variable that has a robot's address
_QUEUES = ("p2242ab62c7c94486915508540933a2c6", "p11223344556677889900aabbccddeeff")


@click.command()
@click.option("--serve", is_flag=True, help="Keep running, with the dashboard and the admin API, until Ctrl-C.")
@click.option(
    "--chat",
    type=click.Choice(["slack", *CHATS]),
    default="slack",
    show_default=True,
    help="Which chat tool people are notified in.",
)
def demo(serve: bool, chat: str) -> None:
    """See it work: jobs change in a simulated CI, and a chat tool and a webhook are notified.

    No account, no set-up; everything is on this machine and removed afterwards. Ends within 30 s without --serve.

    \b
    Examples:
      ci-bridge demo
      ci-bridge demo --serve
      ci-bridge demo --chat dingtalk
    """
    logging.getLogger("bridge").setLevel(logging.CRITICAL)  # the demo prints what happens itself
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ci-bridge-"))
        running = _Demo(Path(folder), stack, chat)
        try:
            running.play(None if serve else _LIMIT_S)
        except KeyboardInterrupt:
            click.echo()
        failed = running.summary()
    sys.exit(1 if failed else 0)


@dataclass(frozen=True, slots=True)
class _Chat:
    """A chat tool's look-alike. `said` returns its messages, oldest first; `exports` lead the bridge to it."""

    name: str
    said: Callable[[], list[str]]
    exports: Mapping[str, str]

    @classmethod
    def slack(cls, look_alike: SlackLookAlike) -> _Chat:
        exports = {"SLACK_API_URL": look_alike.api_url, "SLACK_BOT_TOKEN": DEMO_TOKEN}
        return cls(
            "slack",
            lambda: ["".join(piece.text for piece in read(post.text)) for post in look_alike.posts],
            exports,
        )

    @classmethod
    def started(cls, name: str, stack: ExitStack) -> _Chat:
        if name == "slack":
            return cls.slack(stack.enter_context(SlackLookAlike()))
        robot = stack.enter_context(CHATS[name]())
        return cls(name, lambda: [post.plain for post in robot.posts], {_ROBOT_URL: robot.webhook})


def _with_robot(rules: str, tool: str) -> str:
    """Return the example's rules, in which `ops` is a robot."""
    before, table, after = rules.partition("[notifier.ops]\n")
    rest = after.partition("\n\n")[2]
    return f'{before}{table}type = "{tool}"\nurl = {{ env = "{_ROBOT_URL}" }}\n\n{rest}'


class _Demo:
    """The stand-ins, the bridge between them, and what is printed."""

    def __init__(self, folder: Path, stack: ExitStack, chat: str) -> None:
        self._stack = stack
        self._ci = stack.enter_context(CiSimulator())
        said_in = _Chat.started(chat, stack)
        self._refused_at: float | None = None
        self._receiver = stack.enter_context(WebhookReceiver(secrets=[_SECRET], answer=self._refuse_second))
        example = shipped("rules.toml")
        environ = {
            "DATABASE_URL": f"sqlite:///{folder / 'bridge.db'}",
            "BRIDGE_RULES": str(self._rules_file(folder, example, chat)),
            "BRIDGE_ADMIN_TOKEN": _ADMIN_TOKEN,
            **_exports(self._ci, said_in, self._receiver),
        }
        self._settings = settings_module.read(environ)
        self._rules = Rules(self._settings, environ)
        watches = tuple(replace(watch, every=timedelta(seconds=1)) for watch in self._rules.book.watches)
        self._rules.book = replace(self._rules.book, watches=watches)
        self._db = parts.database(self._settings)
        stack.callback(self._db.close)
        self._db.require_schema()
        parts.sync(self._db, self._rules.book)
        self._messages = _Messages(said_in, self._receiver, self._remark)
        self._last_transition = 0  # printed so far
        click.echo(f"A simulated CI on {self._ci.url}, a webhook receiver and a look-alike of {chat} are running.")
        click.echo(f"The rules are those of {example.name}; SQLite is in a temporary folder.\n")

    @staticmethod
    def _rules_file(folder: Path, example: Path, chat: str) -> Path:
        if chat == "slack":
            return example
        rules = folder / example.name
        rules.write_text(_with_robot(example.read_text(), chat))
        return rules

    def _refuse_second(self, received: Received) -> Answer | None:
        """Answer the second request with 503: the bridge makes another attempt, under the same id."""
        if self._refused_at is not None or len(self._receiver.received) < 2:
            return None
        self._refused_at = received.at
        return text_answer("busy, try again", status=503)

    def _remark(self, hook: Received) -> str:
        return "; answered 503 on purpose, so it is sent again" if hook.at == self._refused_at else ""

    def play(self, seconds: float | None) -> None:
        """Let jobs change and print what happens until everything is delivered, or for ever without `seconds`."""
        worker = Worker(self._settings, self._rules, self._db)
        thread = threading.Thread(target=worker.run, name="worker")
        thread.start()
        self._stack.callback(thread.join)
        self._stack.callback(worker.stop)
        until = time.monotonic() + seconds if seconds else float("inf")
        while not self._is_polled() and time.monotonic() < until:
            time.sleep(0.05)
        if seconds is None:
            self._serve()
        watch = self._rules.book.watches[0]
        director = Director(
            self._ci,
            random=random.Random(_SEED),  # noqa: S311  (a story, not a secret)
            bucket=watch.place.bucket,
            tags=[stream.tag for stream in watch.streams],
            queues=[*self._rules.book.queue_names, _QUEUES[1]],
            every_s=0.5 if seconds else 8.0,
            speed=4 if seconds else 1,
            limit=_JOBS if seconds else None,
        )
        with director:
            while time.monotonic() < until and not (director.idle and self._is_delivered(director.born)):
                self._print_news()
                time.sleep(0.1)
        self._print_news()

    def _is_polled(self) -> bool:
        with self._db.read() as tx:
            return all(watch["ok_at"] for watch in gauges.read_watches(tx))

    def _serve(self) -> None:
        app = web_app(self._settings, self._rules, self._db)
        port = self._stack.enter_context(served(app, host="127.0.0.1", port=0))
        parts.share_public_url(self._db, f"http://127.0.0.1:{port}")
        click.echo(f'Dashboard: http://127.0.0.1:{port}/ (the token is "{_ADMIN_TOKEN}")')
        click.echo(f"Admin API: curl -H 'Authorization: Bearer {_ADMIN_TOKEN}' http://127.0.0.1:{port}/api/v1/jobs")
        click.echo("Press Ctrl-C to stop.\n")

    def _is_delivered(self, born: list[str]) -> bool:
        with self._db.read() as tx:
            states = {job["id"]: job["state"] for job in lists.find_jobs(tx, Filter(), limit=500).items}
            waiting = sum(notifier["waiting"] + notifier["sending"] for notifier in gauges.read_notifiers(tx))
        return not waiting and all(states.get(job) == self._ci.history(job)[-1] for job in born)

    def _print_news(self) -> None:
        with self._db.read() as tx:
            newest = lists.find_transitions(tx, Filter(), limit=500).items
        for row in reversed([row for row in newest if row["n"] > self._last_transition]):
            self._last_transition = row["n"]
            _print("job", f"{row['tag']} {row['job'][:9]}… {row['from']} -> {row['to']}")
        self._messages.print_new()

    def summary(self) -> int:
        """Print the outcome of every delivery; return how many were not delivered."""
        with self._db.read() as tx:
            jobs = lists.find_jobs(tx, Filter(), limit=500).items
            transitions = lists.find_transitions(tx, Filter(), limit=500).items
            deliveries = lists.find_deliveries(tx, Filter(), limit=500).items
        missing = len([delivery for delivery in deliveries if delivery["state"] != "sent"])
        counts = f"{len(jobs)} jobs, {len(transitions)} transitions, {len(deliveries)} deliveries"
        click.echo(f"\n{counts}, {missing} not delivered:")
        for delivery in reversed(deliveries):
            click.echo(f"  {_outcome(delivery)}")
        return missing


class _Messages:
    """Prints what the chat and the receiver got."""

    def __init__(
        self, chat: _Chat, receiver: WebhookReceiver, remark: Callable[[Received], str] = lambda _: ""
    ) -> None:
        self._chat, self._receiver, self._remark = chat, receiver, remark
        self._posts = self._hooks = 0  # printed so far

    def print_new(self) -> None:
        posts, hooks = self._chat.said(), self._receiver.received
        for text in posts[self._posts :]:
            _print(self._chat.name, " — ".join(line.strip() for line in text.splitlines()[:2]))
        for hook in hooks[self._hooks :]:
            _print("webhook", _hook_line(hook) + self._remark(hook))
        self._posts, self._hooks = len(posts), len(hooks)


def _outcome(delivery: Facts) -> str:
    job = f"{(delivery['job'] or '')[:9]}…"
    what = f"{delivery['id']}  {delivery['notifier']:<4} {delivery['rule']:<9} {job} {delivery['tells']:<8}"
    why = f": {delivery['why']}" if delivery["why"] else ""
    return f"{what} {delivery['state']}, {count_of(delivery['attempts'], 'attempt')}{why}"


def _hook_line(hook: Received) -> str:
    event = hook.json or {}
    signed = "signature verified" if hook.verified else f"REFUSED: {hook.fault}"
    return f"{event.get('type')} {str(event.get('subject'))[:9]}… {signed} ({(hook.id or '')[:12]}…)"


def _print(source: str, text: str) -> None:
    click.echo(f"{datetime.now(UTC):%H:%M:%S}  {source:<8} {text}")


def _duration(_ctx: click.Context, _param: click.Parameter, value: str) -> timedelta:
    try:
        return duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65_533),
    default=8900,
    show_default=True,
    help="CI's port on 127.0.0.1; Slack and the receiver have the next two. 0 takes free ones.",
)
@click.option("--bucket", default="media-1250000000", show_default=True, help="The bucket of the jobs.")
@click.option(
    "--tag",
    "tags",
    multiple=True,
    default=("Transcode", "Snapshot", "SpeechRecognition"),
    show_default=True,
    help="A tag of the jobs; may be repeated.",
)
@click.option("--every", "every_s", default=4.0, show_default=True, help="Seconds between new jobs, on average.")
@click.option("--speed", default=1.0, show_default=True, help="How many times as fast the jobs change.")
@click.option("--seed", default=None, type=int, help="Repeat the same jobs.")
@click.option(
    "--callbacks", type=click.Choice(["xml", "json"]), help="Post a callback to the bridge for each job that finishes."
)
@click.option("--report", is_flag=True, help="Run a worker too, and report how soon it sees changes.")
@click.option("--for", "lasts", default="2m", show_default=True, callback=_duration, help="With --report: how long.")
@click.option(
    "--poll-every", default="10s", show_default=True, callback=_duration, help="With --report: the watch's `every`."
)
@json_option
@click.option(
    "--callback-url",
    default=f"{_RUN_AT}/hooks/ci/{_CALLBACK_TOKEN}",
    show_default=True,
    help="Where callbacks go, on this machine.",
)
def simulate(
    port: int,
    bucket: str,
    tags: tuple[str, ...],
    every_s: float,
    speed: float,
    seed: int | None,
    callbacks: Format | None,
    callback_url: str,
    report: bool,
    lasts: timedelta,
    poll_every: timedelta,
    as_json: bool,
) -> None:
    """Run a simulated CI, Slack and webhook receiver, to try the bridge without an account.

    CI checks signatures and pages like the real one; Slack checks tokens and keeps its documented limits; the receiver
    verifies signatures. Prints what to export, then the messages that arrive.

    \b
    Example, in two terminals:
      ci-bridge simulate --speed 5
      export ...    (what the first one prints)
      ci-bridge doctor && ci-bridge run

    \b
    How soon are changes seen, and with how many calls? In one terminal, with a worker and a database of its own:
      ci-bridge simulate --report --for 5m --every 1 --poll-every 10s --callbacks xml
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if as_json and not report:
        raise click.UsageError("--json goes with --report")
    if report:
        load = Load(
            bucket=bucket,
            tags=tags,
            queues=_QUEUES,
            every_s=every_s,
            speed=speed,
            seed=seed,
            lasts=lasts,
            poll_every=poll_every,
            callbacks=callbacks,
        )
        report_figures(load, stop, as_json=as_json)
        return
    ports = (port, port + 1, port + 2) if port else (0, 0, 0)
    with ExitStack() as stack:
        ci = CiSimulator(port=ports[0], buckets={bucket})
        ci.queues = {queue: (f"queue-{number}", "Active") for number, queue in enumerate(_QUEUES, 1)}
        slack = SlackLookAlike(port=ports[1], limits=Limits())
        receiver = WebhookReceiver(port=ports[2], secrets=[_SECRET])
        for server, at in zip((ci, slack, receiver), ports, strict=True):
            _listen(stack, server, at)
        if callbacks:
            ci.callbacks, ci.callback_format = stack.enter_context(_callbacks_to(callback_url)).put, callbacks
        click.echo("Paste this into the terminal where the bridge is to run:")
        chat = _Chat.slack(slack)
        exports = _exports(ci, chat, receiver) | ({"BRIDGE_CALLBACK_TOKEN": _CALLBACK_TOKEN} if callbacks else {})
        for name, value in exports.items():
            click.echo(f"  export {name}={shlex.quote(value)}")
        if callbacks:
            click.echo(f"Callbacks are posted to {callback_url}")
        click.echo(f"Jobs appear in {bucket}; messages that arrive are shown here. Press Ctrl-C to stop.")
        rng = random.Random(seed)  # noqa: S311  (made-up jobs)
        messages = _Messages(chat, receiver)
        with Director(ci, random=rng, bucket=bucket, tags=tags, queues=_QUEUES, every_s=every_s, speed=speed):
            while not stop.wait(1.0):
                messages.print_new()


def _callbacks_to(url: str) -> CallbackSender:
    try:
        return CallbackSender(url)
    except ValueError as error:
        fail(f"ci-bridge: --callback-url: {error}")


def _listen(stack: ExitStack, server: WebServer, port: int) -> None:
    try:
        stack.enter_context(server)
    except OSError as error:
        fail(f"ci-bridge: cannot listen on 127.0.0.1:{port}: {error.strerror}; choose another --port, or 0")


def _exports(ci: CiSimulator, chat: _Chat, receiver: WebhookReceiver) -> dict[str, str]:
    """Return the variables that lead a bridge with the example's rules to the stand-ins."""
    return {
        "TENCENTCLOUD_SECRET_ID": DEMO_SECRET_ID,
        "TENCENTCLOUD_SECRET_KEY": DEMO_SECRET_KEY,
        "BRIDGE_CI_ENDPOINT": ci.url,
        "BRIDGE_ALLOW_NETWORKS": "127.0.0.0/8",
        **chat.exports,
        "CMS_URL": f"{receiver.url}/hooks/media",
        "CMS_SECRET": _SECRET,
        "BRIDGE_PUBLIC_URL": _RUN_AT,
    }
