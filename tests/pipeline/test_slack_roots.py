"""Roots of Slack threads: they show the newest state of their jobs, by edits that are no deliveries."""

from __future__ import annotations

import json

from sqlalchemy import update

from bridge.model import (
    CANCEL,
    FAILED,
    RUNNING,
    SUBMITTED,
    SUCCESS,
    Delivery,
    Reason,
    Rejected,
    RetryLater,
    RootEdit,
    Sent,
)
from bridge.pipeline.housekeeping import CLAIM_LEASE
from bridge.record import schema
from bridge.record.database import ms
from bridge.record.outbox import claims, entries, roots
from bridge.record.schema import deliveries, threads
from tests.conftest import on_both
from tests.support.nouns import hours, minutes, seconds
from tests.support.records import rows
from tests.support.rig import QUIET
from tests.support.slack_rig import ALL, GIVEN, NEW, NONE, SlackRig


@on_both
def test_a_root_shows_the_newest_state_whether_or_not_a_rule_matches_it(slack: SlackRig) -> None:
    slack.begin(NEW)
    slack.sees("j1", state=SUBMITTED)
    slack.moves("j1", RUNNING)
    slack.lives(seconds(3))
    slack.moves("j1", SUCCESS)
    slack.lives(seconds(3))
    assert slack.channels.posts == ["j1 Submitted"]
    assert slack.channels.roots == {"clips-1250000000/j1": ["j1 Submitted", "j1 Running", "j1 Success"]}


def test_a_root_never_shows_an_inferred_state_that_has_passed(slack: SlackRig) -> None:
    slack.begin('[[rule]]\nname = "ran"\nto = ["Running", "Success"]\nnotify = "ops"\n')
    slack.sees("j1", state=SUCCESS)
    slack.lives(seconds(5))
    assert slack.channels.roots == {"clips-1250000000/j1": ["j1 Success"]}
    assert [row["state"] for row in rows(slack.db, deliveries)] == [schema.SENT] * 2


@on_both
def test_a_newer_state_replaces_an_older_one_that_was_not_shown_yet(slack: SlackRig) -> None:
    slack.begin(NEW)
    slack.sees("j1", state=SUBMITTED)
    slack.moves("j1", RUNNING, FAILED)
    slack.lives(seconds(5))
    assert slack.channels.roots == {"clips-1250000000/j1": ["j1 Submitted", "j1 Failed"]}
    assert slack.channels.edits == 1


def test_a_root_is_edited_once_at_a_time(slack: SlackRig) -> None:
    slack.begin(NEW)
    slack.sees("j1", state=SUBMITTED)
    slack.transport.answer = lambda delivery: None if isinstance(delivery, RootEdit) else slack.channels(delivery)
    slack.moves("j1", RUNNING)
    slack.dispatcher.run_once()
    slack.clock.advance(seconds(5))
    slack.moves("j1", SUCCESS)
    slack.dispatcher.run_once()
    assert sum(isinstance(one, RootEdit) for one in slack.transport.begun) == 1
    slack.transport.answer = slack.channels
    slack.lives(seconds(5))
    assert slack.channels.roots["clips-1250000000/j1"] == ["j1 Submitted", "j1 Running", "j1 Success"]


def test_a_new_root_stays_the_root_although_an_edit_of_the_old_one_is_accepted_after_it(slack: SlackRig) -> None:
    slack.begin()
    slack.sees("j1", state=SUBMITTED)
    begins_anew = Sent(receipt="C1:9:C024BE91L", shown_no=2)
    slack.transport.answer = lambda delivery: None if isinstance(delivery, RootEdit) else begins_anew
    slack.moves("j1", RUNNING)
    for _ in range(4):
        slack.clock.advance(seconds(2))
        slack.dispatcher.run_once()
    slack.transport.answer = slack.channels
    slack.lives(seconds(10))
    thread = slack.thread()
    assert (thread["receipt"], thread["lease"]) == ("C1:9:C024BE91L", None)
    assert thread["shown_no"] == thread["wanted_no"]


