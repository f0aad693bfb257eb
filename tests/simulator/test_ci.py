"""What the simulated CI tells of its jobs."""

from __future__ import annotations

import pytest

from bridge.simulator.ci import UPLOADER_SECRET
from tests.support.signed import BUCKET, HOST, NOW, Clock, describe, get, jobs, send, simulated


def at(seconds: int) -> str:
    """Return 2026-05-29 04:26:40 +0800, and so many seconds."""
    return f"2026-05-29T04:26:{40 + seconds:02d}+0800"


def test_a_submitted_job_has_a_dash_for_times_that_are_not_set():
    with simulated() as ci:
        job = ci.create(BUCKET, "Transcode", "p1", input="in/a b.mp4", user_data='{"asset_id": "a-1017"}')
        (found,) = jobs(ci).xml
    assert {e.tag: e.text for e in found if len(e) == 0} == {
        "Code": "Success",
        "Message": None,
        "JobId": job,
        "State": "Submitted",
        "Progress": "0",
        "CreationTime": at(0),
        "StartTime": "-",
        "EndTime": "-",
        "QueueId": "p1",
        "Tag": "Transcode",
    }
    assert found.findtext("Input/Object") == "in/a b.mp4"
    assert found.findtext("Operation/UserData") == '{"asset_id": "a-1017"}'
    assert found.find("Operation/MediaResult") is None


def test_a_job_is_started_and_ended_by_the_simulators_clock():
    clock = Clock()
    with simulated(clock) as ci:
        job = ci.create(BUCKET, "Transcode", "p1")
        clock.at += 2
        ci.move(job, "Running", progress=30)
        clock.at += 5
        ci.move(job, "Success", outputs=["out/a.mp4", "out/b.mp4"])
        (found,) = describe(ci, [job]).xml
    assert [found.findtext(t) for t in ("CreationTime", "StartTime", "EndTime")] == [at(0), at(2), at(7)]
    assert [e.text for e in found.findall("Operation/MediaResult/OutputFile/ObjectName")] == ["out/a.mp4", "out/b.mp4"]
    assert found.findtext("Progress") == "100"


def test_a_failed_job_says_why():
    with simulated() as ci:
        job = ci.create(BUCKET, "Transcode", "p1")
        ci.move(job, "Failed", code="InvalidArgument", message="moov <atom> not found")
        (found,) = describe(ci, [job]).xml
    assert (found.findtext("Code"), found.findtext("Message")) == ("InvalidArgument", "moov <atom> not found")


def test_a_workflow_job_echoes_the_uploaders_headers():
    with simulated() as ci:
        job = ci.create(BUCKET, "Transcode", "p1", workflow="w1", workflow_name="nightly", workflow_run="i1")
        (found,) = describe(ci, [job]).xml
    assert UPLOADER_SECRET in [e.text for e in found.findall("Input/CosHeaders/Value")]
    assert [found.findtext(f"Workflow/{t}") for t in ("RunId", "WorkflowId", "WorkflowName")] == ["i1", "w1", "nightly"]


def test_an_image_job_has_no_progress_and_its_own_result():
    with simulated() as ci:
        job = ci.create(BUCKET, "PicProcess", "p1")
        ci.move(job, "Success", outputs=["out/a.jpg"])
        (found,) = describe(ci, [job]).xml
    assert found.find("Progress") is None
    assert found.findtext("Operation/PicProcessResult/ObjectName") == "out/a.jpg"


def test_an_input_may_be_a_url_or_nothing():
    with simulated() as ci:
        by_url = ci.create(BUCKET, "Transcode", "p1", input="https://example.com/a.mp4")
        without = ci.create(BUCKET, "Concat", "p1", input=None)
        first, second = describe(ci, [by_url, without]).xml
    assert first.findtext("Input/Url") == "https://example.com/a.mp4"
    assert second.find("Input") is None


def test_describing_names_the_ids_that_do_not_exist():
    with simulated() as ci:
        job = ci.create(BUCKET, "Transcode", "p1")
        elsewhere = ci.create("other-1250000000", "Transcode", "p1")
        reply = describe(ci, ["jnone", job, elsewhere])
    assert reply.ids == [job]
    assert [e.text for e in reply.xml.findall("NonExistJobIds")] == ["jnone", elsewhere]


def test_pages_are_ten_jobs_newest_first_and_the_last_has_no_token():
    clock = Clock()
    with simulated(clock) as ci:
        made = []
        for _ in range(25):
            clock.at += 1
            made.append(ci.create(BUCKET, "Transcode", "p1"))
        first = jobs(ci)
        second = jobs(ci, nextToken=first.token)
        third = jobs(ci, nextToken=second.token)
    assert [len(page.ids) for page in (first, second, third)] == [10, 10, 5]
    assert first.ids + second.ids + third.ids == made[::-1]
    assert third.xml.find("NextToken") is None


def test_pages_oldest_first_meet_the_jobs_made_meanwhile():
    with simulated(page_size_cap=2) as ci:
        made = [ci.create(BUCKET, "Transcode", "p1") for _ in range(3)]
        first = jobs(ci, orderByTime="Asc", size="100")
        made.append(ci.create(BUCKET, "Transcode", "p1"))
        second = jobs(ci, orderByTime="Asc", size="100", nextToken=first.token)
    assert first.ids + second.ids == made


