"""A stand-in for the CI API: real HTTP, real signatures, real pages in the XML of CI's documents, made-up jobs."""

from __future__ import annotations

import hashlib
import itertools
import re
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta, timezone
from types import MappingProxyType
from xml.etree import ElementTree as ET

from bridge.model import FAILED, SUCCESS
from bridge.simulator import ci_requests
from bridge.simulator.ci_requests import CiError
from bridge.simulator.jobs import CiJob, JobStore
from bridge.simulator.web import Answer, Request, WebServer

# --- XML, in the shapes of CI's documents and samples ---------------------------------------------------------------

CHINA = timezone(timedelta(hours=8))  # samples are in +0800 whatever the region
UPLOADER_SECRET = "Bearer uploader-secret-7f3a"  # noqa: S105 - bait: a workflow job echoes it, nobody may pass it on
_NO_PROGRESS = frozenset(("PicProcess", "Speeching", "AIProcess"))


Spoil = Callable[[bytes], bytes]  # changes the bytes of one job


def jobs_xml(
    jobs: Iterable[CiJob],
    *,
    region: str,
    next_token: str | None = None,
    missing: Iterable[str] = (),
    spoiled: Mapping[str, Spoil] = MappingProxyType({}),
) -> bytes:
    """Return the answer of a list or a describe; the bytes of jobs in `spoiled` are what that makes of them."""
    tail = [_element("NextToken", next_token)] if next_token else []
    unknown = [_element("NonExistJobIds", id_) for id_ in missing]
    told = [spoiled.get(job.id, bytes)(_text(_job(job, region))) for job in jobs]
    inside = b"".join((*told, *map(_text, (*unknown, *tail))))
    return b"<Response>%s</Response>" % inside if inside else b"<Response />"


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


