"""Rules as an attack: a file that is too large, too deep or too wrong is refused in few words, and soon."""

import tomllib
import tracemalloc
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.decide.changes.scan import is_due, pause
from bridge.decide.rulesfile.errors import RulesRefused, statements
from bridge.decide.rulesfile.read import read
from bridge.decide.rulesfile.tables import KEYS
from tests.support.nouns import NOON, a_job, a_rulebook, a_transition
from tests.support.rules_texts import HOOK, RULE, WATCH, faults, rule, warnings


def words(beginning: str, count: int) -> str:
    return ",".join(f'"{beginning}{n}"' for n in range(count))


def test_a_text_of_the_environment_has_the_same_limit_in_bytes():
    with pytest.raises(RulesRefused, match=r"^BRIDGE_RULES_TOML:1: is too large: it has 1,000,002 bytes; the limit is"):
        read("#" + "é" * 500_000 + "x", {}, file="BRIDGE_RULES_TOML")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\ny = " + "[" * 400_000, "2: brackets nest too deeply; the limit is 20 levels"),
        ("x = " + "[" * 21 + "]" * 21, "1: brackets nest too deeply; the limit is 20 levels"),
        ("a" + ".a" * 400_000 + " = 1", "1: a key has too many parts; the limit is 20"),
        ("x = '" + "[" * 400_000 + "\ny = " + "[" * 30, "2: brackets nest too deeply; the limit is 20 levels"),
        ('x = "' + '\\"' * 400_000, "1: this is not TOML: Illegal character"),
        ('x = """' + '\\"""' * 200_000, "this is not TOML: Unterminated string (at end of document)"),
        ("x = [\n" + '"]",\n' * 100_000 + "]", '1: unknown key "x"'),
        ("[[rule]]\n" * 100_000, "1: [rule]: there are 100,000 of these; the limit is 10,000"),
        (
            "[alias.queue]\n" + "".join(f"a{n} = 'q'\n" for n in range(1001)),
            '1: [alias], key "queue": there are 1,001 names; the limit is 1,000',
        ),
        (rule("k" * 900_000 + " = 1"), '9: rule "r1": unknown key "kkk'),
        (
            WATCH + "[[rule]]\nname = 'a'\nnotify = [" + '"hook",' * 100_000 + "]",
            '8: rule "a", key "notify": a list of 100,000 is too long; the limit is 1,000',
        ),
        (rule("match.tag = [" + '"a",' * 100_000 + "]"), '9: rule "r1", key "match.tag": a list of 100,000 strings is'),
        (
            WATCH.replace('"Transcode"', words("T", 500)).replace("vod", "big")
            + f"queues = [{words('q', 500)}]\n" + RULE,
            '1: watch "big": with this one there are 250,000 pairs of tag and queue; the limit is 10,000',
        ),
        (
            WATCH + "".join(
                f'[[rule]]\nname = "r{n}"\nnotify = "hook"\nmatch.input = "{{a,b,c,d}}{{a,b,c,d}}{{a,b,c,d}}*"\n'
                for n in range(200)
            ),
            # 4 * 4 * 4 = 64 patterns a rule: rule number 157 passes 10,000
            '633: rule "r156", key "match": the globs up to here expand to more than 10,000 patterns; write fewer',
        ),
    ],
)  # fmt: skip
def test_what_no_rules_file_is_like_is_refused_in_few_words(text, said):
    found = faults(text)
    assert any(said in fault for fault in found), [fault[:200] for fault in found]
    assert all(len(fault) < 700 for fault in found)


HUGE = "0x" + "f" * 5000


@pytest.mark.parametrize("value", [HUGE, f"[{HUGE}]", f"{{a = {HUGE}}}"])
@pytest.mark.parametrize(
    "table",
    [
        "",
        "[defaults]",
        "[alias]",
        "[alias.queue]",
        "[[watch]]",
        '[notifier.n]\ntype = "webhook"\nurl = "https://cms.example.com/"',
        "[notifier.n]",
        '[notifier.s]\ntype = "slack"\nchannel = "C1"',
        "[[rule]]",
        "[[rule]]\n[rule.match]",
        "[template.t]",
    ],
)
def test_a_number_of_thousands_of_digits_is_a_fault_wherever_it_stands(table, value):
    has = {line.partition(" ")[0] for line in table.split("\n")}
    keys = {key for shape in KEYS.values() for key in shape} | {"queue", "tag", "duration", "user_data", "n", "k"}
    for key in keys - has:
        found = faults(f"{table}\n{key} = {value}\n")
        assert all(len(fault) < 1000 for fault in found)


def test_the_longest_spans_and_the_largest_rates_are_reckoned_with():
    book = a_rulebook(
        '[defaults]\nevery = "3650d"\nkeep = "3650d"\nkeep_dead = "3650d"\nlookback = "3650d"\n' + WATCH + RULE
        + 'match.age = "> 3650d"\n' + HOOK + 'retry = "3650d"\nrate = "1000000/d"'
    )  # fmt: skip
    (watch,), hook = book.watches, book.notifiers["hook"]
    assert pause(watch.every, refused=True) == watch.every == hook.retry == timedelta(days=3650)
    assert NOON - watch.lookback - book.keep < NOON < NOON + hook.retry
    assert is_due(next_poll_at=0, polled_at=0, failures=0, every=watch.every, now=3650 * 86_400_000)
    assert hook.rate
    # What a claim reckons with, in milliseconds: twice all that may be told at once.
    assert 2 * hook.rate.count * max(1, round(hook.rate.interval / timedelta(milliseconds=1))) < 2**31
    assert not book.matcher.match(a_transition(a_job(created_at=NOON)))


