"""What people are told in other languages."""

from __future__ import annotations

import re
from string import Formatter

import pytest

from bridge.decide.rulesfile.errors import RulesRefused
from bridge.decide.rulesfile.read import read
from bridge.language import ENGLISH, LANGUAGES, language_of
from bridge.model import FAILED, RUNNING, SUBMITTED, SUCCESS
from bridge.record.database import Database
from bridge.send.chat import Shown, previewed
from tests.language import catalogues, compiled, missing, path_of
from tests.support.nouns import minutes, seconds
from tests.support.rig import GIVEN, OVER, QUIET, STUCK, Rig

CHINESE = language_of("zh-CN")
CATALOGUES = dict(catalogues())


@pytest.mark.parametrize("tag", CATALOGUES)
def test_every_text_is_translated(tag: str) -> None:
    assert missing(CATALOGUES[tag]) == []


@pytest.mark.parametrize("tag", CATALOGUES)
def test_a_translation_has_the_values_of_its_text(tag: str) -> None:
    for message in CATALOGUES[tag]:
        assert values(message.string) == values(message.id), message.id


def values(text: str) -> set[tuple[str, str | None]]:
    return {(name, form) for _, name, form, _ in Formatter().parse(text or "") if name is not None}


@pytest.mark.parametrize("tag", CATALOGUES)
def test_what_is_loaded_is_what_is_written(tag: str) -> None:
    assert path_of(tag, "mo").read_bytes() == compiled(CATALOGUES[tag])


def test_a_language_that_is_not_known_is_english() -> None:
    assert language_of("tlh") is language_of(None) is ENGLISH


def test_states_of_which_we_know_nothing_stay_as_they_are() -> None:
    assert CHINESE.state("Mending") == "Mending"
    assert CHINESE.state(FAILED) == "失败"


def test_spans_have_their_units() -> None:
    spans = [CHINESE.span(span) for span in (0, 185, 7800, 273600, None)]
    assert spans == [
        "0 秒",
        "3 分 5 秒",
        "2 小时 10 分",
        "3 天 4 小时",
        "未知时长",
    ]


def test_a_language_that_there_is_not_is_refused_with_those_there_are() -> None:
    with pytest.raises(RulesRefused, match="zh-CN"):
        read('[defaults]\nlanguage = "de"\n' + GIVEN, {})


# --- messages -------------------------------------------------------------------------------------------------------

ENGLISH_WORDS = re.compile(r"\b(?!Transcode|Snapshot|in|mp4|j\d|CI|ops|cms|Z\b|T\d)[A-Za-z]{2,}\b")


@pytest.fixture
def chinese(db: Database) -> Rig:
    return Rig(db, OVER + STUCK + "recover = true\n", given='[defaults]\nlanguage = "zh-CN"\n' + GIVEN)


def test_messages_of_jobs_are_in_chinese(chinese: Rig) -> None:
    chinese.first_poll()
    chinese.has("j1", SUBMITTED)
    chinese.passes(minutes(5))
    chinese.sees("j1", state=RUNNING)
    chinese.passes(minutes(40))
    chinese.sees("j1", state=SUCCESS)
    chinese.sees("j2", code="NoSuchKey")
    assert chinese.titles("ops") == [
        "Transcode 执行中已 30 分：j1.mp4",
        "Transcode 成功：j1.mp4",
        "Transcode 失败：j2.mp4",
    ]
    for delivery in chinese.transport.begun:
        for line in previewed(Shown.of(delivery, chinese.clock() + minutes(30))):
            text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z|over|stuck|NoSuchKey", "", "".join(part.text for part in line))
            assert ENGLISH_WORDS.findall(text) == [], text


def test_how_long_a_job_took_is_said_once_in_any_language(chinese: Rig) -> None:
    chinese.first_poll()
    chinese.has("j1", RUNNING)
    chinese.passes(minutes(5))
    chinese.sees("j1", state=SUCCESS)
    shown = Shown.of(chinese.transport.begun[-1], chinese.clock())
    said = "".join(part.text for line in previewed(shown) for part in line)
    assert said.count("用时") == 1
    assert said.count("等待") == 1


def test_a_digest_and_a_template_are_in_the_language_of_the_rules(chinese: Rig) -> None:
    template = '[template.long]\ntitle = "{{ job.duration | human }} / {{ job.ended_at | ago }}"\n'
    chinese.start(OVER.replace('notify = "ops"', 'notify = "ops"\ntemplate = "long"') + template + QUIET)
    chinese.first_poll()
    chinese.has("j1", RUNNING)
    chinese.passes(minutes(5))
    chinese.sees("j1", state=SUCCESS)
    assert chinese.titles("ops") == ["5 分 / 刚刚"]


@pytest.mark.parametrize("tag", LANGUAGES)
def test_a_message_keeps_the_language_in_which_it_was_written(db: Database, tag: str) -> None:
    rig = Rig(db, OVER, given=f'[defaults]\nlanguage = "{tag}"\n' + GIVEN)
    rig.first_poll()
    rig.has("j1", FAILED)
    rig.poll()
    rig.use(given=GIVEN)
    rig.lives(seconds(2))
    assert rig.titles() == [{"en": "Transcode Failed: j1.mp4", "zh-CN": "Transcode 失败：j1.mp4"}[tag]]
    shown = Shown.of(rig.transport.begun[0], rig.clock())
    assert shown.language.tag == tag
