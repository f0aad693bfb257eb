"""Signing in: a token once, then a signed cookie. Who may see the pages, and who may act on them."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from math import ceil
from urllib.parse import quote

from flask import Flask, Request, g, redirect, request, session, url_for
from flask.sessions import SecureCookieSessionInterface
from flask.typing import ResponseReturnValue

from bridge.admin import auth
from bridge.admin.auth import Keys, Scope
from bridge.admin.auth_throttle import Failures, counted
from bridge.admin.http.problems import Problem
from bridge.admin.http.routes import Route
from bridge.admin.pages.routes import A_PAGE, is_here, show
from bridge.admin.parts import Parts

COOKIE = "ci_bridge"
LASTS = timedelta(hours=12)

_LONGEST_TOKEN = 1000


class Sessions:
    """The pages to sign in and out. A session has the scope of its token, and expires."""

    def __init__(self, parts: Parts, keys: Keys, failures: Failures) -> None:
        self._parts = parts
        self._keys = keys
        self._failures = failures

    def prepare(self, app: Flask) -> None:
        app.secret_key = _key(self._keys)
        app.session_interface = _Cookie()
        app.config.update(
            SESSION_COOKIE_NAME=COOKIE,
            SESSION_COOKIE_SAMESITE="Lax",  # a link from a chat opens the page; other requests are checked
            SESSION_COOKIE_HTTPONLY=True,
            SESSION_REFRESH_EACH_REQUEST=False,
            PERMANENT_SESSION_LIFETIME=LASTS,
        )

    def routes(self) -> Iterator[Route]:
        yield Route(path="/sign-in", view=self.ask, name="sign_in", public=True)
        yield Route(path="/sign-in", view=self.sign_in, name="enter", method="POST", public=True)
        yield Route(path="/sign-out", view=self.sign_out, name="sign_out", method="POST", public=True)

    # --- who it is --------------------------------------------------------------------------------------

    def enter(self, page: Route | None) -> ResponseReturnValue | None:
        """Store the scope of the request, or return the redirect to sign in. Raises Problem 403."""
        if request.method not in auth.SAFE_METHODS:
            _require_own_page(request)
        if page and page.public:
            return None
        scope = self._scope()
        if scope is None:
            return _to_sign_in()
        g.scope = scope
        if page and page.method != "GET" and scope < Scope.ADMIN:
            raise Problem(403, "you are signed in with the read token, which changes nothing")
        return None

    def _scope(self) -> Scope | None:
        if self._keys.admin is None:
            return auth.from_here(request)
        until = session.get("until", 0)
        if not isinstance(until, int | float) or self._parts.clock().timestamp() >= until:
            return None
        return Scope(session["scope"])

    # --- signing in ----------------------------------------------------------------------------------------

    def ask(self) -> ResponseReturnValue:
        if self._scope_if_any() is not None:
            return redirect(_next(), 303)
        return show("sign_in.html", next=_next())

    def _scope_if_any(self) -> Scope | None:
        try:
            return self._scope()
        except Problem:  # not from this machine, and no token is set
            return None

    def sign_in(self) -> ResponseReturnValue:
        if self._keys.admin is None:
            auth.from_here(request)
            return redirect(_next(), 303)
        sources = counted(request.remote_addr, request.headers.get("X-Forwarded-For", ""))
        if wait_s := self._failures.wait_s(sources):
            return self._again(f"Too many wrong tokens came from this address: try again in {ceil(wait_s)} s.", 429)
        given = request.form.get("token", "").strip()
        scope = self._keys.scope(given.encode()) if 0 < len(given) <= _LONGEST_TOKEN else None
        if scope is None:
            if given:
                self._failures.add(sources)
            return self._again("This is neither the token of BRIDGE_ADMIN_TOKEN nor that of BRIDGE_READ_TOKEN.", 401)
        _begin(scope, until=self._parts.clock() + LASTS)
        return redirect(_next(), 303)

    def _again(self, why: str, status: int) -> ResponseReturnValue:
        return show("sign_in.html", status=status, why=why, next=_next())

    def sign_out(self) -> ResponseReturnValue:
        session.clear()
        answer = redirect(url_for("pages.sign_in"), 303)
        answer.headers["Clear-Site-Data"] = '"cache"'  # so that going back shows nothing
        return answer


def is_by_browser(asked: Request) -> bool:
    """Return whether a browser opens an address, and not one of the API."""
    wants = asked.accept_mimetypes.best_match(["application/json", "text/html"])
    return asked.method == "GET" and wants == "text/html" and not asked.path.startswith("/api/")


def _begin(scope: Scope, *, until: datetime) -> None:
    session.clear()
    session.permanent = True
    session.update(scope=int(scope), until=until.timestamp())


class _Cookie(SecureCookieSessionInterface):
    """The proxy that ends TLS says so; a client that forges it only loses its own cookie."""

    def get_cookie_secure(self, app: Flask) -> bool:  # noqa: ARG002  (the interface is Flask's)
        return request.is_secure or _forwarded_proto() == "https"


def _forwarded_proto() -> str:
    return request.headers.get("X-Forwarded-Proto", "").partition(",")[0].strip().lower()


@lru_cache(maxsize=8)
def _key(keys: Keys) -> bytes:
    """Return the signing key: the same in every process, another when a token is changed.

    Slow to derive, so that a cookie, which the read token gets too, does not help to guess the admin token.
    """
    if keys.admin is None:
        return secrets.token_bytes(32)
    salt = b"ci-bridge session" + (keys.read or b"")
    return hashlib.scrypt(keys.admin, salt=salt, n=2**14, r=8, p=1, dklen=32)


def _require_own_page(asked: Request) -> None:
    """Raise Problem 403 unless a page of this bridge posts; the browser says which page does."""
    site = asked.headers.get("Sec-Fetch-Site")
    if not (site == "same-origin" if site else is_here(auth.authority(asked.headers.get("Origin", "")), asked)):
        raise Problem(403, "this request was not made by a page of this bridge (Origin, Sec-Fetch-Site)")


def _to_sign_in() -> ResponseReturnValue:
    asked = f"{quote(request.path)}?{request.query_string.decode('latin-1')}".rstrip("?")
    here = asked if request.method == "GET" else "/"
    there = url_for("pages.sign_in", next=here)
    if request.headers.get("HX-Request"):  # the form would replace a part of the page
        return "", 401, {"HX-Redirect": url_for("pages.sign_in")}
    return redirect(there, 303)


def _next() -> str:
    wanted = request.values.get("next", "/")
    return wanted if A_PAGE.fullmatch(wanted) else "/"
