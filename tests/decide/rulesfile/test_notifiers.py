import json

import pytest

from tests.support.nouns import SECRET, a_rulebook
from tests.support.rules_texts import HOOK, RULE, SIGNED, WATCH, faults, notifier

ENV = {
    "HOOKS": "https://hooks.slack.com/x", "EMPTY": "  ", "WRONG": "SECRET", "SHORT": "whsec_SECRET", "S": SECRET,
    "CONNECTOR": "https://a.webhook.office.com/SECRET", "SMTP": "hush", "UMLAUT": "SECRÉT",
    "DING": "https://oapi.dingtalk.com/robot/send?access_token=SECRET", "U": "https://a.example.com", "V": "https://b.example.com",
}  # fmt: skip
SLACK = 'type = "slack"\n'
INCOMING = SLACK + 'url = { env = "HOOKS" }\n'
WEBHOOK = 'type = "webhook"\n'
TEAMS = 'type = "teams"\n'
DINGTALK = 'type = "dingtalk"\nurl = { env = "DING" }\n'
MAIL = 'type = "email"\nserver = "smtp.example.com"\nfrom = "ci@example.com"\nto = ["ops@example.com"]\n'
CMS = WEBHOOK + 'url = "https://a.example.com"\n'


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('type = "pager"', ', key "type": "pager" is not a notifier type; it is one of "'),
        (WEBHOOK + SIGNED, ': "url" is missing'),
        (SLACK, ": set channel and token (a bot), or url (an incoming webhook): one of the two"),
        (SLACK + 'channel = "C1"', ': channel needs token = { env = "SLACK_BOT_TOKEN" }'),
        (INCOMING + "update = true", ', key "update": an incoming webhook has no threads and no updates; they need'),
        (INCOMING + 'token = { env = "U" }', ', key "token": an incoming webhook takes no token; take it out, or'),
        (
            INCOMING + "flood = true",
            ', key "flood": true is neither a number of messages from 1 to 10,000, such as 20, nor',
        ),
        (INCOMING + "flood = 0", ', key "flood": 0 is neither a number of messages from 1 to 10,000, such as 20, nor'),
        (INCOMING + 'flood = "20"', ', key "flood": "20" is neither a number of messages from 1 to 10,000, such as 20'),
        (CMS + "flood = 20", ': unknown key "flood"; there are retry, fallback, max_in_flight, rate, type, url'),
        (SLACK + 'url = "https://hooks.slack.com/SECRET"', ', key "url": write url = { env = "NAME" }, with the name'),
        (WEBHOOK + 'url = { env = "MISSING" }', ', key "url": environment variable MISSING is not set'),
        (WEBHOOK + 'url = { env = "EMPTY" }', ', key "url": environment variable EMPTY is empty'),
        (WEBHOOK + 'url = { env = "WRONG" }', ', key "url": the value of WRONG is not an http(s) address without user'),
        (WEBHOOK + 'url = { env = ["U", "V"] }', ', key "url": takes one environment variable; only a webhook'),
        (CMS + 'secret = { env = "SHORT" }', ', key "secret": the value of SHORT is not whsec_ followed by the base64'),
        (CMS + 'headers = { "webhook-id" = "x" }', ', key "headers.webhook-id": the bridge sets this header itself'),
        (CMS + 'headers = { X = "a\\nb" }', ', key "headers.X": a header is a name and one line of plain ASCII text'),
        (CMS + 'channel = "C1"', ': unknown key "channel"; there are retry, fallback, max_in_flight, rate, type, url'),
        (
            MAIL + 'username = "ci"',
            ': a login needs username = "ci" and password = { env = "SMTP_PASSWORD" }; a server',
        ),
        (MAIL + 'password = { env = "SMTP" }', ': a login needs username = "ci" and password'),
        (MAIL + 'tls = "none"', ', key "tls": "none" is not one of '),
        (MAIL + 'sender = "x"', ': unknown key "sender"'),
        (MAIL + "body = {}", ', key "body": is for webhooks; what people are sent comes from a template'),
        (TEAMS + 'url = { env = "U" }', ', key "url": has no signature (sig=) in it; copy it from the workflow'),
        (
            TEAMS + 'url = { env = "CONNECTOR" }',
            ', key "url": is that of a connector, which Microsoft has retired: make',
        ),
        ('type = "wecom"\nurl = { env = "U" }', ', key "url": has no key in it; copy it from the robot: https://qyapi'),
        ('type = "dingtalk"\nurl = { env = "U" }', ', key "url": has no token in it; copy it from the robot: https'),
        ('type = "feishu"\nurl = { env = "U" }', ', key "url": has no token in it; copy it from the bot: https://open'),
        (DINGTALK + 'secret = { env = "MISSING" }', ', key "secret": environment variable MISSING is not set'),
        (DINGTALK + 'secret = { env = ["U", "V"] }', ', key "secret": takes one environment variable; only a webhook'),
        (CMS + 'fallback = "hook"', ', key "fallback": is circular: hook -> hook'),
    ],
)
def test_a_wrong_notifier_says_what_would_be_right(lines, said):
    (found,) = faults(f"{notifier(lines)}\n{WATCH}{RULE}", ENV)
    line = 1 if said.startswith(":") and "unknown key" not in said else len(lines.strip().split("\n")) + 1
    assert found.startswith(f'{line}: notifier "hook"{said}')
    assert "SECRET" not in found


