"""Buttons in Slack that act: who may, what is done once, and what people and messages say afterwards."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl

import pytest

from bridge.admin.auth_throttle import BURST
from bridge.pipeline.operations import Conflict
from bridge.record import incidents
from bridge.record.outbox import silences
from bridge.record.schema import actions, digests
from bridge.send.slack.buttons import Button, Deed
from bridge.send.slack.clicks import CLICK_LIMIT
from bridge.simulator.clicks import ANN, SIGNING_SECRET, User, form, post_to, signed
from bridge.simulator.web import Answer
from tests.support.admin_world import World, a_silence
from tests.support.nouns import by_hand
from tests.support.records import execute
from tests.support.slack_desk import BEN, EVE, OTHER_SECRET, SECOND, Desk, a_desk, with_buttons, with_value
from tests.support.waiting import wait_until

ANN_SHOWN = "ann (U024BE7LH)"
NOTHING = "Nothing was done: there is nothing to resend: "
MINUTE = timedelta(minutes=1)


@pytest.fixture
def desk(world: World) -> Iterator[Desk]:
    with a_desk(world) as desk:
        yield desk


@pytest.fixture
def either_desk(either_world: World) -> Iterator[Desk]:
    """The same test on SQLite and PostgreSQL."""
    with a_desk(either_world) as desk:
        yield desk


def send(desk: Desk, body: bytes, *, secret: str = SIGNING_SECRET, **headers: str) -> int:
    """Post a body to the bridge, signed now."""
    return post_to(desk.slack.request_url, body, signed(body, secret, desk.slack.now()) | headers)


def click_of(desk: Desk, **changes: Any) -> bytes:
    """Return a click with other facts; None takes one out."""
    post = desk.posts(Deed.SILENCE, "all")
    payload = json.loads(dict(parse_qsl(desk.slack.click_body(post, "silence").decode()))["payload"])
    return form({key: value for key, value in (payload | changes).items() if value is not None})


def standing(desk: Desk) -> list[str]:
    with desk.world.db.read() as tx:
        return [one.id for one in silences.not_ended(tx, now=desk.world.now)]


# --- what is done ---------------------------------------------------------------------------------------------------


def test_an_incident_is_acknowledged_in_the_name_of_who_clicked(either_desk: Desk) -> None:
    desk, incident = either_desk, either_desk.world.incident("j1")
    post = desk.posts(Deed.ACKNOWLEDGE, incident)

    assert desk.slack.click(post, "acknowledge") == 200

    assert desk.said() == ["Acknowledged: it does not escalate."]
    assert desk.done == [(ANN_SHOWN, "acknowledge_incident", incident)]
    assert desk.shown(post) == [
        "🟡 Acknowledged by ann (U024BE7LH) at 2026-11-21 12:00 UTC.".replace(
            "2026-11-21 12:00 UTC", "<!date^1795262400^{date_short_pretty} {time}|2026-11-21 12:00 UTC>"
        )
    ]


def test_a_rule_is_silenced_for_an_hour(either_desk: Desk) -> None:
    desk = either_desk
    post = desk.posts(Deed.SILENCE, "all")

    assert desk.slack.click(post, "silence") == 200

    (said,) = desk.said()
    assert said.startswith('Rule "all" is silenced until <!date^1795266000^')
    with desk.world.db.read() as tx:
        (made,) = silences.not_ended(tx, now=desk.world.now)
    assert (json.loads(made.spec), made.author, made.drop) == ({"rule": "all"}, ANN_SHOWN, False)
    assert (made.begins_at, made.ends_at) == (desk.world.now, desk.world.now + 60 * MINUTE)
    assert desk.done == [(ANN_SHOWN, "make_silence", made.id)]
    assert [text.partition("<")[0] for text in desk.shown(post)] == [
        f'🔕 Rule "all" was silenced by {ANN_SHOWN} until '
    ]


def test_what_a_fallback_was_told_of_is_resent(either_desk: Desk) -> None:
    desk = either_desk
    digest = desk.a_fallbacks_digest(1, 2, 3)
    desk.world.delivery_of(4)  # is not among them
    desk.world.give_up("another day")
    post = desk.posts(Deed.RESEND, digest)

    assert desk.slack.click(post, "resend") == 200

    assert desk.said() == ["3 messages are sent again."]
    states = [row["state"] for row in desk.world.deliveries(notifier="cms")]
    assert sorted(states) == ["dead", "waiting", "waiting", "waiting"]
    ((who, what, _),) = desk.done
    assert (who, what) == (ANN_SHOWN, "redrive_batch")


def test_more_than_a_message_can_be_resent_for_is_left_to_the_dashboard(desk: Desk) -> None:
    digest = desk.a_fallbacks_digest(1, 2, 3)
    with pytest.raises(Conflict, match="these are more than 2 messages; resend them on the dashboard, or by command"):
        by_hand(desk.world.db, now=desk.world.now).redrive_fallback(digest, largest=2)
    assert [row["state"] for row in desk.world.deliveries(notifier="cms")] == ["dead"] * 3


def test_a_watch_is_polled_now(either_desk: Desk) -> None:
    desk = either_desk
    desk.world.polled()

    assert desk.slack.click(desk.posts(Deed.POLL, "vod"), "poll") == 200

    assert desk.said() == ['Watch "vod" is polled next.']
    assert desk.world.watch()["next_poll_at"] is None
    assert desk.done == [(ANN_SHOWN, "poll_watch", "vod")]


def begun(desk: Desk, deed: Deed) -> str:
    """Make what the deed can be done to; return its id or name."""
    match deed:
        case Deed.ACKNOWLEDGE:
            return desk.world.incident("j1")
        case Deed.RESEND:
            return desk.a_fallbacks_digest(1, 2)
        case Deed.POLL:
            desk.world.polled()
            return "vod"
    return "all"


@pytest.mark.parametrize("deed", Deed)
def test_fifty_clicks_at_once_do_it_once_and_each_is_answered(either_desk: Desk, deed: Deed) -> None:
    desk = either_desk
    post = desk.posts(deed, begun(desk, deed))
    bodies = [desk.slack.click_body(post, deed, user) for user in [ANN, BEN] * 25]

    with ThreadPoolExecutor(50) as clicking:
        assert set(clicking.map(lambda body: send(desk, body), bodies)) == {200}

    assert len(desk.said(50)) == 50
    assert len(desk.done) == 1
    (who, _, _) = desk.done[0]
    already = [said for said in desk.slack.whispers if "already" in said.text or f"by {who}" in said.text]
    assert len(already) == 49, desk.slack.whispers
    assert len(desk.shown(post)) == 1


def test_a_rule_can_be_silenced_again_when_the_hour_is_over(either_desk: Desk) -> None:
    desk = either_desk
    post = desk.posts(Deed.SILENCE, "all", is_edited=True)  # so its button stays
    for hour in range(3):
        assert desk.slack.click(post, "silence") == 200
        assert desk.slack.click(post, "silence", BEN) == 200
        desk.said(2 * hour + 2)
        assert len(standing(desk)) == 1
        desk.world.now += 61 * MINUTE

    assert [who for who, *_ in desk.done] == [ANN_SHOWN] * 3


def test_a_rule_that_a_person_has_silenced_otherwise_is_not_silenced_twice(desk: Desk) -> None:
    with desk.world.db.write() as tx:
        silences.add(tx, a_silence(spec='{"rule":"all"}'))

    desk.slack.click(desk.posts(Deed.SILENCE, "all"), "silence")

    assert desk.said()[0].startswith('Nothing was done: rule "all" was silenced by ann until <!date^')
    assert desk.done == []


# --- what messages say ----------------------------------------------------------------------------------------------


def test_other_buttons_of_the_message_stay(desk: Desk) -> None:
    incident = desk.world.incident("j1")
    post = desk.shows(
        Button(deed=Deed.ACKNOWLEDGE, notifier="ops/1", target=incident),
        Button(deed=Deed.SILENCE, notifier="ops/1", target="all"),
    )

    desk.slack.click(post, "acknowledge")
    desk.said()

    said, left = desk.shown(post)
    assert said.startswith(f"🟡 Acknowledged by {ANN_SHOWN}")
    assert left == "Silence this rule for 1 h"


def test_a_message_that_the_bridge_edits_is_left_to_it(desk: Desk) -> None:
    incident = desk.world.incident("j1")
    desk.slack.click(desk.posts(Deed.ACKNOWLEDGE, incident, is_edited=True), "acknowledge")
    post = desk.posts(Deed.SILENCE, "all", is_edited=True)
    desk.slack.click(post, "silence")
    desk.said(2)

    replies = [(one.thread_ts, one.text.partition("<")[0]) for one in desk.slack.posts if one.thread_ts]
    assert replies == [(post.ts, f'🔕 Rule "all" was silenced by {ANN_SHOWN} until ')]
    assert desk.shown(post) == ["Silence this rule for 1 h"]


def test_names_cannot_act_in_slack_or_in_a_list(desk: Desk) -> None:
    bad = User(id=ANN.id, name="<!channel> \u202eann\n\x00\ud800" + "x" * 500)
    post = desk.posts(Deed.ACKNOWLEDGE, desk.world.incident("j1"))

    assert desk.slack.click(post, "acknowledge", bad) == 200
    desk.said()

    ((who, _, _),) = desk.done
    assert who.startswith("<!channel> \\u202eann")
    assert who.isprintable()
    assert len(who) < 100
    assert "<!channel>" not in desk.shown(post)[0]
    assert "&lt;!channel&gt;" in desk.shown(post)[0]


# --- what is not done -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "team", "said"),
    [
        (EVE, "T000", "You may not do this: your id U0EVE0000 is not among the actions of ops/1 in rules.toml."),
        (ANN, "T0WRONG", "You are in the workspace T0WRONG, which is not that of ops/1; nothing was done."),
    ],
)
def test_who_may_not_is_told_so(either_desk: Desk, user: User, team: str, said: str) -> None:
    desk = either_desk

    assert desk.slack.click(desk.posts(Deed.SILENCE, "all"), "silence", user, team) == 200

    assert desk.said() == [said]
    assert (desk.done, standing(desk)) == ([], [])


def closed(desk: Desk) -> str:
    incident = desk.world.incident("j1")
    with desk.world.db.write() as tx:
        incidents.close_all(
            tx, [found.n for found in incidents.current(tx, "all")], "the rule is gone", now=desk.world.now
        )
    return incident


def pruned(desk: Desk) -> str:
    digest = desk.a_fallbacks_digest(1)
    execute(desk.world.db, digests.delete())
    return digest


def resent(desk: Desk) -> str:
    digest = desk.a_fallbacks_digest(1)
    (dead,) = [row["id"] for row in desk.world.deliveries(notifier="cms")]
    by_hand(desk.world.db, now=desk.world.now).redrive(str(dead))
    execute(desk.world.db, actions.delete())
    return digest


@pytest.mark.parametrize(
    ("deed", "target", "said"),
    [
        (Deed.ACKNOWLEDGE, closed, "Nothing was done: incident inc_k1 has been closed since "),
        (Deed.ACKNOWLEDGE, "inc_gone", 'Nothing was done: there is no incident "inc_gone".'),
        (Deed.RESEND, pruned, f"{NOTHING}what this message tells of was pruned."),
        (Deed.RESEND, resent, f"{NOTHING}all of it was resent already, or pruned."),
        (Deed.RESEND, "dlv_gone", f"{NOTHING}what this message tells of was pruned."),
        (Deed.SILENCE, "gone", 'Nothing was done: rules.toml has no rule "gone"; there are: failed, all.'),
        (Deed.POLL, "gone", 'Nothing was done: rules.toml has no watch "gone"; there are: vod.'),
        (Deed.POLL, "vod", 'Nothing was done: watch "vod" is to be polled next already; no worker is running, '),
    ],
)
def test_what_cannot_be_done_is_said(
    either_desk: Desk, deed: Deed, target: str | Callable[[Desk], str], said: str
) -> None:
    desk = either_desk
    post = desk.posts(deed, target if isinstance(target, str) else target(desk))
    before = desk.shown(post)

    assert desk.slack.click(post, deed) == 200

    assert desk.said()[0].startswith(said)
    assert desk.done == []
    assert desk.shown(post) == before


@pytest.mark.parametrize(
    "value",
    [
        "", "x", "[]", "{}", '{"notifier": "ops/1"}', '{"notifier": "ops/1", "target": 7}', "[" * 5000,
        json.dumps({"notifier": "ops/1", "target": "a\0b"}), json.dumps({"notifier": "ops/1", "target": "x" * 300}),
        json.dumps({"notifier": "ops/1", "target": "\ud800"}),
    ],
)  # fmt: skip
def test_an_unknown_button_does_nothing(desk: Desk, value: str) -> None:
    post = with_value(desk.posts(Deed.ACKNOWLEDGE, "inc_1"), value)

    assert desk.slack.click(post, "acknowledge") == 200
    assert desk.said() == ["This button is none that this version of the bridge knows; nothing was done."]


def test_an_unknown_action_does_nothing(desk: Desk) -> None:
    button = {"action_id": "format_disk", "value": '{"notifier": "ops/1", "target": "x"}', "type": "button"}

    assert send(desk, click_of(desk, actions=[button])) == 200
    wait_until(lambda: desk.slack.whispers)
    assert desk.done == []


def test_a_notifier_that_is_gone_from_the_rules_says_so(desk: Desk) -> None:
    desk.slack.click(desk.posts(Deed.SILENCE, "all", notifier="old"), "silence")

    assert desk.said() == ['rules.toml has no notifier "old" with buttons any more; nothing was done.']


def test_an_app_cannot_click_for_another_app(world: World) -> None:
    with a_desk(world, with_buttons(tail=SECOND)) as desk:
        body = desk.slack.click_body(desk.posts(Deed.SILENCE, "all"), "silence")

        assert send(desk, body, secret=OTHER_SECRET) == 200
        assert "nothing was done" in desk.said()[0]
        assert desk.done == []
        assert send(desk, body) == 200
        desk.said(2)
        assert len(desk.done) == 1


# --- who is let in --------------------------------------------------------------------------------------------------


def test_without_a_signing_secret_nothing_is_there(world: World) -> None:
    with a_desk(world, with_buttons("")) as desk:
        assert {send(desk, click_of(desk)) for _ in range(2 * BURST)} == {404}


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Slack-Signature": "v0=" + "0" * 64}, {"X-Slack-Signature": ""}, {"X-Slack-Signature": "v0=\xe9"},
        {"X-Slack-Request-Timestamp": ""}, {"X-Slack-Request-Timestamp": "soon"},
        {"X-Slack-Request-Timestamp": "1" * 5000}, {"X-Slack-Request-Timestamp": "1795262401"},
    ],
)  # fmt: skip
def test_a_wrong_signature_is_refused(desk: Desk, headers: dict[str, str]) -> None:
    assert send(desk, click_of(desk), **headers) == 401
    assert (desk.done, desk.slack.whispers) == ([], [])


def test_the_secret_of_another_app_is_refused(desk: Desk) -> None:
    assert send(desk, click_of(desk), secret="guessed") == 401


@pytest.mark.parametrize(("minutes", "status"), [(-6, 401), (-4, 200), (4, 200), (6, 401)])
def test_a_click_is_taken_within_five_minutes(desk: Desk, minutes: int, status: int) -> None:
    body = click_of(desk)
    headers = signed(body, SIGNING_SECRET, desk.slack.now())
    desk.world.now += minutes * MINUTE

    assert post_to(desk.slack.request_url, body, headers) == status


def test_who_guesses_has_to_wait_and_locks_out_no_signed_click(desk: Desk) -> None:
    answers = [send(desk, click_of(desk), secret="guessed") for _ in range(BURST + 2)]

    assert answers == [401] * BURST + [429] * 2
    assert send(desk, click_of(desk)) == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"x" * (CLICK_LIMIT + 1), 413), (b"", 400), (b"\xff\xfe", 401), (b"{}", 400), (b"payload=", 400),
        (b"payload=%7B%7D&payload=%7B%7D", 400), (b"&".join([b"a=1"] * 50), 400), (b"payload=[]", 400),
        (b"payload=" + b"[" * 50_000, 400), (b"payload=" + b'{"a":' * 5000, 400), (b"payload=" + b"9" * 10_000, 400),
    ],
)  # fmt: skip
def test_what_is_no_click_is_refused(desk: Desk, body: bytes, status: int) -> None:
    assert send(desk, body) == status
    assert desk.done == []


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "view_submission"}, {"type": None}, {"user": None}, {"user": {"id": 7}}, {"user": {"id": "x" * 99}},
        {"team": None}, {"team": {"id": ""}}, {"team": "T000"}, {"actions": None}, {"actions": []},
        {"actions": [{}, {}]}, {"actions": ["silence"]},
    ],
)  # fmt: skip
def test_a_click_without_what_it_needs_is_refused(desk: Desk, changes: dict[str, Any]) -> None:
    assert send(desk, click_of(desk, **changes)) == 400
    assert (desk.done, desk.slack.whispers) == ([], [])


@pytest.mark.parametrize(
    "changes",
    [
        {"message": None}, {"channel": None}, {"message": {"blocks": 7, "ts": 7, "text": []}}, {"channel": "C1"},
        {"channel": {"id": "\ud800"}}, {"container": None, "state": None, "trigger_id": None},
    ],
)  # fmt: skip
def test_what_a_deed_does_not_need_may_be_missing(desk: Desk, changes: dict[str, Any]) -> None:
    assert send(desk, click_of(desk, **changes)) == 200
    desk.said()
    assert len(desk.done) == 1


def test_the_longest_message_can_be_clicked(desk: Desk) -> None:
    """Twelve thousand characters that JSON writes as "\\uXXXX", and a form as eight bytes each, beside its text."""
    post = desk.posts(Deed.SILENCE, "all")
    long = [{"type": "section", "text": {"type": "mrkdwn", "text": "媒" * 3000}}] * 4
    channel = desk.slack.workspace.channel("C024BE91L")
    post = desk.slack.workspace.post(channel, "U1", "媒" * 1000, [*long, *post.blocks[1:]])
    assert len(desk.slack.click_body(post, "silence")) > 64 * 1024

    assert desk.slack.click(post, "silence") == 200
    desk.said()
    assert any("was silenced by" in text for text in desk.shown(post))


# --- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "elsewhere",
    ["https://hooks.slack.com.evil.example/x", "http://127.0.0.1:1/x", "https://hooks.slack.com/x", "x", "", None, 7],
)
def test_answers_go_to_slack_only(desk: Desk, elsewhere: object, caplog: pytest.LogCaptureFixture) -> None:
    """Here Slack is the look-alike, so its own address is not Slack's."""
    assert send(desk, click_of(desk, response_url=elsewhere)) == 200

    wait_until(lambda: "names no address of Slack" in caplog.text)
    assert len(desk.done) == 1
    assert "Could not" not in caplog.text


