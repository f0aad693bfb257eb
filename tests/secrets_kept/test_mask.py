"""What the mask takes out of a text."""

from __future__ import annotations

import html
import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest

from bridge.model import ANSWER_KEPT, RetryLater, Sent
from bridge.redact import Mask
from bridge.send.sender import InFlight
from tests.secrets_kept.planted import SECRETS, leaked
from tests.support.receivers import NOON, a_delivery, a_reply, a_slack, a_webhook

AWKWARD = 'p/ä+s"w&o r<d%2F'
KEY = SECRETS["bearer"]


@pytest.mark.parametrize(
    "written",
    [
        str,
        quote,
        quote_plus,
        lambda key: quote(key, safe=""),
        lambda key: quote(key, safe="").lower(),
        lambda key: json.dumps(key)[1:-1],
        lambda key: json.dumps(key, ensure_ascii=False)[1:-1].replace("/", "\\/"),
        html.escape,
        str.lower,
        str.upper,
    ],
)
@pytest.mark.parametrize("secret", [AWKWARD, KEY])
def test_a_secret_goes_however_it_is_written(secret: str, written: Callable[[str], str]) -> None:
    assert Mask([secret])(f"no {written(secret)}!") == "no [secret]!"


@pytest.mark.parametrize("write", [repr, ascii, lambda text: repr(text.encode()), json.dumps])
@pytest.mark.parametrize("around", ["{}", "a ' {}", 'a " {}', "a '\" {}"])
@pytest.mark.parametrize(
    "secret", ['sup"er\\secret', "it's \\ secret", "top\nsecret1", "пароль-секрет", "会议\\'录像\"x"]
)
def test_a_secret_inside_of_what_python_shows_of_a_value_goes(
    secret: str, around: str, write: Callable[[str], str]
) -> None:
    shown = write(around.format(secret))
    assert "[secret]" in Mask([secret])(shown)


@pytest.mark.parametrize("before", ["", "u:", "me:", "you:"])
@pytest.mark.parametrize("encode", [b64encode, urlsafe_b64encode])
def test_a_secret_inside_of_base64_goes(before: str, encode: Callable[[bytes], bytes]) -> None:
    said = Mask([KEY])(encode(f"{before}{KEY}!".encode()).decode())
    assert "[secret]" in said
    assert leaked(said) == set()


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        ("https://h.example/hooks/a1b2c3d4?key=s3cret", "POST /hooks/a1b2c3d4?key=s3cret"),
        ("https://h.example/hooks/a1b2c3d4?key=s3cret", "no hook a1b2c3d4"),
        ("https://h.example/hooks/a1b2c3d4?key=s3cret", "bad key: s3cret"),
        ("https://h.example/hooks?key=a%2Fb%2Fc%2Fd", "bad key: a/b/c/d"),
        ("https://h.example/a%2Fb%2F1234", "no hook a/b/1234"),
        ("https://hooks.slack.com/services/T0/B0/XX", "no service /services/T0/B0/XX"),
        ("Basic dXNlcjpodW50ZXIy", "hunter2 is not the password"),
        ("Basic dXNlcjpodW50ZXIy", "user:hunter2"),
        ("whsec_MfKQ9r8GKYqrTwjU", "no key MfKQ9r8GKYqrTwjU"),
        ("padded-key\n", "padded-key"),
    ],
)
def test_what_is_a_secret_by_itself_inside_of_another_goes(secret: str, said: str) -> None:
    assert "[secret]" in Mask([secret])(said)
    for word in ("a1b2c3d4", "s3cret", "a/b", "B0/XX", "hunter2", "MfKQ", "padded"):
        assert word not in Mask([secret])(said)


def test_the_host_and_the_words_of_a_url_are_shown() -> None:
    mask = Mask(["https://cms.example.com/webhooks/media/a1b2c3d4"])
    assert mask("could not connect to cms.example.com:443: no webhooks for media") == (
        "could not connect to cms.example.com:443: no webhooks for media"
    )


def test_a_secret_too_short_to_be_told_from_a_word_is_left() -> None:
    assert Mask(["to", "", "hook"])("a hook to the receiver") == "a hook to the receiver"


def test_a_secret_that_is_part_of_another_leaves_nothing_of_it() -> None:
    assert Mask(["abcdef", "abcdefghij"])("abcdefghij abcdef") == "[secret] [secret]"


def test_the_first_part_of_a_secret_that_was_cut_off_is_masked_too() -> None:
    for kept in range(4, len(KEY)):
        assert Mask([KEY]).of_cut(f"unknown: {KEY[:kept]}") == "unknown: [secret]"
    assert Mask([KEY]).of_cut(f"{KEY[:9]} is not at the end") == f"{KEY[:9]} is not at the end"


def test_an_answer_that_is_cut_inside_of_a_secret_keeps_no_part_of_it() -> None:
    begun = InFlight(a_delivery(), NOON, a_webhook(headers=(("authorization", f"Bearer {KEY}"),)))
    for shown in range(len(KEY) + 1):
        said = "x" * (ANSWER_KEPT - shown) + KEY
        for body in (said.encode(), said.encode()[:ANSWER_KEPT]):  # Slack's answers are read further than others
            answer = begun.ended(Sent(), last=a_reply(body)).answer
            assert len(answer) <= ANSWER_KEPT
            assert leaked(answer) == set()
            assert KEY[:4] not in answer


def test_a_long_reason_is_cut_after_its_secrets_are_gone() -> None:
    begun = InFlight(a_delivery(), NOON, a_slack(token=KEY))
    for shown in range(len(KEY) + 1):
        outcome = begun.ended(RetryLater("x" * (500 - shown) + KEY)).outcome
        assert isinstance(outcome, RetryLater)
        assert len(outcome.why) <= 500
        assert KEY[:4] not in outcome.why


def test_a_receipt_that_repeats_the_token_is_stored_without_it() -> None:
    begun = InFlight(a_delivery(), NOON, a_slack(token=KEY))
    assert begun.ended(Sent(f"{KEY}:1.2:C1:3")).outcome == Sent("[secret]:1.2:C1:3")
