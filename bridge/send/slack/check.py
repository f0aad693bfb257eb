"""Can a notifier post to its channels? Asks Slack, and posts nothing.

docs.slack.dev: auth.test, conversations.info, and legacy-oauth-scopes for the header that names a token's scopes; read
2026-11-30.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from slack_sdk.errors import SlackApiError
from slack_sdk.web import SlackResponse

from bridge.notifiers import SlackNotifier
from bridge.send.integration import Check
from bridge.send.slack.answer import NOT_UNDERSTOOD, advice_on, error_in
from bridge.send.slack.client import SlackWebClient, Unreachable

_ID = re.compile(r"[CG][A-Z0-9]+")  # a name has no capital letters
_ADD = 'add it under "OAuth & Permissions" and install the app again'
_NOT_CHECKED = "channel {} is not checked"


def checks(web: Callable[[], SlackWebClient], notifier: SlackNotifier) -> Iterator[Check]:
    """Check the token, its scopes, and each channel. What only makes things worse is a hint (`ok` None).

    web: makes a client for one call.
    Details may repeat what Slack said, so they are to be masked and cut.
    """
    try:
        tested = web().auth_test()
    except Unreachable as fault:
        yield Check(False, str(fault))
        return
    except SlackApiError as fault:
        error = error_in(fault.response)
        yield Check(False, f"Slack refuses the token: {advice_on(error)}" if error else NOT_UNDERSTOOD)
        return
    yield Check(True, "Slack knows the token")
    if notifier.has_buttons:
        yield _team(tested.get("team_id"), notifier.team or "")
    scopes = _scopes(tested)
    if scopes is not None and not any(scope == "bot" or scope.startswith("chat:write") for scope in scopes):
        yield Check(False, f"the app has not the scope chat:write: {_ADD}")
    for channel in dict.fromkeys(notifier.channels or (notifier.channel or "",)):
        yield _channel(web(), channel, scopes)


def _team(of_token: object, team: str) -> Check:
    """Compare the workspace of the token with the one whose people may click."""
    if not isinstance(of_token, str):
        return Check(None, f"team is not checked: {NOT_UNDERSTOOD}")
    if of_token != team:
        return Check(False, f'the token is of the workspace {of_token}, so no button works: write team = "{of_token}"')
    return Check(True, "team is the workspace of the token")


def _scopes(tested: SlackResponse) -> frozenset[str] | None:
    """Return the token's scopes; None: the answer does not say."""
    named = tested.headers.get("x-oauth-scopes")
    return None if named is None else frozenset(scope.strip() for scope in named.split(","))


def _channel(web: SlackWebClient, channel: str, scopes: frozenset[str] | None) -> Check:
    if not _ID.fullmatch(channel):
        return Check(None, f'{_NOT_CHECKED.format(channel)}: give its id, from the bottom of the channel\'s "About"')
    try:
        found = web.conversations_info(channel=channel).get("channel")
    except Unreachable as fault:
        return Check(False, f"channel {channel}: {fault}")
    except SlackApiError as fault:
        return _unknown(channel, error_in(fault.response))
    if not isinstance(found, dict):
        return Check(None, f"{_NOT_CHECKED.format(channel)}: {NOT_UNDERSTOOD}")
    return _known(f"channel {channel} (#{found.get('name')})", found, scopes)


def _unknown(channel: str, error: str) -> Check:
    if error == "channel_not_found":
        mend = "check its id; if it is private, invite the app (/invite)"
        return Check(False, f"channel {channel} is none that the app can see: {mend}")
    if error == "missing_scope":
        return Check(
            None, f"{_NOT_CHECKED.format(channel)}: the app has not the scope channels:read (groups:read): {_ADD}"
        )
    return Check(None, f"{_NOT_CHECKED.format(channel)}: Slack says {advice_on(error) or 'nothing'}")


def _known(named: str, channel: dict[str, Any], scopes: frozenset[str] | None) -> Check:
    is_private = channel.get("is_private") is True
    if channel.get("is_archived") is True:
        return Check(False, f"{named} is archived: unarchive it, or name another")
    if channel.get("is_member") is False:
        may_post = not is_private and (scopes is None or "chat:write.public" in scopes)
        why = (
            "so it cannot find a message whose answer was lost, and posts it again" if may_post else "so it cannot post"
        )
        return Check(None if may_post else False, f"the app is not in {named}, {why}: invite it (/invite)")
    history = "groups:history" if is_private else "channels:history"
    if scopes is not None and history not in scopes:
        why = f"it has not the scope {history}, so it cannot find a message whose answer was lost, and posts it again"
        return Check(None, f"the app is in {named}, but {why}: {_ADD}")
    return Check(True, f"the app is in {named}")
