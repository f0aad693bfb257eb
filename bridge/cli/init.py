"""`ci-bridge init`: the files that a user starts from, written into the current folder."""

from __future__ import annotations

import sys
from pathlib import Path

import click

import bridge
from bridge.cli.common import echo, fail

FILES = {  # each, and where the repository has it; the package has them in its folder `files`
    "rules.toml": "rules.toml",
    "slack/manifest.json": "slack/manifest.json",
    "Procfile": "Procfile",
    "prometheus-alerts.yml": "docs/prometheus-alerts.yml",
    "grafana-dashboard.json": "docs/grafana-dashboard.json",
}
_NEXT = """
next:
  1. in rules.toml, set bucket, region, tags and notifiers; set the variables that it names, and
     TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY
  2. ci-bridge rules check     is rules.toml valid?
  3. ci-bridge doctor          do keys, bucket and notifiers work?
  4. ci-bridge run             run it
slack/manifest.json makes the Slack app (https://api.slack.com/apps, "From a manifest"). A platform that starts the
Procfile, such as Heroku, needs ci-bridge in requirements.txt."""


def shipped(name: str) -> Path:
    """Return where a file of FILES is: in the package, or in the repository when the package is not built."""
    package = Path(bridge.__file__).parent
    inside = package / "files" / name
    return inside if inside.exists() else package.parent / FILES[name]


@click.command()
@click.option("--force", is_flag=True, help="Overwrite files that differ.")
def init(force: bool) -> None:
    """Write example rules, a Slack manifest, a Procfile, alerts and a Grafana dashboard into the current folder.

    A file that is there and differs is kept, unless --force is given; then the exit code is 1.

    \b
    Examples:
      mkdir bridge && cd bridge && ci-bridge init
      ci-bridge init --force
    """
    try:
        kept = [name for name in FILES if not _write(name, force=force)]
    except OSError as error:
        fail(f"ci-bridge: {error.filename} cannot be written: {error.strerror}")
    if kept:
        echo(f"{', '.join(kept)}: --force overwrites", err=True)
    click.echo(_NEXT)
    sys.exit(1 if kept else 0)


def _write(name: str, *, force: bool) -> bool:
    """Write a file unless another one is there; say what was done, and return False if that one was kept."""
    there, text = Path(name), shipped(name).read_bytes()
    if there.is_symlink() or there.exists():
        if there.is_file() and there.read_bytes() == text:
            echo(f"unchanged    {name}")
            return True
        if not force:
            echo(f"kept         {name} (it differs from the example)")
            return False
        there.write_bytes(text)
        echo(f"overwritten  {name}")
        return True
    there.parent.mkdir(exist_ok=True)
    with there.open("xb") as file:
        file.write(text)
    echo(f"written      {name}")
    return True