def test_slack_does_not_wait_for_the_answer_to_the_person(desk: Desk) -> None:
    clicked = threading.Event()

    def slow(_: object) -> Answer | None:
        clicked.wait(60)
        return None

    desk.slack.fault = slow
    assert desk.slack.click(desk.posts(Deed.SILENCE, "all"), "silence") == 200
    assert desk.slack.whispers == []
    clicked.set()

    assert len(desk.said()) == 1


def test_slack_is_answered_although_the_database_is_busy(desk: Desk) -> None:
    with desk.world.db.write():
        assert desk.slack.click(desk.posts(Deed.SILENCE, "all"), "silence") == 200
        assert desk.done == []

    desk.said()
    assert len(desk.done) == 1


def test_a_person_is_told_that_the_database_does_not_answer(desk: Desk) -> None:
    with desk.world.db.write() as tx:
        tx.exec_driver_sql("ALTER TABLE silence RENAME TO gone")

    assert desk.slack.click(desk.posts(Deed.SILENCE, "all"), "silence") == 200
    assert desk.said() == [
        "The bridge's database does not answer, so it is not known whether this was done. Try again later."
    ]


def test_an_answer_that_slack_refuses_is_in_the_log(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.slack.fault = lambda _: Answer(status=500)
    desk.slack.click(desk.posts(Deed.SILENCE, "all"), "silence")

    wait_until(lambda: "could not be answered" in caplog.text)
    assert {vars(record).get("why") for record in caplog.records} >= {"Slack answered 500"}


def test_no_secret_is_in_an_answer_or_the_log(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        desk.slack.click(desk.posts(Deed.SILENCE, "all"), "silence")
        desk.slack.click(desk.posts(Deed.SILENCE, "all"), "silence", EVE)
        send(desk, click_of(desk), secret="guessed")
        desk.said(2)

    assert SIGNING_SECRET not in caplog.text
    assert "/actions/" not in caplog.text
    assert not any("/actions/" in str(value) for record in caplog.records for value in vars(record).values())


def test_a_form_of_another_media_type_is_a_click_too(desk: Desk) -> None:
    body = click_of(desk)

    assert send(desk, body, **{"Content-Type": "text/plain"}) == 200
