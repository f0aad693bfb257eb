"""POST /api/v1/rules/check: rules are tried, and nothing comes of it."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.admin import rule_answers
from bridge.decide.rulesfile.errors import LARGEST
from bridge.wiring.web import served
from tests.support.admin_world import ADMIN, READ, RULES, SECRETS, World, a_book

PATH = "/api/v1/rules/check"
TEST = '\n[[test]]\njob = { to = "Success" }\nexpect = ["all -> cms"]\n'
WRONG = TEST.replace('to = "Success"', 'tag = "Transcode", to = "Failed", user_data = "asset_id=7", duration = "46m"')


def line_of(words: str, text: str) -> int:
    """Return the line on which these words stand first."""
    return text[: text.index(words)].count("\n") + 1


FAILED, ALL = (line_of(f'[[rule]]\nname = "{name}"', RULES) for name in ("failed", "all"))


def answer(world: World, text: str) -> dict[str, Any]:
    """Return the answer, having held it against its description."""
    seen = world.client().post(PATH, json={"toml": text})
    assert seen.status_code == 200
    found: dict[str, Any] = seen.get_json()
    assert rule_answers.RulesChecked.model_validate(found, strict=True).model_dump() == found
    return found


def test_rules_that_are_right_are_ok_and_their_tests_are_run(world: World) -> None:
    assert answer(world, RULES + TEST) == {
        "ok": True, "sha": a_book(RULES + TEST).sha, "faults": [], "tests": {"run": 1, "failed": []},
    }  # fmt: skip


def test_every_fault_is_told_with_its_line(world: World) -> None:
    found = answer(world, RULES.replace('to = "Failed"', 'to = "Faild"') + TEST)
    assert (found["ok"], found["sha"], found["tests"]) == (False, None, {"run": 0, "failed": []})
    assert found["faults"] == [
        {
            "line": line_of('to = "Failed"', RULES), "level": "error",
            "text": 'rule "failed", key "to": there is no job state "Faild" (did you mean "Failed"?)',
        }
    ]  # fmt: skip


def test_a_warning_does_not_refuse(world: World) -> None:
    text = RULES + '[[rule]]\nname = "never"\nmatch.tag = "Concat"\nnotify = "cms"\n'
    found = answer(world, text)
    assert found["ok"]
    (warning,) = found["faults"]
    assert (warning["line"], warning["level"]) == (line_of('match.tag = "Concat"', text), "warning")


def test_a_test_that_fails_is_told_with_its_number_and_line(world: World) -> None:
    found = answer(world, RULES + TEST + WRONG)
    assert not found["ok"]
    assert found["tests"]["run"] == 2
    (failed,) = found["tests"]["failed"]
    assert (failed["number"], failed["line"]) == (2, line_of(WRONG, RULES + TEST + WRONG) + 1)
    assert failed["text"] == (
        f'test number 2: not notified: all -> cms: rule "failed" (line {FAILED}) matched and stops '
        f"(rule on line {ALL}); notified, but not expected: failed -> ops/1"
    )


def test_no_answer_shows_a_secret(world: World) -> None:
    for text in (RULES + WRONG, RULES.replace("[notifier.cms]", "[notifier.cms]\nx = 1"), RULES + "["):
        said = world.client().post(PATH, json={"toml": text}).text
        assert [secret for secret in SECRETS if secret in said] == []


def test_what_is_tried_does_not_come_into_force(world: World) -> None:
    before = world.client().get("/api/v1/rules").get_json()
    assert answer(world, '[[rule]]\nname = "x"\nnotify = "x"\n')["ok"] is False
    assert answer(world, RULES + TEST)["ok"]
    assert world.client().get("/api/v1/rules").get_json() == before


def test_only_the_admin_token_may_ask(world: World) -> None:
    assert world.client(READ).post(PATH, json={"toml": RULES}).status_code == 403
    assert world.client(None).post(PATH, json={"toml": RULES}).status_code == 401


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        ({"json": {}}, 400, "toml: Field required"),
        ({"json": {"toml": 5}}, 400, "toml: Input should be a valid string"),
        ({"json": {"toml": "", "file": "x"}}, 400, "file: Extra inputs are not permitted"),
        ({"json": [1]}, 400, "the body: Input should be an object"),
        ({"data": b'{"toml": ', "content_type": "application/json"}, 400, "the body: Invalid JSON: "),
        ({"data": b"\xff", "content_type": "application/json"}, 400, "the body: Invalid JSON: "),
        ({"data": b"[" * 50_000, "content_type": "application/json"}, 400, "the body: Invalid JSON: "),
        ({"data": RULES.encode(), "content_type": "application/toml"}, 415, 'a body of type "application/toml"'),
        ({}, 415, 'a body of type "" is not taken; send JSON as application/json'),
        ({"json": {"toml": "#" * 2_000_000}}, 413, "a body is at most 2000000 bytes"),
    ],
)
def test_a_body_that_is_none_of_rules_says_what_would_be_right(
    world: World, sent: dict[str, Any], status: int, said: str
) -> None:
    seen = world.client().post(PATH, **sent)
    assert (seen.status_code, seen.content_type) == (status, "application/problem+json")
    assert seen.get_json(force=True)["detail"].startswith(said)


def test_rules_of_a_megabyte_are_read_and_more_is_a_fault(world: World) -> None:
    assert answer(world, RULES + "#" * (LARGEST - len(RULES)))["ok"]
    (fault,) = answer(world, "#" * (LARGEST + 1))["faults"]
    assert fault["text"] == "is too large: it has 1,000,001 bytes; the limit is 1,000,000"


def test_a_text_that_no_toml_can_be_is_a_fault(world: World) -> None:
    for text in ("\0", "x = '\u2028", "a = 1\n" * 2):
        found = answer(world, text)
        assert not found["ok"]
        assert found["faults"]


def test_the_server_of_run_takes_as_much(world: World) -> None:
    import requests

    text = RULES + '# "quoted"\n' * 80_000
    with served(world.app(), host="127.0.0.1", port=0) as port:
        seen = requests.post(
            f"http://127.0.0.1:{port}{PATH}",
            json={"toml": text},
            headers={"Authorization": f"Bearer {ADMIN}"},
            timeout=60,
        )
    assert (seen.status_code, seen.json()["ok"]) == (200, True)
    assert len(seen.request.body or b"") > LARGEST


def test_the_description_names_the_body(world: World) -> None:
    described = world.client().get("/openapi.json").get_json()
    operation = described["paths"][PATH]["post"]
    shape = {"schema": {"$ref": "#/components/schemas/RulesText"}}
    assert operation["requestBody"] == {"required": True, "content": {"application/json": shape}}
    assert described["components"]["schemas"]["RulesText"]["required"] == ["toml"]
    assert {"200", "400", "413", "415"} <= set(operation["responses"])
