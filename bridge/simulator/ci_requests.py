"""What CI takes of a request: its signature (436/7778), its parameters (1045/73114, of 2025-09); and its refusals."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from bridge.model import STATES
from bridge.simulator.web import Request

# --- refusals, with the codes and statuses of CI's tables (436/53983, and 436/7730 of COS) --------------------------


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


# --- authorization (436/7778) ---------------------------------------------------------------------------------------

FIELDS = (
    "q-sign-algorithm", "q-ak", "q-sign-time", "q-key-time", "q-header-list", "q-url-param-list", "q-signature",
)  # fmt: skip
MAX_SKEW_S = 15 * 60
TOKEN_HEADERS = ("x-ci-security-token", "x-cos-security-token")  # CI hosts take either (460/42865)


def check_authorization(request: Request, *, credentials: Mapping[str, str], token: str | None, now: float) -> None:
    """Return if `request` is signed by one of `credentials`; else raise the CiError that says why not."""
    said = _fields(request.headers.get("authorization", ""))
    key = credentials.get(said["q-ak"])
    if key is None:
        raise invalid_access_key_id()
    for window in (said["q-sign-time"], said["q-key-time"]):
        _check_time(window, now)
    signed = said["q-header-list"].split(";")
    if "host" not in signed:
        raise signature_does_not_match()
    _check_token(request, signed, token)
    if not hmac.compare_digest(_signature(request, said, key).encode(), said["q-signature"].encode()):
        raise signature_does_not_match()


def _fields(authorization: str) -> dict[str, str]:
    pairs = [part.partition("=")[::2] for part in authorization.split("&")]
    fields = dict(pairs)
    if len(pairs) != len(FIELDS) or set(fields) != set(FIELDS) or fields["q-sign-algorithm"] != "sha1":
        raise access_denied()
    return fields


def _check_time(window: str, now: float) -> None:
    match = re.fullmatch(r"(\d{1,12});(\d{1,12})", window)
    if match is None:
        raise access_denied()
    start, end = int(match[1]), int(match[2])
    off = max(start - now, now - end, 0)
    if off > MAX_SKEW_S:
        raise request_time_too_skewed()
    if off > 0:
        raise request_has_expired()


def _check_token(request: Request, signed: list[str], token: str | None) -> None:
    sent = [name for name in TOKEN_HEADERS if name in request.headers]
    if any(name not in signed for name in sent):
        raise signature_does_not_match()
    if token is not None and [request.headers[name] for name in sent] != [token]:
        raise expired_token()


def _signature(request: Request, said: Mapping[str, str], key: str) -> str:
    headers = _listed(said["q-header-list"], request.headers.items())
    params = _listed(said["q-url-param-list"], request.query)
    if _names(params) != {_encoded(name).lower() for name, _ in request.query}:
        raise signature_does_not_match()
    http_string = f"{request.method.lower()}\n{request.path}\n{_joined(params)}\n{_joined(headers)}\n"
    to_sign = f"sha1\n{said['q-sign-time']}\n{hashlib.sha1(http_string.encode()).hexdigest()}\n"  # noqa: S324 - CI's own
    return _hmac_sha1(_hmac_sha1(key, said["q-key-time"]), to_sign)


def _listed(names: str, received: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the received pairs that a list names, encoded and sorted; refuse a list that is not exact."""
    listed = names.split(";") if names else []
    pairs = sorted((_encoded(name).lower(), _encoded(value.strip())) for name, value in received)
    found = [(name, value) for name, value in pairs if name in listed]
    if listed != sorted(set(listed)) or _names(found) != set(listed):
        raise signature_does_not_match()
    return found


def _names(pairs: Iterable[tuple[str, str]]) -> set[str]:
    return {name for name, _ in pairs}


def _joined(pairs: Iterable[tuple[str, str]]) -> str:
    return "&".join(f"{name}={value}" for name, value in pairs)


def _encoded(text: str) -> str:
    return quote(text, safe="-_.~")


def _hmac_sha1(key: str, text: str) -> str:
    return hmac.new(key.encode(), text.encode(), hashlib.sha1).hexdigest()


# --- what a caller of the job list may ask (1045/73114, of 2025-09) -------------------------------------------------

SIZE, MAX_SIZE = 10, 100
PARAMETERS = frozenset(
    (
        "tag", "queueId", "queueType", "workflowId", "inventoryTriggerJobId", "inputObject", "orderByTime",
        "nextToken", "size", "states", "startCreationTime", "endCreationTime",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One question to the job list. Times are whole seconds, both exclusive."""

    tag: str
    queue: str | None
    queue_type: str | None
    workflow: str | None
    inventory_job: str | None
    input: str | None
    newest_first: bool
    states: frozenset[str] | None
    after: int | None
    before: int | None


def parse_query(params: Mapping[str, str]) -> Query:
    """Return the question that `params` ask; raise InvalidArgument naming the first wrong one."""
    # CI would ignore a name that it does not know. Here it is a slip of the caller, and says so.
    for name in params:
        if name not in PARAMETERS:
            raise invalid_argument(f"{name} is invalid")
    if not params.get("tag"):
        raise invalid_argument("tag is invalid")
    queue = params.get("queueId") or None
    return Query(
        tag=params["tag"],
        queue=queue,
        queue_type=None if queue else params.get("queueType") or None,  # the id wins
        workflow=params.get("workflowId") or None,
        inventory_job=params.get("inventoryTriggerJobId") or None,
        input=params.get("inputObject") or None,
        newest_first=_newest_first(params.get("orderByTime") or "Desc"),
        states=_states(params.get("states") or "All"),
        after=_second(params, "startCreationTime"),
        before=_second(params, "endCreationTime"),
    )


def size_of(params: Mapping[str, str]) -> int:
    said = params.get("size") or str(SIZE)
    if not (said.isascii() and said.isdecimal() and 1 <= int(said) <= MAX_SIZE):
        raise invalid_argument("size is invalid")
    return int(said)


def _newest_first(order: str) -> bool:
    if order not in ("Desc", "Asc"):
        raise invalid_argument("orderByTime is invalid")
    return order == "Desc"


def _states(said: str) -> frozenset[str] | None:
    states = frozenset(said.split(","))
    if not states <= {"All", *STATES}:
        raise invalid_argument("states is invalid")
    return None if "All" in states else states


def _second(params: Mapping[str, str], name: str) -> int | None:
    said = params.get(name)
    if not said:
        return None
    try:
        return int(datetime.strptime(said, "%Y-%m-%dT%H:%M:%S%z").timestamp())
    except ValueError:
        raise invalid_argument(f"{name} is invalid") from None
