import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from jinja2 import Environment

from bridge.decide.templates.functions import LINKS, TemplateFault, variables
from bridge.decide.templates.rendering import LONGEST_RESULT, compiled, rendered
from bridge.decide.text.times import human, iso
from bridge.decide.text.values import basename
from tests.support.nouns import NOON, a_job, a_transition


def render(source: str, **job) -> str:
    return rendered(compiled(source), variables(a_transition(a_job(**job), was="Running"), "r1", {"p22": "vod"}))


def test_a_template_names_the_job_and_how_it_changed():
    source = "{{ job.tag }} {{ was }}>{{ to }} {{ rule }} {{ watch }} {{ job.queue_name }} {{ seen_at }}"
    said = render(source, tag="Transcode", state="Failed", queue="p22")
    assert said == "Transcode Running>Failed r1 vod vod 2026-11-21T12:00:00Z"


def test_a_template_says_how_late_a_change_was_seen_and_whether_it_was_inferred():
    ended = NOON - timedelta(minutes=31)
    template = compiled("{{ job.late }}{% if inferred %} inferred{% endif %}")
    step = a_transition(a_job(state="Failed", ended_at=ended))
    assert rendered(template, variables(step, "r1", {})) == "1860.0"
    assert rendered(template, variables(replace(step, inferred=True), "r1", {})) == "1860.0 inferred"
    assert rendered(template, variables(step, "r1", {}, in_state=True)) == ""
    assert rendered(template, variables(a_transition(a_job(state="Pause")), "r1", {})) == ""


def test_spans_are_seconds_and_human_says_them_as_people_do():
    job = {"started_at": NOON - timedelta(seconds=185)}
    assert render("{{ job.duration | human }}, {{ job.duration > 180 }}", **job) == "3 min 5 s, True"


def test_what_ci_did_not_say_is_nothing_and_not_the_word_none():
    assert render("<{{ job.message }}{{ job.user_data.key }}{{ job.outputs[7] }}>") == "<>"
    assert render("{{ job.message or 'no reason' }}{{ job.message ~ '.' }}") == "no reason."
    assert render("{{ job.message.upper() }}{{ job.message | replace('a', job.code) }}{{ job.message[:5] }}") == ""
    assert render("{{ job.progress - 1 }}{{ -job.progress }}{{ job.duration | round }}{{ job.message + 'a' }}") == ""
    assert render("{{ job.progress > 5 }} {{ job.progress <= 5 }} {{ 'a' in job.outputs }}") == "False False False"
    assert render("{{ job.user_data.key == none }} {{ job.user_data.key is none }} {{ job.message == '' }}") == (
        "True True False"
    )


def test_a_method_is_a_filter_and_of_what_is_not_there_it_is_nothing():
    assert render("{{ job.tag.split('n') | join('-') }} {{ job.tag.title() }}", tag="transcode2x") == (
        "tra-scode2x Transcode2x"
    )
    assert render("{{ job.user_data.key.strip() | default('x') }} {{ job.user_data.key | upper | d('y') }}.") == "x ."
    assert render("{% for part in job.user_data.key.split(',') %}a{% else %}none{% endfor %}") == "none"


def test_a_default_is_for_what_is_not_there_as_in_jinja():
    assert render("{{ job.user_data.key | default('x') }}{{ job.outputs[0] | d('y') }}") == "xy"
    assert render("<{{ job.message | default('x') }}>{{ job.message | default('y', true) }}") == "<>y"
    assert render("{{ job.user_data.key is defined }} {{ job.message is defined }}") == "False True"


def test_user_data_is_its_text_and_each_of_its_keys():
    data = '{"asset_id": "a-17", "items": 3}'
    assert render("{{ job.user_data.asset_id }} {{ job.user_data.items }}", user_data=data) == "a-17 3"
    assert render("{{ job.user_data }}", user_data=data) == data
    assert render("{{ job.user_data }}", user_data="course=a") == "course=a"
    assert render("{{ job.user_data.course }}", user_data="course=a; b=c") == "a"
    assert render("{{ job.user_data or 'none' }}{{ job.user_data.key }}") == "none"
    assert render("{% set data = job.user_data %}{{ data.asset_id }}, {{ data['items'] }}", user_data=data) == "a-17, 3"
    assert render("{{ job.user_data[job.tag] }} {{ job.user_data[0] }}", user_data="Transcode=1", tag="Transcode") == (
        "1 T"
    )


