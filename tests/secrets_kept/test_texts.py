"""Errors, representations and the log: none of them has a secret in it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import quote

import pytest

from bridge.admin.auth import Keys
from bridge.collect.client import TencentCi
from bridge.collect.credentials import Credentials
from bridge.collect.errors import CiError
from bridge.decide.rulesfile.errors import RulesRefused
from bridge.decide.rulesfile.read import read as read_rules
from bridge.model import Place, Stream
from bridge.record.database import TROUBLES, Database, trouble
from bridge.send.client import Policy
from bridge.send.sender import InFlight, Sender
from bridge.settings import SettingsRefused
from bridge.settings import read as read_settings
from bridge.simulator.ci import CiSimulator
from bridge.simulator.web import Answer
from bridge.wiring.parts import http_client, known_secrets
from tests.secrets_kept.planted import SECRETS, leaked
from tests.support.commands import REPOSITORY
from tests.support.nouns import a_rulebook
from tests.support.receivers import NOON, SECRET, Receiver, a_delivery, a_request, a_slack, a_webhook, answering
from tests.support.rules_texts import RULE, WATCH

PASSWORD = quote(SECRETS["database password"], safe="")
ENVIRON = {
    "DATABASE_URL": f"postgresql://u:{PASSWORD}@127.0.0.1:1/d?sslpassword={quote(SECRETS['slack token'], safe='')}",
    "TENCENTCLOUD_SECRET_ID": "AKID",
    "TENCENTCLOUD_SECRET_KEY": SECRETS["ci key"],
    "TENCENTCLOUD_SECURITY_TOKEN": SECRETS["ci token"],
    "BRIDGE_ADMIN_TOKEN": SECRETS["admin token"],
    "BRIDGE_READ_TOKEN": SECRETS["read token"],
    "BRIDGE_TOKENS": f"ops:admin:{SECRETS['named token']}",
    "BRIDGE_CALLBACK_TOKEN": SECRETS["callback token"],
    "BRIDGE_RULES_TOML": f'url = "https://h/{SECRETS["url in rules"]}"',
    "BRIDGE_EGRESS_PROXY": f"http://u:{quote(SECRETS['proxy password'], safe='')}@127.0.0.1:1",
}


def whole(error: BaseException) -> str:
    """Return all that Python would print of it, and its representation."""
    return "".join(traceback.format_exception(error)) + repr(error)


def test_settings_show_no_secret_and_the_mask_has_all_of_them() -> None:
    settings = read_settings(ENVIRON)
    assert leaked(f"{settings} {settings!r}") == set()
    planted = {
        SECRETS[one] for one in ("ci key", "ci token", "admin token", "read token", "callback token", "named token")
    }
    planted |= {SECRETS[one] for one in ("database password", "slack token", "proxy password")}
    assert planted <= set(settings.secrets)


def test_a_password_that_is_the_users_name_is_no_secret() -> None:
    assert read_settings({"DATABASE_URL": "postgresql://postgres:postgres@h/d"}).secrets == ()


@pytest.mark.parametrize("name", ["PORT", "LOG_LEVEL", "WEB_CONCURRENCY", "BRIDGE_ALLOW_NETWORKS"])
def test_a_wrong_variable_is_told_without_the_secrets_of_others(name: str) -> None:
    with pytest.raises(SettingsRefused, match=name) as caught:
        read_settings(ENVIRON | {name: "wrong"})
    assert leaked(whole(caught.value)) == set()


@pytest.mark.parametrize("name", ["BRIDGE_CI_ENDPOINT", "SLACK_API_URL"])
@pytest.mark.parametrize(
    "form", ["http://u:{}@127.0.0.1:1", "http://127.0.0.1:1/?key={}", "http://127.0.0.1:1/#{}", "{}"]
)
def test_an_address_that_errors_name_may_have_no_secret_in_it(name: str, form: str) -> None:
    with pytest.raises(SettingsRefused, match=name) as caught:
        read_settings({name: form.format(SECRETS["url path"])})
    assert leaked(whole(caught.value)) == set()


@pytest.mark.parametrize(
    "form",
    [
        "postgresql://u:{}@h@host/d",
        "postgresql://u:a@{}@host/d",
        "postgresql://u@host:{}/d",
        "postgresql://host:{}",
        "postgresql//u:{}@host/d",
        "{}",
        "mysql://u:{}@host/d",
    ],
)
def test_an_address_that_is_no_databases_is_refused_without_its_password(form: str) -> None:
    url = form.format(PASSWORD.replace("%2F", "/") if "//u:" in form else PASSWORD)
    with pytest.raises(ValueError, match="DATABASE_URL") as caught:
        Database(url)
    assert leaked(whole(caught.value)) == set()


def test_a_database_that_does_not_answer_is_told_without_its_password() -> None:
    db = Database(ENVIRON["DATABASE_URL"])
    with pytest.raises(TROUBLES) as caught, db.read():
        pass
    db.close()
    assert trouble(caught.value).startswith("the database does not answer")  # type: ignore[arg-type]  # it is one
    assert leaked(whole(caught.value) + db.shown + repr(db)) == set()


def test_no_noun_shows_a_secret() -> None:
    hook = a_webhook(
        f"http://h/{SECRETS['url path']}",
        secrets=(SECRETS["new secret"], SECRETS["old secret"]),
        headers=(("a", SECRETS["header"]),),
    )
    slack = a_slack(token=SECRETS["slack token"], url=SECRETS["slack url"], signing_secret=SECRETS["signing secret"])
    book = replace(a_rulebook(WATCH + RULE), notifiers={"cms": hook, "ops": slack})
    request = a_request(hook.url, headers=(f"a: {SECRETS['header']}",))
    policy = Policy(proxy=ENVIRON["BRIDGE_EGRESS_PROXY"], trusted="")
    credentials = Credentials(secret_id="i", secret_key=SECRETS["ci key"], token=SECRETS["ci token"])
    begun = InFlight(a_delivery(), NOON, hook, (SECRETS["proxy password"],))
    keys = Keys.of(SECRETS["admin token"], SECRETS["read token"], [("desk", "read", SECRETS["named token"])])
    assert leaked(" ".join(map(repr, (hook, slack, book, request, policy, credentials, begun, keys)))) == set()


RULES = {
    "a signing secret": '[notifier.x]\ntype = "slack"\nsigning_secret = "{}"',
    "a token": '[notifier.x]\ntype = "slack"\nchannel = "C1"\ntoken = "xoxb-{}"',
    "a secret": '[notifier.x]\ntype = "webhook"\nurl = "https://h/x"\nsecret = "whsec_{}"',
    "secrets": '[notifier.x]\ntype = "webhook"\nurl = "https://h/x"\nsecret = ["whsec_{}"]',
    "an unknown key": '[notifier.x]\ntype = "webhook"\nurl = "https://h/x"\npassword = "{}"',
    "a name": '[notifier.x]\ntype = "webhook"\nurl = {{ env = "{}" }}',
    "the name of a variable": '[notifier.x]\ntype = "slack"\nurl = {{ env = "k{plain}" }}',
    "a url": '[notifier.x]\ntype = "webhook"\nurl = "https://u:{}@h/x"',
    "a header": '[notifier.x]\ntype = "webhook"\nurl = "https://h/x"\nheaders = {{ Authorization = "Bearer {}" }}',
    "a list": '[notifier.x]\ntype = "webhook"\nurl = "https://h/x"\nheaders = {{ X-Key = ["{}"] }}',
    "an endpoint": '[[watch]]\nname = "w"\nbucket = "b-1250000000"\nregion = "r"\ntags = ["a"]\nendpoint = "http://u:{}@h"',
    "no toml": '[notifier.x]\ntoken = "xoxb-{}',
    "a value that is none": "[notifier.x]\ntoken = xoxb-{}",
    "a line": "{}",
    "a value of the environment": '[notifier.x]\ntype = "webhook"\nurl = {{ env = "BAD" }}\nsecret = {{ env = "BAD" }}'
    '\nheaders = {{ X-A = {{ env = "BROKEN" }} }}',
}


@pytest.mark.parametrize("where", RULES)
def test_rules_with_a_secret_in_the_wrong_place_are_refused_without_it(where: str) -> None:
    key = SECRETS["header"]
    text = RULES[where].format(key, plain="".join(filter(str.isalnum, key)))
    with pytest.raises(RulesRefused) as caught:
        read_rules(text, {"BAD": f"whsec_{key}!", "BROKEN": f"{key}\n{key}"})
    assert leaked(str(caught.value)) == set()


@pytest.mark.parametrize(
    "answer",
    [
        lambda key: Answer(status=403, body=f"<Error><Code>{key}</Code><Message>{key}</Message></Error>".encode()),
        lambda key: Answer(status=403, body=f"<Error><RequestId>{key}</RequestId></Error>".encode()),
        lambda key: Answer(status=403, headers={"x-ci-request-id": key}),
        lambda key: Answer(status=500, body=f'{{"code": "{key}", "message": "{"x" * 280}{key}"}}'.encode()),
        lambda key: Answer(body=f"<Response><JobsDetail><JobId>{key}</JobId></JobsDetail>".encode()),
        lambda key: Answer(body=f"<{key}>".encode(), headers={"x-ci-request-id": key}),
        lambda key: Answer(status=302, headers={"Location": f"http://127.0.0.1:1/{key}"}),
    ],
)
def test_what_ci_repeats_of_what_it_was_sent_is_in_no_error(answer: Callable[[str], Answer]) -> None:
    keys = Credentials(secret_id="AKID", secret_key=SECRETS["ci key"], token=SECRETS["ci token"])
    stream = Stream(place=Place(bucket="media-1250000000", region="ap-chongqing"), tag="Transcode")
    with CiSimulator() as fake, TencentCi(credentials=keys, endpoint=fake.url, sleep=lambda _: None) as ci:
        fake.fault = lambda request: answer(request.headers["x-ci-security-token"])
        with pytest.raises(CiError) as caught:
            ci.list(stream)
    assert leaked(whole(caught.value)) == set()


def test_what_the_proxy_repeats_of_its_password_is_not_kept() -> None:
    with Receiver(lambda c, seen, o: answering("407 No", str(seen.headers).encode())(c, seen, o)) as proxy:
        url = f"http://u:{quote(SECRETS['proxy password'], safe='')}@127.0.0.1:{proxy.port}"
        settings = read_settings({"BRIDGE_EGRESS_PROXY": url, "BRIDGE_ALLOW_NETWORKS": "127.0.0.0/8"})
        outbound = Sender(
            client=http_client(settings),
            notifiers={"cms": a_webhook("http://cms.example.com/")},
            clock=lambda: NOON,
            slack_api_url="http://127.0.0.1:1/",
            hidden=settings.secrets,
        )
        outbound.begin(a_delivery())
        (attempt,) = outbound.wait(10)
        outbound.close(10)
        assert leaked(str(proxy.requests[0].headers)) == {"proxy password"}
        assert "'proxy-authorization': 'Basic " in attempt.answer
        assert leaked(attempt.answer + repr(attempt.outcome)) == set()


CRASHES = """
import logging, os, sys, threading
from bridge.logs import configure
key = os.environ["KEY"]
configure("DEBUG", [key])

