"""An example of each type of notifier, which test_contract.py holds to what every type must do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bridge.model import Notifier
from tests.support.receivers import SECRET, Behaviour, a_slack, a_webhook, accepting, answering


@dataclass(frozen=True)
class Example:
    """A notifier with an address, its table in rules.toml, and how its receiver answers."""

    notifier: Callable[[str], Notifier]
    table: str  # its lines, with {url} for the variable that has its address
    accepts: Behaviour
    asks_to_wait: Behaviour  # for 30 seconds
    is_gone: Behaviour  # for good
    secrets: tuple[str, ...]  # values of `notifier` that nothing shows


_WAIT = answering("429 Too Many Requests", b"", "Retry-After: 30")

EXAMPLES = {
    "slack": Example(
        notifier=lambda url: a_slack(channel=None, token=None, url=url),
        table='url = { env = "URL" }',
        accepts=accepting(),
        asks_to_wait=_WAIT,
        is_gone=answering("404 Not Found", b"no_service"),
        secrets=("hush",),
    ),
    "webhook": Example(
        notifier=lambda url: a_webhook(url, headers=(("authorization", "Bearer header-hush"),)),
        table='url = { env = "URL" }\nsecret = { env = "SECRET" }',
        accepts=answering("204 No Content"),
        asks_to_wait=_WAIT,
        is_gone=answering("410 Gone"),
        secrets=("hush", "header-hush", SECRET),
    ),
}
