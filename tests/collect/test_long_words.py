"""Ids and words far longer than CI's: neither a page nor a message of it fails."""

from __future__ import annotations

import json
import random

import pytest

from bridge.collect.jobs_xml import LONGEST_WORD
from bridge.decide.messages.build import LARGEST_EVENT, build
from bridge.decide.rules.rulebook import MessageTemplate
from bridge.pipeline.poller import Poller
from bridge.record.database import Database
from bridge.record.schema import deliveries, jobs
from tests.collect.conftest import read
from tests.support.fakes import FakeCi, a_book, watch_of
from tests.support.nouns import Clock, a_transition
from tests.support.records import know, rows

# What repeats itself would be packed small enough for an index.
_NOISE = random.Random(1)


def noise(length: int = 30_000) -> str:
    return "".join(chr(_NOISE.randrange(0x4E00, 0x9FFF)) for _ in range(length))


def an_element(job_id: str, *, word: str = "w") -> str:
    def words(*tags: str) -> str:
        return "".join(f"<{tag}>{word}</{tag}>" for tag in tags)

    operation = f"<Operation>{words('TemplateId', 'TemplateName', 'JobLevel')}</Operation>"
    workflow = f"<Workflow>{words('WorkflowId', 'WorkflowName', 'RunId')}</Workflow>"
    known = f"<JobId>{job_id}</JobId><State>Failed</State><Tag>Transcode</Tag>"
    return f"<JobsDetail>{known}{words('QueueId', 'Code')}{operation}{workflow}</JobsDetail>"


def body(*elements: str) -> bytes:
    return f"<Response>{''.join(elements)}</Response>".encode()


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
    assert {row["id"] for row in rows(db, jobs)} == {"j1", longest, "j2"}
    assert len(rows(db, deliveries)) == 3
