"""How a delivery goes out, as a page shows it: whole, exact, and without a secret."""

from __future__ import annotations

import json
import subprocess
from datetime import timedelta
from typing import Any

import pytest

from bridge.model import Delivery
from bridge.notifiers import Notifier, SlackNotifier, TeamsNotifier, WebhookNotifier
from bridge.send.integration import MASKED, Preview
from bridge.send.registry import integration_of
from bridge.send.webhook import curl
from tests.support import receivers
from tests.support.mail import an_email
from tests.support.receivers import NOON, SECRET, a_slack

AGENT = "ci-bridge/9.9.9"
URL = "https://user.example.com:8443/path-is-secret?key=in-the-query"
HOSTILE = 'it\'s "x" `id` $(id) \\ ! \n\t%s @/etc/passwd 上传/预告片.mp4 \u202egnp.exe \x9b201~'


EVENT = json.dumps({"type": "ci.job.failed", "data": {"input": HOSTILE}}, ensure_ascii=False)
SAYS = {"title": "Failed: 预告片.mp4", "text": "a < b & c", "fields": [["queue", "转码"]]}


def a_delivery(**facts: Any) -> Delivery:
    return receivers.a_delivery(**{"id": "dlv_1", "event": EVENT, "says": SAYS} | facts)


def a_webhook(**facts: Any) -> WebhookNotifier:
    return WebhookNotifier(**{"name": "cms", "url": URL} | facts)


def sent(delivery: Delivery, notifier: Notifier) -> Any:
    return integration_of(notifier).preview(delivery, at=NOON, agent=AGENT)


def read(asked: Preview) -> list[str]:
    return ["".join(piece.text for piece in line) for line in asked.lines]


def bold(asked: Preview) -> list[str]:
    return [said for line in asked.lines if (said := "".join(piece.text for piece in line if piece.bold))]


def run_as_curl(command: str) -> list[str]:
    """Return the arguments that a shell gives to curl."""
    script = "curl() { printf '%s\\0' \"$@\"; }\n" + command
    done = subprocess.run(["sh"], input=script.encode(), capture_output=True, check=True)
    return done.stdout.decode().split("\0")[:-1]


def test_a_shell_takes_the_command_as_it_is_meant_however_hostile_the_body() -> None:
    asked = sent(a_delivery(), a_webhook(secrets=(SECRET,), headers=(("X-Key", "header-is-secret"), ("X-None", ""))))
    arguments = run_as_curl(asked.curl)
    assert arguments[:3] == ["-X", "POST", "https://user.example.com:8443/PATH"]
    assert arguments[3:-2:2] == ["-H"] * 7
    assert arguments[4:-2:2] == [
        "webhook-id: dlv_1", f"webhook-timestamp: {int(NOON.timestamp())}", "content-type: application/json",
        f"X-Key: {MASKED}", "X-None;", f"user-agent: {AGENT}", f"webhook-signature: v1,{MASKED}",
    ]  # fmt: skip
    assert arguments[-2] == "--data-raw"
    assert json.loads(arguments[-1]) == {
        "specversion": "1.0", "id": "dlv_1", "type": "ci.job.failed", "data": {"input": HOSTILE},
    }  # fmt: skip


@pytest.mark.parametrize("body", ["@/etc/passwd", "'", "''", "", "-o x", "a\\", "$HOME\n;id"])
def test_any_text_is_quoted(body: str) -> None:
    arguments = run_as_curl(curl("https://h/PATH?a&b", [f"x: {body}"], body))
    assert arguments == ["-X", "POST", "https://h/PATH?a&b", "-H", f"x: {body}", "--data-raw", body]


def test_no_secret_is_in_a_request() -> None:
    asked = sent(a_delivery(), a_webhook(secrets=(SECRET, SECRET), headers=(("X-Key", "header-is-secret"),)))
    for secret in ("path-is-secret", "in-the-query", "header-is-secret", SECRET, SECRET.removeprefix("whsec_")):
        assert secret not in str(asked)
    assert dict(asked.headers)["webhook-signature"] == f"v1,{MASKED} v1,{MASKED}"


def test_what_is_not_signed_has_no_signature() -> None:
    asked = sent(a_delivery(), a_webhook())
    assert "webhook-signature" not in dict(asked.headers)
    assert MASKED not in asked.curl


