"""The web application: which parts answer where, and what holds for every request."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cached_property
from typing import Any

from flask import Flask, Response, g, request
from flask.json.provider import DefaultJSONProvider
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import NotFound

from bridge.admin import auth, problems, revalidating
from bridge.admin.auth_throttle import Failures
from bridge.admin.health import Health
from bridge.admin.metrics import Metrics
from bridge.admin.operations import OperationsApi
from bridge.admin.pages import Dashboard
from bridge.admin.pages.session import is_by_browser
from bridge.admin.parts import Parts
from bridge.admin.problems import Problem
from bridge.admin.reads import Reads
from bridge.admin.routes import Route
from bridge.admin.rules_api import RulesApi
from bridge.admin.silences import Silences
from bridge.admin.stats import Charts
from bridge.decide.rules.rulebook import Rulebook
from bridge.record.database import Database

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
    rules_fault: Callable[[], str | None] = lambda: None,
    rules_note: Callable[[], str | None] = lambda: None,
    monotonic: Callable[[], float] = time.monotonic,
) -> Flask:
    """Return the WSGI application. It starts nothing: no thread, no worker."""
    parts = Parts(
        db=db, book=book, rules_fault=rules_fault, rules_note=rules_note, clock=clock, nonce=nonce, version=version,
        environ=environ,
    )  # fmt: skip
    parts.loaded.since(book().sha, clock())
    app = Flask("bridge.admin", static_folder=None)
    # One more, so that a body that is too long can be told from one that just fits.
    app.config.update(MAX_CONTENT_LENGTH=problems.LARGEST_BODY + 1, PROPAGATE_EXCEPTIONS=False)
    app.json = _Json(app)
    app.url_map.merge_slashes = False  # a name may have two; and nobody is redirected anywhere
    problems.register(app)
    routes = Everything(parts).routes
    for route in routes:
        app.add_url_rule(route.path, route.name, route.view, methods=[route.method])
    public = frozenset(route.name for route in routes if route.public)
    keys, failures = auth.Keys.of(admin_token, read_token), Failures(monotonic)
    dashboard = Dashboard(parts, keys, failures)
    _guard(app, public, keys, failures, dashboard)
    revalidating.register(app, frozenset(route.name for route in routes if route.revalidated))
    dashboard.register(app)
    return app


# For one version: then there is nothing there.
_GONE = r"/api/v1/redrives(/.*)?"
_INSTEAD = (
    "there are no orders any more: POST /api/v1/deliveries/redrive resends a batch, GET /api/v1/deliveries/batches/ID "
    "says how far it is, and DELETE there cancels what is left of it"
)


class _Json(DefaultJSONProvider):
    ensure_ascii = False
    sort_keys = False


_PARTS = (Health, Metrics, Reads, OperationsApi, Silences, RulesApi, Charts)


class Everything:
    """All endpoints, and the one that tells of the others."""

    def __init__(self, parts: Parts) -> None:
        self.routes = [
            Route(path="/openapi.json", view=self.described, name="openapi", says="this description"),
            *(route for part in _PARTS for route in part(parts).routes()),
        ]

    def described(self) -> ResponseReturnValue:
        return self._document

    @cached_property
    def _document(self) -> dict[str, Any]:
        from bridge.admin.openapi import document  # few ask for it, and most processes never import its library

        return document(self.routes)


def _guard(app: Flask, public: frozenset[str], keys: auth.Keys, failures: Failures, dashboard: Dashboard) -> None:
    """Let nobody in by default: what is not public asks who it is, and so does what is not there."""

    @app.before_request
    def enter() -> ResponseReturnValue | None:
        if request.endpoint in public:
            if scope := auth.known(request, keys, failures):
                g.scope = scope
            return None
        if request.blueprint == "pages":  # those look after themselves
            return None
        if request.endpoint is None and is_by_browser(request):
            return dashboard.nothing_there()
        g.scope = auth.enter(request, keys, failures)
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
