"""What a page is, and what a page's view can ask for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from flask import Request, flash, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from bridge.admin.auth import Scope
from bridge.admin.parts import Parts
from bridge.pipeline.operations import OperationRefused, Operations

DASHBOARD = "dashboard"  # who does what is done on pages, where nobody else is named
A_PAGE = re.compile(r"/(?![/\\])[!-~]*")  # of this bridge: not //elsewhere, not \elsewhere


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One method of one address that a browser asks for."""

    path: str
    view: Callable[..., ResponseReturnValue]
    name: str
    method: str = "GET"
    public: bool = False  # served to who has not signed in


class Pages:
    """What the pages of one subject share."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def operations(self) -> Operations:
        return self.parts.operations(DASHBOARD)


def show(template: str, *, status: int = 200, **facts: object) -> ResponseReturnValue:
    """Render a page; of a page that refreshes itself only the live part, when htmx asks for it."""
    layout = "part.html" if request.headers.get("HX-Request") else "page.html"
    return render_template(template, layout=layout, **facts), status


def done(said: str, endpoint: str, **values: object) -> ResponseReturnValue:
    """Go back to where the form was, and say what was done."""
    flash(said, "done")
    return _back(endpoint, values)


def attempt(deed: Callable[[], object], said: str, endpoint: str, **values: object) -> ResponseReturnValue:
    """Do what a form asks for and go back, saying what was done, or why not."""
    try:
        deed()
    except OperationRefused as error:
        return refused(str(error), endpoint, **values)
    return done(said, endpoint, **values)


def refused(why: str, endpoint: str, **values: object) -> ResponseReturnValue:
    flash(why, "refused")
    return _back(endpoint, values)


def is_here(authority: str, asked: Request) -> bool:
    """Tell whether a host, as the address of a page has it, is the one that was asked."""
    # Where a name has an underscore, werkzeug knows no host: then nothing would be "here", and an Origin of null too.
    return authority != "" and authority in (asked.host.lower(), asked.headers.get("Host", "").lower())


def _back(endpoint: str, values: Mapping[str, object]) -> ResponseReturnValue:
    usual: str = url_for(f"pages.{endpoint}", **values)  # type: ignore[arg-type]  # it takes any text
    return redirect(_came_from() or usual, 303)


def _came_from() -> str | None:
    try:
        found = urlsplit(request.headers.get("Referer", ""))
    except ValueError:  # no browser says such a thing, and the deed is done
        return None
    if not is_here(found.netloc.lower(), request) or not A_PAGE.fullmatch(found.path):
        return None
    return found.path + (f"?{found.query}" if found.query else "")


def may_act() -> bool:
    return bool(g.get("scope") == Scope.ADMIN)
