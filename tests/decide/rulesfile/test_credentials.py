"""The `credentials` of watches, and what is said of the environment that lacks their keys."""

import pytest

from bridge.decide.rulesfile.errors import RulesRefused
from bridge.model import KeySource
from tests.support.nouns import a_rulebook
from tests.support.rules_texts import HOOK, RULE, WATCH, faults

KEYS = {"MEDIA_SECRET_ID": "AKIDx", "MEDIA_SECRET_KEY": "hush-hush"}


def watched(credentials: str) -> str:
    return f'{WATCH}credentials = "{credentials}"\n{RULE}{HOOK}'


def test_a_watch_names_variables_a_file_or_the_role_and_else_has_the_usual_keys():
    second = WATCH.replace('"vod"', '"second"')
    file = {"LIVE_EU_CREDENTIALS_FILE": "/run/keys.json"}
    text = f'{watched("media")}\n{second}credentials = "live-eu"\n'
    text += f'{WATCH.replace("vod", "third")}credentials = "role"\n{WATCH.replace("vod", "fourth")}'
    book = a_rulebook(text, KEYS | file | {"MEDIA_SECURITY_TOKEN": "t"})
    assert [watch.place.credentials for watch in book.watches] == ["media", "live-eu", "role", None]
    assert book.credentials == {
        "media": KeySource(name="media", secret_id="AKIDx", secret_key="hush-hush", token="t"),
        "live-eu": KeySource(name="live-eu", file="/run/keys.json"),
        "role": KeySource(name="role"),
    }
    assert "hush-hush" not in repr(book)


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({}, "neither MEDIA_SECRET_ID and MEDIA_SECRET_KEY nor MEDIA_CREDENTIALS_FILE are set"),
        ({"MEDIA_SECRET_ID": "i"}, "MEDIA_SECRET_ID is set, but not MEDIA_SECRET_KEY"),
        ({"MEDIA_SECRET_KEY": "k", "MEDIA_SECRET_ID": " "}, "MEDIA_SECRET_KEY is set, but not MEDIA_SECRET_ID"),
        ({"MEDIA_SECURITY_TOKEN": "t"}, "MEDIA_SECURITY_TOKEN is set, but not MEDIA_SECRET_ID and MEDIA_SECRET_KEY"),
        (
            KEYS | {"MEDIA_CREDENTIALS_FILE": "/x"},
            "both MEDIA_CREDENTIALS_FILE and MEDIA_SECRET_ID and MEDIA_SECRET_KEY are set: keep one of the two",
        ),
        (
            KEYS | {"MEDIA_SECRET_KEY": '"hush-hush"'},
            "the value of MEDIA_SECRET_KEY is in quotes, which would be part of the value: remove them",
        ),
        (
            {"MEDAI_SECRET_ID": "i", "MEDAI_SECRET_KEY": "k"},
            'neither MEDIA_SECRET_ID and MEDIA_SECRET_KEY nor MEDIA_CREDENTIALS_FILE are set (did you mean "medai"?)',
        ),
    ],
)
def test_keys_that_the_environment_lacks_are_faults(env, said):
    found = [fault for fault in faults(watched("media"), env) if "SECRET" in fault or "FILE" in fault]
    assert found == [f'6: watch "vod", key "credentials": {said}']


def test_credentials_that_two_watches_name_are_complained_of_once():
    text = watched("media") + WATCH.replace("vod", "second") + 'credentials = "media"\n'
    assert len(faults(text, {})) == 1


@pytest.mark.parametrize("name", ["", "a b", "1", "x" * 41, "a.b", "ä"])
def test_a_name_that_makes_no_variable_is_refused(name):
    with pytest.raises(RulesRefused, match=r'key "credentials": ".*" is not a name such as "media"'):
        a_rulebook(watched(name))


def test_rule_is_nearly_role():
    assert '(did you mean "role"?)' in faults(watched("rule"), {})[0]
