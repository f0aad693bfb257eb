"""Whose requests the simulated CI believes."""

from __future__ import annotations

import pytest

from bridge.simulator.ci import DEMO_SECRET_ID
from tests.support.signed import HOST, NOW, Clock, authorization, get, jobs, send, simulated

# Made by Tencent's own Python SDK (CosS3Auth of 1.9.44) with its clock stopped.
VECTOR_NOW = 1656314592
VECTOR_HOST = "examplebucket-1250000000.ci.ap-chongqing.myqcloud.com"
VECTOR_KEYS = {"AKIDtestvector": "testvectorsecret"}
WINDOW = "q-sign-time=1656314532;1656324592&q-key-time=1656314532;1656324592"
LIST_TARGET = (
    "/jobs?tag=Transcode&states=Submitted%2CRunning&size=100&orderByTime=Asc&queueType=Transcoding"
    "&startCreationTime=2022-06-27T15%3A00%3A00%2B0800&nextToken="
)


def vector(headers: str, params: str, signature: str) -> str:
    return (
        f"q-sign-algorithm=sha1&q-ak=AKIDtestvector&{WINDOW}&q-header-list={headers}"
        f"&q-url-param-list={params}&q-signature={signature}"
    )


LIST = vector(
    "host",
    "nexttoken;orderbytime;queuetype;size;startcreationtime;states;tag",
    "0ae7462fec2f306ec84910cf967a8508b35aa28a",
)
ODD_INPUT = "dir%201/%E8%A7%86%E9%A2%91(a)*b'~%2Bc%26d%3De.mp4"


def ask_with_vector(target: str, said: str, token: str | None = None) -> tuple[int, bytes]:
    with simulated(Clock(VECTOR_NOW), credentials=VECTOR_KEYS, token=token) as ci:
        extra = {"x-ci-security-token": token} if token else {}
        reply = send(ci, target, {"Host": VECTOR_HOST, "Authorization": said, **extra})
        return reply.status, reply.body


def test_what_the_official_sdk_signs_is_accepted():
    assert ask_with_vector(LIST_TARGET, LIST) == (200, b"<Response />")


@pytest.mark.parametrize("comma", ["%2C", ","])
def test_an_official_signature_with_a_security_token_is_accepted(comma):
    ids = ("j8d121820f5e411ec926ef19d53ba9c6f", "j9c0a4726f6ac11ec96aaa9b64ab18d00")
    said = vector("host;x-ci-security-token", "", "f62ac9fbff8740a3c7d916dba7381695ffa5dbbd")
    status, body = ask_with_vector("/jobs/" + comma.join(ids), said, token="tok/EX+AMPLE==")
    assert status == 200
    assert body.count(b"<NonExistJobIds>") == 2


@pytest.mark.parametrize("value", [ODD_INPUT, ODD_INPUT.replace("%20", "+")])
def test_an_official_signature_over_an_odd_object_name_is_accepted(value):
    said = vector("host", "inputobject;size;tag", "8fbde80dad29c3eb23fcb10c5ecb1b5032fa73f5")
    assert ask_with_vector(f"/jobs?tag=Snapshot&size=10&inputObject={value}", said)[0] == 200


def test_an_official_signature_that_names_no_host_is_refused_here():
    said = vector("", "size;tag", "4eeb4b4e435014aa748cd5a6c4f0500dd82ee30e")
    status, body = ask_with_vector("/jobs?tag=Transcode&size=10", said)
    assert status == 403
    assert b"SignatureDoesNotMatch" in body


def test_an_official_signature_that_leaves_parameters_out_is_refused_here():
    said = vector("host", "", "28150677cb84696891e707d116fad6302e36b110")
    status, body = ask_with_vector("/queue?state=Active&pageNumber=1&pageSize=10", said)
    assert (status, b"SignatureDoesNotMatch" in body) == (403, True)


def test_a_request_signed_by_the_document_is_accepted():
    with simulated() as ci:
        reply = jobs(ci, inputObject="a b/视频+&=.mp4")
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/xml"
    assert reply.headers["x-ci-request-id"]