@on_both
def test_a_new_root_is_posted_in_the_newest_state_and_needs_no_edit(slack: SlackRig) -> None:
    slack.begin()
    slack.moves("j1", SUBMITTED, RUNNING, SUCCESS)
    slack.lives(seconds(10))
    assert slack.channels.roots == {"clips-1250000000/j1": ["j1 Success"]}
    assert slack.channels.posts == ["j1 Success", "j1 Running", "j1 Success"]  # the root, and what came after it


def test_a_mute_and_a_silence_keep_no_root_from_showing_the_newest_state(slack: SlackRig) -> None:
    slack.begin(ALL + QUIET.replace("22:00-08:00", "09:02-23:00"))
    slack.sees("j1", state=SUBMITTED)
    slack.clock.advance(minutes(2))
    slack.moves("j1", RUNNING)
    slack.lives(seconds(3))
    slack.silence(lasts=hours(20))
    slack.moves("j1", SUCCESS)
    slack.lives(seconds(3))
    assert slack.channels.posts == ["j1 Submitted"]
    assert slack.channels.shows() == ["j1 Success"]


def test_a_level_rule_shows_on_the_root_until_the_job_moves(slack: SlackRig) -> None:
    stuck = '[[rule]]\nname = "stuck"\nin = "Running"\nfor = "30m"\nnotify = "ops"\n'
    slack.begin(NEW + stuck)
    slack.sees("j1", state=RUNNING)
    slack.passes(minutes(40))
    shown = slack.channels.roots["clips-1250000000/j1"]
    assert len(shown) == 2
    slack.moves("j1", SUCCESS)
    slack.lives(seconds(3))
    assert slack.channels.shows() == ["j1 Success"]


# --- messages that show only as an edit ---------------------------------------------------------------------


@on_both
def test_a_message_that_shows_only_as_an_edit_is_merged_when_that_is_accepted(slack: SlackRig) -> None:
    slack.begin(ops=NONE)
    slack.sees("j1", state=SUBMITTED)
    slack.moves("j1", RUNNING, SUCCESS)
    assert [row["state"] for row in slack.deliveries()] == ["sent", "held", "held"]
    slack.lives(seconds(5))
    assert [row["state"] for row in slack.deliveries()] == ["sent", "merged", "merged"]
    assert slack.channels.posts == ["j1 Submitted"]
    assert slack.channels.shows() == ["j1 Success"]
    assert slack.channels.edits == 1


def test_what_is_still_to_be_posted_takes_in_what_would_show_as_an_edit(slack: SlackRig) -> None:
    slack.begin(ops=NONE)
    slack.moves("j1", SUBMITTED, RUNNING)
    assert [row["state"] for row in slack.deliveries()] == ["waiting", "held"]
    slack.lives(seconds(5))
    assert [row["state"] for row in slack.deliveries()] == ["sent", "merged"]
    assert (slack.channels.posts, slack.channels.edits) == (["j1 Running"], 0)


@on_both
def test_a_message_is_dead_and_its_fallback_hears_when_no_edit_succeeds_in_time(slack: SlackRig) -> None:
    slack.begin(ops=NONE + '\nfallback = "pager"\nretry = "10m"')
    slack.sees("j1", state=SUBMITTED)
    slack.channels.refuses = lambda one: (
        RetryLater("Slack answered 500", Reason.SERVER_ERROR) if isinstance(one, RootEdit) else None
    )
    slack.moves("j1", RUNNING)
    slack.passes(minutes(9), polls=False, every=seconds(5))
    assert [row["state"] for row in slack.deliveries(notifier="ops")] == ["sent", "held"]
    slack.passes(minutes(3), polls=False, every=seconds(5))
    assert [row["state"] for row in slack.deliveries(notifier="ops")] == ["sent", "dead"]
    assert len(slack.received("pager")) == 1
    slack.channels.refuses = lambda _: None
    slack.moves("j1", SUCCESS)
    slack.lives(seconds(5))
    assert slack.channels.shows() == ["j1 Success"]
    assert [row["state"] for row in slack.deliveries(notifier="ops")] == ["sent", "dead", "merged"]


