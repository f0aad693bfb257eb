"""Incidents: the list, one with its jobs and deliveries, and acknowledging it."""

from __future__ import annotations

from collections.abc import Iterator

from flask import g, request
from flask.typing import ResponseReturnValue

from bridge.admin.http.problems import Problem
from bridge.admin.http.routes import Route
from bridge.admin.pages.routes import ROWS, Pages, asked_for, attempt, cursor, show
from bridge.decide.rulesfile.silences import LONGEST_AUTHOR
from bridge.pipeline.incident_facts import find_incidents, incident_details
from bridge.record.queries.incidents import STATES

_FIELDS = ("state", "rule")


class IncidentPages(Pages):
    def routes(self) -> Iterator[Route]:
        yield Route(path="/incidents", view=self.incidents, name="incidents")
        yield Route(path="/incidents/<incident_id>", view=self.incident, name="incident")
        yield Route(
            path="/incidents/<incident_id>/acknowledge", view=self.acknowledge, name="acknowledge", method="POST"
        )

    def incidents(self) -> ResponseReturnValue:
        now = self.parts.clock()
        asked = asked_for(_FIELDS, now, STATES)
        with self.parts.db.read() as tx:
            rules = self.parts.in_force(tx)
            found = find_incidents(tx, asked.which, rules, now=now, cursor=asked.cursor, limit=ROWS)
        names = [rule.name for rule in rules.rules if rule.incident or rule.escalate]
        fields = (
            ("state", "State", [("open", "open"), ("closed", "closed"), ("watched", "watched: not open yet")]),
            ("rule", "Rule", [(name, name) for name in names]),
        )
        return show(
            "incidents.html", asked=asked, incidents=found.items, cursor=found.cursor, fields=fields, has_rules=names
        )

    def incident(self, incident_id: str) -> ResponseReturnValue:
        now, began = self.parts.clock(), cursor()
        with self.parts.db.read() as tx:
            rules = self.parts.in_force(tx)
            found = incident_details(tx, incident_id, rules, now=now, cursor=began, limit=ROWS)
        if found is None:
            raise Problem(404, f'there is no incident "{incident_id[:100]}": it may have been pruned')
        facts, older = found
        is_current = facts["state"] == "open" or (facts["state"] == "watched" and facts["group"])
        return show(
            "incident.html", incident=facts, claimed=g.claimed, began=began, cursor=older, longest=LONGEST_AUTHOR,
            can_acknowledge=is_current and not facts["acknowledged_at"],
        )  # fmt: skip

    def acknowledge(self, incident_id: str) -> ResponseReturnValue:
        given = "".join(filter(str.isprintable, request.form.get("author", "")))
        operations = self.operations(given.strip()[:LONGEST_AUTHOR])
        return attempt(
            lambda: operations.acknowledge(incident_id, self.parts.book()), f"Acknowledged by {operations.who}.",
            "incident", incident_id=incident_id,
        )  # fmt: skip
