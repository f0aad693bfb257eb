"""The dashboard: all pages in the application, who may see them, how they are rendered, how they fail."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from urllib.parse import urlencode

from flask import Blueprint, Flask, Response, current_app, g, request, send_from_directory, url_for
from flask.typing import ResponseReturnValue
from jinja2 import StrictUndefined
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException, NotFound

from bridge.admin.auth import Keys
from bridge.admin.auth_throttle import Failures
from bridge.admin.http import problems
from bridge.admin.http.problems import Problem
from bridge.admin.pages import texts
from bridge.admin.pages.actions import ActionPages
from bridge.admin.pages.deliveries import DeliveryPages
from bridge.admin.pages.incidents import IncidentPages
from bridge.admin.pages.jobs import JobPages
from bridge.admin.pages.overview import Overview
from bridge.admin.pages.routes import may_act, show
from bridge.admin.pages.rules import RulePages
from bridge.admin.pages.session import Sessions
from bridge.admin.pages.setup import NotifierPages, WatchPages
from bridge.admin.pages.silences import SilencePages
from bridge.admin.pages.try_rules import TryRulesPages
from bridge.admin.parts import Parts

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "same-origin",  # a form goes back to where it was
    "Cache-Control": "private, no-cache",
    "Vary": "Cookie, HX-Request",
}
_STATIC = Path(__file__).parent / "static"
_FOR_A_YEAR = 365 * 86400
_ALL = "all"  # in the address of a page: its texts in full
NAVIGATION = (
    ("overview", "Overview"), ("jobs", "Jobs"), ("deliveries", "Deliveries"), ("incidents", "Incidents"),
    ("rules", "Rules"), ("notifiers", "Notifiers"), ("silences", "Silences"), ("watches", "Watches"),
    ("actions", "Actions"),
)  # fmt: skip


_SUBJECTS = (
    Overview,
    JobPages,
    DeliveryPages,
    IncidentPages,
    RulePages,
    TryRulesPages,
    NotifierPages,
    SilencePages,
    WatchPages,
    ActionPages,
)


class Dashboard:
    """The pages, as a blueprint: `pages.NAME` is the endpoint of each."""

    def __init__(self, parts: Parts, keys: Keys, failures: Failures) -> None:
        self._parts = parts
        self._sessions = Sessions(parts, keys, failures)
        self._asks_for_token = keys.has_admin
        found = [page for subject in _SUBJECTS for page in subject(parts).routes()]
        self.pages = {f"pages.{page.name}": page for page in (*found, *self._sessions.routes())}

    def register(self, app: Flask) -> None:
        self._sessions.prepare(app)
        blueprint = Blueprint("pages", __name__, template_folder="templates")
        for page in self.pages.values():
            blueprint.add_url_rule(page.path, page.name, page.view, methods=[page.method])
        blueprint.add_url_rule("/static/<path:filename>", "static", _static)
        blueprint.before_request(self._enter)
        blueprint.after_request(_finish)
        for error in (HTTPException, DBAPIError, PoolTimeout):
            blueprint.register_error_handler(error, _failed)
        blueprint.app_context_processor(self._facts)
        app.register_blueprint(blueprint)
        app.jinja_env.undefined = StrictUndefined
        app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
        shown: dict[str, Callable[..., object]] = {
            "moment": lambda value: texts.moment(value, self._parts.clock()),
            "age": lambda value: texts.age(value, self._parts.clock()),
            "with_times": lambda text: texts.with_times(text, self._parts.clock()),
            "gate": texts.gate,
            "span": texts.span,
            "count": texts.count,
            "line": texts.line,
            "detail": lambda text: texts.detail(text, lines=True, all_at=_all_at()),
            "name": lambda text: texts.detail(text, lines=False, all_at=_all_at()),
            "as_it_is": texts.as_it_is,
        }
        app.jinja_env.finalize = texts.shown
        app.jinja_env.filters |= shown

    def _enter(self) -> ResponseReturnValue | None:
        if request.endpoint == "pages.static":
            return None
        if "\0" in request.path:  # PostgreSQL has no NUL in a text
            raise NotFound
        return self._sessions.enter(self.pages.get(request.endpoint or ""))

    def nothing_there(self) -> ResponseReturnValue:
        """Return the page for an address with nothing, if somebody is signed in."""
        try:
            asks = self._sessions.enter(None)
        except Problem as error:
            return _failed(error)
        if asks is not None:
            return asks
        answer = current_app.make_response(_failed(NotFound()))
        answer.headers.update(_HEADERS)
        return answer

    def _facts(self) -> dict[str, object]:
        return {
            "section": request.path.split("/")[1] or "overview",  # of the navigation
            "navigation": NAVIGATION,
            "may_act": may_act(),
            "signed_in": "scope" in g,
            "asks_for_token": self._asks_for_token,
            "version": self._parts.version,
            "asset": _asset,
            "show_all": request.args.get(_ALL),
        }


def _all_at() -> str | None:
    """Return the address at which the requested page shows all of its texts; None if it does already."""
    if request.method != "GET" or request.endpoint is None or _ALL in request.args:
        return None
    # Not all of it by url_for, which takes more than a query from names such as _scheme.
    query = urlencode(request.args.to_dict() | {_ALL: "yes"})
    return f"{url_for(request.endpoint, **(request.view_args or {}))}?{query}"


def _static(filename: str) -> ResponseReturnValue:
    answer = send_from_directory(_STATIC, filename, max_age=_FOR_A_YEAR)
    answer.headers["Cache-Control"] = f"public, max-age={_FOR_A_YEAR}, immutable"
    return answer


@cache
def _asset(filename: str) -> str:
    """Return the address of a file. It changes with the content, so browsers may keep it for a year."""
    digest = hashlib.sha256((_STATIC / filename).read_bytes()).hexdigest()[:12]
    return url_for("pages.static", filename=filename, v=digest)


def _finish(response: Response) -> Response:
    if request.endpoint == "pages.static":
        return response
    response.headers.update(_HEADERS)
    if request.method == "GET" and response.status_code == 200:
        response.add_etag()
        response.make_conditional(request)
    return response


def _failed(error: HTTPException | DBAPIError | PoolTimeout) -> ResponseReturnValue:
    """Return an error as a page."""
    problem = problems.answered(error)
    facts = problem.get_json(force=True)
    page = current_app.make_response(show("problem.html", status=problem.status_code, problem=facts))
    for name in ("Retry-After", "Allow"):
        if name in problem.headers:
            page.headers[name] = problem.headers[name]
    return page
