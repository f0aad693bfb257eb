from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bridge.collect.errors import UnreadableReply
from bridge.model import OUTPUTS_KEPT, Description, Job, Page
from tests.collect.conftest import fixture, read, reader

PAGE = fixture("list_two_jobs_next_token.xml").strip()


def job_of(name: str) -> Job:
    (job,) = read(fixture(name)).jobs
    return job


def described(body: bytes) -> Description:
    made = reader()
    made.feed(body)
    return made.close().described()


def a_page(inside: str = "", *, state: str = "Running") -> str:
    job = f"<JobId>j1</JobId><State>{state}</State>{inside}"
    return f"<Response><JobsDetail>{job}</JobsDetail></Response>"


def a_job(inside: str = "", *, state: str = "Running") -> Job:
    (job,) = read(a_page(inside, state=state)).jobs
    return job


def refusal(body: bytes | str) -> str:
    with pytest.raises(UnreadableReply) as caught:
        read(body)
    return str(caught.value)


def test_a_finished_job_is_read_whole() -> None:
    assert job_of("describe_success.xml") == Job(
        id="jd5f761d0da8f11ee8002525400a1b2c3",
        bucket="clips-1250000000",
        region="ap-chongqing",
        state="Success",
        tag="Transcode",
        queue="p7c1de90f2a6b4c0d8e1f5a3b9c7d6e42",
        progress=100,
        created_at=datetime(2024, 3, 5, 1, 29, 40, tzinfo=UTC),
        started_at=datetime(2024, 3, 5, 1, 29, 42, tzinfo=UTC),
        ended_at=datetime(2024, 3, 5, 1, 31, 7, tzinfo=UTC),
        input="in/trailer 01.mp4",
        output="out/trailer.mp4",
        outputs=("out/trailer.mp4",),
        outputs_total=1,
        template="t0a1b2c3d4e5f40718293a4b5c6d7e8f90",
        template_name="hls-720p",
        level="0",
        user_data="order=8841;owner=media-team",
    )


def test_a_page_keeps_its_order_and_its_token() -> None:
    page = read(PAGE)
    assert [job.state for job in page.jobs] == ["Running", "Success"]
    assert page.next_token


@pytest.mark.parametrize("name", ["list_last_page_no_next_token.xml", "list_last_page_empty_next_token.xml"])
def test_a_last_page_has_no_token_or_an_empty_one(name: str) -> None:
    page = read(fixture(name))
    assert len(page.jobs) == 1
    assert page.next_token is None


@pytest.mark.parametrize(
    "body",
    [
        fixture("list_empty_bare.xml"),
        fixture("list_empty_token_only.xml"),
        "<Response><JobsDetail/></Response>",
        "<Response><JobsDetail>\n</JobsDetail><NextToken/></Response>",
        "<Response><RequestId>x</RequestId></Response>",
    ],
)
def test_nothing_found_is_an_empty_page(body: bytes | str) -> None:
    assert read(body) == Page(jobs=())


@pytest.mark.parametrize(
    "text",
    ["2024-03-05T09:30:01+0800", "2024-03-05 09:30:01+0800", "2024-03-05T09:30:01+08:00",
     "2024-03-05T01:30:01Z", "2024-03-04T20:30:01-0500", "2024-03-05T07:00:01+0530", " 2024-03-05T01:30:01Z\n"],
)  # fmt: skip
def test_a_time_of_any_offset_becomes_utc(text: str) -> None:
    time = a_job(f"<CreationTime>{text}</CreationTime>").created_at
    assert time == datetime(2024, 3, 5, 1, 30, 1, tzinfo=UTC)
    assert time.tzinfo is UTC


def test_what_is_absent_is_none() -> None:
    assert a_job() == Job(id="j1", bucket="clips-1250000000", region="ap-chongqing", state="Running")


