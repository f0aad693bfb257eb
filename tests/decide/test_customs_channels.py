"""Channels that the job names."""

import pytest

from bridge.decide.messages.build import PerNotifier, per_notifier
from bridge.decide.templates.functions import Names, variables
from bridge.model import SlackNotifier
from tests.support.nouns import a_job, a_rulebook, a_transition
from tests.support.rules_texts import RULE, WATCH, faults

SLACK = f'{WATCH}{RULE}[notifier.hook]\ntype = "slack"\ntoken = {{ env = "TOKEN" }}\n'
ENV = {"TOKEN": "xoxb-1"}


def with_channel(template: str, channels: str = '["C1", "C2"]') -> SlackNotifier:
    found = a_rulebook(f"{SLACK}channel = '''{template}'''\nchannels = {channels}", ENV).notifiers["hook"]
    assert isinstance(found, SlackNotifier)
    return found


def names(**job) -> Names:
    return variables(a_transition(a_job(**job)), "r1", {})


def test_the_job_names_its_channel():
    ops = with_channel("{{ job.user_data.channel }}")
    assert per_notifier(ops, names(user_data='{"channel": "C2"}')) == PerNotifier(channel="C2")
    assert per_notifier(ops, names(user_data="channel= C1 ")) == PerNotifier(channel="C1")


def test_a_channel_that_is_not_among_those_allowed_is_told_to_the_first_with_a_note():
    made = per_notifier(with_channel("{{ job.user_data.channel }}"), names(user_data="channel=C9"))
    assert made == PerNotifier(channel="C1", note='meant for channel "C9", which is not among channels')


@pytest.mark.parametrize("data", [None, "", "channel=", "other=C2", '{"channel": null}'])
def test_a_job_that_names_no_channel_is_told_to_the_first(data):
    assert per_notifier(with_channel("{{ job.user_data.channel }}"), names(user_data=data)) == PerNotifier(channel="C1")


def test_a_channel_that_does_not_render_is_the_first_and_a_fault():
    made = per_notifier(with_channel("{{ 'C2' if 10 / job.progress > 1 else 'C1' }}"), names(progress=0))
    said = "channel: ZeroDivisionError: division by zero (line 1 of the text)"
    assert made == PerNotifier(channel="C1", fault=said)


@pytest.mark.parametrize("name", ["<!channel>\n" * 900, "C2\0x", "\\ud800", "c2", "C1, C2", "#C2", "C1\nC2"])
def test_no_job_is_told_where_it_was_not_allowed(name):
    made = per_notifier(with_channel("{{ job.user_data }}"), names(user_data=name))
    assert made.channel == "C1"
    assert made.fault is None
    assert made.note
    assert made.note.isprintable()
    assert len(made.note) < 130


def test_the_first_of_the_channels_is_the_usual_one():
    ops = with_channel("{{ job.tag }}", '["C7", "C2", "C7"]')
    assert (ops.channel, ops.channels) == ("C7", ("C7", "C2"))


@pytest.mark.parametrize(
    ("lines", "line", "said"),
    [
        ('channel = "{{ job.tag }}"', 1,
         'key "channel": a template needs channels = ["C024BE91L"] beside it: all that it may name, first the usual'),
        ('channel = "{% if 1 %}C1{% endif %}"', 1, 'key "channel": a template needs channels'),
        ('channel = "{{ job.tagg }}"\nchannels = ["C1"]', 1,
         'key "channel": the template does not render: a job has no "tagg" (did you mean "tag"?)'),
        ('channel = "C1"\nchannels = ["C1"]', 2,
         'key "channels": belongs to a channel that is a template, such as channel = "{{ job.user_data.channel }}"'),
        ('channel = "{{ job.tag }}"\nchannels = []', 2,
         'key "channels": [] is neither a text nor a list of texts, none of them empty'),
        (f'channel = "{{{{ job.tag }}}}"\nchannels = {[f"C{n}" for n in range(101)]}', 2,
         'key "channels": is too long: 100 is the most'),
        (f'channel = "{"C" * 101}"', 1, 'key "channel": is too long: 100 is the most'),
    ],
)  # fmt: skip
def test_a_wrong_channel_is_refused_when_the_rules_are_read(lines, line, said):
    found = faults(f"{SLACK}{lines}", ENV)
    assert found[-1].startswith(f'{len(SLACK.splitlines()) + line}: notifier "hook", {said}')


def test_an_incoming_webhook_has_one_channel():
    text = f"{WATCH}{RULE}[notifier.hook]\ntype = 'slack'\nurl = {{ env = 'U' }}\nchannels = ['C1']"
    (found,) = faults(text, {"U": "https://hooks.slack.com/x"})
    assert 'key "channels": belongs to a channel that is a template' in found


def test_a_notifier_with_a_channel_template_can_be_hashed():
    assert isinstance(hash(with_channel("{{ job.tag }}")), int)