def test_a_message_put_later_has_its_own_time_when_an_edit_is_given_up(slack: SlackRig) -> None:
    slack.begin(ops=NONE + '\nretry = "10m"')
    slack.sees("j1", state=SUBMITTED)
    slack.channels.refuses = lambda one: RetryLater("500") if isinstance(one, RootEdit) else None
    slack.moves("j1", RUNNING)
    slack.passes(minutes(8), polls=False, every=seconds(5))
    slack.moves("j1", SUCCESS)
    slack.passes(minutes(4), polls=False, every=seconds(5))
    assert [row["state"] for row in slack.deliveries()] == ["sent", "dead", "held"]
    slack.channels.refuses = lambda _: None
    slack.passes(minutes(4), polls=False, every=seconds(5))
    assert [row["state"] for row in slack.deliveries()] == ["sent", "dead", "merged"]


@on_both
def test_a_root_that_is_gone_is_posted_anew_for_what_shows_only_as_an_edit(slack: SlackRig) -> None:
    slack.begin(ops=NONE)
    slack.sees("j1", state=SUBMITTED)
    gone = Rejected("Slack says message_not_found", Reason.GONE)
    slack.channels.refuses = lambda one: gone if isinstance(one, RootEdit) else None
    slack.moves("j1", RUNNING, SUCCESS)
    slack.lives(seconds(10))
    assert slack.channels.posts == ["j1 Submitted", "j1 Success"]
    assert [row["state"] for row in slack.deliveries()] == ["sent", "merged", "sent"]


def test_a_root_that_is_gone_is_left_alone_until_the_next_message(slack: SlackRig) -> None:
    slack.begin(NEW + ALL.replace('name = "all"', 'name = "over"\nto = "done"'))
    slack.sees("j1", state=SUBMITTED)
    gone = Rejected("Slack says message_not_found", Reason.GONE)
    slack.channels.refuses = lambda one: gone if isinstance(one, RootEdit) else None
    slack.moves("j1", RUNNING)
    slack.lives(minutes(1))
    assert (slack.channels.posts, slack.thread()["receipt"]) == (["j1 Submitted"], "")
    slack.moves("j1", SUCCESS)
    slack.lives(seconds(5))
    assert slack.channels.posts == ["j1 Submitted", "j1 Success"]


@on_both
def test_what_shows_only_as_an_edit_is_posted_when_the_root_never_came(slack: SlackRig) -> None:
    slack.begin(ops=NONE)
    slack.moves("j1", SUBMITTED, RUNNING)
    slack.channels.refuses = lambda _: Rejected("Slack says no_text", Reason.INVALID_PAYLOAD)
    slack.lives(seconds(2))
    slack.channels.refuses = lambda _: None
    slack.lives(seconds(10))
    assert [row["state"] for row in slack.deliveries()] == ["dead", "sent"]
    assert slack.channels.shows() == ["j1 Running"]


@on_both
def test_what_shows_only_as_an_edit_is_posted_when_the_rules_edit_no_more(slack: SlackRig) -> None:
    slack.begin(ops=NONE)
    slack.sees("j1", state=SUBMITTED)
    slack.moves("j1", RUNNING)
    slack.use(given=GIVEN.format(ops=NONE).replace("update = true", ""))
    slack.lives(seconds(10))
    assert [row["state"] for row in slack.deliveries()] == ["sent", "sent"]
    assert slack.channels.posts == ["j1 Submitted", "j1 Running"]


def test_a_dead_channel_tells_the_fallback_of_what_shows_only_as_an_edit(slack: SlackRig) -> None:
    slack.begin(ops=NONE + '\nfallback = "pager"')
    slack.sees("j1", state=SUBMITTED)
    archived = Rejected("Slack says is_archived", Reason.CHANNEL, pause=True)
    slack.channels.refuses = lambda one: archived if one.notifier == "ops" else None
    slack.moves("j1", RUNNING)
    slack.lives(seconds(20))
    assert [row["state"] for row in slack.deliveries(notifier="ops")] == ["sent", "dead"]
    assert len(slack.received("pager")) == 1


