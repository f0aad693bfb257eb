"""Jobs already read: most of a page is what the last poll saw, to the byte, and need not be parsed again."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from bridge.model import Job

_START, _END = b"<JobsDetail>", b"</JobsDetail>"
_MOST = 4_000  # jobs in one of the two generations; about 6 MB

Key = tuple[str, str, bytes]


class Split(NamedTuple):
    """A page without the jobs that are remembered: `jobs` has None where `rest` still has one, whose keys follow."""

    jobs: list[Job | None]
    rest: bytes
    keys: list[Key]


class Memory:
    """The jobs of the last pages by the bytes they stood in. Two generations: what is not asked for is forgotten."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._young: dict[Key, Job] = {}
        self._old: dict[Key, Job] = {}

    def split(self, body: bytes, *, bucket: str, region: str) -> Split | None:
        """Take the remembered jobs out of a page; None when it cannot be cut with certainty.

        Without "<!" there are no comments and no CDATA, so "<" begins a tag and nothing else. What is taken out
        stood as a whole element in a page that was well formed: the rest is well formed if and only if the page is.
        """
        if b"<!" in body:
            return None
        *parts, tail = body.split(_END)
        jobs: list[Job | None] = []
        rest: list[bytes] = []
        keys: list[Key] = []
        for part in parts:
            start = part.find(_START)
            if start < 0:
                return None
            key = (bucket, region, hashlib.blake2b(part[start:], digest_size=16).digest())
            job = self._recall(key)
            jobs.append(job)
            if job is None:
                keys.append(key)
                rest += (part, _END)
            else:
                rest.append(part[:start])
        return Split(jobs, b"".join((*rest, tail)), keys)

    def keep(self, key: Key, job: Job) -> None:
        if len(self._young) >= self._most:
            self._old, self._young = self._young, {}
        self._young[key] = job

    def _recall(self, key: Key) -> Job | None:
        job = self._young.get(key)
        if job is None and (job := self._old.get(key)) is not None:
            self.keep(key, job)
        return job
