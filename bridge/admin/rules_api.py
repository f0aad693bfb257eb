"""POST /api/v1/rules/...: what rules would do. Nothing is stored, and nobody is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flask import request
from flask.typing import ResponseReturnValue

from bridge.admin import explain_answers, query, rule_answers
from bridge.admin.parts import Parts
from bridge.admin.problems import Problem
from bridge.admin.routes import Route
from bridge.decide.rules.rulebook import Fault
from bridge.decide.rulesfile.errors import RulesRefused
from bridge.decide.rulesfile.read import read
from bridge.decide.whatif import rule_tests
from bridge.decide.whatif.rule_tests import sample_transition
from bridge.pipeline.explain import explain_sample, explain_stored
from bridge.record.polling import snapshots

_MOST_ANSWERS = 50_000  # of rules to transitions: about a second's work
_LARGEST = 2_000_000  # bytes of JSON, which may be twice as long as the text in it


class RulesApi:
    """Questions about rules. They are posted, as a fault may quote a secret: only the admin token may ask."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def routes(self) -> Iterator[Route]:
        yield Route(
            path="/api/v1/rules/check", view=self.check, name="check_rules", method="POST",
            says="every fault of a rules file, and which of its tests fail; it does not come into force",
            body=rule_answers.RulesText, answer=rule_answers.RulesChecked, done=200,
            refuses=(413, 415),
        )  # fmt: skip
        yield Route(
            path="/api/v1/rules/explain", view=self.explain, name="explain_rules", method="POST",
            says="why each rule does or does not hear of a job, and what became of every message",
            body=explain_answers.Question, answer=explain_answers.Explanations, done=200,
            refuses=(404, 413, 415),
        )  # fmt: skip

    def check(self) -> ResponseReturnValue:
        query.parameters(request, [])
        given = query.json_of(request, rule_answers.RulesText, _LARGEST)
        try:
            book = read(given.toml, self._parts.environ)
        except RulesRefused as error:
            return {"ok": False, "sha": None, "faults": _faults(error.faults), "tests": {"run": 0, "failed": []}}
        failed = [{"number": one.number, "line": one.line, "text": one.text} for one in rule_tests.run(book)]
        return {
            "ok": not failed,
            "sha": book.sha,
            "faults": _faults(book.warnings),
            "tests": {"run": len(book.tests), "failed": failed},
        }

    def explain(self) -> ResponseReturnValue:
        query.parameters(request, [])
        asked = query.json_of(request, explain_answers.Question)
        if asked.job is None:
            return self._on_record(asked.job_id or "", asked.bucket)
        return {"items": [self._made_up(asked.job)], "older": 0}

    def _on_record(self, job_id: str, bucket: str | None) -> dict[str, Any]:
        book = self._parts.book()
        most = max(1, _MOST_ANSWERS // max(1, len(book.rules)))
        with self._parts.db.read() as tx:
            found = explain_stored(tx, job_id, book, bucket=bucket, now=self._parts.clock(), newest=most)
            older = snapshots.count_transitions(tx, job_id, bucket) - len(found)
        if not found:
            where = f" in bucket {bucket[:100]}" if bucket else ""
            check = "is the id right, and does a watch list its bucket and its tag?"
            raise Problem(404, f'no job "{job_id[:100]}"{where} is on record: {check}')
        return {"items": found, "older": older}

    def _made_up(self, said: Mapping[str, Any]) -> dict[str, Any]:
        book, now = self._parts.book(), self._parts.clock()
        try:
            step = sample_transition(said, book, now)
        except ValueError as error:
            raise Problem(400, "; ".join(f"job: {line}" for line in str(error).splitlines())) from error
        with self._parts.db.read() as tx:
            return explain_sample(step, book, now=now, tx=tx)


def _faults(found: Sequence[Fault]) -> list[dict[str, Any]]:
    return [{"line": one.line, "level": "warning" if one.warning else "error", "text": one.text} for one in found]
