"""What a caller of the job list may ask, checked as the list document says (1045/73114, of 2025-09)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from bridge.model import STATES
from bridge.simulator.ci_errors import invalid_argument

SIZE, MAX_SIZE = 10, 100
PARAMETERS = frozenset(
    (
        "tag", "queueId", "queueType", "workflowId", "inventoryTriggerJobId", "inputObject", "orderByTime",
        "nextToken", "size", "states", "startCreationTime", "endCreationTime",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One question to the job list. Times are whole seconds, both exclusive."""

    tag: str
    queue: str | None
    queue_type: str | None
    workflow: str | None
    inventory_job: str | None
    input: str | None
    newest_first: bool
    states: frozenset[str] | None
    after: int | None
    before: int | None


def parse(params: Mapping[str, str]) -> Query:
    """Return the question that `params` ask; raise InvalidArgument naming the first wrong one."""
    # CI would ignore a name that it does not know. Here it is a slip of the caller, and says so.
    for name in params:
        if name not in PARAMETERS:
            raise invalid_argument(f"{name} is invalid")
    if not params.get("tag"):
        raise invalid_argument("tag is invalid")
    queue = params.get("queueId") or None
    return Query(
        tag=params["tag"],
        queue=queue,
        queue_type=None if queue else params.get("queueType") or None,  # the id wins
        workflow=params.get("workflowId") or None,
        inventory_job=params.get("inventoryTriggerJobId") or None,
        input=params.get("inputObject") or None,
        newest_first=_newest_first(params.get("orderByTime") or "Desc"),
        states=_states(params.get("states") or "All"),
        after=_second(params, "startCreationTime"),
        before=_second(params, "endCreationTime"),
    )


def size_of(params: Mapping[str, str]) -> int:
    said = params.get("size") or str(SIZE)
    if not (said.isascii() and said.isdecimal() and 1 <= int(said) <= MAX_SIZE):
        raise invalid_argument("size is invalid")
    return int(said)


def _newest_first(order: str) -> bool:
    if order not in ("Desc", "Asc"):
        raise invalid_argument("orderByTime is invalid")
    return order == "Desc"


def _states(said: str) -> frozenset[str] | None:
    states = frozenset(said.split(","))
    if not states <= {"All", *STATES}:
        raise invalid_argument("states is invalid")
    return None if "All" in states else states


def _second(params: Mapping[str, str], name: str) -> int | None:
    said = params.get(name)
    if not said:
        return None
    try:
        return int(datetime.strptime(said, "%Y-%m-%dT%H:%M:%S%z").timestamp())
    except ValueError:
        raise invalid_argument(f"{name} is invalid") from None
