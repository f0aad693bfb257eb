"""Why an attempt or a notifier failed, in one word that figures are sorted by. Pure.

What receivers answer is told by status; what became of a connection is told by `send/` in words, so tests hold these
against its texts.
"""

from __future__ import annotations

import re

from bridge.model import Attempt, Outcome, Rejected, Sent

OK, LOST = "ok", "lost"
REASONS = (
    OK, "client_error", "server_error", "timeout", "connection", "rate_limited", "auth", "invalid_payload", LOST,
    "other",
)  # fmt: skip
CAUSES = ("auth", "channel", "gone", "other")  # of a notifier's pause

_SLACK = re.compile(r"Slack (?:says|answered \d{3}:) ([a-z][a-z0-9_]*)")
_NO_ACCESS = frozenset(
    {"invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired", "not_allowed_token_type",
     "missing_scope", "no_permission", "access_denied", "action_prohibited", "ekm_access_denied",
     "enterprise_is_restricted", "org_login_required", "team_access_not_granted", "two_factor_setup_required",
     "invalid_token"}
)  # fmt: skip
_NO_CHANNEL = re.compile(r".*channel.*|is_archived|user_not_found")
_TOO_OFTEN = frozenset({"ratelimited", "rate_limited", "message_limit_exceeded"})
_BROKEN = frozenset({"internal_error", "fatal_error", "service_unavailable", "request_timeout"})
_WILL_NOT = "will not have this message"
_BY_STATUS = {
    401: "auth", 403: "auth", 407: "auth", 408: "timeout", 413: "invalid_payload", 415: "invalid_payload",
    422: "invalid_payload", 429: "rate_limited",
}  # fmt: skip
_TOO_SLOW = re.compile(r"(?:no answer from|could not (?:look up|connect to)) .* within [0-9.e+]+ s")
_NO_CONNECTION = re.compile(
    r"could not (?:look up|connect to) |the (?:connection to|certificate of) |no TLS with "
    r"|.* (?:closed the connection|did not answer in HTTP|sent headers without an end|refused a tunnel)"
)


def reason(attempt: Attempt) -> str:
    """Return one of REASONS."""
    outcome, status = attempt.outcome, attempt.status
    if isinstance(outcome, Sent):
        return OK
    if slack := _SLACK.match(outcome.why):
        return _of_slack(slack[1], outcome)
    if status is None:
        return _unanswered(outcome.why)
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return {4: "client_error", 5: "server_error"}.get(status // 100, "other")


def _of_slack(code: str, outcome: Outcome) -> str:
    if code in _NO_ACCESS:
        return "auth"
    if code in _TOO_OFTEN or code == "to":  # "Slack says to slow down"
        return "rate_limited"
    if isinstance(outcome, Rejected):
        return "invalid_payload" if _WILL_NOT in outcome.why else "client_error"
    return "server_error" if code in _BROKEN else "other"


def _unanswered(why: str) -> str:
    if _TOO_SLOW.match(why):
        return "timeout"
    return "connection" if _NO_CONNECTION.match(why) else "other"


def cause(why: str | None) -> str:
    """Return one of CAUSES, by why a notifier is paused."""
    slack = _SLACK.match(why or "")
    if slack and slack[1] in _NO_ACCESS:
        return "auth"
    if slack and _NO_CHANNEL.fullmatch(slack[1]):
        return "channel"
    return "gone" if re.search(r"answered (?:404|410)", why or "") else "other"
