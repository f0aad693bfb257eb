"""Bodies of one notifier alone."""

import json
import tracemalloc
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.decide.messages.build import LARGEST_EVENT, PerNotifier, per_notifier
from bridge.decide.templates.functions import Names, variables
from bridge.model import FAILED, SUCCESS
from bridge.notifiers import SlackNotifier, WebhookNotifier
from tests.support.nouns import NOON, SECRET, a_job, a_rulebook, a_transition
from tests.support.rules_texts import HOOK, RULE, WATCH, faults

FILE = f'{WATCH}{RULE}{HOOK}secret = {{ env = "HOOK_SECRET" }}\n'
HEAD = len(FILE.splitlines())
AT = "[notifier.hook.body]\n"
DEEP = "{ a = " * 9 + "1" + " }" * 9


@cache
def with_body(lines: str) -> WebhookNotifier:
    found = a_rulebook(f"{FILE}{AT}{lines}").notifiers["hook"]
    assert isinstance(found, WebhookNotifier)
    return found


def names(state: str = FAILED, **job) -> Names:
    return variables(a_transition(a_job(state=state, **job), was="Running"), "r1", {"p22": "vod"})


def body(lines: str, **job) -> object:
    """Return what a receiver reads."""
    made = per_notifier(with_body(lines), names(**job))
    assert made.fault is None
    assert made.body is not None
    return json.loads(made.body)


def fault(lines: str, **job) -> str:
    """Return why the default body is sent."""
    made = per_notifier(with_body(lines), names(**job))
    assert made.body is None
    assert made.fault is not None
    return made.fault


def test_a_body_has_the_keys_that_a_receiver_wants():
    lines = """
asset = "{{ job.user_data.asset_id }}"
ok    = "{{ job.state == 'Success' }}"
note  = "{{ job.tag }} is {{ to }}"
version = 2
[notifier.hook.body.media]
urls = ["{{ job.input }}", "https://cdn.example.com/{{ job.id }}"]
[[notifier.hook.body.media.parts]]
name = "first"
"""
    job = {"tag": "Transcode", "input": "uploads/a.mp4", "user_data": '{"asset_id": "a-17"}'}
    assert body(lines, **job, state=SUCCESS) == {
        "asset": "a-17",
        "ok": True,
        "note": "Transcode is Success",
        "version": 2,
        "media": {
            "urls": ["uploads/a.mp4", "https://cdn.example.com/j1"],
            "parts": [{"name": "first"}],
        },
    }


@pytest.mark.parametrize(
    ("source", "worth"),
    [
        ("{{ job.progress }}", 30),
        ("{{ job.progress > 5 }}", True),
        ("{{ job.queue_name }}", "vod"),
        ("{{ job.message }}", None),
        ("{{ job.user_data.x | default(none) }}", None),
        ("{{ '1e999' | float }}", None),
        ("{{ job.outputs }}", ["out/a.ts", "out/b.ts"]),
        ("{{ [job.progress, none, job.created_at] }}", [30, None, "2026-11-21T12:00:00Z"]),
        ("{{ job.created_at }}", "2026-11-21T12:00:00Z"),
        ("{{ job.user_data }}", '{"id": 17}'),
        ("{{ job.user_data.id | int }}", 17),
        ("{{ '7' }}", "7"),
        (" {{ job.progress }}", " 30"),
        ("{{ job.progress }}%", "30%"),
        ("{{ job.message }} ", " "),
        ("", ""),
        ('"quoted" \\ {{ job.id }} 转码 \u2028', '"quoted" \\ j1 转码 \u2028'),
    ],
)
def test_a_lone_expression_keeps_its_json_type_and_anything_else_is_a_text(source, worth):
    job = {"progress": 30, "queue": "p22", "outputs": ("out/a.ts", "out/b.ts"), "created_at": NOON}
    found = body(f"value = '''{source}'''", **job, user_data='{"id": 17}')
    assert found == {"value": worth}
    assert type(found["value"]) is type(worth)


