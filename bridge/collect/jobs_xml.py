"""CI's XML, read: one page of the job list, one answer by id, one error.

Only direct children count: a job holds other elements called State, Code, Tag or StartTime further down.
Formats: describe and list documents of 2025-09 (https://cloud.tencent.com/document/product/1045/73114,
read 2026-11-21).
"""

from __future__ import annotations

import json
import logging
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from bridge.collect.errors import BrokenReply, UnreadableReply
from bridge.collect.memory import Memory
from bridge.model import FAILED, OUTPUTS_KEPT, Described, Job, Page

logger = logging.getLogger(__name__)

LONGEST_WORD = 200  # characters of an id, a state, a tag and the like; CI's own have some dozens


class Fault(NamedTuple):
    """An error as CI words it; all three are None when the body is no error of CI's."""

    code: str | None = None
    message: str | None = None
    request_id: str | None = None


def read_page(body: bytes, *, bucket: str, region: str, memory: Memory | None = None) -> Page:
    """Return the jobs of one answer of the list, in its order; times become UTC.

    Jobs that `memory` knows to the byte are not parsed again. A job with an absurd id is left out, and logged.
    Raises UnreadableReply naming job and field, e.g. "job j123: CreationTime 'soon' is not a time".
    """
    page = _remembered(body, bucket, region, memory) if memory else None
    if page:
        return page
    root = _root(body)
    return Page(jobs=_usable(_jobs(root, bucket, region)), next_token=_text(root.find("NextToken")))


def _remembered(body: bytes, bucket: str, region: str, memory: Memory) -> Page | None:
    """Return the page, or None when it must be read as a whole: to be understood, or to say where it is broken."""
    split = memory.split(body, bucket=bucket, region=region)
    if split is None:
        return None
    try:
        root = _root(split.rest)
        fresh = _jobs(root, bucket, region)
    except UnreadableReply:
        return None
    if len(fresh) != len(split.keys):
        return None
    for key, job in zip(split.keys, fresh, strict=True):
        memory.keep(key, job)
    unread = iter(fresh)
    jobs = (job if job is not None else next(unread) for job in split.jobs)
    return Page(jobs=_usable(jobs), next_token=_text(root.find("NextToken")))


def _usable(jobs: Iterable[Job]) -> tuple[Job, ...]:
    """Leave out the jobs whose ids no index takes: stored with the others, one would block the page for good."""
    return tuple(job for job in jobs if len(job.id) <= LONGEST_WORD)


def read_described(body: bytes, *, bucket: str, region: str) -> Described:
    """Return the jobs of one answer by id, and the ids that CI does not know."""
    root = _root(body)
    # The describe document has one text; Tencent's Go SDK reads a repeated element. Both are taken.
    lists = ((element.text or "").split(",") for element in root.iterfind("NonExistJobIds"))
    missing = tuple(job_id.strip() for ids in lists for job_id in ids if job_id.strip())
    return Described(jobs=_usable(_jobs(root, bucket, region)), missing=missing)


def read_error(body: bytes) -> Fault:
    """Return what an error body says, be it CI's XML or the JSON that some of its hosts send."""
    text = body.decode("utf-8-sig", errors="replace").lstrip()
    if text.startswith("{"):
        return _json_error(text)
    try:
        root = _parse(text)
    except (ET.ParseError, UnreadableReply):
        return Fault()
    if root.tag != "Error":
        return Fault()
    return Fault(_text(root.find("Code")), _text(root.find("Message")), _text(root.find("RequestId")))


def _json_error(text: str) -> Fault:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return Fault()
    code, message, request_id = (told.get(key) for key in ("code", "message", "request_id"))
    return Fault(*(None if said in (None, "") else str(said) for said in (code, message, request_id)))


def _root(body: bytes) -> ET.Element:
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableReply(f"the reply is not UTF-8 (byte {error.start})") from None
    _refuse_other_formats(text)
    try:
        root = _parse(text)
    except ET.ParseError as error:
        root = _parse_as_printed(text, error)
    if root.tag != "Response":
        raise UnreadableReply(f"the reply is a <{root.tag}>, not a <Response>")
    return root


def _refuse_other_formats(text: str) -> None:
    start = text.lstrip()[:14].lower()
    if not start:
        raise UnreadableReply("the reply is empty")
    if start[0] in "{[":
        raise UnreadableReply("the reply is JSON, not XML")
    if start.startswith(("<html", "<!doctype html")):
        raise UnreadableReply("the reply is an HTML page, not XML: something between us and CI wrote it")
    if start[0] != "<":
        raise UnreadableReply("the reply is plain text, not XML")


class _WithoutDoctype(ET.TreeBuilder):
    def doctype(self, *_declared: str | None) -> None:
        """Refuse: entities, which could make a small reply huge, are declared here and nowhere else."""
        raise UnreadableReply("the reply has a document type declaration, which CI never sends")


def _parse(text: str) -> ET.Element:
    # A builder written in Python is slower; without "<!" there is nothing that it would have to refuse.
    parser = ET.XMLParser(target=_WithoutDoctype()) if "<!" in text else ET.XMLParser()  # noqa: S314  as said
    parser.feed(text)
    root: ET.Element = parser.close()
    return root


