"""Templates that are refused when the rules are read, and hostile jobs, of which every other template renders."""

import inspect
import json
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.decide.templates.functions import FIELDS, FILTERS, TIME_FILTERS, Names, TemplateFault, variables
from bridge.decide.templates.rendering import LONGEST_RESULT, Template, compiled, rendered, value
from bridge.model import Job
from tests.support.nouns import NOON, a_job, a_rulebook, a_transition
from tests.support.rules_texts import faults, rule

LONG = ("ab,/ßx" * 4000)[:20_000]
HEAVY = a_job(
    tag="Transcode",
    message=LONG,
    input=f"uploads/{LONG}.mp4",
    outputs=(LONG,) * 20,
    progress=99,
    created_at=NOON,
    started_at=NOON,
    user_data=f'{{"items": "{LONG[:19_000]}"}}',
)
EMPTY = Job(id="j1", bucket="media-1250000000", region="ap-chongqing", state="Failed")
HEAVY_NAMES, EMPTY_NAMES = (variables(a_transition(job), "r1", {}) for job in (HEAVY, EMPTY))
MOST_MEMORY = 25_000_000  # bytes


def within_bounds(source: str) -> str:
    """Render for a heavy job and return the text, or why it does not render."""
    template = compiled(source)
    tracemalloc.start()
    try:
        text = rendered(template, HEAVY_NAMES)
    except TemplateFault as error:
        text = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert len(text) <= LONGEST_RESULT
    assert peak < MOST_MEMORY
    return text


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ 'x' | center(1000000000) }}", 'there is no filter "center"'),
        ("{{ '%999999999d' | format(1) }}", 'there is no filter "format"'),
        ("{{ job.outputs | batch(1000000000, 'x') }}", 'there is no filter "batch"'),
        ("{{ job | tojson }}", 'there is no filter "tojson"'),
        ("{{ job.message | list }}", 'there is no filter "list" (did you mean "last"?)'),
        ("{{ job.outputs | map(attribute='__class__') }}", 'there is no filter "map"'),
        ("{{ job | attr('keys') }}", 'there is no filter "attr"'),
        ("{{ 'a'.zfill(1000000000) }}", 'there is no filter "zfill"'),
        ("{{ job.update({}) }}", 'there is no filter "update"'),
        ("{{ range(1000000000) }}", "this cannot be called; only filters and string methods can be used"),
        ("{{ ''.__class__.__mro__[1].__subclasses__()[0]() }}", "this cannot be called"),
        ("{{ 'a' * 400000000 }}", "* is not supported; divide instead: a / 0.001 for a * 1000"),
        ("{{ '%999999999d' % 1 }}", "% is not supported; write is even or is odd, or ~ to concatenate"),
        ("{{ 9 ** 9 ** 9 }}", '"pow" is not supported; if, for, set, and filters can be used'),
        ("{{ {'a': 1} }}", '"dict" is not supported'),
        ("{% macro a() %}{{ a() }}{{ a() }}{% endmacro %}{{ a() }}", '"macro" is not supported'),
        ("{% call a() %}{% endcall %}", '"callblock" is not supported'),
        ("{% filter upper %}a{% endfilter %}", "write {{ text | filter }} instead of a filter block"),
        ("{% set x %}a{% endset %}", "write {% set name = value %} on one line"),
        ("{% with x = 1 %}{% endwith %}", "write {% set name = value %} instead of with"),
        ("{% include 'a' %}", '"include" is not supported'),
        ("{% from 'a' import b %}", '"fromimport" is not supported'),
        ("{% extends 'a' %}", '"extends" is not supported'),
        ("{% for a in [1, 2, 3] %}{% endfor %}", "a loop goes through job.outputs, or what split gives"),
        ("{% for a, b in job.outputs %}{% endfor %}", "write {% set name = value %}, and {% for name in job.outputs"),
        ("{% for loop in job.outputs %}{% endfor %}", '"loop" is reserved; use another name'),
        ("{% for a in job.outputs recursive %}{% endfor %}", "write {% set name = value %}, and {% for name in job"),
        ("{% for a in job.outputs %}{{ loop(a) }}{% endfor %}", "this cannot be called"),
        ("{% for a in job.outputs %}{{ loop }}{% endfor %}", "this is a table, not a string; name one of its keys, as"),
        ("{% for a in job.outputs %}{{ loop.nr }}{% endfor %}", 'loop has no "nr"; there are index, index0, first,'),
        ("{% for a in job.outputs %}{% endfor %}{{ a }}", 'there is no "a"; there are inferred, job, rule, seen_at, t'),
        ("{% for a in job.outputs %}{% set x = a %}{% endfor %}", "set stands outside of loops; inside, write the val"),
        ("{% for a in job.outputs %}" * 3 + "{% endfor %}" * 3, "loops may stand 2 deep"),
        ("{% set a, b = job.outputs %}", "write {% set name = value %}"),
        ("{% set job = 1 %}", '"job" is reserved; use another name'),
        ("{% set j = job %}{{ j.tag }}", "this is a table, not a string; name one of its keys, as in job.id"),
        ("{{ self }}", 'there is no "self"'),
        ("{{ 1 < 2 < 3 }}", "one comparison at a time: write a < b and b < c"),
        ("{{ 'a' | replace(old='a', old='b', new='c') }}", "and no argument twice"),
        ("{{ 'a' | replace(*job.outputs) }}", 'filter "replace" takes no * or **'),
        ("{{ 'a' | replace('a') }}", "filter \"replace\": missing a required argument: 'new'"),
        ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "this nests too deeply; the limit is 40 levels"),
        ("{{ " + "not " * 2000 + "1 }}", "this nests too deeply; the limit is 40 levels"),
        ("{{ 1" + " + 1" * 41 + " }}", "this nests too deeply; the limit is 40 levels"),
        ("{% if 1 %}" * 41 + "{% endif %}" * 41, "this nests too deeply; the limit is 40 levels"),
        ("x" * 10_001, "is too long; the limit is 10,000 characters"),
        ("{{ " + "9" * 5000 + " }}", "Exceeds the limit"),
        ("{{ 1e999 - 1 }}", "a number beyond 1e+15 is too large here"),
        ("{{ job.__class__ }}", 'a job has no "__class__"'),
        ("{{ ''.__class__ }}", 'there is no key "__class__" here; job, job.user_data and loop have keys'),
        ("{{ job.tag.x }}", 'there is no key "x" here'),
        ("{{ job.user_data.a.b }}", 'there is no key "b" here'),
        ("{{ job[was] }}", "this is a table, not a string; name one of its keys, as in job.id"),
        ("{{ job.tagg }}", 'a job has no "tagg" (did you mean "tag"?)'),
        ("{{ job.tagg | default('x') }}", 'a job has no "tagg" (did you mean "tag"?)'),
        ("{{ elephant }}", 'there is no "elephant"; there are inferred, job, rule, seen_at, to, was, watch'),
        ("{{ job.tag is emtpy }}", 'there is no test "emtpy"'),
        ("{{ job.tag", "unexpected end of template"),
    ],
)
def test_what_a_template_may_not_say_is_refused_when_the_rules_are_read(source, said):
    (fault,) = faults(rule("[template.x]", f"text = '''\n{source}'''"))
    assert fault.startswith('10: template "x", key "text": the template does not render: ')
    assert said in fault


