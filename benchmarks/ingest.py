"""Jobs read a second: pages of CI's list to a stored snapshot, nothing changed, beside the SDK's parsing alone."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from benchmarks.ci_pages import PAGE_SIZE, pages
from benchmarks.deliveries import BUCKET, REGION, rulebook
from benchmarks.machine import Bench, Missing, Stores, settle_statistics
from benchmarks.report import Line, at_least
from bridge.collect.jobs_xml import AnswerReader, JobCache
from bridge.model import Description, Pace, Page, Place, Queue, Stream
from bridge.pipeline.poller import Poller
from bridge.record.database import Database
from bridge.record.polling import leases

_PAGES, _POLLS = 20, 3
_TARGET = 4


class _Tape:
    """A source that plays pages: all of poll is real but the network."""

    def __init__(self, bodies: Sequence[bytes]) -> None:
        self._bodies = bodies
        self._cache = JobCache()  # as the real client has one

    def list(self, _stream: Stream, *, token: str | None = None, **_: object) -> Page:
        reader = AnswerReader(bucket=BUCKET, region=REGION, cache=self._cache)
        reader.feed(self._bodies[int(token or 0)])
        return reader.close().page()

    def describe(self, _place: Place, ids: Sequence[str]) -> Description:
        return Description(jobs=(), missing=tuple(ids))

    def pace(self, _bucket: str, **_: object) -> Pace:
        return Pace()

    def set_pace(self, _bucket: str, _pace: Pace, **_: object) -> None:
        pass

    def waited_s(self, _bucket: str) -> float:
        return 0.0

    def queues(self, _place: Place) -> tuple[Queue, ...]:
        return ()


def measure(_bench: Bench, stores: Stores, rounds: int) -> list[Line]:
    bodies, parse = pages(_PAGES), _sdk()
    rates: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        rates["SDK"].append(_rate(lambda: [parse(body) for body in bodies]))
        for kind in stores.kinds:
            with stores.empty(kind) as url:
                rates[kind].append(_ours(url, bodies))
    return [
        at_least(
            _TARGET,
            f"jobs read and compared, {kind}",
            "1/s",
            ours=rates[kind],
            peer_name="SDK, parsing only",
            peer=rates["SDK"],
        )
        for kind in stores.kinds
    ]


def _sdk() -> Callable[[bytes], object]:
    try:
        from qcloud_cos.cos_comm import xml_to_dict
    except ImportError as error:
        raise Missing("the official SDK is not installed: pip install cos-python-sdk-v5") from error
    parse: Callable[[bytes], object] = xml_to_dict
    return parse


def _ours(url: str, bodies: Sequence[bytes]) -> float:
    book = rulebook("http://127.0.0.1:1/")
    (watch,) = book.watches
    db = Database(url)
    db.upgrade()
    with db.write() as tx:
        leases.sync(tx, book.watches, [])
    poller = Poller(db=db, source=_Tape(bodies), clock=lambda: datetime.now(UTC), worker="bench")
    first = poller.poll_once(watch, book)
    assert first is not None
    assert first.transitions == _PAGES * PAGE_SIZE, first
    settle_statistics(url)

    def poll() -> None:
        again = poller.poll_once(watch, book)
        assert again is not None
        assert (again.jobs, again.transitions) == (_PAGES * PAGE_SIZE, 0), again

    try:
        return _rate(poll)
    finally:
        db.close()


def _rate(read_all: Callable[[], object]) -> float:
    from_s = time.perf_counter()
    for _ in range(_POLLS):
        read_all()
    return _POLLS * _PAGES * PAGE_SIZE / (time.perf_counter() - from_s)
