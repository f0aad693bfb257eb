import json
import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.send.chat import lateness
from bridge.send.slack.blocks import blocks, fit, plain, preview
from bridge.send.slack.buttons import Button, Deed, read_button
from tests.support.receivers import NOON, a_delivery, a_slack
from tests.support.strict_slack import refusal_of

URL = "https://bridge.example.com"
ID = "j8d121c2ec9fd4a5bb6b6f0c9a3e4d5f6"
JOB = {
    "id": ID, "queue": "p2242ab62c7c94486915508540933a2c6", "queue_name": "vod", "input": "in/demo.mp4",
    "started_at": "2026-11-21T11:58:40Z", "ended_at": "2026-11-21T12:00:00Z", "duration_seconds": 80, "wait_seconds": 1,
}  # fmt: skip
LONG = st.one_of(st.text(max_size=50), st.sampled_from(["&<>" * 5000, "x" * 20_000, "转" * 9000, "a&" * 4000]))


def texts(made: list[dict[str, Any]]) -> list[str]:
    found = []
    for block in made:
        found += [piece["text"] for piece in block.get("fields", []) + block.get("elements", [])]
        found += [block["text"]["text"]] if "text" in block else []
    return found


def shown(**facts: Any) -> list[str]:
    return texts(blocks(a_delivery(**facts), NOON)[1])


def an_event(kind: str = "job.failed", **data: Any) -> str:
    return json.dumps({"type": f"ci.{kind}", "data": data})


def a_message(kind: str = "job.failed", **facts: Any) -> dict[str, Any]:
    """Return what a delivery has of a message with links, about JOB."""
    says = {"job_id": ID, "public_url": URL, "file": "demo.mp4", "fields": [], **facts.pop("says", {})}
    return {"says": says, "event": an_event(kind, job=JOB), **facts}


def a_digest(*, gate: str = "group", states: dict[str, int], members: int = 0, **says: Any) -> dict[str, Any]:
    total = sum(states.values())
    data = {"gate": gate, "name": "assets", "states": states, "members_total": total}
    data["members"] = [{"job": f"j{n}"} for n in range(members or min(total, 5))]
    usual = {"state": None, "job_id": None, "digest": True, "public_url": URL, "fields": [], "rule": None}
    return {"says": {**usual, **says}, "event": an_event("digest", **data)}


# --- what is where ------------------------------------------------------------------------------------------


def test_a_message_has_its_title_text_fields_and_origin() -> None:
    text, made = blocks(a_delivery(), NOON)
    assert text == "❌ Transcode failed: demo.mp4\nbad input"
    assert texts(made) == ["❌ *Transcode failed: demo.mp4*\nbad input", "*queue*\nvod", "failed · j1"]


def test_with_the_address_of_the_pages_the_file_is_a_link_and_the_rule_can_be_silenced() -> None:
    text, made = blocks(a_delivery(**a_message()), NOON)
    title = f"Transcode failed: <{URL}/jobs/{ID}|demo.mp4>"
    assert text == f"❌ {title}\nbad input"
    silence = f"<{URL}/silences/add?rule=failed|Silence this rule>"
    assert texts(made) == [
        f"❌ *{title}*\nbad input",
        f"failed · vod · took 1 min 20 s · waited 1 s · j8d121c2 · {silence}",
    ]


def test_with_the_place_of_its_bucket_it_leads_to_the_console() -> None:
    job = {**JOB, "bucket": "media-1250000000", "region": "ap-chongqing"}
    console = "bucket=media-1250000000&amp;region=ap-chongqing|CI console>"
    for kind, public_url in (("job.failed", URL), ("job.failed", None), ("job.overdue", URL)):
        said = shown(**a_message(event=an_event(kind, job=job), says={"public_url": public_url}))
        assert said[-1].endswith(console)


def test_how_long_it_took_is_not_said_twice() -> None:
    footer = shown(**a_message(says={"text": "took 1 min 20 s after waiting 1 s"}))[-1]
    assert footer.startswith("failed · vod · j8d121c2 · ")


def test_a_job_that_runs_has_waited_and_has_not_taken_its_time() -> None:
    job = {**JOB, "ended_at": None, "queue_name": None}
    footer = shown(**a_message(event=an_event("job.running", job=job)))[-1]
    assert footer.startswith("failed · p2242ab6 · waited 1 s · j8d121c2 · ")


