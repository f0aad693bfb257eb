"""gunicorn's settings: `python -m bridge.web` runs `gunicorn -c python:bridge.gunicorn_conf bridge.wsgi:app`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from gunicorn.glogging import Logger  # type: ignore[import-untyped]  # it ships no types
from gunicorn.workers.base import Worker  # type: ignore[import-untyped]  # the same

from bridge import logs
from bridge.environment import lookup
from bridge.settings import SettingsRefused, read

try:
    _settings = read(os.environ)
except SettingsRefused as error:
    sys.stderr.write(f"ci-bridge does not start: {error}\n")
    sys.exit(1)
logs.configure(_settings.log_level, _settings.secrets)


class OneLog(Logger):  # type: ignore[misc]  # the same
    """Pass gunicorn's own records to the formatter of the process."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in list(self.error_log.handlers):
            self.error_log.removeHandler(handler)
        self.error_log.propagate = True


class WebWorker(Worker):  # type: ignore[misc]  # the same
    """Serves as `run` does: in gunicorn's own workers, a thread waits for slow clients."""

    def run(self) -> None:
        from bridge.wiring.server import Server  # settings are checked before the rest is imported

        server = Server(self.wsgi, [listener.sock for listener in self.sockets])
        while self.alive and self.ppid == os.getppid():
            self.notify()
            server.turn(1.0)
        server.close()


bind = f"0.0.0.0:{_settings.port}"
workers = _settings.web_concurrency
worker_class = WebWorker
logger_class = OneLog
accesslog = None
timeout = 30
graceful_timeout = 20  # platforms kill 30 s after SIGTERM
control_socket_disable = True  # on by default since gunicorn 25.1; needs a home directory, which containers lack
if Path("/dev/shm").is_dir():  # noqa: S108  (on a slow disk, gunicorn believes that the worker hangs)
    worker_tmp_dir = "/dev/shm"  # noqa: S108  (the same)


def on_starting(server: Any) -> None:
    """Warn once, in the process that starts the workers."""
    from bridge.wiring.web import warn_of_open_door  # the same

    if server.cfg.is_ssl:
        sys.stderr.write("ci-bridge does not start: TLS is terminated by the router; unset certfile and keyfile\n")
        sys.exit(1)
    hosts = [place[0] for place in server.cfg.address if isinstance(place, tuple)]  # a Unix socket has a path
    warn_of_open_door(_settings, hosts, routed=lookup(os.environ, "PORT") is not None)
