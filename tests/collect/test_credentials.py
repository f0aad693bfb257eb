"""Whose keys sign a call, and when keys of a file or of a machine's role are read again."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge.collect.client import TencentCi
from bridge.collect.credentials import LARGEST, parse
from bridge.collect.errors import CiError, TemporaryError
from bridge.model import KeySource
from tests.collect.conftest import CREDENTIALS, NOW, STREAM, Clock, FakeCi, answer, refusal
from tests.support.proxies import Proxy
from tests.support.receivers import Receiver, answering, dripping

SOON = int(NOW.timestamp()) + 3600
KEY, TOKEN = "media-made-up-key", "media-made-up-token"


def sts(secret_id: str = "AKIDsts", *, ends: int | None = SOON, key: str = KEY, token: str = TOKEN) -> dict[str, Any]:
    """What GetFederationToken and AssumeRole answer."""
    inner = {"Token": token, "TmpSecretId": secret_id, "TmpSecretKey": key}
    return {"Credentials": inner, "ExpiredTime": ends, "Expiration": "2026-11-21T10:00:00Z", "RequestId": "r"}


def of_a_role(secret_id: str = "AKIDrole", *, ends: int = SOON) -> dict[str, Any]:
    """What the metadata service answers."""
    inner = {"TmpSecretId": secret_id, "TmpSecretKey": KEY, "Token": TOKEN, "ExpiredTime": ends}
    return inner | {"Expiration": "2026-11-21T10:00:00Z", "Code": "Success"}


class Rig:
    """A client whose clock stands still, its sources of keys, and the CI that it asks."""

    def __init__(self, stack: ExitStack, fake_ci: FakeCi, clock: Clock, folder: Path) -> None:
        self.clock, self.file, self.fake_ci = clock, folder / "keys.json", fake_ci
        self.sources: dict[str, KeySource] = {}
        self.metadata = stack.enter_context(FakeCi())
        self.ci = stack.enter_context(
            TencentCi(
                credentials=CREDENTIALS,
                endpoint=fake_ci.url,
                sources=lambda: self.sources,
                metadata_url=self.metadata.url,
                clock=clock,
                monotonic=clock,
                sleep=clock.sleep,
            )
        )
        fake_ci.will(answer())

    def write(self, content: Any, *, seconds_ago: float = 60) -> None:
        """Put a new file in the place of the old one, as a program that renews keys should."""
        new = self.file.with_suffix(".new")
        new.write_text(content if isinstance(content, str) else json.dumps(content))
        changed = self.clock.now - seconds_ago
        os.utime(new, (changed, changed))
        new.replace(self.file)

    def from_file(self) -> None:
        self.sources = {"media": KeySource(name="media", file=str(self.file))}

    def from_role(self, *answers: dict[str, Any]) -> None:
        self.sources = {"role": KeySource(name="role")}
        self.metadata.will(
            *(part for one in answers for part in (answer(body=b"CI_Role\n"), answer(body=json.dumps(one).encode())))
        )

    def signed_by(self, credentials: str | None) -> tuple[str, str | None]:
        """List a page; return the key's id and the token that came with it."""
        self.ci.list(replace(STREAM, place=replace(STREAM.place, credentials=credentials)))
        asked = self.fake_ci.asked[-1]
        return asked.signed["q-ak"], asked.headers.get("x-ci-security-token")

    def refusal_of(self, credentials: str) -> str:
        with pytest.raises(CiError) as caught:
            self.signed_by(credentials)
        assert KEY not in str(caught.value)
        assert TOKEN not in str(caught.value)
        return str(caught.value)


@pytest.fixture
def rig(fake_ci: FakeCi, clock: Clock, tmp_path: Path) -> Iterator[Rig]:
    with ExitStack() as stack:
        yield Rig(stack, fake_ci, clock, tmp_path)


# --- variables --------------------------------------------------------------------------------------------------------


