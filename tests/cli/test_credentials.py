"""Watches with credentials of their own: `poll`, `doctor`, and a worker whose keys are renewed."""

from __future__ import annotations

import json
from pathlib import Path

from bridge.simulator.ci import DEMO_SECRET_ID, DEMO_SECRET_KEY
from bridge.simulator.web import Answer
from tests.support.stage import RULES, Stage
from tests.support.waiting import wait_until

KEY = "the-key-of-the-file"
LIVE = """
[[watch]]
name = "live"
bucket = "live-1250000001"
region = "ap-shanghai"
tags = ["Transcode"]
credentials = "live"
"""


def write_keys(stage: Stage, secret_id: str, key: str, folder: Path) -> str:
    """Put a file with these keys, which CI knows from now on; return its path."""
    stage.ci.credentials[secret_id] = key
    (folder / "new").write_text(json.dumps({"Credentials": {"TmpSecretId": secret_id, "TmpSecretKey": key}}))
    return str((folder / "new").replace(folder / "keys.json"))


def asked_by(stage: Stage, bucket: str) -> set[str]:
    """Return the ids of the keys with which the jobs of a bucket were requested."""
    asked = [request for request in stage.ci.requests if request.headers["host"].startswith(bucket)]
    return {dict(part.split("=", 1) for part in r.headers["authorization"].split("&"))["q-ak"] for r in asked}


def test_accounts_are_polled_side_by_side_each_with_its_keys(stage: Stage, tmp_path: Path) -> None:
    stage.rules_file.write_text(RULES + LIVE)
    file = write_keys(stage, "AKIDlive", KEY, tmp_path)
    polled = stage.command("poll", LIVE_CREDENTIALS_FILE=file)
    assert polled.exit_code == 0, polled.output
    assert asked_by(stage, "media-1250000000") == {DEMO_SECRET_ID}
    assert asked_by(stage, "live-1250000001") == {"AKIDlive"}


def test_the_usual_key_may_be_missing_where_no_watch_needs_it(stage: Stage) -> None:
    stage.rules_file.write_text(RULES.replace('region = "ap-chongqing"', 'region = "ap-chongqing"\ncredentials = "m"'))
    keys = {"M_SECRET_ID": DEMO_SECRET_ID, "M_SECRET_KEY": DEMO_SECRET_KEY}
    none = {"TENCENTCLOUD_SECRET_ID": "", "TENCENTCLOUD_SECRET_KEY": ""}
    healthy = stage.command("doctor", **keys, **none)
    assert healthy.exit_code == 0, healthy.stdout
    assert "ok    credentials m: the keys of M_SECRET_ID\n" in healthy.stdout
    assert stage.command("poll", **keys, **none).exit_code == 0
    stage.rules_file.write_text(RULES)
    missing = stage.command("poll", **keys, **none)
    assert missing.exit_code == 1
    assert "TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY are not set" in missing.stderr


def test_doctor_checks_each_set_of_keys(stage: Stage, tmp_path: Path) -> None:
    stage.rules_file.write_text(RULES + LIVE)
    file = tmp_path / "keys.json"
    file.write_text('{"SecretId": "AKIDlive"}')
    failing = stage.command("doctor", LIVE_CREDENTIALS_FILE=str(file))
    assert failing.exit_code == 1
    assert "ok    credentials: the key of TENCENTCLOUD_SECRET_ID\n" in failing.stdout
    why = 'credentials "live": the file of LIVE_CREDENTIALS_FILE cannot be used: it has no TmpSecretId and TmpSecretKey'
    assert f"FAIL  credentials live: {why}" in failing.stdout
    assert "watch live" not in failing.stdout  # that is all that is wrong with it
    assert "ok    watch media, Transcode" in failing.stdout
    keys = {"TmpSecretId": "AKIDwrong", "TmpSecretKey": KEY, "Token": "t"}
    file.write_text(json.dumps({"Response": {"Credentials": keys, "ExpiredTime": 4_000_000_000}}))
    unknown = stage.command("doctor", LIVE_CREDENTIALS_FILE=str(file))
    until = "the keys of the file of LIVE_CREDENTIALS_FILE, until 2096-10-02T07:06:40Z"
    assert f"ok    credentials live: {until}\n" in unknown.stdout
    assert 'FAIL  watch live, Transcode: credentials "live": live-1250000001' in unknown.stdout


def test_credentials_that_the_environment_lacks_are_reported_by_rules_check(stage: Stage) -> None:
    stage.rules_file.write_text(RULES + LIVE)
    seen = stage.command("rules", "check", str(stage.rules_file))
    assert seen.exit_code == 1
    assert "neither LIVE_SECRET_ID and LIVE_SECRET_KEY nor LIVE_CREDENTIALS_FILE are set" in seen.output


def test_a_worker_takes_renewed_keys_and_keeps_them_out_of_log_and_record(stage: Stage, tmp_path: Path) -> None:
    key = "renewed-key-of-the-file"
    stage.rules_file.write_text(RULES + LIVE)
    stage.refuse = lambda _: Answer(status=500, body=f"you are {key}, or {KEY}".encode())
    file = write_keys(stage, "AKIDone", KEY, tmp_path)
    stage.start_worker(LIVE_CREDENTIALS_FILE=file)
    wait_until(lambda: "AKIDone" in asked_by(stage, "live-1250000001"), why=lambda: stage.log)
    write_keys(stage, "AKIDtwo", key, tmp_path)
    wait_until(lambda: "AKIDtwo" in asked_by(stage, "live-1250000001"), why=lambda: stage.log)
    stage.ci.create("live-1250000001", "Transcode", "p9")
    wait_until(stage.deliveries, why=lambda: stage.log)
    show = ("deliveries", "show", stage.deliveries()[0]["id"], "--json")
    wait_until(lambda: json.loads(stage.command(*show).stdout)["tries"], why=lambda: stage.log)
    assert "you are [secret], or [secret]" in stage.command(*show).stdout
    assert key not in stage.log