def test_a_token_is_good_only_for_the_question_it_came_from():
    with simulated(page_size_cap=1) as ci:
        for _ in range(2):
            ci.create(BUCKET, "Transcode", "p1")
        token = jobs(ci).token
        assert jobs(ci, nextToken=token, states="Running").refusal == (400, "InvalidArgument")
        assert jobs(ci, nextToken="225508").refusal == (400, "InvalidArgument")


@pytest.mark.parametrize(
    ("params", "wanted"),
    [
        ({"queueId": "p2"}, {"second"}),
        ({"queueType": "SpeedTranscoding"}, {"second"}),
        ({"queueType": "SpeedTranscoding", "queueId": "p1"}, {"first"}),  # the id wins
        ({"workflowId": "w1"}, {"second"}),
        ({"inputObject": "in/1.mp4"}, {"first"}),
        ({"inputObject": "in/1"}, set()),
        ({"states": "Running,Failed"}, {"first"}),
        ({"states": "All"}, {"first", "second"}),
        ({"startCreationTime": at(0)}, {"second"}),  # later than: the same second is not
        ({"startCreationTime": "2026-05-28T20:26:39+0000"}, {"first", "second"}),
        ({"endCreationTime": at(5)}, {"first"}),
        ({"endCreationTime": at(6)}, {"first", "second"}),
    ],
)
def test_a_list_is_filtered_as_documented(params, wanted):
    clock = Clock()
    with simulated(clock) as ci:
        first = ci.create(BUCKET, "Transcode", "p1", input="in/1.mp4")
        ci.move(first, "Running")
        clock.at += 5.9
        second = ci.create(BUCKET, "Transcode", "p2", workflow="w1", queue_type="SpeedTranscoding")
        found = jobs(ci, **params).ids
    assert {"first" if i == first else "second" for i in found} == wanted
    assert second not in found or "second" in wanted


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"tag": ""},
        {"tag": "Transcode", "size": "0"},
        {"tag": "Transcode", "size": "101"},
        {"tag": "Transcode", "size": "ten"},
        {"tag": "Transcode", "states": "Sucess"},
        {"tag": "Transcode", "orderByTime": "Up"},
        {"tag": "Transcode", "startCreationTime": "yesterday"},
        {"tag": "Transcode", "QueueId": "p1"},
    ],
)
def test_a_wrong_question_is_an_invalid_argument(params):
    with simulated() as ci:
        assert get(ci, "/jobs", params=params).refusal == (400, "InvalidArgument")


def test_queues_have_names_and_states_and_come_in_pages():
    with simulated() as ci:
        assert get(ci, "/queue").xml.findtext("TotalCount") == "0"
        ci.queues = {f"p{number}": (f"queue-{number}", "Active") for number in range(3)} | {"p9": ("nine", "Paused")}
        page = get(ci, "/queue", params={"category": "CateAll", "pageNumber": "2", "pageSize": "3"})
        assert get(ci, "/queue", params={"page": "2"}).refusal == (400, "InvalidArgument")
    assert page.xml.findtext("TotalCount") == "4"
    (queue,) = page.xml.findall("QueueList")
    assert [queue.findtext(tag) for tag in ("QueueId", "Name", "State")] == ["p9", "nine", "Paused"]


def test_other_requests_are_refused_by_their_codes():
    with simulated(buckets={"other-1250000000"}) as ci:
        assert jobs(ci).refusal == (404, "NoSuchBucket")
        assert get(ci, "/jobs", host="127.0.0.1").refusal == (400, "InvalidHost")
        ci.buckets = None
        assert get(ci, "/doc_jobs", params={"tag": "DocProcess"}).refusal == (405, "MethodNotAllowed")
        assert describe(ci, [f"j{number:032x}" for number in range(10)]).status == 200
        assert describe(ci, [f"j{number:032x}" for number in range(11)]).refusal == (400, "InvalidArgument")


def test_a_hidden_job_is_described_but_not_listed_and_a_forgotten_one_is_neither():
    with simulated() as ci:
        hidden, forgotten = (ci.create(BUCKET, "Transcode", "p1") for _ in range(2))
        ci.hide(hidden)
        ci.forget(forgotten)
        assert jobs(ci).ids == []
        assert describe(ci, [hidden, forgotten]).ids == [hidden]


def test_it_remembers_what_was_there_and_what_was_listed_of_this_bucket():
    with simulated() as ci:
        job = ci.create(BUCKET, "Transcode", "p1")
        other = ci.create("other-1250000000", "Transcode", "p1")
        assert jobs(ci).ids == [job]
        assert (ci.served(job), ci.served(other)) == (["Submitted"], [])
        ci.move(job, "Running")
        ci.move(job, "Running", progress=50)
        ci.move(job, "Success")
        jobs(ci, states="Failed")
        describe(ci, [job])
        jobs(ci)
        assert ci.history(job) == ["Submitted", "Running", "Success"]
        assert ci.served(job) == ["Submitted", "Success"]


def test_ids_are_unique_and_look_like_cis():
    with simulated() as ci:
        made = {ci.create(BUCKET, "Transcode", "p1") for _ in range(1000)}
    assert len(made) == 1000
    assert all(len(i) == 33 and i[0] == "j" and int(i[1:], 16) for i in made)


def test_the_date_header_is_the_simulators_clock():
    with simulated(Clock(NOW)) as ci:
        assert send(ci, "/", {"Host": HOST}).headers["Date"] == "Thu, 28 May 2026 20:26:40 GMT"
