"""The record held against the oracle, read with SQL of its own."""

from __future__ import annotations

from collections import defaultdict

from sqlalchemy import text

from bridge.record.database import Database
from tests.world.oracle import FINAL, GONE, Oracle

_Step = tuple[int, str, str, bool, bool]  # number, from, to, silent, inferred


def compare(db: Database, oracle: Oracle) -> None:
    """Every transition of the oracle is on record, in order, with its deliveries; and nothing else is."""
    with db.read() as tx:
        steps = tx.execute(
            text("SELECT job_id, sequence, was, state, silent, inferred FROM transition ORDER BY job_id, sequence")
        )
        found: dict[str, list[_Step]] = defaultdict(list)
        for job_id, number, was, to, silent, inferred in steps:
            found[job_id].append((number, was, to, silent is not None, bool(inferred)))
        sent = tx.execute(
            text(
                "SELECT d.notifier, m.job_id, m.sequence FROM delivery d JOIN message m ON m.id = d.message"
                " WHERE m.kind <> 'incident'"
            )
        ).all()
        jobs = tx.execute(text("SELECT id, state, open FROM job")).all()
    _compare_steps(found, oracle)
    known = sorted(tuple(one) for one in sent)
    assert known == sorted(oracle.must_receive())
    last = {job_id: steps[-1].to for job_id, steps in oracle.steps.items()}
    assert {job_id: state for job_id, state, _ in jobs} == last
    assert {job_id for job_id, _, is_open in jobs if is_open} == {
        job_id for job_id, state in last.items() if state not in (*FINAL, GONE)
    }


def _compare_steps(found: dict[str, list[_Step]], oracle: Oracle) -> None:
    for job_id, steps in oracle.steps.items():
        for step in steps:
            if step.silent is None and found.get(job_id):
                step.silent = found[job_id][0][3]  # both are right
        steps[:] = [step for step in steps if not (step.silent and step.inferred)]
    must = {
        job_id: [(number, one.was, one.to, bool(one.silent), one.inferred) for number, one in enumerate(steps, 1)]
        for job_id, steps in oracle.steps.items()
    }
    assert found == must


def waiting(db: Database) -> int:
    """Return how many deliveries have not been accepted."""
    with db.read() as tx:
        return int(tx.execute(text("SELECT count(*) FROM delivery WHERE state <> 2")).scalar_one())
