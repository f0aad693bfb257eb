"""How much rendering a template may take."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.decide.template_words import TemplateFault

MOST_STEPS = 10_000
MOST_CHARACTERS = 2_000_000  # made, or looked through, on the way to a result
_CHARACTERS_A_STEP = 200  # that take about as long


@dataclass(slots=True)
class Budget:
    """What rendering may still take; the texts of one body share one."""

    steps: int = MOST_STEPS
    characters: int = MOST_CHARACTERS

    @property
    def spent(self) -> int:
        """What was taken so far, in steps."""
        return MOST_STEPS - self.steps + (MOST_CHARACTERS - self.characters) // _CHARACTERS_A_STEP

    def step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise TemplateFault(f"it takes more than {MOST_STEPS:,} steps")

    def spend(self, characters: int) -> None:
        self.characters -= characters
        if self.characters < 0:
            raise TemplateFault(f"it makes more than {MOST_CHARACTERS:,} characters on its way")
