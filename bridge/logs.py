"""The log: one line per event in logfmt on stderr, secrets masked."""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from types import TracebackType

from bridge.display import visible
from bridge.redact import Mask

_UNFIT_FOR_KEYS = re.compile(r'[\s="]')
_LONGEST_LINE = 8_000  # log routers cut or drop longer ones
_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime"}  # other attributes are `extra`


def configure(level: str, secrets: Iterable[str]) -> None:
    """Send every log record of the process through one formatter, which masks `secrets`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Logfmt(Mask(secrets)))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("urllib3", "slack_sdk", "alembic", "waitress"):
        logging.getLogger(noisy).setLevel(logging.ERROR)  # we log what they warn of
    sys.excepthook = _log_crash
    threading.excepthook = lambda crash: _log_crash(crash.exc_type, crash.exc_value, crash.exc_traceback)


def hide(secrets: Iterable[str]) -> None:
    """Mask these secrets from now on, instead of those given to `configure`."""
    mask = Mask(secrets)
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, _Logfmt):
            handler.formatter.mask = mask


class _Logfmt(logging.Formatter):
    def __init__(self, mask: Mask) -> None:
        super().__init__()
        self.mask = mask

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        fields |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        line = " ".join(f"{_key(key)}={self._value(value)}" for key, value in fields.items())
        # Masked again as a whole, in case a secret is spread over several fields.
        return _cut(self.mask(line))

    def _value(self, value: object) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, int | float):
            return str(value)
        # Masked before it is escaped.
        text = visible(self.mask(str(value)), lines=True).replace("\t", "\\t")
        quoted = any(character in text for character in ' ="')
        text = (text.replace("\\", "\\\\") if quoted else text).replace('"', '\\"').replace("\n", "\\n")
        return f'"{text}"' if quoted else text


def _key(key: str) -> str:
    return _UNFIT_FOR_KEYS.sub("_", visible(key))  # logfmt allows no such characters in keys


def _log_crash(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """Log an uncaught exception; Python itself would print its secrets."""
    if error is None or issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    logging.getLogger(__name__).critical("crashed", exc_info=(kind, error, trace))


def _cut(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else line[:_LONGEST_LINE] + "…"
