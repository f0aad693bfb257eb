"""notifiers"""

from __future__ import annotations

from collections.abc import Iterator

from flask.typing import ResponseReturnValue

from bridge.admin.pages.routes import Page, Pages, show


class NotifierPages(Pages):
    def pages(self) -> Iterator[Page]:
        yield Page(path="/notifiers", view=self.notifiers, name="notifiers")

    def notifiers(self) -> ResponseReturnValue:
        return show("problem.html", problem={"title": "notifiers", "detail": "not yet"})