def test_each_watch_is_asked_for_with_its_own_keys(rig: Rig) -> None:
    rig.sources = {
        "media": KeySource(name="media", secret_id="AKIDmedia", secret_key="k1"),
        "live": KeySource(name="live", secret_id="AKIDlive", secret_key="k2", token="t2"),
    }
    assert rig.signed_by("media") == ("AKIDmedia", None)
    assert rig.signed_by("live") == ("AKIDlive", "t2")
    assert rig.signed_by(None) == ("AKIDtest", None)
    assert rig.metadata.asked == []


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ("signature_does_not_match_403.xml", "check MEDIA_EU_SECRET_ID and MEDIA_EU_SECRET_KEY"),
        ("expired_token_400.xml", "renew MEDIA_EU_SECURITY_TOKEN, with the keys that came with it"),
    ],
)
def test_keys_that_ci_refuses_are_named_with_their_variables(rig: Rig, error: str, advice: str) -> None:
    rig.sources = {"media-eu": KeySource(name="media-eu", secret_id="i", secret_key=KEY, token=TOKEN)}
    rig.fake_ci.will(refusal(error))
    said = rig.refusal_of("media-eu")
    assert said.startswith('credentials "media-eu": clips-1250000000.ci.ap-chongqing.myqcloud.com refused: ')
    assert said.endswith(advice)


def test_what_ci_repeats_of_keys_is_masked_whosever_they_are(rig: Rig) -> None:
    rig.sources = {"media": KeySource(name="media", secret_id="i", secret_key=KEY)}
    rig.fake_ci.will(answer(403, f"<Error><Code>AccessDenied</Code><Message>{KEY}?</Message></Error>".encode()))
    assert "[secret]?" in rig.refusal_of("media")


def test_keys_that_the_rules_no_longer_name_are_not_used(rig: Rig) -> None:
    assert rig.refusal_of("media") == 'credentials "media": rules.toml does not name them any more'
    assert rig.fake_ci.asked == []


def test_watches_of_one_bucket_share_its_pace_whatever_their_keys(fake_ci: FakeCi, clock: Clock) -> None:
    fake_ci.will(answer())
    sources = {"media": KeySource(name="media", secret_id="i", secret_key="k")}
    with TencentCi(
        credentials=CREDENTIALS,
        endpoint=fake_ci.url,
        sources=lambda: sources,
        clock=clock,
        monotonic=clock,
        sleep=clock.sleep,
    ) as ci:
        for credentials in (None, "media") * 3:
            ci.list(replace(STREAM, place=replace(STREAM.place, credentials=credentials)))
        # Five a second: the sixth waits, though each pair of keys was used three times only.
        assert clock.slept == [1]
        ci.list(replace(STREAM, place=replace(STREAM.place, bucket="stills-1250000000", credentials="media")))
    assert clock.slept == [1]


# --- a file -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        sts(),
        {"Response": sts()},
        {"SecretId": "AKIDsts", "SecretKey": KEY, "Token": TOKEN},
        {"credentials": {"tmpSecretId": "AKIDsts", "tmpSecretKey": KEY, "sessionToken": TOKEN}, "expiredTime": SOON},
        "\ufeff" + json.dumps(sts()),
    ],
)
def test_a_file_has_keys_as_sts_prints_them(rig: Rig, content: Any) -> None:
    rig.write(content)
    rig.from_file()
    assert rig.signed_by("media") == ("AKIDsts", TOKEN)


def test_a_file_may_have_lasting_keys(rig: Rig) -> None:
    rig.write({"SecretId": "AKIDlasting", "SecretKey": KEY})
    rig.from_file()
    assert rig.signed_by("media") == ("AKIDlasting", None)


def test_a_file_that_changes_is_read_again(rig: Rig) -> None:
    rig.write(sts("AKIDone"))
    rig.from_file()
    assert rig.signed_by("media")[0] == "AKIDone"
    rig.write(sts("AKIDtwo"))  # as long, and as old: only its inode differs
    assert rig.signed_by("media")[0] == "AKIDtwo"


def test_a_file_that_changed_just_now_is_read_again_though_its_times_are_the_same(rig: Rig) -> None:
    rig.write(sts("AKIDone"), seconds_ago=1)
    rig.from_file()
    assert rig.signed_by("media")[0] == "AKIDone"
    known = rig.file.stat()
    rig.file.write_text(json.dumps(sts("AKIDtwo")))
    os.utime(rig.file, ns=(known.st_atime_ns, known.st_mtime_ns))
    assert rig.signed_by("media")[0] == "AKIDtwo"


