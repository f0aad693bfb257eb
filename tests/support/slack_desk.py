"""A bridge on a real port, and a Slack look-alike in which people click on its buttons."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta

from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.read import read
from bridge.model import Attempt, Rejected
from bridge.pipeline.digests import send_due_digests
from bridge.pipeline.housekeeping import notify_fallbacks
from bridge.record.outbox import claims, results
from bridge.record.outbox.results import Ended
from bridge.record.schema import actions
from bridge.send.client import HttpClient
from bridge.send.integration import Egress
from bridge.send.slack.buttons import Button, Deed
from bridge.simulator.clicks import ANN, SIGNING_SECRET, TEAM, User
from bridge.simulator.workspace import Post
from bridge.wiring.web import served
from tests.support.admin_world import ENVIRON, RULES, World
from tests.support.receivers import LOOPBACK
from tests.support.records import rows
from tests.support.strict_slack import StrictSlack
from tests.support.waiting import wait_until

BUTTONS = f"""
signing_secret = {{ env = "SLACK_SIGNING_SECRET" }}
team = "{TEAM}"
actions = ["{ANN.id}", "U0DEF4567"]
"""
BEN, EVE = User(id="U0DEF4567", name="ben"), User(id="U0EVE0000", name="eve")
SECOND = f"""
[notifier.other]
type = "slack"
channel = "C0DEF4567"
token = {{ env = "SLACK_BOT_TOKEN" }}
signing_secret = {{ env = "OTHER_SECRET" }}
team = "{TEAM}"
actions = ["{ANN.id}"]
"""
OTHER_SECRET = "the-secret-of-another-app"


def with_buttons(more: str = BUTTONS, tail: str = "") -> Rulebook:
    """Return rules whose notifier "ops/1" has buttons, and is the fallback of "cms"."""
    text = RULES.replace('thread = "job"\n', f'thread = "job"\n{more}')
    text = text.replace('headers = { "X-Key"', 'fallback = "ops/1"\nheaders = { "X-Key"')
    secrets = {"SLACK_SIGNING_SECRET": SIGNING_SECRET, "OTHER_SECRET": OTHER_SECRET}
    return read(text + tail, ENVIRON | secrets)


@dataclass
class Desk:
    world: World
    slack: StrictSlack

    def posts(self, deed: Deed, target: str, *, notifier: str = "ops/1", is_edited: bool = False) -> Post:
        """Post a message with this button."""
        button = Button(deed=deed, notifier=notifier, target=target, is_edited=is_edited)
        return self.shows(button)

    def shows(self, *buttons: Button) -> Post:
        said = {"type": "section", "text": {"type": "mrkdwn", "text": "It failed"}}
        blocks = [said, {"type": "actions", "elements": [button.element() for button in buttons]}]
        return self.slack.workspace.post(self.slack.workspace.channel("C024BE91L"), "U1", "It failed", blocks)

    def said(self, count: int = 1) -> list[str]:
        """Return what was said to people, once it was said so often."""
        wait_until(lambda: len(self.slack.whispers) >= count, why=lambda: self.slack.whispers)
        return [whisper.text for whisper in self.slack.whispers]

    def shown(self, post: Post) -> list[str]:
        """Return the texts that a message shows now, and of its buttons the names."""
        now = next(one for one in self.slack.posts if (one.channel, one.ts) == (post.channel, post.ts))
        parts = [part for block in now.blocks for part in [block, *block.get("elements", [])]]
        texts = [
            part["text"] if isinstance(part["text"], str) else part["text"]["text"] for part in parts if "text" in part
        ]
        return [text for text in texts if text != "It failed"]

    @property
    def done(self) -> list[tuple[str, str, str]]:
        """Who did what to what."""
        return [(row["who"], row["what"], row["subject"]) for row in rows(self.world.db, actions)]

    def a_fallbacks_digest(self, *jobs: int) -> str:
        """Let messages of these jobs fail at cms, and "ops/1" be told; return the id of that delivery."""
        world = self.world
        for number in jobs:
            world.delivery_of(number)
        with world.db.write() as tx:
            found = claims.claim(tx, free=64, lease="w1.x", lease_for=timedelta(minutes=1), now=world.now).deliveries
            tried = [
                Attempt(delivery=one, outcome=Rejected("answered 404"), started_at=world.now, seconds=0.1, status=404)
                for one in found
            ]
            results.settle(tx, [Ended(one) for one in tried], now=world.now)
            notify_fallbacks(tx, tried, world.book, world.now)
        world.now += timedelta(minutes=1)
        send_due_digests(world.db, world.book, world.now)
        (digest,) = [row["id"] for row in world.deliveries(notifier="ops/1") if row["state"] == "waiting"]
        return str(digest)


@contextmanager
def a_desk(world: World, book: Rulebook | None = None) -> Iterator[Desk]:
    world.book = book or with_buttons()
    world.sync()
    with (
        StrictSlack(clock=lambda: world.now.timestamp()) as slack,
        closing(HttpClient(allow=LOOPBACK)) as client,
    ):
        world.egress = lambda: nullcontext(Egress(client, slack.api_url))
        with served(world.app(), host="127.0.0.1", port=0) as port:
            slack.request_url = f"http://127.0.0.1:{port}/hooks/slack"
            yield Desk(world, slack)


def with_value(post: Post, value: str) -> Post:
    """Return the message with another value in its button."""
    section, buttons = post.blocks
    button = {**buttons["elements"][0], "value": value}
    version = replace(post.versions[-1], blocks=[section, {**buttons, "elements": [button]}])
    return replace(post, versions=(version,))
