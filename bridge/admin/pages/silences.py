"""Silences, which hold messages for a while: the list, a form for a new one with a preview, and ending them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from flask import flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from bridge.admin.auth import author
from bridge.admin.http.routes import Route
from bridge.admin.pages.routes import Pages, cursor, done, may_act, refused, show
from bridge.admin.pages.texts import scope_lines
from bridge.decide.rules.gates import SCOPE_KEYS, scope_of
from bridge.decide.rulesfile.silences import LONGEST_AUTHOR, LONGEST_REASON, SilenceRequest, read_silence
from bridge.decide.text.times import iso
from bridge.decide.text.values import STATE_WORDS, FieldFault, FieldFaults, shown
from bridge.model import Silence
from bridge.pipeline.operations import LOOKED_AT_IN_WEB, OperationRefused, foresee, silence_facts, what_it_held
from bridge.record.outbox import silences

Facts = dict[str, Any]
Fault = tuple[str | None, str]  # the field, if it is about one, and what is wrong

_ROWS = 50  # of ended ones
_ENDED = "This form was sent before, and its silence has ended: fill in a new form."


class SilencePages(Pages):
    def routes(self) -> Iterator[Route]:
        yield Route(path="/silences", view=self.silences, name="silences")
        yield Route(path="/silences/add", view=self.ask, name="add_silence")
        yield Route(path="/silences/add", view=self.add, name="make_silence", method="POST")
        yield Route(path="/silences/<silence_id>/change", view=self.change, name="change_silence", method="POST")
        yield Route(path="/silences/<silence_id>/end", view=self.end, name="end_silence", method="POST")

    def silences(self) -> ResponseReturnValue:
        now, began = self.parts.clock(), cursor()
        with self.parts.db.read() as tx:
            active = silences.not_ended(tx, now=now)
            held = silences.counts(tx, [silence.id for silence in active])
            ended, older = silences.page(tx, cursor=began.when if began else None, limit=_ROWS, over=now)
        return show(
            "silences.html",
            active=[self._facts(silence, held.get(silence.id, 0)) for silence in reversed(active)],
            ended=[self._facts(silence, count) for silence, count in ended],
            cursor=older and f"{older}.0",
            began=began,
        )

    def _facts(self, silence: Silence, held: int) -> Facts:
        lines = scope_lines(scope_of(silence.spec), self.parts.book().queue_names)
        return silence_facts(silence, held, now=self.parts.clock()) | {"lines": lines, "again": _again(silence)}

    def ask(self) -> ResponseReturnValue:
        return self._form(read_form(request.args, self._name()))

    def add(self) -> ResponseReturnValue:
        """Add a silence, or (`preview`) show what it would have matched. A form with faults keeps what was typed."""
        form, now = read_form(request.form, self._name()), self.parts.clock()
        previews = "preview" in request.form
        try:
            wanted = form.wanted(now, preview=previews)
            if previews:
                with self.parts.db.read() as tx:
                    foreseen = foresee(tx, wanted, self.parts.book(), now=now, most=LOOKED_AT_IN_WEB)
                return self._form(form, foreseen=foreseen)
            operations = self.operations(wanted.author if wanted.author != self._name() else None)
            made = operations.make_silence(replace(wanted, author=str(operations.who)), key=form.key)
        except FormRefused as error:
            return self._form(form, faults=error.faults, status=400)
        except OperationRefused as error:
            return self._form(form, faults=[(None, str(error))], status=409)
        if made.ends_at <= now:
            return refused(_ENDED, "silences")
        begins = f" from {iso(made.begins_at)}" if made.begins_at > now else ""
        flash(f"{'Drops' if wanted.drop else 'Holds'} what it matches{begins} until {iso(made.ends_at)}.", "done")
        return redirect(url_for("pages.silences"), 303)

    def _name(self) -> str:
        """Return the author that a form has at first."""
        who = author(self.by)
        return who.claimed or who.who

    def _form(
        self, form: Form, *, foreseen: Facts | None = None, faults: list[Fault] | None = None, status: int = 200
    ) -> ResponseReturnValue:
        labelled = [(name, f"{LABELS[name]}: {text}" if name else text) for name, text in faults or []]
        facts: Facts = {"form": form, "foreseen": foreseen, "faults": labelled}
        if request.method == "POST" and request.headers.get("HX-Request"):
            return render_template("silence_preview.html", **facts), status
        book = self.parts.book()
        choices = {
            "tag": list(dict.fromkeys(stream.tag for watch in book.watches for stream in watch.streams)),
            "queue": list(book.queue_names.values()),
            "from": STATE_WORDS,
            "to": STATE_WORDS,
            "rule": [rule.name for rule in book.rules],
            "notifier": book.notified,
        }
        return show(
            "silence_add.html", status=status, labels=LABELS, choices=choices, usual=USUAL,
            nonce=form.nonce or self.parts.nonce(),
            longest={"reason": LONGEST_REASON, "author": LONGEST_AUTHOR}, allowed=may_act(), **facts,
        )  # fmt: skip

    def change(self, silence_id: str) -> ResponseReturnValue:
        """Change the end ("2h" more, or a time) or the reason; an empty field leaves it as it is."""
        until, reason = (request.form.get(name, "").strip()[:_LONGEST] for name in ("until", "reason"))
        end = _end(until)
        asked = {"ends_at": end["ends_at"]} if "ends_at" in end else {"extend_by": until} if until else {}
        try:
            changed, _ = self.operations().change_silence(silence_id, asked | ({"reason": reason} if reason else {}))
        except FieldFaults as error:
            return refused("; ".join(fault.text for fault in error.faults), "silences")
        except OperationRefused as error:
            return refused(str(error), "silences")
        return done(f"The silence ends at {iso(changed.ends_at)}: {changed.reason}", "silences")

    def end(self, silence_id: str) -> ResponseReturnValue:
        try:
            ended, held = self.operations().end_silence(silence_id)
        except OperationRefused as error:
            return refused(str(error), "silences")
        return done(f"The silence has ended; {what_it_held(ended, held)}.", "silences")


def _again(silence: Silence) -> dict[str, str] | None:
    """Return the fields of the form that make such a silence again; None: the form has no field for all it matches."""
    spec = json.loads(silence.spec)
    texts = {**spec.pop("match", {}), **spec}
    fields = {
        name: ", ".join(value) if isinstance(value, list) and name in _LISTED else value
        for name, value in texts.items()
    }
    if fields.keys() - {*_MATCHED, *_LISTED, *_NAMED} or not all(isinstance(one, str) for one in fields.values()):
        return None
    every = {} if fields else {"everything": "yes"}
    return {**fields, **every, "mode": "drop" if silence.drop else "hold", "reason": silence.reason}


# --- the form -------------------------------------------------------------------------------------------------------

USUAL = ("30m", "1h", "2h", "4h", "1d")
LABELS = {
    "tag": "Tag", "queue": "Queue", "input": "Input", "from": "From state", "to": "To state", "rule": "Rule",
    "notifier": "Notifier", "everything": "Everything", "begins": "Begins", "for": "Duration", "mode": "Messages",
    "reason": "Reason", "author": "Author",
}  # fmt: skip

_MATCHED = ("tag", "queue", "input")
_LISTED = ("from", "to")  # names of states, which have no commas
_NAMED = ("rule", "notifier")
_LONGEST = 2_000  # characters of a field
_A_DATE = re.compile(r"\d{4}-")
_A_TIME = re.compile(r"[0-9]|(now|today|tomorrow)$", re.IGNORECASE)  # no state begins so
_STATES = {word.lower(): word for word in STATE_WORDS}
_NOTHING_NAMED = "say what it matches, or tick that it matches everything"


class FormRefused(Exception):
    """What was typed is no silence; `faults` has every reason."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = faults
        super().__init__("; ".join(text for _, text in faults))