def test_a_body_leaves_nothing_in_one_text_for_the_next():
    lines = (
        """a = "{% set x = 1 %}{{ x }}"\nb = "{% if job.code %}{% set x = 2 %}{% endif %}{{ x | default('none') }}" """
    )
    assert body(lines) == {"a": "1", "b": "none"}


def test_user_data_that_ci_did_not_say_is_null_as_in_the_default_body():
    assert body('value = "{{ job.user_data }}"') == {"value": None}


def test_what_toml_has_besides_texts_is_sent_as_it_stands():
    lines = """
whole = 3
part = 0.5
yes = true
at = 2026-11-21T17:00:00+08:00
day = 2026-11-21
hour = 17:00:00
"{{ job.id }}" = []
"""
    assert body(lines) == {
        "whole": 3,
        "part": 0.5,
        "yes": True,
        "at": "2026-11-21T17:00:00+08:00",
        "day": "2026-11-21",
        "hour": "17:00:00",
        "{{ job.id }}": [],
    }


def test_a_body_is_compact_and_not_escaped():
    made = per_notifier(with_body('a = "转码"\nb = ["{{ job.id }}", 1]'), names())
    assert made == PerNotifier(body='{"a":"转码","b":["j1",1]}')


@pytest.mark.parametrize(
    ("lines", "line", "said"),
    [
        ('a.b = "{{ job.tagg }}"', 1,
         ', key "body.a.b": the template does not render: a job has no "tagg" (did you mean "tag"?)'),
        ('ok = 1\na = [\n"",\n"{{ job }}"]', 2, ', key "body.a": the template does not render: this is a table'),
        ("a = nan", 1, ', key "body.a": NaN is not sent as a number; the limit is 1e+15; write it as a text'),
        ("a = 1234567890123456789", 1, ', key "body.a": 1234567890123456789 is not sent as a number'),
        (f"a = 0x{'f' * 5000}", 1, ', key "body.a": a number of thousands of digits is not sent as a number'),
        ("a = 2026-11-21T17:00:00", 1,
         ', key "body.a": 2026-11-21T17:00:00 has no UTC offset; write for example 2026-11-21T09:00:00Z'),
        ("", 0, ', key "body": is empty; write what the receiver reads, as in asset = "{{ job.id }}"'),
        (f"a = {list(map(str, range(201)))}", 0, ', key "body": has 201 texts; the limit is 200'),
        (f"x = {{ a = {DEEP} }}", 1, f', key "body.x{".a" * 9}": nests too deeply; the limit is 10 levels'),
        (f"x = {'[' * 10}1{']' * 10}", 1, ', key "body.x": nests too deeply; the limit is 10 levels'),
        (f"a = '{'x' * 9_999}'\nb = '{'x' * 9_999}'", 0,
         ', key "body": it has 20,013 bytes of JSON; the limit is 20,000'),
    ],
)  # fmt: skip
def test_a_wrong_body_is_refused_when_the_rules_are_read(lines, line, said):
    (found,) = faults(f"{FILE}{AT}{lines}")
    assert found.startswith(f'{HEAD + 1 + line}: notifier "hook"')
    assert said in found


def test_all_that_is_wrong_with_a_body_is_said_at_once():
    found = faults(f'{FILE}{AT}a = "{{{{ job.x }}}}"\nb = nan\nc = ["{{{{ jbo }}}}"]')
    assert [one.partition(":")[0] for one in found] == [str(HEAD + line) for line in (2, 3, 4)]


def test_ten_levels_of_a_body_are_none_too_many():
    assert body(f"x = {DEEP[len('{ a = ') : -len(' }')]}")


def test_a_body_is_a_table():
    (found,) = faults(f"{FILE}body = '{{{{ job.id }}}}'")
    assert found == f'{HEAD + 1}: notifier "hook", key "body": "{{{{ job.id }}}}" is not a table'


def test_a_body_of_ones_own_is_no_cloudevent():
    (found,) = faults(f'{FILE}format = "cloudevents"\n{AT}a = 1')
    said = 'key "format": "cloudevents" is the form of the usual body; take it out, or the body'
    assert found == f'{HEAD + 1}: notifier "hook", {said}'


