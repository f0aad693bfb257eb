"""The callbacks of the simulated CI, as the bridge reads them."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import pytest

from bridge.collect.callbacks import NamedJob, read_callback
from bridge.simulator.callbacks import CallbackSender, Format
from tests.support.signed import BUCKET, simulated


@pytest.mark.parametrize("kind", ["xml", "json"])
def test_a_job_that_succeeds_or_fails_sends_one_and_no_other_state_does(kind: Format) -> None:
    with simulated() as ci:
        bodies: list[bytes] = []
        ci.callbacks, ci.callback_format = bodies.append, kind
        job = ci.create(BUCKET, "Transcode", "p1", input="in/a.mp4")
        other = ci.create(BUCKET, "Transcode", "p1")
        for state in ("Running", "Pause", "Running", "Success"):
            ci.move(job, state, outputs=["a.mp4"])
        ci.move(other, "Cancel")

    assert [read_callback(body) for body in bodies] == [[NamedJob(job, BUCKET)]]


def test_the_formats_are_those_of_the_documents() -> None:
    with simulated() as ci:
        job = ci.create(BUCKET, "Transcode", "p1", input="in/a.mp4")
        ci.move(job, "Success", outputs=["a.mp4"])
        xml = ET.fromstring(ci.callback_of(job))  # noqa: S314  (our own)
        ci.callback_format = "json"
        content = json.loads(ci.callback_of(job))
        lie = json.loads(ci.callback_of(job, "Failed"))

    assert (xml.tag, xml.findtext("EventName"), xml.findtext("JobsDetail/State")) == (
        "Response",
        "TaskFinish",
        "Success",
    )
    (details,) = content["JobsDetail"]
    assert (content["EventName"], details["State"], details["Operation"]["JobLevel"]) == ("TaskFinish", "Success", 0)
    assert details["Operation"]["MediaResult"]["OutputFile"]["ObjectName"] == ["a.mp4"]
    assert lie["JobsDetail"][0]["State"] == "Failed"


def test_nothing_is_sent_beyond_this_machine() -> None:
    with pytest.raises(ValueError, match="is not on this machine"):
        CallbackSender("https://bridge.example.com/hooks/ci/x")