BOT = SLACK + 'channel = "C1"\ntoken = { env = "TOKEN" }\n'
ALL_KEYS = ('signing_secret = { env = "SIGNING" }', 'team = "T024BE91L"', 'actions = ["U024BE7LH"]')
SIGNING = {"TOKEN": "xoxb-1", "SIGNING": "8f742231b10e8888abcd99yyyzzz85a5", "BAD": "with SECRET", "EMPTY": " "}


@pytest.mark.parametrize("way", [BOT, INCOMING])
def test_a_slack_notifier_may_have_buttons_that_act(way):
    book = a_rulebook(f"{notifier(way, *ALL_KEYS)}\n{WATCH}{RULE}", ENV | SIGNING)
    hook = book.notifiers["hook"]
    assert (hook.has_buttons, hook.team, hook.actions) == (True, "T024BE91L", ("U024BE7LH",))
    assert SIGNING["SIGNING"] in hook.hidden
    assert SIGNING["SIGNING"] not in repr(book)


@pytest.mark.parametrize(
    ("left_out", "said"),
    [
        ((0,), 'key "team": needs signing_secret beside it, for buttons that act: signing_secret = { env ='),
        ((1,), 'key "signing_secret": needs team beside it, for buttons that act'),
        ((2,), 'key "signing_secret": needs actions beside it, for buttons that act'),
        ((0, 1), 'key "actions": needs signing_secret and team beside it, for buttons that act'),
        ((1, 2), 'key "signing_secret": needs team and actions beside it, for buttons that act'),
    ],
)
def test_buttons_need_all_of_their_keys(left_out, said):
    keys = [key for n, key in enumerate(ALL_KEYS) if n not in left_out]
    (found,) = faults(f"{notifier(BOT, *keys)}\n{WATCH}{RULE}", SIGNING)
    assert said in found


@pytest.mark.parametrize(
    ("number", "line", "said"),
    [
        (0, 'signing_secret = { env = "MISSING" }', 'key "signing_secret": environment variable MISSING is not set'),
        (0, 'signing_secret = { env = "EMPTY" }', 'key "signing_secret": environment variable EMPTY is empty'),
        (0, 'signing_secret = { env = "BAD" }', 'key "signing_secret": the value of BAD is no secret: it has white'),
        (0, 'signing_secret = { env = ["SIGNING", "BAD"] }', 'key "signing_secret": takes one environment variable'),
        (0, 'signing_secret = "8f742SECRET"', 'key "signing_secret": a secret comes from the environment: write'),
        (1, 'team = "acme"', 'key "team": "acme" is not the id of a workspace, such as "T024BE91L"'),
        (1, "team = 7", 'key "team": 7 is not the id of a workspace, such as "T024BE91L"'),
        (2, "actions = []", 'key "actions": names nobody: write the ids of the people who may use the buttons'),
        (2, 'actions = ["ann"]', 'key "actions": "ann" is not the id of a person, such as "U024BE7LH"'),
        (2, 'actions = ["U024BE7LH", "S0123ABC"]', 'key "actions": "S0123ABC" is not the id of a person, such as'),
        (2, "actions = [7]", 'key "actions": [7] is neither a string nor a list of non-empty strings'),
        (2, f"actions = {[f'U{n:05}' for n in range(101)]}", 'key "actions": names 101 people; the limit is 100'),
    ],
)
def test_a_wrong_key_of_buttons_says_what_would_be_right(number, line, said):
    keys = [line if n == number else key for n, key in enumerate(ALL_KEYS)]
    (found,) = faults(f"{notifier(BOT, *keys)}\n{WATCH}{RULE}", SIGNING)
    assert said in found
    assert "SECRET" not in found


