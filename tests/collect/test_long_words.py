"""Ids and words of no length that CI's have: they end neither the page nor what is told of it."""

from __future__ import annotations

import json
import random

import pytest

from bridge.collect.jobs_xml import LONGEST_WORD, JobCache
from bridge.decide.messages.build import LARGEST_EVENT, build
from bridge.decide.rules.rulebook import MessageTemplate
from bridge.model import Job, JobProblem
from bridge.pipeline.poll import Poller
from bridge.record.database import Database
from bridge.record.schema import delivery
from bridge.record.schema import job as job_table
from tests.collect.conftest import read
from tests.support.fakes import FakeCi, a_book, watch_of
from tests.support.nouns import a_transition
from tests.support.records import Clock, know, rows

# What repeats itself would be packed small enough for an index.
_NOISE = random.Random(1)


def noise(length: int = 30_000) -> str:
    return "".join(chr(_NOISE.randrange(0x4E00, 0x9FFF)) for _ in range(length))


def an_element(job_id: str, *, word: str = "w") -> str:
    operation = (
        f"<Operation><TemplateId>{word}</TemplateId><TemplateName>{word}</TemplateName>"
        f"<JobLevel>{word}</JobLevel></Operation>"
    )
    workflow = (
        f"<Workflow><WorkflowId>{word}</WorkflowId><WorkflowName>{word}</WorkflowName><RunId>{word}</RunId></Workflow>"
    )
    return (
        f"<JobsDetail><JobId>{job_id}</JobId><State>Failed</State><Tag>Transcode</Tag><QueueId>{word}</QueueId>"
        f"<Code>{word}</Code>{operation}{workflow}</JobsDetail>"
    )


def body(*elements: str) -> bytes:
    return f"<Response>{''.join(elements)}</Response>".encode()


def ids(jobs: tuple[Job, ...]) -> list[str]:
    return [job.id for job in jobs]


def test_a_job_whose_id_is_absurd_is_left_out_and_the_others_are_read() -> None:
    page = body(an_element("j1"), an_element("x" * (LONGEST_WORD + 1)), an_element("y" * LONGEST_WORD))
    cache = JobCache()
    left_out = JobProblem(job_id="", field="JobId", value="x" * 79 + "…", left_out=True)
    for found in (read(page), read(page, cache), read(page, cache)):
        assert ids(found.jobs) == ["j1", "y" * LONGEST_WORD]
        assert found.problems == (left_out,)


@pytest.mark.parametrize("sign", ["S", "媒", "😀"])
def test_the_body_of_a_webhook_stays_small_whatever_words_ci_sends(sign: str) -> None:
    word = sign * 30_000
    element = an_element(sign * LONGEST_WORD, word=word)
    element = element.replace("Failed", sign * LONGEST_WORD).replace("<Tag>Transcode", f"<Tag>{word}")
    (job,) = read(body(element)).jobs
    assert job.state == sign * LONGEST_WORD
    assert job.tag == job.queue == sign * (LONGEST_WORD - 1) + "…"
    transition = a_transition(job, was=job.state)
    message = build(transition, "r1", MessageTemplate(), {}).message
    assert len(json.dumps(message.event, ensure_ascii=False).encode()) <= LARGEST_EVENT


def test_a_page_with_absurd_jobs_is_stored_and_told_but_for_them(db: Database) -> None:
    book, clock = a_book(announce=True), Clock()
    ci = FakeCi(clock)
    know(db, *book.notifiers.values(), watches=book.watches)
    longest = noise(LONGEST_WORD)
    page = read(body(an_element("j1"), an_element(noise()), an_element(longest, word=noise()), an_element("j2")))
    ci.pages["Transcode"] = [page]
    assert Poller(db=db, source=ci, clock=clock, worker="w1").poll_once(watch_of(book), book) is not None
    assert {row["id"] for row in rows(db, job_table)} == {"j1", longest, "j2"}
    assert len(rows(db, delivery)) == 3
