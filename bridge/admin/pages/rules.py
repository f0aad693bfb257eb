"""Rules: which there are, why they do (not) hear of a job, and what other rules would have told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from time import monotonic as machine_clock
from typing import Any

from flask import request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import RequestEntityTooLarge

from bridge.admin.pages import made_up, sentences, trial
from bridge.admin.pages.explained import explained
from bridge.admin.pages.pasted import Pasted, example
from bridge.admin.pages.routes import Page, Pages, may_act, show
from bridge.admin.parts import Parts
from bridge.decide.rules.matching import Rule
from bridge.decide.rulesfile.errors import LARGEST
from bridge.decide.whatif.rule_tests import sample_transition
from bridge.pipeline.explain import explain_sample
from bridge.record import counters, rulesets
from bridge.record.queries import lists

Facts = dict[str, Any]

_MOST = 300  # rules on one page
_LARGEST_FORM = 2 * LARGEST + 10_000  # bytes: a browser makes two of each line break


class RulePages(Pages):
    def __init__(self, parts: Parts, monotonic: Callable[[], float] = machine_clock) -> None:
        super().__init__(parts)
        self._monotonic = monotonic

    def pages(self) -> Iterator[Page]:
        yield Page(path="/rules", view=self.rules, name="rules")
        yield Page(path="/rules/explain", view=self.explain, name="explain")
        yield Page(path="/rules/explain", view=self.explain_made_up, name="explain_made_up", method="POST")
        yield Page(path="/rules/try", view=self.ask, name="ask_rules")
        yield Page(path="/rules/try", view=self.try_out, name="try_rules", method="POST")

    # --- those in force ----------------------------------------------------------------------------------------

    def rules(self) -> ResponseReturnValue:
        wanted = request.args.get("name", "").strip()[:200]
        with self.parts.db.read() as tx:
            rules, counts, faults = self.parts.in_force(tx), counters.matches(tx), rulesets.faults(tx)
        fault = self.parts.why_not_in_force(rules)
        found = [one for one in rules.rules if any(wanted.lower() in name.lower() for name in (one.name, *one.notify))]
        return show(
            "rules.html",
            sha=rules.sha,
            note=self.parts.rules_note(),
            fault=fault if may_act() or not fault else "rules.toml is wrong; the admin token shows why.",
            warnings=self.parts.book().warnings,
            rules=[_rule(one, rules.queue_names, counts, faults) for one in found[:_MOST]],
            left=len(found[_MOST:]),
            count=len(rules.rules),
            most=_MOST,
            wanted=wanted,
            mutes=[(one, sentences.of_scope(one.scope, rules.queue_names)) for one in rules.mutes],
            zone=rules.zone.key,
        )

    # --- why, and why not --------------------------------------------------------------------------------------

    def explain(self) -> ResponseReturnValue:
        """Explain a job on record; without one, ask which."""
        job_id, bucket = (request.args.get(name, "").replace("\0", "").strip()[:1000] for name in ("job", "bucket"))
        if not job_id:
            return self._explained(said=None)
        book, now = self.parts.book(), self.parts.clock()
        with self.parts.db.read() as tx:
            jobs = [one for one in lists.job_details(tx, job_id) if bucket in ("", one["bucket"])]
            found = [explained(tx, one, book, now=now) for one in jobs]
        said, notes = [one for items, _ in found for one in items], [note for _, note in found if note]
        if not said:
            fault = f'No job "{job_id[:100]}" is on record: is the id right, and does a watch list it?'
            return self._explained(
                said=None, job_id=job_id, bucket=bucket, faults=notes or [fault], status=200 if notes else 404
            )
        return self._explained(said=said, job_id=job_id, bucket=bucket, note=" ".join(notes))

    def explain_made_up(self) -> ResponseReturnValue:
        text = request.form.get("made_up", "")
        book, now = self.parts.book(), self.parts.clock()
        try:
            step = sample_transition(made_up.read(text), book, now)
        except ValueError as error:
            return self._explained(said=None, text=text, faults=str(error).splitlines(), status=400)
        with self.parts.db.read() as tx:
            return self._explained(said=[explain_sample(step, book, now=now, tx=tx)], text=text)

    def _explained(
        self,
        *,
        said: Sequence[Facts] | None,
        job_id: str = "",
        bucket: str = "",
        text: str | None = None,
        note: str = "",
        faults: Sequence[str] = (),
        status: int = 200,
    ) -> ResponseReturnValue:
        made = made_up.example(self.parts.book()) if text is None else text
        return show(
            "explain.html", status=status, said=said, job_id=job_id, bucket=bucket, made_up=made, faults=faults,
            is_made_up=text is not None, allowed=may_act(), note=note,
        )  # fmt: skip

    # --- other rules -------------------------------------------------------------------------------------------

    def ask(self) -> ResponseReturnValue:
        """Ask for rules; an address may say of which `tag`, and `to` which state, one more rule is wanted."""
        if request.args.get("how") == "whole":
            return self._tried("", added=False)
        tag, to = (request.args.get(name, "")[:200] for name in ("tag", "to"))
        return self._tried(example(self.parts.book(), tag=tag, to=to), added=True)

    def try_out(self) -> ResponseReturnValue:
        """Say what is wrong with a file, or what it would have told of what has happened."""
        request.max_content_length = request.max_form_memory_size = _LARGEST_FORM
        try:
            text, added = request.form.get("rules", ""), request.form.get("how") == "added"
        except RequestEntityTooLarge:
            said = (
                f"This is too large: a rules file has at most {LARGEST:,} bytes. It was not read; paste a shorter one."
            )
            return self._tried("", added=False, refused=said, status=413)
        # Browsers send both line ends: the file on the disk, and so its sha, has one.
        text = text.replace("\r\n", "\n")
        if not text.strip():
            said = "There is no file: paste a whole rules.toml." if not added else "There is nothing: paste a [[rule]]."
            return self._tried("", added=added, refused=said, status=400)
        span = request.form.get("span", "")
        span = span if span in trial.SPANS else trial.USUAL
        pasted = Pasted(text, self.parts.book() if added else None)
        result = trial.run(self.parts, pasted, span=span, clock=self._monotonic)
        return self._tried(text, added=added, result=result)

    def _tried(
        self,
        text: str,
        *,
        added: bool,
        result: trial.Result | None = None,
        refused: str | None = None,
        status: int = 200,
    ) -> ResponseReturnValue:
        return show(
            "try_rules.html", status=status, text=text, added=added, result=result, refused=refused, spans=trial.SPANS,
            span=result.span if result else trial.USUAL, in_force=self.parts.book().sha, allowed=may_act(),
        )  # fmt: skip


def _rule(
    one: Rule, queue_names: Mapping[str, str], counts: Mapping[str, Any], faults: Mapping[str, Mapping[str, Any]]
) -> Facts:
    matches, last_at = counts.get(one.name, (0, None))
    return {
        "name": one.name,
        "line": one.line,
        "says": list(sentences.of_rule(one, queue_names)),
        "notify": one.notify,
        "matches": matches,
        "last_at": last_at,
        "fault": faults.get(one.name),
    }
