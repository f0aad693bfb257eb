"""Processes, ports and databases that a benchmark needs for a while; all of them end with it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa

_READY_S = 20.0


class Missing(Exception):
    """Something that a benchmark compares with or stores in is not here; the text says how to get it."""


def program(name: str, package: str) -> str:
    """Return the path of a program. Raises Missing naming the Debian package that has it."""
    # Debian keeps servers in /usr/sbin, which is not on everybody's PATH.
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
    if found is None:
        raise Missing(f"{name} is not installed: apt-get install {package}")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Bench:
    """A directory and child processes, gone at the end."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._children: list[subprocess.Popen[bytes]] = []

    def start(
        self, command: Sequence[str], *, port: int | None = None, environ: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process; with `port`, return when it accepts connections there."""
        log = self.directory / f"{len(self._children)}.log"
        with log.open("wb") as output:
            child = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                env=_environ(environ),
                start_new_session=True,
            )
        self._children.append(child)
        if port is not None:
            wait_until(lambda: _accepts(port), f"{command[0]} on port {port}", lambda: _died(child, log))
        return child

    def stop(self, child: subprocess.Popen[bytes]) -> None:
        """End a process and those that it started."""
        for how in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(child.pid, how)
            with suppress(subprocess.TimeoutExpired):
                child.wait(10)
                break
        if child in self._children:
            self._children.remove(child)

    def stop_all(self) -> None:
        for child in reversed(self._children[:]):
            self.stop(child)


@contextmanager
def bench() -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="ci-bridge-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # nginx's worker is another user
        made = Bench(directory)
        try:
            yield made
        finally:
            made.stop_all()


def module(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of this package in a process of its own."""
    return [sys.executable, "-m", f"benchmarks.{name}", *arguments]


def printed_by(command: Sequence[str], *, at_most_s: float = 120) -> dict[str, Any]:
    """Run a process and return the JSON object that it prints."""
    done = subprocess.run(command, capture_output=True, env=_environ(None), timeout=at_most_s, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:3])} failed:\n{done.stderr.decode()[-2000:]}")
    printed: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return printed


def _environ(more: Mapping[str, str] | None) -> dict[str, str]:
    root = str(Path(__file__).parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, **(more or {})}


def wait_until(
    true: Callable[[], bool], what: str, failed: Callable[[], str | None] = lambda: None, at_most_s: float = _READY_S
) -> None:
    """Return when `true()` is. Raises RuntimeError when it does not come true, or `failed()` says why it cannot."""
    until = time.monotonic() + at_most_s
    while not true():
        why = failed() or (f"waited {at_most_s:g} s in vain" if time.monotonic() > until else None)
        if why:
            raise RuntimeError(f"{what}: {why}")
        time.sleep(0.05)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _died(child: subprocess.Popen[bytes], log: Path) -> str | None:
    return None if child.poll() is None else f"ended with {child.returncode}: {log.read_text()[-500:]}"


# --- databases ----------------------------------------------------------------------------------------------


class Stores:
    """Empty databases, one after the other. `postgres` is the address of a server where one may be created."""

    def __init__(self, made: Bench, postgres: str | None) -> None:
        self._made = made
        self._postgres = postgres
        self._count = 0

    @property
    def kinds(self) -> tuple[str, ...]:
        return ("SQLite", "PostgreSQL") if self._postgres else ("SQLite",)

    @contextmanager
    def empty(self, kind: str) -> Iterator[str]:
        """Return the address of a new database, which is gone afterwards."""
        self._count += 1
        if kind == "SQLite":
            directory = self._made.directory / f"db{self._count}"
            directory.mkdir()
            yield f"sqlite:///{directory}/bridge.db"
            shutil.rmtree(directory)
            return
        name = f"ci_bridge_bench_{os.getpid()}_{self._count}"
        admin = sa.create_engine(_psycopg(self._postgres or ""), isolation_level="AUTOCOMMIT")
        try:
            with admin.connect() as at:
                at.exec_driver_sql(f"CREATE DATABASE {name}")
            try:
                yield admin.url.set(database=name).render_as_string(hide_password=False).replace("+psycopg", "")
            finally:
                with admin.connect() as at:
                    at.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
        finally:
            admin.dispose()


def reachable(postgres: str) -> str:
    """Return the address of a PostgreSQL server that answers. Raises Missing."""
    engine = sa.create_engine(_psycopg(postgres), connect_args={"connect_timeout": 3})
    try:
        with engine.connect():
            return postgres
    except sa.exc.OperationalError as error:
        said = str(error.orig).strip().splitlines()[0]
        raise Missing(f"PostgreSQL does not answer ({said}): give --postgres, or apt-get install postgresql") from error
    finally:
        engine.dispose()


def settle_statistics(database: str) -> None:
    """Do at once what PostgreSQL would do by itself within a minute: its plans for tables just filled are blind."""
    if database.startswith("postgresql"):
        engine = sa.create_engine(_psycopg(database), isolation_level="AUTOCOMMIT")
        with engine.connect() as at:
            at.exec_driver_sql("ANALYZE")
        engine.dispose()


def _psycopg(url: str) -> sa.URL:
    return sa.make_url(url).set(drivername="postgresql+psycopg")
