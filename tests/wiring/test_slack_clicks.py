"""Clicks with real processes: a worker posts a message with buttons, and a web process takes what people click."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bridge.settings import read
from bridge.simulator.clicks import ANN, SIGNING_SECRET, TEAM
from bridge.wiring.rules import Rules
from bridge.wiring.web import served, web_app
from tests.support.stage import BUCKET, RULES, Stage
from tests.support.waiting import wait_until

TOKEN = 'token = { env = "SLACK_BOT_TOKEN" }\n'
BUTTONS = f"""{TOKEN}signing_secret = {{ env = "SLACK_SIGNING_SECRET" }}
team = "{TEAM}"
actions = ["{ANN.id}"]
"""


@contextmanager
def a_web_process(stage: Stage) -> Iterator[None]:
    settings = read(stage.environ)
    app = web_app(settings, Rules(settings, stage.environ), stage.db, alone=True)
    with served(app, host="127.0.0.1", port=0) as port:
        stage.slack.request_url = f"http://127.0.0.1:{port}/hooks/slack"
        yield


def test_a_message_of_a_worker_can_be_clicked_and_a_web_process_acts(tmp_path: Path, db_url: str) -> None:
    with Stage(tmp_path, db_url, rules=RULES.replace(TOKEN, BUTTONS, 1)) as stage:
        stage.environ["SLACK_SIGNING_SECRET"] = SIGNING_SECRET
        stage.start_worker()
        stage.await_first_poll()
        job = stage.ci.create(BUCKET, "Transcode", "p1")
        stage.ci.move(job, "Failed", code="E")
        wait_until(lambda: stage.slack.posts, why=lambda: stage.log)

        with a_web_process(stage):
            assert stage.slack.click(stage.slack.posts[0], "silence") == 200
            wait_until(lambda: stage.slack.whispers)

        (whisper,) = stage.slack.whispers
        assert whisper.user == ANN.id
        assert "is silenced until" in whisper.text
        assert any("was silenced by ann (U024BE7LH)" in str(post.blocks) + post.text for post in stage.slack.posts)
        assert SIGNING_SECRET not in stage.log
