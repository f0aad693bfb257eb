"""rules"""

from __future__ import annotations

from collections.abc import Iterator

from flask.typing import ResponseReturnValue

from bridge.admin.pages.routes import Page, Pages, show


class RulePages(Pages):
    def pages(self) -> Iterator[Page]:
        yield Page(path="/rules", view=self.rules, name="rules")

    def rules(self) -> ResponseReturnValue:
        return show("problem.html", problem={"title": "rules", "detail": "not yet"})
