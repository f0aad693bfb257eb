"""WSGI entry point: the web application, as `python -m bridge.web` serves it with gunicorn. It starts no worker."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from flask import Flask

from bridge.decide.rulesfile.errors import RulesRefused
from bridge.record.database import TROUBLES, SchemaOld, trouble
from bridge.settings import SettingsRefused, read
from bridge.wiring import parts
from bridge.wiring.rules import Rules
from bridge.wiring.web import web_app

_STOP_SERVER = 3  # gunicorn's WORKER_BOOT_ERROR: after any other code it would start the next process, forever


def _start() -> Flask:
    try:
        settings = read(os.environ)
        rules = Rules(settings, os.environ)
        parts.start_logging(settings, rules.book)
        db = parts.database(settings)
        db.require_schema()
        with db.read() as tx:
            parts.refuse_emptied(tx, rules.book, rules.file)
        parts.make_known(db, rules.book)
        parts.share_public_url(db, settings.web_url)
    except TROUBLES as error:
        _refuse(trouble(error))
    except (SettingsRefused, RulesRefused, SchemaOld, ValueError, OSError) as error:
        _refuse(str(error))
    return web_app(settings, rules, db, alone=True)


def _refuse(why: str) -> NoReturn:
    sys.stderr.write(f"ci-bridge does not start: {why}\n")
    sys.exit(_STOP_SERVER)


app = _start()
