"""/openapi.json: flask-openapi3 describes the API (OpenAPI 3.1) from routes, parameters and models.

It only describes, on request. `query.py` reads requests and finds every fault at once; the library would take the first
of two values and accept unknown parameters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from flask_openapi3.models.info import Info
from flask_openapi3.models.license import License
from flask_openapi3.models.server import Server
from flask_openapi3.models.tag import Tag
from flask_openapi3.openapi import OpenAPI
from pydantic import BaseModel, create_model
from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from pydantic_core.core_schema import WithDefaultSchema

from bridge.admin import schemas
from bridge.admin.http.query import PARAMETERS
from bridge.admin.http.routes import Route
from bridge.admin.schemas.events import EVENTS

Json = dict[str, Any]

_PLACE = re.compile(r"<(?:path:)?(\w+)>")
_SAYS = """What the bridge knows and does. Later versions may add members to responses.

Every endpoint except health needs a token, this description too: `Authorization: Bearer TOKEN`, BRIDGE_READ_TOKEN
allows reading, BRIDGE_ADMIN_TOKEN everything, and one of BRIDGE_TOKENS what its role says. While no admin token is set,
only requests from the same machine are served, without a token. The header X-Actor may say who acts: at most 100
characters of UTF-8, which are recorded with what is done, and not checked. Below /api/v1 unknown and repeated
parameters are refused. The server refuses requests that are not valid HTTP, and very long addresses and headers, with a
plain-text error."""
_LICENSE = License(name="Apache-2.0", identifier="Apache-2.0")
# The version of the API; /healthz has that of the program.
_INFO = Info(title="ci-bridge", version="1", description=_SAYS, license=_LICENSE)
_SERVER = Server(url="/", description="the bridge that answers with this description")
_TOKENS: dict[str, Any] = {
    "admin": {
        "type": "http",
        "scheme": "bearer",
        "description": "BRIDGE_ADMIN_TOKEN, or one of BRIDGE_TOKENS with the role admin",
    },
    "read": {
        "type": "http",
        "scheme": "bearer",
        "description": "BRIDGE_READ_TOKEN, or one of BRIDGE_TOKENS with the role read",
    },
}
_A_STRING = {"schema": {"type": "string"}}
_RETRY_AFTER = {"Retry-After": {"description": "in how many seconds", "schema": {"type": "integer", "minimum": 1}}}
_CHALLENGE = {"WWW-Authenticate": {"required": True, **_A_STRING}}
_ETAG = {"ETag": {"description": "for If-None-Match", "required": True, **_A_STRING}}
_LOCATION = {"Location": {"description": "of the created resource", **_A_STRING}}
_PROBLEMS: dict[int, tuple[str, Json]] = {
    400: ("a parameter, the body or a header is invalid", {}),
    401: ("no token, or an unknown one", _CHALLENGE),
    403: ("the token does not allow this; or no admin token is set, and the request is not from the same machine", {}),
    404: ("not found", {}),
    409: ("not allowed in the current state", {}),
    413: ("the body is too large", {}),
    415: ("the body is not JSON", {}),
    429: ("too many wrong tokens from this address: none is accepted until Retry-After", _RETRY_AFTER),
    503: ("the database does not answer", _RETRY_AFTER),
}
_GUARDED = (401, 403, 429, 503)
_IF_NONE_MATCH = {"description": "the ETag of an earlier response", **_A_STRING}
_NO_BODY = {
    "description": "none, or an empty object",
    "content": {"application/json": {"schema": {"type": "object", "maxProperties": 0}}},
}


_REFERENCE = "#/components/schemas/{model}"
# https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md, read 2026-11-21
_SENT_TO_RECEIVERS = (
    ("webhook-id", True, "the same in every attempt: tells repetitions"),
    ("webhook-timestamp", True, "of this attempt, in seconds since 1970"),
    ("webhook-signature", False, "v1, and the signature; one for each secret, separated by spaces"),
)
_RECEIVERS_SAY = {
    "2XX": "received: the delivery is sent",
    "410": "nothing more is wanted: the notifier is paused, and this delivery waits until a person resumes it",
    "429": "too many: everything for the notifier waits for Retry-After; so with 503",
    "default": "not received: tried again, until the notifier's retry time is over",
}


class _Schemas(GenerateJsonSchema):
    """Without a title for each member, and without defaults, which only mark what may be missing."""

    def field_title_should_be_set(self, _: Any) -> bool:
        return False

    def default_schema(self, schema: WithDefaultSchema) -> Json:
        return self.generate_inner(schema["schema"])


class _Described(BaseModel):
    """A model as it is described here."""

    @classmethod
    def model_json_schema(cls, **how: Any) -> Json:  # type: ignore[override]  # the library calls it so
        return super().model_json_schema(**how, schema_generator=_Schemas)


def _described(model: type[BaseModel]) -> type[BaseModel]:
    return create_model(model.__name__, __base__=(_Described, model), __doc__=model.__doc__)


def document(routes: Iterable[Route]) -> Json:
    """Return the description of `routes`."""
    app = OpenAPI(
        "described", info=_INFO, servers=[_SERVER], security_schemes=_TOKENS, doc_ui=False, validation_error_status=400,
        validation_error_model=_described(schemas.Problem),
    )  # fmt: skip
    responses: Json = {str(status): _problem(*facts) for status, facts in _PROBLEMS.items()}
    app.components.responses = responses
    for route in routes:
        _describe(app, route)
    described: Json = app.api_doc
    models, definitions = models_json_schema(
        [(model, "serialization") for model in EVENTS], ref_template=_REFERENCE, schema_generator=_Schemas
    )
    described["components"]["schemas"] |= definitions["$defs"]
    described["webhooks"] = {model.__name__: _webhook(model, models[model, "serialization"]) for model in EVENTS}
    return described


def _webhook(model: type[BaseModel], schema: Json) -> Json:
    kinds = ("application/json", "application/cloudevents+json")
    post = {
        "operationId": model.__name__,
        "summary": model.__doc__,
        "security": [],
        "parameters": [
            {"name": name, "in": "header", "required": needed, "description": text, **_A_STRING}
            for name, needed, text in _SENT_TO_RECEIVERS
        ],
        "requestBody": {"required": True, "content": {kind: {"schema": schema} for kind in kinds}},
        "responses": {status: {"description": text} for status, text in _RECEIVERS_SAY.items()},
    }
    return {"post": post}


def _describe(app: OpenAPI, route: Route) -> None:
    def view() -> None: ...

    view.__annotations__ = {"body": _described(route.body)} if route.body else {}  # where the library looks for it
    method = route.method.lower()
    getattr(app, method)(
        route.path, endpoint=route.name, operation_id=route.name, summary=route.summary, tags=[Tag(name=_noun(route))],
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
    if route.takes:
        return facts | {"requestBody": {"content": {kind: {"schema": {}} for kind in route.takes}}}
    return facts | ({"requestBody": _NO_BODY} if route.method == "POST" and not route.body else {})


def _place(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _queries(route: Route) -> Iterator[Json]:
    for name in route.query:
        parameter = PARAMETERS[name]
        schema = {"enum": list(route.states)} if name == "state" and route.states else parameter.type.json_schema()
        yield {"name": name, "in": "query", "description": parameter.description, "schema": schema}


def _sent(route: Route) -> list[Json]:
    return [{"name": "If-None-Match", "in": "header", **_IF_NONE_MATCH}] if route.revalidated else []


def _successes(route: Route) -> dict[str | int, Any]:
    kind, schema = ("application/json", {"type": "object"}) if route.json else ("text/plain", {"type": "string"})
    plain = {"description": "OK", "content": {kind: {"schema": schema}}}
    content: Any = _described(route.answer) if route.answer else plain
    same = {304: {"description": "not changed since the response with that ETag", "headers": _ETAG}}
    return dict.fromkeys((route.status, *route.also), content) | (same if route.revalidated else {})


def _headers(route: Route, status: int) -> dict[str, Any]:
    located = route.located and status == route.status
    given = ((_ETAG, route.revalidated), (_LOCATION, located))
    return {name: facts for headers, there in given if there for name, facts in headers.items()}


def _refusals(route: Route) -> dict[str | int, Any]:
    guarded = () if route.public else _GUARDED
    statuses = sorted({400, *route.refuses, *guarded} - set(route.also))
    # The library needs a description beside the reference.
    return {
        status: {"$ref": f"#/components/responses/{status}", "description": _PROBLEMS[status][0]} for status in statuses
    }


def _problem(description: str, headers: Json) -> Json:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": description, "content": content} | ({"headers": headers} if headers else {})