@pytest.mark.parametrize(
    ("title", "linked"),
    [
        ("demo.mp4 is broken", "<{}|demo.mp4> is broken"),
        ("demo.mp4 -> demo.mp4!", "demo.mp4 -&gt; <{}|demo.mp4>!"),
        ("It is broken", "<{}|It is broken>"),
        ("demo.mp4 of 2026-11-21T09:00:00Z", "<{}|demo.mp4> of 2026-11-21T09:00:00Z"),
    ],
)
def test_a_title_of_its_own_is_kept_and_links_the_file_or_itself(title: str, linked: str) -> None:
    expected = f"❌ *{linked.format(f'{URL}/jobs/{ID}')}*"
    assert shown(**a_message(says={"title": title, "text": ""}))[0] == expected


def test_a_long_name_is_cut_and_stays_a_link() -> None:
    name = "x" * 800
    (head,) = shown(**a_message(says={"title": f"Transcode Failed: {name}", "file": name, "text": ""}))[0].splitlines()
    link = f"<{URL}/jobs/{ID}|"
    assert head.startswith(f"❌ *Transcode Failed: {link}xxx")
    assert head.endswith("x…>*")
    assert 290 < len(head) - len(link) < 310


def test_no_text_has_the_whole_id_of_a_job_or_of_a_queue() -> None:
    for delivery in (a_message(), a_message("job.overdue"), a_message(says={"public_url": None})):
        assert not any(
            long in text.replace(f"/jobs/{ID}", "") for text in shown(**delivery) for long in (ID, JOB["queue"])
        )


# --- buttons ------------------------------------------------------------------------------------------------

BUTTONS = {"signing_secret": "hush", "team": "T1", "actions": ("U1",)}
HOOK = {"url": "https://hooks.slack.com/x", "channel": None, "token": None}
INCIDENT = {"says": {"incident": "inc_1", "rule": "sick"}, "thread": "incident/inc_1"}


def buttons(*, notifier: dict[str, Any] | None = None, is_reply: bool = False, **facts: Any) -> list[Button]:
    """Return the buttons of a message, read as a click returns them."""
    _, made = blocks(a_delivery(**facts), NOON, a_slack(**BUTTONS | (notifier or {})), is_reply=is_reply)
    assert refusal_of("x", made) is None
    elements = [one for block in made if block["type"] == "actions" for one in block["elements"]]
    found = [read_button(one["action_id"], one["value"]) for one in elements]
    return [button for button in found if button]


def deeds(**facts: Any) -> list[tuple[str, str]]:
    return [(button.deed.value, button.target) for button in buttons(**facts)]


