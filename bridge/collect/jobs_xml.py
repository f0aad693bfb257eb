"""Parses CI's XML: a page of the job list, an answer by id, an error.

What cannot be read of one job is a JobProblem of that job and does not affect the others; only a reply with a broken
structure is refused. Only direct children count: a job has other elements called State, Code, Tag or StartTime further
down. Formats: describe and list documents of 2025-09 (https://cloud.tencent.com/document/product/1045/73114,
read 2026-11-21).
"""

from __future__ import annotations

import codecs
import hashlib
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from bridge import shallow_json
from bridge.collect.errors import BrokenReply, UnreadableReply
from bridge.collect.xml_stream import ERROR, JOB_LIMIT, RESPONSE, TEXT_KEPT, XmlStream
from bridge.display import clamp
from bridge.model import FAILED, GONE, NEW, OUTPUTS_KEPT, Description, Job, JobProblem, Page

REPLY_LIMIT = 128 * 2**20  # bytes of one reply, once it is unpacked
PART_LIMIT = 4 * 2**20  # kept until a job ends; a job has some 4 kB, with much recognised speech some 200 kB
BEGINNING = 2**16  # kept to recognise what the reply is
_START, _END = b"<JobsDetail>", b"</JobsDetail>"
_MOST_JOBS = 1_000  # in one reply: ten times what a page may have

# What is kept of a job. CI's own ids and words have some dozens of characters, user data at most 1,024, keys of
# objects 850 bytes; messages and URLs have no limit that is documented.
LONGEST_WORD = 200  # characters of an id, a state, a tag and the like
LONGEST_TEXT = 4_000  # of a message, an input, an output's pattern, user data
LONGEST_NAME = 1_000  # of the name of a file that was made
# An id that may be part of a path: a comma stands between two ids, a slash between parts, and "." and ".." are no id to
# an HTTP client.
ASKABLE = re.compile(r"(?!\.*$)[\w.~:@-]+", re.ASCII)
_UNREADABLE = "\N{REPLACEMENT CHARACTER}"
_EXCERPT = 80  # of what cannot be read
_EARLIEST, _LATEST = 2000, 2200  # years: 0001 and 1970 are how some programs write that there is no time


class Reading(NamedTuple):
    """One job of a reply, as far as it can be read."""

    job_id: str
    job: Job | None
    problems: tuple[JobProblem, ...] = ()


# --- most of a page is byte for byte what the last poll saw, and need not be parsed again ---------------------------

_Key = tuple[str, str, bytes]
_CACHED = 4_000  # jobs in one of the two generations; about 6 MB


class JobCache:
    """The jobs of the last pages by their bytes. Two generations: what is not used is forgotten."""

    def __init__(self, most: int = _CACHED) -> None:
        self._most = most
        self._young: dict[_Key, Reading] = {}
        self._old: dict[_Key, Reading] = {}

    @staticmethod
    def key(bucket: str, region: str, text: bytes) -> _Key:
        return bucket, region, hashlib.blake2b(text, digest_size=16).digest()

    def put(self, key: _Key, reading: Reading) -> None:
        if len(self._young) >= self._most:
            self._old, self._young = self._young, {}
        self._young[key] = reading

    def get(self, key: _Key) -> Reading | None:
        reading = self._young.get(key)
        if reading is None and (reading := self._old.get(key)) is not None:
            self.put(key, reading)
        return reading


# --- one reply, while it arrives ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyContent:
    """What a reply says, of a list or by id."""

    jobs: tuple[Job, ...] = ()
    problems: tuple[JobProblem, ...] = ()
    next_token: str | None = None
    missing: tuple[str, ...] = ()

    def page(self, served_at: datetime | None = None) -> Page:
        return Page(jobs=self.jobs, next_token=self.next_token, served_at=served_at, problems=self.problems)

    def described(self, served_at: datetime | None = None) -> Description:
        return Description(jobs=self.jobs, missing=self.missing, served_at=served_at, problems=self.problems)


