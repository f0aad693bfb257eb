"""What is no page must never look like one."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.collect.errors import UnreadableReply
from bridge.collect.jobs_xml import Fault, read_error
from tests.collect.conftest import fixture
from tests.collect.test_jobs_xml import PAGE, job_of, read, refusal


def test_the_slip_in_the_printed_sample_is_understood() -> None:
    job = job_of("malformed/doc_sample_message_typo.xml")
    assert (job.state, job.progress) == ("Running", 30)


def test_the_slip_does_not_hide_that_the_page_is_cut_off() -> None:
    body = fixture("malformed/doc_sample_message_typo.xml").strip()
    assert refusal(body[:-1]) == "the reply is broken or cut off: unclosed token: line 32, column 0"


@given(st.integers(min_value=0, max_value=len(PAGE) - 1))
def test_no_beginning_of_a_page_is_taken_for_a_page(length: int) -> None:
    with pytest.raises(UnreadableReply):
        read(PAGE[:length])


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
        (b"<Response>\xff</Response>", "the reply is not UTF-8 (byte 10)"),
        (b"<Error><Code>X</Code></Error>", "the reply is a <Error>, not a <Response>"),
        (b"<Response>\n<a></b></Response>", "the reply is broken or cut off: mismatched tag: line 2, column 5"),
        (b"<Response/><Response/>", "the reply is broken or cut off: junk after document element: line 1, column 11"),
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


def test_an_error_is_read_from_xml() -> None:
    fault = read_error(fixture("errors/no_such_bucket_404.xml"))
    assert fault == Fault("NoSuchBucket", "The specified bucket does not exist.", "NjVlNjdhYjFfMWIyYzNkNGVfNzA0M185")


def test_an_error_is_read_from_json() -> None:
    fault = read_error(b'{"code": 11009, "message": "denied", "request_id": "r-1"}')
    assert fault == Fault("11009", "denied", "r-1")


@pytest.mark.parametrize(
    "body",
    [b"", b"<html><body>502</body></html>", b"<!DOCTYPE html><p>", b"{", b'{"a":' * 5000, b"\xff\xfe", b"[1]",
     b"<Error><Code>", b"<Response/>", b"{}", b'<!DOCTYPE Error [<!ENTITY a "a">]><Error><Code>&a;</Code></Error>'],
)  # fmt: skip
def test_what_is_no_error_of_cis_says_nothing(body: bytes) -> None:
    assert read_error(body) == Fault()
