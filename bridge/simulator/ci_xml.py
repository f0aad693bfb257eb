"""The XML that CI answers with, in the shapes of its documents and samples."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta, timezone
from types import MappingProxyType
from xml.etree import ElementTree as ET

from bridge.model import FAILED, SUCCESS
from bridge.simulator.ci_errors import CiError
from bridge.simulator.jobs import CiJob

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
