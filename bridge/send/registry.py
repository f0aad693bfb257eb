"""Every type of notifier, by its name in rules.toml. docs/design.md says how to add one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.model import Notifier
from bridge.send.notifier_type import NotifierType
from bridge.send.slack import Slack
from bridge.send.webhook import Webhook

TYPES: Mapping[str, NotifierType[Any]] = {
    "slack": Slack(),
    "webhook": Webhook(),
}


def type_of(notifier: Notifier) -> NotifierType[Any]:
    if notifier.type not in TYPES:
        raise TypeError(f'nothing sends to notifiers of type "{notifier.type}"; there are {", ".join(TYPES)}')
    return TYPES[notifier.type]
