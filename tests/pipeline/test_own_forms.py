"""Templates that fail, and bodies and channels of a notifier's own, from the transition to the sender."""

from __future__ import annotations

import json

from bridge.model import Rejected, Sent
from bridge.record import rulesets
from bridge.record.schema import deliveries
from tests.conftest import on_both
from tests.support.nouns import hours
from tests.support.records import rows
from tests.support.rig import OVER, WITH_FALLBACK, Rig

BODY = """
[notifier.ops.body]
asset = "{{ job.user_data.asset }}"
ok = "{{ job.state == 'Success' }}"
wait = "{{ job.wait }}"
"""


def bodies(rig: Rig) -> dict[str, object]:
    return {one.notifier: json.loads(one.body or "null") for one in rig.transport.begun}


def faults(rig: Rig) -> dict[str, dict[str, object]]:
    with rig.db.read() as tx:
        return rulesets.faults(tx)


@on_both
def test_a_template_that_fails_gives_way_to_the_default_text_is_counted_and_marks_its_rule(rig: Rig) -> None:
    rig.start(OVER + 'template = "t"\n[template.t]\ntitle = "{{ 1 // (job.outputs_total - 3) }}"\n')
    rig.sees("j1", "j2", outputs_total=3)
    rig.sees("j3", outputs_total=1)
    assert rig.titles() == ["Transcode Failed: j1.mp4", "Transcode Failed: j2.mp4", "-1"]
    assert [(rule, fault["count"]) for rule, fault in faults(rig).items()] == [("over", 2)]
    assert "ZeroDivisionError" in str(faults(rig)["over"]["why"])


def test_a_body_of_its_own_goes_to_its_notifier_only(rig: Rig) -> None:
    rig.start(BODY + OVER.replace('"ops"', '["ops", "cms"]'))
    rig.sees("j1", user_data="asset=a-7")
    assert bodies(rig) == {"ops": {"asset": "a-7", "ok": False, "wait": 0.0}, "cms": None}


def test_a_body_that_fails_gives_way_to_the_usual_one(rig: Rig) -> None:
    rig.start('[notifier.ops.body]\nx = "{{ 1 // (job.outputs_total - 3) }}"\n' + OVER)
    rig.sees("j1", outputs_total=3)
    assert (bodies(rig), faults(rig)["over"]["count"]) == ({"ops": None}, 1)


def test_a_fallback_has_its_own_body_and_not_that_of_the_dead(rig: Rig) -> None:
    rig.start(BODY.replace("ops", "cms") + OVER, given=WITH_FALLBACK)
    rig.transport.answer = lambda one: Rejected("no") if one.notifier == "ops" else Sent()
    rig.sees("j1", user_data="asset=a-7")
    assert bodies(rig) == {"ops": None, "cms": {"asset": "a-7", "ok": False, "wait": 0.0}}


def test_a_digest_has_the_usual_body(rig: Rig) -> None:
    rig.start(BODY + OVER + 'group.wait = "10m"\n')
    rig.sees("j1")
    rig.passes(hours(1))
    (message,) = rig.received()
    assert bodies(rig) == {"ops": None}
    assert (message.event["type"], message.event["sequence"]) == ("ci.digest", "0000000001")
    assert [member["sequence"] for member in message.event["data"]["members"]] == ["0000000003"]


TEAMS = """
[notifier.teams]
type = "slack"
token = { env = "TOKEN" }
channel = "{{ job.user_data.channel }}"
channels = ["C1", "C2"]
thread = "job"
"""


def test_a_job_names_its_channel_from_the_list_of_those_that_may_be_named(rig: Rig) -> None:
    rig.start(TEAMS + OVER.replace("ops", "teams"), environ={"TOKEN": "xoxb-1"})
    rig.sees("j1", user_data="channel=C2")
    rig.sees("j2", user_data="channel=C9")
    first, second = rows(rig.db, deliveries)
    assert (first["channel"], first["note"], first["thread"]) == ("C2", None, "C2/clips-1250000000/j1")
    assert second["channel"] == "C1"
    assert "C9" in second["note"]
