"""Templates as an attack: whatever is accepted renders within bounds, whatever the job."""

import inspect
import json
import sys
import tracemalloc
from collections.abc import Callable
from difflib import get_close_matches

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.decide.template_budget import MOST_STEPS
from bridge.decide.template_times import TIME_FILTERS
from bridge.decide.template_words import FILTERS, METHODS
from bridge.decide.templates import LONGEST_RESULT, TemplateFault, compiled, rendered, value, variables
from tests.builders import NOON, a_job, a_rulebook, a_transition
from tests.decide.texts import faults, rule

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
NAMES = variables(a_transition(HEAVY), "r1", {})
MOST_MEMORY = 25_000_000  # bytes: two million characters at four bytes each, twice, and the parser's


def within_bounds(source: str) -> str:
    """Render for a heavy job and return the text, or what is said instead."""
    tracemalloc.start()
    try:
        text = rendered(compiled(source), NAMES)
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
        ("{{ 'x' | indent(1000000000) }}", 'there is no filter "indent"'),
        ("{{ 'x' | wordwrap(1) }}", 'there is no filter "wordwrap"'),
        ("{{ '%999999999d' | format(1) }}", 'there is no filter "format"'),
        ("{{ job.outputs | batch(1000000000, 'x') }}", 'there is no filter "batch"'),
        ("{{ job.outputs | slice(1000000000) }}", 'there is no filter "slice"'),
        ("{{ job | tojson }}", 'there is no filter "tojson"'),
        ("{{ job | pprint }}", 'there is no filter "pprint"'),
        ("{{ job.message | list }}", 'there is no filter "list" (did you mean "last"?)'),
        ("{{ job.outputs | map(attribute='__class__') }}", 'there is no filter "map"'),
        ("{{ job.outputs | sum(attribute='__class__') }}", 'there is no filter "sum"'),
        ("{{ job.outputs | sort(attribute='x') }}", 'there is no filter "sort"'),
        ("{{ job.outputs | groupby('x') }}", 'there is no filter "groupby"'),
        ("{{ job | attr('keys') }}", 'there is no filter "attr"'),
        ("{{ 'a'.ljust(10**9) }}", 'there is no method ".ljust()"'),
        ("{{ 'a'.zfill(1000000000) }}", 'there is no method ".zfill()"'),
        ("{{ '\t'.expandtabs(1000000000) }}", 'there is no method ".expandtabs()"'),
        ("{{ '{:>1000000000}'.format(1) }}", 'there is no method ".format()"'),
        ("{{ job.created_at.strftime('%999999999Y') }}", 'there is no method ".strftime()"'),
        ("{{ job.update({}) }}", 'there is no method ".update()"'),
        ("{{ range(1000000000) }}", "range() cannot be called; only filters, and methods of texts, can be used"),
        ("{{ ''.__class__.__mro__[1].__subclasses__()[0]() }}", "this cannot be called"),
        ("{{ 9 ** 9 ** 9 }}", "** is not known here"),
        ("{{ {'a': 1} }}", "{...} makes no tables here"),
        ("{% macro a() %}{{ a() }}{{ a() }}{% endmacro %}{{ a() }}", "macros are not known here"),
        ("{% call a() %}{% endcall %}", "call blocks are not known here"),
        ("{% filter upper %}a{% endfilter %}", "write {{ text | filter }} instead of a filter block"),
        ("{% set x %}a{% endset %}", "write {% set name = value %} on one line"),
        ("{% with x = 1 %}{% endwith %}", "write {% set name = value %} instead of with"),
        ("{% include 'a' %}", "a template stands alone"),
        ("{% import 'a' as b %}", "a template stands alone"),
        ("{% from 'a' import b %}", "a template stands alone"),
        ("{% extends 'a' %}", "a template stands alone"),
        ("{% block a %}{% endblock %}", "blocks are not known here"),
        ("{% for a in [1, 2, 3] %}{% endfor %}", "a loop goes through job.outputs, or what split gives"),
        ("{% for a in job.message %}{% endfor %}", "a loop goes through job.outputs, or what split gives"),
        ("{% for a, b in job.outputs %}{% endfor %}", "a loop takes one name"),
        ("{% for a in job.outputs recursive %}{{ loop(a) }}{% endfor %}", "a loop takes one name"),
        ("{% for a in job.outputs %}" * 3 + "{% endfor %}" * 3, "loops may stand 2 deep"),
        ("{% set a, b = job.outputs %}", "set takes one name"),
        ("{{ 'a' | replace(*job.outputs) }}", 'filter "replace" takes no * or **'),
        ("{{ 'a' | replace('a') }}", "filter \"replace\": missing a required argument: 'new'"),
        ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "this nests too deeply: 40 levels are the most"),
        ("{{ " + "not " * 2000 + "1 }}", "this nests too deeply: 40 levels are the most"),
        ("{{ 1" + " + 1" * 41 + " }}", "this nests too deeply: 40 levels are the most"),
        ("{% if 1 %}" * 41 + "{% endif %}" * 41, "this nests too deeply: 40 levels are the most"),
        ("x" * 10_001, "is too long: 10,000 characters are the most"),
        ("{{ " + "9" * 5000 + " }}", "Exceeds the limit"),
        ("{{ 10000000000" + " * 10000000000" * 9 + " }}", "a number beyond 1e+15 is too large here"),
        ("{{ 1e999 - 1 }}", "a number beyond 1e+15 is too large here"),
        ("{{ 'a' * 1000000000 }}", "* is for numbers, not for a text and a number; ~ puts texts together"),
        ("{{ '%999999999d' % 1 }}", "% is for numbers, not for a text and a number"),
        ("{% set x = 'abcdefghij' %}" + "{% set x = x ~ x %}" * 40, "a text of 163,840 characters is too long here"),
        ("{% set x = [1] %}" + "{% set x = [x, x] %}" * 40, "a list holds no lists here"),
        ("{{ job.__class__ }}", 'a job has no "__class__"'),
        ("{{ ''.__class__ }}", 'a text has no "__class__"'),
        ("{{ job }}", "this is a table and no text; name one of its keys, as in job.id"),
    ],
)
def test_an_attack_is_refused_when_the_rules_are_read(source, said):
    (fault,) = faults(rule("[template.x]", f"text = '''\n{source}'''"))
    assert fault.startswith('10: template "x", key "text": the template does not render: ')
    assert said in fault


