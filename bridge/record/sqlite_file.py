"""The file of SQLite: which one DATABASE_URL names, that nobody else reads it, and whether it is still there."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from threading import Lock

_ADDRESS = re.compile(r"sqlite3?(?:\+(?:pysqlite|aiosqlite)?)?:(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_RIGHT = "write sqlite:///bridge.db, or sqlite:////data/bridge.db for a path from the root"
_LOST = "the database's file was deleted or replaced while the bridge runs: stop it, put the file back, start it"
_PRIVATE, _USUAL = 0o600, 0o644


def named(url: str) -> str | None:
    """Return the path that an address of SQLite names; None: it is of another database. Raises ValueError."""
    found = _ADDRESS.fullmatch(url)
    if found is None:
        return None
    path, question, _ = found["rest"].partition("?")
    if question:
        raise ValueError(f"DATABASE_URL: SQLite takes no options here; {_RIGHT}")
    if not path.startswith("///") or path == "///":
        raise ValueError(f"DATABASE_URL names no file; {_RIGHT}")
    if path == "///:memory:":
        raise ValueError(f"DATABASE_URL: what is in memory is lost, and each connection has its own; {_RIGHT}")
    return path[3:]


class SqliteFile:
    """One file, which may not be there yet."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._known: tuple[int, int] | None = None
        self._making = Lock()

    @property
    def is_missing(self) -> bool:
        return not self.path.exists()

    @property
    def lost(self) -> str | None:
        """Say that another file, or none, is now where the one is that was opened."""
        return _LOST if self._known not in (None, self._identity()) else None

    def check(self) -> None:
        """Raise ValueError where SQLite could not keep the file, saying what would be right."""
        try:
            mode = self._mode()
        except OSError as error:
            raise ValueError(f"DATABASE_URL: {self.path} cannot be looked at: {error.strerror}") from error
        if mode is not None and stat.S_ISDIR(mode):
            raise ValueError(f"DATABASE_URL: {self.path} is a folder; name a file in it")
        if mode is not None and not stat.S_ISREG(mode):
            raise ValueError(f"DATABASE_URL: {self.path} is not a regular file; name one")
        if not self.path.parent.is_dir():
            raise ValueError(f"DATABASE_URL: there is no folder {self.path.parent}; make it, or name one that is there")
        if mode is not None and not _allowed(self.path, os.R_OK | os.W_OK):
            raise ValueError(f"DATABASE_URL: this user may not read and write {self.path}")
        # Its journal is beside it.
        if not _allowed(self.path.parent, os.W_OK | os.X_OK) and not (mode and self._beside("-wal").exists()):
            raise ValueError(f"DATABASE_URL: this user may not make files in the folder {self.path.parent}")

    def make(self) -> None:
        """Make the file, for its owner alone, where there is none. SQLite gives its journal the same mode."""
        # One at a time: to close a file of SQLite lets go of the locks that this process has on it.
        with self._making, suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, _PRIVATE))

    def opened(self) -> None:
        """Note which file was opened. One that an older version made for everybody to read becomes its owner's."""
        self._known = self._known or self._identity()
        for path in (self.path, self._beside("-wal"), self._beside("-shm")):
            with suppress(OSError):  # not there, or another's
                if stat.S_IMODE(path.stat().st_mode) == _USUAL:
                    path.chmod(_PRIVATE)

    def _mode(self) -> int | None:
        with suppress(FileNotFoundError):
            return self.path.stat().st_mode
        return None

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _beside(self, end: str) -> Path:
        return self.path.with_name(self.path.name + end)


def _allowed(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)
