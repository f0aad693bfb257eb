from __future__ import annotations

import io
import logging
from collections.abc import Callable
from contextlib import redirect_stderr

import pytest

from bridge import logs
from tests.support.commands import logging_kept


def logged(text: object, *, key: str = "reason") -> str:
    with logging_kept(), redirect_stderr(io.StringIO()) as stderr:
        logs.configure("INFO", ["hush-hush-hush", 'sup"er\\secret', "top\nsecret1", "пароль-секрет"])
        logging.getLogger("x").info("event", extra={key: text})
    return stderr.getvalue()


def test_control_characters_are_escaped_and_no_text_starts_a_line_of_its_own() -> None:
    line = logged("\x1b[2Jgone \u202e\r\x00\ntimestamp=2026-11-21 level=info event=forged\u2028and\u0085another")
    assert r"\x1b[2Jgone \u202e\r\x00" in line.replace("\\\\", "\\")
    assert line.rstrip("\n").isprintable()
    assert len(line.splitlines()) == 1


def test_texts_of_any_language_stay_as_they_are() -> None:
    assert "会议录像 café" in logged("会议录像 café")


@pytest.mark.parametrize("key", ["a b\nlevel", 'c="d" x', "lev\x1bel=1", "a\u2028b"])
def test_a_key_with_any_characters_does_not_cost_the_line(key: str) -> None:
    line = logged("kept", key=key)
    assert line.startswith("timestamp=")
    assert line.endswith("=kept\n")


@pytest.mark.parametrize("secret", ["hush-hush-hush", 'sup"er\\secret', "top\nsecret1", "пароль-секрет"])
@pytest.mark.parametrize("hold", [str, repr, ascii, str.encode, lambda text: {"k": text}, lambda text: [text.encode()]])
def test_a_secret_is_masked_in_any_value(secret: str, hold: Callable[[str], object]) -> None:
    line = logged(hold(secret))
    assert "[secret]" in line
    assert "secret1" not in line.replace("[secret]", "")
    assert "er\\" not in line
    assert "hush" not in line


def test_secrets_that_are_known_later_are_masked_from_then_on() -> None:
    with logging_kept(), redirect_stderr(io.StringIO()) as stderr:
        logs.configure("INFO", ["hush-hush-hush"])
        logging.getLogger("x").info("before", extra={"reason": "a-new-secret"})
        logs.hide(["hush-hush-hush", "a-new-secret"])
        logging.getLogger("x").info("after", extra={"reason": "a-new-secret hush-hush-hush"})
    assert "reason=a-new-secret" in stderr.getvalue()
    assert 'reason="[secret] [secret]"' in stderr.getvalue()
