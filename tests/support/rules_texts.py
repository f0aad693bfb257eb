"""Texts of rules.toml to begin from, and what is said of wrong ones."""

from __future__ import annotations

import pytest

from bridge.decide.rulesfile.errors import RulesRefused
from tests.support.nouns import a_rulebook

WATCH = """\
[[watch]]
name = "vod"
bucket = "media-1250000000"
region = "ap-chongqing"
tags = ["Transcode"]
"""
RULE = """\
[[rule]]
name = "r1"
notify = "hook"
"""
HOOK = """\
[notifier.hook]
type = "webhook"
url = "https://cms.example.com/"
"""


def faults(text: str, env: dict[str, str] | None = None) -> list[str]:
    """Return what is said of a file that is refused, but for warnings and the name of the file."""
    with pytest.raises(RulesRefused) as refused:
        a_rulebook(text, env)
    return [str(f).removeprefix("rules.toml:") for f in refused.value.faults if not f.warning]


def warnings(text: str, env: dict[str, str] | None = None) -> list[str]:
    return [str(warning).removeprefix("rules.toml:") for warning in a_rulebook(text, env).warnings]


def rule(*lines: str) -> str:
    return WATCH + RULE + "\n".join(lines)


SIGNED = 'secret = { env = "S" }'


def notifier(*lines: str) -> str:
    return "\n".join(("[notifier.hook]", *lines))
