"""The settings, read once from the environment: every error at once, without secrets."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from bridge.environment import fault, lookup
from bridge.record.database import sqlite_path
from bridge.send.addresses import Network, parse_networks
from bridge.url import encoded

# Variables that identify platforms whose disk is lost at each restart, except for a volume.
# Platforms' documentation, read 2026-11-21 and, for the second group, 2026-11-30.
_EPHEMERAL = {
    "DYNO": "Heroku",
    "RENDER": "Render",
    **dict.fromkeys(("RAILWAY_ENVIRONMENT", "RAILWAY_SERVICE_ID", "RAILWAY_PROJECT_ID"), "Railway"),
}
# These were added later: an existing SQLite file is accepted there, with a volume or without.
_EPHEMERAL_IF_NEW = {
    **dict.fromkeys(("FLY_APP_NAME", "FLY_MACHINE_ID"), "Fly.io"),
    **dict.fromkeys(("KOYEB_APP_NAME", "KOYEB_SERVICE_NAME"), "Koyeb"),
    **dict.fromkeys(("K_SERVICE", "CLOUD_RUN_JOB", "CLOUD_RUN_WORKER_POOL"), "Cloud Run"),
    "KUBERNETES_SERVICE_HOST": "Kubernetes",
}
_MOST_CALLBACK_TOKENS = 2
_VOLUME = "RAILWAY_VOLUME_MOUNT_PATH"
# Variables in which a platform says where it serves this application. Pages read 2026-11-30:
# render.com/docs/environment-variables (web services only) · docs.railway.com/reference/variables ·
# devcenter.heroku.com/articles/dyno-metadata (a labs feature that is to be enabled) ·
# fly.io/docs/machines/runtime-environment, and fly.io/docs/networking/custom-domain for the name.
_SERVED_AT = {
    "RENDER_EXTERNAL_URL": "{}",
    "RAILWAY_PUBLIC_DOMAIN": "https://{}",
    "HEROKU_APP_DEFAULT_DOMAIN_NAME": "https://{}",
    "FLY_APP_NAME": "https://{}.fly.dev",
}
_ADVICE = (
    "set BRIDGE_DISK=kept if it is on a volume, or add a PostgreSQL database and set DATABASE_URL to postgres://..."
)


class SettingsRefused(Exception):
    """The environment is wrong; the text has one line for each variable."""


def _networks(value: object) -> object:
    return parse_networks(value) if isinstance(value, str) else value


Networks = Annotated[tuple[Network, ...], BeforeValidator(_networks)]


def _number(most: int) -> BeforeValidator:
    def check(value: object) -> object:
        if isinstance(value, str) and not (re.fullmatch("0*[1-9][0-9]{0,4}", value, re.ASCII) and int(value) <= most):
            raise ValueError(f"{_shown(value)} is not a whole number from 1 to {most}")
        return value

    return BeforeValidator(check)


def _url(value: str | None, *, user: bool) -> str | None:
    try:
        return value and encoded(value, user=user)
    except ValueError as error:
        raise ValueError(f"{error}; write an address such as https://host:port") from None


def _base_url(value: str) -> str:
    """Return the URL below which the pages are: without a path, since pages link to each other from the root."""
    if set("@?#") & set(value):  # it appears in messages
        raise ValueError("write an address without user, password and query, such as https://bridge.example.com")
    url = encoded(value)
    if urlsplit(url).path.strip("/"):
        raise ValueError("the pages do not work below a path: write an address such as https://bridge.example.com")
    return url.rstrip("/")


def _shown(value: str) -> str:
    return repr(value if len(value) <= 40 else value[:39] + "…")


class Settings(BaseModel):
    """The settings of this process."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, hide_input_in_errors=True)

    database_url: str = Field("sqlite:///bridge.db", repr=False)  # may have a password
    port: Annotated[int, _number(65535)] = 8000
    web_concurrency: Annotated[int, _number(64)] = 1
    log_level: str = "INFO"
    secret_id: str | None = Field(None, alias="TENCENTCLOUD_SECRET_ID")
    secret_key: SecretStr | None = Field(None, alias="TENCENTCLOUD_SECRET_KEY")
    security_token: SecretStr | None = Field(None, alias="TENCENTCLOUD_SECURITY_TOKEN")
    rules: str = Field("rules.toml", alias="BRIDGE_RULES")
    rules_toml: str | None = Field(None, alias="BRIDGE_RULES_TOML", repr=False)  # may have a secret url
    admin_token: SecretStr | None = Field(None, alias="BRIDGE_ADMIN_TOKEN")
    read_token: SecretStr | None = Field(None, alias="BRIDGE_READ_TOKEN")
    tokens: SecretStr | None = Field(None, alias="BRIDGE_TOKENS")
    callback_token: SecretStr | None = Field(None, alias="BRIDGE_CALLBACK_TOKEN")
    public_url: str | None = Field(None, alias="BRIDGE_PUBLIC_URL")
    ci_endpoint: str | None = Field(None, alias="BRIDGE_CI_ENDPOINT")
    allow_networks: Networks = Field((), alias="BRIDGE_ALLOW_NETWORKS")
    egress_proxy: str | None = Field(None, alias="BRIDGE_EGRESS_PROXY", repr=False)  # may have a password
    slack_api_url: str = Field("https://slack.com/api/", alias="SLACK_API_URL")
    http_proxy: str | None = Field(None, repr=False)  # these three are used for CI only
    https_proxy: str | None = Field(None, repr=False)
    no_proxy: str = ""
    ssl_cert_file: str | None = None
    disk: str | None = Field(None, alias="BRIDGE_DISK")
    _new_file_lost: str | None = PrivateAttr(default=None)
    _served_at: str | None = PrivateAttr(default=None)

    @field_validator("*", mode="before")
    @classmethod
    def _one_line(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, str) and info.field_name != "rules_toml" and (problem := fault(value)):
            raise ValueError(problem)
        return value

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, value: str) -> str:
        if value.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            raise ValueError(f'"{value[:40]}" is not a level; write DEBUG, INFO, WARNING or ERROR')
        return value.upper()

    @field_validator("ci_endpoint", "slack_api_url")
    @classmethod
    def _endpoint(cls, value: str | None) -> str | None:
        # It appears in errors and in the log.
        if value is not None and set("@?#") & set(value):
            raise ValueError("write an address without user, password and query, such as https://host:port")
        return _url(value, user=False)

    @field_validator("public_url")
    @classmethod
    def _base(cls, value: str | None) -> str | None:
        return value and _base_url(value)

    @field_validator("tokens")
    @classmethod
    def _named(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        others = [token.get_secret_value() for name in ("admin_token", "read_token") if (token := info.data.get(name))]
        if faults := list(_faults(_named_tokens(value), others)) if value else []:
            raise ValueError(f"{'; '.join(faults)}; write NAME:ROLE:TOKEN, with commas between several")
        return value

    @field_validator("callback_token")
    @classmethod
    def _parts_of_a_path(cls, value: SecretStr | None) -> SecretStr | None:
        tokens = _tokens(value)
        if value and not tokens:
            raise ValueError("it has no token, but commas alone")
        if not all(re.fullmatch(r"[\w.~-]+", token, re.ASCII) for token in tokens):
            raise ValueError("it is part of an address: use letters, digits and - . _ ~ only")
        if len(tokens) > _MOST_CALLBACK_TOKENS:
            raise ValueError(f"it has {len(tokens)} tokens: write the new one and the old one, with a comma between")
        return value

    @field_validator("egress_proxy")
    @classmethod
    def _proxy(cls, value: str | None) -> str | None:
        return _url(value, user=True)

    @field_validator("http_proxy", "https_proxy")
    @classmethod
    def _way_to_ci(cls, value: str | None) -> str | None:
        return _url(value if value is None or "://" in value else f"http://{value}", user=True)

    @field_validator("ssl_cert_file")
    @classmethod
    def _certificates(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            if Path(value).is_file():  # and not a device, which may be endless
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(value)
                return value
        except ssl.SSLError:  # no certificate in it, or a broken one
            pass
        except OSError as error:
            raise ValueError(f"{_shown(value)} cannot be read: {error.strerror}") from None
        raise ValueError(f"{_shown(value)} is not a file of certificates in PEM format")

    @field_validator("disk")
    @classmethod
    def _kept(cls, value: str | None) -> str | None:
        if value is not None and value.lower() != "kept":
            raise ValueError(f"{_shown(value)} is unknown; write kept if SQLite's file is on a volume, or nothing")
        return value and value.lower()

    @property
    def new_file_lost(self) -> str | None:
        """Why a new SQLite file would be lost at the next restart; None if it would not."""
        return self._new_file_lost

    @property
    def web_url(self) -> str | None:
        """Where people open the pages if this is a web process: as it was set, or as the platform says."""
        return self.public_url or self._served_at

    @property
    def missing_key(self) -> str | None:
        """Which part of CI's key is not set; None if it is complete."""
        names = {"TENCENTCLOUD_SECRET_ID": self.secret_id, "TENCENTCLOUD_SECRET_KEY": self.secret_key}
        missing = [name for name, value in names.items() if not value]
        if not missing:
            return None
        return (
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set: create a key in the CAM console"
        )

    @property
    def named_tokens(self) -> tuple[NamedToken, ...]:
        return _named_tokens(self.tokens)

    @property
    def has_admin_token(self) -> bool:
        return self.admin_token is not None or any(token.role == "admin" for token in self.named_tokens)

    @property
    def callback_tokens(self) -> tuple[str, ...]:
        """The tokens of which each lets callbacks of CI in: two while they are rotated."""
        return _tokens(self.callback_token)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret value, to be masked in the log and in the record."""
        tokens = (self.secret_key, self.security_token, self.admin_token, self.read_token)
        urls = filter(None, (self.database_url, self.egress_proxy, self.http_proxy, self.https_proxy))
        passwords = (password for url in urls for password in _passwords(url))
        named = (token.token for token in self.named_tokens)
        return (*(token.get_secret_value() for token in tokens if token), *named, *self.callback_tokens, *passwords)


class NamedToken(NamedTuple):
    """One of BRIDGE_TOKENS."""

    name: str
    role: str
    token: str


_NAME = re.compile(r"[A-Za-z0-9._-]{1,40}")
_RESERVED = ("admin", "read", "api", "dashboard")  # who acts with the other tokens, in the record and in sessions
_MOST_TOKENS = 200


def _named_tokens(value: SecretStr | None) -> tuple[NamedToken, ...]:
    """Return the tokens as written: what is left out is ""."""
    entries = [entry for entry in value.get_secret_value().split(",") if entry.strip()] if value else []
    parts = ([part.strip() for part in entry.split(":", 2)] for entry in entries)
    return tuple(NamedToken(*part, *[""] * (3 - len(part))) for part in parts)


def _faults(tokens: Sequence[NamedToken], others: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with tokens, without a text that may be one; `others` are those of other variables."""
    if not tokens:
        yield "it has no token, but commas alone"
    if len(tokens) > _MOST_TOKENS:
        yield f"it has {len(tokens)} tokens; at most {_MOST_TOKENS} are read"
        return
    names, given = [token.name for token in tokens], [token.token for token in tokens]
    for place, (name, role, token) in enumerate(tokens):
        if not token:
            yield f"token {place + 1} is empty, or has no name or role"
            continue
        is_name = _NAME.fullmatch(name)
        which = f'the token "{name}"' if is_name else f"token {place + 1}"  # what is no name is not shown
        if not is_name:
            yield f"{which} has no name of 1 to 40 letters, digits and . _ -"
        elif name in _RESERVED:
            yield f"{which} needs another name: {', '.join(_RESERVED)} are those of other tokens"
        elif name in names[:place]:
            yield f"{which} has the name of an earlier one"
        if role not in ("admin", "read"):
            yield f"{which} has a role that is neither admin nor read"
        if token in given[:place] or token in others:
            yield f"{which} is the same as another token"


def _tokens(value: SecretStr | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(re.findall(r"[^\s,]+", value.get_secret_value()))) if value else ()


def _passwords(url: str) -> Iterator[str]:
    """Yield the passwords of a URL, as written and decoded; the URL may be malformed."""
    before, _, query = url.partition("?")
    # Of several @, the first or the last may be the one before the host; it may even follow a ?.
    for pattern, text in ((r"[^:]+://([^:@]*):([^@]*)@", before), (r"[^:]+://([^:@]*):(.*)@", url)):
        match = re.match(pattern, text)
        if match and match[2] != match[1]:  # the user name is shown, so it is not a secret
            yield from (match[2], unquote(match[2]))
    yield from (value for name, value in parse_qsl(query) if name in ("password", "sslpassword"))


def read(environ: Mapping[str, str]) -> Settings:
    """Return the settings. Raises SettingsRefused with every error at once."""
    names = _variables()
    given = {field: value for name, field in names.items() if (value := lookup(environ, name))}
    if "rules_toml" in given:
        given["rules_toml"] = environ["BRIDGE_RULES_TOML"]  # untrimmed: its errors are reported by line
    try:
        settings = Settings.model_validate(given)
    except ValidationError as error:
        raise SettingsRefused("\n".join(_message(details, names) for details in error.errors())) from None
    settings._served_at = _platform_url(environ)
    path = _endangered_file(settings, environ)
    if path and (platform := _platform(environ, _EPHEMERAL)):
        raise SettingsRefused(_lost(path, *platform, environ))
    if path and (platform := _platform(environ, _EPHEMERAL_IF_NEW)):
        settings._new_file_lost = (
            f"DATABASE_URL: there is no file {path} yet, and on {platform[0]} ({platform[1]} is set) a new one would be"
            f" lost at the next restart: {_ADVICE}"
        )
    return settings


def _platform_url(environ: Mapping[str, str]) -> str | None:
    """Return where the platform serves this application; what is malformed is ignored, as nobody here wrote it."""
    for name, pattern in _SERVED_AT.items():
        with suppress(ValueError):
            if value := lookup(environ, name):
                return _base_url(pattern.format(value))
    return None


def _variables() -> dict[str, str]:
    """Return the field that each variable sets."""
    fields: dict[str, Any] = dict(Settings.model_fields)
    names = {field.alias or name.upper(): name for name, field in fields.items()}
    # Either case; as with curl, lower case takes precedence.
    return names | {name: name for name in ("http_proxy", "https_proxy", "no_proxy")}


def _message(details: Mapping[str, Any], names: Mapping[str, str]) -> str:
    field = str(details["loc"][0])
    name = next((n for n, f in names.items() if field in (n, f)), field)
    if details["type"] == "value_error":
        return f"{name}: {details['ctx']['error']}"
    return f"{name}: {details['input']!r}: {details['msg']}"


def _endangered_file(settings: Settings, environ: Mapping[str, str]) -> str | None:
    """Return the path of SQLite's file; None if it is known to be kept, or if there is none."""
    try:
        path = sqlite_path(settings.database_url)
    except ValueError:  # reported when the database is opened
        return None
    if path is None or settings.disk:
        return None
    volume = lookup(environ, _VOLUME)
    is_on_volume = volume and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(volume))
    return None if is_on_volume else path


def _platform(environ: Mapping[str, str], known: Mapping[str, str]) -> tuple[str, str] | None:
    return next(((platform, name) for name, platform in known.items() if lookup(environ, name)), None)


def _lost(path: str, platform: str, name: str, environ: Mapping[str, str]) -> str:
    reason = f"DATABASE_URL: SQLite's file {path} would be lost at every restart on {platform} ({name} is set)"
    if volume := lookup(environ, _VOLUME):
        return f"{reason}, as it is not on the volume: write sqlite:///{volume}/bridge.db"
    return f"{reason}: {_ADVICE}"
