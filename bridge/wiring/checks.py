"""What `doctor` can know of notifiers without sending a message."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import TypeVar
from urllib.parse import urlsplit

from bridge.decide.rulebook import Rulebook
from bridge.model import Notifier, SlackNotifier, WebhookNotifier
from bridge.send.addresses import Network, forbidden
from bridge.send.door import Door
from bridge.send.slack import token_trouble
from bridge.settings import Settings
from bridge.wiring.parts import door

_Check = TypeVar("_Check")


def notifier_checks(
    settings: Settings, book: Rulebook, check: Callable[[str, bool | None, str], _Check]
) -> Iterator[_Check]:
    """Yield what can be known of each notifier without sending it a message."""
    with closing(door(settings)) as out:
        for notifier in book.notifiers.values():
            said, well = _known(notifier, settings, out)
            yield check(f"notifier {notifier.name}", said is None, said or well)


def _known(notifier: Notifier, settings: Settings, out: Door) -> tuple[str | None, str]:
    """Return what is wrong, or None, and what to say where nothing is."""
    through = "goes through BRIDGE_EGRESS_PROXY, which judges the address" if settings.egress_proxy else ""
    if isinstance(notifier, SlackNotifier) and notifier.token:
        well = f"Slack knows the token; {through}" if through else "Slack knows the token"
        return token_trouble(notifier, settings.slack_api_url, out), well
    if through:
        return None, through
    url = (notifier.url if isinstance(notifier, SlackNotifier | WebhookNotifier) else None) or ""
    well = f"{urlsplit(url).hostname} resolves to an address that may be told (it was not contacted)"
    return unreachable(url, settings.allow_networks), well


def unreachable(url: str, allowed: Sequence[Network]) -> str | None:
    """Say why a URL's host could not be told: no address, or only forbidden ones. The door judges again."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, parts.port or 443, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError) as error:  # the second of a name like "a..b"
        return f"{host} has no address: {error}"
    faults = [forbidden(address, allowed) for address in sorted(found)]
    return (
        None
        if any(fault is None for fault in faults)
        else f"{host}: {faults[0]} (BRIDGE_ALLOW_NETWORKS={min(found)} allows it)"
    )
