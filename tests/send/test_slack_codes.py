"""Each of Slack's error codes: what becomes of the message, and what of the notifier."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bridge.model import Reason, Rejected, RetryLater, Sent
from bridge.send.slack.answer import ERRORS, UNKNOWN_ATTEMPTS, posts_anew, refuses_blocks
from tests.support.slack_servers import HOOK, ScriptedSlack, no


def listed(codes: str) -> list[str]:
    return codes.split()


# The codes of chat.postMessage, chat.update and incoming webhooks (docs.slack.dev, read 2026-11-30) that say ...
# ... that a person must act before anything is accepted:
PAUSES = listed("""
    access_denied accesslimited account_inactive action_prohibited app_access_restricted as_user_not_supported
    channel_is_archived channel_not_found ekm_access_denied enterprise_is_restricted external_channel_migrating
    free_team_not_allowed invalid_auth invalid_token is_archived is_inactive messages_tab_disabled missing_scope
    no_active_hooks no_permission no_service no_service_id no_team not_allowed_token_type not_authed not_in_channel
    org_login_required posting_to_general_channel_denied restricted_action restricted_action_non_threadable_channel
    restricted_action_read_only_channel restricted_action_thread_only_channel team_access_not_granted
    team_added_to_org team_disabled token_expired token_revoked two_factor_setup_required user_not_found
""")
# ... that this message is not accepted, now or later:
DEAD = listed("""
    block_mismatch cannot_reply_to_message cant_broadcast_message cant_update_message duplicate_channel_not_found
    duplicate_message_not_found edit_window_closed invalid_arguments invalid_attachments invalid_blocks
    invalid_blocks_format invalid_metadata_format invalid_metadata_schema invalid_payload markdown_text_conflict
    message_not_found metadata_too_large msg_blocks_too_long msg_too_long no_dual_broadcast_content_update no_text
    restricted_action_thread_locked slack_connect_blocked_file_type slack_connect_canvas_sharing_blocked
    slack_connect_clip_sharing_blocked slack_connect_file_link_sharing_blocked
    slack_connect_file_upload_sharing_blocked slack_connect_lists_sharing_blocked thread_not_found
    too_many_attachments too_many_contact_cards
""")
# ... that it passes by itself:
AGAIN = listed("""
    fatal_error internal_error message_limit_exceeded rate_limited ratelimited request_timeout rollup_error
    service_unavailable streaming_state_conflict update_failed
""")
# ... of an edit or a reply, that its root is of no use any more:
ANEW = listed("""
    block_mismatch cannot_reply_to_message cant_update_message channel_not_found edit_window_closed
    external_channel_migrating is_archived is_inactive message_not_found not_in_channel restricted_action_thread_locked
    thread_not_found