@dataclass(frozen=True, slots=True)
class Form:
    """The text of each field. "for" is one of the usual durations, "other" what was typed instead."""

    texts: Mapping[str, str]
    author: str  # unless one is typed
    everything: bool = False
    nonce: str = ""  # of the page with the form

    @property
    def key(self) -> str | None:
        """Return what is the same when this is sent twice; with other texts, as after going back, it is another."""
        return "\0".join([self.nonce, *self.texts.values()]) if self.nonce else None

    def wanted(self, now: datetime, *, preview: bool = False) -> SilenceRequest:
        """Return the silence that is asked for; a preview needs no reason. Raises FormRefused."""
        faults, body = list(self._faults()), self._body()
        body["everything"] = self.everything or not body.keys() & set(SCOPE_KEYS)
        if preview:
            body.setdefault("reason", "preview")
        try:
            wanted = read_silence(body, now=now, author=self.author)
        except FieldFaults as error:
            raise FormRefused(faults + [self._fault(fault) for fault in error.faults]) from error
        if faults:
            raise FormRefused(faults)
        return wanted

    def _body(self) -> dict[str, Any]:
        """Return what was typed as a body of the API."""
        match = {name: self.texts[name] for name in _MATCHED if self.texts[name]}
        states = {name: [word for word in self._states(name) if not _A_TIME.match(word)] for name in _LISTED}
        listed = {name: words for name, words in states.items() if words}
        plain = {name: self.texts[name] for name in (*_NAMED, "mode", "author", "reason") if self.texts[name]}
        begin = _begin(self.texts["begins"])
        end = _end(self.texts["other"] or self.texts["for"])
        return ({"match": match} if match else {}) | listed | plain | begin | end

    def _faults(self) -> Iterator[Fault]:
        """Yield what can be wrong in a form alone: "from" is mistaken for the beginning."""
        if not self.everything and not any(self.texts[name] for name in (*_MATCHED, *_LISTED, *_NAMED)):
            yield "everything", _NOTHING_NAMED
        for name in _LISTED:
            yield from ((name, _no_state(word)) for word in self._states(name) if _A_TIME.match(word))

    def _fault(self, fault: FieldFault) -> Fault:
        """Return a fault of the body by the field of the form."""
        key = fault.key or ""
        if key == "reason" and not self.texts["reason"]:
            return "reason", "give a reason"
        name = {"ends_at": "for", "starts_in": "begins", "begins_at": "begins"}.get(key, key.removeprefix("match."))
        return (name, fault.text) if name in LABELS else (None, str(fault))

    def _states(self, name: str) -> list[str]:
        words = [part.strip() for part in self.texts[name].split(",")] if self.texts[name] else []
        return [_STATES.get(word.lower(), word) for word in words]


def read_form(values: Mapping[str, str], author: str) -> Form:
    """Return what was typed, or what an address asks to be filled in; with the usual values for the rest."""
    texts = {name: values.get(name, "").strip()[:_LONGEST] for name in (*LABELS, "other")}
    if texts["for"] not in USUAL:
        texts |= {"for": "1h", "other": texts["other"] or texts["for"]}
    texts["mode"] = texts["mode"] or "hold"
    texts["author"] = values.get("author", author).strip()[:_LONGEST]
    return Form(texts, author, everything=bool(values.get("everything")), nonce=values.get("nonce", "")[:_LONGEST])


def _begin(text: str) -> dict[str, str]:
    found = _end(text)
    return {} if not text else {"begins_at": found["ends_at"]} if "ends_at" in found else {"starts_in": text}


def _end(text: str) -> dict[str, str]:
    if not _A_DATE.match(text):
        return {"for": text}
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return {"ends_at": text}
    return {"ends_at": (at if at.tzinfo else at.replace(tzinfo=UTC)).isoformat()}


def _no_state(text: str) -> str:
    return f'{shown(text)} is no state of a job, such as Failed; "{LABELS["for"]}" is where the silence\'s end belongs'