def test_a_notifier_that_answers_nobody_gives_up_in_time_what_shows_only_as_an_edit(slack: SlackRig) -> None:
    slack.begin(ops=NONE + '\nfallback = "pager"\nretry = "10m"')
    slack.sees(*(f"j{n}" for n in range(12)), state=SUBMITTED)
    slack.lives(minutes(1))
    slack.channels.refuses = lambda one: RetryLater("no answer", Reason.CONNECTION) if one.notifier == "ops" else None
    slack.moves("j1", RUNNING)
    slack.moves("j2", RUNNING)
    slack.passes(minutes(15), polls=False, every=seconds(5))
    states = [row["state"] for row in slack.deliveries(notifier="ops")]
    assert states == ["sent"] * 12 + ["dead"] * 2
    assert len(slack.received("pager")) == 2


# --- edits that fail, and workers that stop -----------------------------------------------------------------


@on_both
def test_an_edit_that_failed_is_tried_again_later_with_the_state_of_then(slack: SlackRig) -> None:
    slack.begin(NEW)
    slack.sees("j1", state=SUBMITTED)
    slack.channels.refuses = lambda one: RetryLater("500") if isinstance(one, RootEdit) else None
    slack.moves("j1", RUNNING)
    slack.lives(seconds(2))
    assert slack.thread()["why"] == "500"
    slack.channels.refuses = lambda _: None
    slack.moves("j1", SUCCESS)
    slack.lives(seconds(3))
    assert slack.channels.shows() == ["j1 Submitted"]  # it pauses for five seconds
    slack.lives(seconds(4))
    assert slack.channels.shows() == ["j1 Success"]
    assert (slack.thread()["attempts"], slack.thread()["why"]) == (0, None)


@on_both
def test_an_edit_whose_worker_stopped_is_made_by_another_and_a_late_one_is_put_right(slack: SlackRig) -> None:
    slack.begin(NEW)
    slack.sees("j1", state=SUBMITTED)
    slack.moves("j1", RUNNING)
    stopped, slack.dispatcher = slack.dispatcher, slack.new_dispatcher()
    late: list[Delivery] = []
    slack.transport.answer = lambda one: late.append(one)
    stopped.run_once()
    slack.transport.answer = slack.channels
    slack.moves("j1", SUCCESS)
    slack.transport.flying.clear()
    slack.lives(CLAIM_LEASE + seconds(5))
    assert slack.channels.shows() == ["j1 Success"]
    slack.transport.flying = {late[0].id: late[0]}
    stopped.run_once(claiming=False)  # its edit is accepted now, after the newer one
    stopped.run_once(claiming=False)
    assert slack.channels.shows() == ["j1 Running"]
    slack.lives(seconds(5))
    assert slack.channels.shows() == ["j1 Success"]


def test_a_lease_from_before_the_clock_was_set_back_is_over(slack: SlackRig) -> None:
    slack.begin(NEW)
    slack.sees("j1", state=SUBMITTED)
    slack.moves("j1", RUNNING)
    with slack.db.write() as tx:
        tx.execute(update(threads).values(lease="w0.1", lease_until=2**42))
    slack.lives(seconds(3))
    assert slack.channels.shows() == ["j1 Running"]


def test_edits_wait_while_their_notifier_is_paused(slack: SlackRig) -> None:
    slack.begin(NEW)
    slack.sees("j1", state=SUBMITTED)
    revoked = Rejected("Slack says token_revoked", Reason.AUTH, pause=True)
    slack.channels.refuses = lambda one: revoked if isinstance(one, RootEdit) else None
    slack.moves("j1", RUNNING)
    slack.lives(minutes(1))
    edits = sum(isinstance(one, RootEdit) for one in slack.transport.begun)
    assert edits == 1
    slack.channels.refuses = lambda _: None
    with slack.db.write() as tx:
        entries.resume(tx, "ops")
    slack.lives(seconds(3))
    assert slack.channels.shows() == ["j1 Running"]


