"""Environment variables as people write them: with a newline, in quotes, empty, or wrong."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path

import pytest
from click.testing import Result

from bridge.decide.rulesfile.errors import RulesRefused
from bridge.decide.rulesfile.read import read as read_rules
from bridge.notifiers import SlackNotifier, WebhookNotifier
from bridge.settings import Settings, SettingsRefused, read
from bridge.simulator.ci import DEMO_SECRET_ID, DEMO_SECRET_KEY
from tests.support.commands import call
from tests.support.stage import SECRET

AROUND = ("{}\n", "{}\r\n", " {}", "{}\t ", "\ufeff{}", "\u200b{}\u200b", "\u00a0{}", "{}\u2028")
NOTHING = ("", " ", "\n", "\r\n\t", "\ufeff", "\u200b", "\u00a0")
RIGHT = {
    "DATABASE_URL": "sqlite:///other.db",
    "PORT": "8080",
    "WEB_CONCURRENCY": "2",
    "LOG_LEVEL": "debug",
    "TENCENTCLOUD_SECRET_ID": "AKID",
    "TENCENTCLOUD_SECRET_KEY": "a-key",
    "TENCENTCLOUD_SECURITY_TOKEN": "a-security-token",
    "BRIDGE_RULES": "mine.toml",
    "BRIDGE_ADMIN_TOKEN": "admin",
    "BRIDGE_READ_TOKEN": "reader",
    "BRIDGE_TOKENS": "ops:admin:t1, desk:read:t2",
    "BRIDGE_CALLBACK_TOKEN": "callback",
    "BRIDGE_PUBLIC_URL": "https://bridge.example.com",
    "BRIDGE_CI_ENDPOINT": "http://127.0.0.1:9",
    "BRIDGE_ALLOW_NETWORKS": "10.1.0.0/16",
    "BRIDGE_EGRESS_PROXY": "http://proxy:3128",
    "SLACK_API_URL": "http://127.0.0.1:9/api/",
}


@pytest.mark.parametrize("written", AROUND)
def test_invisible_characters_around_a_value_are_ignored(written: str) -> None:
    assert read({name: written.format(value) for name, value in RIGHT.items()}) == read(RIGHT)


@pytest.mark.parametrize("written", ["new,old", "new, old", "new old", ",new,,old,", "new,old,new"])
def test_two_tokens_for_callbacks_may_be_set_and_both_are_secret(written: str) -> None:
    settings = read({"BRIDGE_CALLBACK_TOKEN": written})

    assert settings.callback_tokens == ("new", "old")
    assert {"new", "old"} <= set(settings.secrets)


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("a,b,c", "it has 3 tokens"), ("a/b", "part of an address"), ("a%20b", "part of an address"),
        ("schlüssel", "part of an address"), ("a?b", "part of an address"), (",", "it has no token"),
    ],
)  # fmt: skip
def test_a_token_for_callbacks_that_cannot_be_part_of_an_address_is_refused(written: str, why: str) -> None:
    with pytest.raises(SettingsRefused, match=why) as refused:
        read({"BRIDGE_CALLBACK_TOKEN": written})
    assert len(written) == 1 or written not in str(refused.value)


def test_named_tokens_have_a_role_and_are_secret() -> None:
    settings = read({"BRIDGE_TOKENS": " ops:admin:se:cret , desk : read : two, "})
    assert settings.named_tokens == (("ops", "admin", "se:cret"), ("desk", "read", "two"))
    assert {"se:cret", "two"} <= set(settings.secrets)
    assert "se:cret" not in repr(settings)
    assert settings.has_admin_token
    assert not read({"BRIDGE_TOKENS": "desk:read:two", "BRIDGE_READ_TOKEN": "r"}).has_admin_token


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("hushhush", "token 1 is empty, or has no"), ("ops:hushhush", "token 1 is empty, or has no"),
        ("ops:admin:", "token 1 is empty"),
        (":admin:hushhush", "token 1 has no name"), ("o ps:admin:hushhush", "token 1 has no name"),
        ("x" * 41 + ":admin:hushhush", "token 1 has no name"),
        ("ops:root:hushhush", 'the token "ops" has a role that is neither'),
        ("admin:admin:hushhush", 'the token "admin" needs another name'), ("api:read:hushhush", "needs another name"),
        ("ops:admin:hushhush,ops:read:b", '"ops" has the name of an earlier one'),
        ("ops:admin:hushhush,desk:read:hushhush", '"desk" is the same as another token'),
        ("ops:admin:taken", '"ops" is the same as another token'), (",", "commas alone"),
        (",".join(f"t{n}:read:hushhush{n}" for n in range(201)), "it has 201 tokens"),
    ],
)  # fmt: skip
def test_named_tokens_that_are_wrong_are_refused_without_being_shown(written: str, why: str) -> None:
    with pytest.raises(SettingsRefused, match=why) as refused:
        read({"BRIDGE_TOKENS": written, "BRIDGE_ADMIN_TOKEN": "taken"})
    assert str(refused.value).startswith("BRIDGE_TOKENS: ")
    assert "hush" not in str(refused.value)


def test_all_faults_of_named_tokens_are_said_at_once() -> None:
    with pytest.raises(SettingsRefused) as refused:
        read({"BRIDGE_TOKENS": "ops:root:a1,desk:read:"})
    assert str(refused.value) == (
        'BRIDGE_TOKENS: the token "ops" has a role that is neither admin nor read; token 2 is empty, or has no '
        "name or role; write NAME:ROLE:TOKEN, with commas between several"
    )


@pytest.mark.parametrize("nothing", NOTHING)
def test_a_value_of_invisible_characters_counts_as_not_set(nothing: str) -> None:
    assert read(dict.fromkeys([*RIGHT, "BRIDGE_RULES_TOML", "DYNO", "RENDER"], nothing)) == Settings()


RULES = """
[[watch]]
name = "w"
bucket = "media-1250000000"
region = "ap-chongqing"
tags = ["Transcode"]

