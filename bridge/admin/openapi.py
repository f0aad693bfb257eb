"""/openapi.json: the description of the API (OpenAPI 3.1), made from the routes, parameters and answers there are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema
from pydantic_core.core_schema import WithDefaultSchema

from bridge.admin import answers
from bridge.admin.asking import PARAMETERS
from bridge.admin.routes import Route

Json = dict[str, Any]

_PLACE = re.compile(r"<(?:path:)?(\w+)>")
_SAYS = """What the bridge knows and does. Answers may get further members in later versions.

Every endpoint but health asks for a token, this description too: `Authorization: Bearer TOKEN`, with the token of
BRIDGE_READ_TOKEN for what only reads, with that of BRIDGE_ADMIN_TOKEN for everything. While no admin token is set,
requests from the same machine are served without one, and no others. Below /api/v1 a parameter that is not listed,
or is given twice, is refused. The server itself refuses what is no HTTP, and addresses and headers of many
kilobytes, in plain words."""
_TOKENS = {
    "admin": {"type": "http", "scheme": "bearer", "description": "the token of BRIDGE_ADMIN_TOKEN"},
    "read": {"type": "http", "scheme": "bearer", "description": "the token of BRIDGE_READ_TOKEN: reads only"},
}
_RETRY_AFTER = {"Retry-After": {"description": "in how many seconds", "schema": {"type": "integer", "minimum": 1}}}
_CHALLENGE = {"WWW-Authenticate": {"required": True, "schema": {"type": "string"}}}
_PROBLEMS: dict[int, tuple[str, Json]] = {
    400: ("a parameter, the body or the Host header is not what it can be", {}),
    401: ("no token, or none that is known", _CHALLENGE),
    403: ("the token may not do this; or no admin token is set, and the request is not from the same machine", {}),
    404: ("there is no such thing", {}),
    409: ("not in the state that it is in", {}),
    413: ("the body is too large", {}),
    415: ("the body is no JSON", {}),
    429: ("too many wrong tokens came from this address; until then none is looked at", _RETRY_AFTER),
    503: ("the database does not answer", _RETRY_AFTER),
}
_GUARDED = (400, 401, 403, 429, 503)
_NO_BODY = {
    "description": "none, or an empty object",
    "content": {"application/json": {"schema": {"type": "object", "maxProperties": 0}}},
}


def document(routes: Iterable[Route], *, version: str) -> Json:
    """Return the description of `routes`."""
    listed = list(routes)
    paths: dict[str, Json] = {}
    for route in listed:
        paths.setdefault(_PLACE.sub(r"{\1}", route.path), {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "ci-bridge", "version": version, "description": _SAYS},
        "paths": paths,
        "components": {
            "schemas": _schemas(listed),
            "responses": {str(status): _problem(*said) for status, said in _PROBLEMS.items()},
            "securitySchemes": _TOKENS,
        },
    }


def _operation(route: Route) -> Json:
    refuses = sorted({*route.refuses, *(() if route.public else _GUARDED)})
    facts: Json = {
        "operationId": route.name,
        "summary": route.says,
        "parameters": [_place(name) for name in _PLACE.findall(route.path)] + [_query(route, n) for n in route.query],
        "responses": {str(status): _success(route) for status in (route.status, *route.also)}
        | {str(status): {"$ref": f"#/components/responses/{status}"} for status in refuses},
        "security": [] if route.public else [{"admin": []}] if route.method != "GET" else [{"admin": []}, {"read": []}],
    }
    return facts | ({"requestBody": _body(route)} if route.body or route.method == "POST" else {})


def _body(route: Route) -> Json:
    if route.body is None:
        return _NO_BODY
    schema = {"$ref": f"#/components/schemas/{route.body.__name__}"}
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _place(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _query(route: Route, name: str) -> Json:
    parameter = PARAMETERS[name]
    schema = {"enum": list(route.states)} if name == "state" and route.states else dict(parameter.schema)
    return {"name": name, "in": "query", "description": parameter.says, "schema": schema}


def _success(route: Route) -> Json:
    kind = "application/json" if route.json else "text/plain"
    schema: Json = {"type": "object"} if route.json else {"type": "string"}
    if route.answer:
        schema = {"$ref": f"#/components/schemas/{route.answer.__name__}"}
    facts: Json = {"description": route.says, "content": {kind: {"schema": schema}}}
    if route.answer is answers.DeliveryAccepted:
        facts["headers"] = {"Location": {"description": "of the delivery", "schema": {"type": "string"}}}
    return facts


def _problem(says: str, headers: Json) -> Json:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": says, "content": content} | ({"headers": headers} if headers else {})


class _Shapes(GenerateJsonSchema):
    """Without a title for each member, and without defaults: they only mark what may be missing."""

    def field_title_should_be_set(self, _: Any) -> bool:
        return False

    def default_schema(self, schema: WithDefaultSchema) -> Json:
        return self.generate_inner(schema["schema"])


def _schemas(routes: Iterable[Route]) -> Json:
    named = (shape for route in routes for shape in (route.answer, route.body))
    shapes: set[type[BaseModel]] = {answers.Problem, *filter(None, named)}
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [(shape, "validation") for shape in shapes]
    _, found = models_json_schema(wanted, ref_template="#/components/schemas/{model}", schema_generator=_Shapes)
    return dict(sorted(found["$defs"].items()))
