"""WSGI entry: `gunicorn -c python:bridge.gunicorn_conf app:app`. It serves requests and starts no worker."""

from __future__ import annotations

import os
import secrets
import sys
from typing import NoReturn

from flask import Flask
from sqlalchemy.exc import DBAPIError

from bridge import __version__, wiring
from bridge.admin import Reloading, create_app
from bridge.decide.rulebook import RulesRefused
from bridge.record.database import Database, SchemaOld, trouble
from bridge.settings import Settings, SettingsRefused, read

_STOP_SERVER = 3  # gunicorn's WORKER_BOOT_ERROR: after any other code it starts the next process, for ever


def web_app(settings: Settings, rules: wiring.Rules, db: Database) -> Flask:
    current = Reloading(rules)
    return create_app(
        db=db,
        book=current.book,
        rules_fault=current.fault,
        admin_token=settings.admin_token.get_secret_value() if settings.admin_token else None,
        read_token=settings.read_token.get_secret_value() if settings.read_token else None,
        clock=wiring.utc_now,
        version=__version__,
        nonce=lambda: secrets.token_hex(16),
    )


def _start() -> Flask:
    try:
        settings = read(os.environ)
        rules = wiring.Rules(settings, os.environ)
        wiring.start_logging(settings, rules.book)
        db = wiring.database(settings)
        db.require_schema()
    except DBAPIError as error:
        _refuse(trouble(error))
    except (SettingsRefused, RulesRefused, SchemaOld, ValueError, OSError) as error:
        _refuse(str(error))
    return web_app(settings, rules, db)


def _refuse(why: str) -> NoReturn:
    sys.stderr.write(f"ci-bridge does not start: {why}\n")
    sys.exit(_STOP_SERVER)


app = _start()
