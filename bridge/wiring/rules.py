"""The rulebook of this process, read again when its file changes."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Callable, Mapping
from math import inf

from bridge.decide.rules.rulebook import Fault, Rulebook
from bridge.decide.rulesfile.errors import LARGEST, RulesRefused, TooLarge, check_size
from bridge.decide.rulesfile.read import read as read_rules
from bridge.decide.rulesfile.rulesets import SETTLED_S, SHRUNK_S, emptied, names_of, shrunk
from bridge.environment import lookup
from bridge.settings import Settings
from bridge.wiring.parts import emptied_fault

logger = logging.getLogger(__name__)

_LOOK_S = 10.0  # a longer time between two looks counts as this: the writer may have been suspended with us
_NOTE_FOR_S = 3600.0


class Rules:
    """The rulebook of this process. A file with errors changes nothing and is logged once.

    A file may be written in portions, each of which may be valid. So a changed file is loaded once it has stayed the
    same for a while; if it has no watch or no rule any more, only if a person allows it. Contents are compared, not
    modification times: a file system may keep these, or use another machine's clock.
    """

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        """Raise RulesRefused if the file is wrong: at start there is nothing to fall back to."""
        self._settings = settings
        self.environ = environ
        self.may_be_empty: Callable[[str], bool] = lambda _sha: False  # has a person allowed it for these rules?
        self._text = self._load()  # of the book
        self.book = self._read(self._text)
        self.fault: str | None = None  # why the file is not loaded
        self._waits: str | None = None  # why it is not loaded yet
        self._shrunk: tuple[str, float] | None = None  # what the last change lost, and when it was loaded
        self._seen: str | RulesRefused | None = None  # a changed file, or why it cannot be read
        self._same_s = 0.0  # for how long it has been the same
        self._looked_s = -inf
        self._reloads: int | None = None
        self._parsed: tuple[str, Rulebook] | None = None

    @property
    def file(self) -> str:
        return self._settings.rules if self._settings.rules_toml is None else "BRIDGE_RULES_TOML"

    @property
    def note(self) -> str | None:
        """A remark on the file, without any name from it."""
        return self._waits or (self._shrunk[0] if self._shrunk else None)

    def _read(self, text: str) -> Rulebook:
        return read_rules(text, self.environ, file=self.file)

    def _load(self) -> str:
        if self._settings.rules_toml is not None:
            return self._settings.rules_toml
        return load_rules(self._settings.rules, named=lookup(self.environ, "BRIDGE_RULES") is not None)

    def reload(self) -> bool:
        """Load the file as it is now, as a person has said that it is complete; return whether the rules changed."""
        self._seen = self._try_load()
        return self._judge(inf)

    def check_file(self, now_s: float, *, reloads: int = 0) -> bool:
        """Load the file if it has stayed the same for long enough; return whether the rules changed.

        `reloads` counts the requests for a reload: if there was one since the last look, the file is loaded now.
        """
        requested, self._reloads = self._reloads not in (None, reloads), reloads
        since, self._looked_s = min(now_s - self._looked_s, _LOOK_S), now_s
        if self._shrunk and now_s - self._shrunk[1] > _NOTE_FOR_S:
            self._shrunk = None
        seen = self._try_load()
        same = (type(seen), str(seen)) == (type(self._seen), str(self._seen))
        self._seen, self._same_s = seen, self._same_s + since if same else 0.0
        if requested:
            return self._judge(inf)
        return (seen == self._text or self._same_s >= SETTLED_S) and self._judge(self._same_s)

    def _try_load(self) -> str | RulesRefused:
        try:
            return self._load()
        except RulesRefused as error:
            return error

    def _judge(self, same_s: float) -> bool:
        """Use what was seen, which has been the same for `same_s`; or note why not."""
        if self._seen == self._text:
            self.fault = self._waits = None
            return False
        try:
            book = self._parse(self._seen)
        except Exception as error:
            # Whatever a file does to us must neither stop the worker nor be forgotten.
            return self._keep_old(error)
        before, after = names_of(self.book), names_of(book)
        may_be_empty = (lost := emptied(before, after)) and self.may_be_empty(book.sha)
        if lost and not may_be_empty:
            return self._keep_old(RulesRefused([emptied_fault(lost, self.file)]))
        few = None if may_be_empty or same_s == inf else shrunk(before, after)
        if few and same_s < SHRUNK_S:
            return self._wait(few)
        self._text, self.book, self.fault, self._waits, self._parsed = str(self._seen), book, None, None, None
        self._shrunk = (
            (f"{few} disappeared from rules.toml when it was loaded: is it complete?", self._looked_s) if few else None
        )
        logger.info("rules reloaded", extra={"sha": book.sha, "rules": len(book.rules)})
        if few:
            logger.warning("much of rules.toml disappeared, loaded all the same", extra={"disappeared": few})
        return True

    def _parse(self, seen: str | RulesRefused | None) -> Rulebook:
        if isinstance(seen, RulesRefused):
            raise seen
        text = seen or ""
        if self._parsed is None or self._parsed[0] != text:
            self._parsed = (text, self._read(text))
        return self._parsed[1]

    def _wait(self, few: str) -> bool:
        note = (
            f"{few} disappeared from rules.toml: it is loaded if it stays so for {SHRUNK_S:.0f} s, or now by"
            " `ci-bridge rules reload`"
        )
        if self._waits != note:
            logger.warning("much of rules.toml disappeared, loaded if it stays so", extra={"disappeared": few})
        self.fault, self._waits = None, note
        return False

    def _keep_old(self, error: Exception) -> bool:
        refused = isinstance(error, RulesRefused)
        fault = str(error) if refused else f"rules.toml cannot be read: {type(error).__name__}: {error}"
        if self.fault != fault:
            trace = None if refused else error  # the faults of a file need no trace
            logger.error("rules.toml has errors, the old rules stay in force", exc_info=trace, extra={"faults": fault})
        self.fault, self._waits = fault, None
        return False


def load_rules(path: str, *, named: bool = True) -> str:
    """Return the text of rules.toml. Raises RulesRefused if it is missing, not a file, too large or not UTF-8.

    If nobody named this path, the error says how to name one.
    """
    try:
        return _read(path).decode()
    except TooLarge as error:
        raise RulesRefused([Fault(error.line, str(error), file=path)]) from error
    except FileNotFoundError as error:
        advice = "" if named else ": set BRIDGE_RULES or BRIDGE_RULES_TOML"
        raise RulesRefused([Fault(1, f"there is no such file{advice}", file=path)]) from error
    except OSError as error:
        raise RulesRefused([Fault(1, f"cannot be read: {error.strerror}", file=path)]) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise RulesRefused([Fault(line, f"byte {error.object[error.start]:#04x} is not UTF-8", file=path)]) from error


def _read(path: str) -> bytes:
    # Without O_NONBLOCK, opening a FIFO would wait for a writer.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        known = os.fstat(file.fileno())
        if not stat.S_ISREG(known.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        check_size(known.st_size)
        text = file.read(LARGEST + 1)
        check_size(len(text))  # some files do not know their size
        return text
