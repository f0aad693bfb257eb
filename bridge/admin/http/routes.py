"""What an endpoint is: the one table that is registered in Flask, and that /openapi.json is made from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from flask import Response
from flask.typing import ResponseReturnValue
from pydantic import BaseModel

from bridge.admin.auth import author
from bridge.admin.parts import Parts
from bridge.pipeline.operations import Operations

PAGING = ("cursor", "limit")
_NO_HEADERS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method of one path."""

    path: str  # as Flask writes it
    view: Callable[..., ResponseReturnValue]
    name: str
    summary: str = ""  # for /openapi.json, which has no pages
    answer: type[BaseModel] | None = None  # the model of its JSON, where it has one
    json: bool = True  # else it answers with text
    method: str = "GET"
    body: type[BaseModel] | None = None  # the model of the JSON that it takes, where it takes any
    body_needed: bool = True
    takes: Sequence[str] = ()  # the media types of a body in a format that is not ours
    done: int | None = None  # the status of a success, where it is not the usual one
    query: Sequence[str] = ()  # the parameters it takes
    states: Sequence[str] = ()  # the only values of `state`, if it is one of them
    also: Sequence[int] = ()  # other statuses of the same answer
    refuses: Sequence[int] = ()  # with which status, beyond those that any endpoint may answer
    public: bool = False  # platforms and load balancers request it without a token
    located: bool = False  # a success has a Location

    @property
    def status(self) -> int:
        """The status of a success. Workers carry out what is posted, so that is usually only accepted."""
        return self.done or (202 if self.method == "POST" else 200)

    @property
    def revalidated(self) -> bool:
        """Whether its answers have an ETag, so that clients can ask whether theirs is still valid."""
        return self.method == "GET" and self.json and not self.public


class Endpoints:
    """The endpoints, or pages, of one subject."""

    by = "api"  # the author of what is done here, unless the token has a name

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def operations(self, claimed: str | None = None) -> Operations:
        """Return the operations of who makes this request, and is called `claimed` in it."""
        return self.parts.operations(author(self.by, claimed))

    def routes(self) -> Iterator[Route]:
        raise NotImplementedError


def answer(model: BaseModel, status: int = 200, headers: Mapping[str, str] = _NO_HEADERS) -> Response:
    return Response(model.model_dump_json(by_alias=True), status, headers, content_type="application/json")
