"""What an endpoint is: the one table that Flask is told of, and that /openapi.json is made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flask.typing import ResponseReturnValue
from pydantic import BaseModel

PAGING = ("cursor", "limit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method of one path."""

    path: str  # as Flask writes it
    view: Callable[..., ResponseReturnValue]
    name: str
    says: str  # what it does, for people
    answer: type[BaseModel] | None = None  # the shape of its JSON, where it has one
    json: bool = True  # else it answers with text
    method: str = "GET"
    body: type[BaseModel] | None = None  # the shape of the JSON that it takes, where it takes any
    body_needed: bool = True
    done: int | None = None  # the status of a success, where it is not the usual one
    query: Sequence[str] = ()  # the parameters it takes
    states: Sequence[str] = ()  # the only values of `state`, if it is one of them
    also: Sequence[int] = ()  # other statuses of the same answer
    refuses: Sequence[int] = ()  # with which status, beyond those that any endpoint may answer
    public: bool = False  # platforms and load balancers ask it, and have no token
    located: bool = False  # a success has a Location

    @property
    def status(self) -> int:
        """The status of a success. Workers carry out what is posted, so that is usually only accepted."""
        return self.done or (202 if self.method == "POST" else 200)

    @property
    def revalidated(self) -> bool:
        """Whether its answers have an ETag, by which one that is at hand is found to be still right."""
        return self.method == "GET" and self.json and not self.public
