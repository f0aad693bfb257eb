"""/openapi.json: flask-openapi3 describes the API (OpenAPI 3.1) from the routes, parameters and answers there are.

It only describes, when somebody asks. What a request says is read in `asking`, which finds every fault at once; the
library would take the first of two values, and let a parameter pass that nobody reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from flask_openapi3.models.info import Info
from flask_openapi3.models.tag import Tag
from flask_openapi3.openapi import OpenAPI
from pydantic import BaseModel, create_model
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core.core_schema import WithDefaultSchema

from bridge.admin import answers
from bridge.admin.query import PARAMETERS
from bridge.admin.routes import Route

Json = dict[str, Any]

_PLACE = re.compile(r"<(?:path:)?(\w+)>")
_SAYS = """What the bridge knows and does. Answers may get further members in later versions.

Every endpoint but health asks for a token, this description too: `Authorization: Bearer TOKEN`, with the token of
BRIDGE_READ_TOKEN for what only reads, with that of BRIDGE_ADMIN_TOKEN for everything. While no admin token is set,
requests from the same machine are served without one, and no others. Below /api/v1 a parameter that is not listed,
or is given twice, is refused. The server itself refuses what is no HTTP, and addresses and headers of many
kilobytes, in plain words."""
# Of the API, not of the program: /healthz says which one answers.
_INFO = Info(title="ci-bridge", version="1", description=_SAYS)
_TOKENS: dict[str, Any] = {
    "admin": {"type": "http", "scheme": "bearer", "description": "the token of BRIDGE_ADMIN_TOKEN"},
    "read": {"type": "http", "scheme": "bearer", "description": "the token of BRIDGE_READ_TOKEN: reads only"},
}
_A_STRING = {"schema": {"type": "string"}}
_RETRY_AFTER = {"Retry-After": {"description": "in how many seconds", "schema": {"type": "integer", "minimum": 1}}}
_CHALLENGE = {"WWW-Authenticate": {"required": True, **_A_STRING}}
_ETAG = {"ETag": {"description": "to ask with If-None-Match whether it has changed", "required": True, **_A_STRING}}
_LOCATION = {"Location": {"description": "of what is made", **_A_STRING}}
_PROBLEMS: dict[int, tuple[str, Json]] = {
    400: ("a parameter, the body or a header is not what it can be", {}),
    401: ("no token, or none that is known", _CHALLENGE),
    403: ("the token may not do this; or no admin token is set, and the request is not from the same machine", {}),
    404: ("there is no such thing", {}),
    409: ("not in the state that it is in", {}),
    413: ("the body is too large", {}),
    415: ("the body is no JSON", {}),
    429: ("too many wrong tokens came from this address; until then none is looked at", _RETRY_AFTER),
    503: ("the database does not answer", _RETRY_AFTER),
}
_GUARDED = (401, 403, 429, 503)
_IF_NONE_MATCH = {"description": "the ETag of an answer that is at hand", **_A_STRING}
_NO_BODY = {
    "description": "none, or an empty object",
    "content": {"application/json": {"schema": {"type": "object", "maxProperties": 0}}},
}


class _Shapes(GenerateJsonSchema):
    """Without a title for each member, and without defaults: they only mark what may be missing."""

    def field_title_should_be_set(self, _: Any) -> bool:
        return False

    def default_schema(self, schema: WithDefaultSchema) -> Json:
        return self.generate_inner(schema["schema"])


class _Shown(BaseModel):
    """A shape as it is described here."""

    @classmethod
    def model_json_schema(cls, **how: Any) -> Json:  # type: ignore[override]  # the library calls it so
        return super().model_json_schema(**how, schema_generator=_Shapes)


def _shown(shape: type[BaseModel]) -> type[BaseModel]:
    return create_model(shape.__name__, __base__=(_Shown, shape), __doc__=shape.__doc__)


def document(routes: Iterable[Route]) -> Json:
    """Return the description of `routes`."""
    app = OpenAPI(
        "described", info=_INFO, security_schemes=_TOKENS, doc_ui=False, validation_error_status=400,
        validation_error_model=_shown(answers.Problem),
    )  # fmt: skip
    responses: Json = {str(status): _problem(*said) for status, said in _PROBLEMS.items()}
    app.components.responses = responses
    for route in routes:
        _describe(app, route)
    return app.api_doc


def _describe(app: OpenAPI, route: Route) -> None:
    def view() -> None: ...

    view.__annotations__ = {"body": _shown(route.body)} if route.body else {}  # where the library looks for it
    method = route.method.lower()
    getattr(app, method)(
        route.path, endpoint=route.name, operation_id=route.name, summary=route.says, tags=[Tag(name=_noun(route))],
        responses=_successes(route) | _refusals(route), openapi_extensions=_asked(route),
    )(view)  # fmt: skip
    described = getattr(app.paths[_PLACE.sub(r"{\1}", route.path)], method)
    if not route.body_needed:
        described.requestBody.required = False
    for status in (route.status, *route.also):
        if headers := _headers(route, status):
            described.responses[str(status)].headers = headers


def _noun(route: Route) -> str:
    return route.path.removeprefix("/api/v1").split("/")[1]


def _asked(route: Route) -> Json:
    facts: Json = {
        "parameters": [_place(name) for name in _PLACE.findall(route.path)] + list(_queries(route)) + _sent(route),
        "security": [] if route.public else [{"admin": []}] if route.method != "GET" else [{"admin": []}, {"read": []}],
    }
    return facts | ({"requestBody": _NO_BODY} if route.method == "POST" and not route.body else {})


def _place(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _queries(route: Route) -> Iterator[Json]:
    for name in route.query:
        parameter = PARAMETERS[name]
        schema = {"enum": list(route.states)} if name == "state" and route.states else dict(parameter.schema)
        yield {"name": name, "in": "query", "description": parameter.says, "schema": schema}


def _sent(route: Route) -> list[Json]:
    return [{"name": "If-None-Match", "in": "header", **_IF_NONE_MATCH}] if route.revalidated else []


def _successes(route: Route) -> dict[str | int, Any]:
    kind, schema = ("application/json", {"type": "object"}) if route.json else ("text/plain", {"type": "string"})
    plain = {"description": "OK", "content": {kind: {"schema": schema}}}
    shape: Any = _shown(route.answer) if route.answer else plain
    same = {304: {"description": "it is still what If-None-Match says", "headers": _ETAG}} if route.revalidated else {}
    return dict.fromkeys((route.status, *route.also), shape) | same


def _headers(route: Route, status: int) -> dict[str, Any]:
    located = route.located and status == route.status
    given = ((_ETAG, route.revalidated), (_LOCATION, located))
    return {name: facts for headers, there in given if there for name, facts in headers.items()}


def _refusals(route: Route) -> dict[str | int, Any]:
    guarded = () if route.public else _GUARDED
    found = sorted({400, *route.refuses, *guarded} - set(route.also))
    # The description is one that the library asks for; it is that of the response all the same.
    return {one: {"$ref": f"#/components/responses/{one}", "description": _PROBLEMS[one][0]} for one in found}


def _problem(says: str, headers: Json) -> Json:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": says, "content": content} | ({"headers": headers} if headers else {})