BROKEN = [
    ("", "the file of MEDIA_CREDENTIALS_FILE cannot be used: it is not JSON"),
    ("[" * 100_0, "the file of MEDIA_CREDENTIALS_FILE cannot be used: it is not JSON"),
    ("[]", "the file of MEDIA_CREDENTIALS_FILE cannot be used: it is not an object with keys"),
    ("{}", "cannot be used: it has no TmpSecretId and TmpSecretKey, nor SecretId and SecretKey"),
    ({"SecretId": "i", "SecretKey": 5}, "cannot be used: what it has as tmpsecretkey is no key"),
    ({"SecretId": "i", "SecretKey": f"{KEY}\n{KEY}"}, "cannot be used: what it has as tmpsecretkey is no key"),
    ({"SecretId": "i", "SecretKey": f"{KEY} {KEY}"}, "the SECRET_KEY of the file of MEDIA_CREDENTIALS_FILE contains"),
    (sts(ends="soon"), "cannot be used: its ExpiredTime is not a time in Unix seconds"),  # type: ignore[arg-type]
    (sts(ends=10**30), "cannot be used: its ExpiredTime is not a time in Unix seconds"),
    (sts(ends=SOON - 3600), "the keys of the file of MEDIA_CREDENTIALS_FILE expired at 2026-11-21T09:00:00Z"),
    (json.dumps(sts()) + " " * LARGEST, "cannot be used: it has more than 65,536 bytes"),
]


@pytest.mark.parametrize(("content", "why"), BROKEN)
def test_a_file_without_usable_keys_is_an_error_that_quotes_nothing_of_it(rig: Rig, content: Any, why: str) -> None:
    rig.write(content)
    rig.from_file()
    said = rig.refusal_of("media")
    assert said.startswith('credentials "media": ')
    assert why in said
    assert rig.fake_ci.asked == []


@pytest.mark.parametrize(("content", "why"), BROKEN)
def test_a_broken_rewrite_keeps_the_old_keys_until_they_expire_and_is_told_once(
    rig: Rig, content: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    rig.write(sts("AKIDold"))
    rig.from_file()
    rig.signed_by("media")
    rig.write(content)
    assert [rig.signed_by("media")[0] for _ in range(3)] == ["AKIDold"] * 3
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert why in record.reason  # type: ignore[attr-defined]  # of `extra`
    assert KEY not in str(vars(record))
    rig.clock.now = SOON
    assert why in rig.refusal_of("media")
    rig.write(sts("AKIDnew", ends=SOON + 3600))
    assert rig.signed_by("media")[0] == "AKIDnew"


def test_a_file_that_is_taken_away_is_told_with_its_reason(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.write(sts("AKIDold"))
    rig.from_file()
    rig.signed_by("media")
    rig.file.unlink()
    assert rig.signed_by("media")[0] == "AKIDold"
    assert "cannot be read: No such file or directory" in caplog.records[0].reason  # type: ignore[attr-defined]
    rig.file.mkdir()
    assert rig.signed_by("media")[0] == "AKIDold"
    rig.file.rmdir()
    os.mkfifo(rig.file)
    assert rig.signed_by("media")[0] == "AKIDold"
    assert "it is not a regular file" in caplog.records[-1].reason  # type: ignore[attr-defined]


def test_keys_that_ci_calls_expired_are_read_again_whatever_their_file_says(rig: Rig) -> None:
    rig.write(sts("AKIDold", ends=None))
    rig.from_file()
    rig.fake_ci.will(refusal("expired_token_400.xml"), answer())
    assert rig.refusal_of("media").endswith("renew the keys of the file of MEDIA_CREDENTIALS_FILE")
    rig.write("{}")  # and now nothing is left to fall back on
    assert "it has no TmpSecretId" in rig.refusal_of("media")


def test_keys_that_were_read_are_known_to_be_secret(rig: Rig) -> None:
    told: list[tuple[str, ...]] = []
    rig.ci.keys.on_new = lambda: told.append(rig.ci.keys.secrets)
    rig.from_file()
    for number in range(5):
        rig.write(sts(key=f"key-number-{number}", token=f"token-number-{number}"))
        rig.signed_by("media")
        rig.signed_by("media")
    assert len(told) == 5
    assert told[0] == ("key-number-0", "token-number-0")
    # The last three pairs: what was signed with older ones has long ended.
    assert told[-1] == tuple(f"{what}-number-{n}" for n in (2, 3, 4) for what in ("key", "token"))


def test_credentials_never_show_their_keys() -> None:
    shown = repr((parse(json.dumps(sts())), KeySource(name="x", secret_key=KEY, token=TOKEN)))
    assert KEY not in shown
    assert TOKEN not in shown


# --- the role of a machine --------------------------------------------------------------------------------------------


def test_a_role_is_asked_for_keys_and_again_before_they_expire(rig: Rig) -> None:
    rig.from_role(of_a_role("AKIDone"), of_a_role("AKIDtwo", ends=SOON + 3600))
    assert rig.metadata.asked == []  # only then
    assert rig.signed_by("role") == ("AKIDone", TOKEN)
    rig.clock.now = SOON - 301
    assert rig.signed_by("role")[0] == "AKIDone"
    assert [asked.resource for asked in rig.metadata.asked] == [
        "/latest/meta-data/cam/security-credentials/",
        "/latest/meta-data/cam/security-credentials/CI_Role",
    ]
    assert {asked.headers["host"] for asked in rig.metadata.asked} == {"metadata.tencentyun.com"}
    assert not any("authorization" in asked.headers for asked in rig.metadata.asked)
    rig.clock.now = SOON - 299
    assert rig.signed_by("role")[0] == "AKIDtwo"


def test_close_to_its_end_a_role_that_has_nothing_new_is_asked_every_ten_seconds(rig: Rig) -> None:
    rig.from_role(of_a_role())
    rig.signed_by("role")
    rig.from_role(*[of_a_role()] * 9)
    rig.clock.now = SOON - 60
    asked = len(rig.metadata.asked)
    for _ in range(20):
        rig.signed_by("role")
        rig.clock.now += 1
    assert len(rig.metadata.asked) - asked == 4  # two requests, twice


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        (answer(404), "no role is bound to this machine; bind one, of CAM, to the CVM"),
        (answer(500), "answered 500"),
        (answer(302, location="http://127.0.0.1:1/"), "answered 302"),
        (answer(body=b""), "no role is bound"),
        (answer(body=b"../../user-data"), "no role is bound"),
        (answer(body=b"x" * (LARGEST + 1)), "answer has more than 65,536 bytes"),
        (answer(body=b"Role"), "the metadata service's keys of role Role cannot be used: it is not JSON"),
    ],
)
def test_a_metadata_service_without_keys_is_told_and_its_redirects_are_not_followed(
    rig: Rig, behaviour: Any, why: str
) -> None:
    rig.sources = {"role": KeySource(name="role")}
    rig.metadata.will(behaviour)
    assert why in rig.refusal_of("role")
    assert rig.fake_ci.asked == []


