"""Jobs already read: most of a page is what the last poll saw, to the byte, and need not be parsed again."""

from __future__ import annotations

import hashlib
from typing import Generic, TypeVar

T = TypeVar("T")  # what is made of a job
Key = tuple[str, str, bytes]

_MOST = 4_000  # jobs in one of the two generations; about 6 MB


class Memory(Generic[T]):
    """The jobs of the last pages by the bytes they stood in. Two generations: what is not asked for is forgotten."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._young: dict[Key, T] = {}
        self._old: dict[Key, T] = {}

    @staticmethod
    def key(bucket: str, region: str, text: bytes) -> Key:
        return bucket, region, hashlib.blake2b(text, digest_size=16).digest()

    def keep(self, key: Key, job: T) -> None:
        if len(self._young) >= self._most:
            self._old, self._young = self._young, {}
        self._young[key] = job

    def recall(self, key: Key) -> T | None:
        job = self._young.get(key)
        if job is None and (job := self._old.get(key)) is not None:
            self.keep(key, job)
        return job
