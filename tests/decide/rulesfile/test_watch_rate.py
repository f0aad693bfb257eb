"""The `rate` of a watch."""

from datetime import timedelta

import pytest

from bridge.model import Rate, WatchRate
from tests.support.nouns import a_rulebook
from tests.support.rules_texts import HOOK, RULE, WATCH, faults


def test_a_watch_has_the_rate_that_is_written_and_else_none():
    text = f'{WATCH}rate = "20/1m"\n{WATCH.replace("vod", "other")}{RULE}{HOOK}'
    first, second = a_rulebook(text).watches
    assert first.place.watch_rate == WatchRate(watch="vod", rate=Rate(count=20, per=timedelta(minutes=1)))
    assert second.place.watch_rate is None


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        (
            '"100/5m"',
            "has a time of 5 min; the limit is a minute, as a poll that waits keeps others of the bucket waiting:"
            ' write for example "20/1m"',
        ),
        ('"often"', '"often" is not a rate; write for example "10/s" or "100/5m"'),
        ("5", '5 is not a string such as "10/s" or "100/5m"'),
    ],
)
def test_a_rate_over_more_than_a_minute_is_refused(rate, said):
    assert faults(f"{WATCH}rate = {rate}\n{RULE}{HOOK}") == [f'6: watch "vod", key "rate": {said}']
