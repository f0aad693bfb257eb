"""Jobs that were read before are not parsed again, and nothing else changes."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.collect.errors import BrokenReply, UnreadableReply
from bridge.collect.jobs_xml import JobCache, Reading
from tests.collect.conftest import FIXTURES, PLACE, read

BODY = (FIXTURES / "list_two_jobs_next_token.xml").read_bytes()


def warm(*bodies: bytes) -> JobCache:
    cache = JobCache()
    for body in bodies or (BODY,):
        read(body, cache)
    return cache


class _Counting(JobCache):
    """Counts the jobs that it does not know."""

    unknown = 0

    def get(self, key: tuple[str, str, bytes]) -> Reading | None:
        known = super().get(key)
        self.unknown += known is None
        return known


def unread(cache: JobCache, body: bytes, *, bucket: str = PLACE.bucket) -> int:
    """Return how many jobs of a page would have to be parsed."""
    counting = _Counting()
    counting._young, counting._old = dict(cache._young), dict(cache._old)
    read(body, counting, bucket=bucket)
    return counting.unknown


@pytest.mark.parametrize(
    "path", sorted(FIXTURES.glob("*list*.xml")) + sorted(FIXTURES.glob("job_*.xml")), ids=lambda p: p.stem
)
def test_a_page_reads_the_same_with_a_cache_and_without(path: Path) -> None:
    body = path.read_bytes()
    cache = JobCache()
    assert read(body, cache) == read(body) == read(body, cache)


def test_a_page_that_was_read_before_is_not_parsed_again() -> None:
    assert unread(JobCache(), BODY) == 2
    assert unread(warm(), BODY) == 0


def test_a_job_that_changed_is_read_again_and_the_others_are_not() -> None:
    changed = BODY.replace(b"<Progress>30</Progress>", b"<Progress>31</Progress>")
    cache = warm()
    assert unread(cache, changed) == 1
    assert [job.progress for job in read(changed, cache).jobs] == [31, 100]


def test_a_job_that_is_odd_is_remembered_like_any_other() -> None:
    odd = BODY.replace(b"<UserData>", b"<UserData>&#x8;\xff AT&T ").replace(b"<Progress>30", b"<Progress>many")
    cache = warm(odd)
    assert unread(cache, odd) == 0
    assert read(odd, cache) == read(odd)
    assert read(odd).problems


def test_the_order_of_the_page_stays() -> None:
    parts = BODY.split(b"</JobsDetail>")
    swapped = b"</JobsDetail>".join((b"<Response>" + parts[1], parts[0].replace(b"<Response>", b""), parts[2]))
    found = read(swapped, warm())
    assert [job.id for job in found.jobs] == [job.id for job in read(BODY).jobs][::-1]


def test_the_same_bytes_in_another_bucket_are_another_job() -> None:
    assert unread(warm(), BODY, bucket="other-1250000000") == 2


@settings(max_examples=40)
@given(st.integers(0, len(BODY.rstrip()) - 1))
def test_no_part_of_a_page_passes_for_a_page_however_well_it_is_known(length: int) -> None:
    for cache in (None, warm()):
        with pytest.raises(UnreadableReply):
            read(BODY[:length], cache)


def test_a_page_is_broken_however_well_its_jobs_are_known() -> None:
    broken = BODY.replace(b"<NextToken>", b"<NextToke>")
    for cache in (None, warm()):
        with pytest.raises(BrokenReply, match="mismatched tag"):
            read(broken, cache)


@pytest.mark.parametrize(
    "extra", [b"<!-- </JobsDetail> -->", b"<JobsDetail/>", b"<Other><![CDATA[<JobsDetail>]]></Other>"]
)
def test_what_cannot_be_cut_with_certainty_is_read_as_a_whole(extra: bytes) -> None:
    body = BODY.replace(b"</Response>", extra + b"</Response>")
    assert read(body, warm()).jobs == read(BODY).jobs


def test_what_is_not_asked_for_is_forgotten() -> None:
    cache = JobCache(most=2)
    read(BODY, cache)
    other = BODY.replace(b"<Progress>30</Progress>", b"<Progress>31</Progress>").replace(b"100</Prog", b"99</Prog")
    read(other, cache)
    read(other.replace(b"31</Prog", b"32</Prog").replace(b"99</Prog", b"98</Prog"), cache)
    assert unread(cache, BODY) == 2