def test_numbers_may_be_calculated_with():
    job = {"progress": 30, "user_data": "n=7.5"}
    assert render("{{ job.progress + 5 }} {{ job.progress // 7 }} {{ job.progress / 0.001 }}", **job) == "35 4 30000.0"
    assert render("{{ job.user_data.n | float - 1 }} {{ job.user_data.n | int }} {{ 'x' | int }}", **job) == "6.5 7 0"
    assert render("{{ job.progress is even }} {{ job.user_data.n | round(0, 'ceil') | abs }}", **job) == "True 8.0"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{{ 7 // job.progress }}", r"ZeroDivisionError: .* \(line 1 of the text\)"),
        ("fine\n{{ job.tag - 1 }}", r'"Transcode" is not a number of at most 1e\+15 \(line 2 of the text\)'),
        ("{{ job.tag + 1 }}", r'"Transcode" is not a number of at most 1e\+15 \(line 1 of the text\)'),
        ("{{ job.tag > 1 }}", r"TypeError: '>' not supported between .* 'str' and 'int' \(line 1 of the text\)"),
        ("{% for a in job.tag.split('a') %}\n\n{{ 1 / loop.index0 }}{% endfor %}", r"ZeroDivisionError: .*\(line 3 of"),
        ("{{ 1 / 0.000000000000001 / 0.1 }}", r" is not a number of at most 1e\+15 \(line 1 of the text\)"),
        ("{{ [job.outputs] }}", r"nested lists are not supported \(line 1 of the text\)"),
    ],
)
def test_what_fails_for_a_job_says_why_and_in_which_line(source, why):
    with pytest.raises(TemplateFault, match=why):
        render(source, tag="Transcode", progress=0)


def test_a_result_is_cut():
    assert len(render("{{ job.message }}{{ job.message }}", message="x" * LONGEST_RESULT)) == LONGEST_RESULT


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{% if was == 'Running' %}a{% elif job.code %}b{% else %}c{% endif %}", "a"),
        ("{% if job.code in ['x', 'y'] and not job.level %}a{% endif %}{{ 'b' if job.progress >= 30 else 'c' }}", "ab"),
        ("{{ job.input.split('/')[-1][:4] }}|{{ job.input.split('/') | first | upper }}", "clip|UPLOADS"),
        ("{% for o in job.outputs if o %}{{ loop.index }} {{ o | basename }}{% if not loop.last %}, {% endif %}"
         "{% else %}nothing{% endfor %}", "1 a.ts, 2 b.ts"),
        ("{% set name = job.input | basename %}{{ name | replace('.mp4', '') | title }}{# why #}", "Clip"),
        ("{{ job.message | truncate(7, true, '…') }} {{ job.outputs | length }} {{ job.outputs | join('; ') }}",
         "no suc… 2 out/a.ts; out/b.ts"),
        ("{{ (job.progress / 7) | round(1) }} {{ job.progress // 7 - 1 }} {{ '7' | int + 1 }}", "4.3 3 8"),
        ("{{ job.user_data.x | default('x') }}{{ job.level | d('y', true) }}{{ job.outputs[7] }}", "xy"),
        ("{{ 'a' ~ job.level ~ (1 + 2) }}{{ 'b' + 'c' }}", "a3bc"),
        ("{{ seen_at[:10] }} {{ job.message | capitalize | trim }}", "2026-11-21 No such codec"),
        ("{{ job.user_data.id | int > 5 }} {{ job.user_data.startswith('{') }}", "True True"),
        ("{{ job['tag'] | lower }}", "transcode"),
        ("https://x/?id={{ 'a b&ü' | urlencode }}{% raw %}{{ x }}{% endraw %}", "https://x/?id=a%20b%26%C3%BC{{ x }}"),
    ],
)  # fmt: skip
def test_what_a_person_would_write_works(source, said):
    job = {
        "tag": "Transcode", "code": "x", "progress": 30, "input": "uploads/clip.mp4", "message": "no such codec",
        "outputs": ("out/a.ts", "out/b.ts"), "user_data": '{"id": "17"}',
    }  # fmt: skip
    assert render(source, **job) == said


def test_html_and_chinese_stay_as_they_are():
    assert render("{{ job.message }} 完成", message="<b> & 'c'") == "<b> & 'c' 完成"


