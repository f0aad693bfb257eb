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

_LOOK_S = 10.0  # a longer time between two looks counts as so much: a writer may have been stopped with us
_NOTED_S = 3600.0


class Rules:
    """The rulebook of this process. A wrong file changes nothing and is told about once.

    A file is written in portions, and each of them may be right: so a changed one is taken when it has stayed the
    same for a while, and only if a person says so when it has no watch or no rule any more. Contents are compared, not
    times: a file system may keep those, or be of another machine.
    """

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
        self.may_be_empty: Callable[[str], bool] = lambda _sha: False  # has a person allowed it for this text?
        self._adjust = adjust
        self._text = self._load()  # what the book was read from
        self.book = self._read(self._text)
        self.fault: str | None = None  # why the file is not taken
        self._waits: str | None = None  # why it is not taken yet
        self._taken: tuple[str, float] | None = None  # what the last change lost, and when it was taken
        self._seen: str | RulesRefused | None = None  # a changed file, or why it cannot be read
        self._same_s = 0.0  # for how long it has been seen so
        self._looked_s = -inf
        self._reloads: int | None = None
        self._parsed: tuple[str, Rulebook] | None = None

    @property
    def file(self) -> str:
        return self._settings.rules if self._settings.rules_toml is None else "BRIDGE_RULES_TOML"

    @property
    def note(self) -> str | None:
        """What else is to be known about the file; it names nothing of it."""
        return self._waits or (self._taken[0] if self._taken else None)

    def _read(self, text: str) -> Rulebook:
        return self._adjust(read_rules(text, self.environ, file=self.file))

    def _load(self) -> str:
        if self._settings.rules_toml is not None:
            return self._settings.rules_toml
        return load_rules(self._settings.rules, named=lookup(self.environ, "BRIDGE_RULES") is not None)

    def reload(self) -> bool:
        """Take the file as it is now, as a person has said that it is whole; return whether the rules are others."""
        self._seen = self._found()
        return self._judge(inf)

    def look(self, now_s: float, *, reloads: int = 0) -> bool:
        """Look at the file, and take it when it has stayed the same for long enough; return as `reload` does.

        `reloads` is how often somebody has asked for the file to be read: once more than at the last look is now.
        """
        asked, self._reloads = self._reloads not in (None, reloads), reloads
        since, self._looked_s = min(now_s - self._looked_s, _LOOK_S), now_s
        if self._taken and now_s - self._taken[1] > _NOTED_S:
            self._taken = None
        found = self._found()
        same = _content(found) == _content(self._seen)
        self._seen, self._same_s = found, self._same_s + since if same else 0.0
        if asked:
            return self._judge(inf)
        return (found == self._text or self._same_s >= SETTLED_S) and self._judge(self._same_s)

    def _found(self) -> str | RulesRefused:
        try:
            return self._load()
        except RulesRefused as error:
            return error

    def _judge(self, same_s: float) -> bool:
        """Take what was seen, or say why not."""
        if self._seen == self._text:
            self.fault = self._waits = None
            return False
        try:
            book = self._parse(self._seen)
        except Exception as error:
            # Whatever a file does to us: it must not stop the worker, nor be forgotten.
            return self._keep_old(error)
        before, after = names_of(self.book), names_of(book)
        may_be_empty = (lost := emptied(before, after)) and self.may_be_empty(book.sha)
        if lost and not may_be_empty:
            return self._keep_old(RulesRefused([emptied_fault(lost, self.file)]))
        few = None if may_be_empty or same_s == inf else shrunk(before, after)
        if few and same_s < SHRUNK_S:
            return self._wait(few)
        self._take(book, few)
        return True

    def _parse(self, found: str | RulesRefused | None) -> Rulebook:
        if isinstance(found, RulesRefused):
            raise found
        text = found or ""
        if self._parsed is None or self._parsed[0] != text:
            self._parsed = (text, self._read(text))
        return self._parsed[1]

    def _take(self, book: Rulebook, few: str | None) -> None:
        self._text, self.book, self.fault, self._waits, self._parsed = str(self._seen), book, None, None, None
        said = f"{few} have vanished from rules.toml, and it was taken so: is it whole?"
        self._taken = (said, self._looked_s) if few else None
        logger.info("rules reloaded", extra={"sha": book.sha, "rules": len(book.rules)})
        if few:
            logger.warning("much has vanished from rules.toml, and it was taken so", extra={"vanished": few})

    def _wait(self, few: str) -> bool:
        said = (
            f"{few} have vanished from rules.toml: it is taken if it stays so for {SHRUNK_S:.0f} s, or now by"
            " `ci-bridge rules reload`"
        )
        if self._waits != said:
            logger.warning("much has vanished from rules.toml, it is taken if it stays so", extra={"vanished": few})
        self.fault, self._waits = None, said
        return False

    def _keep_old(self, error: Exception) -> bool:
        refused = isinstance(error, RulesRefused)
        fault = str(error) if refused else f"rules.toml cannot be read: {type(error).__name__}: {error}"
        if self.fault != fault:
            trace = None if refused else error  # of a file that is wrong, its faults say all
            said = "rules.toml is wrong, the old rules stay in force"
            logger.error(said, exc_info=trace, extra={"faults": fault})
        self.fault, self._waits = fault, None
        return False


def _content(found: str | RulesRefused | None) -> tuple[bool, str]:
    return isinstance(found, str), str(found)


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
