"""A PostgreSQL of our own, which may be killed, and a disk of our own, which may be full."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from benchmarks.machine import free_port
from tests.conftest import NO_PGBOUNCER
from tests.support.waiting import wait_until

_ROOT = os.geteuid() == 0


class OwnPostgres:
    """A cluster in a folder. PostgreSQL refuses to be root, so root runs it as the user postgres."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self._data = folder / "data"
        self._programs = programs
        self._port = free_port()
        self._run("initdb", "-D", str(self._data), "-A", "trust", "-U", "postgres", "--no-sync", cwd=folder)
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        # Small enough for a small disk; commits wait for the disk, as they do by default.
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_wal_size=64MB"
        log = str(self._data.parent / "log")
        self._run("pg_ctl", "start", "-w", "-D", str(self._data), "-l", log, "-o", options)

    def kill(self) -> None:
        """End it at once, as a power cut would: what was committed has to be recovered."""
        self._run("pg_ctl", "stop", "-m", "immediate", "-D", str(self._data))

    def is_alive(self) -> bool:
        return self._call("pg_ctl", "status", "-D", str(self._data)).returncode == 0

    def _run(self, program: str, *arguments: str, cwd: Path | None = None) -> None:
        done = self._call(program, *arguments, cwd=cwd)
        assert done.returncode == 0, done.stderr

    def _call(self, program: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command: Sequence[str] = (str(self._programs / program), *arguments)
        as_whom = ("runuser", "-u", "postgres", "--") if _ROOT else ()
        # Not a pipe: the server keeps what it inherits open for as long as it lives.
        with (self._data.parent / "said").open("w+") as said:
            done = subprocess.run(
                (*as_whom, *command), cwd=cwd or self._data.parent, stdout=said, stderr=said, check=False, timeout=60
            )
            said.seek(0)
            return subprocess.CompletedProcess(command, done.returncode, "", said.read())


@contextmanager
def own_postgres(folder: Path) -> Iterator[OwnPostgres]:
    """Run one in an empty folder that everybody may enter. Skip where it is not installed; under CI it must be."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    program = shutil.which("initdb") or (str(found[-1]) if found else None)
    if program is None:
        _miss("initdb is not here: apt-get install postgresql")
    if _ROOT:
        shutil.chown(folder, "postgres")
    server = OwnPostgres(folder, Path(str(program)).parent)
    try:
        yield server
    finally:
        if server.is_alive():
            server.kill()


@contextmanager
def own_pooler(folder: Path, database_url: str) -> Iterator[str]:
    """Run a PgBouncer in front of a database, and yield the address there. Skip where it is not installed.

    Each transaction gets another of its sessions, where the one before may have left something.
    """
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        _miss(f"{NO_PGBOUNCER}: apt-get install pgbouncer")
    behind, port = conninfo_to_dict(database_url), free_port()
    behind.pop("options", None)
    (folder / "users.txt").write_text('"postgres" ""\n')
    (folder / "pgbouncer.ini").write_text(f"""
[databases]
{behind["dbname"]} = {make_conninfo(**behind)}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = users.txt
pool_mode = transaction
server_round_robin = 1
min_pool_size = 5
""")
    as_whom = ("runuser", "-u", "postgres", "--") if _ROOT else ()
    with (
        (folder / "pgbouncer.log").open("w") as log,
        subprocess.Popen((*as_whom, str(program), "pgbouncer.ini"), cwd=folder, stdout=log, stderr=log) as process,
    ):
        url = f"postgresql://postgres@127.0.0.1:{port}/{behind['dbname']}"
        try:
            wait_until(lambda: _answers(url), within_s=20, why=lambda: (folder / "pgbouncer.log").read_text())
            yield url
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that the user postgres may enter, as it may not enter pytest's."""
    with tempfile.TemporaryDirectory(prefix="ci-bridge-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


class Disk:
    """A small disk that can be filled up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Leave no byte."""
        size = 1 << 20
        with self._filler.open("ab", buffering=0) as filler:
            while size:
                try:
                    filler.write(b"\0" * size)
                except OSError:
                    size //= 2

    def make_room(self) -> None:
        self._filler.unlink()


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Disk]:
    """Mount one. Skip where nothing may be mounted; under CI it must be possible."""
    command = ("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", str(folder))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        _miss(f"no disk can be mounted here: {done.stderr.strip()}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(("umount", "--lazy", str(folder)), check=True)


def _miss(what: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(what, pytrace=False)
    pytest.skip(what)