def test_what_is_refused_says_its_line_in_the_text():
    with pytest.raises(TemplateFault, match=r"\(line 3 of the text\)"):
        compiled("one\ntwo\n{{ 'x' | center(9) }}")


PARTS = "{% for a in job.message.split(',') %}{% for b in job.message.split('x') %}"


@pytest.mark.parametrize(
    "source",
    [
        "{{ job.message | replace('a', job.message) }}",
        "{{ job.message.replace('', job.message) }}",
        "{{ job.message | replace('a', job.message, 900) }}",
        "{{ job.message | replace('a', job.message) | length }}",
        "{{ job.outputs | join(job.message) }}",
        "{{ job.outputs }}",
        "{{ [" + "job.message, " * 700 + "] }}",
        "{{ '' " + "~ job.message" * 700 + " }}",
        "{% set x = 'abcdefghij' %}" + "{% set x = x ~ x %}" * 40 + "{{ x }}",
        "{% set x = [1] %}" + "{% set x = [x, x] %}" * 40 + "{{ x }}{{ x == x }}",
        PARTS + "{% endfor %}{% endfor %}",
        PARTS + "{{ job.message }}{% endfor %}{% endfor %}",
        "{% for a in job.outputs %}{% if job.message in a ~ a %}{% endif %}{% endfor %}" * 20,
        "{% for a in job.outputs %}{% if job.outputs == job.outputs %}{% endif %}{% endfor %}",
    ],
)
def test_whatever_the_job_a_text_is_cut_and_takes_little_memory(source):
    within_bounds(source)


def as_json(template: Template, names: Names) -> str:
    """Return the JSON of a text in a body."""
    return json.dumps(value(template, names), allow_nan=False, ensure_ascii=False)


def templates(count: int, text: str) -> str:
    return rule(*(f'[template.t{n}]\ntext = """{text}"""' for n in range(count)))


def test_all_templates_of_a_file_have_a_bound_together():
    (fault,) = faults(templates(50, "x" * 9_000))
    assert "the templates up to here have more than 200,000 characters, so the rest was not looked at" in fault


def test_two_hundred_templates_that_people_write_are_within_the_bound():
    text = "{{ job.message or 'no reason given' }}, was {{ was }}, after {{ job.duration | human }}" + " and so on" * 80
    assert len(a_rulebook(templates(200, text)).templates) == 200


