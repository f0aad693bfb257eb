"""The answer for people: the headline, then what it is made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bridge.display import columns, pad, visible

Facts = Mapping[str, Any]

_WIDEST = 40  # characters of a column but the last
_MOST_RULES = 20  # of those that said no
_LONGEST_TEXT = 10  # lines of a message


def as_text(facts: Facts) -> str:
    """Return one transition's answer as lines without an end of line."""
    head = f"{facts['tag'] or 'job'} {facts['job']}: {facts['from']} -> {facts['to']}"
    head += f" (number {facts['sequence']}, seen {facts['seen_at']}, watch {facts['watch']})"
    lines = [head, f"  {facts['headline']}", *_notes(facts), *_told(facts), *_said(facts), *_rules(facts)]
    return "\n".join(map(visible, lines))  # a line break in a name begins none


def _notes(facts: Facts) -> Iterator[str]:
    yield from (f"  note: {note}" for note in facts["notes"])
    if now := facts["would_tell_now"]:
        told = ", ".join(f'{", ".join(one["notifiers"])} by "{one["rule"]}"' for one in now["tells"])
        yield f"  note: the rules of now would tell: {told or 'nobody'}"


def _told(facts: Facts) -> Iterator[str]:
    found = facts["deliveries"]
    if found:
        rows = [(one["notifier"], f'"{one["rule"]}"' if one["rule"] else "by hand", _why(one)) for one in found]
        yield from _aligned(rows)


def _why(delivery: Facts) -> str:
    kind = f"{delivery['kind']}: " if delivery["kind"] != "transition" else ""
    return " ".join([kind + delivery["why"], *([f"({delivery['id']})"] if delivery["id"] else [])])


def _said(facts: Facts) -> Iterator[str]:
    seen = dict.fromkeys((one["title"], one["text"]) for one in facts["messages"])
    for title, text in seen:
        yield f"    says: {title}"
        lines = [line for line in visible(text, lines=True).split("\n") if line.strip()]
        yield from (f"          {line}" for line in lines[:_LONGEST_TEXT])
        if len(lines) > _LONGEST_TEXT:
            yield f"          ... and {len(lines) - _LONGEST_TEXT} lines more"


def _rules(facts: Facts) -> Iterator[str]:
    rows = [_edge(one) for one in facts["rules"]] + [_level(one) for one in facts["levels"]]
    no = [row for row in rows if row[0] == "no"]
    left_out = {id(row) for row in no[_MOST_RULES:]}
    yield from _aligned([row for row in rows if id(row) not in left_out])
    if left_out:
        yield f"    ... and {len(left_out):,} more that say no (--json has them all)"


def _edge(rule: Facts) -> tuple[str, ...]:
    name = f'rule "{rule["rule"]}" (line {rule["line"]})'
    if not rule["matches"]:
        return "no", name, rule["why_not"]
    told = f"tells {', '.join(rule['notifiers'])}" if rule["notifiers"] else "matches"
    already = f"; a rule above is the one that tells {', '.join(rule['already_told'])}" if rule["already_told"] else ""
    return "yes", name, told + already


_LEVELS = {"fired": "yes", "due": "yes", "not_yet": "not yet"}


def _level(level: Facts) -> tuple[str, ...]:
    line = f" (line {level['line']})" if level["line"] else " (no longer among the rules)"
    return _LEVELS.get(level["answer"], "no"), f'rule "{level["rule"]}"{line}', level["why"]


def _aligned(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Yield the rows with columns of one width; the last is as long as it is."""
    listed = list(rows)
    widths = [min(_WIDEST, max(map(columns, column))) for column in zip(*listed, strict=True)][:-1]
    for *cells, last in listed:
        yield "  ".join(["  ", *(pad(cell, width) for cell, width in zip(cells, widths, strict=True)), last])
