"""Picks: names that rules notify by, each of which stands for several notifiers. The job picks one of these."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from bridge.decide.templates.functions import Names, TemplateFault
from bridge.decide.templates.rendering import Template, rendered
from bridge.decide.text.values import listing, shown

_MOST_SHOWN = 20  # texts that pick a notifier, in a reason
_UTC = ZoneInfo("UTC")


def member(pick: str, text: str) -> str:
    """Return the name of the notifier that a text picks."""
    return f"{pick}.{text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The notifier that a pick led to, or the name of the pick itself if there is none.

    `why` says why it is none of `to`, and `fault` why the template did not render.
    """

    pick: str
    notifier: str
    why: str | None = None
    fault: str | None = None

    @property
    def is_dead(self) -> bool:
        """Whether nobody can be notified."""
        return self.notifier == self.pick

    @property
    def note(self) -> str | None:
        """What the message to `otherwise` says of it."""
        return f"Meant for {self.pick}: {self.why}." if self.why and not self.is_dead else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """A [notifier.NAME] with `pick`: what the template says of a job is a text of `to`, or `otherwise` is notified."""

    name: str
    source: str  # of the template
    template: Template
    to: Mapping[str, str]  # the name of a notifier, by the text that picks it
    otherwise: str | None = None
    zone: ZoneInfo = _UTC

    @property
    def notifiers(self) -> tuple[str, ...]:
        """All that it may lead to."""
        return (*self.to.values(), *([self.otherwise] if self.otherwise else []))

    def choose(self, names: Names | None) -> Choice:
        """Return the choice for what templates can name; None: the message is not about one job."""
        if names is None:
            return self._other("no job is on record that could pick")
        try:
            text = rendered(self.template, names)
        except TemplateFault as error:
            return self._other(f"pick does not render: {error}", fault=str(error))
        if found := self.to.get(text):
            return Choice(pick=self.name, notifier=found)
        if not text:
            return self._other("pick gave nothing")
        first, more = tuple(self.to)[:_MOST_SHOWN], len(self.to) - _MOST_SHOWN
        there_are = listing(first) + (f" and {more:,} more" if more > 0 else "")
        return self._other(f"pick gave {shown(text)}, which is not among to: {there_are}")

    def _other(self, why: str, *, fault: str | None = None) -> Choice:
        return Choice(pick=self.name, notifier=self.otherwise or self.name, why=why, fault=fault)


def led_to(names: Iterable[str], picks: Mapping[str, Pick]) -> Iterator[str]:
    """Yield the notifiers that these names may lead to."""
    for name in names:
        yield from picks[name].notifiers if name in picks else (name,)