@pytest.mark.parametrize(
    "source",
    [
        "{{ (job.input | split('/'))[-3] }}",
        "{{ job.outputs[1] }}",
        "{{ job.outputs[1:] | first }}",
        "{% if job.outputs[1] is defined %}two{% endif %}",
        "{{ job.input[100] }}",
        "{% for name in job.outputs[1].split('/') %}{{ name }}{% endfor %}",
        "{% for name in job.outputs %}{% endfor %}{% if job.code %}{% set x = 1 %}{% endif %}{{ x }}",
    ],
)
def test_a_place_beyond_the_end_is_nothing(source):
    assert render(source, input="uploads/a.mp4", outputs=("out/a.mp4",)) == ""


@pytest.mark.parametrize("of", ["('b', 'a')", "['b', 'a']", "'a'"])
def test_startswith_and_endswith_take_several_texts(of):
    assert render(f"{{{{ 'abc'.startswith({of}) }}}} {{{{ 'cba'.endswith({of}) }}}}") == "True True"
    assert render(f"{{{{ 'c'.startswith({of}) }}}} {{{{ 'c'.endswith({of}) }}}}") == "False False"


JINJA = Environment(autoescape=False)  # noqa: S701  (what is made is plain text)


@pytest.mark.parametrize("text", ["foo-bar (baz)", "it's [a1 b]<c>", "-a--b {x", "ÉCOLE  élan\tz", "<&>\"'"])
@pytest.mark.parametrize("name", ["title", "escape", "e"])
def test_a_filter_of_jinjas_name_writes_what_jinja_does(text, name):
    theirs = JINJA.from_string(f"{{{{ text | {name} }}}}").render(text=text)
    assert render(f"{{{{ job.message | {name} }}}}", message=text) == theirs


def test_a_loop_goes_round_a_hundred_times_and_one_inside_of_it_twenty_times():
    parts = "job.message.split('b')"
    last = "{% if loop.last %}{{ loop.length }} {% endif %}"
    inside = f"{{% for b in {parts} %}}{last}{{% endfor %}}"
    assert render(f"{{% for a in {parts} %}}{last}{{% endfor %}}", message="ab" * 500) == "100"
    assert render(f"{{% for a in {parts}[98:] %}}{inside}{{% endfor %}}", message="ab" * 500) == "20 20"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (59.6, "1 min"),
        (185, "3 min 5 s"),
        (3605, "1 h 5 s"),
        (273_600, "3 d 4 h"),
        (None, "unknown time"),
    ],
)
def test_a_span_is_said_in_its_two_largest_units(seconds, said):
    assert human(seconds) == said


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("uploads/a.mp4", "a.mp4"),
        ("uploads/x/", "x"),
        ("https://cdn.example.com/v/a.mp4?sign=secret/b", "a.mp4"),
        ("", ""),
    ],
)
def test_a_basename_is_the_last_part_of_a_key_or_of_a_url_without_its_query(path, name):
    assert basename(path) == name


def test_times_are_utc_to_the_second():
    assert iso(NOON) == "2026-11-21T12:00:00Z"
    assert iso(None) is None
    assert iso(NOON.replace(year=1, microsecond=999_999)) == "0001-11-21T12:00:00Z"


SHANGHAI = ZoneInfo("Asia/Shanghai")


def said_at(source: str, zone: ZoneInfo = SHANGHAI, **job) -> str:
    """Render for a telling at noon, UTC."""
    return rendered(compiled(source), variables(a_transition(a_job(**job)), "r1", {}, zone=zone))


def fault(source: str) -> str:
    with pytest.raises(TemplateFault) as refused:
        said_at(source)
    return str(refused.value)


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (timedelta(minutes=5), "5 min ago"),
        (timedelta(hours=26, seconds=3), "1 d 2 h ago"),
        (timedelta(seconds=1), "1 s ago"),
        (timedelta(seconds=0.4), "just now"),
        (timedelta(0), "just now"),
        (-timedelta(days=9), "just now"),
    ],
)
def test_ago_says_how_long_before_the_telling_a_time_was(before, said):
    assert said_at("{{ job.created_at | ago }}", created_at=NOON - before) == said


def test_local_says_a_time_by_the_clock_of_the_rules():
    source = "{{ job.started_at | local }}"
    assert said_at(source, started_at=NOON) == "2026-11-21 20:00 CST"
    assert said_at(source, ZoneInfo("America/New_York"), started_at=NOON) == "2026-11-21 07:00 EST"
    assert said_at(source, ZoneInfo("America/New_York"), started_at=NOON.replace(month=7)) == "2026-07-21 08:00 EDT"
    assert said_at(source, ZoneInfo("UTC"), started_at=NOON) == "2026-11-21 12:00 UTC"


