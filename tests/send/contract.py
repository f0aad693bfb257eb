"""An example of each way to send, which test_contract.py holds to what every way must do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from bridge.notifiers import DingTalkNotifier, FeishuNotifier, Notifier, TeamsNotifier, WecomNotifier
from bridge.send.client import HttpClient
from bridge.simulator.smtp import CONTENT
from tests.support.mail import PASSWORD, MailReceiver, an_email, place_of, saying, trusting
from tests.support.receivers import (
    LOOPBACK,
    SECRET,
    Receiver,
    a_root_edit,
    a_slack,
    a_webhook,
    accepting,
    answering,
)


@dataclass(frozen=True)
class Example:
    """A notifier with an address, its table in rules.toml, and how its receiver answers: `receiver` takes that."""

    notifier: Callable[[str], Notifier]
    table: str  # its lines, with {url} for the variable that has its address
    accepts: Any
    asks_to_wait: Any  # for `wait`
    is_gone: Any  # for good
    refuses: Any  # this message alone, for good; None: it never does
    secrets: tuple[str, ...]  # values of `notifier` that nothing shows
    waits_with: str | None = None  # what waits as well when it asks to: who shares a limit; None: the notifier
    delivery: Mapping[str, Any] = field(default_factory=dict)
    through_api: bool = False  # its address is that of Slack's API
    target: str = "https://hooks.example.com"  # of a notifier with this table
    wait: timedelta = timedelta(seconds=30)
    receiver: Callable[[Any], Any] = Receiver
    repeats: Callable[[bytes], Any] = lambda text: answering("500 Oh", text)
    client: Callable[[], HttpClient] = lambda: HttpClient(allow=LOOPBACK)
    speaks_http: bool = True


_WAIT = answering("429 Too Many Requests", b"", "Retry-After: 30")
_API_TABLE = 'channel = "C1"\ntoken = { env = "TOKEN" }'
_TOKEN = "xoxb-hush"


def _of_api(**facts: Any) -> Example:
    """Return an example of what Slack's API is asked for: `facts` are those of the delivery and the notifier."""
    return Example(
        notifier=lambda _: a_slack(token=_TOKEN, **facts.get("notifier", {})),
        table=_API_TABLE,
        accepts=accepting(),
        asks_to_wait=answering("429 Too Many Requests", b'{"ok":false,"error":"ratelimited"}', "Retry-After: 30"),
        is_gone=answering("200 OK", b'{"ok":false,"error":"token_revoked"}'),
        refuses=answering("200 OK", b'{"ok":false,"error":"metadata_too_large"}'),
        secrets=(_TOKEN,),
        waits_with=facts["waits_with"],
        delivery=facts.get("delivery", {}),
        through_api=True,
    )


EXAMPLES = {
    "email": Example(
        notifier=lambda url: an_email(place_of(url)),
        table='server = "smtp.example.com"\nfrom = "Media <ci@example.com>"\nto = ["ops@example.com"]\n'
        'username = "ci"\npassword = { env = "SECRET" }',
        accepts=None,
        asks_to_wait=saying({"MAIL": b"421 4.7.0 too many connections"}),
        is_gone=saying({"RCPT": b"550 5.1.1 no such mailbox"}),
        refuses=saying({CONTENT: b"554 5.7.1 it looks like spam"}),
        secrets=(PASSWORD,),
        target="smtp.example.com:587",
        wait=timedelta(minutes=1),
        receiver=MailReceiver,
        repeats=lambda text: saying({"MAIL": b"451 " + text}),
        client=trusting,
        speaks_http=False,
    ),
    "slack": Example(
        notifier=lambda url: a_slack(channel=None, token=None, url=url),
        table='url = { env = "URL" }',
        accepts=accepting(),
        asks_to_wait=_WAIT,
        is_gone=answering("404 Not Found", b"no_service"),
        refuses=answering("400 Bad Request", b"too_many_attachments"),
        secrets=("hush",),
        waits_with="slack hook ",
    ),
    "teams": Example(
        notifier=lambda url: TeamsNotifier(name="ops", url=url),
        table='url = { env = "URL" }',
        accepts=answering("202 Accepted", b""),
        asks_to_wait=_WAIT,
        is_gone=answering("404 Not Found", b'{"error":{"code":"WorkflowNotFound","message":"no such workflow"}}'),
        refuses=answering("413 Payload Too Large", b""),
        secrets=("hush",),
        waits_with="teams robot ",
    ),
    "webhook": Example(
        notifier=lambda url: a_webhook(url, headers=(("authorization", "Bearer header-hush"),)),
        table='url = { env = "URL" }\nsecret = { env = "SECRET" }',
        accepts=answering("204 No Content"),
        asks_to_wait=_WAIT,
        is_gone=answering("410 Gone"),
        refuses=None,
        secrets=("hush", "header-hush", SECRET),
    ),
    "wecom": Example(
        notifier=lambda url: WecomNotifier(name="ops", url=url),
        table='url = { env = "URL" }',
        accepts=answering("200 OK", b'{"errcode":0,"errmsg":"ok"}'),
        asks_to_wait=answering("200 OK", b'{"errcode":45009,"errmsg":"api freq out of limit"}', "Retry-After: 30"),
        is_gone=answering("200 OK", b'{"errcode":93000,"errmsg":"invalid webhook url"}'),
        refuses=answering("200 OK", b'{"errcode":40058,"errmsg":"markdown.content exceed max length 4096"}'),
        secrets=("hush",),
        waits_with="wecom robot ",
    ),
    "dingtalk": Example(
        notifier=lambda url: DingTalkNotifier(name="ops", url=url, secret=SECRET),
        table='url = { env = "URL" }\nsecret = { env = "SECRET" }',
        accepts=answering("200 OK", b'{"errcode":0,"errmsg":"ok"}'),
        asks_to_wait=answering("200 OK", b'{"errcode":130101,"errmsg":"send too fast"}', "Retry-After: 30"),
        is_gone=answering("200 OK", b'{"errcode":300005,"errmsg":"token is not exist"}'),
        refuses=answering("200 OK", b'{"errcode":460101,"errmsg":"message too long, exceed 20000 bytes"}'),
        secrets=("hush", SECRET),
        waits_with="dingtalk robot ",
    ),
    "feishu": Example(
        notifier=lambda url: FeishuNotifier(name="ops", url=url, secret=SECRET),
        table='url = { env = "URL" }\nsecret = { env = "SECRET" }',
        accepts=answering("200 OK", b'{"code":0,"msg":"success","data":{}}'),
        asks_to_wait=answering("200 OK", b'{"code":11232,"msg":"frequency limited"}', "Retry-After: 30"),
        is_gone=answering("200 OK", b'{"code":19001,"msg":"param invalid: incoming webhook access token invalid"}'),
        refuses=answering("200 OK", b'{"code":11246,"msg":"parse card json err"}'),
        secrets=("hush", SECRET),
        waits_with="feishu robot ",
    ),
}
# Of each type there is one above; what follows are other ways of the same types.
WAYS = EXAMPLES | {
    "slack post": _of_api(waits_with="slack channel C1 of "),
    "slack edit": _of_api(waits_with="slack edits ", notifier={"update": True}, delivery={"make": a_root_edit}),
}