def fail():
    local = key
    try:
        raise KeyError(f"inner {key}")
    except KeyError as error:
        raise ValueError(f"outer {key}", [key]) from error

try:
    fail()
except ValueError:
    logging.getLogger("x").exception("failed with %s", key, extra={"facts": {"key": key}, "quoted": f'"{key}"'})
logging.getLogger("x").error("y" * 7950 + key)
thread = threading.Thread(target=fail)
thread.start()
thread.join()
fail()
"""


def test_a_crash_is_logged_without_the_secret_in_its_texts() -> None:
    key = SECRETS["header"]
    done = subprocess.run(
        [sys.executable, "-c", CRASHES],
        env=os.environ | {"KEY": key},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert said.count("outer [secret]") == said.count("inner [secret]") == 3
    assert said.count("event=crashed") == 2
    assert leaked(said) == set()
    assert all(line.startswith("timestamp=") for line in said.splitlines())


def test_the_mask_over_the_logs_knows_the_settings_and_the_notifiers() -> None:
    book = replace(a_rulebook(WATCH + RULE), notifiers={"cms": a_webhook(f"http://h/{SECRETS['url path']}")})
    known = known_secrets(read_settings(ENVIRON), book)
    assert {SECRETS["ci key"], SECRETS["database password"], SECRET, f"http://h/{SECRETS['url path']}"} <= set(known)
    assert logging.getLogger("sqlalchemy").level != logging.NOTSET  # else it would log rows at DEBUG