# CI's documents print `</Message>` where `<Message/>` is meant. Both are as long, so places stay true.
_STRAY = re.compile(r"(</[^<>]*>\s*|<[^<>]*/>\s*)</Message>")


def _parse_as_printed(text: str, error: ET.ParseError) -> ET.Element:
    mended, count = _STRAY.subn(r"\1<Message/>", text)
    if count:
        try:
            return _parse(mended)
        except ET.ParseError as again:
            error = again
    raise BrokenReply(f"the reply is broken or cut off: {error}") from None


def _jobs(root: ET.Element, bucket: str, region: str) -> tuple[Job, ...]:
    # What CI sends when nothing matches is not documented: an empty <JobsDetail/> says nothing.
    found = (element for element in root.iterfind("JobsDetail") if len(element) or _text(element))
    jobs = tuple(_job(element, number, bucket, region) for number, element in enumerate(found, 1))
    for job in jobs:
        if len(job.id) > LONGEST_WORD:
            text = "job left out: its id has more characters than any"
            logger.warning(text, extra={"bucket": bucket, "characters": len(job.id), "id_begins": job.id[:80]})
    return jobs


def _job(element: ET.Element, number: int, bucket: str, region: str) -> Job:
    own = {child.tag: child for child in element}
    job_id, state = _text(own.get("JobId")), _word(own.get("State"))
    if job_id is None:
        raise UnreadableReply(f"job number {number} of the reply: JobId is missing")
    if state is None:
        raise UnreadableReply(f"job {job_id}: State is missing")
    operation = {child.tag: child for child in own.get("Operation", ())}
    workflow = own.get("Workflow")
    outputs = _outputs(operation)
    return Job(
        id=job_id,
        bucket=bucket,
        region=region,
        state=state,
        # A job of a submit with several operations has its tag there.
        tag=_word(own.get("Tag")) or _word(operation.get("Tag")),
        queue=_word(own.get("QueueId")),
        code=_word(own.get("Code")) if state == FAILED else None,
        message=_text(own.get("Message")) if state == FAILED else None,
        progress=_percent(job_id, own.get("Progress")),
        created_at=_time(job_id, own.get("CreationTime")),
        started_at=_time(job_id, own.get("StartTime")),
        ended_at=_time(job_id, own.get("EndTime")),
        input=_input(own.get("Input")),
        output=_exact(operation.get("Output"), "Object"),
        outputs=tuple(outputs[:OUTPUTS_KEPT]),
        outputs_total=len(outputs),
        template=_word(operation.get("TemplateId")),
        template_name=_word(operation.get("TemplateName")),
        workflow=_short(_exact(workflow, "WorkflowId")),
        workflow_name=_short(_exact(workflow, "WorkflowName")),
        workflow_run=_short(_exact(workflow, "RunId")),
        level=_word(operation.get("JobLevel")),
        user_data=_raw(operation.get("UserData")),
    )


def _text(element: ET.Element | None) -> str | None:
    if element is None or not (text := element.text):
        return None
    return text.strip() or None


def _word(element: ET.Element | None) -> str | None:
    return _short(_text(element))


def _short(word: str | None) -> str | None:
    # The keys of indexes are made of such words, and no text that is told may be longer than a message.
    return word and word[:LONGEST_WORD]


def _raw(element: ET.Element | None) -> str | None:
    """Return a text with its white space: an object key and user data may begin or end with some."""
    return None if element is None else element.text or None


def _exact(element: ET.Element | None, tag: str) -> str | None:
    return None if element is None else element.findtext(tag) or None


def _time(job_id: str, element: ET.Element | None) -> datetime | None:
    text = _text(element)
    if text is None or text == "-":
        return None
    try:
        time = datetime.fromisoformat(text)
        # Without an offset it would be a guess which clock is meant.
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    tag = element.tag if element is not None else ""
    raise UnreadableReply(f"job {job_id}: {tag} {text[:40]!r} is not a time")


def _percent(job_id: str, element: ET.Element | None) -> int | None:
    text = _text(element)
    if text is None or text == "-":
        return None
    if len(text) > 3 or not (text.isascii() and text.isdigit()):
        raise UnreadableReply(f"job {job_id}: Progress {text[:40]!r} is not a per cent")
    return int(text)


def _input(element: ET.Element | None) -> str | None:
    return _exact(element, "Object") or _exact(element, "Url") or _exact(element, "Vod/FileId")


def _outputs(operation: dict[str, ET.Element]) -> list[str]:
    if (result := operation.get("MediaResult")) is not None:
        files = result.findall("OutputFile")
        sprites = [sprite for file in files for sprite in file.findall("SpriteOutputFile")]
        return [name.text for file in (*files, *sprites) for name in file.findall("ObjectName") if name.text]
    if (result := operation.get("PicProcessResult")) is not None:
        return [name.text for name in result.findall("ObjectName") if name.text]
    return []
