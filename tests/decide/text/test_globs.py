import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wcmatch import fnmatch
from wcmatch import glob as wcglob

from bridge.decide.text import globs
from bridge.decide.text.globs import LONGEST, LONGEST_VALUE, glob

LITERAL = str.maketrans({"[": r"\[", "]": r"\]", "\\": r"\\"})  # what wcmatch would take for more


def matches(pattern: str, value: str, *, path: bool) -> bool:
    return glob(pattern, path=path).test(value)


# wcmatch takes paths for those of a disk, where // is /, and a/. is a; keys of objects are texts.
NAMES = st.text(r"ab.[\-!é", min_size=1, max_size=5).filter(lambda name: name not in (".", ".."))
KEYS = st.lists(NAMES, min_size=1, max_size=6).map("/".join)
PARTS = st.sampled_from(["a", "b", "ab", ".", "[", "\\", "é", "*", "?", "{a,b}", "{a*,b,.?}", "{a,{b,ab}}"])
FOLDERS = st.lists(PARTS, min_size=1, max_size=4).map("".join).filter(lambda name: "**" not in name and name != ".")
# At the very beginning of a pattern, and only there, wcmatch takes {} for something of its own.
TEXTS = st.text("ab*?{,}[]\\-!/|", max_size=14).filter(lambda text: "{}" not in text)
PATHS = st.lists(FOLDERS | st.just("**"), min_size=1, max_size=6).map("/".join)


@settings(deadline=None)
@given(PATHS, KEYS)
def test_globs_of_paths_match_as_those_of_wcmatch_do(pattern, key):
    flags = wcglob.GLOBSTAR | wcglob.BRACE | wcglob.DOTGLOB | wcglob.FORCEUNIX
    try:
        ours = matches(pattern, key, path=True)
    except ValueError:  # more than 100 patterns, or a {...} that made a ** of two stars
        return
    assert ours is wcglob.compile(pattern.translate(LITERAL), flags=flags, limit=1000).match(key)


@settings(deadline=None)
@given(TEXTS, st.text("ab{,}/-!\n[", min_size=1, max_size=9))
def test_globs_of_texts_match_as_those_of_wcmatch_do(pattern, value):
    flags = fnmatch.BRACE | fnmatch.DOTMATCH | fnmatch.FORCEUNIX
    theirs = fnmatch.compile(pattern.translate(LITERAL), flags=flags, limit=1000).match(value)
    assert matches(pattern, value, path=False) is theirs


@pytest.mark.parametrize(
    ("pattern", "key", "said"),
    [
        ("uploads/**", "uploads/", True),
        ("uploads/**", "uploads", False),
        ("uploads/*", "uploads/", False),
        ("**/a", "/a", True),
        ("a/**/b", "a/b", True),
        ("a/**/b/**/c", "a/x/b/b/y/c", True),
        ("a/**/b/**/c", "a/b/x", False),
        ("**/a/**/a", "a", False),
        ("a//*", "a/b", False),
    ],
)
def test_a_key_is_a_text_whose_folders_end_with_a_slash(pattern, key, said):
    assert matches(pattern, key, path=True) is said


def steps(pattern: str, value: str, *, path: bool) -> int:
    """Count the lines of globs.py that one match takes; each does a few operations on numbers of one bit a sign."""
    test = glob(pattern, path=path).test
    test(value)  # where the signs stand is looked up once for a value, however many patterns ask
    count = 0

    def trace(frame, event, _):
        nonlocal count
        if frame.f_code.co_filename != globs.__file__:
            return None
        count += event == "line"
        return trace

    sys.settrace(trace)
    try:
        test(value)
    finally:
        sys.settrace(None)
    return count


STARS = 50


@pytest.mark.parametrize("piece", ["a", "?a", "a?", "aa", "?", "a?a?a?ab", "a/", "**/a/"])
@pytest.mark.parametrize("end", ["", "b"])
@pytest.mark.parametrize("path", [True, False])
def test_what_a_match_costs_depends_on_the_pattern_alone(piece, end, path):
    joint = "" if "/" in piece else "*"
    pattern = joint.join(["", *[piece] * STARS, end])
    for value in ("a", "a" * 20_000, "ab" * 500, "a/" * 1000, "a" * 1999 + "b"):
        # a sign of the pattern: take it, move the places, is there one left; a star some lines more
        assert steps(pattern, value, path=path) <= 10 * len(pattern) + 20


def test_where_a_sign_stands_is_looked_up_once_for_all_patterns():
    value = "ab" * 1000
    matches("*a?", value, path=False)
    assert steps("*a??", value, path=False) <= 10 * 4 + 20


def test_of_a_long_value_the_beginning_counts():
    value = "a" * (LONGEST_VALUE - 1) + "b" + "c"
    assert matches("*b", value, path=False)
    assert not matches("*c*", value, path=False)


def test_a_glob_says_what_it_costs():
    # uploads/ before the first star, and .mp4 behind the last, are compared at once
    assert glob("uploads/**/*.{mp4,mov}", path=True)[1:] == (2, 2 * len("**/*"))
    assert glob("{a,b}{c,d}", path=True)[1:] == (4, 0)


def test_the_glob_that_takes_a_regex_forever_is_answered():
    assert not matches("*a" * STARS + "*b", "a" * 800, path=True)
    assert not matches("/".join(["**", "*a*a*"] * STARS), "a/" * 400 + "b", path=True)


@pytest.mark.parametrize(
    ("pattern", "values"),
    [
        ("x{a,{b,c}d}y", ["xay", "xbdy", "xcdy"]),
        ("{a,}{b,}c*", ["abc", "ac", "bc", "c"]),
        ("{a},b}*", ["a}", "b"]),
        ("{{a,b}*", ["{a", "{b"]),
        ("${Name}*", ["${Name}"]),
        ("a}*", ["a}"]),
    ],
)
def test_braces_stand_for_each_of_their_texts_and_else_for_themselves(pattern, values):
    assert all(matches(pattern, value, path=False) for value in values)
    assert not matches(pattern, "z", path=False)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("{a,b}" * 7, "expands to more than 100 patterns; write fewer braces"),
        ("{a,b}" * 99, "expands to more than 100 patterns; write fewer braces"),
        ("{" * 200 + "a,b" + "}" * 200, "expands to more than 100 patterns; write fewer braces"),
        (f"{{{','.join('ab' * 51)}}}{{c,d}}", "expands to more than 100 patterns; write fewer braces"),
        ("a{1..9}", "{1..9} would be a range, which is not supported; write {1,2,3}"),
        ("*" * (LONGEST + 1), "is too long: a pattern has at most 500 characters"),
    ],
)
def test_a_glob_that_stands_for_too_much_is_refused(pattern, said):
    with pytest.raises(ValueError, match=r"patterns|range|too long") as refused:
        glob(pattern, path=False)
    assert str(refused.value).endswith(said)