def test_a_root_of_a_version_before_is_edited_when_its_job_moves(slack: SlackRig) -> None:
    slack.begin(NEW)
    slack.sees("j1", state=SUBMITTED)
    with slack.db.write() as tx:
        tx.execute(update(threads).values(wanted=None, wanted_no=0, shown_no=0, receipt="C1:1:C024BE91L:1"))
    slack.moves("j1", CANCEL)
    slack.lives(seconds(3))
    assert len(slack.channels.roots["clips-1250000000/j1"]) == 2


def test_what_a_version_before_put_under_a_root_shows_on_it_when_it_is_sent(slack: SlackRig) -> None:
    slack.begin()
    slack.sees("j1", state=SUBMITTED)
    slack.moves("j1", SUCCESS)
    with slack.db.write() as tx:
        tx.execute(update(threads).values(wanted=None, wanted_no=0, shown_no=0, receipt="C1:1:C024BE91L:1"))
    slack.lives(seconds(5))
    assert slack.channels.posts == ["j1 Submitted", "j1 Success"]
    assert slack.channels.shows() == ["j1 Success"]


# --- workflows ----------------------------------------------------------------------------------------------


@on_both
def test_the_root_of_a_workflow_counts_its_jobs_by_state(slack: SlackRig) -> None:
    slack.begin(ops='thread = "workflow"')
    facts = {"workflow": "w1", "workflow_name": "publish", "workflow_run": "run1"}
    for id_ in ("j1", "j2", "j3"):
        slack.has(id_, RUNNING, **facts)
    slack.poll()
    slack.lives(seconds(10))
    slack.has("j1", SUCCESS, **facts)
    slack.has("j2", FAILED, **facts)
    slack.poll()
    slack.lives(seconds(10))
    assert list(slack.channels.roots) == ["clips-1250000000/run1"]
    assert slack.channels.shows() == ["Workflow publish"]
    edits = [one for one in slack.transport.begun if isinstance(one, RootEdit)]
    assert json.loads(edits[-1].says)["counts"] == {"Running": 1, "Success": 1, "Failed": 1}


def test_a_job_of_no_workflow_has_a_root_of_its_own_there(slack: SlackRig) -> None:
    slack.begin(ops='thread = "workflow"')
    slack.sees("j1", state=RUNNING)
    slack.moves("j1", SUCCESS)
    slack.lives(seconds(5))
    assert slack.channels.shows() == ["j1 Success"]


def test_the_job_names_the_channel_of_its_root(slack: SlackRig) -> None:
    ops = 'thread = "job"\nchannels = ["C024BE91L", "C024BE91M"]'
    rules = ALL.replace('name = "all"', 'name = "all"\nfrom = "new"')
    slack.begin(rules)
    given = GIVEN.format(ops=ops).replace('channel = "C024BE91L"', 'channel = "{{ job.user_data.channel }}"')
    slack.start(given=given)
    slack.has("j1", SUBMITTED, user_data='{"channel":"C024BE91M"}')
    slack.poll()
    slack.deliver()
    slack.has("j1", SUCCESS, user_data='{"channel":"C024BE91M"}')
    slack.poll()
    slack.lives(seconds(5))
    assert slack.channels.roots == {"C024BE91M/clips-1250000000/j1": ["j1 Submitted", "j1 Success"]}


def test_an_edit_that_is_refused_with_an_unknown_code_is_given_up_after_a_few_attempts(slack: SlackRig) -> None:
    slack.begin(ops=NONE + '\nfallback = "pager"')
    slack.sees("j1", state=SUBMITTED)
    slack.transport.status = lambda _: 200
    slack.channels.refuses = lambda one: RetryLater("Slack answered 200: new_code", attempts=5) if one.root else None
    slack.moves("j1", RUNNING)
    slack.passes(hours(3), polls=False, every=seconds(20))
    assert [row["state"] for row in slack.deliveries(notifier="ops")] == ["sent", "dead"]


