"""The web application: its endpoints, and what applies to every request."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from functools import cache

from flask import Flask, Response, g, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import NotFound

from bridge.admin import auth
from bridge.admin.api.operations import OperationsApi
from bridge.admin.api.read import ReadApi
from bridge.admin.api.rules import RulesApi
from bridge.admin.auth_throttle import Failures
from bridge.admin.health import HealthApi
from bridge.admin.hooks import HooksApi
from bridge.admin.http import problems
from bridge.admin.http.problems import Problem
from bridge.admin.http.routes import Endpoints, Route
from bridge.admin.metrics import MetricsApi
from bridge.admin.pages import Dashboard
from bridge.admin.pages.session import is_by_browser
from bridge.admin.parts import Parts
from bridge.admin.slack import SlackApi
from bridge.decide.rules.rulebook import Rulebook
from bridge.record.database import Database
from bridge.send.integration import Egress

# No Strict-Transport-Security: who ends TLS in front of us decides that for the name, which is not ours.
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
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
    environ: Mapping[str, str],
    egress: Callable[[], AbstractContextManager[Egress]],
    rules_fault: Callable[[], str | None] = lambda: None,
    rules_note: Callable[[], str | None] = lambda: None,
    tokens: Sequence[tuple[str, str, str]] = (),
    callback_tokens: Sequence[str] = (),
    monotonic: Callable[[], float] = time.monotonic,
) -> Flask:
    """Return the WSGI application. It starts nothing: no thread, no worker.

    `tokens` are those of BRIDGE_TOKENS: name, role, token. `egress` opens what a click in Slack is answered with.
    """
    parts = Parts(
        db=db, book=book, rules_fault=rules_fault, rules_note=rules_note, clock=clock, nonce=nonce, version=version,
        environ=environ,
    )  # fmt: skip
    parts.loaded.since(book().sha, clock())
    app = Flask("bridge.admin", static_folder=None)
    # One more, so that a body that is too long differs from one that just fits.
    app.config.update(MAX_CONTENT_LENGTH=problems.LARGEST_BODY + 1, PROPAGATE_EXCEPTIONS=False)
    app.url_map.merge_slashes = False  # a name may have two; and nobody is redirected anywhere
    problems.register(app)
    hooks = HooksApi(parts, callback_tokens, Failures(monotonic)), SlackApi(parts, egress, Failures(monotonic))
    routes = _routes(parts, hooks)
    for route in routes:
        app.add_url_rule(route.path, route.name, route.view, methods=[route.method])
    public = frozenset(route.name for route in routes if route.public)
    keys, failures = auth.Keys.of(admin_token, read_token, tokens), Failures(monotonic)
    dashboard = Dashboard(parts, keys, failures)
    _guard(app, public, keys, failures, dashboard)
    _revalidate(app, frozenset(route.name for route in routes if route.revalidated))
    dashboard.register(app)
    return app


def _routes(parts: Parts, hooks: Iterable[Endpoints]) -> list[Route]:
    """Return all endpoints, and the one that describes the others."""

    @cache
    def document() -> str:
        from bridge.admin.http.openapi import document  # few ask for it, and most processes never import its library

        return json.dumps(document(routes), ensure_ascii=False)

    def described() -> ResponseReturnValue:
        return Response(document(), content_type="application/json")

    routes = [
        Route(path="/openapi.json", view=described, name="openapi", summary="this description"),
        *(route for part in _APIS for route in part(parts).routes()),
        *(route for part in hooks for route in part.routes()),
    ]
    return routes


_APIS = (HealthApi, MetricsApi, ReadApi, OperationsApi, RulesApi)
# For one release: afterwards nothing is there.
_GONE = r"/api/v1/redrives(/.*)?"
_INSTEAD = (
    "orders were removed: POST /api/v1/deliveries/redrive resends a batch, GET /api/v1/deliveries/batches/ID shows its "
    "progress, and DELETE there cancels the rest of it"
)


def _guard(app: Flask, public: frozenset[str], keys: auth.Keys, failures: Failures, dashboard: Dashboard) -> None:
    """Let nobody in by default: what is not public needs a token, and so does what does not exist."""

    @app.before_request
    def enter() -> ResponseReturnValue | None:
        if request.endpoint in public:
            if key := auth.known(request, keys, failures):
                auth.admit(key)
            return None
        if request.blueprint == "pages":  # they check it themselves
            return None
        if request.endpoint is None and is_by_browser(request):
            return dashboard.nothing_there()
        auth.admit(auth.enter(request, keys, failures), auth.claim(request))
        if "\0" in request.path:  # PostgreSQL has no NUL in a text
            raise NotFound
        if re.fullmatch(_GONE, request.path):
            raise Problem(410, _INSTEAD)
        if request.endpoint is not None:
            auth.require(g.scope, request)
        return None

    @app.after_request
    def add_headers(response: Response) -> Response:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response


def _revalidate(app: Flask, endpoints: Collection[str]) -> None:
    """Give responses of these endpoints a strong ETag, made of their body, and let clients ask with it each time."""

    @app.after_request
    def revalidate(response: Response) -> Response:
        if request.endpoint not in endpoints or response.status_code != 200:
            return response
        response.headers["Cache-Control"] = "private, no-cache"
        response.add_etag()
        response.make_conditional(request)
        return response
