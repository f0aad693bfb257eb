import pytest

from bridge.decide.rulesfile.notifiers import TYPES
from tests.support.nouns import SECRET, a_rulebook
from tests.support.rules_texts import HOOK, RULE, SIGNED, WATCH, faults, notifier

THERE_ARE = " or ".join(f'"{name}"' for name in TYPES)


@pytest.mark.parametrize(
    ("lines", "env", "said"),
    [
        (
            ['type = "email"'],
            {},
            f'2: notifier "hook", key "type": "email" is no type of notifier; it is {THERE_ARE}',
        ),
        (["retry = '1h'"], {}, f'1: notifier "hook": "type" is missing; it is {THERE_ARE}'),
        (['type = "webhook"', SIGNED], {"S": SECRET}, '1: notifier "hook": "url" is missing'),
        (
            ['type = "slack"'],
            {},
            '1: notifier "hook": set channel and token (a bot), or url (an incoming webhook): one of the two',
        ),
        (
            ['type = "slack"', 'channel = "C1"'],
            {},
            '1: notifier "hook": channel needs token = { env = "SLACK_BOT_TOKEN" }',
        ),
        (
            ['type = "slack"', 'url = { env = "U" }', "update = true"],
            {"U": "https://hooks.slack.com/x"},
            '4: notifier "hook", key "update": an incoming webhook has no threads and no updates; '
            "they need channel and token",
        ),
        (
            ['type = "slack"', 'url = { env = "U" }', 'token = { env = "U" }'],
            {"U": "https://hooks.slack.com/x"},
            '4: notifier "hook", key "token": an incoming webhook takes no token; '
            "take it out, or write channel for url",
        ),
        (
            ['type = "slack"', 'url = "https://hooks.slack.com/SECRET"'],
            {},
            '3: notifier "hook", key "url": write url = { env = "NAME" }, with the name of an environment variable',
        ),
        (
            ['type = "webhook"', 'url = { env = "U" }'],
            {},
            '3: notifier "hook", key "url": environment variable U is not set',
        ),
        (
            ['type = "webhook"', 'url = { env = "U" }'],
            {"U": "  "},
            '3: notifier "hook", key "url": environment variable U is empty',
        ),
        (
            ['type = "webhook"', 'url = { env = "U" }'],
            {"U": "SECRET"},
            '3: notifier "hook", key "url": the value of U is not an http(s) address without user and password, '
            "such as https://cms.example.com/hooks/media: the url must begin with https:// or http://",
        ),
        (
            ['type = "webhook"', 'url = { env = ["U", "V"] }'],
            {"U": "https://a.example.com", "V": "https://b.example.com"},
            '3: notifier "hook", key "url": takes one environment variable; only a secret can have two',
        ),
        (
            ['type = "webhook"', 'url = "https://a.example.com"', SIGNED],
            {"S": "whsec_SECRET"},
            '4: notifier "hook", key "secret": the value of S is not whsec_ '
            "followed by the base64 of 24 to 64 random bytes",
        ),
        (
            ['type = "webhook"', 'url = "https://a.example.com"', 'headers = { "webhook-id" = "x" }'],
            {},
            '4: notifier "hook", key "headers.webhook-id": the bridge sets this header itself',
        ),
        (
            ['type = "webhook"', 'url = "https://a.example.com"', 'headers = { X = "a\\nb" }'],
            {},
            '4: notifier "hook", key "headers.X": a header is a name and one line of plain ASCII text',
        ),
        (
            ['type = "webhook"', 'url = "https://a.example.com"', 'channel = "C1"'],
            {},
            '4: notifier "hook": unknown key "channel"; there are retry, fallback, max_in_flight, '
            "rate, type, url, secret, order, headers, format, body",
        ),
        (
            ['type = "webhook"', 'url = "https://a.example.com"', 'order = "jobs"'],
            {},
            '4: notifier "hook", key "order": "jobs" is not one of "job" or "none"',
        ),
        (
            ['type = "webhook"', 'url = "https://a.example.com"', 'fallback = "hook"'],
            {},
            '4: notifier "hook", key "fallback": goes round in a circle: hook -> hook',
        ),
    ],
)
def test_a_wrong_notifier_says_what_would_be_right(lines, env, said):
    assert faults(f"{notifier(*lines)}\n{WATCH}{RULE}", env) == [said]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "cms.example.com",
        "ftp://x",
        "https://",
        "https://u:p@x",
        "http://x:0",
        "http://x:99999",
        "https://a b/",
        "http://[x",
    ],
)
def test_what_is_no_address_is_refused(url):
    (said,) = faults("\n".join((notifier('type = "webhook"', f'url = "{url}"'), WATCH, RULE)))
    assert "is not an http(s) address" in said