class AnswerReader:
    """Reads one reply of status 200 while it arrives, job by job.

    A job whose bytes `cache` knows is not parsed again; others go through a parser in C. What is between jobs, and a
    job that is larger than PART_LIMIT or not well-formed, goes through XmlStream.
    Raises UnreadableReply, BrokenReply among them.
    """

    def __init__(self, *, bucket: str, region: str, cache: JobCache | None = None) -> None:
        self._bucket, self._region, self._cache = bucket, region, cache or JobCache()
        self._length = 0
        self._left, self._searched = b"", 0  # not read yet, and how much of it was searched for the end of a job
        self.beginning: bytes | None = None
        self._stream = XmlStream(RESPONSE, self._take)
        self._readings: list[Reading] = []
        self._is_between = True  # where `_left` begins, no job and no comment or the like has begun

    def feed(self, piece: bytes) -> None:
        self._length += len(piece)
        if self._length > REPLY_LIMIT:
            raise self._broken(f"the reply is longer than {REPLY_LIMIT // 2**20} MB")
        self._left += piece
        if self._length > BEGINNING:
            self._read_whole_jobs()

    def close(self) -> ReplyContent:
        """Return the content of the whole reply."""
        self._read_whole_jobs()
        self._parse(self._left, last=True)
        return _answer(self._readings, self._stream.root)

    def cut_off(self, what: str) -> BrokenReply | None:
        """Return the error for an incomplete reply; None if what arrived is not CI's XML."""
        with suppress(UnreadableReply):
            self._read_whole_jobs()
            self._parse(self._left)
        return None if self._stream.root is None else self._broken(what)

    def _read_whole_jobs(self) -> None:
        text, at = self._left, 0
        if self.beginning is None:
            self.beginning = text[:BEGINNING]
            refuse_other_formats(self.beginning)
        while (end := text.find(_END, max(at, self._searched))) >= 0:
            end += len(_END)
            self._read_to_end_of_job(text[at:end])
            at = end
        self._left = text[at:]
        if len(self._left) > PART_LIMIT:
            self._is_between = False
            self._parse(self._left)
            self._left = b""
        self._searched = max(0, len(self._left) - len(_END))

    def _read_to_end_of_job(self, text: bytes) -> None:
        """Read a job and what is before it: quickly, if the job can be cut out with certainty."""
        start = text.find(_START)
        cut_at = start if start >= 0 and len(text) - start <= PART_LIMIT else len(text)
        before, job = text[:cut_at], text[cut_at:]
        is_cut = self._is_between and job != b"" and _is_cut(before)
        if is_cut and before.strip():
            self._parse(before)
            before = b""
        key = None
        if is_cut and self._stream.depth == 1:
            key = self._cache.key(self._bucket, self._region, job)
            if reading := self._cache.get(key) or self._read_quickly(job, key):
                self._add(reading)
                return
        count = len(self._readings)
        self._parse(before + job)
        is_read = self._stream.depth == 1 and len(self._readings) == count + 1
        self._is_between = is_read and _has_only_tags(before + job)
        if key and self._is_between:
            self._cache.put(key, self._readings[-1])

    def _read_quickly(self, job: bytes, key: _Key) -> Reading | None:
        """Parse a job in C; return None if it needs XmlStream."""
        if not _has_only_tags(job):
            return None
        element = _element(job)
        if element is None:
            element = _element(_STRAY.sub(rb"\1<Message/>", job))
        if element is None or element.find("JobId") is None:
            return None
        reading = _read_job(element, self._bucket, self._region)
        self._cache.put(key, reading)
        return reading

    def _take(self, element: ET.Element, is_too_big: bool) -> None:
        self._add(_read_job(element, self._bucket, self._region, is_too_big=is_too_big))

    def _add(self, reading: Reading) -> None:
        if len(self._readings) == _MOST_JOBS:
            raise self._broken(f"the reply has more than {_MOST_JOBS:,} jobs")
        self._readings.append(reading)

    def _parse(self, piece: bytes, *, last: bool = False) -> None:
        try:
            self._stream.feed(piece, last=last)
        except BrokenReply as error:
            raise self._broken(error.what) from None

    def _broken(self, what: str) -> BrokenReply:
        error = BrokenReply(what)
        error.ids = tuple(reading.job_id for reading in self._readings if reading.job_id)
        if (job := self._stream.open_job) is not None and (job_id := _text(job.find("JobId"))):
            error.ids += (job_id,)
        return error


def _has_only_tags(text: bytes) -> bool:
    """Tell whether "<" begins a tag and nothing else: no comment, no CDATA, no instruction, and no document type."""
    return b"<!" not in text and b"<?" not in text.removeprefix(b"<?xml")


def _is_cut(before: bytes) -> bool:
    """Tell whether what follows is an element of its own, and not inside a comment, a tag or the like."""
    return before.rstrip()[-1:] in (b"", b">") and _has_only_tags(before)


# CI's documents print `</Message>` where `<Message/>` is meant.
_STRAY = re.compile(rb"(</[^<>]*>\s*|<[^<>]*/>\s*)</Message>")