DOCUMENTED: dict[str, dict[str, object]] = {
    "describe_submitted.xml": {"started_at": None, "ended_at": None},
    "job_cancelled.xml": {"state": "Cancel"},
    "job_paused.xml": {"state": "Pause"},
    "job_failed.xml": {
        "code": "InvalidArgument",
        "message": "Input object cannot be decoded: moov atom not found",
    },
    "job_translation_message_success.xml": {"code": None, "message": None},  # which are of failed jobs only
    "job_concat_running_no_input.xml": {
        "started_at": datetime(2024, 3, 5, 1, 41, 2, tzinfo=UTC),  # not a fragment's 0
        "input": None,
    },
    "callback_task_finish.xml": {
        "state": "Success",
        "message": None,  # its watermark failed
        "workflow": "w1f2e3d4c5b6a47980a1b2c3d4e5f6071",
        "workflow_name": "nightly-upscale",
        "workflow_run": "i5a6b7c8d9e0f11ee8a1b525400a1b2c3",
    },
    "job_snapshot_success.xml": {
        "outputs": ("shots/a-0.jpg", "shots/a-1.jpg", "shots/a-2.jpg", "shots/sprite-0.jpg"),  # sprites come last
        "output": "shots/a-${Number}.jpg",
        "user_data": '{"asset": 77}',
    },
    "job_picprocess_success.xml": {"outputs": ("out/cover.jpg",)},
    "job_speech_recognition_success.xml": {"outputs": (), "outputs_total": 0, "output": "asr/call.txt"},
    "malformed/doc_sample_message_typo.xml": {"state": "Running", "progress": 30},
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_documented_job_is_read_as_it_is_meant(name: str) -> None:
    job = job_of(name)
    assert {field: getattr(job, field) for field in DOCUMENTED[name]} == DOCUMENTED[name]


def test_a_state_that_nobody_knows_is_carried_through() -> None:
    assert a_job(state="Archived").state == "Archived"


def test_namesakes_further_down_are_never_picked() -> None:
    poster = "<PosterProduction><TemplateId>t9</TemplateId></PosterProduction>"
    nested = f"<Operation><State>Failed</State><JobId>j2</JobId>{poster}</Operation>"
    assert a_job(nested) == a_job()


def test_the_tag_of_a_submit_with_several_operations_is_the_operations() -> None:
    jobs = read(fixture("submit_multi_operation_response.xml")).jobs
    assert [job.tag for job in jobs] == ["Animation", "Transcode"]


def test_of_many_outputs_the_first_are_kept_and_all_are_counted() -> None:
    names = "".join(f"<ObjectName>{n}.jpg</ObjectName>" for n in range(1000))
    result = f"<MediaResult><OutputFile>{names}</OutputFile></MediaResult>"
    job = a_job(f"<Operation>{result}</Operation>")
    assert job.outputs == tuple(f"{n}.jpg" for n in range(OUTPUTS_KEPT))
    assert job.outputs_total == 1000


@pytest.mark.parametrize(
    ("inside", "found"),
    [
        ("<BucketId>b</BucketId><Object> a b .mp4</Object>", " a b .mp4"),
        ("<Url>https://example.com/a.mp4</Url>", "https://example.com/a.mp4"),
        ("<Vod><FileId>52858</FileId></Vod>", "52858"),
        ("<Object/>", None),
        ("", None),
    ],
)
def test_an_input_is_an_object_a_url_or_a_file_of_vod(inside: str, found: str | None) -> None:
    assert a_job(f"<Input>{inside}</Input>").input == found


def test_the_uploaders_headers_are_not_kept() -> None:
    assert "x-cos-meta-order" in fixture("callback_task_finish.xml").decode()
    assert "meta-order" not in repr(job_of("callback_task_finish.xml"))


def test_bucket_and_region_are_the_ones_asked() -> None:
    job = a_job("<Input><BucketId>other-1</BucketId><Region>ap-beijing</Region></Input>")
    assert (job.bucket, job.region) == ("clips-1250000000", "ap-chongqing")


@pytest.mark.parametrize(
    ("body", "missing"),
    [
        (fixture("describe_with_nonexist.xml"), ("j4f3c8bb8da8311ee8003525400a1b2c3",)),
        (
            fixture("describe_nonexist_repeated.xml"),
            ("j4f3c8bb8da8311ee8003525400a1b2c3", "j020ceda0da8411ee8004525400a1b2c3"),
        ),
        (b"<Response><NonExistJobIds>j1, j2,</NonExistJobIds><NonExistJobIds/></Response>", ("j1", "j2")),
        (b"<Response/>", ()),
    ],
)
def test_ids_that_ci_does_not_know_are_missing(body: bytes, missing: tuple[str, ...]) -> None:
    assert described(body).missing == missing
    assert described(body).jobs == read(body).jobs


def test_byte_order_mark_declaration_comment_and_cdata_are_understood() -> None:
    inside = "<!-- a note --><UserData/><Operation><UserData>a<![CDATA[ <!DOCTYPE b> ]]>c</UserData></Operation>"
    body = "\ufeff<?xml version='1.0' encoding='utf-8'?>\n" + a_page(inside)
    (job,) = read(body).jobs
    assert job.user_data == "a <!DOCTYPE b> c"
