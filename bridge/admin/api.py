"""The web application: which parts answer where, and what holds for every request."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from flask import Blueprint, Flask, Response, g, request
from flask.json.provider import DefaultJSONProvider
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import NotFound

from bridge.admin import auth, problems
from bridge.admin.acts import Acts
from bridge.admin.health import Health
from bridge.admin.metrics import Metrics
from bridge.admin.parts import Parts
from bridge.admin.reads import Reads
from bridge.decide.rulebook import Rulebook
from bridge.record.database import Database

PUBLIC = frozenset({"healthz", "readyz"})  # platforms and load balancers ask these, and have no token
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


def create_app(
    *,
    db: Database,
    book: Callable[[], Rulebook],
    admin_token: str | None,
    read_token: str | None,
    clock: Callable[[], datetime],
    version: str,
    nonce: Callable[[], str],
    rules_fault: Callable[[], str | None] = lambda: None,
) -> Flask:
    """Return the WSGI application. It starts nothing: no thread, no worker."""
    parts = Parts(db=db, book=book, rules_fault=rules_fault, clock=clock, nonce=nonce, version=version)
    app = Flask("bridge.admin", static_folder=None)
    app.config.update(MAX_CONTENT_LENGTH=problems.LARGEST_BODY, PROPAGATE_EXCEPTIONS=False)
    app.json = _Json(app)
    problems.register(app)
    _guard(app, auth.Keys.of(admin_token, read_token))
    for part in (Health(parts), Metrics(parts)):
        part.register(app)
    app.register_blueprint(_api(parts))
    app.add_url_rule("/", "index", lambda: _index(app, version))
    return app


class _Json(DefaultJSONProvider):
    ensure_ascii = False
    sort_keys = False


def _api(parts: Parts) -> Blueprint:
    api = Blueprint("api", __name__, url_prefix="/api/v1")
    for part in (Reads(parts), Acts(parts)):
        part.register(api)
    return api


def _guard(app: Flask, keys: auth.Keys) -> None:
    """Let nobody in by default: what is not in PUBLIC asks who it is."""

    @app.before_request
    def enter() -> None:
        if "\0" in request.path:  # PostgreSQL has no NUL in a text
            raise NotFound
        if request.endpoint is not None and request.endpoint not in PUBLIC:
            g.scope = auth.enter(request, keys)

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers.update(_HEADERS)
        return response


def _index(app: Flask, version: str) -> ResponseReturnValue:
    routes = sorted(
        f"{method} {rule.rule}"
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) & {"GET", "POST", "DELETE"}
    )
    return {"name": "ci-bridge", "version": version, "endpoints": routes}
