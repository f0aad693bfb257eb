"""What happened put through gates and level rules again, without a database."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from bridge.decide.whatif.replay import FIRST, Line, PastTransition, Replay, Status, Tally
from bridge.model import FAILED, RUNNING, SUBMITTED, SUCCESS, Alarm, Silence, Transition
from tests.support.nouns import NOON, a_job, a_rulebook, a_transition

ALL = '[[rule]]\nname = "all"\nnotify = "hook"\n'
STUCK = '[[rule]]\nname = "stuck"\nin = "Running"\nfor = "30m"\nrecover = true\nnotify = "hook"\n'
TOLD: Line = ("transition", "all", "hook")


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def began(at: datetime = NOON, to: str = RUNNING, job: str = "j1", **facts: Any) -> Transition:
    """A transition whose job says nothing of its times."""
    return a_transition(a_job(id=job, state=to, tag="Transcode"), seen_at=at, **facts)


def happened(step: Transition, told: Mapping[Line, str] | None = None, **facts: Any) -> PastTransition:
    return PastTransition(transition=step, messages=told or {}, **facts)


def replayed(rules: str, *all_happened: PastTransition, silences: tuple[Silence, ...] = (), before: str = "") -> Tally:
    book = a_rulebook(rules)
    replay = Replay(book, in_force=a_rulebook(before) if before else book, silences=silences)
    for one in all_happened:
        replay.feed(one)
    return replay.tally


def fates(tally: Tally) -> dict[Line, dict[str, int]]:
    return {line: dict(row.after) for line, row in tally.rows.items() if row.after}


def fired(first: float, last: float, count: int = 0) -> Alarm:
    at = {"fired_at": NOON + minutes(first), "last_at": NOON + minutes(last)}
    return Alarm(rule="stuck", since=NOON, count=count, **at)


def silence(begins: datetime, ends: datetime, *, drop: bool = False) -> Silence:
    return Silence(id="sil_1", spec="{}", author="ann", reason="work", begins_at=begins, ends_at=ends, drop=drop)


def test_a_message_that_was_told_and_would_be_is_no_difference() -> None:
    tally = replayed(ALL, happened(began(), {TOLD: "told"}))
    assert (fates(tally), tally.differs) == ({TOLD: {"told": 1}}, False)


def test_a_silence_comes_before_a_mute_before_a_group() -> None:
    mute = '[[mute]]\nname = "lunch"\nbetween = "12:00-12:10"\n'
    steps = [happened(began(NOON + minutes(at), job=f"j{at}")) for at in (1, 6, 11, 12)]
    quiet = (silence(NOON, NOON + minutes(5)),)
    assert fates(replayed(ALL + mute, *steps, silences=quiet)) == {TOLD: {"silence": 1, "mute": 1, "told": 2}}
    grouped = replayed(f'{ALL}group = {{ wait = "1h" }}\n{mute}', *steps, silences=quiet)
    assert fates(grouped) == {TOLD: {"silence": 1, "mute": 1, "group": 2}}


def test_what_a_throttle_held_is_no_difference_while_the_rule_has_one() -> None:
    """What it would hold depends on all that was sent before, which is not replayed."""
    throttled = ALL + 'throttle = "1/1h"\n'
    for rules, before, differs in [
        (throttled, "throttle", False),
        (throttled, "told", False),
        (throttled, "mute", True),
        (ALL, "throttle", True),
    ]:
        tally = replayed(rules, happened(began(), {TOLD: before}))
        assert (fates(tally), tally.differs) == ({TOLD: {"told": 1}}, differs)


def test_what_a_silence_drops_is_dropped() -> None:
    quiet = (silence(NOON, NOON + minutes(5), drop=True),)
    assert fates(replayed(ALL, happened(began()), silences=quiet)) == {TOLD: {"dropped": 1}}


def test_a_level_rule_fires_when_a_poll_has_seen_the_job_so_for_too_long() -> None:
    level = ("level", "stuck", "hook")
    assert fates(replayed(STUCK, happened(began(), still_at=NOON + minutes(29)))) == {}
    assert fates(replayed(STUCK, happened(began(), still_at=NOON + minutes(30)))) == {level: {"told": 1}}
    assert fates(replayed(STUCK, happened(began(), still_at=None))) == {}


def test_a_level_rule_is_judged_at_the_moment_it_fires() -> None:
    mute = '[[mute]]\nname = "half past"\nbetween = "12:30-12:31"\n'
    tally = replayed(STUCK + mute, happened(began(), still_at=NOON + minutes(50)))
    assert fates(tally) == {("level", "stuck", "hook"): {"mute": 1}}


def test_the_moment_on_record_is_the_right_one_for_a_level_rule_that_has_not_changed() -> None:
    level: Line = ("level", "stuck", "hook")
    late = fired(33, 33)
    one = happened(began(), {level: "told"}, still_at=NOON + minutes(50), alarms={"stuck": late})
    mute = '[[mute]]\nname = "half past"\nbetween = "12:30-12:31"\n'
    assert not replayed(STUCK + mute, one).differs
    assert replayed(STUCK + mute, one, before=STUCK.replace("30m", "25m")).differs


def test_a_level_rule_that_stops_silences_those_below_from_its_own_moment_on() -> None:
    later = STUCK.replace("stuck", "very stuck").replace("30m", "40m") + "stop = true\n"
    sooner = STUCK.replace("stuck", "a bit stuck").replace("30m", "20m") + "stop = true\n"
    one = happened(began(), still_at=NOON + minutes(50))
    assert {line[1] for line in fates(replayed(later + STUCK, one))} == {"very stuck", "stuck"}
    assert {line[1] for line in fates(replayed(sooner + STUCK, one))} == {"a bit stuck"}


def test_repetitions_are_counted_to_the_last_poll() -> None:
    rules = STUCK + 'repeat = "10m"\n'
    (difference,) = replayed(rules, happened(began(), still_at=NOON + minutes(55))).first
    assert difference.after == Status("told", 2)  # too long at 12:30, again at 12:40 and 12:50


def test_how_often_an_alarm_came_again_is_no_difference_once_another_rule_stops_it() -> None:
    """It ended with a poll of which nothing is on record."""
    stops = STUCK.replace("stuck", "very stuck").replace("30m", "60m") + "stop = true\n"
    level: Line = ("level", "stuck", "hook")
    often = fired(30, 50, count=2)
    told = {level: "told", ("level", "very stuck", "hook"): "told"}
    alarms = {"stuck": often, "very stuck": fired(60, 60)}
    one = happened(began(), told, still_at=NOON + minutes(70), alarms=alarms)
    assert not replayed(stops + STUCK + 'repeat = "10m"\n', one).differs


def test_a_recovery_is_told_to_those_whom_no_edge_rule_tells_of_the_same() -> None:
    stay = happened(began(), still_at=NOON + minutes(31), has_ended=True)
    end = happened(began(NOON + minutes(40), SUCCESS, was=RUNNING, sequence=2))
    assert fates(replayed(STUCK, stay, end))["recovery", "stuck", "hook"] == {"told": 1}
    assert ("recovery", "stuck", "hook") not in fates(replayed(STUCK + ALL, stay, end))
    in_digest = f'{STUCK}{ALL}group = {{ wait = "1h" }}\n'
    assert ("recovery", "stuck", "hook") in fates(replayed(in_digest, stay, end))


def test_who_was_kept_from_the_alarm_for_good_hears_of_no_recovery() -> None:
    stay = happened(began(), still_at=NOON + minutes(31), has_ended=True)
    end = happened(began(NOON + minutes(40), SUCCESS, was=RUNNING, sequence=2))
    quiet = (silence(NOON + minutes(29), NOON + minutes(32), drop=True),)
    assert fates(replayed(STUCK, stay, end, silences=quiet)) == {("level", "stuck", "hook"): {"dropped": 1}}


def test_of_two_rules_one_tells_the_recovery() -> None:
    rules = STUCK + STUCK.replace("stuck", "very stuck").replace("30m", "31m")
    stay = happened(began(), still_at=NOON + minutes(35), has_ended=True)
    end = happened(began(NOON + minutes(40), SUCCESS, was=RUNNING, sequence=2))
    told = fates(replayed(rules, stay, end))
    assert [line for line in told if line[0] == "recovery"] == [("recovery", "stuck", "hook")]


def test_a_recovery_is_told_where_the_message_of_the_end_itself_is_dropped() -> None:
    quiet = Silence(id="sil_1", spec='{"rule": "all"}', author="ann", reason="work", begins_at=NOON + minutes(36),
                    ends_at=NOON + minutes(60), drop=True)  # fmt: skip
    stay = happened(began(), still_at=NOON + minutes(35), has_ended=True)
    end = happened(began(NOON + minutes(40), SUCCESS, was=RUNNING, sequence=2))
    told = fates(replayed(STUCK + ALL, stay, end, silences=(quiet,)))
    assert (told[TOLD], told["recovery", "stuck", "hook"]) == ({"told": 1, "dropped": 1}, {"told": 1})


def test_what_was_too_long_when_it_was_first_seen_is_judged_then() -> None:
    """Running since 11:00, so too long since 11:30, and seen at noon."""
    job = a_job(state=RUNNING, started_at=NOON - minutes(60))
    mute = '[[mute]]\nname = "then"\nbetween = "11:30-11:31"\n'
    tally = replayed(STUCK + mute, happened(a_transition(job), still_at=NOON + minutes(5)))
    assert fates(tally) == {("level", "stuck", "hook"): {"told": 1}}


def test_what_is_not_known_in_full_is_counted_and_not_compared() -> None:
    tally = replayed(ALL + STUCK, happened(began(), is_known=False, is_time_known=False, still_at=NOON + minutes(60)))
    assert (tally.unknown, tally.unknown_times, tally.rows) == (1, 1, {})


def test_only_the_first_differences_are_kept_and_all_are_counted() -> None:
    tally = replayed(ALL, *(happened(began(job=f"j{number}")) for number in range(FIRST + 5)))
    assert len(tally.first) == FIRST
    assert tally.rows[TOLD].added == FIRST + 5


def test_removed_added_and_changed_are_told_apart() -> None:
    rules = '[[rule]]\nname = "all"\nto = ["Running", "Failed"]\ngroup = { wait = "1h" }\nnotify = "hook"\n'
    tally = replayed(
        rules,
        happened(began(to=SUBMITTED), {TOLD: "told"}),
        happened(began(NOON + minutes(1), to=RUNNING, was=SUBMITTED, sequence=2)),
        happened(began(NOON + minutes(2), to=FAILED, was=RUNNING, sequence=3), {TOLD: "told"}),
    )
    row = tally.rows[TOLD]
    assert (row.removed, row.added, row.changed) == (1, 1, 1)
    assert [(str(one.before), str(one.after)) for one in tally.first] == [
        ("told", "None"), ("None", "group"), ("told", "group"),
    ]  # fmt: skip
