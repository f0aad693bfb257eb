import json
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.decide.messages.build import LARGEST_EVENT, as_fallback, build, delivery_to, event, gathered, test_message
from bridge.decide.routing import RoutingResult, route
from bridge.decide.rules.gates import Gates
from bridge.decide.rules.matching import LevelEvent
from bridge.decide.rules.rulebook import MessageTemplate, Rulebook
from bridge.decide.templates.rendering import compiled
from bridge.decide.text.values import CUT_MARK, LONGEST_TEXT, cut
from bridge.links import Links
from bridge.model import DONE, FAILED, GONE, NEW, OUTPUTS_KEPT, PAUSE, RUNNING, SUBMITTED, SUCCESS, Message, Transition
from bridge.notifiers import SlackNotifier, WebhookNotifier
from tests.decide.messages.finished import FINISHED, QUEUE, SECOND, failed
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
        (
            SUBMITTED,
            RUNNING,
            {"created_at": NOON - 81 * SECOND, "started_at": NOON - 80 * SECOND},
            "Transcode Running: demo.mp4",
            "started after waiting 1 s",
        ),
        (RUNNING, FAILED, {"message": "no such codec"}, "Transcode Failed: demo.mp4", "no such codec"),
        (
            RUNNING,
            FAILED,
            {"message": "no such codec", "code": "InvalidArgument"},
            "Transcode Failed: demo.mp4",
            "no such codec (InvalidArgument)",
        ),
        (
            RUNNING,
            FAILED,
            {"message": "InvalidArgument: no such codec", "code": "InvalidArgument"},
            "Transcode Failed: demo.mp4",
            "InvalidArgument: no such codec",
        ),
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
        (
            RUNNING,
            GONE,
            {},
            "Transcode gone: demo.mp4",
            "CI no longer knows this job; it was Running when last seen.",
        ),
        (RUNNING, FAILED, {"tag": None, "input": None}, "Job Failed: j1", "CI gave no reason."),
        (
            RUNNING,
            FAILED,
            {"id": "j8d121c2ec9fd4a5bb6b6f0c9a3e4d5f6", "input": "folder/"},
            "Transcode Failed: folder",
            "CI gave no reason.",
        ),
        (
            RUNNING,
            FAILED,
            {"id": "j8d121c2ec9fd4a5bb6b6f0c9a3e4d5f6", "input": None},
            "Transcode Failed: j8d121c2",
            "CI gave no reason.",
        ),
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
    assert (built.message.title, built.message.text) == (
        "Transcode Failed: demo.mp4",
        "CI gave no reason but InvalidArgument.",
    )
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


def test_a_message_has_no_fields_unless_its_template_names_some():
    assert said(failed()).fields == ()


def test_what_is_stuck_says_since_when_its_limit_and_its_progress():
    event = LevelEvent(state=RUNNING, since=NOON, after=timedelta(minutes=30))
    job = a_job(state=RUNNING, started_at=NOON)
    texts = [
        build(a_transition(replace(job, progress=progress)), "r", MessageTemplate(), {}, level_event=event).message.text
        for progress in (None, 0, 40)
    ]
    assert texts == [
        "Running since 2026-11-21T12:00:00Z; the rule allows 30 min",
        "Running since 2026-11-21T12:00:00Z; the rule allows 30 min; 0 % done",
        "Running since 2026-11-21T12:00:00Z; the rule allows 30 min; 40 % done",
    ]


def test_the_links_of_its_template_go_with_a_message():
    title, text = compiled("{{ job.id | link('x') }}"), compiled('{{ "https://h.example" | link("open") }}')
    message = said(failed(), MessageTemplate(title=title, text=text))
    assert (message.title, message.text, message.links) == (
        "x",
        "open (https://h.example/)",
        (("open", "https://h.example/"),),
    )


def test_a_rule_mentions_with_all_its_messages_but_a_recovery():
    stuck = LevelEvent(state=RUNNING, since=NOON, after=timedelta(1))
    mentioned = [
        build(failed(), "r", MessageTemplate(), {}, level_event=event, mention=("here",)).message.mention
        for event in (None, stuck, replace(stuck, again=True), replace(stuck, recovered=True))
    ]
    assert mentioned == [("here",), ("here",), ("here",), ()]


def test_what_was_not_delivered_is_gathered_by_its_status_or_the_first_words_of_the_reason():
    def reason(why: str, status: int | None = None) -> str:
        hold = gathered("assets", why, status=status, now=NOON)
        assert (hold.gate, hold.name, hold.until) == ("fallback", "assets", NOON + 10 * SECOND)
        by = dict(json.loads(hold.label))
        assert by["why"] == cut(why, 300)
        return by["reason"]

    assert reason("answered 500 Internal Server Error", 500) == "500"
    assert reason("Slack says no_text: it refuses this message", 200) == "Slack says no_text"
    assert reason("x" * 5000) == cut("x" * 5000, 60)
    keys = {gathered("a", why, status=None, now=NOON).key for why in ("no: 1", "no: 2", "yes")}
    assert len(keys) == 2


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
    assert message.event["data"] == {"test": True, "notifier": "ops", "url": None}
    assert message.id != test_message("ops", nonce="n2", now=NOON).id