def test_a_metadata_service_that_fails_is_asked_again_after_ten_seconds(rig: Rig) -> None:
    rig.sources = {"role": KeySource(name="role")}
    rig.metadata.will(answer(500))
    for _ in range(3):
        assert "answered 500" in rig.refusal_of("role")
    assert len(rig.metadata.asked) == 1
    rig.clock.now += 10
    rig.from_role(of_a_role())
    assert rig.signed_by("role")[0] == "AKIDrole"


def test_a_failing_metadata_service_leaves_the_keys_until_they_expire(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.from_role(of_a_role())
    rig.signed_by("role")
    rig.metadata.will(answer(500))
    for _ in range(29):
        rig.clock.now = max(rig.clock.now + 10, SOON - 290)
        assert rig.signed_by("role")[0] == "AKIDrole"
    assert len(caplog.records) == 1
    rig.clock.now = SOON
    assert "answered 500" in rig.refusal_of("role")


def test_a_metadata_service_that_drips_is_given_up_after_five_seconds() -> None:
    ticks = iter(range(10**6))
    with Receiver(dripping(b"HTTP/1.1 200 OK\r\n\r\n", b"x", 0.001)) as slow:
        url = f"http://127.0.0.1:{slow.port}"
        source = KeySource(name="role")
        with (
            TencentCi(
                credentials=CREDENTIALS,
                sources=lambda: {"role": source},
                metadata_url=url,
                monotonic=lambda: next(ticks) / 10,
            ) as ci,
            pytest.raises(TemporaryError, match="took longer than 5 s to answer"),
        ):
            ci.keys.of("role")


def test_the_metadata_service_is_asked_without_any_proxy(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    with Proxy() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        rig.from_role(of_a_role())
        assert rig.ci.keys.of("role").secret_id == "AKIDrole"
    assert len(rig.metadata.asked) == 2


def test_no_machine_but_a_cvm_has_a_role() -> None:
    with Receiver(answering("200 OK")) as nobody:
        port = nobody.port
    source = KeySource(name="role")
    with (
        TencentCi(
            credentials=CREDENTIALS, sources=lambda: {"role": source}, metadata_url=f"http://127.0.0.1:{port}"
        ) as ci,
        pytest.raises(TemporaryError, match=r'credentials "role": the metadata service of CVMs .* refused'),
    ):
        ci.keys.of("role")
