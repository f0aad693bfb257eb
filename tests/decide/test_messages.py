from datetime import timedelta

import pytest

from bridge.decide.messages.build import address, as_fallback, build, test_message
from bridge.decide.routing import RoutingResult, route
from bridge.decide.rules.gates import Gates
from bridge.decide.rules.matching import Overdue
from bridge.decide.rules.rulebook import MessageTemplate, Rulebook
from bridge.decide.templates.rendering import compiled
from bridge.decide.text.values import LONGEST_TEXT
from bridge.model import (
    CANCEL,
    DONE,
    FAILED,
    GONE,
    NEW,
    PAUSE,
    RUNNING,
    SUBMITTED,
    SUCCESS,
    Message,
    Notifier,
    SlackNotifier,
    Transition,
    WebhookNotifier,
)
from tests.decide.finished import QUEUE, SECOND, failed
from tests.support.nouns import NOON, a_job, a_rulebook, a_transition

test_message.__test__ = False  # it is one of ours, not one of pytest's


def said(transition: Transition, wording: MessageTemplate | None = None) -> Message:
    built = build(transition, "failed", wording or MessageTemplate(), {QUEUE: "vod"})
    assert built.fault is None
    return built.message


# --- the words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("was", "to", "facts", "title", "text"),
    [
        (NEW, SUBMITTED, {}, "Transcode Submitted: demo.mp4", "seen for the first time"),
        (SUBMITTED, RUNNING, {}, "Transcode Running: demo.mp4", "was Submitted before"),
        (RUNNING, PAUSE, {}, "Transcode Pause: demo.mp4", "was Running before"),
        (RUNNING, FAILED, {"message": "no such codec"}, "Transcode Failed: demo.mp4", "no such codec"),
        (RUNNING, FAILED, {}, "Transcode Failed: demo.mp4", "CI gave no reason."),
        (
            RUNNING,
            SUCCESS,
            {"created_at": NOON - 81 * SECOND, "started_at": NOON - 80 * SECOND, "ended_at": NOON},
            "Transcode Success: demo.mp4",
            "took 1 min 20 s after waiting 1 s",
        ),
        (
            NEW,
            SUCCESS,
            {"started_at": NOON - 80 * SECOND, "ended_at": NOON},
            "Transcode Success: demo.mp4",
            "took 1 min 20 s",
        ),
        (SUBMITTED, CANCEL, {}, "Transcode Cancel: demo.mp4", "was Submitted before"),
        (
            RUNNING,
            GONE,
            {},
            "Transcode gone: demo.mp4",
            "CI no longer knows this job; it was Running when last seen.",
        ),
        (RUNNING, "Reviewing", {}, "Transcode Reviewing: demo.mp4", "was Running before"),
        (RUNNING, FAILED, {"tag": None, "input": None}, "Job Failed: j1", "CI gave no reason."),
    ],
)
def test_without_a_template_each_state_has_its_words(was, to, facts, title, text):
    job = a_job(**{"tag": "Transcode", "input": "input/demo.mp4", "state": to, **facts})
    message = said(a_transition(job, was=was))
    assert (message.title, message.text) == (title, text)


def test_a_template_has_the_last_word():
    wording = MessageTemplate(title=compiled("{{ job.tag }}!"), text=compiled("{{ job.duration | human }}"))
    message = said(failed(), wording)
    assert (message.title, message.text) == ("Transcode!", "1 min 20 s")


def test_a_template_may_leave_out_the_title_or_make_an_empty_text():
    message = said(failed(), MessageTemplate(text=compiled("{{ job.level }}")))
    assert (message.title, message.text) == ("Transcode Failed: demo.mp4", "")


def test_a_template_that_does_not_render_falls_back_to_the_default_text_and_says_why():
    wording = MessageTemplate(title=compiled("fine"), text=compiled("{{ 1 / (1 if job.message else 0) }}"))
    built = build(failed(message=None), "r", wording, {})
    assert (built.message.title, built.message.text) == ("Transcode Failed: demo.mp4", "CI gave no reason.")
    assert built.fault == "ZeroDivisionError: division by zero (line 1 of the text)"