SILENCE = ("silence", "sick")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (a_message(says={"rule": "sick"}), [SILENCE]),
        (a_message(says={"rule": None}), []),
        ({"says": {"rule": "sick"}, "event": an_event("job.overdue", watch="vod")}, [("poll", "vod"), SILENCE]),
        ({"says": {"rule": "sick"}, "event": an_event("watch.blind", watch="vod")}, [("poll", "vod")]),
        ({"says": {"rule": "sick"}, "event": an_event("watch.sees", watch="vod")}, []),
        ({"says": {"rule": None}, "event": an_event("test")}, []),
        (a_digest(gate="fallback", states={"Failed": 3}), [("resend", "d_1")]),
        (a_digest(states={"Failed": 3}, rule="sick"), [SILENCE]),
        (INCIDENT | {"event": an_event("incident.opened")}, [("acknowledge", "inc_1"), SILENCE]),
        (INCIDENT | {"event": an_event("incident.escalated")}, [("acknowledge", "inc_1"), SILENCE]),
        (INCIDENT | {"event": an_event("incident.opened", acknowledged_by="ann")}, [SILENCE]),
        (INCIDENT | {"event": an_event("incident.closed", closed_at="2026-11-21T12:00:00Z")}, [SILENCE]),
        (INCIDENT | {"event": an_event("group.completed")}, [SILENCE]),
    ],
)
def test_a_message_has_buttons_for_what_can_be_done(message: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert deeds(**message) == expected


@pytest.mark.parametrize("missing", BUTTONS)
def test_without_a_secret_a_workspace_and_people_there_are_no_buttons(missing: str) -> None:
    assert buttons(notifier={missing: None}, **a_message(says={"rule": "sick"})) == []


def test_only_the_first_message_of_an_incident_has_the_button_that_acknowledges_it() -> None:
    reminder = INCIDENT | {"event": an_event("incident.escalated")}
    assert [button.deed for button in buttons(is_reply=True, **reminder)] == [Deed.SILENCE]


def test_the_escalation_of_an_alarm_can_be_acknowledged_in_the_thread_of_the_job() -> None:
    reminder = INCIDENT | {"event": an_event("incident.escalated"), "thread": "b/j1"}
    assert [button.deed for button in buttons(is_reply=True, **reminder)] == [Deed.ACKNOWLEDGE, Deed.SILENCE]


def test_replies_are_not_edited_by_the_bridge() -> None:
    opened = INCIDENT | {"event": an_event("incident.opened")}
    assert {button.is_edited for button in buttons(is_reply=True, notifier={"update": True}, **opened)} == {False}


@pytest.mark.parametrize(
    ("notifier", "message", "expected"),
    [
        ({}, INCIDENT, True),
        ({}, {"thread": "b/j1"}, False),
        ({"update": True}, {"thread": "b/j1"}, True),
        ({"update": True}, {"thread": None}, False),
        (HOOK, INCIDENT, False),
    ],
)
def test_a_button_says_whether_the_bridge_edits_its_message(
    notifier: dict[str, Any], message: dict[str, Any], expected: bool
) -> None:
    facts = {"says": {"rule": "sick"}, "event": an_event("incident.opened"), **message}
    assert {button.is_edited for button in buttons(notifier=notifier, **facts)} == {expected}


@given(notifier=st.text(min_size=1, max_size=100), target=st.text(min_size=1, max_size=200), deed=st.sampled_from(Deed))
def test_a_button_comes_back_as_it_was(notifier: str, target: str, deed: Deed) -> None:
    button = Button(deed=deed, notifier=notifier, target=target)
    made = button.element()
    assert refusal_of("x", [{"type": "actions", "elements": [made]}]) is None
    back = read_button(made["action_id"], made["value"])
    assert back == (button if notifier.isprintable() and target.isprintable() else None)


def test_a_page_shows_which_buttons_a_message_has() -> None:
    opened = INCIDENT | {"event": an_event("incident.opened")}
    lines = preview(a_delivery(**opened), a_slack(**BUTTONS), at=NOON).lines
    assert "[Acknowledge]  [Silence this rule for 1 h]" in ["".join(piece.text for piece in line) for line in lines]


# --- symbols ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "mark"),
    [("Success", "✅"), ("Failed", "❌"), ("Pause", "⏸️"), ("Cancel", "🚫"), ("Running", "▶️"),
     ("Submitted", "🕓"), ("gone", "👻"), ("Novel", "❓"), (None, "❓")],
)  # fmt: skip
def test_each_state_has_its_mark(state: str | None, mark: str) -> None:
    assert blocks(a_delivery(says={"state": state}), NOON)[0].startswith(f"{mark} ")


@pytest.mark.parametrize(
    ("kind", "state", "mark"),
    [
        ("job.overdue", "Running", "⏳"),
        ("job.recovered", "Success", "🔄"),
        ("job.recovered", "Failed", "❌"),
        ("test", None, "🧪"),
        ("watch.blind", None, "🔌"),
        ("watch.sees", None, "🔄"),
    ],
)
def test_each_meaning_has_its_mark(kind: str, state: str | None, mark: str) -> None:
    delivery = a_delivery(says={"state": state}, event=an_event(kind))
    assert blocks(delivery, NOON)[0].startswith(f"{mark} ")
    assert plain(delivery, NOON).startswith(f"{mark} ")


def test_what_is_about_a_watch_has_no_link_that_silences_its_rule() -> None:
    says = {"rule": "blind", "public_url": URL}
    for kind, is_there in (("watch.blind", False), ("job.failed", True)):
        text = json.dumps(blocks(a_delivery(says=says, event=an_event(kind)), NOON)[1])
        assert ("Silence this rule" in text) is is_there


def test_what_is_late_says_so_in_the_first_line_too() -> None:
    assert shown(happened_at=NOON - timedelta(hours=1))[0].startswith("❌🕰️ *")


@pytest.mark.parametrize("state", ["Success", "Failed", None])
def test_what_another_notifier_did_not_get_never_has_a_green_tick(state: str | None) -> None:
    note = "This could not be sent to assets: answered 500"
    assert shown(says={"state": state}, note=note)[0].startswith("⚠️ *")
    assert shown(**a_digest(gate="fallback", states={state or "": 3}))[0].startswith("⚠️ *")


