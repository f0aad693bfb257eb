from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.collect.errors import BrokenReply, UnreadableReply
from bridge.collect.jobs_xml import Reading, read_page
from bridge.collect.page_cache import Key, Memory
from bridge.model import Page

FIXTURES = Path(__file__).parents[1] / "fixtures" / "ci"
BODY = (FIXTURES / "list_two_jobs_next_token.xml").read_bytes()


def read(body: bytes, memory: Memory[Reading] | None = None) -> Page:
    return read_page(body, bucket="clips-1250000000", region="ap-chongqing", memory=memory)


def warm(*bodies: bytes) -> Memory[Reading]:
    memory = Memory[Reading]()
    for body in bodies or (BODY,):
        read(body, memory)
    return memory


class _Counting(Memory[Reading]):
    """Counts the jobs that it does not know."""

    unknown = 0

    def recall(self, key: Key) -> Reading | None:
        known = super().recall(key)
        self.unknown += known is None
        return known


def unread(memory: Memory[Reading], body: bytes, *, bucket: str = "clips-1250000000") -> int:
    """Return how many jobs of a page would have to be parsed."""
    counting = _Counting()
    counting._young, counting._old = dict(memory._young), dict(memory._old)
    read_page(body, bucket=bucket, region="ap-chongqing", memory=counting)
    return counting.unknown


@pytest.mark.parametrize(
    "path", sorted(FIXTURES.glob("*list*.xml")) + sorted(FIXTURES.glob("job_*.xml")), ids=lambda p: p.stem
)
def test_a_page_reads_the_same_with_a_memory_and_without(path: Path) -> None:
    body = path.read_bytes()
    memory = Memory[Reading]()
    assert read(body, memory) == read(body) == read(body, memory)


def test_a_page_that_was_read_before_is_not_parsed_again() -> None:
    assert unread(Memory[Reading](), BODY) == 2
    assert unread(warm(), BODY) == 0


def test_a_job_that_changed_is_read_again_and_the_others_are_not() -> None:
    changed = BODY.replace(b"<Progress>30</Progress>", b"<Progress>31</Progress>")
    memory = warm()
    assert unread(memory, changed) == 1
    assert [job.progress for job in read(changed, memory).jobs] == [31, 100]


def test_a_job_that_is_odd_is_remembered_like_any_other() -> None:
    odd = BODY.replace(b"<UserData>", b"<UserData>&#x8;\xff AT&T ").replace(b"<Progress>30", b"<Progress>many")
    memory = warm(odd)
    assert unread(memory, odd) == 0
    assert read(odd, memory) == read(odd)
    assert read(odd).problems


def test_the_order_of_the_page_stays() -> None:
    parts = BODY.split(b"</JobsDetail>")
    swapped = b"</JobsDetail>".join((b"<Response>" + parts[1], parts[0].replace(b"<Response>", b""), parts[2]))
    found = read(swapped, warm())
    assert [job.id for job in found.jobs] == [job.id for job in read(BODY).jobs][::-1]


def test_the_same_bytes_in_another_bucket_are_another_job() -> None:
    assert unread(warm(), BODY, bucket="other-1250000000") == 2


@given(st.integers(0, len(BODY.rstrip()) - 1))
def test_no_part_of_a_page_passes_for_a_page_however_well_it_is_known(length: int) -> None:
    with pytest.raises(UnreadableReply):
        read(BODY[:length], warm())


def test_a_page_is_broken_however_well_its_jobs_are_known() -> None:
    broken = BODY.replace(b"<NextToken>", b"<NextToke>")
    for memory in (None, warm()):
        with pytest.raises(BrokenReply, match="mismatched tag"):
            read(broken, memory)


@pytest.mark.parametrize(
    "extra", [b"<!-- </JobsDetail> -->", b"<JobsDetail/>", b"<Other><![CDATA[<JobsDetail>]]></Other>"]
)
def test_what_cannot_be_cut_with_certainty_is_read_as_a_whole(extra: bytes) -> None:
    body = BODY.replace(b"</Response>", extra + b"</Response>")
    assert read(body, warm()).jobs == read(BODY).jobs


def test_what_is_not_asked_for_is_forgotten() -> None:
    memory = Memory[Reading](most=2)
    read(BODY, memory)
    other = BODY.replace(b"<Progress>30</Progress>", b"<Progress>31</Progress>").replace(b"100</Prog", b"99</Prog")
    read(other, memory)
    read(other.replace(b"31</Prog", b"32</Prog").replace(b"99</Prog", b"98</Prog"), memory)
    assert unread(memory, BODY) == 2
