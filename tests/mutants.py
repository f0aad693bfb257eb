"""Break each guarantee on purpose, in a copy, and see that a test notices: python -m tests.mutants

A mutant replaces one function by another. The exit status is 1 when no test notices one of them, or when its function
is no longer there. Words behind the command choose those whose names have one of them:
python -m tests.mutants digest silence
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).parent.parent
_COPIED = ("bridge", "tests", "benchmarks", "pyproject.toml", "rules.toml")
_AT_ONCE = 2
_PYTEST = ("-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:schemathesis", "-p", "no:anyio")  # both are slow to load


@dataclass(frozen=True, slots=True)
class Mutant:
    what: str
    function: str  # "module:function" or "module:Class.method"
    becomes: str  # an expression; `original` is the function as it was
    tests: tuple[str, ...]  # at least one of these must fail


_COMMITTED = '(tx.exec_driver_sql("COMMIT"), tx.exec_driver_sql("BEGIN"))'

MUTANTS = (
    Mutant(
        "acting for everybody who clicks",
        "bridge.pipeline.clicks:button_of",
        "lambda click, known: read_button(click.action_id, click.value) or original(click, known)",
        ("tests/admin/test_slack_actions.py::test_who_may_not_is_told_so",),
    ),
    Mutant(
        "believing clicks that nobody signed",
        "bridge.send.slack.clicks:signed_with",
        "lambda secrets, body, **more: frozenset(secrets)",
        ("tests/send/test_slack_clicks.py",),
    ),
    Mutant(
        "letting names be Markdown for robots",
        "bridge.send.chat:Markdown.escaped",
        "lambda self, character: character",
        ("tests/send/test_robots.py",),
    ),
    Mutant(
        "taking a robot's refusal in a 200 for an acceptance",
        "bridge.send.robot:Robot.outcome",
        "lambda self, ended, now: Sent() if ended.status == 200 else original(self, ended, now)",
        ("tests/send/test_robots.py::test_a_limit_that_is_exceeded_is_waited_for_by_all_that_use_the_robot",),
    ),
    Mutant(
        "asking robots faster than their tools allow",
        "bridge.notifiers:RobotNotifier.limit_of",
        "lambda self, channel: SharedLimit(name=original(self, channel).name, interval=self.interval / 2)",
        ("tests/pipeline/test_robots.py::test_499_failures_at_once_are_a_minute_of_messages_and_a_digest",),
    ),
    Mutant(
        "polling for each click",
        "bridge.record.polling.leases:bring_forward",
        "lambda tx, name, *, now: original(tx, name, now=now) or True",
        ("tests/pipeline/test_operations.py::test_a_watch_is_hurried_once_until_it_is_polled",),
    ),
    Mutant(
        "judging by rules that are not in force",
        "bridge.record.rulesets:require_in_force",
        "lambda tx, sha: None",
        (
            "tests/pipeline/test_poll.py::test_a_poll_that_is_under_way_when_other_rules_come_into_force_stores_nothing_more",
        ),
    ),
    Mutant(
        "taking a rules file that is being written",
        "bridge.wiring.rules:Rules.check_file",
        "lambda self, now_s, **more: original(self, now_s, **more) or self._judge(self._same_s)",
        ("tests/wiring/test_rules.py::test_a_changed_file_is_taken_when_two_looks_two_seconds_apart_find_it_the_same",),
    ),
    Mutant(
        "old rules that do not give way",
        "bridge.decide.rulesfile.rulesets:Precedence.look",
        "lambda self, mine, in_force, *more: mine <= in_force and original(self, mine, in_force, *more)",
        (
            "tests/decide/rulesfile/test_precedence.py::test_who_has_the_rules_accepted_last_does_not_wait_when_it_is_back",
        ),
    ),
    Mutant(
        "trusting a list by states",
        "bridge.pipeline.poller:_to_follow",
        "lambda poll, listing, *, goes_on: () if listing.by_state else original(poll, listing, goes_on=goes_on)",
        (
            "tests/pipeline/test_fewest_calls.py::test_what_several_pages_by_states_do_not_show_is_asked_for_when_they_have_been_read",
        ),
    ),
    Mutant(
        "never looking back by an hour",
        "bridge.pipeline.poll:deep_list_since",
        "lambda tx, poll, stream: None",
        (
            "tests/pipeline/test_fewest_calls.py::test_lists_overlap_by_less_after_each_ten_minutes_in_which_jobs_came_in_time",
        ),
    ),
    Mutant(
        "polling later than promised",
        "bridge.pipeline.poller:Poller._next_poll",
        "lambda self, tx, poll, took: poll.began + poll.watch.every",
        (
            "tests/pipeline/test_poll.py::test_the_next_poll_begins_so_early_that_it_ends_an_interval_after_this_one_began",
        ),
    ),
    Mutant(
        "an early look that counts missing jobs",
        "bridge.pipeline.looks:replace",
        "lambda found, **_: found",
        ("tests/pipeline/test_looks.py::test_a_look_that_fails_or_finds_nothing_changes_nothing",),
    ),
    Mutant(
        "finishing without the fence",
        "bridge.record.outbox.results:settle",
        "lambda tx, ended, **more: ([tx.execute(update(deliveries).filter_by(n=one.attempt.delivery.n).values("
        "state=SENDING, lease=one.attempt.delivery.lease)) for one in ended], original(tx, ended, **more))[1]",
        ("tests/record/outbox/test_results.py::test_what_a_zombie_says_late_changes_nothing",),
    ),
    Mutant(
        "committing the deliveries before the snapshot",
        "bridge.record.polling.snapshots:save",
        f"lambda tx, *values, **more: ({_COMMITTED}, original(tx, *values, **more))[1]",
        ("tests/pipeline/test_poll.py::test_deliveries_and_snapshot_are_stored_together_or_not_at_all",),
    ),
    Mutant(
        "reusing a lease",
        "bridge.pipeline.dispatch:Dispatcher.__init__",
        "lambda self, **facts: (original(self, **facts), setattr(self, '_claims', itertools.repeat(0)))[0]",
        ("tests/pipeline/test_dispatch.py",),
    ),
    Mutant(
        "judging the name instead of the address connected to",
        "bridge.send.client:CurlHandle._open",
        "lambda self, purpose, target: original(self, purpose, target._replace(addr=("
        "'127.0.0.1' if 'localhost' in self._url else whereabouts(self._url).rpartition(':')[0]"
        " if whereabouts(self._url)[:1].isdigit() else '1.1.1.1', target.addr[1])))",
        ("tests/send/test_client_spellings.py", "tests/send/test_client_names.py"),
    ),
    Mutant(
        "taking any 2xx of a Slack webhook for its ok",
        "bridge.send.slack.answer:hook_accepted",
        "lambda reply: 200 <= reply.status < 300 and not error_in(read(reply.body))",
        ("tests/send/test_slack.py",),
    ),
    Mutant(
        "keeping the deleted root of a Slack thread",
        "bridge.send.slack.answer:is_loose",
        "lambda message, ts: False",
        ("tests/send/test_slack_threads.py",),
    ),
    Mutant(
        "posting to Slack again what was not answered",
        "bridge.send.slack.request:find",
        "lambda *_, **__: None",
        ("tests/send/test_slack_lost.py",),
    ),
    Mutant(
        "taking any message of the bridge for a Slack post that was not answered",
        "bridge.send.slack.history:_is_of",
        "lambda message, delivery: original(message, delivery) or 'metadata' in message",
        ("tests/send/test_slack_lost.py",),
    ),
    Mutant(
        "letting a Slack look-up use up the deadline",
        "bridge.send.slack.client:SlackTransport.leaving",
        "lambda self, seconds: original(self, 0)",
        ("tests/send/test_slack_history.py",),
    ),
    Mutant(
        "letting slack-sdk know where Slack is",
        "bridge.send.slack.client:SlackWebClient.__init__",
        "lambda self, transport, *, token, base_url: (original(self, transport, token=token, base_url=base_url),"
        " setattr(self, 'token', token), setattr(self, 'base_url', base_url))[0]",
        ("tests/send/test_slack_sdk.py::test_past_our_override_the_client_goes_nowhere",),
    ),
    Mutant(
        "trusting the environment's proxy",
        "bridge.send.client:CurlHandle._set_up",
        "lambda self: (original(self), self._policy.proxy or self.curl.unsetopt(pycurl.PROXY))[0]",
        ("tests/send/test_client_proxies.py::test_proxies_and_passwords_of_the_environment_mean_nothing",),
    ),
    Mutant(
        "mail without TLS",
        "bridge.send.email.smtp:Talk._start_tls",
        "lambda self: None",
        ("tests/send/test_email_talk.py::test_a_message_goes_to_all_addresses_at_once_after_tls_and_login",),
    ),
    Mutant(
        "mail to a server whose certificate nobody checked",
        "bridge.send.email.smtp:_context",
        "lambda trusted: __import__('ssl')._create_unverified_context()",
        ("tests/send/test_email_talk.py::test_the_certificate_must_be_for_the_name_whatever_the_address",),
    ),
    Mutant(
        "mail that is another one in each attempt",
        "bridge.send.email.message:_name_of",
        "lambda delivery: f'{original(delivery)}-{delivery.attempts}'",
        ("tests/send/test_email.py::test_the_headers_are_those_of_a_mail_that_no_machine_answers",),
    ),
    Mutant(
        "mail that some get twice, as others were refused for now",
        "bridge.send.email.answer:Answer.is_for_now",
        "property(lambda self: False)",
        ("tests/send/test_email_talk.py::test_an_answer_says_what_becomes_of_the_message",),
    ),
    Mutant(
        "accepting a truncated page",
        "bridge.collect.jobs_xml:AnswerReader.close",
        "lambda self: (self._read_whole_jobs(), self._parse(self._left))"
        " and _answer(self._readings, self._stream.root)",
        ("tests/collect/test_http.py::test_an_answer_that_is_no_page_is_raised_for_what_it_is_and_asked_for_once",),
    ),
    Mutant(
        "sending a digest and letting its members wait on",
        "bridge.record.outbox.digests:merged",
        "lambda tx, n, delivery, *, now: None",
        (
            "tests/pipeline/test_digests.py::test_a_group_is_sent_once_when_its_wait_is_over_and_the_next_one_has_only_what_is_new",
        ),
    ),
    Mutant(
        "ending a digest in another transaction than its message",
        "bridge.record.outbox.digests:end",
        f"lambda tx, n, **more: (original(tx, n, **more), {_COMMITTED})[0]",
        ("tests/crash/test_halves.py::test_a_digest_whose_transaction_breaks_off_anywhere_is_sent_once_and_whole",),
    ),
    Mutant(
        "a level rule that forgets that it fired",
        "bridge.decide.rules.levels:newly_overdue",
        "lambda time, *more: original(replace(time, alarms={}), *more)",
        (
            "tests/crash/test_halves.py::test_an_overdue_job_whose_poll_breaks_off_anywhere_notifies_once_and_so_does_its_end",
        ),
    ),
    Mutant(
        "a time in state that is remembered in another transaction than it is notified in",
        "bridge.pipeline.route:_put",
        f"lambda tx, *more: ({_COMMITTED}, original(tx, *more))[1]",
        ("tests/crash/test_halves.py::test_an_incident_whose_polls_break_off_anywhere_opens_and_closes_once",),
    ),
    Mutant(
        "a silence that is ignored",
        "bridge.decide.rules.gates:Gates.quiet",
        "lambda self, *facts: (hold := original(self, *facts)) and (None if hold.gate == 'silence' else hold)",
        ("tests/pipeline/test_digests.py::test_a_silence_holds_until_it_ends_and_then_says_so_in_one_digest",),
    ),
    Mutant(
        "what is over a throttle is dropped",
        "bridge.record.outbox.entries:_in_digest",
        "lambda n, gate, *more, drop=False: original(n, gate, *more, drop=drop or gate == 'throttle')",
        ("tests/pipeline/test_digests.py::test_what_is_over_the_throttle_becomes_one_message_that_counts_it",),
    ),
    Mutant(
        "a mark that is CI's clock, whatever ours says",
        "bridge.decide.changes.clocks:Chain._now",
        "lambda self: self.date or self.began",
        ("tests/pipeline/test_clocks.py::test_no_date_of_ci_hides_a_job_and_a_quiet_stream_is_not_listed_anew",),
    ),
    Mutant(
        "a job that is gone at the first denial",
        "bridge.decide.changes.diff:is_believed",
        "lambda missing, *, every: True",
        ("tests/pipeline/test_missing.py::test_a_job_that_ci_denies_once_or_twice_goes_on",),
    ),
    Mutant(
        "a batch that is not due yet in everybody's way",
        "bridge.record.outbox.claims:_is_first",
        "lambda: or_(deliveries.c.lane.is_(None), ~exists().where("
        "(other := deliveries.alias('other')).c.lane == deliveries.c.lane,"
        " other.c.notifier == deliveries.c.notifier, other.c.state < 2, other.c.n < deliveries.c.n))",
        ("tests/record/outbox/test_batches.py::test_what_is_not_due_yet_stands_in_nobodys_way",),
    ),
    Mutant(
        "a batch before all that is new",
        "bridge.record.outbox.claims:_batch_is_late",
        "lambda *_: False",
        ("tests/record/outbox/test_batches.py::test_what_is_new_does_not_wait_behind_a_batch",),
    ),
    Mutant(
        "resending what somebody else has resent",
        "bridge.record.outbox.batches:resend",
        "lambda tx, id_, due: (tx.execute(update(deliveries).where(deliveries.c.n.in_(due)).values(state=DEAD)),"
        " original(tx, id_, due))[1]",
        ("tests/record/outbox/test_batches.py::test_any_number_of_people_who_resend_at_once_resend_each_once",),
    ),
    Mutant(
        "a last try that waits for the breaker's next probe",
        "bridge.record.outbox.claims:urge",
        "lambda *_, **more: None",
        (
            "tests/pipeline/test_retry_time.py::test_what_a_dead_receiver_never_took_is_dead_when_its_time_is_over_whatever_the_breaker_waits_for",
        ),
    ),
    Mutant(
        "a notifier that answers with errors and is said to be well",
        "bridge.pipeline.health:_of_notifier",
        "lambda row, trouble, **more: original(row, replace(trouble, failed=0), **more)",
        ("tests/admin/test_warnings.py::test_all_is_well_where_nothing_is_wrong",),
    ),
    Mutant(
        "a retry time that counts while the bridge stands still",
        "bridge.record.clocks:RunClock._ran_ms",
        "lambda self: 10**12",
        ("tests/pipeline/test_retry_time.py::test_a_clock_that_leaps_there_and_back_uses_no_retry_time_up",),
    ),
    Mutant(
        "a broken page that is refused whole",
        "bridge.pipeline.poller:Poller._narrow",
        "lambda self, listing, error: (_ for _ in ()).throw(error)",
        ("tests/pipeline/test_unreadable.py::test_a_job_that_breaks_every_page_it_is_on_silences_no_other",),
    ),
    Mutant(
        "an emptied rules.toml that is taken",
        "bridge.decide.rulesfile.rulesets:emptied",
        "lambda before, after: None",
        ("tests/wiring/test_rules.py::test_a_file_with_no_watch_or_no_rule_never_replaces_one_that_had_some",),
    ),
    Mutant(
        "a Slack root that a late edit has left behind",
        "bridge.record.outbox.roots:shown",
        "lambda tx, edit, receipt, *, now: tx.execute("
        "update(threads).where(_row(edit)).values(shown_no=edit.wanted_no, **_FREE)).rowcount == 1",
        ("tests/pipeline/test_slack_roots.py::test_an_edit_that_failed_is_tried_again_later_with_the_state_of_then",),
    ),
    Mutant(
        "a Slack root that moves only with a rule",
        "bridge.pipeline.route:_show_newest",
        "lambda *facts: None",
        ("tests/pipeline/test_slack_roots.py::test_a_root_shows_the_newest_state_whether_or_not_a_rule_matches_it",),
    ),
    Mutant(
        "a Slack limit for each worker",
        "bridge.record.outbox.limits:take",
        "lambda tx, state, notifier, *, now: True",
        ("tests/pipeline/test_slack_limits.py::test_a_channel_gets_a_post_a_second",),
    ),
    Mutant(
        "a Slack limit that holds nobody",
        "bridge.record.outbox.limits:hold",
        "lambda *facts: None",
        ("tests/pipeline/test_slack_limits.py::test_another_channel_has_a_limit_of_its_own",),
    ),
    Mutant(
        "a Slack flood that jobs overtake",
        "bridge.record.outbox.digests:flooded",
        "lambda *facts: {}",
        ("tests/pipeline/test_floods.py::test_what_follows_a_folded_message_of_its_job_is_folded_too",),
    ),
    Mutant(
        "a callback from whoever knows no token",
        "bridge.admin.hooks:HooksApi._require",
        "lambda self, token: None",
        ("tests/admin/test_hooks.py::test_a_wrong_token_gets_the_answer_of_nothing_there",),
    ),
    Mutant(
        "unknown jobs of callbacks without a budget",
        "bridge.decide.changes.hints:to_ask",
        "lambda *ids, **more: original(*ids, **more | {'denied_at': None})",
        ("tests/pipeline/test_hints.py::test_unknown_jobs_cost_one_call_in_an_interval_once_ci_has_denied_one",),
    ),
    Mutant(
        "jobs of callbacks asked for again although CI denied them",
        "bridge.record.polling.hints:_is_past",
        "lambda *times: True",
        ("tests/pipeline/test_hints.py::test_a_job_that_no_watch_has_is_left_alone",),
    ),
    Mutant(
        "an incident's jobs stored apart from their transitions",
        "bridge.pipeline.joining:join",
        f"lambda tx, *more: ({_COMMITTED}, original(tx, *more))[1]",
        ("tests/crash/test_halves.py::test_an_incident_whose_polls_break_off_anywhere_opens_and_closes_once",),
    ),
    Mutant(
        "committing an escalation before its deliveries",
        "bridge.record.incidents:change_all",
        f"lambda tx, *values: (original(tx, *values), {_COMMITTED})[0]",
        ("tests/crash/test_escalations.py::test_an_escalation_is_sent_once_wherever_its_worker_is_killed",),
    ),
    Mutant(
        "an incident judged by when its jobs were seen",
        "bridge.decide.rules.joining:incident_job",
        "lambda step, **more: __import__('dataclasses').replace(original(step, **more), happened_at=step.seen_at)",
        ("tests/pipeline/test_incidents.py",),
    ),
    Mutant(
        "an absence that does not wait for what is not seen",
        "bridge.pipeline.incidents:_Judge.seen",
        "lambda self, *more: (lambda seen: type(seen)(self.as_of, self.as_of))(original(self, *more))",
        ("tests/pipeline/test_incidents.py::test_what_one_tag_shows_late_counts_with_what_others_showed_in_time",),
    ),
    Mutant(
        "jobs of a first snapshot that open an incident",
        "bridge.decide.rules.joining:incident_job",
        "lambda step, **more: __import__('dataclasses').replace(original(step, **more), silent=False)",
        ("tests/pipeline/test_incidents.py::test_jobs_of_a_first_snapshot_count_but_open_nothing",),
    ),
    Mutant(
        "pruning jobs of a group that goes on",
        "bridge.record.pruning:_is_counted",
        "lambda: __import__('sqlalchemy').false()",
        (
            "tests/pipeline/test_pruning.py::test_a_job_stays_until_the_group_it_belongs_to_has_ended_and_so_does_its_incident",
        ),
    ),
)


def main() -> int:
    mutants = [mutant for mutant in MUTANTS if not sys.argv[1:] or any(word in mutant.what for word in sys.argv[1:])]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        noticed = sum(threads.map(_is_noticed, mutants))
    print(f"{noticed} of {len(mutants)} were noticed")
    return 0 if noticed == len(mutants) else 1


def _is_noticed(mutant: Mutant) -> bool:
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ci-bridge-mutant-") as name:
        copy = Path(name)
        for part in _COPIED:
            _copy(_ROOT / part, copy / part)
        module, _, function = mutant.function.partition(":")
        with (copy / f"{module.replace('.', '/')}.py").open("a") as code:
            code.write(f"\n\n{function} = (lambda original: {mutant.becomes})({function})\n")
        imported = subprocess.run(
            [sys.executable, "-c", f"import {module}"], cwd=copy, capture_output=True, text=True, check=False
        )
        if imported.returncode:
            print(f"NOT APPLIED  {mutant.what}: {imported.stderr[-300:]}", flush=True)
            return False
        done = subprocess.run(
            [sys.executable, *_PYTEST, *mutant.tests], cwd=copy, capture_output=True, text=True, check=False
        )
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED ")]
    # 1: tests failed. Anything else, a file that does not import say, proves nothing.
    noticed = done.returncode == 1 and bool(failed)
    by = failed[0].removeprefix("FAILED ").partition(" - ")[0] if failed else done.stdout[-300:]
    print(
        f"{'noticed' if noticed else 'SURVIVED':<12} {mutant.what} ({time.monotonic() - begun:.0f} s): {by}", flush=True
    )
    return noticed


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        # What is compiled of it comes along, but not what another process is writing just now; what is changed is
        # compiled again.
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.pyc.*"))
    else:
        shutil.copy(source, target)


if __name__ == "__main__":
    sys.exit(main())
