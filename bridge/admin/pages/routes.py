"""What pages share: their answers, and the filters in their addresses."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from flask import Request, flash, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from bridge.admin.auth import Scope
from bridge.admin.http.routes import Endpoints
from bridge.decide.text.times import duration
from bridge.pipeline.operations import OperationRefused
from bridge.record.queries.lists import Cursor, Filter

A_PAGE = re.compile(r"/(?![/\\])[!-~]*")  # of this bridge: not //elsewhere, not \elsewhere
ROWS = 25  # of a list on a page
_CURSOR = re.compile(r"[0-9]{1,18}\.[0-9]{1,18}")
_LONGEST = 1000  # characters of a filter


class Pages(Endpoints):
    """The pages of one subject; the `name` of a route is that of its page."""

    by = "dashboard"


# --- answers --------------------------------------------------------------------------------------------------------


def show(template: str, *, status: int = 200, **facts: object) -> ResponseReturnValue:
    """Render a page; of a page that refreshes itself only the live part, when htmx asks for it."""
    layout = "part.html" if request.headers.get("HX-Request") else "page.html"
    return render_template(template, layout=layout, **facts), status


def done(text: str, endpoint: str, **values: object) -> ResponseReturnValue:
    """Redirect to the page of the form, and say what was done."""
    flash(text, "done")
    return _back(endpoint, values)


def attempt(operation: Callable[[], object], text: str, endpoint: str, **values: object) -> ResponseReturnValue:
    """Do what a form asks for and redirect, saying what was done, or why not."""
    try:
        operation()
    except OperationRefused as error:
        return refused(str(error), endpoint, **values)
    return done(text, endpoint, **values)


def refused(why: str, endpoint: str, **values: object) -> ResponseReturnValue:
    flash(why, "refused")
    return _back(endpoint, values)


def is_here(authority: str, asked: Request) -> bool:
    """Return whether a host, as in the address of a page, is the one that was requested."""
    # Where a name has an underscore, werkzeug knows no host: then nothing would be "here", and an Origin of null too.
    return authority != "" and authority in (asked.host.lower(), asked.headers.get("Host", "").lower())


def _back(endpoint: str, values: Mapping[str, object]) -> ResponseReturnValue:
    usual: str = url_for(f"pages.{endpoint}", **values)  # type: ignore[arg-type]  # it takes any text
    return redirect(_came_from() or usual, 303)


def _came_from() -> str | None:
    try:
        found = urlsplit(request.headers.get("Referer", ""))
    except ValueError:  # no browser sends such a header, and the operation is done
        return None
    if not is_here(found.netloc.lower(), request) or not A_PAGE.fullmatch(found.path):
        return None
    return found.path + (f"?{found.query}" if found.query else "")


def may_act() -> bool:
    return bool(g.get("scope") == Scope.ADMIN)


# --- filters in a page's address: as in the API, and times also as people write them --------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a list shows: `texts` as in the address, `which` for the record, and what was wrong."""

    texts: Mapping[str, str]
    which: Filter
    cursor: Cursor | None
    faults: Sequence[str]

    @property
    def given(self) -> dict[str, str]:
        """Return the filters that are set, for the address of the next page."""
        return {name: text for name, text in self.texts.items() if text}


def asked_for(fields: Sequence[str], now: datetime, states: Sequence[str] = (), state: str | None = None) -> Asked:
    """Return what the address of this request asks for; a filter that cannot be read is left out, and named.

    `states` are the only ones there are, if given, and `state` the usual one.
    """
    texts = {name: argument(name) for name in fields}
    values: dict[str, Any] = {"state": state} if state else {}
    faults = []
    for name, text in texts.items():
        if name == "state" and text and states and text not in states:
            faults.append(f'state: "{text[:100]}" is none; use {", ".join(states)}')
        elif text:
            try:
                values[name] = moment(text, now) if name in ("since", "until") else text
            except ValueError as error:
                faults.append(f'{name}: "{text[:100]}": {error}')
    return Asked(texts=texts, which=Filter(**values), cursor=cursor(), faults=faults)


def argument(name: str) -> str:
    """Return a text of the address."""
    return request.args.get(name, "").replace("\0", "").strip()[:_LONGEST]


def cursor() -> Cursor | None:
    given = request.args.get("cursor", "")
    return Cursor(*map(int, given.split("."))) if _CURSOR.fullmatch(given) else None


def moment(text: str, now: datetime) -> datetime:
    """Return the time of "2h" (ago) or of "2026-11-21 09:00" (UTC unless it has a zone). Raises ValueError."""
    try:
        return now - duration(text)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError('neither a time such as "2026-11-21 09:00" (UTC) nor how long ago, such as "2h"') from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
