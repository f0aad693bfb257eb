"""`python -m bridge.web`: starts gunicorn after reading `.env` and checking the environment.

gunicorn reads WEB_CONCURRENCY when it is imported, and ends in a traceback if that is not a number.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bridge.env_file import FILE, EnvFileRefused, load
from bridge.settings import SettingsRefused, read


def main() -> None:
    try:
        if said := load(os.environ, Path(FILE)):
            sys.stderr.write(f"{said}\n")
        settings = read(os.environ)
    except (SettingsRefused, EnvFileRefused) as error:
        sys.stderr.write(f"ci-bridge does not start: {error}\n")
        sys.exit(1)
    command = [sys.executable, "-m", "gunicorn", "-c", "python:bridge.gunicorn_conf", "bridge.wsgi:app", *sys.argv[1:]]
    environ = {**os.environ, "WEB_CONCURRENCY": str(settings.web_concurrency)}
    os.execve(sys.executable, command, environ)  # noqa: S606  (gunicorn replaces this process)


if __name__ == "__main__":
    main()