# --- ids, lanes, threads ------------------------------------------------------------------------------

HOOK = WebhookNotifier(name="cms", url="https://cms.example.com/")


def slack(**facts) -> SlackNotifier:
    return SlackNotifier(name="ops", channel="C1", token="xoxb-1", **facts)


def test_ids_outlive_versions():
    told = delivery_to(said(a_transition(failed().job, was=RUNNING, sequence=3, to=GONE)), HOOK)
    assert (told.message.id, told.id) == ("msg_hucezucv4xhn23xcnszyg4cney", "dlv_oky755275cg2efq3w4pgmsmunm")
    told = delivery_to(said(failed()), HOOK)
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
    level_event = LevelEvent(state=RUNNING, since=NOON, after=timedelta(1), recovered=True)
    recovered = [build(step, "stuck", MessageTemplate(), {}, level_event=level_event) for step in ends]
    assert len({one.message.id for one in recovered}) == 1


@pytest.mark.parametrize("state", [RUNNING, GONE])
def test_what_may_happen_to_a_job_again_has_an_id_for_each_time(state):
    steps = [a_transition(a_job(state=state), was=NEW, sequence=sequence, to=state) for sequence in (1, 3)]
    assert len({said(step).id for step in steps}) == 2


def test_each_notifier_has_its_own_delivery_of_one_message():
    message = said(failed())
    hook, bot = delivery_to(message, HOOK), delivery_to(message, slack())
    assert hook.id != bot.id
    assert hook.message is bot.message


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
    told = delivery_to(said(failed()), notifier)
    assert (told.ordering_key, told.thread) == (lane, thread)


def test_a_job_outside_of_a_workflow_has_a_thread_of_its_own():
    told = delivery_to(said(failed(workflow_run=None)), slack(thread="workflow"))
    assert (told.ordering_key, told.thread) == (JOB, JOB)


@pytest.mark.parametrize("notifier", [HOOK, slack(), slack(thread="job", update=True)])
def test_a_test_message_waits_for_nobody(notifier):
    told = delivery_to(test_message(notifier.name, nonce="n", now=NOON), notifier)
    assert (told.ordering_key, told.thread) == (None, None)


def test_what_a_fallback_is_told_has_its_own_id_and_says_why():
    message, pager = said(failed()), WebhookNotifier(name="pager", url="https://pager.example.com/")
    told = as_fallback(message, "cms", "410 Gone", pager)
    assert told.note == "This could not be sent to cms: 410 Gone"
    assert told.notifier == "pager"
    assert told.message is message
    assert len({told.id, delivery_to(message, pager).id, as_fallback(message, "ops", "x", pager).id}) == 3
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


def test_a_message_of_an_inferred_transition_says_so_in_its_title_and_its_event():
    times = {"created_at": NOON, "started_at": NOON + timedelta(seconds=3), "ended_at": NOON + timedelta(seconds=9)}
    step = a_transition(a_job(tag="Transcode", input="in/a.mp4", **times), was="Submitted", inferred=True)
    default = build(step, "ran", MessageTemplate(), {}).message
    assert (default.title, default.text) == ("Transcode Running: a.mp4 (inferred)", "started after waiting 3 s")
    assert (default.event["data"]["inferred"], default.event["time"]) == (True, "2026-11-21T12:00:03Z")
    first = replace(step, was="new", to="Submitted")
    assert build(first, "ran", MessageTemplate(), {}).message.text == "was submitted at 2026-11-21T12:00:00Z"


def test_a_template_says_how_late_an_end_was_seen_but_not_a_time_in_state():
    stuck = LevelEvent(state=RUNNING, since=NOON, after=timedelta(minutes=30))
    late = MessageTemplate(text=compiled("{{ job.late is none }}"))
    assert build(failed(), "r", late, {}).message.text == "False"
    assert build(failed(), "r", late, {}, level_event=stuck).message.text == "True"


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
    assert {one.message.text for one in told.deliveries} == {"CI gave no reason but InvalidArgument."}
    assert told.errors == [
        ("failed", "short", 'template "short": ZeroDivisionError: division by zero (line 1 of the text)')
    ]


def size(message_event) -> int:
    return len(
        json.dumps({"specversion": "1.0", "id": "dlv_" + "x" * 26, **message_event}, ensure_ascii=False).encode()
    )