@pytest.mark.parametrize("header", ['X = "媒体"', 'X = "a\\u0000b"', '"X Y" = "a"', '"" = "a"', '"X:" = "a"'])
def test_what_cannot_stand_in_a_header_is_refused(header):
    (said,) = faults(WATCH + RULE + HOOK + f"headers = {{ {header} }}")
    assert "a header is a name and one line of plain ASCII text" in said


def test_the_old_secret_of_a_rotation_that_is_over_has_to_go_from_the_file_too():
    text = WATCH + RULE + HOOK + 'secret = { env = ["HOOK_SECRET", "OLD"] }'
    (said,) = faults(text, {"HOOK_SECRET": SECRET})
    assert said.endswith("environment variable OLD is not set; take it out when the rotation is over")


def test_a_circle_of_fallbacks_names_its_way():
    text = "".join(f'{HOOK.replace(".hook", f".{a}")}fallback = "{b}"\n' for a, b in ("ab", "bc", "cb"))
    said = faults(WATCH + RULE.replace("hook", "a") + text)
    assert [one.partition("circle: ")[2] for one in said] == ["b -> c -> b", "c -> b -> c"]


@pytest.mark.parametrize(
    "line",
    [
        'secret = "whsec_HIDDEN"',
        'secret = ["whsec_HIDDEN"]',
        'secret = { value = "whsec_HIDDEN" }',
        'secret = { env = "whsec_HIDDEN" }',
        'secret = { env = "HIDDEN/+=" }',
        'secret = { env = "S" }',
        'headers = ["Authorization: HIDDEN"]',
        'headers = { Authorization = "HIDDEN" }',
        'headers = { Authorization = { value = "HIDDEN" } }',
        'token = "HIDDEN"',
        'secert = "HIDDEN"',
    ],
)
def test_no_fault_says_a_secret(line):
    said = faults(WATCH + RULE + HOOK + line, {"S": "HIDDEN"})
    assert said
    assert "HIDDEN" not in "\n".join(said)


def test_no_fault_says_a_password_in_an_address():
    for text in (
        WATCH + 'endpoint = "http://u:HIDDEN@proxy"' + RULE,
        WATCH + RULE + HOOK.replace("cms.", "u:HIDDEN@cms."),
    ):
        assert "HIDDEN" not in "\n".join(faults(text))


def test_a_rulebook_shows_no_secret():
    env = {"TOKEN": "xoxb-HIDDEN", "URL": "https://x.example.com/HIDDEN", "S": SECRET, "KEY": "HIDDEN"}
    text = f"""{WATCH}{RULE}
[notifier.hook]
type = "webhook"
url = {{ env = "URL" }}
secret = {{ env = "S" }}
headers = {{ X-Key = {{ env = "KEY" }} }}
[notifier.bot]
type = "slack"
channel = "C1"
token = {{ env = "TOKEN" }}
[notifier.incoming]
type = "slack"
url = {{ env = "URL" }}
"""
    book = repr(a_rulebook(text, env))
    assert "HIDDEN" not in book
    assert SECRET not in book
