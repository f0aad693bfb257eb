"""Globs, matched without ever trying anything twice: `*`, `**`, `?` and `{a,b}`; all else means itself.

What stands between two stars is looked for once, from where the last find ended: the leftmost place leaves the most
room for the rest, so no other one need be tried. The same holds of the folders between two `**`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

from bridge.decide.words import shown

MOST_PATTERNS = 100  # that the braces of one glob may stand for
LONGEST = 1_000  # characters; an object's key has at most 850 bytes
_MOST_BRACES = 20
_RANGE = re.compile(r"\{(-?\d+|[A-Za-z])\.\.(-?\d+|[A-Za-z])(\.\.-?\d+)?\}")
_BRACE = re.compile(r"[{,}]")

_Pieces = tuple[str, ...]  # what stands between the stars of a text or of one folder's name
_Run = tuple[_Pieces, ...]  # folders that follow one another


def is_glob(text: str) -> bool:
    return not frozenset("*?{").isdisjoint(text)


def glob(text: str, *, path: bool) -> tuple[Callable[[str], bool], int]:
    """Return the test for one value, and how many patterns it is of.

    In a `path`, `*` and `?` stop at slashes and `**` is any folders. Raises ValueError saying what would be right.
    """
    if len(text) > LONGEST:
        raise ValueError(f"{shown(text)} is too long: a pattern has at most {LONGEST:,} characters")
    if found := _RANGE.search(text):
        raise ValueError(f"{shown(text)}: {found[0]} would be a range, which is not known here; write {{1,2,3}}")
    if text.count("{") > _MOST_BRACES:
        raise ValueError(_too_many(text))
    patterns = list(dict.fromkeys(_expanded(text, text)))
    if not path:
        tests = [_text_test(tuple(pattern.split("*"))) for pattern in patterns]
    elif any(_glued(pattern) for pattern in patterns):
        raise ValueError(f'{shown(text)}: ** stands alone between slashes, as in "uploads/**/*.mp4"')
    else:
        tests = [_path_test(pattern.split("/")) for pattern in patterns]
    return (tests[0] if len(tests) == 1 else lambda value: any(test(value) for test in tests)), len(tests)


def _too_many(text: str) -> str:
    return f"{shown(text)} stands for more than {MOST_PATTERNS} patterns; write fewer braces"


def _expanded(text: str, whole: str) -> list[str]:
    """Return what the braces of `text` stand for. Raises ValueError when `whole` has too many of them."""
    made = [""]
    while group := _first_group(text):
        before, options, text = group
        endings = [ending for option in options for ending in _expanded(option, whole)]
        if len(made) * len(endings) > MOST_PATTERNS:
            raise ValueError(_too_many(whole))
        made = [f"{beginning}{before}{ending}" for beginning in made for ending in endings]
    return [beginning + text for beginning in made]


def _first_group(text: str) -> tuple[str, list[str], str] | None:
    """Return what stands before the first {a,b}, its options, and the rest. A brace without its like means itself."""
    for opens in (found.start() for found in re.finditer(r"\{", text)):
        depth, cuts = 0, [opens]
        for found in _BRACE.finditer(text, opens + 1):
            sign, at = found[0], found.start()
            if sign == "{":
                depth += 1
            elif sign == "," and not depth:
                cuts.append(at)
            elif sign == "}" and depth:
                depth -= 1
            elif sign == "}" and len(cuts) > 1:
                options = [text[a + 1 : b] for a, b in zip(cuts, [*cuts[1:], at], strict=True)]
                return text[:opens], options, text[at + 1 :]
    return None


def _glued(pattern: str) -> bool:
    # Such a ** would silently mean *.
    return any("**" in folder and folder != "**" for folder in pattern.split("/"))


def _text_test(pieces: _Pieces) -> Callable[[str], bool]:
    return lambda value: _matches(pieces, value)


def _matches(pieces: _Pieces, value: str) -> bool:
    first, last = pieces[0], pieces[-1]
    if len(pieces) == 1:
        return len(value) == len(first) and _stands_at(first, value, 0)
    at, end = len(first), len(value) - len(last)
    if at > end or not _stands_at(first, value, 0) or not _stands_at(last, value, end):
        return False
    for piece in pieces[1:-1]:
        found = _find(piece, value, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def _stands_at(piece: str, value: str, at: int) -> bool:
    return bool(_fixed(piece).match(value, at)) if "?" in piece else value.startswith(piece, at)


def _find(piece: str, value: str, at: int, end: int) -> int:
    if "?" not in piece:
        return value.find(piece, at, end)
    found = _fixed(piece).search(value, at, end)
    return found.start() if found else -1


@lru_cache(maxsize=4096)
def _fixed(piece: str) -> re.Pattern[str]:
    """Return a regex without repetitions: it cannot backtrack."""
    return re.compile(".".join(map(re.escape, piece.split("?"))), re.DOTALL)


def _path_test(folders: list[str]) -> Callable[[str], bool]:
    runs = tuple(_runs(folders))
    return lambda key: _matches_path(runs, key.split("/"))


def _runs(folders: list[str]) -> Iterator[_Run]:
    """Yield what stands between the `**`."""
    run: list[_Pieces] = []
    for folder in folders:
        if folder == "**":
            yield tuple(run)
            run = []
        else:
            # A folder's name that is only a star is not empty: uploads/* is not uploads/ itself.
            run.append(("?", "") if folder == "*" else tuple(folder.split("*")))
    yield tuple(run)


def _matches_path(runs: tuple[_Run, ...], folders: list[str]) -> bool:
    first, last = runs[0], runs[-1]
    if len(runs) == 1:
        return len(folders) == len(first) and _follow(first, folders, 0)
    # What ends with ** is below that folder, and not the folder's own name.
    at, end = len(first), len(folders) - max(1, len(last))
    if at > end or not _follow(first, folders, 0) or not _follow(last, folders, len(folders) - len(last)):
        return False
    for run in runs[1:-1]:
        places = range(at, len(folders) - len(last) - len(run) + 1)
        found = next((place for place in places if _follow(run, folders, place)), None)
        if found is None:
            return False
        at = found + len(run)
    return at <= end


def _follow(run: _Run, folders: list[str], at: int) -> bool:
    return all(_matches(pieces, folders[at + n]) for n, pieces in enumerate(run))
