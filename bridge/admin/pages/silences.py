"""silences"""

from __future__ import annotations

from collections.abc import Iterator

from flask.typing import ResponseReturnValue

from bridge.admin.pages.routes import Page, Pages, show


class SilencePages(Pages):
    def pages(self) -> Iterator[Page]:
        yield Page(path="/silences", view=self.silences, name="silences")

    def silences(self) -> ResponseReturnValue:
        return show("problem.html", problem={"title": "silences", "detail": "not yet"})
