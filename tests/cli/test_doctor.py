"""`doctor`: what it reports of the whole bridge, and of notifiers without sending them anything."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from contextlib import closing
from ipaddress import ip_network

import pytest

from bridge import settings as environment
from bridge.cli.doctor import notifier_checks
from bridge.decide.rules.rulebook import Rulebook
from bridge.record.polling import hints, leases
from bridge.send.client import HttpClient
from bridge.send.integration import check_address
from bridge.simulator.slack import ALL_SCOPES, DEMO_TOKEN, HISTORY_SCOPES
from bridge.simulator.web import Answer
from bridge.wiring.parts import share_public_url
from tests.support.nouns import NOON, a_rulebook, a_watch
from tests.support.proxies import Proxy
from tests.support.receivers import Receiver, answering
from tests.support.rules_texts import RULE, WATCH
from tests.support.stage import RULES, Stage

PASSWORD = "hush-hush"


def a_book(*, slack_at: str = "http://127.0.0.1:1/hook") -> Rulebook:
    webhook = '[notifier.hook]\ntype = "webhook"\nurl = "http://127.0.0.1:1/"\nsecret = { env = "HOOK_SECRET" }\n'
    slack = '[notifier.ops]\ntype = "slack"\nchannel = "C1"\ntoken = { env = "SLACK_BOT_TOKEN" }\n'
    incoming = '[notifier.old]\ntype = "slack"\nurl = { env = "SLACK_URL" }\n'
    env = {"SLACK_BOT_TOKEN": "xoxb-123456", "SLACK_URL": slack_at}
    return a_rulebook(f"{WATCH}{RULE}\n{webhook}{slack}{incoming}", env)


def checked(book: Rulebook, **environ: str) -> dict[str, list[tuple[bool | None, str]]]:
    found: dict[str, list[tuple[bool | None, str]]] = defaultdict(list)
    for check in notifier_checks(environment.read(environ), book):
        found[check.name].append((check.ok, check.detail))
    return found


def test_behind_a_proxy_the_proxy_checks_addresses_and_its_password_is_not_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    channel = b'{"ok":true,"channel":{"name":"ops","is_member":true}}'
    with Receiver(answering("200 OK", channel)) as slack, Proxy() as proxy:
        found = checked(
            a_book(),
            BRIDGE_EGRESS_PROXY=proxy.url.replace("://", f"://me:{PASSWORD}@"),
            SLACK_API_URL=f"http://slack.example.com:{slack.port}/api/",
        )
    through = "goes through BRIDGE_EGRESS_PROXY, which must check the address"
    assert found == {
        "notifier hook": [(True, through)],
        "notifier ops": [(True, through), (True, "Slack knows the token"), (True, "the app is in channel C1 (#ops)")],
        "notifier old": [(True, through)],
    }
    assert [seen.path.rpartition("/api/")[2] for seen in slack.requests] == ["auth.test", "conversations.info"]
    assert len(caplog.records) == 1
    assert PASSWORD not in f"{found} {caplog.text}"


def test_a_proxy_that_refuses_slack_is_named() -> None:
    with Proxy(b"HTTP/1.1 403 No") as proxy:
        found = checked(a_book(), BRIDGE_EGRESS_PROXY=proxy.url, SLACK_API_URL="https://slack.example.com/api/")
    why = "the proxy of BRIDGE_EGRESS_PROXY refused a tunnel to slack.example.com:443: it answered 403"
    assert (False, why) in found["notifier ops"]


def test_without_a_proxy_forbidden_addresses_are_reported_and_not_contacted() -> None:
    with Receiver(answering("200 OK", b'{"ok": true}')) as receiver:
        found = checked(a_book(slack_at=receiver.url), SLACK_API_URL=f"http://127.0.0.1:{receiver.port}/api/")
    assert [[ok for ok, _ in checks] for checks in found.values()] == [[False]] * 3
    assert all("BRIDGE_ALLOW_NETWORKS" in detail for [(_, detail)] in found.values())
    assert receiver.connections == 0


@pytest.mark.parametrize("host", ["cms..example", "x" * 70 + ".example", "nobody.invalid"])
def test_a_name_without_an_address_is_reported(host: str) -> None:
    with closing(HttpClient()) as client:
        ok, detail = check_address(f"https://{host}/hook?token=hush", client)
    assert not ok
    assert detail.startswith(f"{host} has no address: ")
    assert "hush" not in detail


def test_an_allowed_address_may_be_reached_and_another_is_named_with_how_to_allow_it() -> None:
    with closing(HttpClient(allow=(ip_network("127.0.0.2"),))) as client:
        assert check_address("http://127.0.0.2:1/", client).ok
        assert check_address("http://127.0.0.3:1/", client) == (
            False,
            "127.0.0.3: 127.0.0.3 is a loopback address (BRIDGE_ALLOW_NETWORKS=127.0.0.3 allows it)",
        )


def test_doctor_reports_what_works_and_what_does_not(stage: Stage) -> None:
    healthy = stage.command("doctor", "--json")
    assert healthy.exit_code == 0, healthy.stdout
    names = {check["name"] for check in json.loads(healthy.stdout)}
    assert {"database", "rules", "watch media, Transcode", "notifier ops", "notifier cms"} <= names
    text = stage.command("doctor").stdout
    assert "warn  worker: no worker is running: start `ci-bridge worker`, or `run`" in text
    assert re.search(r"all checks passed, \d+ warnings: `ci-bridge run` should work", text)
    assert "warn  links: messages have no links to the dashboard: set BRIDGE_PUBLIC_URL to where people" in text
    linked = stage.command("doctor", BRIDGE_PUBLIC_URL="https://bridge.example.com/")
    assert "ok    links: messages link to https://bridge.example.com, once a web process has started" in linked.stdout
    share_public_url(stage.db, "https://bridge.example.com")
    assert "ok    links: messages link to https://bridge.example.com\n" in stage.command("doctor").stdout
    failing = stage.command("doctor", TENCENTCLOUD_SECRET_KEY="wrong", SLACK_BOT_TOKEN="xoxb-unknown")
    assert failing.exit_code == 1
    assert re.search(r"FAIL  watch media, Transcode: .*SignatureDoesNotMatch", failing.stdout)
    assert "FAIL  notifier ops: Slack refuses the token: invalid_auth: give the notifier the token of" in failing.stdout


def test_doctor_says_of_each_channel_whether_the_app_may_post_there(stage: Stage) -> None:
    stage.slack.workspace.change_channel("C024BE91L", name="media-ops", is_archived=True)
    failing = stage.command("doctor")
    assert failing.exit_code == 1
    assert (
        "FAIL  notifier ops: channel C024BE91L (#media-ops) is archived: unarchive it, or name another"
        in failing.stdout
    )
    stage.slack.workspace.change_channel("C024BE91L", is_archived=False)
    stage.slack.tokens = {DEMO_TOKEN: ALL_SCOPES - HISTORY_SCOPES}
    passing = stage.command("doctor")
    assert passing.exit_code == 0
    assert (
        "warn  notifier ops: the app is in channel C024BE91L (#media-ops), but it has not the scope" in passing.stdout
    )


def test_doctor_says_once_for_a_bucket_that_its_queues_have_no_names(stage: Stage) -> None:
    second = '[[watch]]\nname = "again"\nbucket = "media-1250000000"\nregion = "ap-chongqing"\ntags = ["Transcode"]\n'
    stage.rules_file.write_text(RULES + second)
    stage.ci.queues = {"p1": ("queue-1", "Active"), "p2": ("queue-2", "Paused")}
    assert "warn  queues of media-1250000000: 2 queues; paused in CI: queue-2\n" in stage.command("doctor").stdout
    denied = b"<Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>"
    stage.ci.fault = lambda request: Answer(status=403, body=denied) if request.path == "/queue" else None
    said = stage.command("doctor")
    assert said.exit_code == 0
    assert said.stdout.count("warn  queues of media-1250000000: their names are not known: ") == 1
    assert "grant ci:DescribeMediaQueues on the bucket to these keys" in said.stdout


LONG = "0123456789abcdef0123456789abcdef"


BUTTONS = """token = { env = "SLACK_BOT_TOKEN" }
signing_secret = { env = "SLACK_SIGNING_SECRET" }
team = "T000"
actions = ["U024BE7LH"]
"""


def test_doctor_says_which_address_slack_needs_for_clicks_on_buttons(stage: Stage) -> None:
    assert "buttons" not in stage.command("doctor").stdout

    stage.rules_file.write_text(RULES.replace('token = { env = "SLACK_BOT_TOKEN" }\n', BUTTONS, 1))
    for url, said in {
        "": "warn  buttons in Slack: it is not known where Slack can reach the bridge: set BRIDGE_PUBLIC_URL, and",
        "https://bridge.example.com": "ok    buttons in Slack: enter https://bridge.example.com/hooks/slack as Request",
        "http://bridge.example.com": "warn  buttons in Slack: enter http://bridge.example.com/hooks/slack as Request",
        "https://10.0.0.1": "warn  buttons in Slack: Slack cannot reach 10.0.0.1, which is only known here",
        "http://localhost:8000": "warn  buttons in Slack: Slack cannot reach localhost, which is only known here",
    }.items():
        done = stage.command("doctor", SLACK_SIGNING_SECRET="hush-hush", BRIDGE_PUBLIC_URL=url)
        assert done.exit_code == 0
        assert said in done.stdout
        assert "ok    notifier ops: team is the workspace of the token" in done.stdout
        assert "hush-hush" not in done.stdout


def test_doctor_says_when_the_last_callback_came_and_what_else_to_do_about_them(stage: Stage) -> None:
    assert "callbacks" not in stage.command("doctor").stdout

    none = stage.command("doctor", BRIDGE_CALLBACK_TOKEN=LONG).stdout
    assert "warn  callbacks: none has come for media: switch them on for its queues, as docs/callbacks.md" in none
    with stage.db.write() as tx:
        leases.sync(tx, [a_watch(name="media")], [])
        hints.received(tx, ["media"], now=NOON)
    some = stage.command("doctor", BRIDGE_CALLBACK_TOKEN=f"{LONG},short").stdout
    assert 'ok    callbacks: the last one came at 2026-11-21T12:00:00.000Z, for the watch "media"' in some
    assert 'ok    callbacks: with idle = "5m", quiet tags of media would take fewer calls' in some
    assert "warn  callbacks: a token of BRIDGE_CALLBACK_TOKEN has 5 characters; it can be guessed: use 20" in some
    assert LONG not in some
    assert "short," not in some
