"""Every type of notifier, by its name in rules.toml. docs/design.md says how to add one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bridge.notifiers import Notifier
from bridge.send.dingtalk import DingTalk
from bridge.send.email import Email
from bridge.send.feishu import Feishu
from bridge.send.integration import Integration
from bridge.send.slack import Slack
from bridge.send.teams import Teams
from bridge.send.webhook import Webhook
from bridge.send.wecom import Wecom

TYPES: Mapping[str, Callable[[Any], Integration]] = {
    "email": Email,
    "slack": Slack,
    "teams": Teams,
    "webhook": Webhook,
    "wecom": Wecom,
    "dingtalk": DingTalk,
    "feishu": Feishu,
}


def integration_of(notifier: Notifier) -> Integration:
    if notifier.type not in TYPES:
        raise TypeError(f'nothing sends to notifiers of type "{notifier.type}"; there are {", ".join(TYPES)}')
    return TYPES[notifier.type](notifier)