def queues_xml(
    queues: Iterable[tuple[str, str]], *, total: int, number: int, size: int, missing: Iterable[str], request_id: str
) -> bytes:
    """Return the answer of the queue list; `queues` are ids with their types."""
    return _text(
        _element(
            "Response",
            _element("RequestId", request_id),
            _element("TotalCount", str(total)),
            _element("PageNumber", str(number)),
            _element("PageSize", str(size)),
            *(_queue(id_, kind) for id_, kind in queues),
            *(_element("NonExistPIDs", id_) for id_ in missing),
        )
    )


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
    told = None if job.queue_type in _NO_PROGRESS or job.progress is None else str(job.progress)
    return _element(
        "JobsDetail",
        _element("Code", (job.code or "InternalError") if failed else "Success"),
        _element("Message", job.message if failed else None),
        _element("JobId", job.id),
        _element("State", job.state),
        _maybe("Progress", told),
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
    sums = [_element("Md5Info", _element("Md5", _md5(name)), _element("ObjectName", name)) for name in job.outputs]
    place = (_element("Bucket", job.bucket), _element("Region", region))
    made = _element("OutputFile", *place, *files, _element("ObjectPrefix"), *sums)
    # MediaInfo has a StartTime of its own, which is not the job's.
    looked = _element("Format", _element("Duration", "42.480000"), _element("StartTime", "0.000000"))
    return [_element("MediaInfo", looked), _element("MediaResult", made)]


def _md5(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]  # looks like one, which is enough


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


def _queue(id_: str, kind: str) -> ET.Element:
    return _element(
        "QueueList",
        _element("QueueId", id_),
        _element("Name", f"queue-{id_[:8]}"),
        _element("State", "Active"),
        _element("NotifyConfig", _element("State", "Off")),
        _element("MaxSize", "10000"),
        _element("MaxConcurrent", "10"),
        _element("Category", kind),
    )


# --- the API --------------------------------------------------------------------------------------------------------

DEMO_SECRET_ID = "AKIDdemo0000000000000000000000000000"  # noqa: S105 - opens nothing but this simulator
DEMO_SECRET_KEY = "demokey00000000000000000000000000"  # noqa: S105 - likewise
MAX_IDS = 10


class CiSimulator(JobStore, WebServer):
    """The CI API of every bucket, over HTTP; which bucket is asked, the Host header says.

    `page_size_cap` makes pages smaller than asked; `skew_s` puts the server's clock off; `fault` may answer first.
    `spoiled` changes the bytes of jobs, by id. `credentials`, `token`, `buckets`, `page_size_cap`, `skew_s` and
    `spoiled` may be changed while it runs.
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
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        WebServer.__init__(self, host=host, port=port, clock=clock)
        JobStore.__init__(self, clock=self.now)
        self.credentials = {DEMO_SECRET_ID: DEMO_SECRET_KEY} if credentials is None else dict(credentials)
        self.token = token
        self.buckets = buckets
        self.page_size_cap = page_size_cap
        self.skew_s = skew_s
        self.spoiled: dict[str, Spoil] = {}
        self._request_numbers = itertools.count(1)

    def now(self) -> float:
        return self._clock() + self.skew_s

    def respond(self, request: Request) -> Answer:
        return self.honest(request)

    def honest(self, request: Request, *, record: bool = True) -> Answer:
        """Return the true answer, for a `fault` to spoil; `record=False` if nobody will see its states."""
        request_id = hashlib.sha256(b"%d" % next(self._request_numbers)).hexdigest()[:32]
        try:
            status, body = 200, self._body(request, request_id, record)
        except CiError as error:
            status, body = error.status, error_xml(error, request_id=request_id)
        headers = {"Content-Type": "application/xml", "Server": "tencent-ci", "x-ci-request-id": request_id}
        return Answer(status=status, body=body, headers=headers)

    def _body(self, request: Request, request_id: str, record: bool) -> bytes:
        bucket, region = _place(request)
        ci_requests.check_authorization(request, credentials=self.credentials, token=self.token, now=self.now())
        if self.buckets is not None and bucket not in self.buckets:
            raise ci_requests.no_such_bucket()
        params = dict(request.query)
        match request.method, request.path.split("/")[1:]:
            case "GET", ["jobs"]:
                return self._list(bucket, region, params, record)
            case "GET", ["jobs", ids]:
                return self._describe(bucket, region, ids, record)
            case "GET", ["queue"]:
                return self._queues(bucket, params, request_id)
        raise ci_requests.method_not_allowed()

    def _list(self, bucket: str, region: str, params: Mapping[str, str], record: bool) -> bytes:
        query = ci_requests.parse_query(params)
        size = min(ci_requests.size_of(params), self.page_size_cap)
        jobs, after = self.page(bucket, query, size=size, token=params.get("nextToken"), record=record)
        return jobs_xml(jobs, region=region, next_token=after, spoiled=self.spoiled)

    def _describe(self, bucket: str, region: str, said: str, record: bool) -> bytes:
        ids = said.split(",")
        if len(ids) > MAX_IDS or not all(ids):
            raise ci_requests.invalid_argument("jobIds is invalid")
        jobs, missing = self.describe(bucket, ids, record=record)
        return jobs_xml(jobs, region=region, missing=missing, spoiled=self.spoiled)

    def _queues(self, bucket: str, params: Mapping[str, str], request_id: str) -> bytes:
        known = self.queues(bucket)
        asked = [id_ for id_ in params.get("queueIds", "").split(",") if id_] or list(known)
        found = [(id_, known[id_]) for id_ in asked if id_ in known]
        missing = [id_ for id_ in asked if id_ not in known]
        number, size = _positive(params, "pageNumber", 1), _positive(params, "pageSize", 10)
        shown = found[(number - 1) * size : number * size]
        return queues_xml(shown, total=len(found), number=number, size=size, missing=missing, request_id=request_id)


def _place(request: Request) -> tuple[str, str]:
    host = request.headers.get("host", "").partition(":")[0]
    match = re.fullmatch(r"([a-z0-9-]+-\d+)\.ci\.([a-z0-9-]+)\.myqcloud\.com", host)
    if match is None:
        raise ci_requests.invalid_host()
    return match[1], match[2]


def _positive(params: Mapping[str, str], name: str, default: int) -> int:
    said = params.get(name) or str(default)
    if not (said.isascii() and said.isdecimal() and 1 <= int(said) <= ci_requests.MAX_SIZE):
        raise ci_requests.invalid_argument(f"{name} is invalid")
    return int(said)
