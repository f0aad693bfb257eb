"""gunicorn's settings: `gunicorn -c python:bridge.gunicorn_conf app:app`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from gunicorn.glogging import Logger  # type: ignore[import-untyped]  # it ships no types

from bridge import logs
from bridge.settings import SettingsRefused, read

try:
    _settings = read(os.environ)
except SettingsRefused as error:
    sys.stderr.write(f"ci-bridge does not start: {error}\n")
    sys.exit(1)
logs.configure(_settings.log_level, _settings.secrets)


class OneLog(Logger):  # type: ignore[misc]  # the same
    """Leave gunicorn's own records to the one formatter of the process."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in list(self.error_log.handlers):
            self.error_log.removeHandler(handler)
        self.error_log.propagate = True


bind = f"0.0.0.0:{_settings.port}"
workers = _settings.web_concurrency
worker_class = "gthread"
threads = 4  # as many as the database has connections for, in a process
logger_class = OneLog
accesslog = None
# Nothing that a header says is taken for the connection's own: by default a program on this machine may set SCRIPT_NAME
# and the scheme, and is answered 500 or 400 where they make no sense (gunicorn's settings reference, read 2026-11-21).
forwarded_allow_ips = ""
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}
timeout = 30
graceful_timeout = 20  # platforms kill 30 s after SIGTERM
keepalive = 95  # longer than the router's, so that it is the router who closes
control_socket_disable = True  # on by default since gunicorn 25.1; needs a home directory, which containers lack
if Path("/dev/shm").is_dir():  # noqa: S108  (a disk that is slow makes gunicorn believe the worker hangs)
    worker_tmp_dir = "/dev/shm"  # noqa: S108  (the same)


def on_starting(server: Any) -> None:
    """Warn once, in the process that starts the others."""
    from bridge.wiring.web import warn_of_open_door  # settings are to be read before all the rest is loaded

    hosts = [place[0] for place in server.cfg.address if isinstance(place, tuple)]  # a socket of Unix has a path
    warn_of_open_door(_settings, hosts, routed=bool(os.environ.get("PORT")))
