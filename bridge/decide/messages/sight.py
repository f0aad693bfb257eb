"""What is said of a watch that could not see for too long, and that sees again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from bridge.decide.messages.build import delivery_to, envelope
from bridge.decide.rules.matching import Rule
from bridge.decide.text.times import iso
from bridge.decide.text.values import cut, ident
from bridge.language import ENGLISH, Language
from bridge.links import NO_LINKS, Links
from bridge.model import Blindness, Message, NewDelivery, Watch
from bridge.notifiers import Notifier


def blind_message(
    watch: Watch,
    blind: Blindness,
    rule: Rule,
    *,
    error: str,
    now: datetime,
    links: Links,
    language: Language = ENGLISH,
) -> Message:
    """Return the message that no poll of a watch has been complete for as long as the rule says."""
    lasted, since = language.span((now - blind.since).total_seconds()), iso(blind.since)
    return _message(
        "blind",
        watch,
        blind,
        rule,
        title=language.say("Watch {watch} cannot see: no complete poll for {lasted}", watch=watch.name, lasted=lasted),
        text=language.say("{error} (since {since})", error=error, since=since),
        data={"for_seconds": round(rule.blind.total_seconds()) if rule.blind else None, "error": cut(error)},
        now=now,
        links=links,
        language=language,
    )


def sees_message(
    watch: Watch,
    blind: Blindness,
    rule: Rule,
    *,
    caught_up: int,
    now: datetime,
    links: Links = NO_LINKS,
    language: Language = ENGLISH,
) -> Message:
    """Return the message that a poll was complete again; `caught_up` transitions were seen since the last one."""
    lasted, since = language.span((now - blind.since).total_seconds()), iso(blind.since)
    what = language.say("{n:,} transitions were seen since {since}", n=caught_up, since=since)
    if caught_up == 1:
        what = language.say("1 transition was seen since {since}", since=since)
    return _message(
        "sees",
        watch,
        blind,
        rule,
        title=language.say("Watch {watch} sees again, after {lasted}", watch=watch.name, lasted=lasted),
        text=what,
        data={"blind_seconds": round((now - blind.since).total_seconds()), "caught_up": caught_up},
        now=now,
        links=links,
        language=language,
    )


def _message(
    kind: str,
    watch: Watch,
    blind: Blindness,
    rule: Rule,
    *,
    title: str,
    text: str,
    data: dict[str, Any],
    now: datetime,
    links: Links,
    language: Language,
) -> Message:
    place = watch.place
    about = {"watch": watch.name, "bucket": place.bucket, "region": place.region, "since": iso(blind.since)}
    return Message(
        id=ident("msg", kind, watch.name, rule.name, blind.since.isoformat()),
        kind="blind" if kind == "blind" else "sees",
        title=cut(title),
        text=cut(text),
        fields=(),
        event=envelope(
            f"watch.{kind}",
            source=f"//{place.bucket}.ci.{place.region}.myqcloud.com/jobs",
            subject=watch.name,
            time=now,
            data=about | data | {"rule": rule.name, "url": links.watches()},
            sequence=1 if kind == "blind" else 2,
        ),
        bucket=place.bucket,
        rule=rule.name,
        public_url=links.base,
        mention=rule.mention if kind == "blind" else (),
        language=language.tag,
        happened_at=now,
    )


def deliveries_of(message: Message, rule: Rule, watch: Watch, notifiers: Iterable[Notifier]) -> Sequence[NewDelivery]:
    """Return the deliveries of a message about a watch: those of one watch in order, and none is held."""
    return [
        NewDelivery(
            id=made.id,
            message=message,
            notifier=notifier.name,
            ordering_key=f"watch/{watch.name}" if notifier.keeps_order else None,
            urgent=rule.urgent,
        )
        for notifier in notifiers
        for made in [delivery_to(message, notifier)]
    ]
