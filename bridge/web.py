"""`python -m bridge.web`: gunicorn as the Procfile starts it, with an environment that was looked at before.

gunicorn reads WEB_CONCURRENCY while it is being imported, and ends in a traceback where that is no number.
"""

from __future__ import annotations

import os
import sys

from bridge.settings import SettingsRefused, read


def main() -> None:
    try:
        settings = read(os.environ)
    except SettingsRefused as error:
        sys.stderr.write(f"ci-bridge does not start: {error}\n")
        sys.exit(1)
    command = [sys.executable, "-m", "gunicorn", "-c", "python:bridge.gunicorn_conf", "app:app", *sys.argv[1:]]
    environ = {**os.environ, "WEB_CONCURRENCY": str(settings.web_concurrency)}
    os.execve(sys.executable, command, environ)  # noqa: S606  (it is to be this process)


if __name__ == "__main__":
    main()
