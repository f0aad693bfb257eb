"""Requests jobs from CI: a page of the list, or up to ten by id.

List document of 2025-09: https://cloud.tencent.com/document/product/1045/73114, read 2026-11-21.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal, Protocol, Self, TypeVar
from urllib.parse import quote

from bridge.collect.credentials import METADATA_URL, Credentials, KeyRing
from bridge.collect.errors import (
    GRANT,
    GRANT_QUEUES,
    AuthError,
    BrokenReply,
    CiError,
    ClockError,
    TemporaryError,
    Throttled,
    UnreadableReply,
    classify,
)
from bridge.collect.http import HttpSession, Proxies, Reply
from bridge.collect.jobs_xml import ASKABLE, AnswerReader, JobCache, read_error
from bridge.collect.queues_xml import QueueReader
from bridge.collect.rate_limit import RateLimit
from bridge.collect.signature import authorization
from bridge.model import IDS_PER_CALL, PAGE_SIZE, Description, KeySource, Pace, Page, Place, Queue, Rate, Stream
from bridge.redact import Mask

logger = logging.getLogger(__name__)

SIGNED_BEFORE_S, SIGNED_AFTER_S = 60, 600  # around now; short, as a signature in some log is a key
SKEW = timedelta(seconds=30)  # a smaller difference is not why CI refuses
PATIENCE = timedelta(seconds=5)  # the longest wait inside a call: longer ones belong to the scheduler
_DIRECT = Proxies()
DEFAULT_RATE = Rate(count=5, per=timedelta(seconds=1))
TOKEN_HEADER = "x-ci-security-token"  # noqa: S105  a header's name; cloud docs 460/42865, read 2026-11-21


_QUEUES_PER_CALL = 10  # the documented default; no maximum is documented
_MOST_QUEUE_PAGES = 20
_QUEUE_PAGE_S, _QUEUES_S = 5.0, 20.0  # one call, and all of them with their waits: polls wait meanwhile

_mask = lru_cache(maxsize=64)(Mask)
_OVER = ("ExpiredToken", "InvalidAccessKeyId")  # temporary keys that end are refused with one of these


Content = TypeVar("Content")
Content_co = TypeVar("Content_co", covariant=True)


class Reader(Protocol[Content_co]):
    """Reads one reply of status 200 while it arrives. Raises UnreadableReply, BrokenReply among them."""

    beginning: bytes | None

    def feed(self, piece: bytes) -> None: ...
    def close(self) -> Content_co: ...
    def cut_off(self, what: str) -> BrokenReply | None: ...


class TencentCi:
    """Requests jobs from CI. Threads may share it. Every failure is a CiError."""

    def __init__(
        self,
        *,
        credentials: Credentials,
        endpoint: str | None = None,
        rate: Rate = DEFAULT_RATE,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
        deadline_s: float = 30,
        proxies: Proxies = _DIRECT,
        trusted: str | None = None,
        sources: Callable[[], Mapping[str, KeySource]] = dict,
        metadata_url: str = METADATA_URL,
    ) -> None:
        """`endpoint` replaces CI's hosts, save where a place has its own; `deadline_s` bounds one request.

        `credentials` are for places that name none; `sources` says where the others' keys are. `trusted` is a file of
        certificates, if not those of requests.
        """
        self._endpoint = endpoint
        self.keys = KeyRing(credentials, sources, clock=clock, monotonic=monotonic, metadata_url=metadata_url)
        self._clock, self._monotonic, self._sleep = clock, monotonic, sleep
        self._rate_limit = RateLimit(rate, monotonic=monotonic, sleep=sleep)
        self._session = HttpSession(deadline_s=deadline_s, monotonic=monotonic, proxies=proxies, trusted=trusted)
        self._offsets: dict[str, timedelta] = {}
        self._cache = JobCache()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def set_rate(self, rate: Rate) -> None:
        """Change the rate, for each bucket."""
        self._rate_limit.rate = rate

    def pace(self, bucket: str, *, now: datetime) -> Pace:
        """Return how often a bucket was asked of late, for other processes."""
        return self._rate_limit.pace(bucket, now=now)

    def set_pace(self, bucket: str, pace: Pace, *, now: datetime) -> None:
        """Go on from where another process stopped to ask for a bucket."""
        self._rate_limit.set_pace(bucket, pace, now=now)

    def waited_s(self, bucket: str) -> float:
        """Return for how many seconds calls for a bucket have waited for their turn, in all."""
        return self._rate_limit.waited_s(bucket)

    def close(self) -> None:
        """Close the connections that are kept open."""
        self._session.close()

    def is_slowed(self, place: Place) -> bool:
        """Tell whether CI is asked less often than the rate allows, because it refused calls as too many."""
        return self._rate_limit.is_slowed(place.bucket)

    def offset(self, place: Place) -> timedelta:
        """Return by how much CI's clock is ahead of ours; 0 until CI refuses our time."""
        return self._offsets.get(place.host, timedelta())

    def list(
        self,
        stream: Stream,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        token: str | None = None,
        order: Literal["Asc", "Desc"] = "Asc",
        size: int = PAGE_SIZE,
        states: Sequence[str] = (),
    ) -> Page:
        """Return one page of the jobs created between `since` and `until`; `token` asks for a later one.

        `states` are those that CI is asked for, all without any.
        """
        # Lower camel case, as in the document's samples and both SDKs; its tables also print `QueueId`.
        params = {
            "tag": stream.tag,
            "queueId": stream.queue,
            "queueType": stream.queue_type,
            "workflowId": stream.workflow,
            "inputObject": stream.input,
            "startCreationTime": _stamp(since) if since else None,
            "endCreationTime": _stamp(until) if until else None,
            "orderByTime": order,
            "size": str(size),
            "states": ",".join(states),
            "nextToken": token,
        }
        given = {name: value for name, value in params.items() if value}
        answer, reply = self._ask(stream.place, "/jobs", given, self._reader(stream.place))
        return answer.page(reply.date)

    def describe(self, place: Place, ids: Sequence[str]) -> Description:
        """Return the jobs of at most 10 ids.

        An id that cannot be part of a path is not requested; it is neither among the jobs nor missing.
        """
        if not 1 <= len(ids) <= IDS_PER_CALL:
            raise ValueError(f"describe takes 1 to {IDS_PER_CALL} ids, not {len(ids)}")
        asked = ",".join(job_id for job_id in ids if ASKABLE.fullmatch(job_id))
        if not asked:
            return Description(jobs=())
        answer, reply = self._ask(place, f"/jobs/{asked}", {}, self._reader(place))
        return answer.described(reply.date)

    def queues(self, place: Place) -> tuple[Queue, ...]:
        """Return the queues of a bucket; of very many the first.

        A refusal is not waited out, and slows no other call down: nobody waits for the names.
        Document: https://www.tencentcloud.com/document/product/1045/72939, read 2026-11-30.
        """
        found: dict[str, Queue] = {}
        until_s = self._monotonic() + _QUEUES_S
        for number in range(1, _MOST_QUEUE_PAGES + 1):
            params = {"category": "CateAll", "pageNumber": str(number), "pageSize": str(_QUEUES_PER_CALL)}
            try:
                page, _ = self._ask_once(place, "/queue", params, QueueReader)
            except AuthError as error:
                error.advice = GRANT_QUEUES if error.advice == GRANT else error.advice
                raise
            new = {queue.id: queue for queue in page.queues if queue.id not in found}
            found |= new
            if not new or (page.total is not None and len(found) >= page.total):
                break
            if self._monotonic() > until_s:
                raise TemporaryError(f"{place.host} took longer than {_QUEUES_S:g} s to list the queues")
        return tuple(found.values())

    def _reader(self, place: Place) -> Callable[[], AnswerReader]:
        return lambda: AnswerReader(bucket=place.bucket, region=place.region, cache=self._cache)

    def _ask(
        self, place: Place, path: str, params: Mapping[str, str], new_reader: Callable[[], Reader[Content]]
    ) -> tuple[Content, Reply]:
        """Return CI's answer of status 200; retry where that may help within seconds."""
        keys = self.keys.of(place.credentials)
        throttled, failed, corrected = 0, False, False
        while True:
            offset = self.offset(place)
            slot = self._rate_limit.wait(place.bucket, place.watch_rate)
            answer, reply = self._send(place, path, params, offset, keys, new_reader())
            if answer is not None:
                self._rate_limit.accepted(place.bucket)
                return answer, reply
            error = self._refusal(place, reply, keys)
            if isinstance(error, Throttled):
                self._rate_limit.refused(place.bucket, slot)
            match error:
                case Throttled() if throttled < 2 and _wait(error, throttled) <= PATIENCE:
                    self._sleep(_wait(error, throttled).total_seconds())
                    throttled += 1
                case ClockError() if not corrected and self._correct(place, reply, offset):
                    corrected = True
                case TemporaryError() if not failed and reply.status >= 500:
                    self._sleep(1)
                    failed = True
                case _:
                    raise error

    def _ask_once(
        self, place: Place, path: str, params: Mapping[str, str], new_reader: Callable[[], Reader[Content]]
    ) -> tuple[Content, Reply]:
        """Like `_ask`, for what is not worth trying again."""
        keys = self.keys.of(place.credentials)
        self._rate_limit.wait(place.bucket, place.watch_rate)
        answer, reply = self._send(place, path, params, self.offset(place), keys, new_reader(), within_s=_QUEUE_PAGE_S)
        if answer is None:
            raise self._refusal(place, reply, keys)
        return answer, reply

    def _send(
        self,
        place: Place,
        path: str,
        params: Mapping[str, str],
        offset: timedelta,
        keys: Credentials,
        reader: Reader[Content],
        *,
        within_s: float | None = None,
    ) -> tuple[Content | None, Reply]:
        """Ask once; return what an answer of status 200 says (None: it has another), and the answer."""
        endpoint = place.endpoint or self._endpoint
        base = (endpoint or f"https://{place.host}").rstrip("/")
        query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in params.items())
        url = f"{base}{quote(path, safe='/,')}{query and '?'}{query}"
        # Behind an endpoint too the Host is CI's own: that is what CI checks, and what names the bucket.
        headers = {"Host": place.host}
        if keys.token:
            headers[TOKEN_HEADER] = keys.token
        signature = self._signature(path, params, headers, offset, keys)
        # The part before an @ in an endpoint may be a password.
        host = f"{place.host} through {base.rpartition('@')[2]}" if endpoint else place.host
        reply = None
        try:
            reply = self._session.get(
                url, headers=headers, authorization=signature, host=host, take=reader.feed, deadline_s=within_s
            )
            return reader.close() if reply.status == 200 else None, reply
        except UnreadableReply as error:
            raise _detailed(error, place, reader.beginning or b"", reply, keys) from None
        except TemporaryError as error:
            if broken := reader.cut_off(error.what):
                raise broken from None
            raise

    def _signature(
        self, path: str, params: Mapping[str, str], headers: Mapping[str, str], offset: timedelta, keys: Credentials
    ) -> str:
        now_s = int(self._clock() + offset.total_seconds())
        return authorization(
            secret_id=keys.secret_id,
            secret_key=keys.secret_key,
            method="GET",
            path=path,
            params=params,
            headers=headers,
            start=now_s - SIGNED_BEFORE_S,
            end=now_s + SIGNED_AFTER_S,
        )

    def _refusal(self, place: Place, reply: Reply, keys: Credentials) -> CiError:
        """Return the error that an answer other than 200 means."""
        code, message, request_id = _error_in(reply.body, reply, keys)
        now = datetime.fromtimestamp(self._clock(), UTC)
        error = classify(
            reply.status,
            code,
            message,
            host=place.host,
            request_id=request_id,
            retry_after=reply.retry_after(now),
        )
        if isinstance(error, ClockError):
            error.what = f"{place.host} refused: {_compare(now, reply.date)}"
        if isinstance(error, AuthError):
            error.advice = keys.advice(error.advice)
            if place.credentials is not None:
                error.what = f'credentials "{place.credentials}": {error.what}'
            if code in _OVER:
                self.keys.refused(place.credentials)
        return error

    def _correct(self, place: Place, reply: Reply, offset: timedelta) -> bool:
        """Adopt CI's clock, if it differs enough from the one that we signed with."""
        ours = datetime.fromtimestamp(self._clock(), UTC)
        if reply.date is None or abs(reply.date - (ours + offset)) < SKEW:
            return False
        self._offsets[place.host] = reply.date - ours
        seconds = round((reply.date - ours).total_seconds())
        logger.warning("signing with CI's clock, as ours differs", extra={"host": place.host, "offset_s": seconds})
        return True