def test_fields_show_what_the_job_has_as_people_read_it():
    names = ("queue", "template", "workflow", "code", "duration", "ended_at", "outputs", "progress", "user_data")
    message = said(failed(outputs=("a.ts", "b.ts"), progress=0, user_data="k=v"), MessageTemplate(fields=names))
    assert message.fields == (
        ("queue", "vod"),
        ("template", "hls"),
        ("code", "InvalidArgument"),
        ("duration", "1 min 20 s"),
        ("ended_at", "2026-11-21T12:00:00Z"),
        ("outputs", "a.ts, b.ts"),
        ("progress", "0"),
        ("user_data", "k=v"),
    )


def test_title_text_and_fields_are_cut():
    wording = MessageTemplate(
        title=compiled("{{ job.message }}"), text=compiled("{{ job.message }}"), fields=("message",)
    )
    message = said(failed(message="x" * 9000), wording)
    assert {len(message.title), len(message.text), len(message.fields[0][1])} == {LONGEST_TEXT}


def test_a_test_message_says_that_it_is_one():
    message = test_message("ops", nonce="n1", now=NOON)
    assert (message.kind, message.event["type"], message.event["subject"]) == ("test", "ci.test", "ops")
    assert "test" in message.text
    assert message.event["time"] == "2026-11-21T12:00:00Z"
    assert message.event["sequence"] == "0000000001"
    assert message.id != test_message("ops", nonce="n2", now=NOON).id


# --- ids, lanes, threads ------------------------------------------------------------------------------

HOOK = WebhookNotifier(name="cms", url="https://cms.example.com/")


def slack(**facts) -> SlackNotifier:
    return SlackNotifier(name="ops", channel="C1", token="xoxb-1", **facts)


def test_the_same_thing_seen_again_has_the_same_ids():
    first, again = address(said(failed()), HOOK), address(said(failed(progress=99)), HOOK)
    assert (first.id, first.message.id) == (again.id, again.message.id)
    assert first.id.startswith("dlv_")
    assert first.message.id.startswith("msg_")


def test_ids_outlive_versions():
    told = address(said(a_transition(failed().job, was=RUNNING, sequence=3, to=GONE)), HOOK)
    assert (told.message.id, told.id) == ("msg_hucezucv4xhn23xcnszyg4cney", "dlv_oky755275cg2efq3w4pgmsmunm")
    told = address(said(failed()), HOOK)
    assert (told.message.id, told.id) == ("msg_kgifoxwr2hwr7ng27xrnthosca", "dlv_w3thq2dbfqj3mo4pruibexlcoe")


def test_whatever_is_another_event_has_another_id():
    step = failed()
    others = [
        said(failed(id="j2")),
        said(failed(bucket="other-1250000000")),
        said(a_transition(step.job, was=RUNNING, sequence=3, to=GONE)),
        build(step, "another rule", MessageTemplate(), {}).message,
    ]
    assert len({said(step).id, *(other.id for other in others)}) == 5


@pytest.mark.parametrize("state", sorted(DONE))
def test_the_end_of_a_job_has_the_same_id_however_many_transitions_led_there(state):
    job = a_job(state=state)
    ends = [a_transition(job, was=was, sequence=sequence, to=state) for was, sequence in ((NEW, 1), (RUNNING, 3))]
    assert len({said(step).id for step in ends}) == 1
    recovered = [
        build(
            step,
            "stuck",
            MessageTemplate(),
            {},
            overdue=Overdue(state=RUNNING, since=NOON, after=timedelta(1), recovered=True),
        )
        for step in ends
    ]
    assert len({one.message.id for one in recovered}) == 1


@pytest.mark.parametrize("state", [RUNNING, GONE])
def test_what_may_happen_to_a_job_again_has_an_id_for_each_time(state):
    steps = [a_transition(a_job(state=state), was=NEW, sequence=sequence, to=state) for sequence in (1, 3)]
    assert len({said(step).id for step in steps}) == 2


def test_each_notifier_has_its_own_delivery_of_one_message():
    message = said(failed())
    hook, bot = address(message, HOOK), address(message, slack())
    assert hook.id != bot.id
    assert hook.message is bot.message


