"""How a delivery looks as a mail. What is said to the server: test_email_talk.py."""

from __future__ import annotations

import json
from datetime import timedelta
from email.message import EmailMessage
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.model import Delivery
from bridge.send.chat import Shown
from bridge.send.email.message import LONGEST_SUBJECT, mail, subject
from bridge.simulator.smtp import Mail
from tests.support.mail import an_email
from tests.support.receivers import NOON, a_delivery, a_root_edit

BRIDGE = "https://bridge.example.com"
OFFICE = an_email("smtp.example.com:587")
HOSTILE = "<img src=x onerror=alert(1)>&\"'</td> a\r\nBcc: eve@example.com\r\n\r\nhello \u202egnp"


def sent(delivery: Delivery | None = None, **facts: Any) -> EmailMessage:
    """Return the message as a mail program reads it."""
    made = mail(delivery or a_delivery(**facts), OFFICE, NOON)
    return Mail(sender="", to=(), content=made.as_bytes(), user=None).message


def part(message: EmailMessage, kind: str) -> str:
    found = message.get_body((kind,))
    assert found
    text: str = found.get_content()
    return text.replace("\r\n", "\n")


class Read(HTMLParser):
    """The text of a page, its links, and its tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.links, self.tags = "", dict[str, str](), list[str]()
        self._url: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._url = dict(attrs).get("href") if tag == "a" else None

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._url:
            self.links[data] = self._url

    def handle_endtag(self, tag: str) -> None:
        self._url = None


def test_the_headers_are_those_of_a_mail_that_no_machine_answers() -> None:
    message = mail(a_delivery(), an_email("smtp.example.com:587", sender_name="Media CI, 转码"), NOON)
    read = Mail(sender="", to=(), content=message.as_bytes(), user=None).message
    headers = dict(read.items())
    assert headers.pop("Content-Type").startswith('multipart/alternative; boundary="=_d_1"')
    assert headers == {
        "From": '"Media CI, 转码" <ci@example.com>',
        "To": "media@example.com, ops@example.com",
        "Subject": "❌ Transcode failed: demo.mp4",
        "Date": "Sat, 21 Nov 2026 12:00:00 +0000",
        "Message-ID": "<d_1@example.com>",
        "Auto-Submitted": "auto-generated",
        "MIME-Version": "1.0",
    }


def test_an_attempt_changes_no_byte_of_the_message() -> None:
    first, second = (mail(a_delivery(attempts=attempts), OFFICE, NOON).as_bytes() for attempts in (1, 2))
    assert first == second


def test_what_a_person_resends_is_no_repetition() -> None:
    first, second, resent = (
        sent(attempts=attempts, since=NOON + timedelta(milliseconds=later))["message-id"]
        for attempts, later in ((1, 0), (2, 0), (3, 1))
    )
    assert first == second == f"<d_1.{int(NOON.timestamp())}000@example.com>"
    assert resent != first


def test_an_id_that_is_no_word_is_replaced_by_one() -> None:
    message = sent(a_root_edit())
    assert len(message["message-id"]) == len("<@example.com>") + 32
    assert " " not in message["message-id"]


def test_both_parts_say_what_slack_is_told() -> None:
    says = {"public_url": BRIDGE, "file": "demo.mp4", "text": "Since 2026-11-21T09:00:00Z:\n失败"}
    message = sent(says=says, note="Once more.")
    assert part(message, "plain") == (
        f"❌ Transcode failed: demo.mp4 ({BRIDGE}/jobs/j1)\n\nSince 2026-11-21 09:00:00 UTC:\n失败\n\nqueue: vod\n\n"
        f"Once more.\n\nfailed · j1 · Silence this rule ({BRIDGE}/silences/add?rule=failed)\n"
    )
    page = Read(part(message, "html"))
    assert page.links == {
        "demo.mp4": f"{BRIDGE}/jobs/j1",
        "Silence this rule": f"{BRIDGE}/silences/add?rule=failed",
    }
    for text in ("Transcode failed: demo.mp4", "Since 2026-11-21 09:00:00 UTC:", "失败", "queue", "vod", "Once more."):
        assert text in page.text


def test_every_byte_goes_through_a_server_that_takes_seven_bits_and_short_lines() -> None:
    raw = mail(a_delivery(says={"text": "长" * 5000 + "x" * 5000}), OFFICE, NOON).as_bytes()
    assert raw.isascii()
    assert max(map(len, raw.split(b"\r\n"))) <= 998  # RFC 5322, 2.1.1
    assert b"\n" not in raw.replace(b"\r\n", b"")


@pytest.mark.parametrize("name", ["title", "text", "file", "rule", "state"])
def test_a_hostile_text_makes_no_header_and_no_markup(name: str) -> None:
    message = sent(says={name: HOSTILE, "fields": [[HOSTILE, HOSTILE]], "public_url": BRIDGE}, note=HOSTILE)
    assert sorted(message.keys()) == sorted(sent().keys())
    assert message["to"] == "media@example.com, ops@example.com"
    page = Read(part(message, "html"))
    assert set(page.tags) <= {"html", "head", "meta", "body", "p", "strong", "a", "table", "tr", "td", "br"}
    assert "<img src=x" in page.text
    assert "\u202e" not in page.text + part(message, "plain") + message["subject"]


@settings(deadline=None)
@given(texts=st.lists(st.text(max_size=300), min_size=4, max_size=4))
def test_no_text_makes_a_mail_that_cannot_be_read(texts: list[str]) -> None:
    title, text, name, note = texts
    made = mail(a_delivery(says={"title": title, "text": text, "fields": [[name, note]]}, note=note), OFFICE, NOON)
    raw = made.as_bytes()
    assert raw.isascii()
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    read = Mail(sender="", to=(), content=raw, user=None).message
    assert [*read.defects, *(defect for inner in read.iter_parts() for defect in inner.defects)] == []
    assert sorted(read.keys()) == sorted(sent().keys())


@pytest.mark.parametrize(
    "word",
    [
        "=?utf-8?q?x=0d=0aBcc:evil@example.com?=", "=?utf-8?q?x=0d=0a=0d=0a<h1>?=", "=?utf-8?q?=0aReply-To:e@e?=",
        "=?unicode_escape?q?=5Cx0aBcc:e@e?=", "=?us-ascii?q?=ff=fe?=", "=?UTF-8?Q?=C3?=", "=?utf-8?q?=ed=a0=80?=",
        "=?utf-7?q?+2AA-?=", "=?zip?b?zz?=", "=?unicode_escape?q?=5Cud800?=", "=?rot13?q?abc?=", "=?utf-16?b?AAA=?=",
        "=?utf-8?q?a?= =?utf-8?q?b?=", "==??=?=?",
    ],
)  # fmt: skip
def test_a_name_that_looks_like_an_encoded_word_is_a_text(word: str) -> None:
    notifier = an_email("smtp.example.com:587", sender_name=f"CI {word}")
    made = mail(a_delivery(says={"title": f"failed: {word}.mp4"}), notifier, NOON).as_bytes()
    message = Mail(sender="", to=(), content=made, user=None).message
    assert set(message) == set(sent())
    assert str(message["Subject"]).replace("= ?", "=?") == f"❌ failed: {word}.mp4"
    assert message["From"].addresses[0].display_name.replace("= ?", "=?") == f"CI {word}"
    assert b"\nBcc" not in made


def test_a_subject_is_one_line_however_long_the_title() -> None:
    shown = Shown.of(a_delivery(says={"title": "预告片\n" * 500}), NOON)
    assert len(subject(shown)) == LONGEST_SUBJECT
    message = sent(says={"title": "预告片 \n" * 500})
    assert message["subject"] == subject(shown)


def test_a_late_message_says_so() -> None:
    message = mail(a_delivery(), OFFICE, NOON + timedelta(hours=1))
    assert "Delivered late: this happened at 2026-11-21 12:00:00 UTC, 1 h ago." in part(message, "plain")


def test_a_digest_has_a_table_of_its_messages() -> None:
    members = [
        {"job": "j1", "state": "Failed", "title": "Failed: <a>.mp4", "time": "2026-11-21T11:00:00Z"},
        {"job": None, "state": "", "title": "A digest", "time": "2026-11-21T11:05:00Z"},
    ]
    event = {"type": "ci.digest", "data": {"members": members, "members_total": 3}}
    says = {"digest": True, "public_url": BRIDGE, "job_id": None, "fields": [], "text": "2 x bad input"}
    page = Read(part(sent(says=says, event=json.dumps(event)), "html"))
    assert page.tags.count("tr") == 2
    assert "2026-11-21 11:00:00 UTC" in page.text
    assert page.links["Failed: <a>.mp4"] == f"{BRIDGE}/jobs/j1"
    assert page.links["All 3 messages"] == f"{BRIDGE}/deliveries?digest=d_1"
