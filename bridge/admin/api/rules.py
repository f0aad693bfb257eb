"""POST /api/v1/rules/...: what rules would do. Nothing is stored, and nobody is notified."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flask import request
from flask.typing import ResponseReturnValue

from bridge.admin.http import query
from bridge.admin.http.problems import Problem, fault_at, faulty
from bridge.admin.http.routes import Endpoints, Route, answer
from bridge.admin.schemas.explanations import Explanations, Question
from bridge.admin.schemas.rulebook import RulesChecked, RulesText
from bridge.decide.rulesfile.errors import RulesRefused
from bridge.decide.rulesfile.read import read
from bridge.decide.whatif import rule_tests
from bridge.decide.whatif.rule_tests import sample_transition
from bridge.pipeline.explain import explain_sample, explain_stored
from bridge.record.polling import snapshots

_MOST_ANSWERS = 50_000  # of rules to transitions: about a second's work
_LARGEST = 2_000_000  # bytes of JSON, which may be twice as long as the text in it


class RulesApi(Endpoints):
    """Questions about rules. They are posted, as a fault may quote a secret: only the admin token may ask."""

    def routes(self) -> Iterator[Route]:
        yield Route(
            path="/api/v1/rules/check", view=self.check, name="check_rules", method="POST",
            summary="check a rules file: every fault, and which of its tests fail; it does not come into force",
            body=RulesText, answer=RulesChecked, done=200, refuses=(413, 415),
        )  # fmt: skip
        yield Route(
            path="/api/v1/rules/explain", view=self.explain, name="explain_rules", method="POST",
            summary="explain a job: why each rule matches or not, and the status of every message",
            body=Question, answer=Explanations, done=200, refuses=(404, 413, 415),
        )  # fmt: skip

    def check(self) -> ResponseReturnValue:
        given = query.json_of(request, RulesText, _LARGEST)
        book = None
        try:
            book = read(given.toml, self.parts.environ)
            faults, failed = book.warnings, rule_tests.run(book)
        except RulesRefused as error:
            faults, failed = error.faults, []
        facts = {
            "ok": book is not None and not failed,
            "sha": book and book.sha,
            "faults": [
                {"line": fault.line, "level": "warning" if fault.warning else "error", "text": fault.text}
                for fault in faults
            ],
            "tests": {
                "run": len(book.tests) if book else 0,
                "failed": [{"number": test.number, "line": test.line, "text": test.text} for test in failed],
            },
        }
        return answer(RulesChecked.model_validate(facts))

    def explain(self) -> ResponseReturnValue:
        asked = query.json_of(request, Question)
        facts = self._on_record(asked.job_id, asked.bucket) if asked.job is None else self._sample(asked.job)
        return answer(Explanations.model_validate(facts))

    def _on_record(self, job_id: str, bucket: str | None) -> dict[str, Any]:
        book = self.parts.book()
        most = max(1, _MOST_ANSWERS // max(1, len(book.rules)))
        with self.parts.db.read() as tx:
            found = explain_stored(tx, job_id, book, bucket=bucket, now=self.parts.clock(), newest=most)
            older = snapshots.count_transitions(tx, job_id, bucket) - len(found)
        if not found:
            where = f" in bucket {bucket[:100]}" if bucket else ""
            check = "is the id right, and does a watch list its bucket and its tag?"
            raise Problem(404, f'no job "{job_id[:100]}"{where} is on record: {check}')
        return {"items": found, "older": older}

    def _sample(self, job: Mapping[str, Any]) -> dict[str, Any]:
        book, now = self.parts.book(), self.parts.clock()
        try:
            step = sample_transition(job, book, now)
        except ValueError as error:
            raise faulty(fault_at(["job"], f"job: {line}") for line in str(error).splitlines()) from error
        with self.parts.db.read() as tx:
            return {"items": [explain_sample(step, book, now=now, tx=tx)], "older": 0}