PARAMS = {"tag": "Transcode", "size": "10"}
GOOD = authorization("/jobs", PARAMS, {"host": HOST})


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("/jobs?tag=Snapshot&size=10", HOST),
        ("/jobs?tag=Transcode&size=10&states=All", HOST),
        ("/jobs?tag=Transcode", HOST),
        ("/jobs/?tag=Transcode&size=10", HOST),
        ("/jobs?tag=Transcode&size=10", HOST.replace("media", "other")),
    ],
)
def test_a_request_that_is_not_the_signed_one_is_refused(target, host):
    with simulated() as ci:
        reply = send(ci, target, {"Host": host, "Authorization": GOOD})
    assert reply.refusal == (403, "SignatureDoesNotMatch")
    assert [e.tag for e in reply.xml] == ["Code", "Message", "RequestId", "TraceId"]


@pytest.mark.parametrize(
    ("was", "now", "code"),
    [
        ("q-signature=", "q-signature=0", "SignatureDoesNotMatch"),
        ("size;tag", "tag;size", "SignatureDoesNotMatch"),
        ("q-header-list=host", "q-header-list=", "SignatureDoesNotMatch"),
        ("q-header-list=host", "q-header-list=host;x-ci-absent", "SignatureDoesNotMatch"),
        (DEMO_SECRET_ID, "AKIDstranger", "InvalidAccessKeyId"),
        ("sha1", "md5", "AccessDenied"),
        ("&q-key-time", "&q-kez-time", "AccessDenied"),
    ],
)
def test_a_tampered_authorization_is_refused(was, now, code):
    with simulated() as ci:
        said = GOOD.replace(was, now)
        reply = send(ci, "/jobs?tag=Transcode&size=10", {"Host": HOST, "Authorization": said})
    assert reply.refusal == (403, code)


def test_a_request_without_authorization_or_with_a_wrong_key_is_denied():
    with simulated() as ci:
        assert send(ci, "/jobs?tag=Transcode", {"Host": HOST}).refusal == (403, "AccessDenied")
        reply = get(ci, "/jobs", params={"tag": "Transcode"}, key="not the key")
        assert reply.refusal == (403, "SignatureDoesNotMatch")


@pytest.mark.parametrize(
    ("start", "end", "code", "message"),
    [
        (NOW - 7200, NOW - 10, "AccessDenied", "Request has expired"),
        (NOW + 10, NOW + 3600, "AccessDenied", "Request has expired"),
        (NOW - 7200, NOW - 901, "RequestTimeTooSkewed", None),
        (NOW + 901, NOW + 7200, "RequestTimeTooSkewed", None),
    ],
)
def test_a_request_outside_its_time_is_refused(start, end, code, message):
    with simulated() as ci:
        reply = get(ci, "/jobs", params={"tag": "Transcode"}, start=start, end=end)
    assert reply.refusal == (403, code)
    assert message in (None, reply.xml.findtext("Message"))


def test_a_server_whose_clock_is_off_tells_its_own_time():
    with simulated(Clock(1_780_000_000), skew_s=86_400) as ci:
        reply = jobs(ci)
    assert reply.refusal == (403, "RequestTimeTooSkewed")
    assert reply.headers["Date"] == "Fri, 29 May 2026 20:26:40 GMT"  # a day later than the caller's


def test_a_token_is_accepted_in_either_header_and_a_missing_or_old_one_is_expired():
    with simulated(token="new") as ci:
        for headers in ({}, {"x-ci-security-token": "old"}):
            reply = get(ci, "/jobs", params={"tag": "Snapshot"}, headers=headers)
            assert reply.refusal == (400, "ExpiredToken")
        for header in ("x-ci-security-token", "x-cos-security-token"):
            assert get(ci, "/jobs", params={"tag": "Snapshot"}, headers={header: "new"}).status == 200


def test_a_token_that_is_not_signed_is_refused():
    with simulated(token="new") as ci:
        headers = {"Host": HOST, "Authorization": GOOD, "x-ci-security-token": "new"}
        assert send(ci, "/jobs?tag=Transcode&size=10", headers).refusal == (403, "SignatureDoesNotMatch")
