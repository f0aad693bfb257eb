from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

_SAYS = """
import logging
from bridge import logs
logs.configure("INFO", ["hush-hush-hush", 'sup"er\\\\secret', "top\\nsecret1", "пароль-секрет"])
logging.getLogger("x").info("said", extra={{{key!r}: {text!r}}})
"""


def logged(text: object, *, key: str = "reason") -> str:
    """Return what a process of its own writes: logging is global."""
    done = subprocess.run(
        [sys.executable, "-c", _SAYS.format(text=text, key=key)], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stderr


def test_what_a_terminal_would_act_on_is_spelt_out() -> None:
    line = logged("\x1b[2Jgone \u202e\r\x00")
    assert r"\x1b[2Jgone \u202e\r\x00" in line.replace("\\\\", "\\")
    assert line.rstrip("\n").isprintable()


def test_no_text_makes_a_line_of_its_own() -> None:
    line = logged("one\ntimestamp=2026-11-21 level=info event=forged\u2028and\u0085another")
    assert line.count("\n") == 1
    assert len(line.splitlines()) == 1


def test_texts_of_any_language_stay_as_they_are() -> None:
    assert "会议录像 café" in logged("会议录像 café")


@pytest.mark.parametrize("key", ["a b\nlevel", 'c="d" x', "lev\x1bel=1", "a\u2028b"])
def test_a_key_of_any_signs_does_not_cost_the_line(key: str) -> None:
    line = logged("kept", key=key)
    assert line.startswith("timestamp=")
    assert line.endswith("=kept\n")


def test_a_secret_is_masked() -> None:
    assert "hush-hush" not in logged("the token hush-hush-hush is wrong")


@pytest.mark.parametrize("secret", ['sup"er\\secret', "top\nsecret1", "пароль-секрет"])
@pytest.mark.parametrize("hold", [str, repr, ascii, str.encode, lambda text: {"k": text}, lambda text: [text.encode()]])
def test_a_secret_is_masked_in_whatever_value_it_stands(secret: str, hold: Callable[[str], object]) -> None:
    line = logged(hold(secret))
    assert "[secret]" in line
    assert "secret1" not in line.replace("[secret]", "")
    assert "er\\" not in line