def _element(text: bytes) -> ET.Element | None:
    """Return an element that is well formed; `text` has only tags, so it declares no entities."""
    parser = ET.XMLParser(encoding="utf-8")  # noqa: S314  as said
    try:
        parser.feed(text)
        element: ET.Element = parser.close()
    except ET.ParseError:
        return None
    return element


def refuse_other_formats(body: bytes) -> None:
    start = body.removeprefix(codecs.BOM_UTF8).lstrip()[:14].decode(errors="replace").lower()
    if not start:
        raise UnreadableReply("the reply is empty")
    if start[0] in "{[":
        raise UnreadableReply("the reply is JSON, not XML")
    if start.startswith(("<html", "<!doctype html")):
        raise UnreadableReply("the reply is an HTML page, not XML: something between us and CI wrote it")
    if start[0] != "<":
        raise UnreadableReply("the reply is plain text, not XML")


def _answer(readings: Sequence[Reading], root: ET.Element | None) -> ReplyContent:
    tokens = [text for child in _elements(root) if child.tag == "NextToken" and (text := _text(child))]
    if tokens and len(tokens[0]) >= TEXT_KEPT:
        raise UnreadableReply(f"the reply's NextToken has more than {TEXT_KEPT:,} characters")
    # The describe document has one text; Tencent's Go SDK reads a repeated element. Both are taken.
    lists = ((_raw(child) or "").split(",") for child in _elements(root) if child.tag == "NonExistJobIds")
    jobs = tuple(reading.job for reading in readings if reading.job)
    read = {job.id for job in jobs}
    return ReplyContent(
        jobs=jobs,
        problems=tuple(
            problem for reading in readings for problem in reading.problems
            if not (problem.left_out and problem.job_id in read)  # it came twice, once in a state that can be read
        ),
        next_token=tokens[0] if tokens else None,
        missing=tuple(job_id.strip() for ids in lists for job_id in ids if job_id.strip()),
    )  # fmt: skip


def _elements(root: ET.Element | None) -> Sequence[ET.Element]:
    return () if root is None else tuple(root)


# --- an answer other than 200 ---------------------------------------------------------------------------------------


class ErrorBody(NamedTuple):
    """An error in CI's words; all three are None if the body is not an error of CI's."""

    code: str | None = None
    message: str | None = None
    request_id: str | None = None


def read_error(body: bytes) -> ErrorBody:
    """Parse an error body: CI's XML, or the JSON that some of its hosts send."""
    if body.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"{":
        return _json_error(body.decode("utf-8-sig", errors="replace"))
    stream = XmlStream(ERROR)
    with suppress(UnreadableReply):  # the part of one that was cut off counts
        stream.feed(body, last=True)
    texts = {child.tag: _text(child) for child in _elements(stream.root)}
    return ErrorBody(texts.get("Code"), texts.get("Message"), texts.get("RequestId"))


def _json_error(text: str) -> ErrorBody:
    try:
        body = shallow_json.loads(text)
    except ValueError:
        return ErrorBody()
    values = (body.get(key) for key in ("code", "message", "request_id"))
    return ErrorBody(*(None if value in (None, "") else str(value) for value in values))


# --- one job --------------------------------------------------------------------------------------------------------


def _read_job(element: ET.Element, bucket: str, region: str, *, is_too_big: bool = False) -> Reading:
    own = _children(element)
    job_id, state = _text(own.get("JobId")) or "", _text(own.get("State")) or ""
    if unusable := _unusable(job_id, state, own, is_too_big=is_too_big):
        return Reading(unusable.job_id, None, (unusable,))
    values, problems = _times_and_progress(job_id, own)
    operation, workflow = _children(own.get("Operation")), own.get("Workflow")
    outputs = _outputs(operation)
    job = Job(
        id=job_id,
        bucket=bucket,
        region=region,
        state=state,
        # A job of a submit with several operations has its tag there.
        tag=_word(own.get("Tag")) or _word(operation.get("Tag")),
        queue=_word(own.get("QueueId")),
        code=_word(own.get("Code")) if state == FAILED else None,
        message=_text(own.get("Message"), LONGEST_TEXT) if state == FAILED else None,
        input=_input(own.get("Input")),
        output=_raw(_below(operation.get("Output"), "Object"), LONGEST_TEXT),
        outputs=tuple(clamp(name, LONGEST_NAME) for name in outputs[:OUTPUTS_KEPT]),
        outputs_total=len(outputs),
        template=_word(operation.get("TemplateId")),
        template_name=_word(operation.get("TemplateName")),
        workflow=_raw(_below(workflow, "WorkflowId"), LONGEST_WORD),
        workflow_name=_raw(_below(workflow, "WorkflowName"), LONGEST_WORD),
        workflow_run=_raw(_below(workflow, "RunId"), LONGEST_WORD),
        level=_word(operation.get("JobLevel")),
        user_data=_raw(operation.get("UserData"), LONGEST_TEXT),
        **values,
    )
    return Reading(job_id, job, problems)


