"""How CI can show a job oddly, in every answer that has it, until it is healed.

It is said here what an oddity makes of an answer; what is to be made of that, the oracle works out from the bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable

Change = Callable[[bytes], bytes]

DENIED = "denied"  # no list has it, and a question by id is answered as if it did not exist


def _text(tag: bytes, said: bytes) -> Change:
    """Let an element say this, whether it said something before or not."""
    element, put = re.compile(rb"<%s(?: />|>.*?</%s>)" % (tag, tag), re.DOTALL), b"<%s>%s</%s>" % (tag, said, tag)
    return lambda job: element.sub(lambda _: put, job, count=1)


def _user_data(said: bytes) -> Change:
    put = b"<UserData>%s</UserData></Operation>" % said
    return lambda job: re.sub(rb"<UserData>.*?</UserData>", b"", job).replace(b"</Operation>", put)


def _after_the_state(put: bytes) -> Change:
    return lambda job: re.sub(rb"(<State(?: />|>.*?</State>))", lambda found: found[1] + put, job, count=1)


# Nothing is the matter with the job.
FIELDS: dict[str, Change] = {
    "references that XML forbids": _text(b"Message", b"a &#x8; b &#0; c &#xFFFF; d"),
    "half of a surrogate": _text(b"Message", b"&#xD83D; &#xDE00; &#57343;"),
    "bytes that XML forbids": _text(b"Message", b"a \x0b b \x00 c \x1b"),
    "bytes that are no UTF-8": _text(b"Message", b"\xff\xfe caf\xe9 \xed\xa0\x80 \xc3"),
    "an input that cannot be read": _text(b"Object", b"in/\xe4\xb8&#1;\xff.mp4"),
    "user data that cannot be read": _user_data(b"k=&#x1f;v\x02;\x80"),
    "user data that are too long": _user_data(b"k=v;" + b"x" * 100_000),
    "a message that is too long": _text(b"Message", b"&amp;" * 50_000),
    "a progress that is no number": _text(b"Progress", b"many &#8;%"),
    "a progress of 10^40": _text(b"Progress", b"1" + b"0" * 40),
    "times without a zone": lambda job: re.sub(rb"\+0800</", b"</", job),
    "a creation time of null": _text(b"CreationTime", b"null"),
    "a creation time of nonsense": _text(b"CreationTime", b"2026-13-41T25:61:61\xff"),
    "an end of null": lambda job: _text(b"StartTime", b"0")(_text(b"EndTime", b"null")(job)),
}
# Its state cannot be made out.
STATES: dict[str, Change] = {
    "no state": lambda job: re.sub(rb"<State>.*?</State>", b"", job),
    "an empty state": _text(b"State", b""),
    "a state of null": _text(b"State", b"null"),
    "a state that cannot be read": _text(b"State", b"Runn&#x8;ing\xff"),
}
# No answer that has it can be read.
STRUCTURE: dict[str, Change] = {
    "crossed tags": _after_the_state(b"<a><b></a></b>"),
    "an end that does not come": _after_the_state(b"<a>"),
    "an answer that is cut off": _after_the_state(b"CUT HERE"),
}
ODDITIES: dict[str, Change] = {**FIELDS, **STATES, **STRUCTURE}


def show(body: bytes, job_id: str, how: str, *, by_id: bool) -> bytes:
    """Return an answer with a job in it as it is shown now."""
    pattern = rb"<JobsDetail>(?:(?!</JobsDetail>).)*?<JobId>%s</JobId>.*?</JobsDetail>" % job_id.encode()
    found = re.search(pattern, body, re.DOTALL)
    if found is None:
        return body
    if how == DENIED:
        return deny(body, found[0], job_id) if by_id else body.replace(found[0], b"")
    changed = body.replace(found[0], ODDITIES[how](found[0]))
    return changed.partition(b"CUT HERE")[0]


def deny(body: bytes, job: bytes, job_id: str) -> bytes:
    """Return an answer that says of one of its jobs that there is none of this id."""
    missing = b"<NonExistJobIds>%s</NonExistJobIds></Response>" % job_id.encode()
    return body.replace(job, b"").replace(b"</Response>", missing)