def test_a_word_is_no_longer_than_an_index_takes():
    (fault,) = faults(WATCH.replace("Transcode", "T" * 201) + RULE)
    assert fault.endswith("is too long; the limit is 200 characters")
    (fault,) = faults(WATCH + f'input = "{"k" * 851}"\n' + RULE)
    assert fault.endswith("is too long; the limit is 850")


def test_globs_have_a_length_together():
    # each of 100 patterns has 2 * 240 characters from its first star to its last question mark
    braces = ",".join(f"b{n}" for n in range(50))
    rules = "".join(
        f'[[rule]]\nname = "r{n}"\nnotify = "hook"\nmatch.message = "*{"a?" * 100}{{{braces}}}*"\n' for n in range(20)
    )
    (fault,) = faults(rules + WATCH)
    assert fault.endswith("the globs up to here are too long; the limit is 100,000 characters together")


def test_of_five_thousand_faults_the_first_hundred_are_told_and_how_many_more():
    text = "".join(f'[[rule]]\nname = "r{n}"\nnotify = "nobody"\n' for n in range(5000))
    found = faults(text + WATCH + HOOK)
    assert len(found) == 101
    assert found[99].startswith('300: rule "r99", key "notify": there is no notifier "nobody"')
    # 5,000 faults, and the warnings that "hook" is not signed and that no rule notifies it; 100 are shown
    assert found[100] == "303: and 4,902 more"


def test_of_very_many_faults_not_all_are_looked_for():
    found = faults("[[rule]]\n" * 9000)
    assert found[-1].endswith("and 9,900 more, and not all was looked at")  # it ends at 10,000


def test_faults_are_told_before_warnings_however_many_those_are():
    tags = [",".join(f'"Unknown{n}"' for n in range(at, at + 900)) for at in range(0, 10_800, 900)]
    watches = "".join(
        WATCH.replace('"Transcode"', some).replace("vod", f"w{n}").replace("-125", f"-{n}25")
        for n, some in enumerate(tags)
    )
    found = faults(watches + RULE + "stop = 1")
    assert any('rule "r1", key "stop": 1 is not true or false' in fault for fault in found)


@pytest.mark.parametrize(
    "text",
    [
        rule(r'"\u001b\nrules.toml:3: forged" = 1'),
        rule(r'match."\u202egpj" = "x"'),
        rule(r'match.duration = "> \u001b[31m\r"'),
        rule(r'[template."a"]', r"""text = "{{ job['\u001b[2K\nrules.toml:3: forged'] }}" """),
        rule(r"[template.a]", r'fields = ["\u2028"]'),
        '[defaults]\ntimezone = "\\u0000\\n"\n' + WATCH + RULE,
    ],
)
def test_a_fault_is_one_line_of_signs_that_can_be_seen(text):
    assert faults(text)
    assert all(fault.isprintable() for fault in faults(text))


def test_very_many_warnings_do_not_refuse_a_file():
    rules = "".join(f'[[rule]]\nname = "r{n}"\nmatch.tag = "New{n}"\nnotify = "hook"\n' for n in range(6000))
    found = warnings(rules + WATCH)
    assert len(found) == 101
    assert found[-1].endswith("warning: and 5,900 more")


def test_a_rule_of_many_tags_queues_and_states_still_matches():
    tags, queues, states = words("T", 1000), words("q", 1000), words("State", 1000)
    text = rule(f"match.tag = [{tags}]", f"match.queue = [{queues}]", f"to = [{states}]")
    tracemalloc.start()
    matcher = a_rulebook(text).matcher
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert matcher.match(a_transition(a_job(tag="T999", queue="q500", state="State7")))
    assert not matcher.match(a_transition(a_job(tag="T999", queue="q500", state="Other")))
    assert peak < 50_000_000


TEXTS = st.sampled_from(
    [
        '"a"',
        "'b'",
        '"]"',
        r'"\"["',
        '"#"',
        '"""\nx\n"""',
        '"""a\n""]\\""""',
        "'''\n['\n'''",
        "''''a'''''",
        '"""a"""""',
        "5",
        "1.5",
    ]
)
VALUES = st.recursive(
    TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda some: "[ # ]\n" + ",\n".join(some) + "]")
        | st.lists(inner.filter(lambda one: "# ]" not in one), max_size=2).map(
            lambda some: "{" + ", ".join(f"k{n} = {one}" for n, one in enumerate(some)) + "}"
        )
    ),
    max_leaves=5,
)
LINES = st.one_of(st.just("# [ \" '''"), st.just(""), st.just("[[t.'a]\"'.b]] # ["), VALUES.map('x = {} # "'.format))


@settings(deadline=None)
@given(st.lists(LINES, max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_statements_are_what_the_parser_reads(lines, end):
    text = "\n".join(lines).replace("\n", end)
    found = list(statements(text))
    assert len(found) == sum(line[:1] in ("x", "[") for line in lines)
    for number, statement in found:
        assert len(tomllib.loads(statement)) == 1
        assert text.replace("\r\n", "\n").split("\n")[number - 1] == statement.split("\n")[0]
