import tomllib

import pytest

from bridge.decide.rulesfile.errors import Lines

TEXT = '''# a comment, and [[rule]] in it

[defaults]
every = "30s"

[alias.queue]
vod = "p1"
[[watch]]
name = "a"
tags = [
    "Transcode",   # ]
    "[[watch]]",
]
[[watch]]
name = "b"
[[rule]]
name = "one"
match.tag = "x"
match.user_data.asset_id = true
[rule.match.deep]
key = 1
[[rule]]
name = """
[[rule]]
name = "not this"
"""
match = { tag = "y", queue = [ "q" ] }
  [ "notifier" . ops ]
  "type" = "slack"
[notifier."a.b"]
headers = { "X-Team" = "media" }
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (["defaults"], 3),
        (["defaults", "every"], 4),
        (["alias"], 6),
        (["alias", "queue", "vod"], 7),
        (["watch", 0], 8),
        (["watch", 0, "tags"], 10),
        (["watch", 0, "tags", 1], 10),
        (["watch", 1], 14),
        (["watch", 1, "name"], 15),
        (["rule", 0, "match"], 18),
        (["rule", 0, "match", "user_data", "asset_id"], 19),
        (["rule", 0, "match", "deep", "key"], 21),
        (["rule", 1], 22),
        (["rule", 1, "name"], 23),
        (["rule", 1, "match", "queue"], 27),
        (["notifier", "ops"], 28),
        (["notifier", "ops", "type"], 29),
        (["notifier", "a.b", "headers", "X-Team"], 31),
    ],
)
def test_every_table_and_key_has_its_line(path, line):
    assert tomllib.loads(TEXT)
    assert Lines(TEXT).of(path) == line


def test_a_key_that_is_not_there_has_the_line_of_its_table():
    assert Lines(TEXT).of(["rule", 0, "notify"]) == 16


def test_what_is_nowhere_is_on_the_first_line():
    assert Lines(TEXT).of(["template", "x"]) == 1
    assert Lines("").of([]) == 1


def test_only_line_feeds_end_a_line():
    assert Lines('a = 1 # a\u2028b\u0085c\r\nb = "\u2028"\r\nc = 3').of(["c"]) == 3
