"""What is no page must never look like one."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.collect.errors import BrokenReply, UnreadableReply
from bridge.collect.jobs_xml import ErrorBody, read_error
from tests.collect.conftest import fixture, read
from tests.collect.test_jobs_xml import PAGE, refusal


def test_the_slip_does_not_hide_that_the_page_is_cut_off() -> None:
    body = fixture("malformed/doc_sample_message_typo.xml").strip()
    assert refusal(body[:-1]) == "the reply is broken or cut off: unclosed token"


@given(st.binary(max_size=200))
def test_whatever_the_body_nothing_but_unreadable_reply_is_raised(body: bytes) -> None:
    with contextlib.suppress(UnreadableReply):
        read(body)
    read_error(body)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the reply is empty"),
        (b" \r\n\xef\xbb\xbf"[:3], "the reply is empty"),
        (b'{"code": 1}', "the reply is JSON, not XML"),
        (b"[]", "the reply is JSON, not XML"),
        (b"<!DOCTYPE html><html></html>", "the reply is an HTML page, not XML: something between us and CI wrote it"),
        (b"<HTML><body>Log in</body>", "the reply is an HTML page, not XML: something between us and CI wrote it"),
        (b"upstream unavailable", "the reply is plain text, not XML"),
        ("<Response/>".encode("utf-16"), "the reply is plain text, not XML"),
        (b"<Error><Code>X</Code></Error>", "the reply is a <Error>, not a <Response>"),
        (b"<Response>\n<a></b></Response>", "the reply is broken or cut off: mismatched tag"),
        (b"<Response/><Response/>", "the reply is broken or cut off: junk after document element"),
    ],
)  # fmt: skip
def test_what_is_no_page_is_refused_by_what_it_is(body: bytes, said: str) -> None:
    assert refusal(body) == said


@pytest.mark.parametrize(
    "declared",
    ['<!DOCTYPE Response [<!ENTITY a "aaaa">]>', '<!DOCTYPE Response SYSTEM "file:///etc/passwd">', "<!DOCTYPE a>"],
)
def test_a_document_type_is_refused_before_any_entity_is_read(declared: str) -> None:
    said = refusal(f"<?xml version='1.0'?>{declared}<Response>&a;</Response>")
    assert said == "the reply has a document type declaration, which CI never sends"


@pytest.mark.parametrize(
    "body",
    [b"<Response>\n<a></b></Response>", b"<Response/><Response/>", PAGE[:-1], b"<Response><!-- -- --></Response>",
     b"<Response><JobsDetail><JobId>j1</JobId><State>Failed</State><Message><br> b</Message></JobsDetail></Response>"],
)  # fmt: skip
def test_only_what_began_as_a_page_may_be_read_in_smaller_ones(body: bytes) -> None:
    with pytest.raises(BrokenReply):
        read(body)
    for other in (b"<html><body>", b"[1", b"", b"upstream unavailable", b"<Error><Code>X", b"<Respon", b"<a/>"):
        with pytest.raises(UnreadableReply) as caught:
            read(other)
        assert type(caught.value) is UnreadableReply


def test_a_broken_page_names_the_jobs_that_could_be_made_out() -> None:
    """The last of them may be why: asked for alone, it is the one that cannot be read."""
    page = "<JobsDetail><JobId>j1</JobId></JobsDetail><JobsDetail><JobId>j2</JobId><State>Failed</State><Message>a <br>"
    with pytest.raises(BrokenReply) as caught:
        read(f"<Response>{page} b</Message></JobsDetail></Response>")
    assert caught.value.ids == ("j1", "j2")


@pytest.mark.parametrize("comment", ["", "<!-- read closely -->"])
def test_a_page_of_far_more_jobs_than_were_asked_for_is_refused(comment: str) -> None:
    job = f"<JobsDetail>{comment}<JobId>j1</JobId><State>Running</State></JobsDetail>"
    assert len(read(f"<Response>{job * 1000}</Response>").jobs) == 1000
    with pytest.raises(BrokenReply, match="more than 1,000 jobs"):
        read(f"<Response>{job * 1001}</Response>")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (
            fixture("errors/no_such_bucket_404.xml"),
            ErrorBody("NoSuchBucket", "The specified bucket does not exist.", "NjVlNjdhYjFfMWIyYzNkNGVfNzA0M185"),
        ),
        (b"<Error><Code>NoSuchBucket</Code><Message>The <![CDATA[", ErrorBody("NoSuchBucket")),
        (b'{"code": 11009, "message": "denied", "request_id": "r-1"}', ErrorBody("11009", "denied", "r-1")),
        (b'{"code": 1, "message": ' + b"[" * 101 + b"]" * 101 + b"}", ErrorBody()),
    ],
    ids=["XML", "cut off", "JSON", "nested without end"],
)
def test_an_error_is_read_as_far_as_it_says_one(body: bytes, error: ErrorBody) -> None:
    assert read_error(body) == error


@pytest.mark.parametrize(
    "body",
    [b"", b"<html><body>502</body></html>", b"<!DOCTYPE html><p>", b"{", b'{"a":' * 5000, b"\xff\xfe", b"[1]",
     b"<Error><Code>", b"<Response/>", b"{}", b'<!DOCTYPE Error [<!ENTITY a "a">]><Error><Code>&a;</Code></Error>'],
)  # fmt: skip
def test_what_is_no_error_of_cis_says_nothing(body: bytes) -> None:
    assert read_error(body) == ErrorBody()
