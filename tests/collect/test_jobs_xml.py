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
    assert page.served_at is None


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


def test_times_that_are_not_yet_known_are_none() -> None:
    job = job_of("describe_submitted.xml")
    assert (job.started_at, job.ended_at) == (None, None)
    assert a_job("<StartTime/><EndTime> </EndTime>").started_at is None


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


def test_a_state_that_nobody_knows_is_carried_through() -> None:
    assert a_job(state="Archived").state == "Archived"


@pytest.mark.parametrize(("name", "state"), [("job_cancelled.xml", "Cancel"), ("job_paused.xml", "Pause")])
def test_cancelled_and_paused_jobs_are_spelled_as_ci_does(name: str, state: str) -> None:
    assert job_of(name).state == state


def test_code_and_message_are_kept_of_a_failed_job_only() -> None:
    failed = job_of("job_failed.xml")
    assert failed.code == "InvalidArgument"
    assert failed.message == "Input object cannot be decoded: moov atom not found"
    finished = job_of("job_translation_message_success.xml")
    assert (finished.code, finished.message) == (None, None)


def test_namesakes_further_down_are_never_picked() -> None:
    joined = job_of("job_concat_running_no_input.xml")
    assert joined.started_at == datetime(2024, 3, 5, 1, 41, 2, tzinfo=UTC)  # not a fragment's 0
    assert joined.input is None
    marked = job_of("callback_task_finish.xml")
    assert (marked.state, marked.message) == ("Success", None)  # its watermark failed
    poster = "<PosterProduction><TemplateId>t9</TemplateId></PosterProduction>"
    nested = f"<Operation><State>Failed</State><JobId>j2</JobId>{poster}</Operation>"
    assert a_job(nested) == a_job()


def test_the_tag_of_a_submit_with_several_operations_is_the_operations() -> None:
    jobs = read(fixture("submit_multi_operation_response.xml")).jobs
    assert [job.tag for job in jobs] == ["Animation", "Transcode"]


def test_sprites_come_after_the_pictures() -> None:
    job = job_of("job_snapshot_success.xml")
    assert job.outputs == ("shots/a-0.jpg", "shots/a-1.jpg", "shots/a-2.jpg", "shots/sprite-0.jpg")
    assert job.output == "shots/a-${Number}.jpg"
    assert job.user_data == '{"asset": 77}'


def test_a_processed_picture_is_an_output() -> None:
    assert job_of("job_picprocess_success.xml").outputs == ("out/cover.jpg",)


def test_a_job_whose_result_is_text_has_no_outputs() -> None:
    job = job_of("job_speech_recognition_success.xml")
    assert (job.outputs, job.outputs_total, job.output) == ((), 0, "asr/call.txt")


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


def test_a_job_of_a_workflow_says_which() -> None:
    job = job_of("callback_task_finish.xml")
    assert job.workflow == "w1f2e3d4c5b6a47980a1b2c3d4e5f6071"
    assert job.workflow_name == "nightly-upscale"
    assert job.workflow_run == "i5a6b7c8d9e0f11ee8a1b525400a1b2c3"


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
def test_ids_that_ci_does_not_know_are_told(body: bytes, missing: tuple[str, ...]) -> None:
    assert described(body).missing == missing


def test_jobs_asked_by_id_are_read_like_those_of_a_page() -> None:
    body = fixture("describe_with_nonexist.xml")
    assert described(body).jobs == read(body).jobs
    assert len(described(body).jobs) == 1


def test_byte_order_mark_declaration_comment_and_cdata_are_understood() -> None:
    inside = "<!-- a note --><UserData/><Operation><UserData>a<![CDATA[ <!DOCTYPE b> ]]>c</UserData></Operation>"
    body = "\ufeff<?xml version='1.0' encoding='utf-8'?>\n" + a_page(inside)
    (job,) = read(body).jobs
    assert job.user_data == "a <!DOCTYPE b> c"