def test_what_is_refused_says_its_line_in_the_text():
    with pytest.raises(TemplateFault, match=r"\(line 3 of the text\)"):
        compiled("one\ntwo\n{{ 'x' | center(9) }}")


PARTS = "{% for a in job.message.split(',') %}{% for b in job.message.split('x') %}"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ job.message | replace('a', job.message) }}", "is too long here; 100,000 is the most"),
        ("{{ job.message.replace('', job.message) }}", "is too long here; 100,000 is the most"),
        ("{{ job.outputs | join(job.message) }}", "is too long here; 100,000 is the most"),
        ("{{ job.outputs }}", "is too long here; 100,000 is the most"),
        ("{{ '' " + "~ job.message" * 700 + " }}", "characters on its way"),
        ("{{ '' " + "~ job.user_data" * 600 + " }}", "characters on its way"),
        (PARTS + "{% endfor %}{% endfor %}", "characters on its way"),
        ("{% for a in job.outputs %}" + PARTS[35:] + "{{ '' }}" * 9 + "{% endfor %}{% endfor %}", "steps"),
        (
            "{% for a in job.outputs %}{% if job.message in a ~ a %}{% endif %}{% endfor %}" * 100,
            "characters on its way",
        ),
        ("{% for a in job.outputs %}{% if job.outputs == job.outputs %}{% endif %}{% endfor %}", "characters on its"),
    ],
)
def test_what_takes_too_much_for_a_job_is_a_fault(source, said):
    assert said in within_bounds(source)


def test_a_loop_goes_round_a_hundred_times_at_most():
    source = "{% for a in job.message.split('b') %}{% if loop.last %}{{ loop.length }}{% endif %}{% endfor %}"
    assert within_bounds(source) == "100"


