"""What `doctor` can know of notifiers without sending a message."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import TypeVar
from urllib.parse import urlsplit

from bridge.decide.rulebook import Rulebook
from bridge.model import SlackNotifier, WebhookNotifier
from bridge.send.addresses import Network, forbidden
from bridge.send.slack import token_trouble
from bridge.settings import Settings
from bridge.wiring.parts import door

_Check = TypeVar("_Check")


def notifier_checks(
    settings: Settings, book: Rulebook, check: Callable[[str, bool | None, str], _Check]
) -> Iterator[_Check]:
    """Yield what can be known of each notifier without sending it a message."""
    for notifier in book.notifiers.values():
        name = f"notifier {notifier.name}"
        if isinstance(notifier, SlackNotifier) and notifier.token:
            with closing(door(settings)) as out:
                said = token_trouble(notifier, settings.slack_api_url, out)
            yield check(name, said is None, said or "Slack knows the token")
            continue
        url = notifier.url if isinstance(notifier, SlackNotifier | WebhookNotifier) else None
        if settings.egress_proxy:
            yield check(name, True, "goes through BRIDGE_EGRESS_PROXY, which judges the address")
        else:
            said = unreachable(url or "", settings.allow_networks)
            yield check(
                name,
                said is None,
                said
                or f"{urlsplit(url or '').hostname} resolves to an address that may be told (it was not contacted)",
            )


def unreachable(url: str, allowed: Sequence[Network]) -> str | None:
    """Say why a URL's host could not be told: no address, or only forbidden ones. The door judges again."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, parts.port or 443, type=socket.SOCK_STREAM)}
    except OSError as error:
        return f"{host} has no address: {error}"
    faults = [forbidden(address, allowed) for address in sorted(found)]
    return (
        None
        if any(fault is None for fault in faults)
        else f"{host}: {faults[0]} (BRIDGE_ALLOW_NETWORKS={min(found)} allows it)"
    )
