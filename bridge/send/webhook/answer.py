"""What a webhook receiver's answer means. Pure."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from urllib.parse import urlsplit

from bridge.model import Outcome, Reason, Rejected, RetryLater, Sent
from bridge.send.http_types import Failure, Reply, reason_of, retry_after


def judge(ended: Reply | Failure, now: datetime) -> Outcome:
    """Return what the end of a request means for the delivery."""
    if isinstance(ended, Failure):
        return ended.outcome
    status = ended.status
    if 200 <= status < 300:
        return Sent()
    why, reason = f"answered {status} {_phrase(status)}".rstrip(), reason_of(status)
    if status == HTTPStatus.GONE:
        return Rejected(f"the receiver {why}: it wants no more deliveries", Reason.GONE, pause=True)
    if 300 <= status < 400:
        return RetryLater(_redirected(why, ended), reason)
    after = retry_after(ended.headers, now) if status in (429, 503) else None
    # Any other 4xx is tried again too: receivers deploy 401, 403 and 404 by mistake.
    return RetryLater(why, reason, after=after, everyone=after is not None)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _redirected(why: str, reply: Reply) -> str:
    try:
        host = urlsplit(reply.headers.get("location", "")).hostname  # the rest may be a secret
    except ValueError:
        host = None
    return f"{why}{f' to {host}' if host else ''}: redirects are not followed, update the url"
