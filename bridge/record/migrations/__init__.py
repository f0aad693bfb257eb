"""Alembic, run from inside: `upgrade(engine)`."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, text

_ONE_AT_A_TIME = 0x63692D62  # two releases may run at once; any fixed number does


def config() -> Config:
    found = Config()
    found.set_main_option("script_location", str(Path(__file__).parent))
    return found


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Bring the schema up to `revision`, all or nothing; a second upgrade at the same time waits."""
    with engine.begin() as tx:
        if tx.dialect.name == "postgresql":
            tx.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ONE_AT_A_TIME})
        settings = config()
        settings.attributes["connection"] = tx
        command.upgrade(settings, revision)
