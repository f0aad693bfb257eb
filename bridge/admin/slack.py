"""Clicks on the buttons of Slack messages. Slack signs them; who may act is in rules.toml."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import AbstractContextManager
from functools import partial
from math import ceil
from threading import BoundedSemaphore

from flask import Response, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import RequestEntityTooLarge

from bridge.admin.auth_throttle import Failures, counted
from bridge.admin.http.problems import SLACK_CLICKS, Problem
from bridge.admin.http.routes import Endpoints, Route
from bridge.admin.parts import Parts
from bridge.notifiers import SlackNotifier
from bridge.pipeline.clicks import Refused, act, button_of
from bridge.record.actions import Author
from bridge.record.database import TROUBLES, trouble
from bridge.send.http_types import Failure, Request
from bridge.send.integration import Egress
from bridge.send.slack.clicks import (
    CLICK_LIMIT,
    Click,
    UnreadableClick,
    may_answer,
    read_click,
    signed_with,
    to_all,
    to_person,
)

# Slack waits three seconds (docs.slack.dev/interactivity/handling-user-interaction, read 2026-12-01).
_WAIT_S = 2.0
_ANSWER_WITHIN_S = 5.0
_THREADS, _MOST_WAITING = 4, 100  # clicks that are being looked at, and answers on their way
_UNSURE = "The bridge's database does not answer, so it is not known whether this was done. Try again later."

logger = logging.getLogger(__name__)

OpenEgress = Callable[[], AbstractContextManager[Egress]]


class SlackApi(Endpoints):
    """The endpoint. It needs no login: who has no signature of a notifier's app gets 401, and has to wait."""

    def __init__(self, parts: Parts, egress: OpenEgress, failures: Failures) -> None:
        """`egress` opens what the answers to a click are sent with."""
        super().__init__(parts)
        self._failures = failures
        self._clicks = Clicks(parts, egress)

    def routes(self) -> Iterator[Route]:
        yield Route(
            path=SLACK_CLICKS, view=self.take, name="slack_click", method="POST", public=True, done=200, json=False,
            takes=("application/x-www-form-urlencoded",), refuses=(400, 401, 404, 413, 429, 503),
            summary="takes a click on a button of a message in Slack, which Slack has signed",
        )  # fmt: skip

    def take(self) -> ResponseReturnValue:
        notifiers = self._with_buttons()
        if not notifiers:
            raise Problem(404, "there is nothing here")
        body = _body()
        known = self._signers(body, notifiers)
        try:
            click = read_click(body)
        except UnreadableClick as error:
            logger.warning("what slack signed is no click that can be read", extra={"why": str(error)})
            raise Problem(400, str(error)) from None
        self._clicks.take(click, known)
        return Response("", content_type="text/plain; charset=utf-8")

    def _with_buttons(self) -> Sequence[SlackNotifier]:
        found = self.parts.book().notifiers.values()
        return [one for one in found if isinstance(one, SlackNotifier) and one.has_buttons]

    def _signers(self, body: bytes, notifiers: Sequence[SlackNotifier]) -> Sequence[SlackNotifier]:
        """Return the notifiers whose app has signed this. Raises Problem 401, and 429 after too many wrong ones."""
        by = signed_with(
            {one.signing_secret for one in notifiers if one.signing_secret},
            body,
            timestamp=request.headers.get("X-Slack-Request-Timestamp", ""),
            signature=request.headers.get("X-Slack-Signature", ""),
            now=self.parts.clock(),
        )
        if by:
            return [one for one in notifiers if one.signing_secret in by]
        sources = counted(request.remote_addr, request.headers.get("X-Forwarded-For", ""))
        if wait_s := self._failures.wait_s(sources):
            raise Problem(429, "too many wrong signatures", headers={"Retry-After": str(ceil(wait_s))})
        self._failures.add(sources)
        raise Problem(401, "the signature is missing, wrong, or not of the last five minutes")


def _body() -> bytes:
    request.max_content_length = CLICK_LIMIT
    try:
        return request.get_data(cache=False)
    except RequestEntityTooLarge:
        raise Problem(413, f"a click is at most {CLICK_LIMIT} bytes") from None


class Clicks:
    """Does what clicks ask for, in threads of its own, so that Slack gets its answer in time."""

    def __init__(self, parts: Parts, egress: OpenEgress) -> None:
        self._parts, self._egress = parts, egress
        # They are started when needed. What is told may take longer than what is done, so it has its own.
        self._doing = ThreadPoolExecutor(_THREADS, thread_name_prefix="slack-click")
        self._telling = ThreadPoolExecutor(_THREADS, thread_name_prefix="slack-answer")
        self._room = BoundedSemaphore(_MOST_WAITING)

    def take(self, click: Click, known: Sequence[SlackNotifier]) -> None:
        """Do what a click asks for, and return when that is done, or will be done later.

        Raises Problem 503 if too many clicks wait.
        """
        if not self._room.acquire(blocking=False):
            raise Problem(503, "too many clicks at once", headers={"Retry-After": "5"})
        done = self._doing.submit(self._do, click, known)
        done.add_done_callback(partial(self._begin_to_tell, click))
        try:
            done.exception(_WAIT_S)
        except NotYet:
            logger.warning("a click takes long, Slack was answered before it was done", extra={"user": click.person.id})

    def _do(self, click: Click, known: Collection[SlackNotifier]) -> Sequence[Mapping[str, object]]:
        """Return what is to be posted to where the click came from."""
        try:
            button = button_of(click, known)
            answer = act(click, button, self._parts.operations(Author(str(click.person))), self._parts.book())
        except Refused as refusal:
            facts = {"user": click.person.id, "action": click.action_id[:100], "why": str(refusal)}
            logger.warning("a click in slack was refused", extra=facts)
            return [to_person(str(refusal))]
        except TROUBLES as error:
            logger.warning("a click failed: the database does not answer", extra={"reason": trouble(error)})
            return [to_person(_UNSURE)]
        shown = [to_all(click, button, answer.to_all)] if answer.to_all else []
        return [*shown, to_person(answer.to_person)]

    def _begin_to_tell(self, click: Click, ended: Future[Sequence[Mapping[str, object]]]) -> None:
        self._telling.submit(self._tell, click, ended).add_done_callback(_log_fault)

    def _tell(self, click: Click, ended: Future[Sequence[Mapping[str, object]]]) -> None:
        try:
            contents = ended.result()
            with self._egress() as egress:
                for content in contents:
                    _post(egress, click, content)
        finally:
            self._room.release()


def _post(egress: Egress, click: Click, content: Mapping[str, object]) -> None:
    url = click.answer_to or ""
    if not may_answer(url, egress.slack_api_url):
        logger.warning("a click in slack names no address of Slack for the answer", extra={"user": click.person.id})
        return
    headers = ("Content-Type: application/json; charset=utf-8",)
    ended = egress.client.fetch(Request(url, headers, json.dumps(content).encode(), _ANSWER_WITHIN_S))
    if isinstance(ended, Failure) or ended.status != 200:
        why = ended.why if isinstance(ended, Failure) else f"Slack answered {ended.status}"
        logger.warning("a click in slack could not be answered", extra={"user": click.person.id, "why": why})


def _log_fault(ended: Future[None]) -> None:
    if fault := ended.exception():
        logger.error("a click in slack raised an exception", exc_info=fault)