def test_slack_takes_no_body():
    slack = f'{WATCH}{RULE}[notifier.hook]\ntype = "slack"\ntoken = {{ env = "TOKEN" }}\nchannel = "C1"\n'
    (found,) = faults(f"{slack}{AT}a = 1", {"TOKEN": "xoxb-1"})
    assert found.endswith('key "body": is for webhooks; what people are sent comes from a template')


def test_a_body_that_does_not_render_for_a_job_is_left_for_the_default_one():
    said = fault('list = [1, "{{ 100 / job.progress }}"]', progress=0)
    assert said == 'body: at "list.1": ZeroDivisionError: division by zero (line 1 of the text)'


def test_a_body_that_is_too_large_for_a_job_is_left_for_the_default_one():
    lines = 'a = "{{ job.user_data }}"\nb = "{{ job.user_data }}"'
    assert len(json.dumps(body(lines, user_data="x" * 9_900))) < LARGEST_EVENT
    assert fault(lines, user_data="x" * 12_000) == "body: it has 24,015 bytes of JSON; the limit is 20,000"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ [" + "job.user_data, " * 300 + "] }}", 'at "a.0": its text has more than 12,000 characters'),
        ("{{ job.message | replace('', job.message) }}", 'at "a.0": its text has more than 12,000 characters'),
        ("{{ job.user_data }}", "bytes of JSON; the limit is 20,000"),
    ],
)
def test_the_memory_that_a_body_takes_has_a_bound(text, said):
    heavy = {"message": "x,y" * 3_300, "user_data": "u" * 4_000, "outputs": ("o" * 590,) * 20}
    notifier = with_body(f"a = {[text] * 40}")
    tracemalloc.start()
    made = per_notifier(notifier, names(**heavy))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert made.body is None
    assert said in (made.fault or "")
    assert peak < 25_000_000  # bytes


@given(st.text(max_size=2_000), st.text(st.characters(), max_size=200))
def test_whatever_a_job_says_a_body_is_well_formed(message, data):
    lines = 'a = "{{ job.message }}"\nb = "<{{ job.user_data.key }}>"\nc = ["{{ job.user_data }}"]'
    made = per_notifier(with_body(lines), names(message=message, user_data=json.dumps({"key": data})))
    assert made.body is not None
    assert set(json.loads(made.body)) == {"a", "b", "c"}
    assert made.body.encode()


@pytest.mark.parametrize("end", ["\\0", "\\ud800", "\\x00\\udfff"])
def test_what_no_database_takes_is_not_in_a_body(end):
    made = per_notifier(with_body(f"a = '''{{{{ 'x{end}' }}}}'''"), names()).body or ""
    assert made.encode()
    assert "\\u0000" not in made


def test_a_rulebook_with_a_body_can_be_shown_and_hashed():
    assert SECRET not in repr(with_body("a = 1"))
    assert isinstance(hash(with_body("a = 1")), int)


SLACK = f'{WATCH}{RULE}[notifier.hook]\ntype = "slack"\ntoken = {{ env = "TOKEN" }}\n'
ENV = {"TOKEN": "xoxb-1"}


def with_channel(template: str, channels: str = '["C1", "C2"]') -> SlackNotifier:
    found = a_rulebook(f"{SLACK}channel = '''{template}'''\nchannels = {channels}", ENV).notifiers["hook"]
    assert isinstance(found, SlackNotifier)
    return found


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
        ('channel = "C1"\nchannels = ["C1"]', 2,
         'key "channels": belongs to a channel that is a template, such as channel = "{{ job.user_data.channel }}"'),
        (f'channel = "{{{{ job.tag }}}}"\nchannels = {[f"C{n}" for n in range(101)]}', 2,
         'key "channels": is too long; the limit is 100'),
        (f'channel = "{"C" * 101}"', 1, 'key "channel": is too long; the limit is 100'),
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
