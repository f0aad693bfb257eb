"""A day and a half of a team's work, told through every gate, with a restart every few hours."""

from __future__ import annotations

from bridge.model import FAILED, RUNNING, SUCCESS
from bridge.record.database import Database
from tests.conftest import on_both
from tests.support.nouns import hours, minutes
from tests.support.rig import Rig

RULES = """
[defaults]
timezone = "Asia/Shanghai"                      # 17:00 there when the story begins

[[rule]]                                        # a person is told of failures, not of a flood of them
name = "failed"
to = "Failed"
match.tag = "Transcode"
notify = "ops"
throttle = "3/30m"

[[rule]]                                        # snapshots are of no hurry
name = "snapshots"
to = "done"
match.tag = "Snapshot"
notify = "ops"
group = { by = ["queue"], wait = "20m" }

[[rule]]
name = "daily"
to = "Success"
match.tag = "Transcode"
notify = "cms"
group.at = "09:00"

[[rule]]
name = "stuck"
in = "Running"
for = "30m"
repeat = "2h"
recover = true
notify = "ops"

[[mute]]
name = "quiet nights"
match.queue = "vod"
between = "22:00-08:00"
"""


@on_both
def test_a_day_and_a_half_with_every_gate_and_a_restart_every_three_hours(db: Database) -> None:
    rig = Rig(db, RULES)
    rig.poll()

    def until(hour: int, minute: int = 0) -> None:
        """Let time pass, up to that hour of UTC, with a restart every three hours."""
        while (rig.clock().hour, rig.clock().minute) != (hour, minute):
            rig.passes(minutes(10))
            if rig.clock().minute == 0 and rig.clock().hour % 3 == 0:
                rig.start()

    rig.has("hangs", RUNNING)
    rig.has("s1", SUCCESS, tag="Snapshot", queue="p1")
    rig.has("s2", FAILED, tag="Snapshot", queue="p2")
    rig.has("s3", FAILED, tag="Snapshot", queue="p2")
    for n in range(5):
        rig.has(f"f{n}", FAILED)
    until(10)
    rig.silence(lasts=hours(2), match={"tag": "Transcode"}, to="Failed")
    rig.has("f5", FAILED)
    until(11, 40)
    rig.has("hangs", SUCCESS)
    until(15)  # 23:00 in Shanghai
    rig.has("night1", FAILED, queue="p1")
    rig.has("night2", FAILED, queue="p2")  # not vod, so not muted
    rig.has("s4", SUCCESS, tag="Snapshot", queue="p1")
    until(23)
    rig.has("night3", SUCCESS, queue="p1")  # a success of the night goes to cms at nine, but is held by the mute
    until(2)
    assert rig.lines() == [
        "09:05 ops: Transcode Failed: f0.mp4",
        "09:05 ops: Transcode Failed: f1.mp4",
        "09:05 ops: Transcode Failed: f2.mp4",
        "09:25 ops: snapshots (queue p2): 2 Failed",
        "09:25 ops: snapshots (queue vod): 1 Success",
        "09:30 ops: Transcode Running for 30 min: hangs.mp4",
        "09:35 ops: ... and 2 more by failed: 2 Failed",
        "11:30 ops: Transcode still Running for 2 h 30 min: hangs.mp4",
        "11:45 ops: Transcode Success after 2 h 40 min Running: hangs.mp4",
        "12:00 ops: The silence by ann (maintenance) is over, 1 held: 1 Failed",
        "15:05 ops: Transcode Failed: night2.mp4",
        '00:00 ops: 2 held by the mute "quiet nights", now over: 1 Failed, 1 Success',
        '00:00 cms: 1 held by the mute "quiet nights", now over: 1 Success',
        "01:00 cms: daily: 1 Success",
    ]
    assert {one["state"] for one in rig.deliveries()} == {"sent", "merged"}