def test_what_turns_a_text_around_or_drives_a_terminal_is_escaped_and_chinese_is_not() -> None:
    asked = sent(a_delivery(), a_webhook())
    for text in (asked.body, asked.curl):
        assert "预告片.mp4" in text
        assert "\\u202egnp.exe" in text
        assert "\\u009b201~" in text
        assert "\u202e" not in text


def test_a_note_a_body_of_its_own_and_cloudevents_go_out_as_they_are() -> None:
    noted = json.loads(sent(a_delivery(note="could not be sent to ops"), a_webhook()).body)
    assert noted["note"] == "could not be sent to ops"
    own = sent(a_delivery(body='{"text": "x"}'), a_webhook())
    assert json.loads(own.body) == {"text": "x"}
    events = sent(a_delivery(), a_webhook(format="cloudevents"))
    assert dict(events.headers)["content-type"] == "application/cloudevents+json"


def test_slack_is_shown_what_it_shows() -> None:
    notifier = SlackNotifier(name="ops", channel="C1", token="xoxb-hush-hush")
    asked = integration_of(notifier).preview(a_delivery(note="a note"), at=NOON + timedelta(hours=1), agent=AGENT)
    assert (asked.address, asked.curl) == ("C1", None)
    assert read(asked)[0].endswith("Failed: 预告片.mp4\na < b & c")
    assert bold(asked) == ["❌🕰️ Failed: 预告片.mp4", "queue"]
    assert read(asked)[1:] == [
        "queue\n转码",
        "Delivered late: this happened at 2026-11-21 12:00 UTC, 1 h ago.",
        "a note",
        "failed · j1",
    ]


def test_links_times_and_mentions_of_a_slack_message_are_read_as_slack_shows_them() -> None:
    links = [["open *it*", "https://h.example/?a=1&b=2"]]
    text = "Since 2026-11-21T09:00:00Z: open *it* (https://h.example/?a=1&b=2)"
    says = {"title": "*a* demo.mp4 <b>", "text": text, "links": links, "file": "demo.mp4", "job_id": "j1"}
    says |= {"public_url": "https://bridge.example.com", "mention": ["U1", "S1", "here"], "fields": []}
    asked = integration_of(a_slack()).preview(a_delivery(says=says), at=NOON, agent=AGENT)
    assert bold(asked) == ["❌ *a* demo.mp4 <b>"]
    assert read(asked)[:2] == ["❌ *a* demo.mp4 <b>\nSince 2026-11-21 09:00 UTC: open *it*", "@U1 @S1 @here"]
    assert [(piece.text, piece.url) for line in asked.lines for piece in line if piece.url] == [
        ("demo.mp4", "https://bridge.example.com/jobs/j1"),
        ("open *it*", "https://h.example/?a=1&b=2"),
        ("Silence this rule", "https://bridge.example.com/silences/add?rule=failed"),
    ]


def test_mail_and_cards_are_shown_as_they_are_read() -> None:
    for notifier, address in (
        (an_email("smtp.example.com:587"), "media@example.com, ops@example.com by smtp.example.com:587"),
        (TeamsNotifier(name="ops", url="https://prod.logic.azure.example/workflows/hush?sig=hush"),
         "https://prod.logic.azure.example/PATH"),
    ):  # fmt: skip
        asked = sent(a_delivery(note="a note"), notifier)
        assert (asked.address, asked.curl) == (address, None)
        assert bold(asked) == ["❌ Failed: 预告片.mp4"]
        assert read(asked)[1:] == ["a < b & c", "queue: 转码", "a note", "failed · j1"]


def test_a_channel_of_its_own_is_shown_while_it_is_allowed() -> None:
    notifier = SlackNotifier(name="ops", channel="C1", channels=("C1", "C2"), token="xoxb-hush-hush")
    assert sent(a_delivery(channel="C2"), notifier).address == "C2"
    assert sent(a_delivery(channel="C3"), notifier).address == "C1"


def test_the_address_of_an_incoming_webhook_is_a_secret() -> None:
    notifier = SlackNotifier(name="ops", url="https://hooks.slack.example/services/T0/B0/hush")
    assert sent(a_delivery(), notifier).address == "https://hooks.slack.example/PATH"
