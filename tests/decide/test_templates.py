from datetime import timedelta

import pytest
from jinja2 import Environment

from bridge.decide.templates import (
    LONGEST_RESULT,
    TemplateFault,
    basename,
    compiled,
    human,
    iso,
    rendered,
    variables,
)
from bridge.model import Job
from tests.builders import NOON, a_job, a_transition


def render(source: str, **job) -> str:
    return rendered(compiled(source), variables(a_transition(a_job(**job), was="Running"), "r1", {"p22": "vod"}))


def test_a_template_names_the_job_and_how_it_changed():
    source = "{{ job.tag }} {{ was }}>{{ to }} {{ rule }} {{ watch }} {{ job.queue_name }} {{ seen_at }}"
    said = render(source, tag="Transcode", state="Failed", queue="p22")
    assert said == "Transcode Running>Failed r1 vod vod 2026-11-21T12:00:00Z"


def test_spans_are_seconds_and_human_says_them_as_people_do():
    job = {"started_at": NOON - timedelta(seconds=185)}
    assert render("{{ job.duration | human }}, {{ job.duration > 180 }}", **job) == "3 min 5 s, True"


def test_what_ci_did_not_say_is_nothing_and_not_the_word_none():
    assert render("<{{ job.message }}{{ job.nothing.at.all }}>") == "<>"
    assert render("{{ job.message or 'no reason' }}") == "no reason"


def test_user_data_is_its_text_and_each_of_its_keys():
    data = '{"asset_id": "a-17", "items": 3}'
    assert render("{{ job.user_data.asset_id }} {{ job.user_data.items }}", user_data=data) == "a-17 3"
    assert render("{{ job.user_data }}", user_data=data) == data
    assert render("{{ job.user_data }}", user_data="course=a") == "course=a"
    assert render("{{ job.user_data.course }}", user_data="course=a; b=c") == "a"
    assert render("{{ job.user_data or 'none' }}{{ job.user_data.key }}") == "none"


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 10**9 }}",
        "{{ 'a' * 1000000000 }}",
        "{{ 1000000000 * 'a' }}",
        "{{ [1] * 1000000000 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ ().__class__.__bases__[0].__subclasses__() }}",
        "{{ job.update({'tag': 'x'}) }}",
        "{{ job.outputs.append('x') }}",
        "{% for n in range(1000000000) %}x{% endfor %}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{{ 1 / 0 }}",
        "{{ job.tag + 1 }}",
        "{{ 5 | xmlattr }}",
        "{{ lipsum(5) }}",
        "{% include 'a' %}",
    ],
)
def test_what_a_template_must_not_do_it_cannot(source):
    with pytest.raises(TemplateFault):
        render(source, tag="Transcode")


def test_numbers_may_be_reckoned_with():
    assert render("{{ job.progress * 2 }} {{ job.progress % 7 }}", progress=30) == "60 2"


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
        ("{{ (job.progress / 7) | round(1) }} {{ job.progress // 7 * 2 - 1 }} {{ '7' | int + 1 }}", "4.3 7 8"),
        ("{{ job.nothing | default('x') }}{{ job.level | d('y', true) }}{{ job.outputs[7] }}", "xy"),
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


def strictly(source: str, job: Job | None = None) -> str:
    """Render as when the rules are read."""
    return rendered(compiled(source), variables(a_transition(job), "r1", {}), strict=True)


def fault(source: str) -> str:
    with pytest.raises(TemplateFault) as refused:
        strictly(source)
    return str(refused.value)


def test_a_mistake_is_told_in_words():
    assert fault("{{ job.tagg }}") == 'a job has no "tagg" (did you mean "tag"?)'
    assert fault("{{ jbo.tag }}") == 'there is no "jbo" (did you mean "job"?)'
    assert fault("{{ elephant }}") == 'there is no "elephant"; there are job, was, to, rule, watch, seen_at'
    assert "line 2" in fault("fine\n{{ job.tag")
    assert fault("{{ job.duration | humane }}") == (
        'there is no filter "humane" (did you mean "human"?) (line 1 of the text)'
    )
    assert fault("{{ job.tag * 3 }}") == "* is for numbers, not for nothing and a number; ~ puts texts together"
    assert fault("{{ job.message > 5 }}") == "nothing and a number do not compare"


def test_what_may_be_missing_can_be_asked_for():
    assert strictly("{{ job.nothing | default('x') }}{% if job.other is defined %}y{% endif %}") == "x"


@pytest.mark.parametrize(
    "source",
    [
        "{{ job.input.split('/')[2] }}",
        "{{ (job.input | split('/'))[-3] }}",
        "{{ job.outputs[1] }}",
        "{{ job.outputs[1][0] }}",
        "{{ job.outputs[1:] | first }}",
        "{{ job.outputs[1].upper() | basename }}",
        "{% if job.outputs[1] is defined %}two{% endif %}",
        "{{ job.input[100] }}",
        "{% for name in job.outputs[1].split('/') %}{{ name }}{% endfor %}",
    ],
)
def test_a_place_beyond_the_end_is_nothing_and_no_mistake(source):
    job = a_job(input="uploads/a.mp4", outputs=("out/a.mp4",))
    assert strictly(source, job) == rendered(compiled(source), variables(a_transition(job), "r1", {})) == ""


def test_what_loop_does_not_have_is_said_of_loop():
    source = "{% for name in 'a,b'.split(',') %}{{ loop.nr }}{% endfor %}"
    assert fault(source) == 'loop has no "nr"; there are index, index0, first, last, length'


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


def test_a_loop_forgets_what_was_set_in_its_rounds():
    source = "{% set x = 1 %}{% for a in 'a,b'.split(',') if a != x %}{{ x }}{% set x = a %}{{ x }} {% endfor %}{{ x }}"
    assert render(source) == JINJA.from_string(source).render() == "1a 1b 1"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (45.4, "45 s"),
        (59.6, "1 min"),
        (185, "3 min 5 s"),
        (7800, "2 h 10 min"),
        (3600, "1 h"),
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
        ("a.mp4", "a.mp4"),
        ("uploads/x/", "x"),
        ("https://cdn.example.com/v/a.mp4?sign=secret/b", "a.mp4"),
        ("odd?name/a?b.mp4", "a?b.mp4"),
        ("", ""),
        (None, ""),
    ],
)
def test_a_basename_is_the_last_part_of_a_key_or_of_a_url_without_its_query(path, name):
    assert basename(path) == name


def test_times_are_utc_to_the_second():
    assert iso(NOON) == "2026-11-21T12:00:00Z"
    assert iso(None) is None
    assert iso(NOON.replace(year=1, microsecond=999_999)) == "0001-11-21T12:00:00Z"