def test_edits_go_on_soon_after_an_outage_while_a_delivery_pauses(slack: SlackRig) -> None:
    slack.begin(NEW)
    slack.sees("j1", state=SUBMITTED)
    slack.lives(seconds(5))
    slack.channels.refuses = lambda _: RetryLater("no answer", Reason.CONNECTION)
    for n in range(2, 14):
        slack.has(f"j{n}", SUBMITTED)
    slack.poll()
    slack.passes(hours(1), polls=False, every=seconds(10))
    slack.channels.refuses = lambda _: None
    slack.moves("j1", RUNNING)
    slack.lives(minutes(4))
    assert slack.channels.shows()[0] == "j1 Running"


def test_an_urgent_message_that_shows_as_an_edit_goes_first(slack: SlackRig) -> None:
    urgent = '[[rule]]\nname = "urgent"\nto = "Failed"\nnotify = "ops"\nurgent = true\nstop = true\n'
    slack.begin(urgent + ALL, ops=NONE + "\nflood = false")
    ids = [f"j{n:02}" for n in range(60)]
    slack.sees("hot", *ids, state=SUBMITTED)
    slack.lives(minutes(2))
    for id_ in ids:
        slack.has(id_, RUNNING)
    slack.poll()
    slack.lives(seconds(3))
    slack.moves("hot", FAILED)
    slack.lives(seconds(5))
    assert [row["state"] for row in slack.deliveries(job="hot")] == ["sent", "merged"]


def test_giving_up_takes_nothing_from_another_worker(slack: SlackRig) -> None:
    slack.begin(ops=NONE)
    slack.sees("j1", state=SUBMITTED)
    slack.moves("j1", RUNNING)
    with slack.db.write() as tx:
        (number,) = roots.held(tx, "ops", "clips-1250000000/j1", up_to=99)
    # Meanwhile another worker has released it, as its notifier was left alone, and sends it.
    with slack.db.write() as tx:
        tx.execute(update(deliveries).where(deliveries.c.n == number).values(state=1, lease="w9.1", shown_with=None))
    with slack.db.write() as tx:
        claims.claim_held(tx, number, lease="w1.1", lease_for=minutes(1), now=slack.clock())
    assert rows(slack.db, deliveries)[-1]["lease"] == "w9.1"


@on_both
def test_a_batch_that_is_scheduled_for_later_holds_nothing(slack: SlackRig) -> None:
    """The dead root of a job is part of a batch that is resent in hours; the job moves now."""
    slack.begin(ops=NONE)
    slack.channels.refuses = lambda _: Rejected("Slack says no_text", Reason.INVALID_PAYLOAD)
    slack.sees("j1", state=SUBMITTED)
    slack.channels.refuses = lambda _: None
    with slack.db.write() as tx:  # as `batches` does
        later = {"state": 0, "attempts": 0, "batch": "b1", "due_at": ms(slack.clock() + hours(3)), "ended_at": None}
        tx.execute(update(deliveries).values(later))
    slack.moves("j1", RUNNING)
    slack.lives(minutes(2))
    assert [row["state"] for row in slack.deliveries()] == ["waiting", "sent"]


PICKED = """
[notifier.customer]
pick = "{{ job.user_data.customer }}"
[notifier.customer.to.acme]
type = "slack"
channel = "C0ACME"
token = { env = "TOKEN" }
update = true
thread = "job"
[notifier.customer.to.beta]
type = "slack"
channel = "C0BETA"
token = { env = "TOKEN" }
"""


@on_both
def test_a_channel_that_a_job_picks_keeps_its_threads_and_what_their_roots_show(slack: SlackRig) -> None:
    slack.begin(ALL.replace('"ops"', '"customer"\ntemplate = "state"'), more=PICKED)
    for state in (SUBMITTED, RUNNING, SUCCESS):
        slack.has("j1", state, user_data="customer=acme")
        slack.has("j2", state, user_data="customer=beta")
        slack.polls()
        slack.lives(seconds(5))
    assert slack.channels.shows() == ["j1 Success"]
    assert [post for post in slack.channels.posts if post.startswith("j1")] == [
        "j1 Submitted",
        "j1 Running",
        "j1 Success",
    ]
    assert {row["notifier"] for row in rows(slack.db, threads)} == {"customer.acme"}
