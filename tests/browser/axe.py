"""axe-core, which looks for what keeps people from reading or using a page. https://github.com/dequelabs/axe-core"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

# https://registry.npmjs.org/axe-core/-/axe-core-4.14.1.tgz, package/axe.min.js; its licenses are beside it
FILE = Path(__file__).parent / "axe-core" / "axe.min.js"
SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
SERIOUS = ("serious", "critical")
CONTRAST = ("color-contrast",)  # all that another colour scheme changes


@dataclass(frozen=True)
class Violation:
    impact: str
    rule: str
    nodes: tuple[str, ...]

    def __str__(self) -> str:
        return "\n  ".join((f"{self.impact}: {self.rule}", *self.nodes))


def violations(page: Page, *, rules: tuple[str, ...] = ()) -> list[Violation]:
    """Return what is wrong with the page; only by these rules, if any are named.

    It comes over the debugger's wire, as the pages' own policy would not let it in.
    """
    options: dict[str, Any] = {"preload": False, "resultTypes": ["violations"]}
    if rules:
        options["runOnly"] = rules
    engine = FILE.read_bytes()
    assert hashlib.sha256(engine).hexdigest() == SHA256, "this is not the engine that was published"
    page.evaluate(engine.decode())
    found = page.evaluate("options => axe.run(document, options)", options)
    return [_violation(one) for one in found["violations"]]


def _violation(one: dict[str, Any]) -> Violation:
    nodes = tuple(f"{node['html']} {node['failureSummary']}" for node in one["nodes"])
    return Violation(one["impact"], one["id"], nodes)
