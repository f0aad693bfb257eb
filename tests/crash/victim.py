"""The real `ci-bridge worker`, with a bomb in it.

CRASH_AT names a point, CRASH_AFTER how often it is reached before the process ends as by `kill -9`. The bomb
listens to SQLAlchemy's and the interpreter's own events; nothing of the bridge is changed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.pool import Pool

from bridge.cli import main
from tests.crash.points import WITHIN

_TRANSACTIONS = ("page", "finish", "alarm", "incident", "escalation", "digest", "rules")
_MEMBERS = "delivery.digest ="  # an update of what waits in a digest: no attempt has ended


class Bomb:
    def __init__(self, point: str, after: int) -> None:
        if point not in WITHIN:
            raise SystemExit(f"CRASH_AT={point!r}: there are {', '.join(WITHIN)}")
        self._point, self._left = point, after
        self._list_goes_on = False

    def reached(self, point: str) -> None:
        if point == self._point:
            self._left -= 1
            if self._left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def listen(self) -> None:
        event.listen(Engine, "before_cursor_execute", self._before_statement)
        event.listen(Engine, "commit", self._before_commit)
        event.listen(Pool, "checkin", self._after_transaction)
        sys.addaudithook(self._heard)

    def _before_statement(
        self, connection: Any, _cursor: object, statement: str, _parameters: object, context: Any, *_: object
    ) -> None:
        does = connection.info.setdefault("does", set())
        if statement.startswith("UPDATE incident SET") and _escalates(context.compiled_parameters):
            does.add("escalation")
        if statement.startswith("INSERT INTO transition") and "page" not in does:
            does.add("page")
            self.reached("poll answered")
        elif "attempts=(delivery.attempts + " in statement:
            does.add("claim")
        elif statement.startswith("INSERT INTO alarm"):
            does.add("alarm")
        elif statement.startswith("UPDATE incident SET opened_at="):
            does.add("incident")
        elif statement.startswith("UPDATE digest SET delivery="):
            does.add("digest")
        elif statement.startswith("UPDATE ruleset SET accepted"):
            does.add("rules")
        elif statement.startswith("UPDATE watch SET") and "polled_at=" in statement:
            self._list_goes_on = bool(context.compiled_parameters[0]["behind"])
        elif statement.startswith("UPDATE lease SET until=") and self._list_goes_on:
            self.reached("list goes on")
        elif _ends_deliveries(statement) and "finish" not in does:
            does.add("finish")
            self.reached("answered")

    def _before_commit(self, connection: Any) -> None:
        connection.info["done"] = does = connection.info.pop("does", set())
        for what in _TRANSACTIONS:
            if what in does:
                self.reached(f"{what} uncommitted")

    def _after_transaction(self, _connection: object, record: Any) -> None:
        record.info.pop("does", None)
        done = record.info.pop("done", set())
        for what in _TRANSACTIONS:
            if what in done:
                self.reached(f"{what} committed")
        if "claim" in done:
            self.reached("claimed")

    def _heard(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "socket.__new__" and type(arguments[0]).__name__ == "_LentSocket":
            self.reached("connecting")


def _ends_deliveries(statement: str) -> bool:
    return statement.startswith("UPDATE delivery SET") and "ended_at=" in statement and _MEMBERS not in statement


def _escalates(parameters: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether a judgement is stored by which incidents escalate, and not one of what did before."""
    return any(one.get("new_escalated_at") is not None for one in parameters)


def victim() -> None:
    Bomb(os.environ["CRASH_AT"], int(os.environ.get("CRASH_AFTER", "1"))).listen()
    main(["worker"])