@pytest.mark.parametrize(
    ("states", "mark"),
    [({"Success": 9, "Failed": 1}, "❌"), ({"Success": 2, "Running": 1}, "▶️"), ({"Success": 2}, "✅"), ({}, "📋")],
)
def test_a_digest_has_the_mark_of_its_worst_state(states: dict[str, int], mark: str) -> None:
    assert shown(**a_digest(states=states))[0].startswith(f"{mark} *")


def test_the_root_of_a_workflow_counts_its_jobs_the_worst_first() -> None:
    counts, text = {"Success": 3, "Running": 2, "Failed": 1}, "Transcode Failed: demo.mp4"
    says = {"title": "Workflow ladder", "text": text, "counts": counts, "state": None, "job_id": None}
    title = f"<{URL}/jobs/{ID}|Workflow ladder>"
    body, footer = shown(**a_message(says=says))
    assert body == f"❌ *{title}*\n1 Failed · 2 Running · 3 Success\nTranscode Failed: demo.mp4"
    assert footer == f"failed · vod · <{URL}/silences/add?rule=failed|Silence this rule>"


# --- what comes next ----------------------------------------------------------------------------------------


def test_what_is_stuck_can_be_opened_and_silenced() -> None:
    says = {"title": "Transcode Running for 31 min: demo.mp4", "text": "Running since 2026-11-21T11:29:00Z; 40 % done"}
    body, footer = shown(**a_message("job.overdue", says=says))
    since = "<!date^1795260540^{date_short_pretty} {time}|2026-11-21 11:29 UTC>"
    steps = f"<{URL}/jobs/{ID}|Open the job> · <{URL}/silences/add?rule=failed|Silence this rule>"
    assert body.splitlines()[1:] == [f"Running since {since}; 40 % done", steps]
    assert "Silence" not in footer


def test_a_long_text_does_not_push_out_what_can_be_done() -> None:
    (body, _) = shown(**a_message("job.overdue", says={"text": "x" * 5000}))
    assert len(body) <= 3000
    assert body.endswith("…\n" + f"<{URL}/jobs/{ID}|Open the job> · <{URL}/silences/add?rule=failed|Silence this rule>")


def test_a_digest_ends_in_a_link_to_all_of_it() -> None:
    (body,) = shown(**a_digest(states={"Failed": 14}, title="failed: 14 Failed", text="... and 9 more"))
    assert body == f"❌ *failed: 14 Failed*\n... and 9 more\n<{URL}/deliveries?digest=d_1|All 14 messages>"


def test_without_the_address_of_the_pages_a_digest_says_how_many_more() -> None:
    (body,) = shown(**a_digest(states={"Failed": 14}, title="t", text="... and 9 more", public_url=None))
    assert body == "❌ *t*\n... and 9 more"


def test_what_was_not_delivered_can_be_resent() -> None:
    (body,) = shown(**a_digest(gate="fallback", states={"Failed": 14}, title="Not delivered", text="answered 500"))
    all_of_it = f"<{URL}/deliveries?digest=d_1|All 14 messages>"
    resend = f"<{URL}/deliveries?state=dead&amp;notifier=assets|Resend what assets did not get>"
    assert body == f"⚠️ *Not delivered*\nanswered 500\n{all_of_it} · {resend}"


def test_the_only_message_that_was_not_delivered_is_a_link_to_its_job() -> None:
    says = {"title": "Not delivered to assets (500): demo.mp4", "file": "demo.mp4", "text": ""}
    (body,) = shown(**a_digest(gate="fallback", states={"Failed": 1}, **says))
    assert body.splitlines()[0] == f"⚠️ *Not delivered to assets (500): <{URL}/jobs/j0|demo.mp4>*"


# --- times, links and mentions ------------------------------------------------------------------------------


def test_a_time_is_shown_in_the_readers_zone_and_in_utc_where_that_is_not_known() -> None:
    text, made = blocks(a_delivery(says={"text": "since 2026-11-21T09:00:00Z", "fields": []}), NOON)
    assert text.endswith("\nsince 2026-11-21 09:00 UTC")
    since = "<!date^1795251600^{date_short_pretty} {time}|2026-11-21 09:00 UTC>"
    assert texts(made)[0].endswith(f"\nsince {since}")
    assert (
        plain(a_delivery(says={"text": "since 2026-11-21T09:00:00Z"}), NOON).splitlines()[1]
        == "since 2026-11-21 09:00 UTC"
    )


@pytest.mark.parametrize(
    "text", ["2026-99-21T09:00:00Z", "2026-11-21 09:00", "12026-11-21T09:00:00Z", "cam-2026-11-21T09:00:00Z.mp4"]
)
def test_what_only_looks_like_a_time_stays(text: str) -> None:
    assert shown(says={"text": text})[0].endswith(f"\n{text}")