[notifier.cms]
type = "webhook"
url = { env = "CMS_URL" }
secret = { env = ["CMS_SECRET", "CMS_SECRET_OLD"] }
headers = { "Authorization" = { env = "CMS_HEADER" } }

[notifier.ops]
type = "slack"
channel = "C024BE91L"
token = { env = "SLACK_BOT_TOKEN" }

[[rule]]
name = "r"
notify = ["cms", "ops"]
"""
NAMED = {
    "CMS_URL": "https://cms.example.com/hook",
    "CMS_SECRET": SECRET,
    "CMS_SECRET_OLD": SECRET[:-1] + "x",
    "CMS_HEADER": 'Token token="abc"',
    "SLACK_BOT_TOKEN": "xoxb-1",
}


@pytest.mark.parametrize("written", AROUND)
def test_values_that_the_rules_name_are_trimmed_too(written: str) -> None:
    book = read_rules(RULES, {name: written.format(value) for name, value in NAMED.items()})
    cms, ops = book.notifiers["cms"], book.notifiers["ops"]
    assert isinstance(cms, WebhookNotifier)
    assert isinstance(ops, SlackNotifier)
    assert (cms.url, cms.secrets) == (NAMED["CMS_URL"], (SECRET, NAMED["CMS_SECRET_OLD"]))
    assert cms.headers == (("Authorization", NAMED["CMS_HEADER"]),)
    assert ops.token == NAMED["SLACK_BOT_TOKEN"]


@pytest.mark.parametrize("nothing", NOTHING)
def test_each_empty_value_that_the_rules_name_is_an_error(nothing: str) -> None:
    with pytest.raises(RulesRefused) as refused:
        read_rules(RULES, dict.fromkeys(NAMED, nothing))
    for name in NAMED:
        assert f"environment variable {name} is empty" in str(refused.value)


@pytest.mark.parametrize("quoted", ['"{}"', "'{}'", '"{}"\n', "“{}”"])
def test_a_value_in_quotes_is_refused_without_being_shown(quoted: str) -> None:
    with pytest.raises(SettingsRefused) as refused:
        read({name: quoted.format(value) for name, value in RIGHT.items()})
    lines = str(refused.value).splitlines()
    assert sorted(line.partition(":")[0] for line in lines) == sorted(RIGHT)
    assert all("is in quotes, which would be part of the value: remove them" in line for line in lines)
    assert "a-key" not in str(refused.value)


@pytest.mark.parametrize("name", ["CMS_URL", "CMS_SECRET", "SLACK_BOT_TOKEN"])
def test_a_value_in_quotes_that_the_rules_name_is_refused(name: str) -> None:
    with pytest.raises(RulesRefused, match=f"the value of {name} .*is in quotes"):
        read_rules(RULES, NAMED | {name: f'"{NAMED[name]}"'})


@pytest.mark.parametrize("name", ["BRIDGE_ADMIN_TOKEN", "BRIDGE_READ_TOKEN", "TENCENTCLOUD_SECRET_KEY"])
@pytest.mark.parametrize(
    ("wrong", "reason"),
    [("hush\u200bhush", "invisible character"), ("hush\nhush", "invisible character"), ("hush\udcff", "is not UTF-8")],
)
def test_a_token_that_cannot_be_sent_is_refused_without_being_shown(name: str, wrong: str, reason: str) -> None:
    with pytest.raises(SettingsRefused, match=reason) as refused:
        read({name: wrong})
    assert str(refused.value).startswith(f"{name}: ")
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("wrong", ["xoxb-1\nxoxb-2", "xoxb-\u200b1", "xöxb", "xoxb 1"])
def test_a_slack_token_that_no_header_can_carry_is_refused_without_being_shown(wrong: str) -> None:
    with pytest.raises(RulesRefused, match="the value of SLACK_BOT_TOKEN is no token") as refused:
        read_rules(RULES, NAMED | {"SLACK_BOT_TOKEN": wrong})
    assert wrong not in str(refused.value)


ODD = (
    *NOTHING, "auto", "None", "0", "-1", "+1", "1.5", "1e3", "0x10", "١٢", "²", "99999999999", "9" * 5000, "a b",
    "a\nb", "\x01", "\x1b[2J", "é", "😀", "\u202egpj", "\udcff\udcfe", '"quoted"', "'", "%s", "{}", "~", "/",
    "/dev/null", ",", "x" * 100_000,
)  # fmt: skip
ODD_URLS = (
    "//", "://", "http:", "http://", "https://", "http:///", "http://[", "http://[::1", "http://[::1]x/", "http://h:0",
    "http://h:99999", "http://h:x", "http://ü..x/", "http://" + "a" * 300, "http://ü:3128", "http://a:ü@h:1",
    "http://a b/", "http://h\\x", "http://u:p@h/", "http://h/?a=ü", "http://h/#", "ftp://h", "HTTP://H:080/%/",
    "http://" + "a." * 200, "http://💩/", "socks5://h:1",
)  # fmt: skip
ODD_DATABASES = (
    "sqlite", "sqlite:", "sqlite://", "sqlite:///", "sqlite:////", "sqlite:///.", "sqlite:///:memory:",
    "sqlite://host/b.db", "sqlite:///?mode=memory", "sqlite:///b.db?foo=bar", "sqlite:///" + "a" * 300,
    "sqlite:///file:b.db?uri=true", "sqlite3:///b.db", "sqlite+aiosqlite:///b.db",
    "sqlite+pysqlcipher://:p@/b.db", "sqlite:///not-there/b.db", "b.db", "postgres", "postgres:", "postgres://",
    "postgresql://127.0.0.1:x/d", "postgresql://127.0.0.1:99999/d", "postgresql://a@b@c/d", "postgresql+psycopg2://",
    "postgresql+asyncpg://127.0.0.1:1/d?ssl=require", "postgresql://127.0.0.1:1/d?foo=bar", "mysql://h/d",
    "postgresql://127.0.0.1:1/d?connect_timeout=x", "jdbc:postgresql://h/d", "POSTGRES://127.0.0.1:1/d",
    "postgres+://127.0.0.1:1/d", "mysql+pymysql://h/d", "postgresql://%zz@127.0.0.1:1/%", "redis://h",
    "host=h dbname=d",
    "postgresql://127.0.0.1:1/d?prepare_threshold=x", "postgresql://127.0.0.1:1/d?host=127.0.0.1&host=127.0.0.2",
)  # fmt: skip
URLS = ("BRIDGE_CI_ENDPOINT", "SLACK_API_URL", "BRIDGE_EGRESS_PROXY", "CMS_URL")
# It sets up all that `run` and `worker` do, and stops before it contacts anybody.
POLL = ("poll", "--watch", "nobody's")


def started(words: tuple[str, ...], folder: Path, environ: Mapping[str, str]) -> Result:
    usual = {
        "BRIDGE_CI_ENDPOINT": "http://127.0.0.1:1",
        "BRIDGE_EGRESS_PROXY": "http://127.0.0.1:1",
        "SLACK_API_URL": "http://127.0.0.1:1",
        "DATABASE_URL": f"sqlite:///{folder / 'bridge.db'}",
        "TENCENTCLOUD_SECRET_ID": DEMO_SECRET_ID,
        "TENCENTCLOUD_SECRET_KEY": DEMO_SECRET_KEY,
        "BRIDGE_RULES_TOML": RULES,
        **NAMED,
    }
    return call(*words, **{**usual, **environ})


def is_readable(seen: Result) -> bool:
    """Return whether a refusal has one line of reasonable length for each error."""
    lines = seen.output.splitlines()
    return seen.exit_code in (0, 1, 2) and "Traceback" not in seen.output and all(len(line) < 600 for line in lines)


@pytest.mark.parametrize("name", [*RIGHT, "BRIDGE_RULES_TOML", *NAMED])
def test_no_value_of_any_variable_makes_a_traceback(name: str, tmp_path: Path) -> None:
    with chdir(tmp_path):
        for odd in (*ODD, *(ODD_URLS if name in URLS else ())):
            seen = started(POLL, tmp_path, {name: odd})
            assert is_readable(seen), (odd[:80], seen.output[:2000])


@pytest.mark.parametrize("words", [POLL, ("db", "upgrade"), ("jobs", "list"), ("doctor",)], ids=" ".join)
def test_no_address_of_a_database_makes_a_traceback(words: tuple[str, ...], tmp_path: Path) -> None:
    with chdir(tmp_path):
        for odd in ODD_DATABASES:
            seen = started(words, tmp_path, {"DATABASE_URL": odd, "TENCENTCLOUD_SECRET_ID": "not a key"})
            assert is_readable(seen), (odd[:80], seen.output[:2000])


PLATFORMS = ["DYNO", "RENDER", "RAILWAY_ENVIRONMENT", "RAILWAY_SERVICE_ID", "RAILWAY_PROJECT_ID"]
PLATFORMS_IF_NEW = [
    "FLY_APP_NAME", "FLY_MACHINE_ID", "KOYEB_APP_NAME", "KOYEB_SERVICE_NAME", "K_SERVICE", "CLOUD_RUN_JOB",
    "CLOUD_RUN_WORKER_POOL", "KUBERNETES_SERVICE_HOST",
]  # fmt: skip


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("url", ["", "sqlite:///bridge.db", "SQLite3:////data/bridge.db", "sqlite+pysqlite:///b.db"])
def test_sqlite_is_refused_on_platforms_with_an_ephemeral_disk(platform: str, url: str) -> None:
    with pytest.raises(SettingsRefused, match="BRIDGE_DISK=kept if it is on a volume, or add a PostgreSQL database"):
        read({platform: "x", "DATABASE_URL": url})
    assert read({platform: "x", "DATABASE_URL": "postgres+psycopg2://h/d"}).database_url
    assert read({platform: "x", "DATABASE_URL": url, "BRIDGE_DISK": "kept\n"}).disk == "kept"


@pytest.mark.parametrize("wrong", ["yes", "1", "keep", "/data"])
def test_another_value_of_bridge_disk_is_refused(wrong: str) -> None:
    with pytest.raises(SettingsRefused, match=r"BRIDGE_DISK: .* write kept"):
        read({"BRIDGE_DISK": wrong})


def test_sqlite_is_accepted_on_the_platforms_volume(tmp_path: Path) -> None:
    volume, beside, link = tmp_path / "volume", tmp_path / "volume-too", tmp_path / "link"
    for folder in (volume, beside):
        folder.mkdir()
    link.symlink_to(volume)
    there = {"RAILWAY_PROJECT_ID": "x", "RAILWAY_VOLUME_MOUNT_PATH": f"{volume}\n"}
    for path in (f"{volume}/bridge.db", f"{volume}/a/../bridge.db", f"{link}/bridge.db"):
        assert read({**there, "DATABASE_URL": f"sqlite:///{path}"}).new_file_lost is None
    with chdir(volume):
        assert read({**there, "DATABASE_URL": "sqlite:///bridge.db"}).new_file_lost is None
    for path in (f"{beside}/bridge.db", f"{volume}/../bridge.db", f"{tmp_path}/bridge.db"):
        with pytest.raises(SettingsRefused, match=f"not on the volume: write sqlite:///{volume}/bridge.db"):
            read({**there, "DATABASE_URL": f"sqlite:///{path}"})


@pytest.mark.parametrize("platform", PLATFORMS_IF_NEW)
def test_where_the_disk_may_be_ephemeral_only_a_new_file_is_refused(platform: str, tmp_path: Path) -> None:
    for words in (POLL, ("db", "upgrade"), ("doctor",)):
        seen = started(words, tmp_path, {platform: "x", "TENCENTCLOUD_SECRET_ID": "not a key"})
        assert (seen.exit_code, list(tmp_path.iterdir())) == (1, [])
        assert f"{platform} is set) a new one would be lost at the next restart" in seen.output
    assert started(("rules", "check"), tmp_path, {platform: "x"}).exit_code == 0
    assert started(("db", "upgrade"), tmp_path, {platform: "x", "BRIDGE_DISK": "kept"}).exit_code == 0
    assert started(("db", "upgrade"), tmp_path, {platform: "x"}).exit_code == 0  # it is there now


# --- where the pages are ------------------------------------------------------------------------------

PLATFORM_URLS = {
    "RENDER_EXTERNAL_URL": "https://bridge.onrender.com",
    "RAILWAY_PUBLIC_DOMAIN": "bridge.up.railway.app",
    "HEROKU_APP_DEFAULT_DOMAIN_NAME": "bridge-1234567890ab.herokuapp.com",
    "FLY_APP_NAME": "bridge",
}
KEPT = {"BRIDGE_DISK": "kept"}


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("https://bridge.example.com", "https://bridge.example.com"),
        ("https://Bridge.example.com/\n", "https://bridge.example.com"),
        ("http://10.0.0.7:8000//", "http://10.0.0.7:8000"),
        ("https://br\u00fccke.example", "https://xn--brcke-lva.example"),
        ("http://[::1]:8000/", "http://[::1]:8000"),
    ],
)
def test_the_public_url_is_kept_without_a_slash_at_its_end(written: str, url: str) -> None:
    settings = read({"BRIDGE_PUBLIC_URL": written, **PLATFORM_URLS, **KEPT})
    assert (settings.public_url, settings.web_url) == (url, url)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("https://ann:hush@bridge.example.com", "without user, password and query"),
        ("https://bridge.example.com/?token=hush", "without user, password and query"),
        ("https://bridge.example.com/#hush", "without user, password and query"),
        ("https://bridge.example.com/hush", "do not work below a path"),
        ("https://bridge.example.com/%2e%2e/hush", "do not work below a path"),
        ("bridge.example.com/hush", "must begin with https://"),
        ("javascript:hush()", "must begin with https://"),
        ("https:///hush", "names no host"),
        ("https://bridge.example.com|hush", "not a valid name"),
        ("https://bridge.example.com>hush", "not a valid name"),
    ],
)
def test_a_public_url_that_pages_cannot_have_is_refused_without_being_shown(wrong: str, why: str) -> None:
    with pytest.raises(SettingsRefused, match=rf"BRIDGE_PUBLIC_URL: .*{why}") as refused:
        read({"BRIDGE_PUBLIC_URL": wrong})
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("RENDER_EXTERNAL_URL", "https://bridge.onrender.com"),
        ("RAILWAY_PUBLIC_DOMAIN", "https://bridge.up.railway.app"),
        ("HEROKU_APP_DEFAULT_DOMAIN_NAME", "https://bridge-1234567890ab.herokuapp.com"),
        ("FLY_APP_NAME", "https://bridge.fly.dev"),
    ],
)
def test_a_platform_says_where_a_web_process_is(name: str, url: str) -> None:
    settings = read({name: PLATFORM_URLS[name], **KEPT})
    assert (settings.public_url, settings.web_url) == (None, url)


@pytest.mark.parametrize("name", PLATFORM_URLS)
@pytest.mark.parametrize(
    "wrong", ["", " ", '"x"', "ann:hush@x", "x/path", "x?y", "a b", "x\\y", "<x|y>", "-\u200b-", "x" * 9000]
)
def test_what_a_platform_says_and_is_no_address_is_ignored(name: str, wrong: str) -> None:
    assert read({name: wrong, **KEPT}).web_url is None


def test_what_is_no_address_hides_no_other_one() -> None:
    assert read({**PLATFORM_URLS, "RENDER_EXTERNAL_URL": "?"}).web_url == "https://bridge.up.railway.app"