""")
BLOCKS = listed("invalid_blocks invalid_blocks_format invalid_payload msg_blocks_too_long msg_too_long")

THREAD, UPDATE = {"thread": "job"}, {"update": True}
ways = pytest.mark.parametrize("notifier", [{}, HOOK], ids=["API", "incoming webhook"])


@ways
@pytest.mark.parametrize("error", PAUSES)
def test_what_a_person_must_mend_pauses_the_notifier_with_advice(notifier: dict, error: str) -> None:
    outcome = ScriptedSlack(no(error)).send(notifier)
    assert isinstance(outcome, Rejected)
    assert outcome.pause
    assert outcome.why.startswith(f"Slack says {error}: ")
    assert len(outcome.why) > len(f"Slack says {error}: ") + 10
    assert outcome.reason in (Reason.AUTH, Reason.CHANNEL, Reason.CLIENT_ERROR)


@ways
@pytest.mark.parametrize("error", DEAD)
def test_a_message_that_is_refused_for_good_stops_no_other(notifier: dict, error: str) -> None:
    outcome = ScriptedSlack(no(error), no(error)).send(notifier)
    assert isinstance(outcome, Rejected)
    assert not outcome.pause
    assert outcome.why == f"Slack says {error}: it refuses this message"
    assert outcome.reason in (Reason.INVALID_PAYLOAD, Reason.CLIENT_ERROR)


@ways
@pytest.mark.parametrize("error", AGAIN)
def test_what_passes_by_itself_is_tried_again_for_as_long_as_the_notifier_says(notifier: dict, error: str) -> None:
    outcome = ScriptedSlack(no(error)).send(notifier)
    assert isinstance(outcome, RetryLater)
    assert outcome.attempts is None
    assert error in outcome.why
    assert (outcome.limit is not None) == (outcome.reason is Reason.RATE_LIMITED)
    assert outcome.reason in (Reason.SERVER_ERROR, Reason.RATE_LIMITED)


@ways
def test_an_unknown_code_is_tried_a_few_times(notifier: dict) -> None:
    outcome = ScriptedSlack(no("never_heard_of")).send(notifier)
    assert outcome == RetryLater("Slack answered 200: never_heard_of", attempts=UNKNOWN_ATTEMPTS)
    assert 2 < UNKNOWN_ATTEMPTS < 10


@pytest.mark.parametrize("error", ANEW)
@pytest.mark.parametrize("notifier", [THREAD, UPDATE], ids=["reply", "edit"])
def test_a_root_that_is_of_no_use_is_followed_by_a_new_one(notifier: dict, error: str) -> None:
    slack = ScriptedSlack(no(error))
    assert slack.send(notifier, thread="j1", root="C1:170.5:C1") == Sent(receipt="C1:171.2:C1")
    assert slack.contents[1].get("thread_ts") is None


OF_CHANNELS = sorted({*PAUSES} & {*ANEW})


@pytest.mark.parametrize("error", sorted({*ANEW} - {*PAUSES}))
def test_an_edit_of_a_root_that_is_of_no_use_says_that_it_is_gone_and_posts_nothing(error: str) -> None:
    slack = ScriptedSlack(no(error))
    outcome = slack.edit(UPDATE)
    assert outcome == Rejected(f"Slack says {error}: the root cannot be edited any more", Reason.GONE)
    assert slack.calls == ["chat.update"]


@pytest.mark.parametrize("error", OF_CHANNELS)
def test_an_edit_in_a_channel_that_is_configured_by_its_id_and_cannot_be_used_pauses_and_keeps_the_root(
    error: str,
) -> None:
    outcome = ScriptedSlack(no(error)).edit(UPDATE, root="C1:170.5:C1")
    assert isinstance(outcome, Rejected)
    assert outcome.pause


@pytest.mark.parametrize("error", OF_CHANNELS)
def test_an_edit_in_a_channel_whose_name_may_mean_another_now_says_that_the_root_is_gone(error: str) -> None:
    outcome = ScriptedSlack(no(error)).edit(UPDATE | {"channel": "general"}, root="C1:170.5:general")
    assert outcome == Rejected(f"Slack says {error}: the root cannot be edited any more", Reason.GONE)


@pytest.mark.parametrize("error", sorted({*PAUSES, *AGAIN} - set(ANEW)))
def test_nothing_else_begins_a_new_root_or_ends_an_old_one(error: str) -> None:
    slack = ScriptedSlack(no(error), no(error))
    posted, edited = slack.send(THREAD, thread="j1", root="C1:170.5:C1"), slack.edit(UPDATE)
    for outcome in (posted, edited):
        assert not isinstance(outcome, Sent)
        assert outcome.reason is not Reason.GONE
    assert len(slack.requests) == 2


@pytest.mark.parametrize(("asks", "codes"), [(posts_anew, ANEW), (refuses_blocks, BLOCKS)])
def test_the_table_names_these_alone(asks: Callable[[str], bool], codes: list[str]) -> None:
    assert {error for error in ERRORS if asks(error)} == set(codes)
    assert not any(map(asks, ("", "never_heard_of", "constructor")))


@pytest.mark.parametrize("hostile", ["Xoxb-1234", "a b", "<!channel>", "x" * 65, "ключ"])
def test_what_is_no_code_is_not_repeated(hostile: str) -> None:
    outcome = ScriptedSlack(no(hostile)).send()
    assert outcome == RetryLater("Slack's answer is not understood")