def test_a_link_of_a_template_is_one_and_the_same_text_of_a_job_is_not() -> None:
    links = [["open & <see>|it", "https://h.example/?a=1&b=|<2>"]]
    text = "open & <see>|it (https://h.example/?a=1&b=|<2>), not evil (https://evil.example/)"
    body = shown(says={"title": "t", "text": text, "links": links})[0]
    link = "<https://h.example/?a=1&amp;b=%7C%3C2%3E|open &amp; &lt;see&gt;¦it>"
    assert body == f"❌ *t*\n{link}, not evil (https://evil.example/)"


def test_a_title_with_a_link_of_its_template_has_no_other() -> None:
    says = {"title": "demo.mp4: open (https://h.example/)", "text": "", "links": [["open", "https://h.example/"]]}
    assert shown(**a_message(says=says))[0] == "❌ *demo.mp4: <https://h.example/|open>*"


def test_a_rule_mentions_people_groups_and_channels_in_the_notification_and_in_the_message() -> None:
    says = {"mention": ["U024BE7LH", "W1", "S0123ABC", "here", "channel", "@anna", "!everyone>"], "text": "x" * 5000}
    text, made = blocks(a_delivery(says=says), NOON)
    called = "<@U024BE7LH> <@W1> <!subteam^S0123ABC> <!here> <!channel>"
    assert text.endswith(f"\n{called}")
    assert texts(made)[1] == called
    assert plain(a_delivery(says=says), NOON).endswith(f"\n{called}")


HOSTILE = st.lists(
    st.sampled_from(
        ["<!channel>", "<!here>", "<@U024BE7LH>", "<!subteam^S1>", "|", ">", "<", "*", "`", "```", "\n", "\u202e",
         "@here", "<https://evil.example|x>", "2026-11-21T09:00:00Z", "<!date^1^{time}|x>", "&lt;", "x" * 400, "转"]
    ),
    max_size=12,
).map("".join)  # fmt: skip
OURS = re.compile(
    rf"<(?:{URL}/[^<>|\s]*\|[^<>|]*|!date\^\d+\^\{{date_short_pretty\}} \{{time\}}\|[0-9: -]+UTC)>|&(?:amp|lt|gt);"
)


@settings(max_examples=150)
@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE, st.booleans())
def test_whatever_a_job_says_nobody_is_mentioned_and_no_link_breaks(
    title: str, text: str, file: str, rule: str, digest: bool
) -> None:
    says = {"title": f"{title}{file}", "text": text, "file": file, "rule": rule, "fields": [[title, text]]}
    facts = a_digest(states={"Failed": 3}, **says) if digest else a_message("job.overdue", says=says)
    delivery = a_delivery(**facts, note=text)
    notification, made = blocks(delivery, NOON)
    for piece in (notification, *texts(made), plain(delivery, NOON)):
        rest = OURS.sub("", piece)
        assert not re.search("[<>&]", rest)
    assert refusal_of(notification, made) is None


@pytest.mark.parametrize(
    ("says", "mark"),
    [({"digest": True}, "📋"), ({"digest": False}, "❓"), ({}, "❓"), ({"digest": True, "state": "Failed"}, "❌")],
)
def test_a_digest_of_which_no_state_is_known_has_a_mark_of_its_own(says: dict[str, Any], mark: str) -> None:
    delivery = a_delivery(says={"state": None, "title": "12 jobs", "text": "vod: 12", **says})
    text, made = blocks(delivery, NOON)
    assert text == f"{mark} 12 jobs\nvod: 12"
    assert texts(made)[0] == f"{mark} *12 jobs*\nvod: 12"
    assert plain(delivery, NOON).startswith(f"{mark} 12 jobs\nvod: 12")


# --- foreign text -------------------------------------------------------------------------------------------


def test_data_cannot_mention_people_or_make_links() -> None:
    evil = "<!channel> & <https://evil.example|click>"
    says = {"title": evil, "text": evil, "fields": [[evil, evil]], "rule": evil, "job_id": evil}
    text, made = blocks(a_delivery(says=says, note=evil), NOON)
    for piece in (text, *texts(made), plain(a_delivery(says=says, note=evil), NOON)):
        assert "<" not in piece
        assert ">" not in piece
        assert "&lt;!channel&gt; &amp;" in piece