@pytest.mark.parametrize("end", ["\\0", "\\ud800", "\\x00\\udfff"])
def test_what_no_database_takes_is_not_said(end):
    text = within_bounds(f"{{{{ 'a{end}' }}}}b")
    assert "\0" not in text
    assert text.encode()


def alone(function: Callable[..., object]) -> bool:
    """Tell whether a filter can do without arguments."""
    _, *others = inspect.signature(function).parameters.values()
    return all(one.default is not one.empty for one in others)


FILTERED = [
    *(name for name, function in FILTERS.items() if alone(function)), *TIME_FILTERS,
    "truncate(5)", "truncate(1, true, '', 0)", "replace('a', job.message)", "replace('', 'xy')", "join(job.message)",
    "round(2, 'floor')", "round(job.progress, 'ceil')", "d('x', true)", "split('a', 3)", "lstrip('a')",
    "removeprefix(job.code)", "removesuffix('b')", "startswith(['a', job.code])", "endswith(job.tag)",
    "replace('b', 'ccc', 2)", "split(',')", "trim(chars='a')", "int(5)", "float(none)",
]  # fmt: skip


def pairs(made: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Return the expressions that the language makes of others."""
    operators = st.sampled_from(["~", "+", "-", "/", "//", "and", "or", "==", "!=", "<", ">=", "in", "not in"])
    return st.one_of(
        st.builds("({} {} {})".format, made, operators, made),
        st.builds("({} | {})".format, made, st.sampled_from(FILTERED)),
        st.builds("({}).{}".format, made, st.sampled_from([text for text in FILTERED if text.endswith(")")])),
        st.builds("({} if {} else {})".format, made, made, made),
        st.builds("(not {})".format, made),
        st.builds("(-{})".format, made),
        st.builds("({})[{}]".format, made, st.integers(-3, 3)),
        st.builds("({})[{}:{}]".format, made, st.integers(-9, 9), made),
        st.builds("[{}, {}]".format, made, made),
        st.builds("({} is {})".format, made, st.sampled_from(["defined", "none", "string", "number", "odd", "even"])),
    )


LEAVES = st.sampled_from([
    *(f"job.{field}" for field in FIELDS), "job.user_data.items", "job.user_data[job.tag]", "was", "rule", "seen_at",
    "x", "0", "7", "1000000000", "1.5", "none", "true", "''", "'ab'", "'ß'", "job.outputs[0]", "loop.index",
])  # fmt: skip
EXPRESSIONS = st.recursive(LEAVES, pairs, max_leaves=12)
LISTS = st.sampled_from(["job.outputs", "job.outputs[:5]", "job.message.split(',')", "job.user_data | split('b')"])


def blocks(made: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.lists(made, min_size=2, max_size=4).map("".join),
        st.builds("{{% if {} %}}{}{{% elif {} %}}{}{{% endif %}}".format, EXPRESSIONS, made, EXPRESSIONS, made),
        st.builds("{{% set x = {} %}}{}".format, EXPRESSIONS, made),
        st.builds("{{% set x = x ~ x %}}{}".format, made),
        st.builds("{{% for x in {} if {} %}}{}{{% else %}}{}{{% endfor %}}".format, LISTS, EXPRESSIONS, made, made),
    )


PRINTED = st.builds("{{{{ {} }}}}".format, EXPRESSIONS)
HOSTILE = st.text(st.characters(), max_size=300) | st.sampled_from(
    ["nan", "-1e999", "\0", "a,b" * 1_300, "{" * 300, "ΐ" * 4_000]
)
JOBS = st.builds(
    a_job,
    **{name: st.none() | HOSTILE for name in ("tag", "queue", "code", "message", "input", "level", "user_data")},
    outputs=st.lists(HOSTILE, max_size=20).map(tuple),
    outputs_total=st.integers(0, 10**18),
    progress=st.none() | st.integers(-(10**18), 10**18),
    created_at=st.none() | st.datetimes(timezones=st.just(NOON.tzinfo)),
    started_at=st.none() | st.datetimes(timezones=st.just(NOON.tzinfo)),
)


@settings(deadline=None)  # how much is made is bounded, which is not timed here
@given(PRINTED | st.recursive(PRINTED | st.just("text "), blocks, max_leaves=5), JOBS)
def test_whatever_is_accepted_renders_for_any_job_or_is_a_fault(source, job):
    try:
        template = compiled(source)
    except TemplateFault:
        return
    for names in (variables(a_transition(job), "r1", {}), HEAVY_NAMES, EMPTY_NAMES):
        for render, most in ((rendered, LONGEST_RESULT), (as_json, 6 * LONGEST_RESULT + 1_000)):
            try:
                text = render(template, names)
            except TemplateFault:
                continue
            assert len(text) <= most
            assert text.isascii() or text.encode()
            assert "\0" not in text