def test_ids_can_stand_in_a_header_or_a_url():
    told = address(said(failed()), HOOK)
    assert told.id.replace("_", "").isalnum()
    assert told.id.isascii()
    assert told.id.islower()


JOB, RUN = "media-1250000000/j8d1", "media-1250000000/i1"


@pytest.mark.parametrize(
    ("notifier", "lane", "thread"),
    [
        (HOOK, JOB, None),
        (WebhookNotifier(name="cms", url="https://cms.example.com/", order="none"), None, None),
        (slack(), JOB, None),
        (slack(thread="job"), JOB, JOB),
        (slack(thread="workflow"), RUN, RUN),
        (slack(update=True), JOB, JOB),
        (slack(thread="workflow", update=True), RUN, RUN),
    ],
)
def test_what_must_stay_in_order_shares_a_lane_and_what_shares_a_thread_shares_a_lane_too(notifier, lane, thread):
    told = address(said(failed()), notifier)
    assert (told.lane, told.thread) == (lane, thread)


def test_a_job_outside_of_a_workflow_has_a_thread_of_its_own():
    told = address(said(failed(workflow_run=None)), slack(thread="workflow"))
    assert (told.lane, told.thread) == (JOB, JOB)


@pytest.mark.parametrize("notifier", [HOOK, slack(), slack(thread="job", update=True)])
def test_a_test_message_waits_for_nobody(notifier):
    told = address(test_message(notifier.name, nonce="n", now=NOON), notifier)
    assert (told.lane, told.thread) == (None, None)


def test_what_a_fallback_is_told_has_its_own_id_and_says_why():
    message, pager = said(failed()), WebhookNotifier(name="pager", url="https://pager.example.com/")
    told = as_fallback(message, "cms", "410 Gone", pager)
    assert told.note == "This could not be sent to cms: 410 Gone"
    assert told.notifier == "pager"
    assert told.message is message
    assert len({told.id, address(message, pager).id, as_fallback(message, "ops", "x", pager).id}) == 3
    assert told.id == as_fallback(message, "cms", "another reason", pager).id


# --- from a transition to its deliveries --------------------------------------------------------------

BOOK = """
[[rule]]
name = "failed"
to = "Failed"
notify = ["hook", "bot"]
template = "short"

[[rule]]
name = "all"
notify = ["bot", "hook"]

[template.short]
text = "{{ 1 / (1 if job.message else 0) }}"

[notifier.hook]
type = "webhook"
url = "https://cms.example.com/"

[notifier.bot]
type = "slack"
channel = "C1"
token = { env = "TOKEN" }
"""


def new_delivery(transition: Transition, book: Rulebook) -> RoutingResult:
    return route(transition, book, Gates(mutes=(), silences=(), zone=book.zone, now=NOON))


@pytest.fixture(scope="module")
def book() -> Rulebook:
    return a_rulebook(BOOK, {"TOKEN": "xoxb-1"})


def test_each_notifier_is_told_once_and_by_the_first_rule_that_names_it(book):
    told = new_delivery(failed(), book)
    assert [(one.notifier, one.message.rule) for one in told.deliveries] == [("hook", "failed"), ("bot", "failed")]
    assert [verdict.rule.name for verdict in told.verdicts] == ["failed", "all"]
    assert not told.errors


def test_a_silent_transition_tells_nobody(book):
    step = a_transition(a_job(state=FAILED), silent="first snapshot")
    assert (new_delivery(step, book).deliveries, new_delivery(step, book).verdicts) == ([], [])


def test_a_template_that_does_not_render_is_told_all_the_same(book):
    told = new_delivery(failed(message=None), book)
    assert {one.message.text for one in told.deliveries} == {"CI gave no reason."}
    assert told.errors == [
        ("failed", "short", 'template "short": ZeroDivisionError: division by zero (line 1 of the text)')
    ]


def test_ends_are_told_as_what_they_are(book):
    for end in DONE:
        (first, *_) = new_delivery(a_transition(a_job(state=end), was=RUNNING), book).deliveries
        assert first.message.state == end
        assert isinstance(book.notifiers[first.notifier], Notifier)
