"""deliveries"""

from __future__ import annotations

from collections.abc import Iterator

from flask.typing import ResponseReturnValue

from bridge.admin.pages.routes import Page, Pages, show


class DeliveryPages(Pages):
    def pages(self) -> Iterator[Page]:
        yield Page(path="/deliveries", view=self.deliveries, name="deliveries")
        yield Page(path="/deliveries/<delivery_id>", view=self.delivery, name="delivery")
        yield Page(path="/deliveries/<delivery_id>/redrive", view=self.redrive, name="redrive", method="POST")

    def deliveries(self) -> ResponseReturnValue:
        return show("problem.html", problem={"title": "deliveries", "detail": "not yet"})

    def delivery(self, delivery_id: str) -> ResponseReturnValue:
        return show("problem.html", problem={"title": delivery_id, "detail": "not yet"})

    def redrive(self, delivery_id: str) -> ResponseReturnValue:
        return show("problem.html", problem={"title": delivery_id, "detail": "not yet"})
