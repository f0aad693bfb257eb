"""The refusals of CI, with the codes and statuses of its tables (436/53983, and 436/7730 of COS)."""

from __future__ import annotations


class CiError(Exception):
    """An answer that is no 200: CI's code, its HTTP status, its message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message


def invalid_argument(message: str) -> CiError:
    return CiError(400, "InvalidArgument", message)


def invalid_host() -> CiError:
    return CiError(400, "InvalidHost", "Host is invalid")


def expired_token() -> CiError:
    return CiError(400, "ExpiredToken", "The provided security token has expired.")


def access_denied() -> CiError:
    return CiError(403, "AccessDenied", "Access Denied.")


def request_has_expired() -> CiError:
    return CiError(403, "AccessDenied", "Request has expired")


def request_time_too_skewed() -> CiError:
    said = "The difference between the request time and the current time is too large."
    return CiError(403, "RequestTimeTooSkewed", said)


def invalid_access_key_id() -> CiError:
    said = "The Access Key Id you provided does not exist in our records."
    return CiError(403, "InvalidAccessKeyId", said)


def signature_does_not_match() -> CiError:
    return CiError(403, "SignatureDoesNotMatch", "The Signature you specified is invalid.")


def no_such_bucket() -> CiError:
    return CiError(404, "NoSuchBucket", "The specified bucket does not exist.")


def method_not_allowed() -> CiError:
    return CiError(405, "MethodNotAllowed", "The specified method is not allowed against this resource.")
