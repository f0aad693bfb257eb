"""The rulebook in force, read again when its file changes."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Callable, Mapping

from bridge.decide.rulebook import Fault, Rulebook, RulesRefused
from bridge.decide.rulebook import read as read_rules
from bridge.decide.toml_bounds import LARGEST, TooLarge, check_size
from bridge.settings import Settings

logger = logging.getLogger(__name__)


class Rules:
    """The rulebook in force. A wrong file changes nothing and is told about once."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        *,
        adjust: Callable[[Rulebook], Rulebook] = lambda book: book,
    ) -> None:
        """Raises RulesRefused: at start there is nothing to fall back to."""
        self._settings = settings
        self.environ = environ
        self._adjust = adjust
        self._text = self._load()  # what the book was read from
        self.book = self._read(self._text)
        self.fault: str | None = None

    def _read(self, text: str) -> Rulebook:
        file = self._settings.rules if self._settings.rules_toml is None else "BRIDGE_RULES_TOML"
        return self._adjust(read_rules(text, self.environ, file=file))

    def _load(self) -> str:
        if self._settings.rules_toml is not None:
            return self._settings.rules_toml
        return load_rules(self._settings.rules, named="BRIDGE_RULES" in self.environ)

    def reload(self) -> bool:
        """Read the file again; return whether other rules are in force now."""
        try:
            text = self._load()
            if text == self._text and self.fault is None:
                return False
            book = self._read(text)
        except Exception as error:
            # Whatever a file does to us: it must not stop the worker, nor be forgotten.
            return self._keep_old(error)
        self._text, self.book, self.fault = text, book, None
        logger.info("rules reloaded", extra={"sha": self.book.sha, "rules": len(self.book.rules)})
        return True

    def _keep_old(self, error: Exception) -> bool:
        refused = isinstance(error, RulesRefused)
        fault = str(error) if refused else f"rules.toml cannot be read: {type(error).__name__}: {error}"
        if self.fault != fault:
            trace = None if refused else error  # of a file that is wrong, its faults say all
            said = "rules.toml is wrong, the old rules stay in force"
            logger.error(said, exc_info=trace, extra={"faults": fault})
        self.fault = fault
        return False


def load_rules(path: str, *, named: bool = True) -> str:
    """Return the text of rules.toml. Raises RulesRefused when it is not there, not a file, too large or not UTF-8.

    Unless somebody named this path, it says how one is named.
    """
    try:
        return _read(path).decode()
    except TooLarge as error:
        raise RulesRefused([Fault(error.line, str(error), file=path)]) from error
    except FileNotFoundError as error:
        said = "there is no such file" + ("" if named else ": set BRIDGE_RULES or BRIDGE_RULES_TOML")
        raise RulesRefused([Fault(1, said, file=path)]) from error
    except OSError as error:
        raise RulesRefused([Fault(1, f"cannot be read: {error.strerror}", file=path)]) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise RulesRefused([Fault(line, f"byte {error.object[error.start]:#04x} is not UTF-8", file=path)]) from error


def _read(path: str) -> bytes:
    with open(path, "rb", opener=_at_once) as file:
        known = os.fstat(file.fileno())
        if not stat.S_ISREG(known.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        check_size(known.st_size)
        text = file.read(LARGEST + 1)
        check_size(len(text))  # some files do not know their size
        return text


def _at_once(path: str, flags: int) -> int:
    # Opening a FIFO would else wait for somebody to write to it.
    return os.open(path, flags | os.O_NONBLOCK)
