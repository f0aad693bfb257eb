"""Parses CI's callbacks, of a job (TaskFinish) and of a workflow (WorkflowFinish), in XML or JSON.

They are not signed, so nothing in them is believed but that there may be news of these jobs: their ids are kept, and
which bucket each is said to be in. Formats: the samples of CI's documents and of its Go and Java SDKs, read 2026-11-21.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeGuard

from bridge import shallow_json
from bridge.collect.errors import UnreadableReply
from bridge.collect.jobs_xml import ASKABLE, LONGEST_WORD
from bridge.collect.xml_stream import Kept, XmlStream

CALLBACK_LIMIT = 256 * 1024  # bytes; a job's has some 4 kB, a workflow's some 4 kB and 300 bytes a task
MOST_NAMED = 500  # jobs of one callback; the rest is left to the polls

_JOB: Kept = {"JobId": None, "Input": {"BucketId": None}, "Operation": {"Output": {"Bucket": None}}, "BucketId": None}
# Where a job says which bucket it is in; an output may be in another one, so that comes last.
_BUCKET = (("Input", "BucketId"), ("BucketId",), ("Operation", "Output", "Bucket"))
_RUN: Kept = {"BucketId": None, "Tasks": {"JobId": None}}
_CALLBACK: Kept = {"Response": {"JobsDetail": _JOB, "WorkflowExecution": _RUN}}


class UnreadableCallback(ValueError):
    """What came is neither XML nor JSON of a callback, or names no job."""


@dataclass(frozen=True, slots=True)
class NamedJob:
    """A job that a callback names; `bucket` None: it does not say where."""

    id: str
    bucket: str | None = None


def read_callback(body: bytes) -> list[NamedJob]:
    """Return the jobs that a callback names, each once, the first MOST_NAMED of those whose id can be asked for.

    The format is what the body begins with: nothing else that the request says of it is documented.
    Raises UnreadableCallback.
    """
    is_json = body.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{"
    found = _in_json(body) if is_json else _in_xml(body)
    named: dict[str, NamedJob] = {}
    for job_id, buckets in found:
        if _is_askable(job_id) and len(named) < MOST_NAMED:
            named.setdefault(job_id, NamedJob(job_id, next(filter(_is_word, buckets), None)))
    if not named:
        raise UnreadableCallback("it names no job")
    return list(named.values())


def _is_word(text: object) -> TypeGuard[str]:
    return isinstance(text, str) and 0 < len(text) <= LONGEST_WORD


def _is_askable(job_id: object) -> TypeGuard[str]:
    return _is_word(job_id) and ASKABLE.fullmatch(job_id) is not None


_Found = Iterator[tuple[Any, Iterable[Any]]]  # an id, and the buckets that the job may be in, the likeliest first


def _in_xml(body: bytes) -> _Found:
    jobs: list[ET.Element] = []
    stream = XmlStream(_CALLBACK, lambda job, _: jobs.append(job))
    try:
        stream.feed(body, last=True)
    except UnreadableReply as error:
        raise UnreadableCallback(error.what) from None
    for job in jobs:
        yield _text(job, "JobId"), [_text(job, "/".join(path)) for path in _BUCKET]
    for run in stream.root.findall("WorkflowExecution") if stream.root is not None else ():
        for task in run.findall("Tasks"):
            yield _text(task, "JobId"), [_text(run, "BucketId")]


def _text(element: ET.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _in_json(body: bytes) -> _Found:
    try:
        content = shallow_json.loads(body.decode("utf-8-sig", "replace"))
    except ValueError as error:
        raise UnreadableCallback(f"it is no JSON: {error}") from None
    content = content.get("Response", content)
    for job in _objects(content, "JobsDetail"):
        yield job.get("JobId"), [_at(job, path) for path in _BUCKET]
    for run in _objects(content, "WorkflowExecution"):
        for task in _objects(run, "Tasks"):
            yield task.get("JobId"), [run.get("BucketId")]


def _objects(parent: Any, name: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of a member, which has one or a list of them."""
    member = parent.get(name) if isinstance(parent, dict) else None
    for one in member if isinstance(member, list) else [member]:
        if isinstance(one, dict):
            yield one


def _at(member: Any, path: Iterable[str]) -> Any:
    for name in path:
        member = member.get(name) if isinstance(member, dict) else None
    return member
