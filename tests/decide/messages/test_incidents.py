"""Messages of incidents: all that there may be of one are known by their ids."""

from __future__ import annotations

from dataclasses import replace

from bridge.decide.messages.incidents import IncidentNews, incident_message, message_ids
from bridge.decide.rulesfile.read import read
from bridge.model import Incident
from tests.support.nouns import NOW
from tests.support.rig import GIVEN

SICK = '[[rule]]\nname = "sick"\nto = "Failed"\ncount = ">= 3"\nwithin = "10m"\nnotify = "ops"\n'


def test_every_message_of_an_incident_has_an_id_of_its_own_among_those_that_there_may_be() -> None:
    (rule,) = read(GIVEN + SICK, {}).rules
    incident = Incident(n=1, id="inc_1", rule="sick", key="k", generation=1, by=(), since=NOW, opened_at=NOW, said=3)
    news = [IncidentNews(event=event, incident=incident, now=NOW) for event in ("opened", "escalated", "closed")]
    for _ in range(20):
        incident = replace(incident, said=2 * incident.said)
        news.append(IncidentNews(event="joined", incident=incident, now=NOW))
    ids = [incident_message(one, rule, {}).id for one in news]
    assert len(set(ids)) == len(ids)
    assert set(ids) <= set(message_ids(incident))
