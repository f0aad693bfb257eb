"""Templates that fail, bodies and channels of one's own, from the transition to the sender."""

from __future__ import annotations

import json

from bridge.model import FAILED, Delivery, Outcome, Rejected, Sent
from bridge.record import rulesets
from bridge.record.database import Database
from bridge.record.schema import delivery
from tests.conftest import on_both
from tests.support.records import Clock, hours, minutes, rows
from tests.support.simulated_bridge import GIVEN, House

OVER = '[[rule]]\nname = "over"\nto = "done"\nnotify = "ops"\n'
BODY = """
[notifier.ops.body]
asset = "{{ job.user_data.asset }}"
ok = "{{ job.state == 'Success' }}"
wait = "{{ job.wait }}"
"""


def began(db: Database, clock: Clock, rules: str) -> House:
    house = House(db, rules, clock)
    house.poll()
    clock.advance(minutes(1))
    return house


def end(house: House, *ids: str, **facts: object) -> None:
    for id_ in ids:
        house.has(id_, FAILED, **facts)
    house.poll()
    house.deliver()


@on_both
def test_a_template_that_fails_tells_the_default_text_is_counted_and_marks_its_rule(db: Database, clock: Clock) -> None:
    rules = OVER + 'template = "t"\n[template.t]\ntitle = "{{ 1 // (job.outputs_total - 3) }}"\n'
    house = began(db, clock, rules)
    end(house, "j1", "j2", outputs_total=3)
    end(house, "j3", outputs_total=1)
    assert [one.title for one in house.heard()] == ["Transcode Failed: j1.mp4", "Transcode Failed: j2.mp4", "-1"]
    with db.read() as tx:
        (found,) = rulesets.faults(tx).items()
    assert (found[0], found[1]["count"]) == ("over", 2)
    assert "ZeroDivisionError" in found[1]["why"]


def test_a_body_of_ones_own_goes_to_its_notifier_only(db: Database, clock: Clock) -> None:
    house = began(db, clock, BODY + OVER.replace('"ops"', '["ops", "cms"]'))
    end(house, "j1", user_data="asset=a-7")
    bodies = {one.notifier: one.body for one in house.transport.begun}
    assert json.loads(bodies["ops"] or "") == {"asset": "a-7", "ok": False, "wait": 0.0}
    assert bodies["cms"] is None


def test_a_body_that_fails_gives_way_to_the_usual_one(db: Database, clock: Clock) -> None:
    house = began(db, clock, '[notifier.ops.body]\nx = "{{ 1 // (job.outputs_total - 3) }}"\n' + OVER)
    end(house, "j1", outputs_total=3)
    assert [one.body for one in house.transport.begun] == [None]
    with db.read() as tx:
        assert rulesets.faults(tx)["over"]["count"] == 1


def test_a_fallback_has_its_own_body_and_not_that_of_the_dead(db: Database, clock: Clock) -> None:
    rules = BODY.replace("ops", "cms") + OVER
    house = began(db, clock, rules)
    ops = 'url = "https://ops.example.com/hook"\n'
    house.start(rules, given=GIVEN.replace(ops, f'{ops}fallback = "cms"\n'))

    def refuse(one: Delivery) -> Outcome:
        return Rejected("no") if one.notifier == "ops" else Sent()

    house.transport.answer = refuse
    end(house, "j1", user_data="asset=a-7")
    bodies = {one.notifier: one.body for one in house.transport.begun}
    assert bodies["ops"] is None
    assert json.loads(bodies["cms"] or "")["asset"] == "a-7"


def test_a_digest_has_the_usual_body(db: Database, clock: Clock) -> None:
    house = began(db, clock, BODY + OVER + 'group.wait = "10m"\n')
    end(house, "j1")
    house.passes(hours(1))
    (told,) = house.transport.begun
    assert told.body is None
    event = json.loads(told.event)
    assert (event["type"], event["sequence"]) == ("ci.digest", "0000000001")
    assert [member["sequence"] for member in event["data"]["members"]] == ["0000000001"]


TEAMS = """
[notifier.teams]
type = "slack"
token = { env = "TOKEN" }
channel = "{{ job.user_data.channel }}"
channels = ["C1", "C2"]
thread = "job"
"""


def test_a_job_names_its_channel_from_the_list_of_those_that_may_be_named(db: Database, clock: Clock) -> None:
    rules = TEAMS + OVER.replace("ops", "teams")
    house = began(db, clock, OVER)
    house.start(rules, environ={"TOKEN": "xoxb-1"})
    end(house, "j1", user_data="channel=C2")
    end(house, "j2", user_data="channel=C9")
    first, second = rows(db, delivery)
    assert (first["channel"], first["note"]) == ("C2", None)
    assert first["thread"] == "C2/clips-1250000000/j1"
    assert second["channel"] == "C1"
    assert "C9" in second["note"]
