"""The environment, read once: every fault at once, secrets masked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, field_validator

from bridge.send.addresses import Network, parse_networks

# Their disk is empty again after each restart (platforms' documentation, read 2026-11-21).
_EPHEMERAL = ("DYNO", "RENDER", "RAILWAY_ENVIRONMENT", "RAILWAY_SERVICE_ID", "RAILWAY_PROJECT_ID")


class SettingsRefused(Exception):
    """The environment is wrong; the text has a line for each variable."""


def _networks(value: object) -> object:
    return parse_networks(value) if isinstance(value, str) else value


Networks = Annotated[tuple[Network, ...], BeforeValidator(_networks)]


class Settings(BaseModel):
    """What the environment says. Empty variables count as not set."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    database_url: str = "sqlite:///bridge.db"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    web_concurrency: Annotated[int, Field(ge=1, le=64)] = 1
    log_level: str = "INFO"
    secret_id: str | None = Field(None, alias="TENCENTCLOUD_SECRET_ID")
    secret_key: SecretStr | None = Field(None, alias="TENCENTCLOUD_SECRET_KEY")
    security_token: SecretStr | None = Field(None, alias="TENCENTCLOUD_SECURITY_TOKEN")
    rules: str = Field("rules.toml", alias="BRIDGE_RULES")
    rules_toml: str | None = Field(None, alias="BRIDGE_RULES_TOML")
    admin_token: SecretStr | None = Field(None, alias="BRIDGE_ADMIN_TOKEN")
    read_token: SecretStr | None = Field(None, alias="BRIDGE_READ_TOKEN")
    callback_token: SecretStr | None = Field(None, alias="BRIDGE_CALLBACK_TOKEN")
    ci_endpoint: str | None = Field(None, alias="BRIDGE_CI_ENDPOINT")
    allow_networks: Networks = Field((), alias="BRIDGE_ALLOW_NETWORKS")
    egress_proxy: str | None = Field(None, alias="BRIDGE_EGRESS_PROXY")
    slack_api_url: str = Field("https://slack.com/api/", alias="SLACK_API_URL")

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, value: str) -> str:
        if value.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            raise ValueError(f'"{value}" is not a level; write DEBUG, INFO, WARNING or ERROR')
        return value.upper()

    @field_validator("ci_endpoint", "slack_api_url", "egress_proxy")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"https?://[^/\s]+", value):
            raise ValueError("this is not an address such as https://host:port")
        return value

    @property
    def missing_key(self) -> str | None:
        """Say which part of CI's key is not set, or None."""
        names = {"TENCENTCLOUD_SECRET_ID": self.secret_id, "TENCENTCLOUD_SECRET_KEY": self.secret_key}
        missing = [name for name, value in names.items() if not value]
        if not missing:
            return None
        return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set: make a key in the CAM console"

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret value, for the mask over the logs."""
        found = (self.secret_key, self.security_token, self.admin_token, self.read_token, self.callback_token)
        return tuple(one.get_secret_value() for one in found if one)


def read(environ: Mapping[str, str]) -> Settings:
    """Return the settings. Raises SettingsRefused with every fault at once."""
    names = _variables()
    given = {field: environ[name] for name, field in names.items() if environ.get(name)}
    try:
        settings = Settings.model_validate(given)
    except ValidationError as error:
        raise SettingsRefused("\n".join(_say(problem, names) for problem in error.errors())) from error
    if why := _lost_disk(settings, environ):
        raise SettingsRefused(why)
    return settings


def _variables() -> dict[str, str]:
    """Return the name of each variable and the field it fills."""
    fields: dict[str, Any] = dict(Settings.model_fields)
    return {field.alias or name.upper(): name for name, field in fields.items()}


def _say(problem: Mapping[str, Any], names: Mapping[str, str]) -> str:
    field = str(problem["loc"][0])
    name = next((n for n, f in names.items() if field in (n, f)), field)
    said = (
        str(problem["ctx"]["error"]) if problem["type"] == "value_error" else f"{problem['input']!r}: {problem['msg']}"
    )
    return f"{name}: {said}"


def _lost_disk(settings: Settings, environ: Mapping[str, str]) -> str | None:
    platform = next((name for name in _EPHEMERAL if environ.get(name)), None)
    if platform is None or not settings.database_url.startswith("sqlite"):
        return None
    return (
        f"DATABASE_URL: SQLite's file would be lost at every restart here ({platform} is set, so the disk is not "
        "kept): add a PostgreSQL database, which sets DATABASE_URL to postgres://..."
    )