@pytest.mark.parametrize(
    "sign", ["\u202e", "\u2066", "\u200f", "\u061c", "\x1b", "\x00", "\x85", "\x9b", "\u2028", "\x1f"]
)
def test_what_would_act_unseen_is_spelt_out(sign: str) -> None:
    evil, shown_as = f"photo{sign}gpj.exe", f"photo{sign.encode('unicode_escape').decode()}gpj.exe"
    says = {"title": evil, "text": f"{evil}\nsecond\tline", "fields": [[evil, evil]], "rule": evil, "job_id": evil}
    delivery = a_delivery(says=says, note=evil)
    text, made = blocks(delivery, NOON)
    for piece in (text, *texts(made), plain(delivery, NOON)):
        assert sign not in piece
        assert shown_as in piece
    assert "\nsecond\tline" in text


def test_joiners_that_languages_need_stay() -> None:
    says = {"title": "می\u200cخواهم", "text": "क्\u200dष 👩\u200d👧"}
    assert blocks(a_delivery(says=says), NOON)[0] == "❌ می\u200cخواهم\nक्\u200dष 👩\u200d👧"


def test_data_is_shown_verbatim_and_the_look_alike_takes_it() -> None:
    says = {"title": "@here", "text": "see https://evil.example #general", "fields": [["who", "@channel"]]}
    text, made = blocks(a_delivery(says=says, note="@all"), NOON)
    pieces = [block["text"] for block in made if "text" in block]
    pieces += [piece for block in made for piece in block.get("fields", []) + block.get("elements", [])]
    assert len(pieces) == 4
    assert all(piece["verbatim"] is True for piece in pieces)
    assert refusal_of(text, made) is None


@pytest.mark.parametrize(
    ("late", "sentence"),
    [
        (timedelta(hours=3, minutes=2), "Delivered late: this happened at 2026-11-21T08:58:00Z, 3 h 2 min ago."),
        (timedelta(minutes=6), "Delivered late: this happened at 2026-11-21T11:54:00Z, 6 min ago."),
        (timedelta(days=2, hours=1, minutes=9), "Delivered late: this happened at 2026-11-19T10:51:00Z, 2 d 1 h ago."),
        (timedelta(minutes=5), None),
        (timedelta(hours=-1), None),
    ],
)
def test_a_message_is_late_after_five_minutes_and_says_so_in_its_two_largest_units(
    late: timedelta, sentence: str | None
) -> None:
    assert lateness(NOON - late, NOON) == sentence
    said = "".join(shown(happened_at=NOON - late))
    assert ("Delivered late: this happened at <!date^" in said) == (sentence is not None)


def test_a_note_is_shown() -> None:
    assert "could not be sent to ops" in shown(note="could not be sent to ops")


def test_a_message_with_nothing_to_say_is_still_one_that_slack_takes() -> None:
    says = {"title": None, "text": None, "fields": [["", ""]], "state": None, "rule": None, "job_id": None}
    text, made = blocks(a_delivery(says=says), NOON)
    assert texts(made) == ["❓ *(no title)*", "*-*\n-"]
    assert refusal_of(text, made) is None


@settings(max_examples=50)
@given(LONG, LONG, st.lists(st.tuples(LONG, LONG), max_size=15), LONG, LONG, st.booleans())
def test_no_text_is_too_long_for_slack(
    title: str, text: str, fields: list[tuple[str, str]], rule: str, note: str, linked: bool
) -> None:
    says = {"title": title, "text": text, "fields": fields, "rule": rule, "job_id": rule, "file": title[:50]}
    says |= {"public_url": URL, "mention": ["U024BE7LH9"] * 20} if linked else {}
    delivery = a_delivery(says=says, note=note, happened_at=NOON - timedelta(days=3))
    fallback, made = blocks(delivery, NOON)
    assert len(made) <= 50
    assert sum(map(len, texts(made))) + len(fallback) < 12_000
    assert len(fallback) <= 1000
    assert len(plain(delivery, NOON)) <= 3000
    for block in made:
        assert len(block.get("fields", [])) <= 10
        assert all(0 < len(field["text"]) <= 2000 for field in block.get("fields", []))
        assert 0 < len(block.get("text", {"text": "-"})["text"]) <= 3000
    json.dumps(made)


@given(st.text("a&<>", max_size=60), st.integers(8, 40))
def test_a_cut_never_leaves_half_of_an_escape(text: str, limit: int) -> None:
    cut = fit(text, limit)
    assert len(cut) <= limit
    rest = cut.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "")
    assert "&" not in rest
    assert cut.endswith("…") or cut == fit(text, 10_000)
