"""One odd job, field or byte costs its neighbours nothing, and is reported for what it is."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.collect.jobs_xml import LONGEST_NAME, LONGEST_TEXT, PART_LIMIT
from bridge.collect.xml_stream import Repair
from bridge.model import Job, JobProblem, Page
from tests.collect.conftest import read, reader
from tests.collect.test_jobs_xml import a_page

GOOD = "<JobsDetail><JobId>good</JobId><State>Success</State></JobsDetail>"
UNREADABLE = "\N{REPLACEMENT CHARACTER}"


def among_others(job: str | bytes) -> Page:
    """Read a page with this element between two jobs that are well, which must not be touched by it."""
    element = job.encode() if isinstance(job, str) else job
    page = read(b"<Response>" + GOOD.encode() + element + GOOD.replace("good", "fine").encode() + b"</Response>")
    assert [job.id for job in page.jobs][:: len(page.jobs) - 1] == ["good", "fine"]
    return page


def an_element(inside: str | bytes, *, state: str | bytes = "Failed", job_id: str = "j1") -> bytes:
    as_bytes = [part.encode() if isinstance(part, str) else part for part in (state, inside)]
    return b"<JobsDetail><JobId>%s</JobId><State>%s</State>%s</JobsDetail>" % (job_id.encode(), *as_bytes)


def odd(inside: str | bytes, **facts: str) -> tuple[Job, tuple[JobProblem, ...]]:
    page = among_others(an_element(inside, **facts))
    return page.jobs[1], page.problems


def message(text: str | bytes) -> str | None:
    inside = b"<Message>%s</Message>" % (text.encode() if isinstance(text, str) else text)
    job, problems = odd(inside)
    assert problems == ()
    return job.message


@pytest.mark.parametrize(
    "sign",
    [b"&#x8;", b"&#8;", b"&#0;", b"&#x0;", b"&#x1F;", b"&#xFFFE;", b"&#xFFFF;", b"&#xD800;", b"&#xDFFF;", b"&#x110000;",
     b"&#99999999999;", b"&#x00000008;", b"\x00", b"\x08", b"\x1b", b"\xef\xbf\xbf", b"\xff", b"\xc3", b"\xed\xa0\x80"],
)  # fmt: skip
def test_a_character_that_xml_forbids_is_shown_as_unreadable(sign: bytes) -> None:
    said = message(b"before " + sign + b" after")
    assert said is not None
    assert said.replace(UNREADABLE, "") == "before  after"
    assert UNREADABLE in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a&nbsp;b &copy; &unknown;", "a&nbsp;b &copy; &unknown;"),
        ("AT&T & sons &", "AT&T & sons &"),
        ("&#; &#x; &#xZZ; &#X41;", "&#; &#x; &#xZZ; &#X41;"),
        ("if a < b && b <= c", "if a < b && b <= c"),
        ("a]]>b", "a]]>b"),
        ("&lt;b&gt; &amp;amp; &#65;&#x42;", "<b> &amp; AB"),
        ("<![CDATA[a&b <c> &#x8;]]>\x08 & d", f"a&b <c> &#x8;{UNREADABLE} & d"),
        ("tell <b>me</b> why", "tell me why"),
        ("<!-- a < b & c -->seen", "seen"),
        ("<?php echo ?>seen", "seen"),
        ("\U0001f600 é \x7f\x85", "\U0001f600 é \x7f"),
    ],
)
def test_what_a_writer_did_not_escape_is_read_as_it_was_meant(text: str, said: str) -> None:
    assert message(text) == said


@pytest.mark.parametrize(
    "text",
    ["soon", "null", "None", "2024-03-05T09:30:01", "2024-03-05", "2024-13-05T09:30:01Z", "2024-02-30T09:30:01Z",
     "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+0800", "0000-00-00T00:00:00Z", "99999-01-01T00:00:00Z",
     "9999-12-31T23:59:59-0800", "1970-01-01T00:00:00Z", "2024-03-05T09:30:60Z", "1709602201", "1709602201.5",
     "2024-03-05T09:30:01+99:00", "٢٠٢٤-٠٣-٠٥T٠٩:٣٠:٠١Z", "2024-03-05T09:30:01&#8;Z", "x" * 5000],
)  # fmt: skip
@pytest.mark.parametrize("tag", ["CreationTime", "StartTime", "EndTime"])
def test_a_time_that_cannot_be_understood_is_absent_and_reported(tag: str, text: str) -> None:
    job, (problem,) = odd(f"<{tag}>{text}</{tag}><Progress>30</Progress>")
    assert (job.created_at, job.started_at, job.ended_at, job.progress) == (None, None, None, 30)
    value = text.replace("&#8;", UNREADABLE)
    assert problem == JobProblem(job_id="j1", field=tag, value=value if len(value) < 80 else "x" * 79 + "…")


@pytest.mark.parametrize("text", ["30%", "many", "-1", "3.5", "250", "1000", "1e2", "٣", "0x1f", "NaN", "null", "1 0"])
def test_a_progress_that_is_no_per_cent_is_absent_and_reported(text: str) -> None:
    job, problems = odd(f"<Progress>{text}</Progress><EndTime>2024-03-05T01:30:01Z</EndTime>")
    assert (job.progress, job.ended_at) == (None, datetime(2024, 3, 5, 1, 30, 1, tzinfo=UTC))
    assert problems == (JobProblem(job_id="j1", field="Progress", value=text),)


@pytest.mark.parametrize("text", ["", " ", "-", "\n"])
def test_what_ci_did_not_say_is_no_problem(text: str) -> None:
    job, problems = odd(f"<Progress>{text}</Progress><EndTime>{text}</EndTime>")
    assert (job.progress, job.ended_at, problems) == (None, None, ())


@pytest.mark.parametrize(
    ("state", "value"),
    [("", ""), (" \n", ""), ("-", "-"), ("null", "null"), ("Run\x08ning", f"Run{UNREADABLE}ning"),
     ("Run\nning", "Run ning"), (b"Run\xffning", f"Run{UNREADABLE}ning"), ("S" * 201, "S" * 79 + "…"),
     ("gone", "gone"), ("new", "new"), ("Run\u200bning", "Run\u200bning")],
)  # fmt: skip
def test_a_job_without_a_usable_state_is_left_out_and_reported(state: str | bytes, value: str) -> None:
    page = among_others(an_element("", state=state) if state else "<JobsDetail><JobId>j1</JobId></JobsDetail>")
    assert [job.id for job in page.jobs] == ["good", "fine"]
    assert page.problems == (JobProblem(job_id="j1", field="State", value=value, left_out=True),)


@pytest.mark.parametrize("job_id", ["", "<JobId/>", "<JobId> </JobId>", f"<JobId>{'x' * 201}</JobId>"])
def test_a_job_whose_id_cannot_be_read_is_left_out_and_reported_by_what_it_says(job_id: str) -> None:
    rest = "<State>Failed</State><Tag>Snapshot</Tag><CreationTime>2024-03-05T01:30:01Z</CreationTime>"
    (problem,) = among_others(f"<JobsDetail>{job_id}{rest}</JobsDetail>").problems
    value = "x" * 79 + "…" if "xx" in job_id else "Snapshot, 2024-03-05T01:30:01Z"
    assert problem == JobProblem(job_id="", field="JobId", value=value, left_out=True)


@pytest.mark.parametrize("job_id", ["a,b", "a/b", "a b", "../x", "媒", "<![CDATA[j&1]]>", "a&b"])
def test_an_odd_id_is_an_id(job_id: str) -> None:
    job, problems = odd("", job_id=job_id)
    assert (job.id, problems) == (job_id.removeprefix("<![CDATA[").removesuffix("]]>"), ())


def test_of_elements_that_come_twice_the_first_that_says_something_counts() -> None:
    job, problems = odd("<Code/><Code>A</Code><Code>B</Code><State>Running</State><EndTime>-</EndTime><EndTime/>")
    assert (job.code, job.state, problems) == ("A", "Failed", ())


def test_a_job_that_comes_twice_is_left_out_only_if_it_cannot_be_read_at_all() -> None:
    page = among_others(an_element("", state="") + an_element("", state="Running"))
    assert [job.id for job in page.jobs] == ["good", "j1", "fine"]
    assert page.problems == ()


@pytest.mark.parametrize(
    "page",
    [
        '<Response xmlns="http://ci"><JobsDetail><JobId>j1</JobId><State>Running</State></JobsDetail></Response>',
        '<a:Response xmlns:a="b"><a:JobsDetail><a:JobId>j1</a:JobId><a:State>P</a:State></a:JobsDetail></a:Response>',
        a_page().replace("<JobsDetail>", '<JobsDetail xmlns="x">'),
        a_page().replace("<JobsDetail>", "<JobsDetail id='1' >"),
        a_page().replace("JobsDetail", "x:JobsDetail"),
        a_page("<Operation><JobsDetail><JobId>j2</JobId><State>Failed</State></JobsDetail></Operation>"),
    ],
)
def test_namespaces_and_namesakes_hide_no_job(page: str) -> None:
    assert [job.id for job in read(page).jobs] == ["j1"]


def test_what_is_kept_of_a_text_is_bounded_and_marked() -> None:
    long = "x" * 12_000_000
    inside = (
        f"<Message>{long}</Message><Input><Object>up/{long}</Object></Input><Operation><Output><Object>{long}</Object>"
        f"</Output><MediaResult><OutputFile><ObjectName>{long}</ObjectName></OutputFile></MediaResult>"
        f"<UserData>k=v;{long}</UserData></Operation>"
    )
    job, problems = odd(inside)
    for text in (job.message, job.input, job.output, job.user_data):
        assert text is not None
        assert (len(text), text[-2:]) == (LONGEST_TEXT, "x…")
    assert (len(job.outputs[0]), job.outputs[0][-2:]) == (LONGEST_NAME, "x…")
    assert str(job.user_data).startswith("k=v;x")
    assert problems == ()
    exact = "x" * LONGEST_TEXT
    assert odd(f"<Message>{exact}</Message>")[0].message == exact


def test_a_job_of_too_many_files_is_left_out_as_too_big_and_one_of_many_is_read() -> None:
    name = "<ObjectName>snapshots/0123456789/picture.jpg</ObjectName>"

    def files(count: int) -> bytes:
        return (
            an_element(f"<Operation><MediaResult><OutputFile>{name * count}</OutputFile></MediaResult></Operation>")
            .replace(b"<JobId>j1</JobId>", b"")
            .replace(b"</Operation>", b"</Operation><JobId>j1</JobId>")
        )

    many = among_others(files(60_000))
    assert (many.jobs[1].outputs_total, many.problems) == (60_000, ())
    more = among_others(files(200_000))
    assert [job.id for job in more.jobs] == ["good", "fine"]
    assert more.problems == (JobProblem(job_id="j1", field="JobsDetail", value="more than 8 MB", left_out=True),)


ODDITIES = (
    "a & b", "&#x8;", "<![CDATA[ < & ]]>", "é", "\x01", "&nbsp;", "<b>c</b>", "]]>", "<!-- < -->", "&lt;", " ", "&#65;",
)  # fmt: skip


@given(st.lists(st.sampled_from(ODDITIES), max_size=12), st.integers(1, 40), st.binary(max_size=3))
@settings(max_examples=50)
def test_it_is_all_the_same_in_what_pieces_a_reply_arrives(texts: list[str], size: int, junk: bytes) -> None:
    element = an_element(b"<Message>" + "".join(texts).encode() + junk.replace(b"<", b"") + b"</Message>")
    repair, whole = Repair(), Repair()
    pieces = [repair.feed(element[at : at + size]) for at in range(0, len(element), size)]
    assert b"".join((*pieces, repair.feed(b"", last=True))) == whole.feed(element, last=True)


def test_a_page_that_is_read_as_it_comes_is_read_the_same() -> None:
    noise = random.Random(3)
    element = an_element(
        "<Message>a & b &#8; <![CDATA[&amp;]]> é</Message><EndTime>null</EndTime><Progress>40</Progress>"
    )
    body = b"<Response>" + element * 3 + GOOD.encode() + b"<NextToken>n</NextToken></Response>"
    filler = b"<MediaInfo>" + b"<a>1</a>" * (PART_LIMIT // 8) + b"</MediaInfo>"
    made = reader()
    large = body.replace(b"<NextToken>", filler + b"<NextToken>")
    while large:
        size = noise.randrange(1, 100_000)
        made.feed(large[:size])
        large = large[size:]
    assert made.close().page() == read(body)
