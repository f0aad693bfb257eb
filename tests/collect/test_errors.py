from __future__ import annotations

from datetime import timedelta

import pytest

from bridge.collect.errors import TEXT_LIMIT, CiError, ConfigError, Throttled, classify
from bridge.collect.jobs_xml import read_error
from tests.collect.conftest import MANIFEST, fixture

HOST = "clips-1250000000.ci.ap-chongqing.myqcloud.com"
# What the manifest calls request, not_activated and not_found is all the operator's to put right.
KINDS = {"request": "config", "not_activated": "config", "not_found": "config", "retryable": "temporary"}
ERRORS = sorted(name for name in MANIFEST if name.startswith("errors/"))


def an_error(
    status: int = 403, code: str | None = None, message: str | None = None, wait: timedelta | None = None
) -> CiError:
    return classify(status, code, message, host=HOST, retry_after=wait)


@pytest.mark.parametrize("name", ERRORS)
def test_every_documented_error_is_of_its_kind(name: str) -> None:
    code, message, request_id = read_error(fixture(name))
    error = classify(MANIFEST[name]["http_status"], code, message, host=HOST, request_id=request_id)
    named = MANIFEST[name]["error_class"]
    assert error.kind == KINDS.get(named, named)
    assert error.advice


def test_an_error_says_what_happened_where_it_is_known_and_what_to_do() -> None:
    error = classify(404, "NoSuchBucket", "It does not exist.", host=HOST, request_id="Njv")
    assert str(error) == (
        f"{HOST} refused: It does not exist. (NoSuchBucket, HTTP 404, request id Njv); "
        "check that `bucket` has the APPID (name-1250000000) and that `region` is the bucket's"
    )


@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [
        (403, "AccessDenied", "ci:DescribeMediaJobs and ci:DescribeMediaJob"),
        (401, "AccessDenied", "TENCENTCLOUD_SECRET_KEY"),
        (403, "InvalidAccessKeyId", "TENCENTCLOUD_SECRET_ID"),
        (403, "SignatureDoesNotMatch", "TENCENTCLOUD_SECRET_KEY"),
        (400, "ExpiredToken", "TENCENTCLOUD_SECURITY_TOKEN"),
        (400, "CIRoleNotExist", "CI_QCSRole"),
        (301, "PermanentRedirect", "`region` and `endpoint`"),
    ],
)
def test_the_advice_names_what_to_change(status: int, code: str, advice: str) -> None:
    assert advice in str(an_error(status, code))


@pytest.mark.parametrize(
    ("status", "kind"),
    [(301, "config"), (307, "config"), (400, "config"), (401, "auth"), (402, "config"), (403, "auth"),
     (404, "config"), (405, "config"), (408, "temporary"), (429, "throttled"), (451, "config"),
     (500, "temporary"), (502, "temporary"), (503, "temporary"), (599, "temporary")],
)  # fmt: skip
def test_without_a_code_the_status_decides(status: int, kind: str) -> None:
    assert an_error(status).kind == kind


def test_429_is_throttling_whatever_the_code() -> None:
    assert isinstance(an_error(429, "InvalidArgument"), Throttled)


def test_503_that_names_a_wait_is_throttling() -> None:
    error = an_error(503, "ServiceUnavailable", wait=timedelta(seconds=9))
    assert isinstance(error, Throttled)
    assert error.retry_after == timedelta(seconds=9)


def test_a_code_that_nobody_knows_is_told_as_it_is() -> None:
    error = an_error(400, "QuotaOfMoons", "too many moons")
    assert isinstance(error, ConfigError)
    assert "too many moons (QuotaOfMoons, HTTP 400)" in str(error)


def test_an_error_is_one_line_of_bounded_length() -> None:
    error = an_error(403, "A\nB", "first\r\nsecond \x1b[31m" + "x" * 5000)
    assert str(error).isprintable()
    assert r"first second \x1b[31mxxx" in str(error)
    assert len(error.what) == TEXT_LIMIT
