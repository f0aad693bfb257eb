"""A rig whose notifier `ops` is a Slack channel that keeps what its threads show."""

from __future__ import annotations

from bridge.record.schema import threads
from tests.support.fakes import FakeChannels
from tests.support.records import rows
from tests.support.rig import Rig

GIVEN = """
[[watch]]
name = "vod"
bucket = "clips-1250000000"
region = "ap-chongqing"
tags = ["Transcode"]
every = "5m"
[notifier.ops]
type = "slack"
channel = "C024BE91L"
token = {{ env = "TOKEN" }}
update = true
{ops}
[notifier.pager]
type = "webhook"
url = "https://pager.example.com/hook"
"""
NEW = '[[rule]]\nname = "new"\nfrom = "new"\nnotify = "ops"\n'
ALL = '[[rule]]\nname = "all"\nnotify = "ops"\n'
STATE = '[template.state]\ntitle = "{{ job.id }} {{ to }}"\n'
JOB, NONE = 'thread = "job"', 'thread = "none"'


class SlackRig(Rig):
    """A rig whose `ops` is a Slack channel."""

    channels: FakeChannels

    def begin(self, rules: str = ALL, *, ops: str = JOB, more: str = "") -> SlackRig:
        rules = rules.replace('notify = "ops"', 'notify = "ops"\ntemplate = "state"')
        self.channels = FakeChannels()
        self.transport.answer = self.channels
        self.start(rules + STATE, given=GIVEN.format(ops=ops) + more, environ={"TOKEN": "xoxb-1"})
        self.first_poll()
        return self

    def moves(self, id_: str, *states: str) -> None:
        """Let a job go through these states, each seen by a poll; nothing is sent meanwhile."""
        for state in states:
            self.has(id_, state)
            self.poll()

    def thread(self) -> dict[str, object]:
        return rows(self.db, threads)[0]