def test_seen_at_and_other_texts_may_be_times_too():
    assert said_at("{{ seen_at | ago }}, {{ seen_at | local }}") == "just now, 2026-11-21 20:00 CST"
    data = "due=2026-11-21T19:00:00.5+08:00"
    assert said_at("{{ job.user_data.due | ago }} {{ job.user_data.due | local }}", user_data=data) == (
        "1 h ago 2026-11-21 19:00 CST"
    )


@pytest.mark.parametrize("name", ["ago", "local"])
def test_a_time_that_ci_did_not_say_is_unknown(name):
    assert (
        said_at(f"{{{{ job.ended_at | {name} }}}} {{{{ job.user_data.due | {name} }}}}") == "unknown time unknown time"
    )
    assert fault(f"{{{{ job.endet_at | {name} }}}}").startswith('a job has no "endet_at" (did you mean "ended_at"?)')


@pytest.mark.parametrize("name", ["ago", "local"])
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("'soon'", '"soon" is not a time, which job.created_at is, or "2026-11-21T09:00:00Z"'),
        ("'2026-11-21'", '"2026-11-21" is not a time'),
        ("'2026-11-21T09:00:00'", '"2026-11-21T09:00:00" is not a time'),
        ("1763715600", "1763715600 is not a time"),
    ],
)
def test_what_is_no_time_is_a_fault(name, value, said):
    assert fault(f"{{{{ {value} | {name} }}}}").startswith(said)


@pytest.mark.parametrize(
    ("moment", "since", "zone"),
    [
        (datetime(1, 1, 1, tzinfo=UTC), "739940 d 12 h ago", "Pacific/Midway"),
        (datetime(9999, 12, 31, 23, tzinfo=UTC), "just now", "Pacific/Kiritimati"),
    ],
)
def test_a_time_that_no_clock_of_the_zone_shows_is_a_fault(moment, since, zone):
    assert said_at("{{ job.created_at | ago }}", created_at=moment) == since
    with pytest.raises(TemplateFault, match="OverflowError"):
        said_at("{{ job.created_at | local }}", ZoneInfo(zone), created_at=moment)


def test_user_data_of_any_length_is_no_time():
    said = f'"{"2" * 78}… is not a time'
    with pytest.raises(TemplateFault, match=said):
        said_at("{{ job.user_data | ago }}", user_data="2" * 100_000)


# --- links ------------------------------------------------------------------------------------------------


def linked(source: str, **job) -> tuple[str, list[tuple[str, str]]]:
    """Return the text, and what in it is a link."""
    names = variables(a_transition(a_job(**job)), "r1", {})
    return rendered(compiled(source), names), names[LINKS]


def test_a_link_reads_as_its_label_and_its_url():
    said = linked('See {{ ("https://h.example/jobs/" ~ job.id) | link("the \n job") }}.')
    assert said == ("See the job (https://h.example/jobs/j1).", [("the job", "https://h.example/jobs/j1")])
    assert linked('{{ "http://h.example/ä" | link(label=job.tag) }}', tag="T")[1] == [("T", "http://h.example/%C3%A4")]


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "", "h.example", "https://", "https://h.example/ x", "https://u:p@h/"]
)
def test_what_is_no_address_of_a_page_is_its_label_alone(url):
    assert linked("{{ job.message | link('open') }}", message=url) == ("open", [])
    assert linked("{{ job.message | link('open') }}") == ("open", [])


def test_a_text_of_a_job_that_reads_like_a_link_is_none():
    said = linked(
        '{{ job.message }} {{ "https://h.example/" | link(job.code) }}', message="a (https://evil/)", code="<b|c>"
    )
    assert said == ("a (https://evil/) <b|c> (https://h.example/)", [("<b|c>", "https://h.example/")])


def test_a_link_without_a_label_or_with_a_long_one_has_one_of_a_line():
    assert linked('{{ "https://h.example/" | link(job.message) }}')[0] == "link (https://h.example/)"
    assert len(linked('{{ "https://h.example/" | link(job.message) }}', message="x" * 4000)[1][0][0]) == 200


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{{ job.id | link }}", "missing a required argument: 'label'"),
        ("{{ job.id.link('x') }}", "link is a filter only: write | link behind the value"),
        ("{{ job.created_at.ago() }}", "ago is a filter only: write | ago behind the value"),
    ],
)
def test_a_link_that_is_written_wrong_says_what_would_be_right(source, why):
    with pytest.raises(TemplateFault, match=re.escape(why)):
        compiled(source)
