from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from bridge.decide.templates.functions import TemplateFault, variables
from bridge.decide.templates.rendering import compiled, rendered
from tests.support.nouns import NOON, a_job, a_transition

SHANGHAI = ZoneInfo("Asia/Shanghai")


def said_at(source: str, zone: ZoneInfo = SHANGHAI, **job) -> str:
    """Render for a telling at noon, UTC."""
    return rendered(compiled(source), variables(a_transition(a_job(**job)), "r1", {}, zone=zone))


def fault(source: str) -> str:
    with pytest.raises(TemplateFault) as refused:
        said_at(source)
    return str(refused.value)


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (timedelta(minutes=5), "5 min ago"),
        (timedelta(hours=26, seconds=3), "1 d 2 h ago"),
        (timedelta(seconds=1), "1 s ago"),
        (timedelta(seconds=0.4), "just now"),
        (timedelta(0), "just now"),
        (-timedelta(days=9), "just now"),
    ],
)
def test_ago_says_how_long_before_the_telling_a_time_was(before, said):
    assert said_at("{{ job.created_at | ago }}", created_at=NOON - before) == said


def test_local_says_a_time_by_the_clock_of_the_rules():
    source = "{{ job.started_at | local }}"
    assert said_at(source, started_at=NOON) == "2026-11-21 20:00 CST"
    assert said_at(source, ZoneInfo("America/New_York"), started_at=NOON) == "2026-11-21 07:00 EST"
    assert said_at(source, ZoneInfo("America/New_York"), started_at=NOON.replace(month=7)) == "2026-07-21 08:00 EDT"
    assert said_at(source, ZoneInfo("UTC"), started_at=NOON) == "2026-11-21 12:00 UTC"


def test_seen_at_and_other_texts_may_be_times_too():
    assert said_at("{{ seen_at | ago }}, {{ seen_at | local }}") == "just now, 2026-11-21 20:00 CST"
    data = "due=2026-11-21T19:00:00.5+08:00"
    assert said_at("{{ job.user_data.due | ago }} {{ job.user_data.due | local }}", user_data=data) == (
        "1 h ago 2026-11-21 19:00 CST"
    )


@pytest.mark.parametrize("name", ["ago", "local"])
def test_a_time_that_ci_did_not_say_is_unknown(name):
    assert (
        said_at(f"{{{{ job.ended_at | {name} }}}} {{{{ job.user_data.due | {name} }}}}") == "unknown time unknown time"
    )
    assert fault(f"{{{{ job.endet_at | {name} }}}}").startswith('a job has no "endet_at" (did you mean "ended_at"?)')


@pytest.mark.parametrize("name", ["ago", "local"])
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("'soon'", '"soon" is not a time, which job.created_at is, or "2026-11-21T09:00:00Z"'),
        ("'2026-11-21'", '"2026-11-21" is not a time'),
        ("'2026-11-21T09:00:00'", '"2026-11-21T09:00:00" is not a time'),
        ("1763715600", "1763715600 is not a time"),
    ],
)
def test_what_is_no_time_is_a_fault(name, value, said):
    assert fault(f"{{{{ {value} | {name} }}}}").startswith(said)


@pytest.mark.parametrize(
    ("moment", "since", "zone"),
    [
        (datetime(1, 1, 1, tzinfo=UTC), "739940 d 12 h ago", "Pacific/Midway"),
        (datetime(9999, 12, 31, 23, tzinfo=UTC), "just now", "Pacific/Kiritimati"),
    ],
)
def test_a_time_that_no_clock_of_the_zone_shows_is_a_fault(moment, since, zone):
    assert said_at("{{ job.created_at | ago }}", created_at=moment) == since
    with pytest.raises(TemplateFault, match="OverflowError"):
        said_at("{{ job.created_at | local }}", ZoneInfo(zone), created_at=moment)


def test_user_data_of_any_length_is_no_time():
    said = f'"{"2" * 78}… is not a time'
    with pytest.raises(TemplateFault, match=said):
        said_at("{{ job.user_data | ago }}", user_data="2" * 100_000)
