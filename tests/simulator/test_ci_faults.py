"""The bad days that a simulated CI can have."""

from __future__ import annotations

import http.client
import xml.etree.ElementTree as ET

import pytest

from tests.support import hostile as fakes
from tests.support.signed import BUCKET, jobs, simulated


def test_faults_come_in_turn_and_then_the_truth():
    with simulated() as ci:
        ci.fault = fakes.in_turn(fakes.slow_down(7), fakes.html_page(), fakes.json_error(), fakes.empty_body(), None)
        replies = [jobs(ci) for _ in range(5)]
    assert [r.status for r in replies] == [503, 502, 500, 200, 200]
    assert replies[0].headers["Retry-After"] == "7"
    assert replies[3].body == b""
    assert replies[4].body == b"<Response />"


def test_half_a_page_with_its_whole_length_ends_too_early():
    with simulated() as ci:
        job = ci.create(BUCKET, "Transcode", "p1")
        ci.fault = fakes.half_a_page(ci, announced=True)
        with pytest.raises(http.client.IncompleteRead):
            jobs(ci)
        assert ci.served(job) == []


def test_half_a_page_with_its_own_length_is_not_xml():
    with simulated() as ci:
        ci.create(BUCKET, "Transcode", "p1")
        ci.fault = fakes.half_a_page(ci, announced=False)
        reply = jobs(ci)
    with pytest.raises(ET.ParseError):
        _ = reply.xml


def test_a_token_may_repeat_for_ever():
    with simulated() as ci:
        ci.fault = fakes.same_token_for_ever(ci)
        assert [jobs(ci).token for _ in range(3)] == ["225508"] * 3


def test_a_connection_may_be_closed_without_an_answer():
    with simulated() as ci:
        ci.fault = fakes.in_turn(fakes.hang_up())
        with pytest.raises(http.client.RemoteDisconnected):
            jobs(ci)
        assert jobs(ci).status == 200


def test_a_dripping_answer_arrives_whole():
    with simulated() as ci:
        ci.fault = fakes.dripped(ci, 0.001)
        assert jobs(ci).body == b"<Response />"


def test_the_bytes_of_one_job_may_be_anything():
    with simulated() as ci:
        ci.create(BUCKET, "Transcode", "p1")
        odd = ci.create(BUCKET, "Transcode", "p1")
        ci.spoiled[odd] = lambda told: told.replace(b"<Message />", b"<Message>&#x8;</Message>")
        body = jobs(ci).body
    assert body.count(b"<JobsDetail>") == 2
    assert body.count(b"&#x8;") == 1
