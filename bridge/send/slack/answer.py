"""What Slack's answers mean. Pure.

Codes: docs.slack.dev, chat.postMessage, chat.update and incoming webhooks, read 2026-11-30.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from bridge import shallow_json
from bridge.model import Outcome, Reason, Rejected, RetryLater
from bridge.send.http_types import Reply, reason_of

_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")

_NEW_TOKEN = "give the notifier the token of an app that is installed in the workspace"  # noqa: S105 - advice
_NEW_URL = "make a new incoming webhook and give its url to the notifier"
_NEW_CHANNEL = "give the notifier the id of a channel that exists"
_SCOPE = "add the scope chat:write to the app and install it again"
_INVITE = "invite the app into the channel (/invite)"
_UNARCHIVE = "unarchive the channel, or name another"
_ALLOW = "ask an administrator of the workspace to allow it"
_NETWORK = "ask an administrator of the workspace to allow the bridge's network"
_MIGRATION = "resume the notifier when the migration is over"
_THREADS = 'set thread = "none", or let the channel have threads'
_API = "check SLACK_API_URL, and update the bridge"

UNKNOWN_ATTEMPTS = 5  # what Slack refuses with a code that is not in the table is attempted so often, then dead

Remedy = Literal["pause", "dead", "again"]


@dataclass(frozen=True, slots=True)
class Meaning:
    """What to do about an error code.

    remedy: "pause": nothing will be accepted until a person has followed the advice. "dead": this message is refused
        for good, the next one may be accepted. "again": it passes by itself.
    anew: said of an edit or a reply, only its root may be wrong, or the root's channel, which need not be the
        configured one: its name may belong to another channel now. A new root shows which; if that is refused too,
        its answer decides.
    blocks: the blocks may be wrong; a plain text beats none.
    """

    remedy: Remedy
    reason: Reason
    advice: str = ""
    anew: bool = False
    blocks: bool = False


def _pause(reason: Reason, advice: str, *, anew: bool = False) -> Meaning:
    return Meaning("pause", reason, advice, anew)


def _dead(reason: Reason = Reason.INVALID_PAYLOAD, *, anew: bool = False, blocks: bool = False) -> Meaning:
    return Meaning("dead", reason, "", anew, blocks)


def _again(reason: Reason = Reason.SERVER_ERROR) -> Meaning:
    return Meaning("again", reason)


ERRORS: Mapping[str, Meaning] = {
    # the token, the app, the workspace
    "access_denied": _pause(Reason.AUTH, _ALLOW),
    "accesslimited": _pause(Reason.AUTH, _NETWORK),
    "account_inactive": _pause(Reason.AUTH, _NEW_TOKEN),
    "action_prohibited": _pause(Reason.AUTH, _ALLOW),
    "app_access_restricted": _pause(Reason.AUTH, _ALLOW),
    "as_user_not_supported": _pause(Reason.AUTH, _NEW_TOKEN),  # of no app that can be installed today
    "ekm_access_denied": _pause(Reason.AUTH, _ALLOW),
    "enterprise_is_restricted": _pause(Reason.AUTH, _ALLOW),
    "free_team_not_allowed": _pause(Reason.AUTH, _ALLOW),
    "invalid_auth": _pause(Reason.AUTH, _NEW_TOKEN),
    "is_bot": _pause(Reason.AUTH, _NEW_TOKEN),
    "missing_scope": _pause(Reason.AUTH, _SCOPE),
    "no_permission": _pause(Reason.AUTH, _INVITE),
    "not_allowed_token_type": _pause(Reason.AUTH, _NEW_TOKEN),
    "not_authed": _pause(Reason.AUTH, _NEW_TOKEN),
    "org_login_required": _pause(Reason.AUTH, _MIGRATION),
    "restricted_action": _pause(Reason.CLIENT_ERROR, _ALLOW),
    "team_access_not_granted": _pause(Reason.AUTH, _ALLOW),
    "team_added_to_org": _pause(Reason.CLIENT_ERROR, _MIGRATION),
    "team_disabled": _pause(Reason.CLIENT_ERROR, _ALLOW),
    "token_expired": _pause(Reason.AUTH, _NEW_TOKEN),
    "token_revoked": _pause(Reason.AUTH, _NEW_TOKEN),
    "two_factor_setup_required": _pause(Reason.AUTH, _ALLOW),
    "deprecated_endpoint": _pause(Reason.CLIENT_ERROR, _API),
    "method_deprecated": _pause(Reason.CLIENT_ERROR, _API),
    "unknown_method": _pause(Reason.CLIENT_ERROR, _API),
    # the channel
    "channel_is_archived": _pause(Reason.CHANNEL, _UNARCHIVE),
    "channel_is_limited_access": _pause(Reason.CHANNEL, _ALLOW),
    "channel_not_found": _pause(Reason.CHANNEL, _NEW_CHANNEL, anew=True),
    "channel_type_not_supported": _pause(Reason.CHANNEL, _NEW_CHANNEL),
    "external_channel_migrating": _pause(Reason.CHANNEL, _MIGRATION, anew=True),
    "is_archived": _pause(Reason.CHANNEL, _UNARCHIVE, anew=True),
    "is_inactive": _pause(Reason.CHANNEL, _UNARCHIVE, anew=True),  # frozen, archived or deleted
    "messages_tab_disabled": _pause(Reason.CLIENT_ERROR, _ALLOW),
    "not_in_channel": _pause(Reason.CHANNEL, _INVITE, anew=True),
    "posting_to_channel_denied": _pause(Reason.CHANNEL, _ALLOW),
    "posting_to_general_channel_denied": _pause(Reason.CHANNEL, _ALLOW),
    "restricted_action_non_threadable_channel": _pause(Reason.CHANNEL, _THREADS),
    "restricted_action_read_only_channel": _pause(Reason.CHANNEL, _ALLOW),
    "restricted_action_thread_only_channel": _pause(Reason.CHANNEL, _ALLOW),
    "team_not_found": _pause(Reason.CHANNEL, _NEW_CHANNEL),  # a name, where only an id is understood
    "user_not_found": _pause(Reason.CHANNEL, _NEW_CHANNEL),
    "user_not_in_channel": _pause(Reason.CHANNEL, _INVITE),
    # the incoming webhook
    "invalid_token": _pause(Reason.AUTH, _NEW_URL),
    "no_active_hooks": _pause(Reason.CLIENT_ERROR, _NEW_URL),
    "no_service": _pause(Reason.CLIENT_ERROR, _NEW_URL),
    "no_service_id": _pause(Reason.CLIENT_ERROR, _NEW_URL),
    "no_team": _pause(Reason.CLIENT_ERROR, _NEW_URL),
    # the root that is edited, or answered
    "block_mismatch": _dead(anew=True),  # it shows rich text, which blocks cannot replace
    "cannot_reply_to_message": _dead(Reason.CLIENT_ERROR, anew=True),
    "cant_update_message": _dead(Reason.CLIENT_ERROR, anew=True),
    "edit_window_closed": _dead(Reason.CLIENT_ERROR, anew=True),
    "message_not_found": _dead(Reason.CLIENT_ERROR, anew=True),
    "restricted_action_thread_locked": _dead(Reason.CLIENT_ERROR, anew=True),
    "thread_not_found": _dead(Reason.CLIENT_ERROR, anew=True),
    # the message
    "attachment_payload_limit_exceeded": _dead(),
    "blocked_file_type": _dead(),
    "cant_broadcast_message": _dead(),
    "duplicate_channel_not_found": _dead(),
    "duplicate_message_not_found": _dead(),
    "invalid_arg_name": _dead(),
    "invalid_arguments": _dead(),
    "invalid_array_arg": _dead(),
    "invalid_attachments": _dead(),
    "invalid_blocks": _dead(blocks=True),
    "invalid_blocks_format": _dead(blocks=True),
    "invalid_charset": _dead(),
    "invalid_form_data": _dead(),
    "invalid_json": _dead(),
    "invalid_metadata_format": _dead(),
    "invalid_metadata_schema": _dead(),
    "invalid_payload": _dead(blocks=True),
    "invalid_post_type": _dead(),
    "json_not_object": _dead(),
    "markdown_text_conflict": _dead(),
    "metadata_must_be_sent_from_app": _dead(),
    "metadata_too_large": _dead(),
    "missing_post_type": _dead(),
    "missing_text_or_fallback_or_attachments": _dead(),
    "msg_blocks_too_long": _dead(blocks=True),
    "msg_too_long": _dead(blocks=True),
    "no_dual_broadcast_content_update": _dead(),
    "no_text": _dead(),
    "send_on_behalf_not_allowed": _dead(),
    "slack_connect_blocked_file_type": _dead(),
    "slack_connect_canvas_sharing_blocked": _dead(),
    "slack_connect_clip_sharing_blocked": _dead(),
    "slack_connect_file_link_sharing_blocked": _dead(),
    "slack_connect_file_upload_sharing_blocked": _dead(),
    "slack_connect_lists_sharing_blocked": _dead(),
    "too_many_attachments": _dead(),
    "too_many_contact_cards": _dead(),
    # Slack itself, for a while
    "fatal_error": _again(),
    "internal_error": _again(),
    "message_limit_exceeded": _again(Reason.RATE_LIMITED),
    "rate_limited": _again(Reason.RATE_LIMITED),
    "ratelimited": _again(Reason.RATE_LIMITED),
    "request_timeout": _again(),
    "rollup_error": _again(),
    "service_unavailable": _again(),
    "streaming_state_conflict": _again(),
    "update_failed": _again(),
}
_RATELIMITED = ERRORS["ratelimited"]

NOT_UNDERSTOOD = "Slack's answer is not understood"
_NOT_OK = 'Slack answered {status}, but not "ok": a proxy or a login page may have answered in its place'


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


def posts_anew(error: str) -> bool:
    """Return whether a new root is to be posted after this answer to an edit or a reply."""
    return error in ERRORS and ERRORS[error].anew


def refuses_blocks(error: str) -> bool:
    return error in ERRORS and ERRORS[error].blocks


def advice_on(error: str) -> str:
    """Return the code, and what a person can do about it."""
    advice = ERRORS[error].advice if error in ERRORS else ""
    return f"{error}: {advice}" if advice else error


def refusal(status: int, error: str, after: timedelta | None, *, webhook: bool = False) -> Outcome:
    """Return the outcome of an answer that was not "ok". Of `error`, it repeats a code and no other text."""
    error = error if _CODE.fullmatch(error) else ""
    meaning = _RATELIMITED if status == 429 else ERRORS.get(error)
    if meaning:
        return _meant(meaning, status, error, after)
    if webhook and status in (404, 410):
        return Rejected(f"Slack answered {status}: {_NEW_URL}", Reason.GONE, pause=True)
    if error and status < 500:
        return RetryLater(f"Slack answered {status}: {error}", attempts=UNKNOWN_ATTEMPTS)
    return _without_code(status, error, after, webhook=webhook)


def _meant(meaning: Meaning, status: int, error: str, after: timedelta | None) -> Outcome:
    if meaning.remedy == "pause":
        return Rejected(f"Slack says {advice_on(error)}", meaning.reason, pause=True)
    if meaning.remedy == "dead":
        return Rejected(f"Slack says {error}: it refuses this message", meaning.reason)
    if meaning.reason is Reason.RATE_LIMITED:
        return RetryLater(f"Slack says {error or 'to slow down'}", meaning.reason, after=after, whole_notifier=True)
    return _later(status, error, meaning.reason, after)


def _without_code(status: int, error: str, after: timedelta | None, *, webhook: bool) -> Outcome:
    """A proxy, a login page, or Slack breaking down: that says nothing of the message."""
    if 200 <= status < 300:
        return RetryLater(_NOT_OK.format(status=status) if webhook else NOT_UNDERSTOOD)
    return _later(status, error, reason_of(status), after)


def _later(status: int, error: str, reason: Reason, after: timedelta | None) -> RetryLater:
    wish = after if status == 503 else None
    what = error or ("redirects are not followed" if 300 <= status < 400 else "")
    why = f"Slack answered {status}" + (f": {what}" if what else "")
    return RetryLater(why, reason, after=wish, whole_notifier=wish is not None)


def _text(body: bytes) -> str:
    return body.decode("utf-8-sig", "replace").strip()
