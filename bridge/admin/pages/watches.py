"""watches"""

from __future__ import annotations

from collections.abc import Iterator

from flask.typing import ResponseReturnValue

from bridge.admin.pages.routes import Page, Pages, show


class WatchPages(Pages):
    def pages(self) -> Iterator[Page]:
        yield Page(path="/watches", view=self.watches, name="watches")

    def watches(self) -> ResponseReturnValue:
        return show("problem.html", problem={"title": "watches", "detail": "not yet"})
