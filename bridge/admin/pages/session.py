"""Signing in: a token once, then a signed cookie. Who may see the pages, and who may act on them."""

from __future__ import annotations

import hashlib
import secrets as randomness
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from math import ceil
from typing import Any
from urllib.parse import quote

from flask import Flask, Request, redirect, request, session, url_for
from flask.sessions import SecureCookieSessionInterface
from flask.typing import ResponseReturnValue
from itsdangerous import BadSignature, URLSafeTimedSerializer

from bridge.admin import auth
from bridge.admin.auth import Key, Keys, Scope
from bridge.admin.auth_throttle import Failures, counted
from bridge.admin.http.problems import Problem
from bridge.admin.http.routes import Route
from bridge.admin.pages.routes import A_PAGE, is_here, show
from bridge.admin.parts import Parts
from bridge.decide.rulesfile.silences import LONGEST_AUTHOR, read_author

COOKIE = "ci_bridge"
LASTS = timedelta(hours=12)

_LONGEST_TOKEN = 1000


class Sessions:
    """The pages to sign in and out. A session has the scope of its token, and ends with it, or expires."""

    def __init__(self, parts: Parts, keys: Keys, failures: Failures) -> None:
        self._parts = parts
        self._keys = keys
        self._failures = failures

    def prepare(self, app: Flask) -> None:
        app.secret_key = randomness.token_bytes(32)  # of what is said before anybody has signed in
        app.session_interface = _Cookie(self._keys)
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
        """Store whose the request is, or return the redirect to sign in. Raises Problem 403."""
        if request.method not in auth.SAFE_METHODS:
            _require_own_page(request)
        if page and page.public:
            return None
        key = self._key()
        if key is None:
            return _to_sign_in()
        auth.admit(key, _claimed())
        if page and page.method != "GET" and key.scope < Scope.ADMIN:
            raise Problem(403, "you are signed in with a read token, which changes nothing")
        return None

    def _key(self) -> Key | None:
        if not self._keys.has_admin:
            return auth.from_here(request)
        until = session.get("until", 0)
        if not isinstance(until, int | float) or self._parts.clock().timestamp() >= until:
            return None
        return self._keys.named(session.get("token"))

    # --- signing in ----------------------------------------------------------------------------------------

    def ask(self) -> ResponseReturnValue:
        if self._key_if_any() is not None:
            return redirect(_next(), 303)
        return self._form()

    def _key_if_any(self) -> Key | None:
        try:
            return self._key()
        except Problem:  # not from this machine, and no token is set
            return None

    def sign_in(self) -> ResponseReturnValue:
        if not self._keys.has_admin:
            auth.from_here(request)
            return redirect(_next(), 303)
        sources = counted(request.remote_addr, request.headers.get("X-Forwarded-For", ""))
        if wait_s := self._failures.wait_s(sources):
            return self._form(f"Too many wrong tokens came from this address: try again in {ceil(wait_s)} s.", 429)
        given = request.form.get("token", "").strip()
        key = self._keys.find(given.encode()) if 0 < len(given) <= _LONGEST_TOKEN else None
        if key is None:
            if given:
                self._failures.add(sources)
            return self._form(f"This is {auth.NONE_OF_OURS}.", 401)
        name = request.form.get("name", "").strip()
        try:
            claimed = read_author(name) if name else None
        except ValueError as error:
            return self._form(f"Your name: {error}.", 400)
        _begin(key, claimed, until=self._parts.clock() + LASTS)
        return redirect(_next(), 303)

    def _form(self, why: str | None = None, status: int = 200) -> ResponseReturnValue:
        name = request.form.get("name", "")[:LONGEST_AUTHOR]
        return show("sign_in.html", status=status, why=why, next=_next(), name=name, longest=LONGEST_AUTHOR)

    def sign_out(self) -> ResponseReturnValue:
        session.clear()
        answer = redirect(url_for("pages.sign_in"), 303)
        answer.headers["Clear-Site-Data"] = '"cache"'  # so that going back shows nothing
        return answer


def is_by_browser(asked: Request) -> bool:
    """Return whether a browser opens an address, and not one of the API."""
    wants = asked.accept_mimetypes.best_match(["application/json", "text/html"])
    return asked.method == "GET" and wants == "text/html" and not asked.path.startswith("/api/")


def _claimed() -> str | None:
    """Return the name in the cookie: whoever has the token could have signed any."""
    try:
        return read_author(session["claimed"]) if session.get("claimed") else None
    except ValueError:
        return None


def _begin(key: Key, claimed: str | None, *, until: datetime) -> None:
    session.clear()
    session.permanent = True
    session.update(token=key.name, claimed=claimed, until=until.timestamp())


class _Cookie(SecureCookieSessionInterface):
    """A session is signed with a key of its token: without that token, or with another one of its name, it is none.

    So whoever has a token can only make sessions of that token. The proxy that ends TLS says so; a client that forges
    it only loses its own cookie.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def get_signing_serializer(self, app: Flask) -> Any:
        return _Signed(self._keys, app.secret_key or b"", self)

    def get_cookie_secure(self, app: Flask) -> bool:  # noqa: ARG002  (the interface is Flask's)
        return request.is_secure or _forwarded_proto() == "https"


def _forwarded_proto() -> str:
    return request.headers.get("X-Forwarded-Proto", "").partition(",")[0].strip().lower()


class _Signed:
    """Signs a session with the key of its token, whose name comes first in the cookie."""

    def __init__(self, keys: Keys, other: str | bytes, cookie: _Cookie) -> None:
        self._keys, self._other, self._cookie = keys, other, cookie

    def dumps(self, data: dict[str, Any]) -> str:
        name = data.get("token", "")
        signed = self._serializer(name).dumps(data)
        return f"{name}:{signed if isinstance(signed, str) else signed.decode()}"

    def loads(self, value: str, **limits: Any) -> Any:
        """Return the session of a cookie. Raises BadSignature."""
        name, _, signed = value.partition(":")
        data = self._serializer(name).loads(signed, **limits)
        if data.get("token", "") != name:
            raise BadSignature("it was signed with another token than its own")
        return data

    def _serializer(self, name: str) -> URLSafeTimedSerializer:
        key = self._keys.named(name)
        if name and key is None:
            raise BadSignature("there is no such token")
        return URLSafeTimedSerializer(
            _signing_key(key.digest) if key else self._other, salt=self._cookie.salt,
            serializer=self._cookie.serializer,
            signer_kwargs={"key_derivation": self._cookie.key_derivation, "digest_method": self._cookie.digest_method},
        )  # fmt: skip


@lru_cache(maxsize=256)
def _signing_key(token: bytes) -> bytes:
    """Return the signing key of a token: the same in every process.

    Slow to derive, so that a cookie does not help to guess the token.
    """
    return hashlib.scrypt(token, salt=b"ci-bridge session", n=2**14, r=8, p=1, dklen=32)


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
