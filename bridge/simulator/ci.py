"""A simulated CI API: real HTTP, real signatures, pages in the XML of CI's documents, and made-up jobs."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as ET

from bridge.model import FAILED, STATES, SUCCESS
from bridge.simulator.callbacks import Format, callback_body
from bridge.simulator.jobs import CiJob, JobStore
from bridge.simulator.web import Answer, Request, WebServer

# --- refusals, with the codes and statuses of CI's tables (436/53983, and 436/7730 of COS) --------------------------

_REFUSALS = {
    "InvalidArgument": (400, "{} is invalid"),
    "InvalidHost": (400, "Host is invalid"),
    "ExpiredToken": (400, "The provided security token has expired."),
    "AccessDenied": (403, "Access Denied."),
    "RequestTimeTooSkewed": (403, "The difference between the request time and the current time is too large."),
    "InvalidAccessKeyId": (403, "The Access Key Id you provided does not exist in our records."),
    "SignatureDoesNotMatch": (403, "The Signature you specified is invalid."),
    "NoSuchBucket": (404, "The specified bucket does not exist."),
    "MethodNotAllowed": (405, "The specified method is not allowed against this resource."),
}


class CiError(Exception):
    """An answer other than 200, by CI's code."""

    def __init__(self, code: str, *, name: str = "", message: str | None = None) -> None:
        self.code = code
        self.status, text = _REFUSALS[code]
        self.message = message or text.format(name)
        super().__init__(f"{self.status} {code}: {self.message}")


# --- authorization (436/7778) ---------------------------------------------------------------------------------------

_FIELDS = (
    "q-sign-algorithm", "q-ak", "q-sign-time", "q-key-time", "q-header-list", "q-url-param-list", "q-signature",
)  # fmt: skip
_MAX_SKEW_S = 15 * 60
_TOKEN_HEADERS = ("x-ci-security-token", "x-cos-security-token")  # CI hosts take either (460/42865)


def check_authorization(request: Request, *, credentials: Mapping[str, str], token: str | None, now: float) -> None:
    """Raise CiError unless one of `credentials` signed the request."""
    fields = _fields(request.headers.get("authorization", ""))
    key = credentials.get(fields["q-ak"])
    if key is None:
        raise CiError("InvalidAccessKeyId")
    for window in (fields["q-sign-time"], fields["q-key-time"]):
        _check_time(window, now)
    signed = fields["q-header-list"].split(";")
    if "host" not in signed:
        raise CiError("SignatureDoesNotMatch")
    _check_token(request, signed, token)
    if not hmac.compare_digest(_signature(request, fields, key).encode(), fields["q-signature"].encode()):
        raise CiError("SignatureDoesNotMatch")


def _fields(authorization: str) -> dict[str, str]:
    pairs = [part.partition("=")[::2] for part in authorization.split("&")]
    fields = dict(pairs)
    if len(pairs) != len(_FIELDS) or set(fields) != set(_FIELDS) or fields["q-sign-algorithm"] != "sha1":
        raise CiError("AccessDenied")
    return fields


def _check_time(window: str, now: float) -> None:
    match = re.fullmatch(r"(\d{1,12});(\d{1,12})", window)
    if match is None:
        raise CiError("AccessDenied")
    start, end = int(match[1]), int(match[2])
    off = max(start - now, now - end, 0)
    if off > _MAX_SKEW_S:
        raise CiError("RequestTimeTooSkewed")
    if off > 0:
        raise CiError("AccessDenied", message="Request has expired")


def _check_token(request: Request, signed: list[str], token: str | None) -> None:
    sent = [name for name in _TOKEN_HEADERS if name in request.headers]
    if any(name not in signed for name in sent):
        raise CiError("SignatureDoesNotMatch")
    if token is not None and [request.headers[name] for name in sent] != [token]:
        raise CiError("ExpiredToken")


