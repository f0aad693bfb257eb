from __future__ import annotations

import subprocess
import sys

_SAYS = """
import logging
from bridge import logs
logs.configure("INFO", ["hush-hush-hush"])
logging.getLogger("x").info("said", extra={{"reason": {text!r}}})
"""


def logged(text: str) -> str:
    """Return what a process of its own writes: logging is global."""
    done = subprocess.run(
        [sys.executable, "-c", _SAYS.format(text=text)], capture_output=True, text=True, check=True, timeout=60
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


def test_a_secret_is_masked() -> None:
    assert "hush-hush" not in logged("the token hush-hush-hush is wrong")