def test_the_body_is_the_documented_one():
    assert event(failed(), "failed", {QUEUE: "vod"}, links=Links("https://bridge.example.com")) == {
        "source": "//media-1250000000.ci.ap-chongqing.myqcloud.com/jobs",
        "type": "ci.job.failed",
        "subject": "j8d1",
        "time": "2026-11-21T12:00:00Z",
        "timestamp": "2026-11-21T12:00:00Z",
        "sequence": "0000000003",
        "datacontenttype": "application/json",
        "data": {
            "from": "Running",
            "to": "Failed",
            "seen_at": "2026-11-21T12:00:05Z",
            "late_seconds": 5,
            "inferred": False,
            "rule": "failed",
            "watch": "vod",
            "url": "https://bridge.example.com/jobs/j8d1",
            "job": {
                "id": "j8d1",
                "tag": "Transcode",
                "state": "Failed",
                "queue": QUEUE,
                "queue_name": "vod",
                "bucket": "media-1250000000",
                "region": "ap-chongqing",
                "code": "InvalidArgument",
                "message": "no such codec",
                "progress": 30,
                "created_at": "2026-11-21T11:58:39Z",
                "started_at": "2026-11-21T11:58:40Z",
                "ended_at": "2026-11-21T12:00:00Z",
                "wait_seconds": 1,
                "duration_seconds": 80,
                "input": "input/demo.mp4",
                "outputs": ["out/demo.ts"],
                "outputs_total": 1,
                "template": "t1",
                "workflow": None,
                "user_data": "This is my data.",
            },
        },
    }


@pytest.mark.parametrize(
    ("was", "to", "time"),
    [
        (NEW, SUBMITTED, "11:58:39"),
        (SUBMITTED, RUNNING, "11:58:40"),
        (RUNNING, SUCCESS, "12:00:00"),
        (RUNNING, FAILED, "12:00:00"),
        (RUNNING, PAUSE, "12:00:05"),
        (RUNNING, GONE, "12:00:05"),
        (PAUSE, SUBMITTED, "12:00:05"),
    ],
)
def test_the_time_is_that_of_the_state_or_when_it_was_seen(was, to, time):
    step = a_transition(a_job(**FINISHED, state=to), was=was, seen_at=NOON + 5 * SECOND)
    assert event(step, "r", {})["time"] == event(step, "r", {})["timestamp"] == f"2026-11-21T{time}Z"


def test_where_ci_gave_no_time_it_is_when_it_was_seen():
    assert event(failed(ended_at=None), "r", {})["time"] == "2026-11-21T12:00:05Z"


def test_a_job_of_which_ci_says_little_has_nothing_instead():
    facts = event(a_transition(), "r", {})["data"]["job"]
    nothing = {key for key, value in facts.items() if value is None}
    assert facts["outputs"] == []
    assert nothing == {
        "tag", "queue", "queue_name", "code", "message", "progress", "created_at", "started_at", "ended_at",
        "wait_seconds", "duration_seconds", "input", "template", "workflow", "user_data",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("state", "kind"), [("Failed", "ci.job.failed"), ("gone", "ci.job.gone"), ("Under Review!", "ci.job.under_review_")]
)
def test_the_type_is_the_state_in_plain_letters(state, kind):
    assert event(a_transition(to=state), "r", {})["type"] == kind


def test_at_most_twenty_outputs_are_named_and_all_are_counted():
    outputs = tuple(f"out/{n}.ts" for n in range(5000))
    facts = event(failed(outputs=outputs, outputs_total=5000), "r", {})["data"]["job"]
    assert facts["outputs"] == list(outputs[:OUTPUTS_KEPT])
    assert facts["outputs_total"] == 5000


def test_a_long_text_is_cut_with_a_mark():
    facts = event(failed(message="x" * 5000), "r", {})["data"]["job"]
    assert len(facts["message"]) == LONGEST_TEXT
    assert facts["message"].endswith(CUT_MARK)
    assert facts["user_data"] == "This is my data."


def test_outputs_go_before_texts_are_shortened():
    facts = event(failed(outputs=("中" * 2000,) * 20, outputs_total=20), "r", {})["data"]["job"]
    # 6 kB each: two fit beside the rest
    assert len(facts["outputs"]) == 3
    assert facts["message"] == "no such codec"
    assert facts["outputs_total"] == 20


HUGE = st.sampled_from(["", "x" * 50_000, "中" * 50_000, "😀" * 50_000, "\0" * 50_000, '"\\' * 50_000])


@settings(deadline=None, max_examples=30)
@given(
    st.fixed_dictionaries(
        dict.fromkeys(("tag", "queue", "code", "message", "input", "template", "workflow", "user_data"), HUGE)
    ),
    st.lists(HUGE, max_size=3),
)
def test_the_body_stays_under_its_limit_whatever_the_job_says(texts, outputs):
    job = {**texts, "outputs": tuple(outputs) * 10, "outputs_total": 5000}
    assert size(event(failed(**job), "r", {})) <= LARGEST_EVENT


def test_a_text_is_cut_only_when_it_is_longer_and_ends_within_the_limit():
    assert cut("x" * 20, 20) == "x" * 20
    assert cut("x" * 21, 20) == "x" * 14 + CUT_MARK
    assert cut("x" * 21, 3) == CUT_MARK


def test_sequences_sort_as_text_as_they_do_as_numbers():
    numbers = [1, 9, 10, 99, 100, 2_147_483_647]
    said = [event(replace(failed(), sequence=number), "failed", {})["sequence"] for number in numbers]
    assert sorted(said) == said
    assert {len(one) for one in said} == {10}