def _detailed(
    error: UnreadableReply, place: Place, body: bytes, reply: Reply | None, keys: Credentials
) -> UnreadableReply:
    """Return the error with what the reply says of itself."""
    code, _, request_id = _error_in(body, reply, keys)
    what = _mask(keys.secrets)(f"{place.host}: {error.what}")
    detailed = type(error)(what, code=code, request_id=request_id, status=200)
    detailed.ids = error.ids
    return detailed


def _error_in(body: bytes, reply: Reply | None, keys: Credentials) -> tuple[str | None, ...]:
    """Return the code, message and request id of an answer; it may repeat secrets that were sent."""
    code, message, request_id = read_error(body)
    request_id = request_id or (reply.request_id if reply else None)
    mask = _mask(keys.secrets)
    return tuple(text and mask(text) for text in (code, message, request_id))


def _stamp(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%S}+0000"


def _wait(error: Throttled, waited: int) -> timedelta:
    return timedelta(seconds=2**waited) if error.retry_after is None else error.retry_after


def _compare(ours: datetime, theirs: datetime | None) -> str:
    if theirs is None:
        return "it rejects the time of the signature, and sent no time of its own"
    seconds = round((theirs - ours).total_seconds())
    return f"this machine's clock is {abs(seconds)} s {'behind' if seconds >= 0 else 'ahead of'} CI's"
