"""All errors of requests to CI.

CiError
├── AuthError            the keys are wrong or lack the permission
├── ClockError           this machine's clock differs too much from CI's
├── Throttled            too many requests
├── ConfigError          the request is wrong until a person changes something
└── TemporaryError       it may work later
    └── UnreadableReply  CI, or something in between, sent a reply that cannot be read
        └── BrokenReply  it began as CI's XML, but is incomplete or malformed: a smaller page may work
"""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar, Literal

from bridge.display import clamp, visible

Kind = Literal["auth", "clock", "throttled", "config", "temporary"]


class CiError(Exception):
    """`str()` is one line: what happened, CI's code for it, and advice."""

    kind: ClassVar[Kind] = "temporary"

    def __init__(
        self,
        what: str,
        *,
        code: str | None = None,
        request_id: str | None = None,
        advice: str = "",
        retry_after: timedelta | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(what)
        self.what = _one_line(what)
        self.code = code and _one_line(code)
        self.request_id = request_id and _one_line(request_id)
        self.advice = advice
        self.retry_after = retry_after
        self.status = status

    def __str__(self) -> str:
        known = (
            self.code,
            self.status and f"HTTP {self.status}",
            self.request_id and f"request id {self.request_id}",
        )
        words = ", ".join(word for word in known if word)
        return self.what + (f" ({words})" if words else "") + (f"; {self.advice}" if self.advice else "")


class AuthError(CiError):
    kind = "auth"


class ClockError(CiError):
    kind = "clock"


class Throttled(CiError):
    """`retry_after` is the wait that CI asked for, if any."""

    kind = "throttled"


class ConfigError(CiError):
    kind = "config"


class TemporaryError(CiError):
    kind = "temporary"


class UnreadableReply(TemporaryError):
    """`ids` are those of the jobs before the fault; the last one may be its cause."""

    ids: tuple[str, ...] = ()


class BrokenReply(UnreadableReply):
    pass


TEXT_LIMIT = 300  # characters of CI's own words that we repeat

CHECK_KEYS = "check TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY"
RENEW = "renew TENCENTCLOUD_SECURITY_TOKEN, with the keys that came with it"
GRANT = "grant ci:DescribeMediaJobs and ci:DescribeMediaJob on the bucket to these keys"
GRANT_QUEUES = "grant ci:DescribeMediaQueues on the bucket to these keys, and queues are shown by their names"
SET_CLOCK = "set this machine's clock (NTP)"
CHECK_BUCKET = "check that `bucket` has the APPID (name-1250000000) and that `region` is the bucket's"
CHECK_ADDRESS = "check `bucket`, `region` and `endpoint`"
PAY = "the account is in arrears or not entitled: see the Tencent Cloud console"
ASK_LESS = "poll less often, or watch fewer tags"
LATER = "it is tried again at the next poll"

# CI's own table: https://cloud.tencent.com/document/product/436/53983, read 2026-11-21. The rest is COS's
# (https://cloud.tencent.com/document/product/436/7730, read 2026-11-21), whose signature CI shares.
_BY_CODE: dict[str, tuple[type[CiError], str]] = {
    "AccessDenied": (AuthError, GRANT),
    "AccessForbidden": (AuthError, GRANT),
    "NoProcessAuthority": (AuthError, GRANT),
    "InvalidAccessKeyId": (AuthError, CHECK_KEYS),
    "SignatureDoesNotMatch": (AuthError, CHECK_KEYS),
    "ExpiredToken": (AuthError, RENEW),
    "RequestTimeTooSkewed": (ClockError, SET_CLOCK),
    "SlowDown": (Throttled, ASK_LESS),
    "NoSuchBucket": (ConfigError, CHECK_BUCKET),
    "InvalidHost": (ConfigError, CHECK_BUCKET),
    "CIRoleNotExist": (ConfigError, "activate CI for the bucket in the console, which makes the role CI_QCSRole"),
    "PaymentRequired": (ConfigError, PAY),
    "InternalError": (TemporaryError, LATER),
    "RequestTimeout": (TemporaryError, LATER),
    "ServiceUnavailable": (TemporaryError, LATER),
}
_BY_STATUS: dict[int, tuple[type[CiError], str]] = {
    401: (AuthError, CHECK_KEYS),
    402: (ConfigError, PAY),
    403: (AuthError, GRANT),
    404: (ConfigError, CHECK_BUCKET),
    408: (TemporaryError, LATER),
}


def classify(
    status: int,
    code: str | None,
    message: str | None,
    *,
    host: str,
    request_id: str | None = None,
    retry_after: timedelta | None = None,
) -> CiError:
    """Return the error that an answer other than 200 means."""
    kind, advice = _kind(status, code or "", message or "", asked_to_wait=retry_after is not None)
    what = f"{host} refused: {message or 'it did not say why'}"
    return kind(what, code=code, request_id=request_id, advice=advice, retry_after=retry_after, status=status)


def _kind(status: int, code: str, message: str, *, asked_to_wait: bool) -> tuple[type[CiError], str]:
    if status == 429 or (status == 503 and asked_to_wait):
        return Throttled, ASK_LESS
    if 300 <= status < 400:
        return ConfigError, "not followed, as it would carry the signature along: check `region` and `endpoint`"
    if code == "AccessDenied" and "request has expired" in message.lower():
        return ClockError, SET_CLOCK  # so read Tencent's own SDKs for JavaScript and Android
    if status == 401:
        # Seen in the field: 401 AccessDenied is a signature that did not verify, not a missing grant.
        return _BY_STATUS[401]
    if code in _BY_CODE:
        return _BY_CODE[code]
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:
        return TemporaryError, LATER
    return ConfigError, "check the watch: tags, queues, queue_type, workflow, input"


def _one_line(text: str) -> str:
    """Return foreign text, safe for a log line."""
    return clamp(visible(" ".join(text.split())), TEXT_LIMIT)
