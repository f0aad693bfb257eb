"""The web application: which parts answer where, and what holds for every request."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import cached_property

from flask import Flask, Response, g, request
from flask.json.provider import DefaultJSONProvider
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import NotFound

from bridge.admin import answers, auth, openapi, problems
from bridge.admin.acts import Acts
from bridge.admin.failures import Failures
from bridge.admin.health import Health
from bridge.admin.metrics import Metrics
from bridge.admin.parts import Parts
from bridge.admin.reads import Reads
from bridge.admin.routes import Route
from bridge.admin.rules_api import RulesApi
from bridge.admin.silences import Silences
from bridge.decide.rulebook import Rulebook
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
    monotonic: Callable[[], float] = time.monotonic,
) -> Flask:
    """Return the WSGI application. It starts nothing: no thread, no worker."""
    parts = Parts(db=db, book=book, rules_fault=rules_fault, clock=clock, nonce=nonce, version=version, environ=environ)
    app = Flask("bridge.admin", static_folder=None)
    # One more, so that a body that is too long can be told from one that just fits.
    app.config.update(MAX_CONTENT_LENGTH=problems.LARGEST_BODY + 1, PROPAGATE_EXCEPTIONS=False)
    app.json = _Json(app)
    app.url_map.merge_slashes = False  # a name may have two; and nobody is redirected anywhere
    problems.register(app)
    everything = Everything(parts)
    for route in everything.routes:
        app.add_url_rule(route.path, route.name, route.view, methods=[route.method])
    public = frozenset(route.name for route in everything.routes if route.public)
    _guard(app, public, auth.Keys.of(admin_token, read_token), Failures(monotonic))
    return app


class _Json(DefaultJSONProvider):
    ensure_ascii = False
    sort_keys = False


class Everything:
    """All endpoints, and the two that tell of the others."""

    def __init__(self, parts: Parts) -> None:
        self._version = parts.version
        self.routes = [
            *self._about(),
            *(route for part in (Health, Metrics, Reads, Acts, Silences, RulesApi) for route in part(parts).routes()),
        ]

    def _about(self) -> Iterator[Route]:
        yield Route(path="/", view=self.index, name="index", says="what there is", answer=answers.Index)
        yield Route(path="/openapi.json", view=self.described, name="openapi", says="this description")

    def index(self) -> ResponseReturnValue:
        endpoints = sorted(f"{route.method} {route.path}" for route in self.routes)
        return {"name": "ci-bridge", "version": self._version, "endpoints": endpoints}

    def described(self) -> ResponseReturnValue:
        return self._document

    @cached_property
    def _document(self) -> openapi.Json:
        return openapi.document(self.routes, version=self._version)


def _guard(app: Flask, public: frozenset[str], keys: auth.Keys, failures: Failures) -> None:
    """Let nobody in by default: what is not public asks who it is, and so does what is not there."""

    @app.before_request
    def enter() -> None:
        if request.endpoint in public:
            return
        g.scope = auth.enter(request, keys, failures)
        if "\0" in request.path:  # PostgreSQL has no NUL in a text
            raise NotFound
        if request.endpoint is not None:
            auth.require(g.scope, request)

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers.update(_HEADERS)
        return response
