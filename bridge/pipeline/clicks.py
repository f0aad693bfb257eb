"""What a click on a button of a Slack message does: one of the operations, in the name of who clicked, once."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.text.times import iso
from bridge.notifiers import SlackNotifier
from bridge.pipeline.operations import OperationRefused, Operations
from bridge.send.slack.buttons import Button, Deed, read_button
from bridge.send.slack.clicks import Click

SILENCED_FOR = timedelta(hours=1)
_REASON = "with a button in Slack"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the person is told, and (None: nothing was done) what all are told in place of the button."""

    to_person: str
    to_all: str | None = None


class Refused(Exception):
    """The click must not do anything; the text says why to who clicked."""


def button_of(click: Click, known: Collection[SlackNotifier]) -> Button:
    """Return the button that was clicked; `known` are the notifiers whose app it is. Raises Refused."""
    button = read_button(click.action_id, click.value)
    if button is None:
        raise Refused("This button is none that this version of the bridge knows; nothing was done.")
    notifier = next((one for one in known if one.name == button.notifier), None)
    if notifier is None:
        raise Refused(f'rules.toml has no notifier "{button.notifier}" with buttons any more; nothing was done.')
    if click.team != notifier.team:
        raise Refused(f"You are in the workspace {click.team}, which is not that of {notifier.name}; nothing was done.")
    if click.person.id not in notifier.actions:
        raise Refused(
            f"You may not do this: your id {click.person.id} is not among the actions of {notifier.name} in rules.toml."
        )
    return button


def act(click: Click, button: Button, operations: Operations, book: Rulebook) -> Answer:
    """Do what the button says, unless it was done. Operations that refuse have done nothing."""
    try:
        return _acted(click, button, operations, book)
    except OperationRefused as refusal:
        return Answer(to_person=f"Nothing was done: {refusal}.")


def _acted(click: Click, button: Button, operations: Operations, book: Rulebook) -> Answer:
    who = click.person
    match button.deed:
        case Deed.ACKNOWLEDGE:
            operations.acknowledge(button.target, book)
            return Answer(
                to_person="Acknowledged: it does not escalate.",
                # The message that is edited says so by itself.
                to_all=None if button.is_edited else f"🟡 Acknowledged by {who} at {iso(operations.now)}.",
            )
        case Deed.SILENCE:
            key = f"{button.notifier}/{click.channel}/{click.ts}/{button.target}"
            made = operations.silence_rule(book, button.target, lasts=SILENCED_FOR, reason=_REASON, key=key)
            until = iso(made.ends_at)
            return Answer(
                to_person=f'Rule "{button.target}" is silenced until {until}; a digest then tells what it held.',
                to_all=f'🔕 Rule "{button.target}" was silenced by {who} until {until}.',
            )
        case Deed.RESEND:
            total = operations.redrive_fallback(button.target).total
            what = "1 message is" if total == 1 else f"{total:,} messages are"
            return Answer(to_person=f"{what} sent again.", to_all=f"📤 Resent by {who} at {iso(operations.now)}.")
        case Deed.POLL:
            operations.hurry_watch(book, button.target)
            return Answer(
                to_person=f'Watch "{button.target}" is polled next.',
                to_all=f'🔎 {who} asked for a poll of "{button.target}" at {iso(operations.now)}.',
            )
