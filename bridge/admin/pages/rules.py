"""Rules: those in force, and why they match a job, or a sample job, or not."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from difflib import unified_diff
from typing import Any

from flask import Response, g, request
from flask.typing import ResponseReturnValue

from bridge import shallow_json
from bridge.admin.auth import require_admin
from bridge.admin.http.routes import Route
from bridge.admin.pages.jobs import explained
from bridge.admin.pages.routes import Pages, argument, may_act, show
from bridge.admin.pages.texts import rule_lines, scope_lines
from bridge.decide.rules.matching import Rule
from bridge.decide.rules.rulebook import Rulebook
from bridge.decide.rulesfile.errors import TooLarge, check_depth
from bridge.decide.whatif.rule_tests import sample_transition
from bridge.pipeline.explain import explain_sample
from bridge.record import counters, rulesets
from bridge.record.queries import lists

Facts = dict[str, Any]

_MAX_RULES = 300  # rules on one page
_MAX_VERSIONS = 100
_MAX_LINES = 5_000  # of files that are compared: some seconds at worst
_MAX_SAMPLE = 20_000  # characters of a sample job


class RulePages(Pages):
    def routes(self) -> Iterator[Route]:
        yield Route(path="/rules", view=self.rules, name="rules")
        yield Route(path="/rules/file", view=self.file, name="rules_file")
        yield Route(path="/rules/file/<sha>", view=self.file, name="rules_version")
        yield Route(path="/rules/file/<sha>/download", view=self.download, name="download_rules")
        yield Route(path="/rules/explain", view=self.explain, name="explain")
        yield Route(path="/rules/explain", view=self.explain_sample, name="explain_sample", method="POST")

    # --- those in force ----------------------------------------------------------------------------------------

    def rules(self) -> ResponseReturnValue:
        wanted = request.args.get("name", "").strip()[:200]
        with self.parts.db.read() as tx:
            rules, counts, faults = self.parts.in_force(tx), counters.matches(tx), rulesets.faults(tx)
        fault = self.parts.why_not_in_force(rules)
        found = [
            rule for rule in rules.rules if any(wanted.lower() in name.lower() for name in (rule.name, *rule.notify))
        ]
        return show(
            "rules.html",
            sha=rules.sha,
            note=self.parts.rules_note(),
            fault=fault if may_act() or not fault else "rules.toml has errors; the admin token shows why.",
            warnings=self.parts.book().warnings,
            rules=[_facts(rule, rules.queue_names, counts, faults) for rule in found[:_MAX_RULES]],
            left=len(found[_MAX_RULES:]),
            count=len(rules.rules),
            most=_MAX_RULES,
            wanted=wanted,
            mutes=[(mute, scope_lines(mute.scope, rules.queue_names)) for mute in rules.mutes],
            zone=rules.zone.key,
        )

    # --- their file, and those of before -----------------------------------------------------------------------

    def file(self, sha: str = "") -> ResponseReturnValue:
        """Show a version of the file (without one, what is in force) and how it differs from the one before."""
        if not may_act():
            return show("rules_file.html", status=403, versions=[])
        with self.parts.db.read() as tx:
            found = rulesets.versions(tx)
            sha = sha or next((one.sha for one in found if one.in_force), "")
            place = next((place for place, one in enumerate(found) if one.sha == sha), None)
            texts = [rulesets.source_of(tx, one.sha) for one in found[place : place + 2]] if place is not None else []
        return show(
            "rules_file.html", status=404 if sha and place is None else 200, versions=found[:_MAX_VERSIONS],
            sha=sha[:100], text=texts[0] if texts else None, changes=difference(*texts) if len(texts) > 1 else None,
            before=found[place + 1].sha if place is not None and len(texts) > 1 else None,
        )  # fmt: skip

    def download(self, sha: str) -> ResponseReturnValue:
        require_admin(g.scope)
        with self.parts.db.read() as tx:
            text = rulesets.source_of(tx, sha)
        if text is None:
            return show("rules_file.html", status=404, versions=[], sha=sha[:100], text=None)
        named = {"Content-Disposition": 'attachment; filename="rules.toml"'}
        return Response(text, content_type="text/plain; charset=utf-8", headers=named)

    # --- why, and why not --------------------------------------------------------------------------------------

    def explain(self) -> ResponseReturnValue:
        """Explain a job on record; without one, ask which."""
        job_id, bucket = argument("job"), argument("bucket")
        if not job_id:
            return self._explained(None)
        book, now = self.parts.book(), self.parts.clock()
        with self.parts.db.read() as tx:
            jobs = [job for job in lists.job_details(tx, job_id) if bucket in ("", job["bucket"])]
            found = [explained(tx, job, book, now=now) for job in jobs]
        explanations = [explanation for items, _ in found for explanation in items]
        notes = [note for _, note in found if note]
        if explanations:
            return self._explained(explanations, job_id=job_id, bucket=bucket, note=" ".join(notes))
        faults = notes or [f'No job "{job_id[:100]}" is on record: is the id right, and does a watch list it?']
        return self._explained(None, job_id=job_id, bucket=bucket, faults=faults, status=200 if notes else 404)

    def explain_sample(self) -> ResponseReturnValue:
        text = request.form.get("job", "")
        book, now = self.parts.book(), self.parts.clock()
        try:
            step = sample_transition(read_job(text), book, now)
        except ValueError as error:
            return self._explained(None, text=text, faults=str(error).splitlines(), status=400)
        with self.parts.db.read() as tx:
            return self._explained([explain_sample(step, book, now=now, tx=tx)], text=text)

    def _explained(
        self,
        explanations: Sequence[Facts] | None,
        *,
        job_id: str = "",
        bucket: str = "",
        text: str | None = None,
        note: str = "",
        faults: Sequence[str] = (),
        status: int = 200,
    ) -> ResponseReturnValue:
        sample = example_job(self.parts.book()) if text is None else text
        return show(
            "explain.html", status=status, explanations=explanations, job_id=job_id, bucket=bucket, sample=sample,
            faults=faults, is_sample=text is not None, allowed=may_act(), note=note,
        )  # fmt: skip


def difference(new: str | None, old: str | None) -> list[tuple[str, str]] | None:
    """Return the lines that differ, with some around them, each with its kind; None: they cannot be compared."""
    if new is None or old is None:
        return None
    lines = old.splitlines(), new.splitlines()
    if max(map(len, lines)) > _MAX_LINES:
        return None
    kinds = {"+": "added", "-": "removed", "@": "place"}
    return [(kinds.get(line[0], "same"), line) for line in [*unified_diff(*lines, lineterm="")][2:]]


def _facts(
    rule: Rule, queue_names: Mapping[str, str], counts: Mapping[str, Any], faults: Mapping[str, Mapping[str, Any]]
) -> Facts:
    matches, last_at = counts.get(rule.name, (0, None))
    return {
        "name": rule.name,
        "line": rule.line,
        "lines": list(rule_lines(rule, queue_names)),
        "notify": rule.notify,
        "can_be_silenced": rule.blind is None,
        "matches": matches,
        "last_at": last_at,
        "fault": faults.get(rule.name),
    }


# --- a sample job as people paste it: JSON, or TOML as in a [[test]] of rules.toml ----------------------------------


def example_job(book: Rulebook) -> str:
    """Return a job of a tag, and a queue, that is watched."""
    stream = next((stream for watch in book.watches for stream in watch.streams), None)
    job = {"tag": stream.tag if stream else "Transcode"}
    if stream and stream.queue:
        job["queue"] = book.queue_names.get(stream.queue, stream.queue)
    job |= {"from": "Running", "to": "Failed", "duration": "50m"}
    return f"{{ {', '.join(f'{key} = {json.dumps(value, ensure_ascii=False)}' for key, value in job.items())} }}"


def read_job(text: str) -> dict[str, Any]:
    """Return the job as a table. Raises ValueError saying what would be right."""
    text = text.strip().removeprefix("\ufeff")
    if not text:
        raise ValueError('there is no job; write for example {"tag": "Transcode", "to": "Failed"}')
    if len(text) > _MAX_SAMPLE:
        raise ValueError(f"this has {len(text):,} characters; a job has {_MAX_SAMPLE:,} at most")
    table = _parsed(text)
    try:
        json.dumps(table, ensure_ascii=False, default=str).encode()
    except ValueError as error:  # half of a surrogate pair; a number without end
        raise ValueError("this contains something that is neither a text nor a usual number") from error
    tests = table.get("test")  # a whole [[test]] is pasted too
    if isinstance(tests, list) and len(tests) == 1 and isinstance(tests[0], dict):
        table = tests[0]
    job = table.get("job")
    return job if isinstance(job, dict) else table


def _parsed(text: str) -> dict[str, Any]:
    try:
        check_depth(text)
        return _object(text) if text.startswith("{") else tomllib.loads(text)
    except TooLarge as error:
        raise ValueError("the brackets nest too deeply") from error
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"this is neither JSON nor TOML: {error}") from error


def _object(text: str) -> dict[str, Any]:
    """Return what is in braces, which both languages have."""
    try:
        table: dict[str, Any] = shallow_json.loads(text)
    except ValueError as error:
        if '":' in text.replace(" ", ""):
            raise ValueError(f"this is not JSON: {error}") from error
        return dict(tomllib.loads(f"job = {text}")["job"])
    return table
