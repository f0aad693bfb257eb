"""Signing in: a token once, then a signed cookie. Who may see the pages, and who may do something on them."""

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
from bridge.admin.pages.routes import A_PAGE, Page, is_here, show
from bridge.admin.parts import Parts

COOKIE = "ci_bridge"
LASTS = timedelta(hours=12)

_LONGEST_TOKEN = 1000


class Sessions:
    """The pages to sign in and out. A session says which token it was made with, and ends by itself."""

    def __init__(self, parts: Parts, keys: Keys, failures: Failures) -> None:
        self._parts = parts
        self._keys = keys
        self._failures = failures

    def prepare(self, app: Flask) -> None:
        app.secret_key = _key(self._keys)
        app.session_interface = _Cookie()
        app.config.update(
            SESSION_COOKIE_NAME=COOKIE,
            SESSION_COOKIE_SAMESITE="Strict",
            SESSION_COOKIE_HTTPONLY=True,
            SESSION_REFRESH_EACH_REQUEST=False,
            PERMANENT_SESSION_LIFETIME=LASTS,
        )

    def pages(self) -> Iterator[Page]:
        yield Page(path="/sign-in", view=self.ask, name="sign_in", public=True)
        yield Page(path="/sign-in", view=self.sign_in, name="enter", method="POST", public=True)
        yield Page(path="/sign-out", view=self.sign_out, name="sign_out", method="POST", public=True)

    # --- who is there --------------------------------------------------------------------------------------

    def enter(self, page: Page | None) -> ResponseReturnValue | None:
        """Note who asks, or return the answer that sends them to sign in. Raises Problem 403."""
        if request.method not in auth.SAFE_METHODS:
            _require_own_page(request)
        if page and page.public:
            return None
        scope = self._scope()
        if scope is None:
            return _to_sign_in()
        g.scope = scope
        if page and page.method != "GET" and scope < Scope.ADMIN:
            raise Problem(403, "you are signed in with the read token: it shows everything and changes nothing")
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
        answer.headers["Clear-Site-Data"] = '"cache"'  # nobody who comes after sees it by going back
        return answer


def is_by_browser(asked: Request) -> bool:
    """Tell whether a person opens an address, which is none of the API's."""
    wants = asked.accept_mimetypes.best_match(["application/json", "text/html"])
    return asked.method == "GET" and wants == "text/html" and not asked.path.startswith("/api/")


def _begin(scope: Scope, *, until: datetime) -> None:
    session.clear()
    session.permanent = True
    session.update(scope=int(scope), until=until.timestamp())


class _Cookie(SecureCookieSessionInterface):
    """Who ends TLS in front of us says so; whoever says so falsely only keeps the cookie from himself."""

    def get_cookie_secure(self, app: Flask) -> bool:  # noqa: ARG002  (the interface is Flask's)
        return request.is_secure or _forwarded_proto() == "https"


def _forwarded_proto() -> str:
    return request.headers.get("X-Forwarded-Proto", "").partition(",")[0].strip().lower()


@lru_cache(maxsize=8)
def _key(keys: Keys) -> bytes:
    """Return what signs: the same in every process, another when a token is changed.

    Slow to make, so that a cookie, which who has the read token gets too, is no way to guess the admin token.
    """
    if keys.admin is None:
        return secrets.token_bytes(32)
    salt = b"ci-bridge session" + (keys.read or b"")
    return hashlib.scrypt(keys.admin, salt=salt, n=2**14, r=8, p=1, dklen=32)


def _require_own_page(asked: Request) -> None:
    """Raise Problem 403 unless a page of ours posts: a browser says which one does."""
    site = asked.headers.get("Sec-Fetch-Site")
    if not (site == "same-origin" if site else is_here(auth.authority(asked.headers.get("Origin", "")), asked)):
        raise Problem(403, "this was not asked for by a page of this bridge (Origin, Sec-Fetch-Site)")


def _to_sign_in() -> ResponseReturnValue:
    asked = f"{quote(request.path)}?{request.query_string.decode('latin-1')}".rstrip("?")
    here = asked if request.method == "GET" else "/"
    there = url_for("pages.sign_in", next=here)
    if request.headers.get("HX-Request"):  # a part of a page would be replaced by the form
        return "", 401, {"HX-Redirect": url_for("pages.sign_in")}
    return redirect(there, 303)


def _next() -> str:
    wanted = request.values.get("next", "/")
    return wanted if A_PAGE.fullmatch(wanted) else "/"
