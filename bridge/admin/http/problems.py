"""Every error as application/problem+json (RFC 9457), in one shape and without internal details."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote

from flask import Flask, Response, request
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException, InternalServerError, MethodNotAllowed
from werkzeug.http import HTTP_STATUS_CODES

from bridge.admin import schemas
from bridge.pipeline.operations import Conflict, NotFound
from bridge.record.database import trouble

logger = logging.getLogger(__name__)

LARGEST_BODY = 64 * 1024
HOOKS = "/hooks/ci/"  # what follows is a secret
SLACK_CLICKS = "/hooks/slack"
_RETRY_AFTER_S = 5
_LONGEST_STEP = 100  # of a path in a body, in characters
_NO_HEADERS: Mapping[str, str] = {}


class Problem(HTTPException):
    """An error that says what is wrong and what would be right."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] = _NO_HEADERS,
        errors: Sequence[schemas.Fault] = (),
    ) -> None:
        super().__init__(detail)
        self.errors = errors
        self.code = status
        self.detail = detail
        self.headers = headers


def faulty(faults: Iterable[schemas.Fault]) -> Problem:
    """Return the problem that a request has these faults."""
    errors = list(faults)
    return Problem(400, "; ".join(fault.detail for fault in errors), errors=errors)


def fault_at(path: Iterable[object], detail: str) -> schemas.Fault:
    """Return a fault of the member of the body that `path` leads to."""
    steps = (str(part)[:_LONGEST_STEP].replace("~", "~0").replace("/", "~1") for part in path)
    return schemas.Fault(detail=detail, pointer="#" + "".join(f"/{quote(step)}" for step in steps))


def register(app: Flask) -> None:
    for kind in (HTTPException, DBAPIError, PoolTimeout):
        app.register_error_handler(kind, answered)
    app.register_error_handler(NotFound, lambda error: _answer(Problem(404, str(error))))
    app.register_error_handler(Conflict, lambda error: _answer(Problem(409, str(error))))


def answered(error: HTTPException | DBAPIError | PoolTimeout) -> Response:
    """Return the response for an error."""
    return _answer(error) if isinstance(error, HTTPException) else _database_failed(error)


def _answer(error: HTTPException) -> Response:
    status = error.code or 500
    facts = schemas.Problem(
        title=HTTP_STATUS_CODES.get(status, "Error"),
        status=status,
        detail=_detail(error, status),
        errors=list(error.errors) or None if isinstance(error, Problem) else None,
    )
    response = Response(facts.model_dump_json(exclude_none=True), status, content_type="application/problem+json")
    if isinstance(error, Problem):
        response.headers.extend(error.headers)
    elif isinstance(error, MethodNotAllowed):
        response.headers["Allow"] = _allowed(error)
    return response


def _detail(error: HTTPException, status: int) -> str:
    match error:
        case Problem():
            return error.detail
        case MethodNotAllowed():
            return f"{request.method} is not allowed here; allowed: {_allowed(error)}"
        case InternalServerError():
            return "an internal error of the bridge; see its log"
    if status == 404 and not request.path.startswith(HOOKS):
        return f'there is nothing at "{request.path[:200]}"; /openapi.json lists the endpoints'
    if status == 413:
        return f"a body is at most {LARGEST_BODY} bytes"
    return error.description or "the request cannot be read"


def _shown_path() -> str:
    """Return the path of the request as the log may show it."""
    return f"{HOOKS}..." if request.path.startswith(HOOKS) else request.path


def _allowed(error: MethodNotAllowed) -> str:
    return ", ".join(sorted(error.valid_methods or ()))


def _database_failed(error: DBAPIError | PoolTimeout) -> Response:
    reason = trouble(error)
    if isinstance(error, OperationalError | PoolTimeout):
        facts = {"path": _shown_path(), "reason": reason}
        logger.warning("a request failed: the database does not answer", extra=facts)
    else:
        logger.error("the database refused a request", extra={"path": _shown_path()}, exc_info=error)
    return _answer(Problem(503, reason, headers={"Retry-After": str(_RETRY_AFTER_S)}))
