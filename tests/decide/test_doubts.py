import pytest

from tests.builders import SECRET
from tests.decide.texts import HOOK, RULE, SIGNED, WATCH, rule, warnings


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (RULE, ["1: warning: there is no [[watch]], so nothing is polled"]),
        (
            WATCH,
            [
                "1: warning: there is no [[rule]], so nobody is told",
                '7: warning: notifier "hook": no rule notifies it',
            ],
        ),
        (
            WATCH.replace("Transcode", "transcode") + RULE,
            ['5: warning: watch "vod", key "tags": "transcode" is not a documented tag (did you mean "Transcode"?)'],
        ),
        (
            WATCH.replace("Transcode", "Elephant") + RULE,
            ['5: warning: watch "vod", key "tags": "Elephant" is not a documented tag'],
        ),
        (
            WATCH + 'queue_type = "Transcode"\n' + RULE,
            [
                '6: warning: watch "vod", key "queue_type": "Transcode" is not a documented queue type '
                '(did you mean "Transcoding"?)'
            ],
        ),
        (
            WATCH + RULE + HOOK,
            [
                '9: warning: notifier "hook": without `secret` its messages are not signed; '
                'set secret = { env = "NAME" }'
            ],
        ),
        (
            rule('[template.x]\ntext = "{{ job.message.strip() }}"'),
            [
                '9: warning: template "x": no rule uses it',
                '10: warning: template "x", key "text": of a job of which CI says little, the default text is told, '
                "since this does not render: 'None' has no attribute 'strip'",
            ],
        ),
    ],
)
def test_what_is_surely_not_meant_is_a_warning(text, said):
    assert warnings(text) == said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            'to = "Kaputt"',
            'key "to": no state "Kaputt" is documented; there are Submitted, Running, Success, Failed, Pause, Cancel, '
            "new, gone, done, active, *",
        ),
        ('from = "done"', 'key "from": never fires: a job that ended changes no more'),
        ('match.tag = "Transcod"', 'key "match.tag": no watch polls the tag "Transcod" (did you mean "Transcode"?)'),
        ('match.tag = "Concat"', 'key "match.tag": no watch polls the tag "Concat"; there are Transcode'),
        ('match.watch = "vid"', 'key "match.watch": there is no watch "vid" (did you mean "vod"?)'),
        (
            'match.bucket = "media"',
            'key "match.bucket": no watch polls the bucket "media"; there are media-1250000000',
        ),
    ],
)
def test_a_rule_that_can_never_fire_is_a_warning(line, said):
    assert warnings(rule(line)) == [f'9: warning: rule "r1", {said}']


def test_a_queue_that_is_nearly_an_alias_is_a_warning():
    aliases = '[alias.queue]\nlectures = "p22"\n'
    near = '"lecture" is not in [alias.queue], so it is taken for the id of a queue (did you mean "lectures"?)'
    assert warnings(aliases + rule('match.queue = "lecture"')) == [f'11: warning: rule "r1", key "match.queue": {near}']
    assert warnings(f'{aliases}{WATCH}queues = ["lecture"]\n{RULE}') == [
        f'8: warning: watch "vod", key "queues": {near}'
    ]


def test_a_fallback_is_used():
    text = WATCH + RULE + HOOK + f'fallback = "b"\n{SIGNED}\n' + HOOK.replace(".hook", ".b") + SIGNED
    assert warnings(text, {"S": SECRET}) == []