def test_steps_are_counted_even_when_nothing_is_said():
    loop = "{% for a in job.outputs %}{% for b in job.outputs %}{% if 0 %}{% endif %}{% endfor %}{% endfor %}"
    within = 1 + 20 * 20 * 3  # the inner blocks of one such loop: a round, an if, and its test
    assert within_bounds(loop) == ""
    assert f"more than {MOST_STEPS:,} steps" in within_bounds(loop * (MOST_STEPS // within + 1))


def test_a_round_of_a_loop_that_says_nothing_is_a_step():
    parts = f"'{'a,' * 99}'.split(',')"
    loop = f"{{% for a in {parts} %}}{{% endfor %}}"
    assert within_bounds(loop) == ""
    assert "steps" in within_bounds(f"{{% for b in {parts} %}}{loop}{{% endfor %}}")


def suggestions(source: str, *, strict: bool) -> int:
    """Count how often one rendering looks for a near word."""
    template, count = compiled(source), 0

    def profile(frame, event, _) -> None:
        nonlocal count
        count += event == "call" and frame.f_code is get_close_matches.__code__

    sys.setprofile(profile)
    try:
        rendered(template, NAMES, strict=strict)
    except TemplateFault:
        pass
    finally:
        sys.setprofile(None)
    return count


def test_a_near_word_is_looked_for_only_when_it_is_told():
    assert suggestions("{{ job.tagg }}" * 100, strict=True) == 1
    assert suggestions("{{ job.tagg }}" * 100, strict=False) == 0
    assert suggestions("{% if job.tagg is defined %}{% endif %}" * 100, strict=True) == 0


def templates(count: int, text: str) -> str:
    return rule(*(f'[template.t{n}]\ntext = """{text}"""' for n in range(count)))


def test_all_templates_of_a_file_have_a_bound_together():
    # 100 times 30 rounds and as many steps: each template takes some thousand steps, and is tried out twice
    parts = f"'{'a,' * 99}'.split(',')"
    found = faults(templates(200, f"{{% for a in {parts} %}}{{{{ a }}}}{{{{ a }}}}{{{{ a }}}}{{% endfor %}}"))
    assert len(found) == 1
    assert "the templates take more than 200,000 steps, so the rest was not looked at" in found[0]
    found = faults(templates(50, "x" * 9_000))
    assert len(found) == 1
    assert "the templates have more than 200,000 characters, so the rest was not looked at" in found[0]


def test_two_hundred_templates_that_people_write_are_within_the_bound():
    text = "{{ job.message or 'no reason given' }}, was {{ was }}, after {{ job.duration | human }}" * 10
    assert len(a_rulebook(templates(200, text)).wordings) == 200


@pytest.mark.parametrize("end", ["\\0", "\\ud800", "\\x00\\udfff"])
def test_what_no_database_takes_is_not_said(end):
    text = within_bounds(f"{{{{ 'a{end}' }}}}b")
    assert "\0" not in text
    assert text.encode()


def alone(function: Callable[..., object]) -> bool:
    """Tell whether a filter or a method can do without arguments."""
    _, *others = inspect.signature(function).parameters.values()
    return all(one.default is not one.empty for one in others)


FILTERED = [name for name, function in FILTERS.items() if alone(function)] + [*TIME_FILTERS] + [
    "truncate(5)", "replace('a', job.message)", "replace('', 'xy')", "join(job.message)", "round(2, 'floor')",
    "d('x', true)", "split('a', 3)",
]  # fmt: skip
METHOD_CALLS = [f"{name}()" for name, function in METHODS.items() if alone(function)] + [
    "lstrip('a')", "removeprefix('a')", "removesuffix('b')", "startswith('a')", "endswith('b')", "replace('a', 'bb')",
    "replace('b', 'ccc', 2)", "split(',')",
]  # fmt: skip


def pairs(made: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Return the expressions that the language makes of others."""
    operators = st.sampled_from(["~", "+", "-", "*", "/", "//", "%", "and", "or", "==", "<", ">=", "in", "not in"])
    return st.one_of(
        st.builds("({} {} {})".format, made, operators, made),
        st.builds("({} | {})".format, made, st.sampled_from(FILTERED)),
        st.builds("({}).{}".format, made, st.sampled_from(METHOD_CALLS)),
        st.builds("({} if {} else {})".format, made, made, made),
        st.builds("(not {})".format, made),
        st.builds("(-{})".format, made),
        st.builds("({})[{}]".format, made, st.integers(-3, 3)),
        st.builds("({})[{}:{}]".format, made, st.integers(-9, 9), made),
        st.builds("[{}, {}]".format, made, made),
        st.builds("({} is {})".format, made, st.sampled_from(["defined", "none", "string", "number", "odd", "even"])),
    )


LEAVES = st.sampled_from([
    "job", "job.tag", "job.message", "job.outputs", "job.user_data", "job.user_data.items", "job.duration",
    "job.nothing", "job.progress", "job.created_at", "was", "seen_at", "x", "loop", "loop.index", "0", "7",
    "1000000000", "1.5", "1e999", "none", "true", "''", "'ab'", "'ß'",
])  # fmt: skip
EXPRESSIONS = st.recursive(LEAVES, pairs, max_leaves=12)


def json_of(source: str) -> str:
    """Return the JSON of an expression in a body for a heavy job, or what is said instead."""
    try:
        return json.dumps(value(compiled(f"{{{{ {source} }}}}"), NAMES), allow_nan=False, ensure_ascii=False)
    except TemplateFault as error:
        return json.dumps(str(error))


@settings(deadline=None)  # the bounds are counted, not timed
@given(EXPRESSIONS)
def test_whatever_an_expression_is_a_body_has_json_for_it_or_it_is_a_fault(source):
    text = json_of(source)
    assert not isinstance(json.loads(text), dict)
    assert text.encode()


LISTS = st.sampled_from(["job.outputs", "job.outputs[:5]", "job.message.split(',')", "job.user_data | split('b')"])


def blocks(made: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.lists(made, min_size=2, max_size=4).map("".join),
        st.builds("{{% if {} %}}{}{{% elif {} %}}{}{{% endif %}}".format, EXPRESSIONS, made, EXPRESSIONS, made),
        st.builds("{{% set x = {} %}}{}".format, EXPRESSIONS, made),
        st.builds("{{% set x = x ~ x %}}{}".format, made),
    )


FLAT = st.recursive(st.builds("{{{{ {} }}}}".format, EXPRESSIONS) | st.just("text "), blocks, max_leaves=5)
LOOPS = st.builds("{{% for x in {} %}}{}{{% endfor %}}".format, LISTS, FLAT)
LOOPS_OF_LOOPS = st.builds("{{% for x in {} %}}{}{}{{% else %}}{}{{% endfor %}}".format, LISTS, FLAT, LOOPS, FLAT)


@settings(deadline=None)  # the bounds are counted, not timed
@given(st.one_of(FLAT, LOOPS, LOOPS_OF_LOOPS))
def test_whatever_the_language_allows_renders_in_bounds_or_is_a_fault(source):
    compiled(source)
    within_bounds(source)
