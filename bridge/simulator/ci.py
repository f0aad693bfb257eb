"""A stand-in for the CI API: real HTTP, real signatures, real pages, made-up jobs."""

from __future__ import annotations

import hashlib
import itertools
import re
import time
from collections.abc import Callable, Mapping

from bridge.simulator import authorization, ci_errors, ci_query
from bridge.simulator.ci_errors import CiError
from bridge.simulator.ci_xml import Spoil, error_xml, jobs_xml, queues_xml
from bridge.simulator.jobs import JobStore
from bridge.simulator.web import Answer, Request, WebServer

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
        authorization.check(request, credentials=self.credentials, token=self.token, now=self.now())
        if self.buckets is not None and bucket not in self.buckets:
            raise ci_errors.no_such_bucket()
        params = dict(request.query)
        match request.method, request.path.split("/")[1:]:
            case "GET", ["jobs"]:
                return self._list(bucket, region, params, record)
            case "GET", ["jobs", ids]:
                return self._describe(bucket, region, ids, record)
            case "GET", ["queue"]:
                return self._queues(bucket, params, request_id)
        raise ci_errors.method_not_allowed()

    def _list(self, bucket: str, region: str, params: Mapping[str, str], record: bool) -> bytes:
        query = ci_query.parse(params)
        size = min(ci_query.size_of(params), self.page_size_cap)
        jobs, after = self.page(bucket, query, size=size, token=params.get("nextToken"), record=record)
        return jobs_xml(jobs, region=region, next_token=after, spoiled=self.spoiled)

    def _describe(self, bucket: str, region: str, said: str, record: bool) -> bytes:
        ids = said.split(",")
        if len(ids) > MAX_IDS or not all(ids):
            raise ci_errors.invalid_argument("jobIds is invalid")
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
        raise ci_errors.invalid_host()
    return match[1], match[2]


def _positive(params: Mapping[str, str], name: str, default: int) -> int:
    said = params.get(name) or str(default)
    if not (said.isascii() and said.isdecimal() and 1 <= int(said) <= ci_query.MAX_SIZE):
        raise ci_errors.invalid_argument(f"{name} is invalid")
    return int(said)