def _unusable(job_id: str, state: str, own: Mapping[str, ET.Element], *, is_too_big: bool) -> JobProblem | None:
    """Return what makes the whole job unreadable, or None."""
    if not job_id or len(job_id) > LONGEST_WORD:
        others = (_text(own.get(tag)) for tag in ("Tag", "CreationTime", "QueueId"))
        return _problem("", "JobId", job_id or ", ".join(filter(None, others)), left_out=True)
    if is_too_big:
        return _problem(job_id, "JobsDetail", f"more than {JOB_LIMIT // 2**20} MB", left_out=True)
    return None if _is_state(state) else _problem(job_id, "State", state, left_out=True)


def _is_state(text: str) -> bool:
    """Tell whether a word can be a job's state. "new" and "gone" are our own."""
    unusable = ("", NEW, GONE, "-", "null")
    return len(text) <= LONGEST_WORD and text.isprintable() and _UNREADABLE not in text and text not in unusable


def _times_and_progress(job_id: str, own: Mapping[str, ET.Element]) -> tuple[dict[str, Any], tuple[JobProblem, ...]]:
    """Return the fields that are not texts, by their names in Job, and those that cannot be understood."""
    values, problems = {}, []
    for tag, (name, read) in _PARSED.items():
        text = _text(own.get(tag))
        if text is None or text == "-":
            continue
        if (value := read(text)) is None:
            problems.append(_problem(job_id, tag, text))
        values[name] = value
    return values, tuple(problems)


def _time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
        # Without an offset it would be a guess which clock is meant.
        if time.tzinfo is not None and _EARLIEST <= time.year < _LATEST:
            return time.astimezone(UTC)
    except ValueError:
        pass
    return None


def _percent(text: str) -> int | None:
    number = int(text) if len(text) <= 3 and text.isascii() and text.isdigit() else None
    return number if number is not None and number <= 100 else None


_PARSED: Mapping[str, tuple[str, Callable[[str], object]]] = {
    "Progress": ("progress", _percent),
    "CreationTime": ("created_at", _time),
    "StartTime": ("started_at", _time),
    "EndTime": ("ended_at", _time),
}


def _problem(job_id: str, tag: str, text: str, *, left_out: bool = False) -> JobProblem:
    return JobProblem(job_id=job_id, field=tag, value=clamp(" ".join(text.split()), _EXCERPT), left_out=left_out)


def _input(element: ET.Element | None) -> str | None:
    places = (("Object",), ("Url",), ("Vod", "FileId"))
    return next(filter(None, (_raw(_below(element, *path), LONGEST_TEXT) for path in places)), None)


def _outputs(operation: Mapping[str, ET.Element]) -> list[str]:
    if (result := operation.get("MediaResult")) is not None:
        files = result.findall("OutputFile")
        sprites = [sprite for file in files for sprite in file.findall("SpriteOutputFile")]
        return [name.text for file in (*files, *sprites) for name in file.findall("ObjectName") if name.text]
    if (result := operation.get("PicProcessResult")) is not None:
        return [name.text for name in result.findall("ObjectName") if name.text]
    return []


# --- elements and texts ---------------------------------------------------------------------------------------------


def _children(element: ET.Element | None) -> dict[str, ET.Element]:
    """Return the children by tag; of several with one tag, the first that is not empty."""
    if element is None:
        return {}
    children = {child.tag: child for child in element}
    if len(children) < len(element):
        children = {}
        for child in element:
            known = children.get(child.tag)
            if known is None or not (len(known) or known.text):
                children[child.tag] = child
    return children


def _below(element: ET.Element | None, *path: str) -> ET.Element | None:
    for tag in path:
        element = None if element is None else element.find(tag)
    return element


def _raw(element: ET.Element | None, most: int = TEXT_KEPT) -> str | None:
    """Return a text with its white space: an object key and user data may begin or end with some."""
    if element is None or not (text := "".join(element.itertext()) if len(element) else element.text):
        return None
    return clamp(text[:TEXT_KEPT], most)


def _text(element: ET.Element | None, most: int = TEXT_KEPT) -> str | None:
    text = _raw(element)
    return clamp(text.strip(), most) or None if text else None


def _word(element: ET.Element | None) -> str | None:
    # The keys of indexes are made of such words, and no text that is sent may be longer than a message.
    return _text(element, LONGEST_WORD)