@pytest.mark.parametrize(
    "url", ["", "cms.example.com", "ftp://x", "https://", "https://u:p@x", "http://x:0", "http://[x"]
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
    assert [one.partition("circular: ")[2] for one in said] == ["b -> c -> b", "c -> b -> c"]


@pytest.mark.parametrize(
    "line",
    [
        'secret = "whsec_HIDDEN"',
        'secret = ["whsec_HIDDEN"]',
        'signing_secret = "HIDDEN"',
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


def an_email(**changes):
    """Return rules with a notifier of mail in which keys are changed."""
    keys = {"server": "smtp.example.com", "from": "ci@example.com", "to": ["ops@example.com"]} | changes
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in keys.items()]
    return "\n".join([notifier('type = "email"', *lines), WATCH, RULE])


@pytest.mark.parametrize(
    ("keys", "made"),
    [
        ({}, {"server": "smtp.example.com:587", "tls": "starttls", "sender": "ci@example.com", "sender_name": ""}),
        ({"tls": "tls"}, {"server": "smtp.example.com:465"}),
        ({"server": "SMTP.Example.com:2525"}, {"server": "smtp.example.com:2525"}),
        ({"server": "[::1]:25"}, {"server": "[::1]:25", "host": "::1"}),
        ({"server": "邮件.example.com"}, {"server": "xn--5nq051n.example.com:587"}),
        ({"from": "Media, 转码 <ci@example.com>"}, {"sender": "ci@example.com", "sender_name": "Media, 转码"}),
        ({"to": ["a@例子.cn", " b+c@x.example ", "b+c@x.example"]}, {"to": ("a@xn--fsqu00a.cn", "b+c@x.example")}),
    ],
)
def test_mail_is_read_as_it_goes_onto_the_wire(keys, made):
    (found,) = a_rulebook(an_email(**keys), ENV).notifiers.values()
    assert {name: getattr(found, name) for name in made} == made


@pytest.mark.parametrize(
    "server", ["smtp.example.com/x", "smtp://x", "u:p@x", "a b", "x:0", "x:99999", "x?y", "", "x\r\nRSET"]
)
def test_what_is_no_mail_server_is_refused(server):
    (said,) = faults(an_email(server=server))
    assert 'key "server": ' in said


def test_a_password_in_a_mail_server_is_not_shown():
    (said,) = faults(an_email(server="ci:hush@smtp.example.com"))
    assert 'key "server": this is not a name and a port, such as "smtp.example.com:587"' in said


@pytest.mark.parametrize("key", ["from", "to"])
@pytest.mark.parametrize(
    "address",
    ["ops", "@x.example", "a@", "a b@x.example", "a@x.example>", "a@b@x.example", "a..b@x.example", "a@x.example:25",
     "a@x.example/p", "媒体@x.example", '"a"@x.example', "a@[127.0.0.1]", "a@x.example\r\nRCPT TO:<eve@x.example>",
     f"{'a' * 65}@x.example", "a@x.example.", "a@.x.example", "a@x..example"],
)  # fmt: skip
def test_what_is_no_mailbox_is_refused(key, address):
    found = faults(an_email(**{key: address if key == "from" else ["ops@x.example", address]}))
    assert found
    assert all(f'key "{key}' in said for said in found)


def test_mail_goes_to_somebody_and_not_to_everybody():
    for to in ([], [f"a{number}@x.example" for number in range(21)]):
        (said,) = faults(an_email(to=to))
        assert 'key "to": ' in said


def test_a_login_is_plain_ascii_and_never_shown():
    (said,) = faults(
        f"{an_email(username='ci')}".replace('username = "ci"', 'username = "ci"\npassword = { env = "UMLAUT" }'), ENV
    )
    assert 'key "password": the value of UMLAUT has a character that is no plain ASCII' in said
    assert "SECR" not in said
