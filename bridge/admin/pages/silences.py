"""Silences: what holds messages back for a while. The list, a form for a new one, and ending them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from flask import flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from bridge.admin.pages import filters, sentences, silence_form
from bridge.admin.pages.routes import Page, Pages, attempt, may_act, refused, show
from bridge.admin.pages.silence_form import LABELS, Form, FormRefused
from bridge.decide.rules.gates import scope_of
from bridge.decide.rulesfile.silences import LONGEST_AUTHOR, LONGEST_REASON, SilenceRequest
from bridge.decide.text.times import iso
from bridge.decide.text.values import STATE_WORDS
from bridge.model import Silence
from bridge.pipeline.operations import OperationRefused
from bridge.pipeline.silences import LOOKED_AT_IN_WEB, foresee, silence_facts
from bridge.record.outbox import silences

Facts = dict[str, Any]

_AT_ONCE = 50  # that are over
_OVER = "This form was sent before, and its silence is over: fill it in anew."


class SilencePages(Pages):
    def pages(self) -> Iterator[Page]:
        yield Page(path="/silences", view=self.silences, name="silences")
        yield Page(path="/silences/add", view=self.ask, name="add_silence")
        yield Page(path="/silences/add", view=self.add, name="make_silence", method="POST")
        yield Page(path="/silences/<silence_id>/end", view=self.end, name="end_silence", method="POST")

    def silences(self) -> ResponseReturnValue:
        now, cursor = self.parts.clock(), filters.cursor()
        with self.parts.db.read() as tx:
            active = silences.standing(tx, now=now)
            held = silences.held(tx, [one.id for one in active])
            over, older = silences.page(tx, cursor=cursor.when if cursor else None, limit=_AT_ONCE, over=now)
        return show(
            "silences.html",
            active=[self._facts(one, held.get(one.id, 0)) for one in reversed(active)],
            over=[self._facts(one, count) for one, count in over],
            cursor=older and f"{older}.0",
            began=cursor,
        )

    def _facts(self, one: Silence, held: int) -> Facts:
        lines = sentences.of_scope(scope_of(one.spec), self.parts.book().queue_names)
        return silence_facts(one, held, now=self.parts.clock()) | {"lines": lines}

    def ask(self) -> ResponseReturnValue:
        return self._form(silence_form.read(request.args))

    def add(self) -> ResponseReturnValue:
        """Add a silence, or (`preview`) say what it would have matched. What was typed stays where it is not right."""
        form, now = silence_form.read(request.form), self.parts.clock()
        previews = "preview" in request.form
        try:
            wanted = form.wanted(now, preview=previews)
            if previews:
                return self._form(form, foreseen=self._foreseen(wanted, now))
            made = self.operations().make_silence(wanted, key=form.key)
        except FormRefused as error:
            return self._form(form, faults=list(silence_form.labelled(error.faults)), status=400)
        except OperationRefused as error:
            return self._form(form, faults=[(None, str(error))], status=409)
        if made.ends_at <= now:
            return refused(_OVER, "silences")
        flash(f"{'Drops' if wanted.drop else 'Holds'} what it matches until {iso(made.ends_at)}.", "done")
        return redirect(url_for("pages.silences"), 303)

    def _foreseen(self, wanted: SilenceRequest, now: datetime) -> Facts:
        with self.parts.db.read() as tx:
            return foresee(tx, wanted, self.parts.book(), now=now, most=LOOKED_AT_IN_WEB)

    def _form(
        self,
        form: Form,
        *,
        foreseen: Facts | None = None,
        faults: list[tuple[str | None, str]] | None = None,
        status: int = 200,
    ) -> ResponseReturnValue:
        facts: Facts = {"form": form, "foreseen": foreseen, "faults": faults or []}
        if request.method == "POST" and request.headers.get("HX-Request"):
            return render_template("silence_preview.html", **facts), status
        book = self.parts.book()
        choices = {
            "tag": list(dict.fromkeys(stream.tag for watch in book.watches for stream in watch.streams)),
            "queue": list(book.queue_names.values()),
            "from": STATE_WORDS,
            "to": STATE_WORDS,
            "rule": [rule.name for rule in book.rules],
            "notifier": list(book.notifiers),
        }
        return show(
            "silence_add.html", status=status, labels=LABELS, choices=choices, usual=silence_form.USUAL,
            nonce=form.nonce or self.parts.nonce(),
            longest={"reason": LONGEST_REASON, "author": LONGEST_AUTHOR}, allowed=may_act(), **facts,
        )  # fmt: skip

    def end(self, silence_id: str) -> ResponseReturnValue:
        said = "It is over. What it held is told in one digest."
        return attempt(lambda: self.operations().end_silence(silence_id), said, "silences")
