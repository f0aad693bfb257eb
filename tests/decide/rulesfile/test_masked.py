"""A rules file as it is shown: whatever its spelling, no address beyond its host, and no header's value."""

from __future__ import annotations

import tomllib

import pytest

from bridge.decide.rulesfile.masked import NOT_SHOWN, masked
from tests.support.admin_world import RULES

# A line each; "|" stands for a line break, and QQQ for three quotes.
SPELLINGS = r"""
url = "https://h.example.com/hush?key=hush"
url = 'https://h.example.com/hush'
url = "\u0068ttps://h.example.com/hush"
url = "https:\u002f/h.example.com/hush"
url = QQQhttps://h.example.com/\|  hushQQQ
url = QQQ|https://h.example.com/hushQQQ
url = '''https://h.example.com/hush'''
url = "https://hush@h.example.com"
url = "https://me:hush@h.example.com/"
url = "https://hu/sh:hush@h.example.com"
url = "HTTPS:\\\\h.example.com\\hush"
url = "hush"
"\u0075rl" = "h.example.com/hush"
url = ["https://h.example.com/hush", "hush"]
url = { x = "hush" }
headers = { "X-Key" = "hush", "X-Other" = { env = "NAME" } }
headers."X-Key" = "hush"
headers.env = "hush"
"h\u0065aders" = { a = "h\u0075sh" }
[notifier.cms.headers]|X-Key = '''hush'''|X-More = QQQhu\|  shQQQ
[notifier.cms.headers]|"X" = QQQ""hushQQQ""
# url = "https://h.example.com/hush"
# see https://h.example.com/hush
# headers = { "X-Key" = "hush" }
# X-Key = 'hush'
# X-Key: hush
# Authorization: Bearer hush
# h.example.com/services/hush
# QQQ|url = "https://h.example.com/hush" # QQQ
text = "#"|url = "https://h.example.com/hush"
text = '"'|url = "https://h.example.com/hush" # '
[template.x]|text = QQQ|see https://h.example.com/hush|for {{ job.id }}QQQ
[notifier."https://h.example.com/hush"]|type = "webhook"
"""


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("spelling", SPELLINGS.replace("QQQ", '"' * 3).strip().splitlines())
def test_no_spelling_shows_what_is_secret(spelling: str, line_end: str) -> None:
    shown = masked(f'[notifier.cms]\ntype = "webhook"\n{spelling}\n'.replace("|", "\n").replace("\n", line_end))
    assert "hush" not in shown + str(tomllib.loads(shown))
    assert "***" in shown
    assert 'type = "webhook"' in shown


def test_the_rest_of_a_file_is_shown_as_it_is() -> None:
    text = "# Don't touch.\n[notifier.cms] # ours\nurl = { env = 'HOOK' }\nheaders = { A = { env = 'B' }, C = 'cms' }\n"
    assert masked(text) == text.replace("'cms'", '"***"')
    text = '[notifier.cms]\nsite = "https://h.example.com/"\nurl = "https://h.example.com:8443"\n'
    assert masked(text) == text


def test_lines_stay_where_they_are() -> None:
    text = '[template.x]\ntext = """\nsee https://h.example.com/hush\nfor {{ job.id }}"""\n'
    assert masked(text) == text.replace("/hush", "/***")


def test_a_masked_file_stays_the_same() -> None:
    assert masked(masked(RULES)) == masked(RULES)
    assert "path-is-secret" not in masked(RULES)
    assert "cms.example.com:8443/***" in masked(RULES)


def test_what_cannot_be_read_is_not_shown() -> None:
    assert masked('url = "https://h.example.com/hush') == NOT_SHOWN


@pytest.mark.parametrize("part", ["a", "=", ":", "://", "a.", "'", '\\"', "auth", "/ ", "x-"])
def test_a_long_text_takes_no_long(part: str) -> None:
    long = part * 50_000
    masked(f'a = "{long.strip()}"\n# {long}\n')  # a backtracking pattern would take hours
