"""What one notifier alone is sent: a body of its own, or a channel that the job names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bridge.decide.messages.event import LARGEST_EVENT
from bridge.decide.templates.functions import TemplateFault
from bridge.decide.templates.names import Names
from bridge.decide.templates.rendering import Template, value
from bridge.decide.text.values import shown
from bridge.model import Notifier, Writer


@dataclass(frozen=True, slots=True, kw_only=True)
class Custom:
    """What a message is for one notifier alone; what is None is as for any other."""

    body: str | None = None
    channel: str | None = None
    note: str | None = None  # why it comes to this channel
    faults: tuple[str, ...] = ()  # templates that did not render


def customs(notifier: Notifier, names: Names) -> Custom:
    """Return what the notifier's own templates make of a message."""
    if notifier.body:
        return _with_body(notifier.body, names)
    if notifier.channel_template:
        return _with_channel(notifier.channel_template, notifier.channels, names)
    return Custom()


def _with_body(writer: Writer, names: Names) -> Custom:
    try:
        return Custom(body=writer(names))
    except TemplateFault as error:
        return Custom(faults=(f"body: {error}",))


def _with_channel(writer: Writer, channels: tuple[str, ...], names: Names) -> Custom:
    try:
        wanted = writer(names)
    except TemplateFault as error:
        return Custom(channel=channels[0], faults=(f"channel: {error}",))
    if wanted in channels:
        return Custom(channel=wanted)
    note = f"meant for channel {shown(wanted)}, which is not among channels" if wanted else None
    return Custom(channel=channels[0], note=note)


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """A [notifier.NAME.body], compiled: a tree whose texts are templates."""

    tree: Mapping[str, Any]

    def __call__(self, names: Names) -> str:
        """Return compact JSON of at most LARGEST_EVENT bytes. Raises TemplateFault saying which key."""
        return _as_json(_rendered(self.tree, (), names))

    def check(self) -> None:
        """Raise TemplateFault for a body that is too large, or does not render, for every job."""
        _as_json(_rendered(self.tree, (), None))


def _as_json(tree: Any) -> str:
    text = json.dumps(tree, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    if (size := len(text.encode())) > LARGEST_EVENT:
        raise TemplateFault(f"it has {size:,} bytes of JSON, and {LARGEST_EVENT:,} are the most")
    return text


def _rendered(tree: Any, path: tuple[str | int, ...], names: Names | None) -> Any:
    """Return the tree with the value of each template; without names, of the constant ones."""
    match tree:
        case dict():
            return {key: _rendered(item, (*path, key), names) for key, item in tree.items()}
        case list():
            return [_rendered(item, (*path, at), names) for at, item in enumerate(tree)]
        case Template():
            try:
                return tree.constant if names is None else value(tree, names)
            except TemplateFault as error:
                raise TemplateFault(f"at {shown('.'.join(map(str, path)))}: {error}") from error
    return tree
