"""What Slack's answers mean. Pure.

Codes: docs.slack.dev, chat.postMessage, chat.update and incoming webhooks, read 2026-11-21.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from bridge import shallow_json
from bridge.model import Outcome, Reason, Rejected, RetryLater
from bridge.send.http_types import Reply, reason_of

_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")

_NEW_TOKEN = "give the notifier the token of an app that is installed in the workspace"  # noqa: S105 - advice
_NEW_URL = "make a new incoming webhook and give its url to the notifier"
_NEW_CHANNEL = "give the notifier the id of a channel that exists"
_INVITE = "invite the app into the channel"
_ALLOW = "ask an administrator of the workspace to allow it"

# Nothing will be accepted until a person has followed the advice.
ADVICE: dict[str, tuple[Reason, str]] = {
    **dict.fromkeys(
        ("invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired",
         "not_allowed_token_type"),
        (Reason.AUTH, _NEW_TOKEN),
    ),
    **dict.fromkeys(
        ("missing_scope", "no_permission"),
        (Reason.AUTH, "add the scope chat:write to the app and install it again"),
    ),
    **dict.fromkeys(
        ("access_denied", "action_prohibited", "ekm_access_denied", "enterprise_is_restricted",
         "org_login_required", "team_access_not_granted", "two_factor_setup_required"),
        (Reason.AUTH, _ALLOW),
    ),
    **dict.fromkeys(
        ("posting_to_general_channel_denied", "restricted_action_non_threadable_channel",
         "restricted_action_read_only_channel", "restricted_action_thread_only_channel"),
        (Reason.CHANNEL, _ALLOW),
    ),
    **dict.fromkeys(
        ("messages_tab_disabled", "restricted_action", "team_added_to_org", "team_disabled"),
        (Reason.CLIENT_ERROR, _ALLOW),
    ),
    **dict.fromkeys(
        ("channel_not_found", "user_not_found", "channel_type_not_supported"),
        (Reason.CHANNEL, _NEW_CHANNEL),
    ),
    **dict.fromkeys(
        ("is_archived", "channel_is_archived"),
        (Reason.CHANNEL, "unarchive the channel, or name another"),
    ),
    **dict.fromkeys(("not_in_channel", "user_not_in_channel"), (Reason.CHANNEL, _INVITE)),
    "invalid_token": (Reason.AUTH, _NEW_URL),
    **dict.fromkeys(
        ("no_active_hooks", "no_service", "no_service_id", "no_team"),
        (Reason.CLIENT_ERROR, _NEW_URL),
    ),
}  # fmt: skip

# Slack refuses this message; it may accept the next one.
BLOCKS_REFUSED = frozenset(
    {"invalid_blocks", "invalid_blocks_format", "invalid_payload", "msg_blocks_too_long", "msg_too_long"}
)
MISSHAPEN = BLOCKS_REFUSED | {
    "invalid_arg_name", "invalid_arguments", "invalid_array_arg", "invalid_attachments", "invalid_charset",
    "invalid_form_data", "invalid_json", "invalid_metadata_format", "invalid_metadata_schema",
    "invalid_post_type", "json_not_object", "markdown_text_conflict", "metadata_must_be_sent_from_app",
    "metadata_too_large", "missing_post_type", "missing_text_or_fallback_or_attachments", "no_text",
    "too_many_attachments", "too_many_contact_cards",
}  # fmt: skip
# Only the root may be wrong, or its channel, which need not be the configured one: its name may belong to another
# channel now. A new root shows which; if that is refused too, its answer decides.
ROOT_GONE = frozenset(
    {"message_not_found", "cant_update_message", "edit_window_closed", "thread_not_found",
     "cannot_reply_to_message", "restricted_action_thread_locked", "channel_not_found", "is_archived", "is_inactive",
     "not_in_channel"}
)  # fmt: skip
NOT_UNDERSTOOD = "Slack's answer is not understood"
_NOT_OK = 'Slack answered {status}, but not "ok": a proxy or a login page may have answered in its place'
RATE_LIMITED = frozenset({"ratelimited", "rate_limited", "message_limit_exceeded"})
_BROKEN = frozenset({"internal_error", "fatal_error", "service_unavailable", "request_timeout"})


def read(body: bytes) -> dict[str, Any]:
    """Return the JSON object of an answer, a code in plain text as {"error": code}, {} where it is neither."""
    text = _text(body)
    try:
        answer = shallow_json.loads(text)
    except ValueError:
        return {"error": text} if _CODE.fullmatch(text) else {}
    return answer if isinstance(answer, dict) else {}


def error_in(answer: Mapping[str, Any]) -> str:
    return str(answer.get("error") or "")


def hook_accepted(reply: Reply) -> bool:
    """Return whether an incoming webhook accepted: a 2xx alone is not enough, as a login page is one too.

    Slack says 200 and "ok" (docs.slack.dev/tools/python-slack-sdk/webhook, read 2026-11-30), and so do Mattermost and
    Discord's /slack; gateways answer without content, with 204 for example.
    """
    text = _text(reply.body)
    if reply.status == 200:
        return text.lower() == "ok"
    return 200 < reply.status < 300 and not text and not reply.truncated


def is_loose(message: Any, ts: Any) -> bool:
    """Return whether a reply, answered with `message` and its `ts`, is in the channel instead of in its thread.

    If the root was deleted, Slack accepts the reply and leaves `thread_ts` out (slack-go/slack, issue 1571, read
    2026-11-30). An answer without `message` says nothing.
    """
    return isinstance(message, dict) and bool(message) and message.get("thread_ts") in (None, "", ts)


def refusal(status: int, error: str, after: timedelta | None, *, webhook: bool = False) -> Outcome:
    """Return the outcome of an answer that was not "ok". Of `error`, it repeats a code and no other text."""
    error = error if _CODE.fullmatch(error) else ""
    if status == 429 or error in RATE_LIMITED:
        return RetryLater(
            f"Slack says {error or 'to slow down'}", Reason.RATE_LIMITED, after=after, whole_notifier=True
        )
    if error in ADVICE:
        reason, advice = ADVICE[error]
        return Rejected(f"Slack says {error}: {advice}", reason, pause=True)
    if error in MISSHAPEN:
        return Rejected(f"Slack says {error}: it refuses this message", Reason.INVALID_PAYLOAD)
    if webhook and status in (404, 410):
        return Rejected(f"Slack answered {status}: {_NEW_URL}", Reason.GONE, pause=True)
    if 200 <= status < 300 and not error:
        return RetryLater(_NOT_OK.format(status=status) if webhook else NOT_UNDERSTOOD)
    wish = after if status == 503 else None
    why = f"Slack answered {status}" + (f": {error}" if error else "")
    return RetryLater(why, _reason(status, error), after=wish, whole_notifier=wish is not None)


def _reason(status: int, error: str) -> Reason:
    if not error:
        return reason_of(status)
    return Reason.SERVER_ERROR if error in _BROKEN else Reason.OTHER


def _text(body: bytes) -> str:
    return body.decode("utf-8-sig", "replace").strip()
