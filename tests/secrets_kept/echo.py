"""Receivers that repeat whatever they are sent, and a stage on which everything that has a secret meets one."""

from __future__ import annotations

import html
import json
import socket
import socketserver
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from bridge.model import ANSWER_KEPT
from bridge.simulator.ci import DEMO_SECRET_ID
from tests.secrets_kept.planted import SECRETS
from tests.support.hostile import refuses_connection
from tests.support.receivers import Receiver, Seen, answering, raw
from tests.support.stage import Stage

_TELLING = ("authorization", "x-key", "x-basic", "x-written", "proxy-authorization")

WEBHOOKS = ("plain", "quoted", "escaped", "base64", "decoded", "accepts", "moved", "cut", "reason", "garbage",
            "down", "tls", "forbidden", "literal")  # fmt: skip


def said(seen: Seen) -> list[str]:
    return [seen.path, *(seen.headers[name] for name in _TELLING if name in seen.headers)]


_WRITTEN: dict[str, Callable[[str], str]] = {
    "plain": str,
    "accepts": str,
    "literal": str,
    "quoted": lambda text: f"{unquote(text)} {quote(text, safe='')} {quote(unquote(text), safe='').lower()}",
    "escaped": lambda text: json.dumps(text).replace("/", "\\/") + html.escape(text) + text.lower() + text.upper(),
    "base64": lambda text: " ".join(b64encode(b"xyz"[:n] + text.encode()).decode() for n in range(3)),
    "decoded": lambda text: b64decode(text.split()[1]).decode() if text.startswith("Basic") else "",
}


def echo(connection: socket.socket, seen: Seen, over: threading.Event) -> None:
    kind = urlsplit(seen.path).path.partition("/")[2].partition("/")[0]  # a proxy is sent whole addresses
    told = said(seen)
    bearer = seen.headers.get("authorization", "")
    match kind:
        case "api":  # Slack's
            channel = json.loads(seen.body).get("channel") if seen.body.startswith(b"{") else None
            answer = {"ok": channel == "C0OK", "error": f"no {bearer}", "channel": bearer, "ts": "1.2"}
            behave = answering("200 OK", json.dumps(answer).encode(), "Content-Type: application/json")
        case "jobs":  # CI's
            token = seen.headers["x-ci-security-token"]
            repeated = html.escape(" ".join(f"{name}: {value}" for name, value in seen.headers.items()))
            text = f"<Error><Code>Bad {token}</Code><Message>{repeated}</Message></Error>"
            behave = answering("403 Forbidden", text.encode(), f"x-ci-request-id: {token}")
        case "moved":
            token = seen.path.partition("/moved/")[2].partition("?")[0]
            behave = answering("302 Found", b"", f"Location: https://{token}.example.com{seen.path}")
        case "cut":
            behave = answering("500 Oops", b"x" * (ANSWER_KEPT - len(bearer) // 2) + bearer.encode())
        case "reason":
            behave = answering(f"500 {bearer}", b"", *(f"X-Said: {one}" for one in told))
        case "garbage":
            behave = raw(f"{seen.path} {seen.headers}\r\n\r\n".encode())
        case _:
            status = "200 OK" if kind == "accepts" else "500 Oops"
            behave = answering(status, " ".join(map(_WRITTEN.get(kind, str), told)).encode())
    behave(connection, seen, over)


class _NoTls(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@contextmanager
def no_tls() -> Iterator[str]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _NoTls) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"https://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


HEAD = """
[defaults]
every = "1s"
rate = "1000/s"

[[watch]]
name = "media"
bucket = "media-1250000000"
region = "ap-chongqing"
tags = ["Transcode"]

[[watch]]
name = "refused"
bucket = "other-1250000000"
region = "ap-chongqing"
tags = ["Transcode"]
endpoint = "{echo}"

[notifier.slack]
type = "slack"
channel = "C0NO"
token = {{ env = "SLACK_BOT_TOKEN" }}
signing_secret = {{ env = "SLACK_SIGNING_SECRET" }}
team = "T000"
actions = ["U024BE7LH"]

[notifier.thread]
type = "slack"
channel = "C0OK"
thread = "job"
token = {{ env = "SLACK_BOT_TOKEN" }}

[notifier.incoming]
type = "slack"
url = {{ env = "SLACK_URL" }}

[[rule]]
name = "everything"
notify = {names}
"""
WEBHOOK = """
[notifier.{name}]
type = "webhook"
url = {url}
secret = {{ env = ["NEW_SECRET", "OLD_SECRET"] }}

[notifier.{name}.headers]
Authorization = {{ env = "BEARER" }}
X-Key = {{ env = "KEY" }}
X-Basic = {{ env = "BASIC" }}
X-Written = "{written}"
"""


@contextmanager
def planted_stage(folder: Path, database_url: str) -> Iterator[tuple[Stage, Receiver]]:
    """Yield a stage with a secret in every place, between an honest CI and receivers that repeat what they get."""
    with (
        Receiver(echo) as receiver,
        refuses_connection() as down,
        no_tls() as tls,
        Stage(folder, database_url) as stage,
    ):
        at = f"http://127.0.0.1:{receiver.port}"
        hosts = {"down": down.url.removesuffix("/hook"), "tls": tls, "forbidden": "http://127.0.0.2:1"}
        secret = f"{quote(SECRETS['url path'], safe='')}?token={quote(SECRETS['url query'], safe='')}"
        urls = {name: f"{hosts.get(name, at)}/{name}/{secret}" for name in WEBHOOKS}
        literal = f'"{at}/literal/{quote(SECRETS["url in rules"], safe="")}"'
        names = [*WEBHOOKS, "slack", "thread", "incoming"]
        rules = HEAD.format(echo=at, names=json.dumps(names)) + "".join(
            WEBHOOK.format(
                name=name,
                written=SECRETS["header in rules"],
                url=literal if name == "literal" else f'{{ env = "URL_{name.upper()}" }}',
            )
            for name in WEBHOOKS
        )
        stage.ci.credentials = {DEMO_SECRET_ID: SECRETS["ci key"]}
        stage.ci.token = SECRETS["ci token"]
        stage.environ |= {f"URL_{name.upper()}": url for name, url in urls.items()} | {
            "BRIDGE_RULES_TOML": rules,
            "BRIDGE_ALLOW_NETWORKS": "127.0.0.1/32",
            "BRIDGE_ADMIN_TOKEN": SECRETS["admin token"],
            "BRIDGE_READ_TOKEN": SECRETS["read token"],
            "BRIDGE_TOKENS": f"ops:admin:{SECRETS['named token']}",
            "BRIDGE_CALLBACK_TOKEN": SECRETS["callback token"],
            "TENCENTCLOUD_SECRET_KEY": SECRETS["ci key"],
            "TENCENTCLOUD_SECURITY_TOKEN": SECRETS["ci token"],
            "SLACK_API_URL": f"{at}/api/",
            "SLACK_BOT_TOKEN": f"xoxb-{SECRETS['slack token']}",
            "SLACK_URL": f"{at}/services/T1/B1/{quote(SECRETS['slack url'], safe='')}",
            "SLACK_SIGNING_SECRET": SECRETS["signing secret"],
            "NEW_SECRET": f"whsec_{SECRETS['new secret']}",
            "OLD_SECRET": f"whsec_{SECRETS['old secret']}",
            "KEY": SECRETS["header"],
            "BEARER": f"Bearer {SECRETS['bearer']}",
            "BASIC": f"Basic {b64encode(('user:' + SECRETS['basic']).encode()).decode()}",
            "LOG_LEVEL": "DEBUG",
        }
        yield stage, receiver