def _signature(request: Request, fields: Mapping[str, str], key: str) -> str:
    headers = _listed(fields["q-header-list"], request.headers.items())
    params = _listed(fields["q-url-param-list"], request.query)
    if {name for name, _ in params} != {_encoded(name).lower() for name, _ in request.query}:
        raise CiError("SignatureDoesNotMatch")
    http_string = f"{request.method.lower()}\n{request.path}\n{_joined(params)}\n{_joined(headers)}\n"
    to_sign = f"sha1\n{fields['q-sign-time']}\n{hashlib.sha1(http_string.encode()).hexdigest()}\n"  # noqa: S324 - CI's own
    return _hmac_sha1(_hmac_sha1(key, fields["q-key-time"]), to_sign)


def _listed(names: str, received: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the received pairs that a list names, encoded and sorted; refuse a list that is not exact."""
    listed = names.split(";") if names else []
    pairs = sorted((_encoded(name).lower(), _encoded(value.strip())) for name, value in received)
    known = [(name, value) for name, value in pairs if name in listed]
    if listed != sorted(set(listed)) or {name for name, _ in known} != set(listed):
        raise CiError("SignatureDoesNotMatch")
    return known


def _joined(pairs: Iterable[tuple[str, str]]) -> str:
    return "&".join(f"{name}={value}" for name, value in pairs)


def _encoded(text: str) -> str:
    return quote(text, safe="-_.~")


def _hmac_sha1(key: str, text: str) -> str:
    return hmac.new(key.encode(), text.encode(), hashlib.sha1).hexdigest()


# --- the parameters of the job list (1045/73114, of 2025-09) --------------------------------------------------------

_SIZE, _MAX_SIZE, _MAX_IDS = 10, 100, 10
_PARAMETERS = frozenset(
    (
        "tag", "queueId", "queueType", "workflowId", "inputObject", "orderByTime",
        "nextToken", "size", "states", "startCreationTime", "endCreationTime",
    )
)  # fmt: skip


def _filter(params: Mapping[str, str]) -> Callable[[CiJob], bool]:
    """Return which jobs `params` select; raise InvalidArgument naming the first wrong one."""
    # CI would ignore an unknown name. Here it is a mistake of the caller.
    for name in params:
        if name not in _PARAMETERS:
            raise CiError("InvalidArgument", name=name)
    if not params.get("tag"):
        raise CiError("InvalidArgument", name="tag")
    states = frozenset((params.get("states") or "All").split(","))
    if not states <= {"All", *STATES}:
        raise CiError("InvalidArgument", name="states")
    after, before = _second(params, "startCreationTime"), _second(params, "endCreationTime")  # both exclusive
    exact = {
        "queue": params.get("queueId"),
        "queue_type": None if params.get("queueId") else params.get("queueType"),  # the id wins
        "workflow": params.get("workflowId"),
        "input": params.get("inputObject"),
    }

    def matches(job: CiJob) -> bool:
        return (
            all(not wanted or getattr(job, field) == wanted for field, wanted in exact.items())
            and ("All" in states or job.state in states)
            and (after is None or int(job.created_at) > after)
            and (before is None or int(job.created_at) < before)
        )

    return matches


def _second(params: Mapping[str, str], name: str) -> int | None:
    text = params.get(name)
    if not text:
        return None
    try:
        return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z").timestamp())
    except ValueError:
        raise CiError("InvalidArgument", name=name) from None


def _size(params: Mapping[str, str]) -> int:
    text = params.get("size") or str(_SIZE)
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= _MAX_SIZE):
        raise CiError("InvalidArgument", name="size")
    return int(text)


def _is_newest_first(params: Mapping[str, str]) -> bool:
    order = params.get("orderByTime") or "Desc"
    if order not in ("Desc", "Asc"):
        raise CiError("InvalidArgument", name="orderByTime")
    return order == "Desc"


def _token(number: int, params: Mapping[str, str]) -> str:
    """Return the token of the page after a job. It is bound to the query, which must be the same for all pages."""
    query = sorted((name, value) for name, value in params.items() if name not in ("nextToken", "size"))
    return f"{number}{zlib.crc32(repr(query).encode()):010d}"


# --- XML, in the shapes of CI's documents and samples ---------------------------------------------------------------

CHINA = timezone(timedelta(hours=8))  # samples are in +0800 whatever the region
UPLOADER_SECRET = "Bearer uploader-secret-7f3a"  # noqa: S105 - a workflow job echoes it; the bridge must not pass it on
_NO_PROGRESS = frozenset(("PicProcess", "Speeching", "AIProcess"))


def jobs_xml(
    jobs: Iterable[CiJob],
    *,
    region: str,
    next_token: str | None = None,
    missing: Iterable[str] = (),
) -> bytes:
    """Return the answer to a list or a describe."""
    tail = [_element("NonExistJobIds", id_) for id_ in missing]
    tail += [_element("NextToken", next_token)] if next_token else []
    inside = b"".join(map(_text, (*(_job(job, region) for job in jobs), *tail)))
    return b"<Response>%s</Response>" % inside if inside else b"<Response />"


def queues_xml(queues: Sequence[tuple[str, tuple[str, str]]], *, total: int, page: int, size: int) -> bytes:
    """Return the answer to a request for queues: (id, (name, state)) each."""
    counts = {"TotalCount": total, "PageNumber": page, "PageSize": size}
    head = [_element(name, str(count)) for name, count in counts.items()]
    found = [
        _element(
            "QueueList",
            _element("QueueId", queue),
            _element("Name", name),
            _element("State", state),
            _element("NotifyConfig", _element("State", "Off")),
            _element("MaxSize", "10000"),
            _element("MaxConcurrent", "10"),
            _element("Category", "Transcoding"),
        )
        for queue, (name, state) in queues
    ]
    return _text(_element("Response", *head, *found))


def error_xml(error: CiError, *, request_id: str) -> bytes:
    """Return the documented error body: CI's has no Resource, unlike COS's."""
    body = _element(
        "Error",
        _element("Code", error.code),
        _element("Message", error.message),
        _element("RequestId", request_id),
        _element("TraceId", hashlib.sha256(request_id.encode()).hexdigest()[:32]),
    )
    return b"<?xml version='1.0' encoding='utf-8' ?>\n" + _text(body)


def _element(name: str, *inside: ET.Element | str | None) -> ET.Element:
    element = ET.Element(name)
    for part in inside:
        if isinstance(part, str):
            element.text = part
        elif part is not None:
            element.append(part)
    return element


def _maybe(name: str, text: str | None) -> ET.Element | None:
    return None if text is None else _element(name, text)


def _text(element: ET.Element) -> bytes:
    return ET.tostring(element, encoding="unicode").encode()


def _time(at: float | None) -> str:
    return "-" if at is None else datetime.fromtimestamp(int(at), CHINA).strftime("%Y-%m-%dT%H:%M:%S%z")


def _job(job: CiJob, region: str) -> ET.Element:
    failed = job.state == FAILED
    progress = None if job.queue_type in _NO_PROGRESS or job.progress is None else str(job.progress)
    return _element(
        "JobsDetail",
        _element("Code", (job.code or "InternalError") if failed else "Success"),
        _element("Message", job.message if failed else None),
        _element("JobId", job.id),
        _element("State", job.state),
        _maybe("Progress", progress),
        _element("CreationTime", _time(job.created_at)),
        _element("StartTime", _time(job.started_at)),
        _element("EndTime", _time(job.ended_at)),
        _element("QueueId", job.queue),
        _element("Tag", job.tag),
        _input(job, region),
        _operation(job, region),
        _workflow(job),
    )


def _input(job: CiJob, region: str) -> ET.Element | None:
    if job.input is None:
        return None
    if job.input.startswith(("http://", "https://")):
        return _element("Input", _element("Url", job.input))
    place = (_element("BucketId", job.bucket), _element("Object", job.input), _element("Region", region))
    echoed = (("Content-Type", "video/mp4"), ("x-cos-meta-authorization", UPLOADER_SECRET))
    headers = [_element("CosHeaders", _element("Key", key), _element("Value", value)) for key, value in echoed]
    return _element("Input", *place, *(headers if job.workflow_run or job.workflow else ()))


def _operation(job: CiJob, region: str) -> ET.Element:
    output = (_element("Region", region), _element("Bucket", job.bucket), _element("Object", job.output))
    return _element(
        "Operation",
        _maybe("TemplateId", job.template),
        _maybe("TemplateName", job.template_name),
        _element("Output", *output),
        _maybe("UserData", job.user_data),
        _maybe("JobLevel", None if job.level is None else str(job.level)),
        *(_results(job, region) if job.state == SUCCESS else ()),
    )


def _results(job: CiJob, region: str) -> list[ET.Element]:
    if job.queue_type == "PicProcess":
        return [_element("PicProcessResult", *(_element("ObjectName", name) for name in job.outputs))]
    files = [_element("ObjectName", name) for name in job.outputs]
    md5 = _element("Md5", "d41d8cd98f00b204e9800998ecf8427e")  # nobody reads it
    sums = [_element("Md5Info", md5, _element("ObjectName", name)) for name in job.outputs]
    place = (_element("Bucket", job.bucket), _element("Region", region))
    made = _element("OutputFile", *place, *files, _element("ObjectPrefix"), *sums)
    # MediaInfo has a StartTime of its own, which is not the job's.
    details = _element("Format", _element("Duration", "42.480000"), _element("StartTime", "0.000000"))
    return [_element("MediaInfo", details), _element("MediaResult", made)]


def _workflow(job: CiJob) -> ET.Element | None:
    if not (job.workflow or job.workflow_run):
        return None
    return _element(
        "Workflow",
        _element("Name", f"{job.tag}_{1_700_000_000_000 + job.number}"),
        _maybe("RunId", job.workflow_run),
        _maybe("WorkflowId", job.workflow),
        _maybe("WorkflowName", job.workflow_name),
    )


# --- the API --------------------------------------------------------------------------------------------------------

DEMO_SECRET_ID = "AKIDdemo0000000000000000000000000000"  # noqa: S105 - opens nothing but this simulator
DEMO_SECRET_KEY = "demokey00000000000000000000000000"  # noqa: S105 - likewise


class CiSimulator(JobStore, WebServer):
    """The CI API of every bucket over HTTP; the Host header names the bucket.

    `page_size_cap` makes pages smaller than requested, `skew_s` shifts the server's clock, `queues` has name and state
    of queues by id, `callbacks` gets the body of a callback for each job that succeeds or fails, lists are made as
    without the parameters named in `ignores`, and `fault` may answer first. All of these may be changed while it runs.
    """

    def __init__(
        self,
        *,
        credentials: Mapping[str, str] | None = None,
        token: str | None = None,
        buckets: set[str] | None = None,
        clock: Callable[[], float] = time.time,
        page_size_cap: int = 100,
        skew_s: float = 0,
        port: int = 0,
    ) -> None:
        WebServer.__init__(self, port=port, clock=clock)
        JobStore.__init__(self, clock=self.now)
        self.credentials = {DEMO_SECRET_ID: DEMO_SECRET_KEY} if credentials is None else dict(credentials)
        self.token = token
        self.buckets = buckets
        self.page_size_cap = page_size_cap
        self.skew_s = skew_s
        self.ignores: frozenset[str] = frozenset()
        self.queues: dict[str, tuple[str, str]] = {}
        self.callbacks: Callable[[bytes], object] | None = None
        self.callback_format: Format = "xml"
        self.calls = 0  # that were answered, errors too

    def now(self) -> float:
        return self._clock() + self.skew_s

    def move(self, id: str, state: str, **details: Any) -> None:  # noqa: A002 - the noun
        super().move(id, state, **details)
        if self.callbacks and state in (SUCCESS, FAILED):  # for Cancel none is documented
            self.callbacks(self.callback_of(id))

    def callback_of(self, id: str, state: str | None = None) -> bytes:  # noqa: A002 - the noun
        """Return the body of a job's callback; with `state` one that lies."""
        job = self.job(id)
        return callback_body(_job(replace(job, state=state or job.state), "ap-chongqing"), self.callback_format)

    def respond(self, request: Request) -> Answer:
        return self.honest(request)

    def honest(self, request: Request, *, record: bool = True) -> Answer:
        """Return the true answer, for a `fault` to spoil; `record=False` if its states will not be seen."""
        with self._lock:
            self.calls += 1
            request_id = hashlib.sha256(b"%d" % self.calls).hexdigest()[:32]
        try:
            status, body = 200, self._body(request, record=record)
        except CiError as error:
            status, body = error.status, error_xml(error, request_id=request_id)
        headers = {"Content-Type": "application/xml", "Server": "tencent-ci", "x-ci-request-id": request_id}
        return Answer(status=status, body=body, headers=headers)

    def _body(self, request: Request, *, record: bool) -> bytes:
        host = request.headers.get("host", "").partition(":")[0]
        place = re.fullmatch(r"([a-z0-9-]+-\d+)\.ci\.([a-z0-9-]+)\.myqcloud\.com", host)
        if place is None:
            raise CiError("InvalidHost")
        bucket, region = place.groups()
        check_authorization(request, credentials=self.credentials, token=self.token, now=self.now())
        if self.buckets is not None and bucket not in self.buckets:
            raise CiError("NoSuchBucket")
        match request.method, request.path.split("/")[1:]:
            case "GET", ["jobs"]:
                return self._list(bucket, region, dict(request.query), record=record)
            case "GET", ["jobs", ids]:
                return self._describe(bucket, region, ids.split(","), record=record)
            case "GET", ["queue"]:
                return self._queues(dict(request.query))
        raise CiError("MethodNotAllowed")

    def _list(self, bucket: str, region: str, params: Mapping[str, str], *, record: bool) -> bytes:
        params = {name: value for name, value in params.items() if name not in self.ignores}
        matches, token, after = _filter(params), params.get("nextToken"), None
        newest_first, size = _is_newest_first(params), min(_size(params), self.page_size_cap)
        if token:
            number = int(token[:-10] or 0) if token.isascii() and token.isdecimal() else 0
            after = self.place_of(number)
            if after is None or token != _token(number, params):
                raise CiError("InvalidArgument", name="nextToken")
        jobs, has_more = self.page(
            bucket, params["tag"], matches, newest_first=newest_first, after=after, size=size, record=record
        )
        next_token = _token(jobs[-1].number, params) if has_more else None
        return jobs_xml(jobs, region=region, next_token=next_token)

    def _describe(self, bucket: str, region: str, ids: list[str], *, record: bool) -> bytes:
        if len(ids) > _MAX_IDS or not all(ids):
            raise CiError("InvalidArgument", name="jobIds")
        jobs, missing = self.describe(bucket, ids, record=record)
        return jobs_xml(jobs, region=region, missing=missing)

    def _queues(self, params: Mapping[str, str]) -> bytes:
        for name in params:
            if name not in ("queueIds", "state", "category", "pageNumber", "pageSize"):
                raise CiError("InvalidArgument", name=name)
        page, size = int(params.get("pageNumber", 1)), int(params.get("pageSize", _SIZE))
        found = sorted(self.queues.items())
        return queues_xml(found[(page - 1) * size : page * size], total=len(found), page=page, size=size)
