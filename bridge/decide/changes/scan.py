"""Which calls to make next: how far back to list, and what to ask by id instead."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

PAGE_SIZE = 100  # the list call's maximum; cloud docs, list document of 2025-09
IDS_PER_CALL = 10  # the describe call's maximum; cloud docs, describe document of 2025-09

# How far before the mark a list begins: CreationTime has one second's resolution, whether the filter includes
# its bound is not documented, and nothing says how soon a new job is listed.
OVERLAP = timedelta(minutes=5)
_TOO_MANY = 1_000_000  # calls
_SECOND = timedelta(seconds=1)


def list_since(
    *,
    mark: datetime | None,
    first: datetime,
    open_created: Sequence[datetime] = (),
    known_created: Sequence[datetime] = (),
    known_from: datetime | None = None,
) -> datetime:
    """Return the creation time from which to list, so that the whole poll takes the fewest calls.

    `mark` is when the last complete listing began (None: there was none, so list from `first`).
    `open_created` are the creation times of the unfinished jobs and `known_created` those of all jobs of this
    stream since the oldest unfinished one, both ascending. With `known_from` they are complete only from then on:
    before, there are too many to list, or those that ended were pruned and would look new. Unfinished jobs before
    the answer are asked by id.
    """
    if mark is None:
        return first - OVERLAP
    latest = mark - OVERLAP
    older = open_created[: bisect_left(open_created, latest)]
    # Leaving out fewer than a whole call's ids saves nothing, so only every tenth unfinished job is a candidate.
    candidates = (latest, *(older[by_id] - _SECOND for by_id in range(0, len(older), IDS_PER_CALL)))

    def calls(since: datetime) -> int:
        if known_from and since < known_from and since != latest:
            return _TOO_MANY
        by_id = bisect_left(older, since)
        return _list_calls(since, known_created) + _ceil(by_id, IDS_PER_CALL)

    return min(candidates, key=calls)


def _list_calls(since: datetime, known_created: Sequence[datetime]) -> int:
    listed = len(known_created) - bisect_left(known_created, since)
    return max(1, _ceil(listed, PAGE_SIZE))


def _ceil(count: int, per: int) -> int:
    return -(-count // per)


def in_tens(ids: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield `ids` in the portions that one describe call takes."""
    for at in range(0, len(ids), IDS_PER_CALL):
        yield tuple(ids[at : at + IDS_PER_CALL])
